"""How well our detector and its peers rank outliers, on every labelled table of a folder.

    python benchmarks/outliers.py --data DIR --out outliers.jsonl
    python benchmarks/outliers.py --table outliers.jsonl

One-class: fit to half of the inliers, rank all other rows. Unsupervised: fit to all rows, rank
them. Labels only measure: nobody sees them before. Lines already in ``--out`` are not run again.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from quality import machine, read
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from skflows import AutoDensity, DensityOutlierDetector, NICEDensity

MAX_ROWS = 8_000
N_NEIGHBORS = 5


class Neighbors:
    """Distance to the fifth neighbour, which of a row of the fit is not the row itself."""

    def fit(self, X):
        self.index = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(X)
        return self

    def score_samples(self, X):
        return -self.index.kneighbors(X)[0][:, -1]

    def score_fitted(self, X):
        return -self.index.kneighbors()[0][:, -1]


class LocalFactor:
    """scikit-learn's LOF, in either of its two modes."""

    def fit(self, X):
        self.novel = LocalOutlierFactor(novelty=True).fit(X)
        return self

    def score_samples(self, X):
        return self.novel.score_samples(X)

    def score_fitted(self, X):
        return self.novel.negative_outlier_factor_


class Mixture:
    """scikit-learn's Gaussian mixture, of as many components as its BIC asks for."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X):
        numbers = [k for k in (1, 2, 5, 10) if k < len(X)]
        mixtures = [
            GaussianMixture(k, reg_covar=1e-3, random_state=self.seed).fit(X) for k in numbers
        ]
        self.mixture = min(mixtures, key=lambda mixture: mixture.bic(X))
        return self

    def score_samples(self, X):
        return self.mixture.score_samples(X)


class Ecod:
    """pyod's ECOD: products of the columns' tail probabilities."""

    def fit(self, X):
        from pyod.models.ecod import ECOD

        self.model = ECOD().fit(X)
        return self

    def score_samples(self, X):
        return -self.model.decision_function(X)

    def score_fitted(self, X):
        return -self.model.decision_scores_


class Ours:
    """Our detector; rows of the fit are scored by models that had not seen them."""

    def __init__(self, statistic, seed, setting, time_limit):
        # All rows are to be held out once where they are ranked themselves.
        cv = 5 if setting == "unsupervised" else "auto"
        density = AutoDensity(time_limit=time_limit, cv=cv, random_state=seed)
        self.detector = DensityOutlierDetector(density, statistic=statistic, random_state=seed)

    def fit(self, X):
        self.detector.fit(X)
        return self

    def score_samples(self, X):
        return self.detector.score_samples(X)

    def score_fitted(self, X):
        return self.detector.held_out_scores_


class OtherStatistic(Ours):
    """Our detector by another statistic, on the density that the one before has fitted."""

    last = None

    def fit(self, X):
        (model,) = self.last.detector.models_
        self.model = model._replace(score=self.detector.statistic)
        return self

    def score_samples(self, X):
        return self.model.score_samples(X)

    def score_fitted(self, X):
        return self.model.density.held_out_scores_


METHODS = {
    "detector": lambda seed, *how: Ours("log_pool", seed, *how),
    "log_density": lambda seed, *how: OtherStatistic("log_density", seed, *how),
    "NICE": lambda seed, *how: NICEDensity(random_state=seed),
    "kNN": lambda seed, *how: Neighbors(),
    "LOF": lambda seed, *how: LocalFactor(),
    "IsolationForest": lambda seed, *how: IsolationForest(random_state=seed),
    "OCSVM": lambda seed, *how: OneClassSVM(),
    "GMM": lambda seed, *how: Mixture(seed),
    "ECOD": lambda seed, *how: Ecod(),
}
OURS = ["detector", "log_density", "NICE"]


def tables(path, setting, seed):
    """Rows to fit to, rows to rank and their labels (1 for outliers), all standardised."""
    rng = np.random.default_rng(seed)
    with np.load(path, allow_pickle=True) as table:
        X, y = np.asarray(table["X"], dtype=float), table["y"].ravel().astype(int)
    kept = rng.permutation(len(X))[:MAX_ROWS]
    X, y = X[kept], y[kept]
    train = test = np.arange(len(X))
    if setting == "one-class":
        inliers = np.flatnonzero(y == 0)
        train = inliers[: len(inliers) // 2]
        test = np.setdiff1d(test, train)
    mean, scale = X[train].mean(axis=0), X[train].std(axis=0)
    X = (X - mean) / np.where(scale > 0, scale, 1.0)
    return X[train], X[test], y[test]


def run(line, path, time_limit):
    train, test, y = tables(path, line["setting"], line["seed"])
    line["n"], line["d"] = train.shape
    started = time.perf_counter()
    model = METHODS[line["method"]](line["seed"], line["setting"], time_limit).fit(train)
    if line["method"] == "detector":
        OtherStatistic.last = model
    in_sample = line["setting"] == "unsupervised"
    scorer = getattr(model, "score_fitted", model.score_samples) if in_sample else None
    scores = scorer(test) if in_sample else model.score_samples(test)
    line["seconds"] = round(time.perf_counter() - started, 2)
    line["auc"] = float(roc_auc_score(y, -scores))
    line["ap"] = float(average_precision_score(y, -scores))
    return line


def print_tables(lines):
    for setting in sorted({line["setting"] for line in lines}):
        found = defaultdict(lambda: defaultdict(list))
        for line in lines:
            if line["setting"] == setting:
                found[line["set"]][line["method"]].append(line)
        sizes = {
            line["set"]: (line["n"], line["d"]) for line in lines if line["setting"] == setting
        }
        methods = [m for m in METHODS if any(m in row for row in found.values())]
        complete = [name for name in sorted(found) if all(m in found[name] for m in methods)]
        seeds = {line["seed"] for line in lines if line["setting"] == setting}
        print(f"\n{setting}: AUROC in per cent, {len(complete)} tables, seeds {sorted(seeds)}\n")
        print("| table (n, d) | " + " | ".join(methods) + " |")
        print("|---" * (len(methods) + 1) + "|")
        for name in complete:
            values = [mean(found[name][m], "auc") for m in methods]
            print(row("{} ({}, {})".format(name, *sizes[name]), values))
        for key, title in (("auc", "mean AUROC"), ("ap", "mean average precision")):
            print(
                row(
                    title,
                    [statistics.mean(mean(found[s][m], key) for s in complete) for m in methods],
                )
            )
        seconds = [
            statistics.median(mean(found[s][m], "seconds") for s in complete) / 100 for m in methods
        ]
        print("| median seconds | " + " | ".join(f"{value:.2g}" for value in seconds) + " |")
    for where in sorted({(x["machine"], x["threads"], x["time_limit"] or 0) for x in lines}):
        print(
            "\nMachine: {}; threads: {}; time limit of a fit of the detector: {:g} s".format(*where)
        )


def mean(lines, key):
    return 100 * statistics.mean(line[key] for line in lines)


def row(title, values):
    return f"| {title} | " + " | ".join(f"{value:.1f}" for value in values) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of npz tables with X and y")
    parser.add_argument("--sets", nargs="*", help="names of tables, without .npz (default: all)")
    parser.add_argument("--settings", nargs="*", default=["one-class", "unsupervised"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--time-limit", type=float, help="seconds for a fit of the detector")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON lines file to append to and resume from")
    parser.add_argument("--table", type=Path, help="print the tables of this file and leave")
    args = parser.parse_args()
    if args.table:
        print_tables(read(args.table))
        return
    if args.data is None:
        parser.error("give --data or --table")
    lines = read(args.out) if args.out and args.out.exists() else []
    done = {(x["set"], x["method"], x["setting"], x["seed"]) for x in lines}
    paths = sorted(args.data.glob("*.npz"), key=lambda path: path.stat().st_size)
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # a contestant's warnings would bury the progress lines
    where = {"machine": machine(), "threads": args.threads, "time_limit": args.time_limit}
    jobs = [
        (path, {"set": path.stem, "method": method, "setting": setting, "seed": seed, **where})
        for seed in args.seeds
        for setting in args.settings
        for path in paths
        if not args.sets or path.stem in args.sets
        for method in args.methods
        if (path.stem, method, setting, seed) not in done
    ]
    with threadpool_limits(args.threads):
        for path, line in jobs:
            lines.append(run(line, path, args.time_limit))
            if args.out:
                with args.out.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
            print(
                *(line[key] for key in ("setting", "set", "method", "auc", "seconds")),
                file=sys.stderr,
            )
    print_tables(lines)


if __name__ == "__main__":
    main()
