"""Seconds that fits with a time limit take on nine extreme shapes.

    python benchmarks/time_limits.py

A fit should take at most 1.5 times its limit and a second.
"""

import argparse
import time
import warnings

import numpy as np

import skflows

CASES = {
    "CNFDensity, 100,000 x 20": (skflows.CNFDensity(), (100_000, 20), 3),
    "NSFDensity, 20 x 1,000": (skflows.NSFDensity(), (20, 1000), 3),
    "NSFDensity, 1,000,000 x 5": (skflows.NSFDensity(), (1_000_000, 5), 3),
    "MAFDensity, 200 x 500": (skflows.MAFDensity(), (200, 500), 3),
    "IAFDensity, 5,000 x 100": (skflows.IAFDensity(), (5000, 100), 3),
    "PlanarDensity, 200,000 x 10": (skflows.PlanarDensity(), (200_000, 10), 3),
    "GlowDensity, 1,000 x 300": (skflows.GlowDensity(), (1000, 300), 3),
    "GaussianizationDensity, 3,000,000 x 3": (
        skflows.GaussianizationDensity(),
        (3_000_000, 3),
        10,
    ),
    "AutoDensity, 20,000 x 30": (skflows.AutoDensity(), (20_000, 30), 10),
}


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    warnings.simplefilter("ignore")  # of convergence, which the limits prevent
    skflows.NSFDensity(max_iter=1).fit(np.random.default_rng(0).normal(size=(50, 2)))  # imports
    print("| fit | limit, s | took, s |\n|---|---|---|")
    for name, (estimator, shape, limit) in CASES.items():
        X = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        estimator.set_params(time_limit=limit, random_state=0)
        started = time.perf_counter()
        estimator.fit(X)
        print(f"| {name} | {limit} | {time.perf_counter() - started:.1f} |", flush=True)


if __name__ == "__main__":
    main()
