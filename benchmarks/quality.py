"""Held-out log-likelihood of our estimators and of the peers, on every table of a folder.

    python benchmarks/quality.py --data DIR --out results.jsonl
    python benchmarks/quality.py --table results.jsonl
    python benchmarks/quality.py --table results.jsonl --against NSFDensity

One JSON line per table, method and seed is appended to ``--out`` as soon as it is known; what is
already there is not run again.
"""

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from collections import defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from peers import PEERS
from protocol import append, leads, load, read
from threadpoolctl import threadpool_limits

from skflows import AutoDensity, GaussianizationDensity, TableDensity, kernels
from skflows.columns.kinds import atoms_of
from skflows.density import ARCHITECTURES
from skflows.preprocessing.dequantizer import Dequantizer

ESTIMATORS = {
    cls.__name__: cls
    for cls in (AutoDensity, TableDensity, GaussianizationDensity, *ARCHITECTURES.values())
}
FLOWS = [name for name in ESTIMATORS if name not in ("AutoDensity", "TableDensity")]
N_SAMPLES = 2000
MIN_WEIGHT = 0.005  # of a component of a mixture that is reported


class Ours:
    """One of our estimators at its defaults; it holds out its own validation rows."""

    weights_ = None

    def __init__(self, name, seed, jobs):
        self.estimator = ESTIMATORS[name](random_state=seed)
        self.spread = []  # column, frequent values and log-gap of those that have probabilities
        if "n_jobs" in self.estimator.get_params():
            self.estimator.set_params(n_jobs=jobs)

    def fit(self, train, val):
        X = np.concatenate([train, val])
        if isinstance(self.estimator, TableDensity):
            columns = dict.fromkeys(range(X.shape[1]), "continuous")
            # The others spread the rows of a frequent value over the gap to the nearest value.
            for j, gap in Dequantizer.for_parameter("auto", X).gaps().items():
                self.spread.append((j, atoms_of(X[:, j]), np.log(gap)))
                columns[j] = "atoms", self.spread[-1][1].tolist(), None, None
            self.estimator.set_params(columns=columns)
        self.estimator.fit(X)
        self.epochs_ = getattr(self.estimator, "n_iter_", None)
        if hasattr(self.estimator, "leaderboard_"):
            board = self.estimator.leaderboard_
            pairs = zip(board["component"], board["weight"], strict=True)
            self.weights_ = {name: round(w, 4) for name, w in pairs if w >= MIN_WEIGHT}
        return self

    def score_samples(self, X):
        log_gaps = sum(log_gap * np.isin(X[:, j], atoms) for j, atoms, log_gap in self.spread)
        return self.estimator.score_samples(X) - log_gaps

    def sample(self, n):
        return self.estimator.sample(n)


def make(name, seed, budget, jobs):
    return PEERS[name](seed=seed, budget=budget) if name in PEERS else Ours(name, seed, jobs)


def timed(function, *args):
    started = time.perf_counter()
    result = function(*args)
    return result, round(time.perf_counter() - started, 4)


def run(line, train, val, test, budget, jobs=1):
    """Fill `line` with what one contestant reaches; what it fails at becomes ``line["error"]``."""
    try:
        started = time.perf_counter()
        try:
            contestant = make(line["method"], line["seed"], budget, jobs).fit(train, val)
        finally:  # known for a failed fit too
            line["fit_s"] = round(time.perf_counter() - started, 4)
        line["epochs"] = contestant.epochs_
        if getattr(contestant, "weights_", None):
            line |= {"weights": contestant.weights_, "jobs": jobs}
        scores, line["score_s"] = timed(contestant.score_samples, test)
        line["nonfinite"] = int((~np.isfinite(scores)).sum())
        if line["nonfinite"] == 0:
            line["ll"] = float(scores.mean())
            line["se"] = float(scores.std() / np.sqrt(len(scores)))
        samples, line["sample_s"] = timed(contestant.sample, N_SAMPLES)
        line["nonfinite_samples"] = int((~np.isfinite(samples)).any(axis=1).sum())
    except ImportError:
        raise  # a missing library is not a result
    except Exception as error:  # whatever a contestant raises is its result
        line["error"] = repr(error)
    return line


