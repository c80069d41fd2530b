"""Defects in photographs by one row of features for each image: AUROC.

    python benchmarks/defect_features.py --data DIR --out FILE
    python benchmarks/defect_features.py --show --out FILE

DIR has npz files with features of a pretrained network, X, and labels y, 1 for defects, such as the
categories of MVTec AD in ADBench. 70 % of the rows without a defect are fitted, by seed 0; the
others and all defects are scored. "detector" is `DensityOutlierDetector(calibration="conformal")`,
"flow" a RealNVP of 64 whitened principal components, "Gaussian" the Mahalanobis distance by a
shrunk covariance, "neighbour" the distance to the nearest row. The last two see standardised
columns. "seconds" is processor time.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, print_table, read
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skflows import DensityOutlierDetector, RealNVPDensity


def detector(train):
    model = DensityOutlierDetector(random_state=0, calibration="conformal").fit(train)
    return lambda X: -model.score_samples(X)


def flow(train):
    n_components = min(64, len(train) - 1)
    components = make_pipeline(StandardScaler(), PCA(n_components, whiten=True)).fit(train)
    density = RealNVPDensity(
        discrete=None, contamination=None, input_noise=0.3, max_iter=60, random_state=0
    ).fit(components.transform(train))
    return lambda X: -density.score_samples(components.transform(X))


def gaussian(train):
    scaler = StandardScaler().fit(train)
    model = LedoitWolf().fit(scaler.transform(train))
    return lambda X: model.mahalanobis(scaler.transform(X))


def neighbour(train):
    scaler = StandardScaler().fit(train)
    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(scaler.transform(train))
    return lambda X: model.kneighbors(scaler.transform(X))[0][:, 0]


CONTESTANTS = {
    "detector": detector,
    "flow": flow,
    "Gaussian": gaussian,
    "neighbour": neighbour,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    if args.show:
        lines = pd.DataFrame(read(args.out))
        table = lines.pivot(index="category", columns="contestant", values="auroc")[[*CONTESTANTS]]
        table = pd.concat([table, table.mean().to_frame("mean").T.rename_axis("category")])
        print_table(table.rename_axis("category"), dict.fromkeys(CONTESTANTS, 3))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of constant columns
    for path in sorted(args.data.glob("*.npz")):
        with np.load(path) as file:
            X, y = file["X"].astype(float), file["y"].ravel()
        good = np.random.default_rng(0).permutation(np.flatnonzero(y == 0))
        n = int(0.7 * len(good))
        test = np.concatenate([X[good[n:]], X[y == 1]])
        labels = np.repeat([0, 1], [len(good) - n, (y == 1).sum()])
        for name, fit in CONTESTANTS.items():
            started = time.process_time()
            scores = fit(X[good[:n]])(test)
            line = {"category": path.stem, "n": n, "contestant": name}
            line["auroc"] = round(roc_auc_score(labels, scores), 4)
            line["seconds"] = round(time.process_time() - started, 1)
            print(json.dumps(line), flush=True)
            append(args.out, line)


if __name__ == "__main__":
    main()
