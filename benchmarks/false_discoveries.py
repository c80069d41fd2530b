"""What the rules of the outlier detector flag, where it is known which rows are outliers.

    python benchmarks/false_discoveries.py
    python benchmarks/false_discoveries.py --data DIR

Without ``--data``, outliers are planted among new rows, in shares from none to a fifth, again and
again. Of each rule: the fraction of its flags that are false (0 where there are none), and the
fraction of the outliers that it flags, both as means over the resamplings. Then the power of the
default detector where few rows calibrate, by usual and randomised p-values; the same two fractions,
with the standard error of the first, for ``fdr_method="adaptive"`` and many outliers; and the
fraction of clean tables in which the empirical null flags any row.

With ``--data``, the labelled tables of a folder: half of the inliers calibrate, all other rows are
new. For each detector, the means over tables and seeds of the same two fractions at ``fdr=0.1``.
"""

import argparse
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from outliers import DEVELOPMENT, tables
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import ShuffleSplit
from sklearn.neighbors import LocalOutlierFactor
from threadpoolctl import threadpool_limits

from skflows import DensityOutlierDetector

N_ROWS, N_NEW = 3_000, 1_000
SHARES = (0.0, 0.01, 0.05, 0.2)
CALIBRATED = {
    "calibration": "conformal",
    "cv": ShuffleSplit(1, test_size=2 / 3, random_state=0),
}
CONFORMAL_FDR = {"calibration": "conformal", "fdr": 0.1}
MIXTURE = GaussianMixture(4, random_state=0)
FOREST = IsolationForest(random_state=0)
RULES = {  # what is shown: the estimator of the detector, and its other parameters
    "mixture, contamination=0.05": (MIXTURE, {"contamination": 0.05}),
    "mixture, contamination=0.01": (MIXTURE, {"contamination": 0.01}),
    "mixture, split, alpha=0.05": (MIXTURE, CALIBRATED | {"alpha": 0.05}),
    "mixture, split, alpha=0.01": (MIXTURE, CALIBRATED | {"alpha": 0.01}),
    "mixture, split, fdr=0.1": (MIXTURE, CALIBRATED | {"fdr": 0.1}),
    "mixture, split, fdr=0.1, adaptive": (
        MIXTURE,
        CALIBRATED | {"fdr": 0.1, "fdr_method": "adaptive"},
    ),
    "mixture, split, fdr=0.1, by": (MIXTURE, CALIBRATED | {"fdr": 0.1, "fdr_method": "by"}),
    "mixture, 5 folds, fdr=0.1": (MIXTURE, CONFORMAL_FDR),
    "isolation forest, 5 folds, fdr=0.1": (FOREST, CONFORMAL_FDR),
    "default detector, split, fdr=0.1": (None, CALIBRATED | {"fdr": 0.1}),
    "default detector, fdr=0.1": (None, CONFORMAL_FDR),
}


def inliers(rng, n):
    """Four columns that hang together, two of them skewed: no mixture fits them exactly."""
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, 4))
    rows = common + 0.7 * own
    rows[:, 2:] = np.exp(0.4 * rows[:, 2:])
    return rows


def with_outliers(rng, share, scale, n=N_NEW):
    """New rows, and which of them are outliers: a column of each lies 2 to 6 deviations off."""
    rows = inliers(rng, n)
    odd = np.arange(n) < round(share * n)
    column = rng.integers(rows.shape[1], size=odd.sum())
    by = rng.choice([-1, 1], odd.sum()) * rng.uniform(2, 6, odd.sum())
    rows[np.flatnonzero(odd), column] += by * scale[column]
    return rows, odd


def rates(flagged, odd):
    """Return the fraction of the flags that are false, and of the outliers that are flagged."""
    false = (flagged & ~odd).sum() / max(1, flagged.sum())
    return false, flagged[odd].mean() if odd.any() else np.nan


