"""Gain of each compiled kernel in whole fits: the time without it over the time with it.

    python benchmarks/kernel_gains.py --out FILE

Fits with all kernels and without one of them take turns in one process, on one thread. Processor
time is measured, so that other work on the machine counts little, and all epochs are run.
"""

import argparse
import json
import statistics
from contextlib import contextmanager
from time import process_time
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from quality import machine
from threadpoolctl import threadpool_limits

import skflows
from skflows.bijections import Affine, RationalQuadraticSpline
from skflows.training import optimizer

KERNELS = {
    "spline": patch.object(RationalQuadraticSpline, "has_kernels", lambda *args: False),
    "affine": patch.object(Affine, "has_kernels", lambda *args: False),
    "adamw": patch.object(optimizer, "kernels", SimpleNamespace(usable=lambda *args: False)),
}
USED = {"NSF": ["spline", "adamw"]}
# Rows, columns and parameters. Few rows and wide layers leave the optimizer the largest part.
TABLES = {
    "2,000 x 10": (2_000, 10, {"max_iter": 30}),
    "10,000 x 20": (10_000, 20, {"max_iter": 5}),
    "200 x 10": (200, 10, {"max_iter": 100}),
    "2,000 x 10, layers of 256": (2_000, 10, {"max_iter": 8, "hidden_layer_sizes": (256, 256)}),
}


def rows(n, d):
    """Rows whose columns depend on each other, and are not normal."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) @ rng.standard_normal((d, d))
    return X + np.sin(2 * X[:, ::-1])


def seconds_of_fit(name, X, params):
    estimator = getattr(skflows, f"{name}Density")(
        random_state=0, early_stopping=True, n_iter_no_change=params["max_iter"], **params
    )
    started = process_time()
    estimator.fit(X)
    return process_time() - started


def gains(name, X, params, n_pairs):
    """Median seconds of a fit, and the median ratio of times without each kernel and with it."""
    seconds, found = [], {}
    for kernel in USED.get(name, ["affine", "adamw"]):
        ratios = []
        for i in range(1 + n_pairs):
            pair = {}
            for is_without in [False, True] if i % 2 else [True, False]:
                with KERNELS[kernel] if is_without else contextmanager(lambda: iter([0]))():
                    pair[is_without] = seconds_of_fit(name, X, params)
            if i:  # the first pair warms up
                ratios.append(pair[True] / pair[False])
                seconds.append(pair[False])
        found[kernel] = [round(value, 3) for value in np.quantile(ratios, [0, 0.5, 1]).tolist()]
    return statistics.median(seconds), found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", nargs="+", default=["NSF", "MAF", "RealNVP"])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", required=True, help="file for one line of JSON for each fit")
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = {"machine": machine(), "instructions": torch.backends.cpu.get_cpu_capability()}
    with threadpool_limits(1), open(args.out, "a", encoding="utf-8") as out:
        for name in args.flows:
            for table in args.tables:
                n, d, params = TABLES[table]
                seconds, found = gains(name, rows(n, d), params, args.pairs)
                line = {"flow": name, "table": table, "seconds": round(seconds, 3), **found}
                print(json.dumps(line), flush=True)
                out.write(json.dumps({**line, "pairs": args.pairs, **where}) + "\n")


if __name__ == "__main__":
    main()
