"""Regression on the field's standard tables and splits, with our defaults.

    python benchmarks/published.py uci --data DIR --splits 20 --out published.jsonl
    python benchmarks/published.py show --out published.jsonl

DIR has an npz file for each table, with arrays X, y and ``test``: the numbers of the test rows of
each split, after Hernández-Lobato & Adams (2015). The other rows train. Lines already in ``--out``
are not run again. Lines with a ``source`` are figures of others, on splits of the same size.
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from conditional import Flow, NGBoost, Normal, QuantileForest, crps, timed
from protocol import append, print_table, read
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict
from threadpoolctl import threadpool_limits

TABLES = ("energy", "concrete", "wine-quality-red", "kin8nm")


class BoostingNormal(Normal):
    """scikit-learn's gradient boosting, and a normal error as wide as that of its five folds."""

    def __init__(self, seed):
        self.seed = seed

    def _fit(self, X, y):
        self.model = HistGradientBoostingRegressor(random_state=self.seed)
        folds = KFold(5, shuffle=True, random_state=self.seed)
        self.scale = np.std(y - cross_val_predict(self.model, X, y, cv=folds))
        self.model.fit(X, y)

    def _parameters(self, X):
        mean = self.model.predict(self.encoder.transform(X))
        return mean, np.full(len(mean), self.scale)


REGRESSORS = {
    "FlowRegressor": Flow,
    "HGB, normal error": BoostingNormal,
    "NGBoost": NGBoost,
    "quantile-forest": QuantileForest,
}


def regress(table, method, split, data):
    """Return the scores of one contestant on one split of a table."""
    with np.load(Path(data, f"{table}.npz")) as arrays:
        X, y, test = arrays["X"], arrays["y"], arrays["test"][split]
    is_test = np.isin(np.arange(len(y)), test)
    X = pd.DataFrame(X).add_prefix("x")
    X, y, X_test, y_test = X[~is_test], y[~is_test], X[is_test], y[is_test]
    contestant = REGRESSORS[method](split)
    seconds = timed(contestant.fit, X, y)
    start = time.process_time()
    low, high = contestant.interval(X_test)
    scores = {
        "rmse": np.sqrt(np.mean((y_test - contestant.mean(X_test)) ** 2)),
        "crps": crps(y_test, contestant.quantiles(X_test)),
        "coverage": np.mean((low <= y_test) & (y_test <= high)),
        "seconds": seconds,
        "seconds_test": time.process_time() - start,
    }
    if hasattr(contestant, "log_score"):  # whole numbers have a probability, not a density
        scores["nll"] = -contestant.log_score(X_test, y_test).mean()
    return scores


def jobs(args):
    """Yield the key of each run, and what runs it; all tables of a split before the next split."""
    for split, table, method in product(range(args.splits), TABLES, REGRESSORS):
        if table in args.tables and method in args.methods:
            key = {"what": "uci", "table": table, "method": method, "split": split}
            yield key, lambda a=(table, method, split): regress(*a, args.data)


SHOWN = {"nll": 3, "rmse": 3, "crps": 3, "coverage": 3, "seconds": 1}


def show(lines):
    """Print a Markdown table of each score: means over the splits that all contestants have."""
    frame = pd.DataFrame([line for line in lines if line["what"] == "uci"])
    ours, others = frame[frame["split"].notna()], frame[frame["split"].isna()]
    counts = ours.groupby(["table", "method"])["split"].nunique().unstack()
    n = int(counts.reindex(columns=[*REGRESSORS]).fillna(0).to_numpy().min())
    ours = ours[ours["split"] < n]
    for score, digits in SHOWN.items():
        tables = [part.pivot_table(score, "table", "method") for part in (ours, others)]
        wide = pd.concat(tables, axis=1).reindex(index=TABLES).rename_axis("table")
        order = [*REGRESSORS, *others["method"].unique()]
        wide = wide.reindex(columns=order).dropna(axis=1, how="all")
        print(f"\n{score}, mean over the first {n} splits\n")
        print_table(wide, dict.fromkeys(wide, digits))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["uci", "show"])
    parser.add_argument("--data", help="folder of the tables")
    parser.add_argument("--out", required=True, help="JSON lines of results")
    parser.add_argument("--splits", type=int, default=20, help="the first of 20 splits")
    parser.add_argument("--tables", nargs="*", default=TABLES, help="only these tables")
    parser.add_argument("--methods", nargs="*", default=[*REGRESSORS], help="only these")
    args = parser.parse_args()
    lines = read(args.out)
    if args.what == "show":
        show(lines)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for key, job in jobs(args):
            if any(key.items() <= line.items() for line in lines):
                continue
            line = key | {name: float(value) for name, value in job().items()}
            print(line, flush=True)
            append(args.out, line)


if __name__ == "__main__":
    main()
