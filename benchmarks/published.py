"""Tables, splits and tasks that others chose, with our defaults.

    python benchmarks/published.py uci --data DIR --splits 20 --out published.jsonl
    python benchmarks/published.py coverage --data DIR --splits 50 --out published.jsonl
    python benchmarks/published.py features --data DIR --out published.jsonl
    python benchmarks/published.py sbibm --sizes 1000 --observations 2 --out published.jsonl
    python benchmarks/published.py show --out published.jsonl

- uci: regression. DIR has an npz file for each table, with arrays X, y and ``test``: the numbers of
  the test rows of each split, after Hernández-Lobato & Adams (2015). The other rows train.
- coverage: 90 % intervals of our regressor, on random splits of three of these tables and of
  scikit-learn's diabetes, of which 90 % train.
- features: detection of defects, one-class. DIR has an npz file for each category of MVTec AD, with
  X, features of images by a network, and y, 1 for defects. 70 % of the good images train.
- sbibm: posteriors from simulations, for the tasks and observations of the package sbibm. C2ST is
  the accuracy of its classifier, which tells our draws from its reference draws.

Lines already in ``--out`` are not run again. Lines with a ``source`` are figures of others.
"""

import argparse
import time
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from conditional import (
    COVERAGE,
    Flow,
    NGBoost,
    Normal,
    QuantileForest,
    by_chance,
    crps,
    run_left,
    timed,
)
from protocol import print_table, read
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, train_test_split
from sklearn.neighbors import NearestNeighbors

import skflows

TABLES = ("energy", "concrete", "wine-quality-red", "kin8nm")


class BoostingNormal(Normal):
    """scikit-learn's gradient boosting, and a normal error as wide as that of its five folds."""

    def __init__(self, seed, model=HistGradientBoostingRegressor):
        self.seed, self.new_model = seed, model

    def _fit(self, X, y):
        self.model = self.new_model(random_state=self.seed)
        folds = KFold(5, shuffle=True, random_state=self.seed)
        self.scale = np.std(y - cross_val_predict(self.model, X, y, cv=folds))
        self.model.fit(X, y)

    def _parameters(self, X):
        mean = self.model.predict(self.encoder.transform(X))
        return mean, np.full(len(mean), self.scale)


REGRESSORS = {
    "FlowRegressor": Flow,
    "HGB, normal error": BoostingNormal,
    "GBR of 500, normal error": partial(
        BoostingNormal, model=partial(GradientBoostingRegressor, n_estimators=500, max_depth=4)
    ),
    "NGBoost": NGBoost,
    "quantile-forest": QuantileForest,
}


COVERED = ("concrete", "diabetes", "energy", "wine-quality-red")


def cover(table, split, data):
    """Return the coverage of intervals of our regressor on a random split of a table."""
    X, y = load_diabetes(return_X_y=True)
    if table != "diabetes":
        with np.load(Path(data, f"{table}.npz")) as arrays:
            X, y = arrays["X"], arrays["y"]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.1, random_state=split)
    regressor = skflows.FlowRegressor(random_state=split)
    seconds = timed(regressor.fit, X, y)
    low, high = regressor.predict_interval(X_test, COVERAGE).T
    is_covered = (low <= y_test) & (y_test <= high)
    return {"n": len(y), "n_test": len(y_test), "coverage": is_covered.mean(), "seconds": seconds}


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


# ---- Detection of defects


class Neighbors:
    """Distance to the fifth neighbour."""

    def fit(self, X):
        self.index = NearestNeighbors(n_neighbors=5).fit(X)
        return self

    def score_samples(self, X):
        return -self.index.kneighbors(X)[0][:, -1]


class Gaussian(LedoitWolf):
    """scikit-learn's shrunk covariance: the distance of Mahalanobis."""

    def score_samples(self, X):
        return -self.mahalanobis(X)


DETECTORS = {
    "DensityOutlierDetector": lambda: skflows.DensityOutlierDetector(
        calibration="conformal", random_state=0
    ),
    "nearest neighbours": Neighbors,
    "LedoitWolf": Gaussian,
}


def detect(category, method, data):
    """Return the AUROC of one contestant on one category."""
    with np.load(Path(data, f"{category}.npz")) as arrays:
        X, y = arrays["X"].astype(float), arrays["y"].ravel()
    good = np.random.default_rng(0).permutation(np.flatnonzero(y == 0))
    train = good[: int(0.7 * len(good))]
    test = np.setdiff1d(np.arange(len(y)), train)
    detector = DETECTORS[method]()
    seconds = timed(detector.fit, X[train])
    score = -detector.score_samples(X[test])
    return {"n": len(train), "auroc": roc_auc_score(y[test], score), "seconds": seconds}


# ---- Posteriors

TASKS = (
    "two_moons",
    "slcp",
    "gaussian_mixture",
    "gaussian_linear",
    "gaussian_linear_uniform",
    "bernoulli_glm",
)


MOST_SEARCHED = 10_000  # simulations; with more, a search of dropout would take hours


