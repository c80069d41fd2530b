"""Continuous flows: quality, and time against zuko's CNF.

    python benchmarks/continuous.py quality --data DIR --seeds 0 1 2 --out FILE
    python benchmarks/continuous.py scoring --out FILE
    python benchmarks/continuous.py times --out FILE
    python benchmarks/continuous.py training --data DIR --out FILE
    python benchmarks/continuous.py memory --out FILE
    python benchmarks/continuous.py show --out FILE

Each prints one JSON line per measurement and appends it to FILE. Seconds are processor time (one
thread), which hardly changes on a busy machine. `evaluations.py` measures what the number of
evaluations of a score depends on.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peers import PEERS
from protocol import append, load, print_table, read
from scale import peak_memory
from timing import alternate

from skflows import CNFDensity, RealNVPDensity, ResidualDensity


def report(args, **line):
    """Print a measurement and append it to the file of ``args``."""
    line = {"part": args.part} | line
    print(json.dumps(line), flush=True)
    append(args.out, line)


def timed(function, *args, **kwargs):
    started = time.process_time()
    result = function(*args, **kwargs)
    return result, time.process_time() - started


def quality(args):
    """Held-out log-density of each training at its defaults, beside other flows.

    Ours are fitted to the rows of both parts, of which they hold some out themselves.
    """
    contestants = {
        "RealNVPDensity": partial(Whole, RealNVPDensity),
        "zuko-MAF": PEERS["zuko-MAF"],
        "flow_matching": partial(Whole, CNFDensity),
        "both": partial(Whole, partial(CNFDensity, objective="both")),
        "ResidualDensity": partial(Whole, ResidualDensity),
    }
    for path in (Path(args.data) / f"{name}.npz" for name in args.sets):
        for seed in args.seeds:
            train, val, test = load(path, seed)
            unit = None  # seconds of the first one
            for name in args.methods or contestants:
                contestant = contestants[name](seed=seed, budget=600)
                _, seconds = timed(contestant.fit, train, val)
                unit = unit or seconds
                scores = contestant.score_samples(test)
                report(
                    args,
                    set=path.stem,
                    seed=seed,
                    method=name,
                    score=round(float(scores.mean()), 3),
                    median=round(float(np.median(scores)), 3),
                    worst=round(float(scores.min()), 1),
                    fit_seconds=round(seconds, 1),
                    ratio=round(seconds / unit, 2),
                    evaluations=getattr(contestant, "evaluations", None),
                )


class Whole:
    """One of our estimators behind the surface of the peers."""

    def __init__(self, make, seed, budget):
        self.estimator = make(random_state=seed)

    def fit(self, train, val):
        self.estimator.fit(np.concatenate([train, val]))

    def score_samples(self, X):
        return self.estimator.score_samples(X)

    @property
    def evaluations(self):
        return getattr(self.estimator, "n_function_evaluations_", None)


def zuko_cnf(d, width):
    import zuko

    return zuko.flows.CNF(d, hidden_features=(width, width), exact=True)


def rows_of(n, d):
    """Rows of dependent columns that are not normal."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(d, d))
    return np.tanh(rng.normal(size=(n, d))) @ mixing + 0.3 * rng.normal(size=(n, d))


def scoring(args):
    """Seconds to score rows with the exact trace by velocities of as many weights.

    Ours is fitted; zuko's is trained by matching on the same rows, so that both fields are about
    as hard. Accuracy is the largest difference from scores at a tolerance of 1e-10.
    """
    d, n = 10, args.n
    X = rows_of(n, d)
    X = (X - X.mean(0)) / X.std(0)
    ours = CNFDensity(
        max_iter=30,
        contamination=None,
        hidden_layer_sizes=(64, 64),
        preprocessing="standardize",
        random_state=0,
    )
    ours.fit(X[:2000])
    torch.manual_seed(0)
    theirs = zuko_cnf(d, 64)
    matched(theirs, torch.from_numpy(X[:2000]).float())
    theirs.double()
    few = X[:200]

    def score_ours(rows, tolerance):
        solver = ours.flow_.bijection.solver
        ours.flow_.bijection.solver = type(solver)(tolerance=tolerance)
        return ours.score_samples(rows)

    @torch.no_grad()
    def score_theirs(rows, tolerance):
        set_tolerance(theirs, tolerance)
        return theirs().log_prob(torch.from_numpy(rows)).numpy()

    for tolerance in args.tolerances:
        for name, score in {"ours": score_ours, "zuko": score_theirs}.items():
            error = np.abs(score(few, tolerance) - score(few, 1e-10)).max()
            seconds = [timed(score, X, tolerance)[1] for _ in range(args.rounds)]
            report(
                args,
                method=name,
                tolerance=tolerance,
                rows=n,
                error=float(f"{error:.2g}"),
                seconds=round(statistics.median(seconds), 3),
            )


