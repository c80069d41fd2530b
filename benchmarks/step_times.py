"""Time of single operations: ours, and each peer's as a multiple of ours.

    python benchmarks/step_times.py --json step_times.json
    python benchmarks/step_times.py --table step_times.json other_machine.json

The contestants take turns within every round, so that other work on the machine affects them alike.
The table shows our median time and, for each peer, its median divided by ours: above 1, ours is
faster.
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from contextlib import contextmanager
from cProfile import Profile
from functools import partial
from pstats import Stats

import peers
import torch
from protocol import commit
from quality import machine
from threadpoolctl import threadpool_limits
from timing import alternate, clock_for, ours, peer, table

import skflows
from skflows import kernels

# Three transforms with hidden layers of 64 and 64; a RealNVP transform is a pair of couplings.
ARCHITECTURES = {
    "NSF": {
        "zuko": partial(peers.zuko_flow, architecture="NSF"),
        "nflows": partial(peers.nflows_spline, n_transforms=3, n_blocks=1, residual=False),
        "normflows": peers.normflows_spline,
    },
    # The masked affine flow of normflows is an inverse one, which scores in d passes.
    "MAF": {
        "zuko": partial(peers.zuko_flow, architecture="MAF"),
        "nflows": peers.nflows_affine,
    },
    "RealNVP": {
        "zuko": partial(peers.zuko_flow, architecture="RealNVP", n_transforms=6),
        "nflows": partial(peers.nflows_realnvp, n_transforms=6),
        "normflows": partial(peers.normflows_realnvp, n_transforms=6),
    },
}
SIZE = {"n_transforms": 3, "hidden_layer_sizes": (64, 64)}
CHUNK_VALUES = 2**14  # of input at a time: what is fastest for the peers


@contextmanager
def without_kernels():
    """Use PyTorch operations only, as on an installation without a compiler."""
    compiled, kernels._compiled = kernels._compiled, None
    try:
        yield
    finally:
        kernels._compiled = compiled


def fitted(name, d, **params):
    """Our estimator after an epoch on normal rows."""
    X = torch.randn(1000, d).numpy()
    estimator = getattr(skflows, f"{name}Density")(max_iter=1, random_state=0, **params)
    return estimator.fit(X)


def train(args, compare):
    """A training step on a mini-batch, with the layers that all libraries have."""
    for architecture, libraries in ARCHITECTURES.items():
        for d in args.d:
            for batch in args.batch:
                X = torch.randn(batch, d)
                step = partial(ours(architecture, d, linear=False).step, X)
                functions = {"skflows": step, "without kernels": without_kernels()(step)}
                functions |= {name: partial(peer(b, d).step, X) for name, b in libraries.items()}
                yield f"{architecture}, d = {d}: training step, {batch:,} rows", compare(functions)


def score(args, compare):
    """`score_samples` of a table, from an array of float32 to an array of float64."""
    for architecture, libraries in ARCHITECTURES.items():
        for d in args.d:
            X = torch.randn(args.n, d)
            # The peers scale columns at most.
            flow = fitted(architecture, d, preprocessing="standardize", **SIZE)
            functions = {"skflows": partial(flow.score_samples, X.numpy())}
            for name, build in libraries.items():
                functions[name] = partial(in_chunks, peer(build, d).score, X)
            yield f"{architecture}, d = {d}: score {args.n:,} rows", compare(functions)


def in_chunks(score, X):
    for rows in X.split(CHUNK_VALUES // X.shape[1]):
        score(rows)


def row(args, compare):
    """`score_samples` of a single row, with estimators at their defaults."""
    d = 10
    for architecture, libraries in ARCHITECTURES.items():
        X = torch.randn(1, d)
        functions = {"skflows": partial(fitted(architecture, d).score_samples, X.numpy())}
        n_transforms = 10 if architecture == "RealNVP" else 5
        build = partial(libraries["zuko"], n_transforms=n_transforms)
        functions["zuko"] = partial(peer(build, d).score, X)
        yield f"{architecture}, d = {d}: score one row", compare(functions)


def sequential(args, compare):
    """The direction of autoregressive flows that finds one column after another."""
    d, n, size = 43, 1000, (256, 256)
    Z = torch.randn(n, d)
    for name in ("MAF", "NSF"):
        flow = fitted(name, d, n_transforms=5, hidden_layer_sizes=size)
        build = partial(peers.zuko_flow, architecture=name, n_transforms=5, hidden=size)
        functions = {
            "skflows": partial(flow.sample, n, random_state=0),
            "zuko": partial(peer(build, d).sample, Z),
        }
        yield f"{name}, 5 x (256, 256), d = {d}: draw {n:,} samples", compare(functions)
    flow = fitted("IAF", d, n_transforms=5, hidden_layer_sizes=size)
    build = partial(peers.zuko_inverse_autoregressive, n_transforms=5, hidden=size)
    functions = {
        "skflows": partial(flow.score_samples, Z.numpy()),
        "zuko": partial(peer(build, d).score, Z),
    }
    yield f"IAF, 5 x (256, 256), d = {d}: score {n:,} rows", compare(functions)


def imports(args, compare):
    """Processor time of imports in fresh processes that have imported scikit-learn."""
    modules = {"skflows": "skflows", "zuko": "zuko", "scikit-learn": "sklearn.mixture"}
    times = {name: [] for name in modules}
    for _ in range(max(args.rounds, 15)):
        for name, module in modules.items():
            script = f"import sklearn, time; start = time.process_time(); import {module}; "
            script += "print(time.process_time() - start)"
            run = [sys.executable, "-c", script]
            printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
            times[name].append(float(printed))
    yield "import", {name: statistics.median(values) for name, values in times.items()}


def calls_per_step(architecture, d=10, batch=256):
    """Number of calls of functions written in Python in a training step at the defaults."""
    dropout = getattr(skflows, f"{architecture}Density")().dropout
    X, contestant = torch.randn(batch, d), ours(architecture, d, size={"dropout": dropout})
    contestant.bijection.train()
    contestant.step(X)
    with Profile(builtins=False) as profile:
        contestant.step(X)
    return Stats(profile).total_calls


SECTIONS = {section.__name__: section for section in (train, score, row, sequential, imports)}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--d", nargs="+", type=int, default=[10, 36], help="numbers of columns")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 1024], help="numbers of rows")
    parser.add_argument("--n", type=int, default=100_000, help="rows of the table to score")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file to write the seconds to")
    parser.add_argument("--table", nargs="+", help="print what these files hold, side by side")
    return parser.parse_args()


def print_files(paths):
    """Print the results of several runs in one table: ratios from run to run, separated by /."""
    runs = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            runs.append(json.load(file))
    for run in runs:
        print("{machine}, {instructions}; threads: {threads}; torch {torch}".format(**run))
    if times := [run["times"] for run in runs if run["times"]]:
        print(f"\n{table(*times)}")
    print("\nCalls of Python functions in a training step (d = 10, 256 rows)\n")
    print("| | " + " | ".join(runs[0]["calls"]) + " |\n" + "|---" * 4 + "|")
    for run in runs:
        print(f"| {run.get('commit', '')} | " + " | ".join(map(str, run["calls"].values())) + " |")


def main():
    args = parse()
    if args.table:
        print_files(args.table)
        return
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # deprecations inside a peer
    where = {
        "machine": machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": args.threads,
        "torch": torch.__version__,
        "commit": commit(),
    }
    print("Machine: {machine}, {instructions}; threads: {threads}; torch {torch}".format(**where))
    compare = partial(alternate, n_rounds=args.rounds, clock=clock_for(args.threads))
    found = []
    with threadpool_limits(args.threads):
        for name in args.sections:
            for what, seconds in SECTIONS[name](args, compare):
                found.append((what, seconds))
                print(".", end="", file=sys.stderr, flush=True)
    if found:
        print(f"\n{table(found)}\n")
    calls = {name: calls_per_step(name) for name in ARCHITECTURES}
    for name, count in calls.items():
        print(f"{name}: {count} calls of Python functions in a training step (d = 10, 256 rows)")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({**where, "rounds": args.rounds, "calls": calls, "times": found}, out)


if __name__ == "__main__":
    main()
