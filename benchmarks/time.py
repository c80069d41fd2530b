"""Seconds of one training step, of scoring and of sampling, against each peer's same architecture.

    python benchmarks/time.py --json times.json

The contestants take turns within every round, so that whatever else the machine does meets all of
them alike; the table shows our median time and, for each peer, its median divided by ours.
"""

import argparse
import copy
import json
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import NamedTuple

import peers
import torch
from quality import machine
from threadpoolctl import threadpool_limits

LEARNING_RATE = 1e-3
LEAST_SECONDS = 0.02  # of one measurement: shorter calls are repeated within it

# Three transforms with hidden layers of 64 and 64; a RealNVP transform is a pair of couplings.
ARCHITECTURES = {
    "NSF": {
        "zuko": partial(peers.zuko_flow, architecture="NSF"),
        "nflows": partial(peers.nflows_spline, n_transforms=3, n_blocks=1, residual=False),
        "normflows": peers.normflows_spline,
    },
    # normflows' masked affine flow is an inverse one, which scores in d passes: not this column's.
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
LIBRARIES = ["zuko", "nflows", "normflows"]
OPERATIONS = ["step", "score", "sample"]


class Contestant(NamedTuple):
    """Three functions of rows X; ``sample`` draws as many."""

    step: Callable
    score: Callable
    sample: Callable


def ours(architecture, d):
    """Our estimator's flow: trained in float32 by its own optimiser, used in float64."""
    import skflows
    from skflows._flow import Flow
    from skflows._optimizer import FlatOptimizer
    from skflows._training import EMA_DECAY, weighted_nll
    from skflows.bijections import Standardize

    # No dropout: the peers have none.
    estimator = getattr(skflows, f"{architecture}Density")(
        n_transforms=3, hidden_layer_sizes=(64, 64), dropout=0.0
    )
    bijection = estimator._build_bijection(d, 0)
    flow = Flow(Standardize(d), copy.deepcopy(bijection)).double().eval()
    optimizer = FlatOptimizer(bijection, LEARNING_RATE, ema_decay=EMA_DECAY)

    def step(X):
        weight = torch.ones(len(X))
        optimizer.step(weighted_nll(bijection, X, weight) / len(X), 1.0)

    @torch.inference_mode()
    def score(X):
        flow.log_prob(X.double())

    @torch.inference_mode()
    def sample(X):
        flow.inverse(torch.randn(X.shape, dtype=torch.float64))

    return Contestant(step, score, sample)


def peer(build, d):
    """A peer's flow, trained and used in float32, as its users do."""
    model = build(d)
    optimizer = torch.optim.Adam(model.module.parameters(), lr=LEARNING_RATE)

    def step(X):
        optimizer.zero_grad()
        (-model.log_prob(X).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 5.0)
        optimizer.step()

    @torch.inference_mode()
    def score(X):
        model.log_prob(X)

    @torch.inference_mode()
    def sample(X):
        model.sample(len(X))

    return Contestant(step, score, sample)


def seconds_per_call(function, X, n_calls):
    started = perf_counter()
    for _ in range(n_calls):
        function(X)
    return (perf_counter() - started) / n_calls


def alternate(functions, X, n_rounds):
    """Median seconds of each function over rounds in which all take turns."""
    n_calls = {}
    for name, function in functions.items():
        function(X)  # the first call allocates
        n_calls[name] = max(1, round(LEAST_SECONDS / seconds_per_call(function, X, 1)))
    names = list(functions)
    times = {name: [] for name in names}
    for i in range(n_rounds):
        first = i % len(names)  # nobody always follows the same neighbour's cache
        for name in names[first:] + names[:first]:
            times[name].append(seconds_per_call(functions[name], X, n_calls[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def table(rows):
    lines = [
        "| architecture | d | batch | operation | skflows, ms | " + " | ".join(LIBRARIES) + " |",
        "|---" * (5 + len(LIBRARIES)) + "|",
    ]
    for row in rows:
        base = row["seconds"]["skflows"]
        ratios = [
            f"{row['seconds'][name] / base:.2f}x" if name in row["seconds"] else ""
            for name in LIBRARIES
        ]
        label = f"{row['architecture']} | {row['d']} | {row['batch']} | {row['operation']}"
        lines.append(f"| {label} | {1e3 * base:.2f} | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), metavar="NAME")
    parser.add_argument("--d", nargs="+", type=int, default=[10, 36], help="numbers of columns")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 1024], help="numbers of rows")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file to write the seconds to")
    args = parser.parse_args()
    if unknown := set(args.architectures) - set(ARCHITECTURES):
        parser.error(
            f"unknown architecture {unknown.pop()}: choose from {', '.join(ARCHITECTURES)}"
        )
    return args


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # deprecations inside a peer
    rows = []
    with threadpool_limits(args.threads):
        for architecture in args.architectures:
            for d in args.d:
                contestants = {"skflows": ours(architecture, d)}
                for library, build in ARCHITECTURES[architecture].items():
                    contestants[library] = peer(build, d)
                for batch in args.batch:
                    X = torch.randn(batch, d)
                    for operation in OPERATIONS:
                        functions = {
                            name: getattr(contestant, operation)
                            for name, contestant in contestants.items()
                        }
                        seconds = alternate(functions, X, args.rounds)
                        row = {"architecture": architecture, "d": d, "batch": batch}
                        rows.append(row | {"operation": operation, "seconds": seconds})

    where = {"machine": machine(), "threads": args.threads, "torch": torch.__version__}
    print(
        "Median time of ours, and each peer's time as a multiple of it (above 1: ours is faster).\n"
    )
    print(table(rows))
    print("\nMachine: {machine}; threads: {threads}; torch {torch}".format(**where))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({**where, "rounds": args.rounds, "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
