"""How well our detector and its peers rank outliers, on every labelled table of a folder.

    python benchmarks/outliers.py --data DIR --out outliers.jsonl
    python benchmarks/outliers.py --table outliers.jsonl

One-class: fit to half of the inliers, rank all other rows. Unsupervised: fit to all rows, rank
them. No contestant sees a label. Lines already in ``--out`` are not run again.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from protocol import append, read
from quality import machine
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from skflows import AutoDensity, DensityOutlierDetector, NICEDensity

MAX_ROWS = 8_000
N_NEIGHBORS = 5
# Every second table, by name: their labels were looked at when the default was chosen.
DEVELOPMENT = (
    "15_Hepatitis 19_landsat 20_letter 23_mammography 28_pendigits 31_satimage-2 "
    "35_SpamBase 38_thyroid 42_WBC 44_Wilt 47_yeast 6_cardio"
).split()
# The published settings of NF-SLT, by Kim, Phee & Yoon, "Why the Counterintuitive Phenomenon of
# Likelihood Rarely Appears in Tabular Anomaly Detection with Deep Generative Models?", 2026. Their
# width and learning rate are not published: here they are our default and AdamW's.
NF_SLT = {
    "n_transforms": 5,  # of two couplings each
    "batch_size": 512,
    "max_iter": 200,
    "weight_decay": 1e-4,
    "learning_rate_init": 1e-3,
    "dropout": 0.0,
    "early_stopping": False,
    "preprocessing": (),
    "discrete": None,
}


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


class Detector:
    """Our detector; rows of the fit are scored by models that had not seen them."""

    def __init__(self, estimator, seed, setting):
        # Conformal p-values are for rows without outliers.
        calibration = "conformal" if setting == "one-class" else None
        self.detector = DensityOutlierDetector(
            estimator, calibration=calibration, random_state=seed
        )

    def fit(self, X):
        self.detector.fit(X)
        return self

    def score_samples(self, X):
        return self.detector.score_samples(X)

    def score_fitted(self, X):
        return self.detector.held_out_scores_


METHODS = {
    "detector": lambda seed, setting, limit: Detector(None, seed, setting),
    "AutoDensity": lambda seed, setting, limit: Detector(
        AutoDensity(time_limit=limit, random_state=seed), seed, setting
    ),
    "NICE": lambda seed, *how: NICEDensity(random_state=seed),
    "NF-SLT": lambda seed, *how: make_pipeline(
        RobustScaler(), NICEDensity(**NF_SLT, random_state=seed)
    ),
    "kNN": lambda seed, *how: Neighbors(),
    "LOF": lambda seed, *how: LocalFactor(),
    "IsolationForest": lambda seed, *how: IsolationForest(random_state=seed),
    "OCSVM": lambda seed, *how: OneClassSVM(),
    "GMM": lambda seed, *how: Mixture(seed),
    "ECOD": lambda seed, *how: Ecod(),
}


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
    in_sample = line["setting"] == "unsupervised"
    scorer = getattr(model, "score_fitted", model.score_samples) if in_sample else None
    scores = scorer(test) if in_sample else model.score_samples(test)
    line["seconds"] = round(time.perf_counter() - started, 2)
    line["auc"] = float(roc_auc_score(y, -scores))
    line["ap"] = float(average_precision_score(y, -scores))
    return line


def print_tables(lines):
    for setting in sorted({line["setting"] for line in lines}):
        found = {(x["set"], x["method"], x["seed"]): x for x in lines if x["setting"] == setting}
        names, _, seeds = ({key[i] for key in found} for i in range(3))
        methods = [m for m in METHODS if any(method == m for _, method, _ in found)]

        def has(sets, methods, seeds, found=found):
            return all((s, m, seed) in found for s in sets for m in methods for seed in seeds)

        # Tables and seeds that all contestants have run.
        names = [name for name in sorted(names) if has([name], methods, [min(seeds)])]
        common = [seed for seed in sorted(seeds) if has(names, methods, [seed])]

        def mean(sets, method, key, seeds=common, found=found, of=statistics.mean):
            return of([found[s, method, seed][key] for s in sets for seed in seeds])

        print(f"\n{setting}: AUROC in per cent, {len(names)} tables, seeds {listed(common)}\n")
        print("| table (n, d) | " + " | ".join(methods) + " |")
        print("|---" * (len(methods) + 1) + "|")
        for name in names:
            line = found[name, methods[0], common[0]]
            title = f"{name} ({line['n']}, {line['d']})"
            print(row(title, [100 * mean([name], m, "auc") for m in methods]))
        groups = {
            "all": names,
            "development": [name for name in names if name in DEVELOPMENT],
            "test": [name for name in names if name not in DEVELOPMENT],
        }
        for key, title in (("auc", "mean AUROC"), ("ap", "mean average precision")):
            for group, sets in groups.items():
                if sets:
                    print(row(f"{title}, {group}", [100 * mean(sets, m, key) for m in methods]))
            leads = [
                [100 * (mean([s], methods[0], key) - mean([s], m, key)) for s in names]
                for m in methods[1:]
            ]
            cells = " | ".join(with_error(values) for values in leads)
            print(f"| lead of {methods[0]} (standard error over tables) | | {cells} |")
            cells = " | ".join(f"{min(values):+.1f}" for values in leads)
            print(f"| smallest lead of {methods[0]} on a table | | {cells} |")
            if len(seeds) > len(common):
                means = [
                    100 * mean(names, m, key, seeds) if has(names, [m], seeds) else None
                    for m in methods
                ]
                print(row(f"{title}, all, seeds {listed(sorted(seeds))}", means))
        medians = [mean(names, m, "seconds", of=statistics.median) for m in methods]
        print("| median seconds | " + " | ".join(f"{value:.2g}" for value in medians) + " |")
    for where in sorted({(x["machine"], x["threads"]) for x in lines}):
        print("\nMachine: {}; threads: {}".format(*where))


def listed(numbers):
    return ", ".join(map(str, numbers))


def with_error(values):
    if len(values) < 2:
        return f"{statistics.mean(values):+.1f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):+.1f} ({error:.1f})"


def row(title, values):
    return f"| {title} | " + " | ".join("" if v is None else f"{v:.1f}" for v in values) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of npz tables with X and y")
    parser.add_argument("--sets", nargs="*", help="names of tables, without .npz (default: all)")
    parser.add_argument("--settings", nargs="*", default=["one-class", "unsupervised"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--time-limit", type=float, help="seconds for a fit of the detector")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the seconds of this process alone, on a machine that has other work",
    )
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
    if args.processor_time:
        time.time = time.monotonic = time.perf_counter = time.process_time
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
                append(args.out, line)
            print(
                *(line[key] for key in ("setting", "set", "method", "auc", "seconds")),
                file=sys.stderr,
            )
    print_tables(lines)


if __name__ == "__main__":
    main()