@lru_cache(maxsize=1)
def fitted_posterior(name, n, seed):
    """Return a task, the density of its parameters given data, and seconds of the fit."""
    import sbibm

    task = sbibm.get_task(name)
    torch.manual_seed(seed)
    parameters = task.get_prior()(num_samples=n)
    data = task.get_simulator()(parameters)
    bounds = None
    if "low" in task.prior_params:
        ends = (task.prior_params[end].tolist() for end in ("low", "high"))
        bounds = list(zip(*ends, strict=True))
    flow = skflows.NSFDensity(n_transforms=4, bounds=bounds)
    model = skflows.ConditionalDensity(flow, cv=10, random_state=seed)
    if n <= MOST_SEARCHED:
        model = GridSearchCV(model, {"estimator__dropout": [0.0, 0.1, 0.2]}, cv=3)
    else:
        model.set_params(estimator__dropout=0.0)
    seconds = timed(model.fit, data.double().numpy(), parameters.double().numpy())
    return task, getattr(model, "best_estimator_", model), seconds


def posterior(name, n, observation, seed=0):
    """Return how well a classifier tells posterior samples from reference samples."""
    from sbibm.metrics import c2st

    task, density, seconds = fitted_posterior(name, n, seed)
    reference = task.get_reference_posterior_samples(num_observation=observation)
    observed = task.get_observation(num_observation=observation).double().numpy()
    draws = density.sample(observed, len(reference), random_state=seed)[0]
    accuracy = c2st(reference, torch.as_tensor(draws, dtype=torch.float32))
    return {"c2st": accuracy, "seconds": seconds}


# ---- Running and showing


def jobs(args):
    """Yield the key of each run, and what runs it."""
    if args.what == "coverage":
        for split, table in product(range(args.splits), COVERED):
            key = {"what": "coverage", "table": table, "split": split}
            yield key, lambda a=(table, split): cover(*a, args.data)
    if args.what == "features":
        for path, method in product(sorted(Path(args.data).glob("*.npz")), DETECTORS):
            key = {"what": "features", "table": path.stem, "method": method}
            yield key, lambda a=(path.stem, method): detect(*a, args.data)
    if args.what == "sbibm":
        observations = range(1, args.observations + 1)
        for n, task, observation in product(args.sizes, args.tasks, observations):
            key = {"what": "sbibm", "task": task, "n": n, "observation": observation}
            yield key, lambda a=(task, n, observation): posterior(*a)
    if args.what != "uci":
        return
    # All tables of a split before the next split.
    for split, table, method in product(range(args.splits), TABLES, REGRESSORS):
        if table in args.tables and method in args.methods:
            key = {"what": "uci", "table": table, "method": method, "split": split}
            yield key, lambda a=(table, method, split): regress(*a, args.data)


SCORES = {"nll": 3, "rmse": 3, "crps": 3, "coverage": 3, "seconds": 1}


def show(lines):
    """Print Markdown tables: regression, detection of defects, posteriors."""
    frame = pd.DataFrame(lines)
    parts = dict(list(frame.groupby("what")))
    ours, others = (parts["uci"][parts["uci"]["source"].isna() == own] for own in (True, False))
    # The splits that all contestants have run.
    n = int(ours.groupby(["table", "method"])["split"].nunique().min())
    ours = ours[ours["split"] < n]
    for score, digits in SCORES.items():
        tables = [part.pivot_table(score, "table", "method") for part in (ours, others)]
        wide = pd.concat(tables, axis=1).reindex(index=TABLES).rename_axis("table")
        order = [*REGRESSORS, *others["method"].unique()]
        wide = wide.reindex(columns=order).dropna(axis=1, how="all")
        print(f"\n{score}, mean over the first {n} splits\n")
        print_table(wide, dict.fromkeys(wide, digits))
    if "coverage" in parts:
        columns = {"n": "first", "n_test": "first", "split": "size", "coverage": "mean"}
        table = parts["coverage"].groupby("table").agg(columns)
        sizes = table[["n", "n_test", "split"]].astype(int).to_numpy()
        table[["by chance from", "to"]] = [by_chance(*row) for row in sizes]
        table = table.rename(columns={"n": "rows", "split": "splits"}).drop(columns="n_test")
        print("\ncoverage of random splits\n")
        print_table(table, dict.fromkeys(table, 3) | {"rows": 0, "splits": 0})
    if "features" in parts:
        wide = 100 * parts["features"].pivot_table("auroc", "table", "method")[[*DETECTORS]]
        wide.loc["mean"] = wide.mean()
        print("\nAUROC in per cent\n")
        print_table(wide.rename_axis("category"), dict.fromkeys(wide, 1))
    if "sbibm" in parts:
        of_size = parts["sbibm"].groupby(["task", "n"], sort=False)
        table = of_size.agg(
            observations=("observation", "nunique"),
            c2st=("c2st", "mean"),
            seconds=("seconds", "mean"),
        )
        print("\nC2ST\n")
        print_table(table, dict.fromkeys(table, 3) | {"observations": 0, "seconds": 0})


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["uci", "coverage", "features", "sbibm", "show"])
    parser.add_argument("--data", help="folder of the tables")
    parser.add_argument("--out", required=True, help="JSON lines of results")
    parser.add_argument("--splits", type=int, default=20, help="the first of 20 or more splits")
    parser.add_argument("--sizes", nargs="*", type=int, default=[1_000], help="simulations")
    parser.add_argument("--observations", type=int, default=10, help="the first of 10")
    parser.add_argument("--tasks", nargs="*", default=TASKS, help="only these tasks of sbibm")
    parser.add_argument("--tables", nargs="*", default=TABLES, help="only these tables")
    parser.add_argument("--methods", nargs="*", default=[*REGRESSORS], help="only these")
    args = parser.parse_args()
    lines = read(args.out)
    if args.what == "show":
        show(lines)
        return
    run_left(jobs(args), lines, args.out)


if __name__ == "__main__":
    main()