def run(n_resamplings):
    """Arrays of shape (resamplings, shares) of the false fraction and the power of each rule."""
    found = {rule: np.full((2, n_resamplings, len(SHARES)), np.nan) for rule in RULES}
    for seed in range(n_resamplings):
        rng = np.random.default_rng(seed)
        X = inliers(rng, N_ROWS)
        new = [with_outliers(rng, share, X.std(axis=0)) for share in SHARES]
        for rule, (estimator, params) in RULES.items():
            detector = DensityOutlierDetector(estimator, random_state=seed, **params).fit(X)
            for i, (rows, odd) in enumerate(new):
                found[rule][:, seed, i] = rates(detector.predict(rows) == -1, odd)
    return found


FEW = (50, 100, 200, 500)
KINDS = ("usual", "randomised")


def power_with_few_rows(n_resamplings):
    """Array of shape (sizes, kinds, shares, 2): false fraction and power at fdr=0.1."""
    found = np.zeros((len(FEW), 2, len(SHARES) - 1, 2))
    for (i, n), seed in product(enumerate(FEW), range(n_resamplings)):
        rng = np.random.default_rng(seed)
        X = inliers(rng, n)
        detector = DensityOutlierDetector(random_state=seed, **CONFORMAL_FDR).fit(X)
        for k, share in enumerate(SHARES[1:]):
            rows, odd = with_outliers(rng, share, X.std(axis=0))
            for j in (False, True):
                flagged = detector.flag(
                    detector.p_values(rows, randomized=j, random_state=n_resamplings + seed)
                )
                found[i, int(j), k] += np.array(rates(flagged, odd)) / n_resamplings
    return found


CALIBRATION_ROWS = (9, 19, 100, 1_000)
MANY = [*product((50, N_NEW), (0.1, 0.5, 0.8))]  # numbers of new rows, and shares of outliers


def adaptive_rates(n_resamplings):
    """Array (sizes, kinds of p-values, resamplings, MANY, 2) of the adaptive method at fdr=0.1.

    Rows calibrate one mixture, which has not seen them: the false fraction should be 10 % at most.
    """
    rows = inliers(np.random.default_rng(0), N_ROWS)
    scale = rows.std(axis=0)
    detector = DensityOutlierDetector(
        FrozenEstimator(clone(MIXTURE).fit(rows)), **CONFORMAL_FDR, fdr_method="adaptive"
    )
    found = np.zeros((len(CALIBRATION_ROWS), 2, n_resamplings, len(MANY), 2))
    for (i, n), seed in product(enumerate(CALIBRATION_ROWS), range(n_resamplings)):
        rng = np.random.default_rng([seed, n])
        detector.fit(inliers(rng, n))
        for k, (n_new, share) in enumerate(MANY):
            new, odd = with_outliers(rng, share, scale, n_new)
            for j in (False, True):
                p_values = detector.p_values(new, randomized=j, random_state=seed)
                found[i, int(j), seed, k] = rates(detector.flag(p_values), odd)
    return found


CLEAN = {
    "normal": np.random.Generator.standard_normal,
    "uniform": np.random.Generator.uniform,
    "t, 5 degrees": lambda rng, size: rng.standard_t(5, size=size),
    "log-normal": lambda rng, size: rng.lognormal(size=size),
}
SIZES = (50, 200, 1_000)
JUDGES = {"mixture of 3": GaussianMixture(3, random_state=0), "default detector": None}


def clean_tables_with_flags(n_tables):
    """Return the fraction of clean tables with flags, by judge, shape and number of rows."""
    found = {}
    for (judge, estimator), (shape, draw), n in product(JUDGES.items(), CLEAN.items(), SIZES):
        flags = 0
        for seed in range(n_tables):
            X = draw(np.random.default_rng(seed), size=(n, 3))
            detector = DensityOutlierDetector(
                estimator, calibration="empirical_null", fdr=0.05, random_state=seed
            ).fit(X)
            flags += detector.flag(detector.p_values_).any()
        found[judge, shape, n] = flags / n_tables
    return found


