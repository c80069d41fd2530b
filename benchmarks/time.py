"""Time of single operations, each peer's as a multiple of ours: above 1, ours is faster.

    python benchmarks/time.py --json times.json

The contestants take turns within every round, so that whatever else the machine does meets all of
them alike; the tables show our median and, for each peer, its median divided by ours.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from time import perf_counter

import peers
import scale
import searches
import torch
from quality import machine
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits
from timing import alternate, clock_for, ours, peer, table

import skflows
from skflows.training.torch_state import one_thread

OPERATIONS = ("step", "score", "sample")
CHUNK_VALUES = 2**14  # of input, which a peer scores at once where it would be slower without

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


def fitted(name, d, **params):
    """Our estimator after an epoch on normal rows: for the calls that a user makes."""
    X = torch.randn(1000, d).numpy()
    return getattr(skflows, f"{name}Density")(max_iter=1, random_state=0, **params).fit(X)


def steps(args, compare):
    """Single steps of training, passes that score, and draws, in batches."""
    for architecture, libraries in ARCHITECTURES.items():
        for d in args.d:
            contestants = {"skflows": ours(architecture, d)}
            contestants |= {name: peer(build, d) for name, build in libraries.items()}
            for batch in args.batch:
                X = torch.randn(batch, d)
                for operation in OPERATIONS:
                    functions = {
                        name: partial(getattr(contestant, operation), X)
                        for name, contestant in contestants.items()
                    }
                    yield f"{architecture}, d = {d}, batch {batch}: {operation}", compare(functions)


def equal(args, compare):
    """Single steps of training without the linear layers that peers lack, and so compiled."""
    for architecture, libraries in ARCHITECTURES.items():
        torch.compiler.reset()  # torch compiles a function for eight shapes, and no more
        for d in args.d:
            for batch in args.batch:
                X = torch.randn(batch, d)
                contestants = {
                    "skflows": ours(architecture, d, linear=False),
                    "compiled": ours(architecture, d, compiled=True, linear=False),
                }
                contestants |= {name: peer(build, d) for name, build in libraries.items()}
                functions = {name: partial(c.step, X) for name, c in contestants.items()}
                yield f"{architecture}, d = {d}, batch {batch}: step", compare(functions)


def tables(args, compare):
    """`score_samples` on a table, from an array of float32 to an array of float64."""
    size = {"n_transforms": 3, "hidden_layer_sizes": (64, 64)}
    for architecture, libraries in ARCHITECTURES.items():
        for d in args.d:
            X = torch.randn(args.n, d)
            score = peer(libraries["zuko"], d).score
            chunks = X.split(CHUNK_VALUES // d)
            functions = {
                "skflows": partial(fitted(architecture, d, **size).score_samples, X.numpy()),
                "zuko in chunks": lambda score=score, chunks=chunks: [score(x) for x in chunks],
                "zuko": partial(score, X),
            }
            yield f"{architecture}, d = {d}: scoring of {args.n} rows", compare(functions)


def columns(args, compare):
    """The direction of autoregressive flows that solves one column after another."""
    d, n, size = 43, 1000, (256, 256)
    Z = torch.randn(n, d)
    for name in ("MAF", "NSF"):
        flow = fitted(name, d, n_transforms=5, hidden_layer_sizes=size)
        zuko = peer(
            partial(peers.zuko_flow, architecture=name, n_transforms=5, hidden=size), d
        ).sample
        functions = {"skflows": partial(flow.sample, n, random_state=0), "zuko": partial(zuko, Z)}
        yield f"{name}, 5 x (256, 256), d = {d}: {n} samples", compare(functions)
    flow = fitted("IAF", d, n_transforms=5, hidden_layer_sizes=size)
    build = partial(peers.zuko_inverse_autoregressive, n_transforms=5, hidden=size)
    functions = {
        "skflows": partial(flow.score_samples, Z.numpy()),
        "zuko": partial(peer(build, d).score, Z),
    }
    yield f"IAF, 5 x (256, 256), d = {d}: scoring of {n} rows", compare(functions)
    for d in args.d:
        X = torch.randn(256, d)
        build = partial(peers.zuko_inverse_autoregressive, n_transforms=3)
        # Ours on one thread, as in a fit.
        steps = {"skflows": one_thread()(ours("IAF", d).step), "zuko": peer(build, d).step}
        functions = {name: partial(step, X) for name, step in steps.items()}
        yield f"IAF, 3 x (64, 64), d = {d}: step on 256 rows", compare(functions)


def flows(args, compare):
    """Steps of training of our flows at their defaults, but for dropout, in parts of NSF's time."""
    for d in args.d:
        for batch in (128, 1024):
            X = torch.randn(batch, d)
            names = "NSF", "MAF", "RealNVP", "Glow", "NICE", "Planar", "IAF"
            functions = {name: partial(ours(name, d, size={}).step, X) for name in names}
            yield f"d = {d}, batch {batch}: step", compare(functions)


