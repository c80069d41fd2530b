"""What the rules of the outlier detector flag, where it is known which rows are outliers.

    python benchmarks/false_discoveries.py

Outliers are planted among new rows, in shares from none to a fifth, again and again. Of each rule:
the fraction of its flags that are false (0 where there are none), and the fraction of the outliers
that it flags, both as means over the resamplings. Then the fraction of clean tables in which the
empirical null flags any row.
"""

import argparse

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import ShuffleSplit
from threadpoolctl import threadpool_limits

from skflows import DensityOutlierDetector

N_ROWS, N_NEW = 3_000, 1_000
SHARES = (0.0, 0.01, 0.05, 0.2)
CALIBRATED = {
    "calibration": "conformal",
    "cv": ShuffleSplit(1, test_size=2 / 3, random_state=0),
}
RULES = {
    "contamination=0.05": {"contamination": 0.05},
    "contamination=0.01": {"contamination": 0.01},
    "alpha=0.05": CALIBRATED | {"alpha": 0.05},
    "alpha=0.01": CALIBRATED | {"alpha": 0.01},
    "fdr=0.1": CALIBRATED | {"fdr": 0.1},
    'fdr=0.1, "adaptive"': CALIBRATED | {"fdr": 0.1, "fdr_method": "adaptive"},
    'fdr=0.1, "by"': CALIBRATED | {"fdr": 0.1, "fdr_method": "by"},
}


def inliers(rng, n):
    """Four columns that hang together, two of them skewed: no mixture fits them exactly."""
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, 4))
    rows = common + 0.7 * own
    rows[:, 2:] = np.exp(0.4 * rows[:, 2:])
    return rows


def with_outliers(rng, share, scale):
    """New rows, and which of them are outliers: a column of each lies 2 to 6 deviations off."""
    rows = inliers(rng, N_NEW)
    odd = np.arange(N_NEW) < round(share * N_NEW)
    column = rng.integers(rows.shape[1], size=odd.sum())
    by = rng.choice([-1, 1], odd.sum()) * rng.uniform(2, 6, odd.sum())
    rows[np.flatnonzero(odd), column] += by * scale[column]
    return rows, odd


def run(n_resamplings):
    """Arrays of shape (resamplings, shares) of the false fraction and the power of each rule."""
    found = {rule: np.full((2, n_resamplings, len(SHARES)), np.nan) for rule in RULES}
    for seed in range(n_resamplings):
        rng = np.random.default_rng(seed)
        X = inliers(rng, N_ROWS)
        new = [with_outliers(rng, share, X.std(axis=0)) for share in SHARES]
        for rule, params in RULES.items():
            density = GaussianMixture(4, random_state=seed)
            detector = DensityOutlierDetector(density, random_state=seed, **params).fit(X)
            for i, (rows, odd) in enumerate(new):
                flagged = detector.predict(rows) == -1
                false = (flagged & ~odd).sum() / max(1, flagged.sum())
                found[rule][:, seed, i] = false, flagged[odd].mean() if odd.any() else np.nan
    return found


CLEAN = {
    "normal": np.random.Generator.standard_normal,
    "uniform": np.random.Generator.uniform,
    "t, 5 degrees": lambda rng, size: rng.standard_t(5, size=size),
    "log-normal": lambda rng, size: rng.lognormal(size=size),
}
SIZES = (50, 200, 1_000)


def clean_tables_with_flags(n_tables):
    """Of each shape and number of rows, the fraction of tables without outliers that get flags."""
    found = {}
    for shape, draw in CLEAN.items():
        for n in SIZES:
            flags = 0
            for seed in range(n_tables):
                X = draw(np.random.default_rng(seed), size=(n, 3))
                density = GaussianMixture(3, random_state=seed)
                detector = DensityOutlierDetector(
                    density, calibration="empirical_null", fdr=0.05, random_state=seed
                ).fit(X)
                flags += detector.flag(detector.p_values_).any()
            found[shape, n] = flags / n_tables
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamplings", type=int, default=200)
    args = parser.parse_args()
    with threadpool_limits(1):
        found = run(args.resamplings)
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
    print("\n| clean tables with flags | " + " | ".join(f"{n:,} rows" for n in SIZES) + " |")
    print("|---" * (1 + len(SIZES)) + "|")
    for shape in CLEAN:
        print(f"| {shape} | " + " | ".join(f"{clean[shape, n]:.0%}" for n in SIZES) + " |")


if __name__ == "__main__":
    main()