DETECTORS = {  # what is shown: the estimator
    "default detector": None,
    "LocalOutlierFactor, 5 folds": LocalOutlierFactor(novelty=True),
    "isolation forest, 5 folds": FOREST,
    "mixture, 5 folds": GaussianMixture(4, reg_covar=1e-3, random_state=0),
}


def print_real_tables(paths, seeds):
    """Print the mean false fraction and power of each detector over either half of the tables."""
    found = {name: {True: [], False: []} for name in DETECTORS}
    for path, seed in product(paths, seeds):
        train, new, odd = tables(path, "one-class", seed)
        for name, estimator in DETECTORS.items():
            detector = DensityOutlierDetector(estimator, **CONFORMAL_FDR, random_state=seed)
            flagged = detector.fit(train).predict(new) == -1
            found[name][path.stem in DEVELOPMENT].append(rates(flagged, odd == 1))
    print("| fdr=0.1 | development tables | other tables |\n|---|---|---|")
    for name, groups in found.items():
        cells = [
            "{:.0%}, {:.0%}".format(*np.mean(values, axis=0)) if values else ""
            for values in groups.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamplings", type=int, default=200)
    parser.add_argument("--data", type=Path, help="folder of npz tables with X and y")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # that the smallest p-value is too large to be flagged
    if args.data:
        with threadpool_limits(1):
            print_real_tables(sorted(args.data.glob("*.npz")), seeds=range(3))
        return
    with threadpool_limits(1):
        found = run(args.resamplings)
        few = power_with_few_rows(args.resamplings // 2)
        adaptive = adaptive_rates(5 * args.resamplings)
        clean = clean_tables_with_flags(args.resamplings // 5)
    shares = [f"{share:.0%}" for share in SHARES]
    print("| outliers among the new rows | " + " | ".join(shares) + " |")
    print("|---" * (1 + len(SHARES)) + "|")
    for rule, (false, power) in found.items():
        pairs = [
            f"{f:.0%}" + ("" if np.isnan(p) else f", {p:.0%}")
            for f, p in zip(false.mean(axis=0), power.mean(axis=0), strict=True)
        ]
        print(f"| `{rule}` | " + " | ".join(pairs) + " |")
    errors = max(values[0].std(axis=0).max() for values in found.values())
    print(
        f"\nStandard errors of the false fractions: {errors / args.resamplings**0.5:.1%} at most."
    )
    print("\n| default detector, fdr=0.1: rows, p-values | " + " | ".join(shares[1:]) + " |")
    print("|---" * len(SHARES) + "|")
    for (i, n), (j, kind) in product(enumerate(FEW), enumerate(KINDS)):
        cells = " | ".join(f"{false:.0%}, {power:.0%}" for false, power in few[i, j])
        print(f"| {n}, {kind} | {cells} |")
    labels = " | ".join(f"{share:.0%} of {n_new:,}" for n_new, share in MANY)
    print(f"\n| adaptive, fdr=0.1: calibration rows, p-values | {labels} |")
    print("|---" * (1 + len(MANY)) + "|")
    for (i, n), (j, kind) in product(enumerate(CALIBRATION_ROWS), enumerate(KINDS)):
        means = adaptive[i, j].mean(axis=0)
        errors = adaptive[i, j, ..., 0].std(axis=0) / (5 * args.resamplings) ** 0.5
        cells = " | ".join(
            f"{false:.1%} ({error:.1%}), {power:.0%}"
            for (false, power), error in zip(means, errors, strict=True)
        )
        print(f"| {n:,}, {kind} | {cells} |")
    print("\n| clean tables with flags | " + " | ".join(f"{n:,} rows" for n in SIZES) + " |")
    print("|---" * (1 + len(SIZES)) + "|")
    for judge, shape in product(JUDGES, CLEAN):
        cells = " | ".join(f"{clean[judge, shape, n]:.0%}" for n in SIZES)
        print(f"| {judge}, {shape} | {cells} |")


if __name__ == "__main__":
    main()