def calls(args, compare):
    """`score_samples` of estimators at their defaults, on few rows."""
    d = 10
    for name, libraries in ARCHITECTURES.items():
        flow = fitted(name, d)
        n_transforms = 10 if name == "RealNVP" else 5
        score = peer(partial(libraries["zuko"], n_transforms=n_transforms), d).score
        for n in (1, 100):
            X = torch.randn(n, d)
            functions = {
                "skflows": partial(flow.score_samples, X.numpy()),
                "zuko": partial(score, X),
            }
            yield f"{name}, d = {d}: scoring of {n} rows in a call", compare(functions)


def imports(args, compare):
    """Fresh processes, by processor time; what they import before does not count."""
    codes = {
        "skflows": ("import sklearn", "import skflows"),
        "sklearn itself": ("", "import sklearn"),
        "sklearn.mixture": ("import sklearn", "import sklearn.mixture"),
        "torch": ("import sklearn", "import torch"),
    }
    now = "from time import process_time as now"
    times = {name: [] for name in codes}
    for _ in range(max(args.rounds, 15)):
        for name, (before, code) in codes.items():
            script = "\n".join([now, before, "start = now()", code, "print(now() - start)"])
            run = [sys.executable, "-c", script]
            printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
            times[name].append(float(printed))
    yield "import", {name: statistics.median(values) for name, values in times.items()}


def processes(args, compare):
    """A search by the clock, in one process and in two: idle cores, or it says nothing."""
    X = torch.randn(2000, 10).numpy()
    grid = {"learning_rate_init": [1e-3, 2e-3], "weight_decay": [0.0, 0.1]}
    flow = skflows.MAFDensity(max_iter=30, random_state=0)
    searches = {
        name: GridSearchCV(flow, grid, cv=3, refit=False, n_jobs=n_jobs)
        for name, n_jobs in (("n_jobs=2", 2), ("n_jobs=1", 1))
    }
    functions = {name: partial(search.fit, X) for name, search in searches.items()}
    yield "GridSearchCV, 12 fits", alternate(functions, 3, perf_counter)


def grids(args, compare):
    """Searches of 30 flows that train together, and of `GridSearchCV` (see `searches.py`)."""
    X = searches.rows_of(1000, 10)
    searches.start_processes(X)
    for name in ARCHITECTURES:
        flow = getattr(skflows, f"{name}Density")(random_state=0)
        seconds, _ = searches.compare(flow, X, n_rounds=3)
        for clock, of in seconds.items():
            functions = {search: statistics.median(of[search]) for search in sorted(of)}
            yield f"{name}, d = 10: search, by the {clock}", functions


def rows(args, compare):
    """What a row costs in a table of 10,000, and of 1,000,000 (see `scale.py`)."""
    with tempfile.TemporaryDirectory() as folder:
        for case in ("fit", "score"):
            seconds = {}
            for n in (10_000, 1_000_000):
                found = scale.measured(case, scale.table_file(folder, n), "MAF")
                seconds[f"of {n:,}"] = found["seconds"] / n
            yield f"MAF, d = 10: a row, {case}", seconds


SECTIONS = {
    section.__name__: section
    for section in (
        steps,
        equal,
        flows,
        tables,
        columns,
        calls,
        imports,
        processes,
        grids,
        rows,
    )
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--d", nargs="+", type=int, default=[10, 36], help="numbers of columns")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 1024], help="numbers of rows")
    parser.add_argument("--n", type=int, default=100_000, help="rows of a table to score")
    parser.add_argument("--rounds", type=int, default=11, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file to write the seconds to")
    return parser.parse_args()


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # deprecations inside a peer
    found = {}
    where = {"machine": machine(), "threads": args.threads, "torch": torch.__version__}
    print("Machine: {machine}; threads: {threads}; torch {torch}".format(**where))
    compare = partial(alternate, n_rounds=args.rounds, clock=clock_for(args.threads))
    with threadpool_limits(args.threads):
        for name in args.sections:
            found[name] = []
            for what, seconds in SECTIONS[name](args, compare):
                found[name].append((what, seconds))
                print(".", end="", file=sys.stderr, flush=True)
            print(f"\n{SECTIONS[name].__doc__}\n\n{table(found[name])}", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({**where, "rounds": args.rounds, **found}, out, indent=1)


if __name__ == "__main__":
    main()
