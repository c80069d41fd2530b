"""Draw the pictures of the user guide that no example of the gallery has.

Usage: ``python docs/make_guide_pictures.py``; a build of the documentation draws those that are
missing. All are of real tables, by small fits.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer, load_iris

from skflows import CNFDensity, NSFDensity, RealNVPDensity
from skflows.inspection import DensityDisplay, LossCurveDisplay, SamplesDisplay

FOLDER = Path(__file__).parent / "_static" / "guide"
PETALS = ["petal length (cm)", "petal width (cm)"]


def draw_densities():
    """A density over the petals of iris."""
    petals = load_iris(as_frame=True).data[PETALS]
    flow = NSFDensity(preprocessing="standardize", max_iter=60, random_state=0).fit(petals)
    return DensityDisplay.from_estimator(flow, petals).figure_


def draw_latent_space():
    """The petals of iris, and their latent coordinates."""
    iris = load_iris(as_frame=True)
    flow = RealNVPDensity(max_iter=50, random_state=0).fit(iris.data)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    Z = flow.transform(iris.data)
    for ax, rows, names in (
        (axes[0], iris.data[PETALS].to_numpy(), PETALS),
        (axes[1], Z[:, 2:], ["latent coordinate 2", "latent coordinate 3"]),
    ):
        for place, species in enumerate(iris.target_names):
            ax.scatter(*rows[iris.target == place].T, s=10, label=species)
        ax.set(xlabel=names[0], ylabel=names[1])
    axes[0].legend(frameon=False)
    return figure


def draw_preparation():
    """A skewed column, and its density by two kinds of preprocessing."""
    area = load_breast_cancer(as_frame=True).data[["area error"]]
    area = area[area["area error"] < 200]  # the tail would hide the rest
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for ax, preprocessing in zip(axes, ("standardize", "quantile"), strict=True):
        flow = NSFDensity(preprocessing=preprocessing, max_iter=5, random_state=0).fit(area)
        DensityDisplay.from_estimator(flow, area, ax=ax, grid_resolution=400)
        ax.set_title(f'preprocessing="{preprocessing}", five epochs', fontsize="medium")
    return figure


def draw_training():
    """Training and validation loss by epoch."""
    X = load_breast_cancer(as_frame=True).data.filter(like="mean")
    flow = NSFDensity(random_state=0).fit(X)
    return LossCurveDisplay.from_estimator(flow).figure_


def draw_pictures():
    """Pairs of columns of iris and of samples."""
    X = load_iris(as_frame=True).data
    flow = NSFDensity(max_iter=50, random_state=0).fit(X)
    return SamplesDisplay.from_estimator(flow, X, features=[0, 2, 3]).figure_


def draw_continuous():
    """A continuous flow of the petals of iris."""
    petals = load_iris(as_frame=True).data[PETALS]
    flow = CNFDensity(max_iter=30, random_state=0).fit(petals)
    return DensityDisplay.from_estimator(flow, petals, grid_resolution=60).figure_


def main(redraws=True):
    """Draw all pictures, or those that are missing."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in [*globals().items()]:
        path = FOLDER / f"{name.removeprefix('draw_')}.png"
        if name.startswith("draw_") and (redraws or not path.exists()):
            figure = draw()
            figure.savefig(path, dpi=80)
            plt.close(figure)


if __name__ == "__main__":
    main()
