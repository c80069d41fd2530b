"""Draw the picture of the page "Getting started".

python docs/make_getting_started_picture.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skflows import NSFDensity
from skflows.inspection import LossCurveDisplay, SamplesDisplay


def main():
    X = load_breast_cancer(as_frame=True).data.filter(like="mean")
    X_train, _ = train_test_split(X, random_state=0)
    flow = NSFDensity(random_state=0).fit(X_train)
    figure, axes = plt.subplot_mosaic(
        [["loss", "samples"]], figsize=(13, 6), width_ratios=[1, 1.4], layout="constrained"
    )
    LossCurveDisplay.from_estimator(flow, ax=axes["loss"])
    SamplesDisplay.from_estimator(flow, X_train, features=[0, 1, 4], ax=axes["samples"])
    figure.savefig(Path(__file__).parent / "_static" / "getting_started.png", dpi=80)


if __name__ == "__main__":
    main()