def warm_up(methods):
    """Import every library and let torch set itself up, so that no first fit pays for it."""
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    for method in methods:
        run({"method": method, "seed": 0}, X, X, X, budget=0.01)


def machine():
    """The processor's name, which `platform.processor` leaves empty on Linux."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            for line in info:
                if line.startswith("model name"):
                    return f"{line.split(':', 1)[1].strip()} ({os.cpu_count()} cores)"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def likelihood_cell(lines):
    """Mean and standard error: over seeds when there are several, else over test rows."""
    bad = sum(line.get("nonfinite", 0) for line in lines)
    if bad:
        return f"{bad} non-finite"
    if not all("ll" in line for line in lines):
        return f"failed {sum('ll' not in line for line in lines)}/{len(lines)}"
    values = [line["ll"] for line in lines]
    se = lines[0]["se"]
    if len(values) > 1:
        se = statistics.stdev(values) / len(values) ** 0.5
    return f"{brief(statistics.mean(values))} ({brief(se)})"


def brief(value):
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.1e}"


def seconds_cell(lines):
    def mean(key):
        known = [line[key] for line in lines if key in line]
        return f"{statistics.mean(known):.3g}" if known else "-"

    return " / ".join(mean(key) for key in ("fit_s", "score_s", "sample_s"))


def print_table(lines, title, cell):
    present = {line["method"] for line in lines}
    methods = [method for method in [*ESTIMATORS, *PEERS] if method in present]
    cells = defaultdict(list)
    for line in lines:
        cells[line["set"], line["method"]].append(line)
    sets = {line["set"]: f"{line['set']} ({line['n']}, {line['d']})" for line in lines}

    print(f"\n{title}\n")
    print("| set (n_train, d) | " + " | ".join(methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for name, label in sorted(sets.items()):
        row = [cell(cells[name, m]) if cells[name, m] else "" for m in methods]
        print(f"| {label} | " + " | ".join(row) + " |")


def print_lead(lines):
    """Print the lead of AutoDensity over the best peer of each set."""
    print("\nAutoDensity and the best peer of each set, on the seeds that both have\n")
    print("| set (n_train, d) | seeds | AutoDensity | best peer | lead (standard error) |")
    print("|---|---|---|---|---|")
    for row in leads(lines, PEERS):
        print(
            f"| {row['set']} ({row['n']}, {row['d']}) | {row['seeds']} | {brief(row['ours'])} "
            f"| {brief(row['theirs'])} {row['best']} (of {row['peers']}) "
            f"| {brief(row['lead'])} ({brief(row['error'])}) |"
        )


def print_weights(lines):
    """What carries each mixture: mean weights over the seeds."""
    sets = defaultdict(list)
    for line in lines:
        if "weights" in line:
            sets[line["set"]].append(line["weights"])
    print("\nWeights of AutoDensity's components, means over the seeds\n")
    print("| set | components |")
    print("|---|---|")
    for name, weights in sorted(sets.items()):
        total = defaultdict(float)
        for each in weights:
            for component, weight in each.items():
                total[component] += weight / len(weights)
        heaviest = sorted(total.items(), key=lambda item: -item[1])[:6]
        print(f"| {name} | " + ", ".join(f"{c} {w:.2f}" for c, w in heaviest) + " |")


def print_tables(lines):
    if not lines:
        print("No results yet.")
        return
    n_seeds = len({line["seed"] for line in lines})
    over = f"{n_seeds} seeds" if n_seeds > 1 else "test rows"
    title = f"Mean held-out log-likelihood in nats, higher is better (standard error over {over})"
    print_table(lines, title, likelihood_cell)
    if all("fit_s" in line for line in lines):
        title = f"Seconds to fit / to score the test rows / to draw {N_SAMPLES} samples"
        print_table(lines, title, seconds_cell)
    if any(line["method"] == "AutoDensity" for line in lines):
        print_lead(lines)
        print_weights(lines)
    for where in sorted({(x["machine"], x["threads"], x["torch"]) for x in lines}):
        print("\nMachine: {}; threads: {}; torch {}".format(*where))


def print_against(lines, ours):
    """Print by how much an estimator is ahead of each other method on the sets of both."""
    scores = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if "ll" in line:
            scores[line["method"]][line["set"]].append(line["ll"])
    means = {m: {name: statistics.mean(own[name]) for name in own} for m, own in scores.items()}
    groups = {
        "best peer": [m for m in means if m in PEERS],
        "best other flow": [m for m in means if m in FLOWS and m != ours],
    }
    for name, members in groups.items():
        if len(members) > 1:
            sets = set().union(*(means[m] for m in members))
            means[name] = {s: max(means[m].get(s, -np.inf) for m in members) for s in sets}
    print(f"\nLog-density of {ours} minus that of others, in nats\n")
    print("| other | sets | ahead on | median difference | mean difference |")
    print("|---|---|---|---|---|")
    for name in sorted(means, key=lambda name: (name in PEERS, name in groups, name)):
        if name == ours or name in PEERS:
            continue
        gains = [means[ours][s] - means[name][s] for s in means[ours] if s in means[name]]
        ahead = sum(gain > 0 for gain in gains)
        spread = f"{brief(statistics.median(gains))} | {brief(statistics.mean(gains))}"
        print(f"| {name} | {len(gains)} | {ahead} | {spread} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of npz tables")
    names = list(ESTIMATORS)
    parser.add_argument("--sets", nargs="*", help="names of tables, without .npz (default: all)")
    parser.add_argument("--estimators", nargs="*", default=names, choices=names, metavar="NAME")
    parser.add_argument(
        "--peers", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="NAME"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes of AutoDensity")
    parser.add_argument("--budget", type=float, default=150, help="seconds a peer flow may train")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to and resume from")
    parser.add_argument(
        "--table", type=Path, nargs="+", help="print the tables of these files and leave"
    )
    parser.add_argument("--against", metavar="NAME", help="print the lead of this estimator only")
    args = parser.parse_args()
    if args.data is None and args.table is None:
        parser.error("give --data DIR to run, or --table FILE to print")
    return parser, args


def main():
    parser, args = parse()
    if args.table:
        lines = [line for path in args.table for line in read(path)]
        lines = [line for line in lines if line["seed"] in args.seeds]
        if args.against:
            methods = [args.against, *args.estimators, *args.peers]
            print_against([line for line in lines if line["method"] in methods], args.against)
        else:
            print_tables(lines)
        return

    paths = {path.stem: path for path in sorted(args.data.glob("*.npz"))}
    names = list(paths) if args.sets is None else args.sets
    if missing := [name for name in names if name not in paths]:
        parser.error(f"no such table in {args.data}: {', '.join(missing)}")
    lines = read(args.out) if args.out and args.out.exists() else []
    done = {(line["set"], line["method"], line["seed"]) for line in lines}

    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # a contestant's warnings would bury the progress lines
    where = {
        "machine": machine(),
        "threads": args.threads,
        "torch": torch.__version__,
        "extension": kernels._compiled is not None,
    }
    todo = [
        (name, seed, method)
        for name in names
        for seed in args.seeds
        for method in [*args.estimators, *args.peers]
        if (name, method, seed) not in done
    ]
    with threadpool_limits(args.threads):
        try:
            warm_up(sorted({method for *_, method in todo}))
        except ImportError as error:
            parser.error(f"{error}; install the benchmarks' libraries: pip install -e '.[bench]'")
        for (name, seed), group in groupby(todo, key=lambda job: job[:2]):
            train, val, test = load(paths[name], seed)
            for *_, method in group:
                line = {"set": name, "method": method, "seed": seed}
                line |= {"n": len(train), "d": train.shape[1], **where}
                lines.append(run(line, train, val, test, args.budget, args.jobs))
                if args.out:
                    append(args.out, line)
                result = f"ll {line['ll']:.3f}" if "ll" in line else "no ll"
                result += f", {line['fit_s']:.1f} s {line.get('error', '')}"
                print(f"{name} {method} seed {seed}: {result}", file=sys.stderr)
    print_tables(lines)


if __name__ == "__main__":
    main()
