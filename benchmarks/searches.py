"""Time of a grid search whose flows train together, against the same search by GridSearchCV.

    python benchmarks/searches.py

1,000 rows of 10 columns, 6 candidates, 5 folds. The searches take turns in every round. Wall-clock
seconds are for two processes, which have been started before. Processor seconds are for one
process: they are the same on a machine that is busy with other work.
"""

import argparse
import json
import statistics
from time import perf_counter, process_time

import numpy as np
import torch
from quality import machine
from sklearn.model_selection import GridSearchCV

import skflows
from skflows.model_selection import FlowGridSearchCV

SEARCHES = (GridSearchCV, FlowGridSearchCV)
GRID = {"learning_rate_init": [1e-3, 2e-3, 4e-3], "weight_decay": [0.0, 0.1]}
CLOCKS = {"clock, 2 processes": (perf_counter, 2), "processor, 1 process": (process_time, None)}


def rows_of(n, d):
    """Rows of dependent columns that are not normal."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(d, d))
    return np.tanh(rng.normal(size=(n, d))) @ mixing + 0.3 * rng.normal(size=(n, d))


def start_processes(X):
    """Start the two processes of a search, so that no timed search pays for it."""
    GridSearchCV(skflows.MAFDensity(max_iter=1), GRID, cv=5, n_jobs=2).fit(X)


def compare(flow, X, n_rounds):
    """Seconds of each search by each clock, round by round, and how far apart the scores are."""
    seconds = {clock: {search.__name__: [] for search in SEARCHES} for clock in CLOCKS}
    apart = 0.0
    for i in range(n_rounds):
        for clock, (now, n_jobs) in CLOCKS.items():
            scores = {}
            for search in SEARCHES[:: 1 if i % 2 else -1]:
                started = now()
                fitted = search(flow, GRID, cv=5, refit=False, n_jobs=n_jobs).fit(X)
                seconds[clock][search.__name__].append(now() - started)
                results = fitted.cv_results_
                scores[search] = np.array([results[f"split{k}_test_score"] for k in range(5)])
            apart = max(apart, np.abs(np.subtract(*scores.values())).max())
    return seconds, apart


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["NSF", "MAF", "RealNVP"])
    parser.add_argument("--batch", nargs="+", type=int, default=[128], help="rows per step")
    parser.add_argument("--n", type=int, default=1000, help="number of rows")
    parser.add_argument("--d", type=int, default=10, help="number of columns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file to write the seconds to")
    return parser.parse_args()


def main():
    args = parse()
    torch.set_num_threads(1)
    X = rows_of(args.n, args.d)
    start_processes(X)
    print("| flow | batch | measured by | GridSearchCV, s | FlowGridSearchCV, s | ratio | apart |")
    print("|---" * 7 + "|")
    rows = []
    for name in args.architectures:
        for batch in args.batch:
            flow = getattr(skflows, f"{name}Density")(batch_size=batch, random_state=0)
            seconds, apart = compare(flow, X, args.rounds)
            rows.append({"flow": name, "batch": batch, "seconds": seconds, "apart": apart})
            for clock, of in seconds.items():
                apart_s, together_s = (statistics.median(of[s.__name__]) for s in SEARCHES)
                label = f"{name} | {batch} | {clock} | {apart_s:.1f} | {together_s:.1f}"
                print(f"| {label} | {apart_s / together_s:.2f}x | {apart:.0e} |", flush=True)
    print(f"\nMachine: {machine()}; a thread in each process; torch {torch.__version__}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"machine": machine(), "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
