"""How far our automatic density and the peers stay from densities that are known.

    python benchmarks/exact.py --out exact.jsonl
    python benchmarks/exact.py --table exact.jsonl

The figures are differences to the truth: the mean over new rows of the true log-density minus the
contestant's, 0 for the truth itself. Lines already in ``--out`` are not run again.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from peers import PEERS
from protocol import append, read
from quality import brief, machine, run, warm_up
from scipy import stats
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

N_TEST = 5000
METHODS = ["AutoDensity", "sklearn-GMM", "sklearn-KDE", "zuko-NSF5", "nflows-RQS"]


class Gaussian:
    """20 columns, their covariance drawn at random."""

    def __init__(self, rng, d=20):
        factor = rng.standard_normal((d, d)) / d**0.5
        self.density = stats.multivariate_normal(cov=factor @ factor.T + 0.1 * np.eye(d))

    def sample(self, rng, n):
        return self.density.rvs(n, random_state=rng)

    def log_density(self, X):
        return self.density.logpdf(X)


class Mixture:
    """8 correlated normals in 4 columns, some of them overlapping."""

    def __init__(self, rng, k=8, d=4):
        self.parts = []
        for _ in range(k):
            factor = rng.standard_normal((d, d)) / d**0.5
            mean = 3 * rng.standard_normal(d)
            self.parts.append(stats.multivariate_normal(mean, factor @ factor.T + 0.1 * np.eye(d)))

    def sample(self, rng, n):
        counts = rng.multinomial(n, np.full(len(self.parts), 1 / len(self.parts)))
        rows = [
            part.rvs(count, random_state=rng).reshape(count, -1)
            for part, count in zip(self.parts, counts, strict=True)
        ]
        return rng.permutation(np.concatenate(rows))

    def log_density(self, X):
        return logsumexp([part.logpdf(X) for part in self.parts], axis=0) - np.log(len(self.parts))


class Funnel:
    """Neal's funnel in 5 columns: the first is the log-variance of the others."""

    def __init__(self, rng):
        pass

    def sample(self, rng, n):
        v = 1.5 * rng.standard_normal(n)
        return np.column_stack([v, np.exp(v / 2)[:, None] * rng.standard_normal((n, 4))])

    def log_density(self, X):
        v = X[:, :1]
        return stats.norm.logpdf(v[:, 0], scale=1.5) + stats.norm.logpdf(
            X[:, 1:], scale=np.exp(v / 2)
        ).sum(axis=1)


class Cauchy:
    """A correlated Cauchy distribution in 3 columns, without mean or variance."""

    def __init__(self, rng):
        shape = [[1, 0.6, 0.2], [0.6, 1, -0.3], [0.2, -0.3, 1]]
        self.density = stats.multivariate_t(shape=shape, df=1)

    def sample(self, rng, n):
        return self.density.rvs(n, random_state=rng)

    def log_density(self, X):
        return self.density.logpdf(X)


class Box:
    """Uniform on a box of 5 columns."""

    def __init__(self, rng):
        pass

    def sample(self, rng, n):
        return rng.uniform(size=(n, 5))

    def log_density(self, X):
        return np.where(((X >= 0) & (X <= 1)).all(axis=1), 0.0, -np.inf)


DENSITIES = {
    "Gaussian": Gaussian,
    "mixture of 8": Mixture,
    "funnel": Funnel,
    "Cauchy": Cauchy,
    "box": Box,
}


def tables(name, n, seed):
    """Training, validation and test rows, standardised by the first, and the truth's score."""
    rng = np.random.default_rng(seed)
    truth = DENSITIES[name](rng)
    X, test = truth.sample(rng, n), truth.sample(rng, N_TEST)
    n_train = int(7 / 8 * n)  # 70 % and 10 %, as in the protocol of the real tables
    mean, scale = X[:n_train].mean(axis=0), X[:n_train].std(axis=0)
    score = truth.log_density(test).mean() + np.log(scale).sum()
    X, test = (((rows - mean) / scale).astype(np.float32) for rows in (X, test))
    return X[:n_train], X[n_train:], test, float(score)


def print_table(lines):
    print("\nDifference to the true log-density in nats, lower is better (with standard error)\n")
    methods = [method for method in METHODS if method in {line["method"] for line in lines}]
    print("| density | rows | " + " | ".join(methods) + " | our seconds |")
    print("|---" * (len(methods) + 3) + "|")
    for key in sorted({(line["set"], line["n"]) for line in lines}):
        found = {line["method"]: line for line in lines if (line["set"], line["n"]) == key}
        cells = [
            f"{brief(found[m]['gap'])} ({brief(found[m]['se'])})"
            if "gap" in found.get(m, {})
            else "failed"
            if m in found
            else ""
            for m in methods
        ]
        seconds = f"{found['AutoDensity']['fit_s']:.3g}" if "AutoDensity" in found else ""
        print(f"| {key[0]} | {key[1]} | " + " | ".join(cells) + f" | {seconds} |")
    for where in sorted({(x["machine"], x["threads"], x["torch"]) for x in lines}):
        print("\nMachine: {}; threads: {}; torch {}".format(*where))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--densities", nargs="*", default=list(DENSITIES), choices=DENSITIES)
    parser.add_argument("--rows", nargs="*", type=int, default=[200, 2000, 20000])
    parser.add_argument("--methods", nargs="*", default=METHODS, metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes of AutoDensity")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=150, help="seconds a peer flow may train")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to and resume from")
    parser.add_argument("--table", type=Path, help="print the table of this file and leave")
    args = parser.parse_args()
    if args.table:
        print_table(read(args.table))
        return

    lines = read(args.out) if args.out and args.out.exists() else []
    done = {(line["set"], line["n"], line["method"]) for line in lines}
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # a contestant's warnings would bury the progress lines
    where = {"machine": machine(), "threads": args.threads, "torch": torch.__version__}
    with threadpool_limits(args.threads):
        warm_up([method for method in args.methods if method in PEERS])
        for n in args.rows:
            for name in args.densities:
                train, val, test, score = tables(name, n, args.seed)
                for method in args.methods:
                    if (name, n, method) in done:
                        continue
                    line = {"set": name, "n": n, "d": test.shape[1], "method": method}
                    line |= {"seed": args.seed, **where}
                    run(line, train, val, test, args.budget, args.jobs)
                    if "ll" in line:
                        line["gap"] = score - line["ll"]
                    lines.append(line)
                    if args.out:
                        append(args.out, line)
                    gap = f"gap {line['gap']:.3f}" if "gap" in line else "no gap"
                    print(f"{name} {n} {method}: {gap}, {line['fit_s']:.1f} s", file=sys.stderr)
    print_table(lines)


if __name__ == "__main__":
    main()
