"""Continuous flows: what penalties do to the evaluations that a score takes.

    python benchmarks/evaluations.py penalties --seeds 0 1 2 --out FILE
    python benchmarks/evaluations.py penalties --data DIR --sets 44_Wilt --seeds 0 1 2 --out FILE

Each prints one JSON line per measurement and appends it to FILE.
"""

import argparse
from pathlib import Path

import torch
from continuous import report
from protocol import load
from sklearn.datasets import make_moons

from skflows import CNFDensity

TOLERATED = 0.05  # nats that a penalty may cost on the validation rows
IN_THE_PLANE = {"preprocessing": "standardize", "hidden_layer_sizes": (48, 48), "dropout": 0.0}


def likelihood_flow(**params):
    defaults = {"objective": "likelihood", "early_stopping": True, "contamination": None}
    return CNFDensity(**defaults | params)


def crescents(seed):
    """Rows to train, to choose the weight of the penalties, and to report."""
    sizes = (3000, 2000, 4000)
    return [make_moons(n, noise=0.07, random_state=3 * seed + i)[0] for i, n in enumerate(sizes)]


def penalties(args):
    """Evaluations and scores with and without penalties, both of one weight.

    The weight is the largest whose score on the validation rows is at most `TOLERATED` below that
    without.
    """
    for name in args.sets:
        for seed in args.seeds:
            if name == "crescents":
                rows, params = crescents(seed), IN_THE_PLANE | {"n_steps": 10, "max_iter": 80}
            else:
                rows = load(Path(args.data) / f"{name}.npz", seed)
                params = {"hidden_layer_sizes": (64, 64), "max_iter": 150}
            train, validation, test = rows
            found = {}
            for weight in sorted({0.0, *args.weights}):
                flow = likelihood_flow(
                    kinetic_penalty=weight, jacobian_penalty=weight, random_state=seed, **params
                ).fit(train)
                found[weight] = {
                    "evaluations": round(flow.n_function_evaluations_, 1),
                    "validation": round(flow.score(validation), 3),
                    "test": round(flow.score(test), 3),
                }
                report(args, set=name, seed=seed, weight=weight, **found[weight])
            free = found[0.0]
            weight = max(
                w for w, own in found.items() if own["validation"] >= free["validation"] - TOLERATED
            )
            report(
                args,
                set=name,
                seed=seed,
                chosen=weight,
                saved=round(1 - found[weight]["evaluations"] / free["evaluations"], 3),
                gain=round(found[weight]["test"] - free["test"], 3),
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["penalties"])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines of results")
    parser.add_argument("--data", help="folder of npz tables")
    parser.add_argument("--sets", nargs="+", default=["crescents"], help="and tables, of penalties")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--weights", nargs="+", type=float, default=[0.02, 0.04])
    args = parser.parse_args()
    torch.set_num_threads(1)
    penalties(args)


if __name__ == "__main__":
    main()
