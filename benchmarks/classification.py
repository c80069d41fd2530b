"""Classification with our defaults, beside classifiers of scikit-learn with theirs.

    python benchmarks/classification.py run --data DIR --splits 5 --out classification.jsonl
    python benchmarks/classification.py show --out classification.jsonl

Five stratified folds of each table, with all of its rows. scikit-learn's logistic regression has
standardised columns; it and the forest have one-hot categories, and the boosting has categories as
they are. DIR has the tables of `conditional_tables.py`, and uci/wine-quality-red.npz, as arrays X
and y. Lines already in ``--out`` are not run again.
"""

import argparse
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from conditional import categorical, peer, run_left, timed
from conditional_tables import LABELLED, table
from protocol import print_table, read
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skflows


def wine_quality(data):
    """Return the physico-chemical columns of red wines, and their quality: 3 to 8."""
    with np.load(Path(data, "uci", "wine-quality-red.npz")) as arrays:
        return arrays["X"], arrays["y"].astype(int)


TABLES = LABELLED | {
    "iris": lambda data: load_iris(return_X_y=True),
    "wine quality": wine_quality,
    "abalone sex": partial(table, file="abalone.csv", target="sex", dtype=object),
    "ofp health": partial(table, file="mixed/ofp.csv", target="hlth", dtype=object),
    "slid language": partial(table, file="mixed/slid.csv", target="language", dtype=object),
}


class Boosting(HistGradientBoostingClassifier):
    """scikit-learn's boosting, which has texts as categories."""

    def fit(self, X, y):
        return super().fit(categorical(X), y)

    def predict_proba(self, X):
        return super().predict_proba(categorical(X))


def regression(X, seed):
    if isinstance(X, np.ndarray):
        return make_pipeline(StandardScaler(), LogisticRegression())
    return peer(LogisticRegression(), X)


METHODS = {
    "DensityClassifier": lambda X, seed: skflows.DensityClassifier(random_state=seed),
    "boosting": lambda X, seed: Boosting(random_state=seed),
    "random forest": lambda X, seed: peer(RandomForestClassifier(random_state=seed), X),
    "logistic regression": regression,
}


def classify(name, method, split, data):
    """Return the scores of one contestant on one fold of a table."""
    X, y = TABLES[name](data)
    y = np.asarray(y)
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(np.empty(len(y)), y)
    train, test = list(folds)[split]
    X, X_test = (X.iloc[rows] if hasattr(X, "iloc") else X[rows] for rows in (train, test))
    y, y_test = y[train], y[test]
    model = METHODS[method](X, split)
    seconds = timed(model.fit, X, y)
    start = time.process_time()
    proba = np.clip(model.predict_proba(X_test), 1e-15, 1)
    scores = {
        "n": len(y),
        "log_loss": log_loss(y_test, proba / proba.sum(axis=1, keepdims=True)),
        "accuracy": np.mean(model.classes_[proba.argmax(axis=1)] == y_test),
        "seconds": seconds,
        "seconds_test": time.process_time() - start,
    }
    if isinstance(model, skflows.DensityClassifier):
        scores["weight"] = model.weights_["Bayes' rule"] / sum(model.weights_.values())
    return scores


def unknown(name, method, split, data):
    """Return the AUROC of rows of the last class, which the fit has not seen."""
    X, y = TABLES[name](data)
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)
    train, test = list(folds)[split]
    known = train[y[train] != y.max()]
    model = METHODS[method](X, split).fit(X[known], y[known])
    is_ours = isinstance(model, skflows.DensityClassifier)
    score = model.p_values(X[test]) if is_ours else model.predict_proba(X[test])
    return {"auroc": roc_auc_score(y[test] == y.max(), -score.max(axis=1))}


UNKNOWN = ("wine", "digits", "iris")  # tables of numbers with more than two classes


def jobs(args):
    """Yield the key of each run, and what runs it: all tables of a split before the next one."""
    for split, name, method in product(range(args.splits), args.tables, args.methods):
        key = {"table": name, "method": method, "split": split}
        yield {"what": "known"} | key, lambda a=(name, method, split): classify(*a, args.data)
        if name in UNKNOWN:
            yield {"what": "unknown"} | key, lambda a=(name, method, split): unknown(*a, args.data)


def show(lines):
    """Print Markdown tables of log-loss, accuracy, seconds, and AUROC of unknown classes."""
    frame = pd.DataFrame(lines)
    counts = frame.groupby(["what", "table", "method"])["split"].nunique().unstack()
    splits = counts.reindex(columns=[*METHODS]).min(axis=1)  # that all contestants have run
    parts = dict(list(frame.groupby("what")))
    for what, score, digits in (
        ("known", "log_loss", 4),
        ("known", "accuracy", 3),
        ("known", "seconds", 1),
        ("unknown", "auroc", 3),
    ):
        of_part = splits[what].dropna()
        part = parts[what]
        part = part[part["split"] < part["table"].map(of_part)]
        wide = part.pivot_table(score, "table", "method").reindex(columns=[*METHODS])
        if score == "log_loss":
            others = wide.drop(columns="DensityClassifier").min(axis=1)
            wide["ours / best other"] = wide["DensityClassifier"] / others
        wide.insert(0, "rows", part.groupby("table")["n"].first())
        wide.insert(1, "splits", of_part)
        wide = wide.reindex([name for name in TABLES if name in wide.index]).rename_axis("table")
        wide = wide.dropna(axis=1, how="all")
        print(f"\n{score}\n")
        print_table(wide, dict.fromkeys(wide, digits) | {"rows": 0, "splits": 0})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["run", "show"])
    parser.add_argument("--data", help="folder of the tables")
    parser.add_argument("--out", required=True, help="JSON lines of results")
    parser.add_argument("--splits", type=int, default=5, help="the first of 5 folds")
    parser.add_argument("--tables", nargs="*", default=[*TABLES], help="only these tables")
    parser.add_argument("--methods", nargs="*", default=[*METHODS], help="only these")
    args = parser.parse_args()
    lines = read(args.out)
    if args.what == "show":
        show(lines)
        return
    run_left(jobs(args), lines, args.out)


if __name__ == "__main__":
    main()