def times(args):
    """Seconds of ten epochs, of scores and of samples, with estimators at their defaults."""
    X = rows_of(args.n, 10)
    estimators = {
        name: cls(max_iter=10, early_stopping=False, contamination=None, random_state=0)
        for name, cls in {
            "RealNVPDensity": RealNVPDensity,
            "ResidualDensity": ResidualDensity,
            "flow_matching": CNFDensity,
        }.items()
    }
    fit, score, sample = (
        alternate({name: call(each) for name, each in estimators.items()}, args.rounds)
        for call in (
            lambda estimator: partial(estimator.fit, X[:2000]),
            lambda estimator: partial(estimator.score_samples, X),
            lambda estimator: partial(estimator.sample, len(X), random_state=0),
        )
    )
    for name in estimators:
        seconds = {"fit": fit[name], "score": score[name], "sample": sample[name]}
        report(args, method=name, rows=len(X), **{k: round(v, 3) for k, v in seconds.items()})


def set_tolerance(flow, tolerance):
    for module in flow.modules():
        if hasattr(module, "atol"):
            module.atol = module.rtol = tolerance


def matched(flow, rows, n_steps=600):
    """Train the field of a zuko CNF by flow matching."""
    field = flow.transform
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3)
    for _ in range(n_steps):
        x = rows[torch.randint(len(rows), (256,))]
        noise, t = torch.randn_like(x), torch.rand(len(x), 1)
        velocity = field.f(t.squeeze(-1), x + t * (noise - x))
        loss = (velocity - (noise - x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def training(args):
    """Seconds until a held-out score is reached, ours by matching and zuko's by likelihood."""
    train, val, _ = load(Path(args.data) / f"{args.sets[-1]}.npz", 0)
    ours = CNFDensity(
        preprocessing="standardize", random_state=0, max_iter=args.epochs, contamination=None
    )
    _, seconds = timed(ours.fit, train)
    report(args, method="ours", score=round(ours.score(val), 3), seconds=round(seconds, 1))
    torch.manual_seed(0)
    flow = zuko_cnf(train.shape[1], 64)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    rows, held_out = torch.from_numpy(train), torch.from_numpy(val)
    started = time.process_time()
    spent = 0.0  # by scores, which do not count
    step = 0
    while time.process_time() - started - spent < args.seconds:
        for batch in torch.randperm(len(rows)).split(256):
            loss = -flow().log_prob(rows[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
            step += 1
            if step % 25 == 0:
                with torch.no_grad():
                    score, took = timed(lambda: flow().log_prob(held_out).mean().item())
                spent += took
                seconds = time.process_time() - started - spent
                report(
                    args, method="zuko", step=step, score=round(score, 3), seconds=round(seconds, 1)
                )
                if seconds > args.seconds:
                    break


def memory(args):
    """Peak memory and time of an epoch by likelihood, with and without checkpointing."""
    cases = [(checkpointing, n_steps) for checkpointing in (True, False) for n_steps in (8, 32)]
    # A process for each: what one frees, the next would take without a trace.
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for found in pool.imap(memory_of, cases, chunksize=1):
            report(args, **found)


def memory_of(case):
    torch.set_num_threads(1)
    found = dict(zip(("checkpointing", "n_steps"), case, strict=True))
    X = np.random.default_rng(0).standard_normal((4096, 10))
    params = {"objective": "likelihood", "preprocessing": "standardize", "early_stopping": False}
    params |= {"batch_size": 4096, "contamination": None, "random_state": 0}
    CNFDensity(max_iter=1, **params).fit(X[:100])  # so that imports do not count
    flow = CNFDensity(max_iter=2, **found, **params)
    with peak_memory(found):
        _, seconds = timed(flow.fit, X)
    return found | {"seconds": round(seconds, 1)}


NAMES = {
    "zuko-MAF": "zuko's MAF",
    "RealNVPDensity": "`RealNVPDensity`",
    "ResidualDensity": "`ResidualDensity`",
    "flow_matching": "`CNFDensity`",
    "both": '`CNFDensity(objective="both")`',
    "ours": "`CNFDensity`",
    "zuko": "zuko's CNF",
}


def show(lines):
    """Print the tables of `continuous.md`."""
    parts = {
        part: own.dropna(axis=1, how="all") for part, own in pd.DataFrame(lines).groupby("part")
    }
    if "quality" in parts:
        own = parts["quality"].astype({"seed": int}).replace({"method": NAMES})
        found = own.pivot_table("score", ["set", "method"], "seed").add_prefix("seed ")
        found["mean"] = found.mean(axis=1)
        baseline = found["mean"].xs(NAMES["RealNVPDensity"], level="method")
        found["minus RealNVP"] = found["mean"].sub(baseline, level="set")
        groups = own.groupby(["set", "method"])
        found["worst row"], found["ratio of seconds"] = (
            groups["worst"].min(),
            groups["ratio"].mean(),
        )
        print("\nquality\n")
        print_table(found, defaultdict(lambda: 2))
    if "scoring" in parts:
        own = parts["scoring"].replace({"method": NAMES}).sort_values("method", kind="stable")
        own["tolerance"], own["error"] = (
            own["tolerance"].map("{:.0e}".format),
            own["error"].map(str),
        )
        print("\nscoring\n")
        print_table(own.set_index(["method", "tolerance"])[["error", "seconds"]], {"seconds": 2})
    if "training" in parts:
        own = parts["training"].replace({"method": NAMES})
        steps = own["step"].map(" after {:.0f} steps".format, na_action="ignore").fillna("")
        own["method"] += steps
        print("\ntraining\n")
        print_table(own.set_index("method")[["score", "seconds"]], {"score": 2, "seconds": 1})
    if "memory" in parts:
        own = parts["memory"].astype({"checkpointing": str})
        own = own.set_index(["checkpointing", "n_steps"])
        print("\nmemory\n")
        print_table(own[["peak_megabytes", "seconds"]], {"peak_megabytes": 0, "seconds": 1})
    if "penalties" in parts:
        own = parts["penalties"].dropna(subset="chosen").astype({"seed": int})
        own["saved, %"] = 100 * own["saved"]
        print("\npenalties\n")
        digits = {"chosen": 2, "saved, %": 0, "gain": 3}
        print_table(own.set_index(["set", "seed"])[[*digits]], digits)
    if "times" in parts:
        own = parts["times"].replace({"method": NAMES}).set_index("method")
        print("\ntimes\n")
        print_table(own[["fit", "score", "sample"]], defaultdict(lambda: 2))


PARTS = {part.__name__: part for part in (quality, scoring, times, training, memory)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "show"])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines of results")
    parser.add_argument("--data", help="folder of npz tables")
    parser.add_argument("--sets", nargs="+", default=["40_vowels", "22_magic.gamma"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", help="contestants, in quality; all by default")
    parser.add_argument("--n", type=int, default=10_000, help="rows to score")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-4, 1e-5, 1e-6, 1e-7])
    parser.add_argument("--epochs", type=int, default=20, help="of ours, in training")
    parser.add_argument("--seconds", type=float, default=120, help="of zuko's, in training")
    args = parser.parse_args()
    if args.part == "show":
        show(read(args.out))
        return
    torch.set_num_threads(1)
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
