"""TableDensity beside known densities, and beside other models of mixed tables.

    python benchmarks/tables.py reference --out tables.jsonl
    python benchmarks/tables.py likelihood --data DIR --out tables.jsonl
    python benchmarks/tables.py gaps --data DIR --out tables.jsonl
    python benchmarks/tables.py incomplete --data DIR --sets 29_Pima --out tables.jsonl
    python benchmarks/tables.py outliers --data DIR --out tables.jsonl
    python benchmarks/tables.py rows --data DIR --out tables.jsonl
    python benchmarks/tables.py limits --data DIR --out tables.jsonl
    python benchmarks/tables.py speed --data DIR --max-rows 2500 --out tables.jsonl
    python benchmarks/tables.py scale --data DIR --out tables.jsonl
    python benchmarks/tables.py likelihood outliers rows --data DIR --out tables.jsonl
    python benchmarks/tables.py table --out tables.jsonl

DIR holds CSV files, and npz files for *incomplete*; `--sets` names them. Lines already in ``--out``
are not run again.
"""

import argparse
import copy
import json
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, print_table, read
from protocol import load as load_numbers
from scipy import stats
from scipy.special import logsumexp, ndtr, ndtri, softmax
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors

from skflows import AutoDensity, DensityOutlierDetector, TableDensity
from skflows.columns.encoding import Encoding
from skflows.distribution.normal import log_normal_mass
from skflows.table._latent_classes import conditional
from skflows.table._schema import Schema

SETS = ["slid", "hdma", "ofp", "wages", "abalone", "adult_12k"]
MAX_ROWS = 5000
N_BINS = 20
N_DRAWS = 20
N_IMPORTANCE = 100


def load(data, name, seed, max_rows):
    """Return training and test rows of a table, 80 and 20 %."""
    (path,) = [*Path(data).rglob(f"{name}.csv")]
    frame = pd.read_csv(path, na_values=["?"], skipinitialspace=True)
    frame = frame.sample(frac=1, random_state=seed)[:max_rows].reset_index(drop=True)
    n = int(0.8 * len(frame))
    return frame[:n].reset_index(drop=True), frame[n:].reset_index(drop=True)


FITTED = {}  # several parts ask for the same fit


def fitted(train, seed, **settings):
    """Return a density with some settings, fitted, and the processor seconds of the fit."""
    key = pd.util.hash_pandas_object(train).sum(), seed, *settings.items()
    if key not in FITTED:
        started = time.process_time()
        density = TableDensity(handle_unknown="rare", random_state=seed, **settings)
        FITTED[key] = density.fit(train), time.process_time() - started
    return FITTED[key]


# Known densities


class Truth:
    """Classes of independent categories, Poisson counts and jointly normal numbers."""

    def __init__(self, rng, n_classes, n_numbers, levels=(), n_counts=0):
        self.weights = rng.dirichlet(np.full(n_classes, 5.0))
        self.tables = [rng.dirichlet(np.full(k, 0.7), n_classes) for k in levels]
        self.rates = rng.gamma(2.0, 3.0, (n_counts, n_classes))
        self.means = 2 * rng.standard_normal((n_classes, n_numbers))
        factor = rng.standard_normal((n_classes, n_numbers, n_numbers)) / n_numbers**0.5
        self.covariances = factor @ factor.mT + 0.1 * np.eye(n_numbers)
        self.names = [
            *(f"c{i}" for i in range(len(levels))),
            *(f"k{i}" for i in range(n_counts)),
            *(f"x{i}" for i in range(n_numbers)),
        ]

    def sample(self, rng, n):
        z = rng.choice(len(self.weights), n, p=self.weights)
        columns = {}
        for i, table in enumerate(self.tables):
            drawn = [rng.choice(table.shape[1], p=table[k]) for k in z]
            columns[f"c{i}"] = [f"level {k}" for k in drawn]
        for i, rates in enumerate(self.rates):
            columns[f"k{i}"] = rng.poisson(rates[z])
        x = np.array([rng.multivariate_normal(self.means[k], self.covariances[k]) for k in z])
        return pd.DataFrame(columns | {f"x{i}": column for i, column in enumerate(x.T)})

    def joint(self, frame):
        """Return the log of weight times density of each class for the columns of a frame."""
        total = np.tile(np.log(self.weights), (len(frame), 1))
        for i, table in enumerate(self.tables):
            if f"c{i}" in frame:
                code = frame[f"c{i}"].str.removeprefix("level ").astype(int)
                total += np.log(table[:, code]).T
        for i, rates in enumerate(self.rates):
            if f"k{i}" in frame:
                total += stats.poisson.logpmf(frame[f"k{i}"].to_numpy()[:, None], rates)
        own = [i for i in range(self.means.shape[1]) if f"x{i}" in frame]
        if own:
            x = frame[[f"x{i}" for i in own]].to_numpy()
            for k in range(len(self.weights)):
                covariance = self.covariances[k][np.ix_(own, own)]
                total[:, k] += stats.multivariate_normal.logpdf(x, self.means[k, own], covariance)
        return total

    def log_density(self, frame):
        return logsumexp(self.joint(frame), axis=1)

    def fitted(self, frame, n_steps=200):
        """Return the parameters of the greatest likelihood, by EM that starts at the true ones."""
        own, before = copy.deepcopy(self), -np.inf
        codes = [
            frame[f"c{i}"].str.removeprefix("level ").astype(int).to_numpy()
            for i in range(len(self.tables))
        ]
        counts = frame[[f"k{i}" for i in range(len(self.rates))]].to_numpy()
        x = frame[[f"x{i}" for i in range(self.means.shape[1])]].to_numpy()
        for _ in range(n_steps):
            joint = own.joint(frame)
            total = logsumexp(joint, axis=1)
            share = np.exp(joint - total[:, None])
            rows = share.sum(axis=0)
            own.weights = rows / rows.sum()
            for i, code in enumerate(codes):
                table = share.T @ np.eye(own.tables[i].shape[1])[code] + 1e-3
                own.tables[i] = table / table.sum(axis=1, keepdims=True)
            own.rates = (share.T @ counts / rows[:, None]).T
            own.means = share.T @ x / rows[:, None]
            for k in range(len(rows)):
                residual = x - own.means[k]
                own.covariances[k] = (share[:, k, None] * residual).T @ residual / rows[k]
            if total.mean() - before < 1e-6:
                break
            before = total.mean()
        return own

    def conditional_cdf(self, name, frame, x):
        """Return the probability that a number is at most x, given the columns of a frame."""
        joint = self.joint(frame)
        share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        i = int(name[1:])
        known = [k for k in range(self.means.shape[1]) if f"x{k}" in frame]
        order = [*known, i]
        y = frame[[f"x{k}" for k in known]].to_numpy()
        means, covariances = self.means[:, order], self.covariances[:, order][:, :, order]
        inside = np.arange(len(known))
        _, _, mean, covariance = conditional(means, covariances, y, inside, [len(known)])
        unit = (x[:, None] - mean[:, :, 0].T) / np.sqrt(covariance[:, 0, 0])
        return (share * ndtr(unit)).sum(axis=1)


def gaussian_mixture(train, seed):
    """Return a `Truth` with the parameters of the Gaussian mixture of the best BIC."""
    models = [
        GaussianMixture(k, n_init=3, random_state=seed, reg_covar=1e-5).fit(train)
        for k in (1, 2, 4, 6, 8, 10, 12, 16, 20)
    ]
    best = min(models, key=lambda model: model.bic(train))
    found = object.__new__(Truth)
    found.weights, found.means, found.covariances = best.weights_, best.means_, best.covariances_
    found.tables, found.rates, found.names = [], np.zeros((0, 1)), list(train)
    return found


def run_reference(args, seed):
    for what, make in {
        "numbers": lambda rng: Truth(rng, 8, 6),
        "mixed": lambda rng: Truth(rng, 5, 3, levels=(3, 4), n_counts=1),
    }.items():
        for n in (1000, 5000):
            rng = np.random.default_rng(seed)
            truth = make(rng)
            train, test = truth.sample(rng, n), truth.sample(rng, 500)
            methods = {
                "TableDensity": lambda rows: TableDensity(random_state=seed).fit(rows),
                "EM from the truth": truth.fitted,
            }
            if what == "numbers":
                methods["GMM-BIC"] = lambda rows: gaussian_mixture(rows, seed)
            for method, fit in methods.items():
                key = {"part": "reference", "set": what, "n": n, "method": method, "seed": seed}
                if is_done(args, key):
                    continue
                started = time.process_time()
                model = fit(train)
                seconds = time.process_time() - started
                record(args, key, reference_errors(truth, model, test, seed) | {"cpu_s": seconds})


def reference_errors(truth, model, test, seed):
    rng = np.random.default_rng(seed)
    conditional_errors, marginal_errors, quantile_errors, joint = [], [], [], []
    ours = isinstance(model, TableDensity)
    for _ in range(6):
        order = list(rng.permutation(truth.names))
        given, rest = order[: len(order) // 2], order[len(order) // 2 :]
        expected = truth.log_density(test) - truth.log_density(test[given])
        if ours:
            found = model.condition(test[given]).score_samples(test[rest])
            marginal = model.marginal(given).score_samples(test[given])
        else:
            found = model.log_density(test) - model.log_density(test[given])
            marginal = model.log_density(test[given])
        conditional_errors.append(np.abs(found - expected).mean())
        marginal_errors.append(np.abs(marginal - truth.log_density(test[given])).mean())
        number = next(name for name in rest + given if name.startswith("x"))
        given = [name for name in given if name != number]
        if ours:
            at = model.quantile(number, test[given], [0.1, 0.5, 0.9]).T
            levels = [truth.conditional_cdf(number, test[given], x) for x in at]
            pairs = zip(levels, (0.1, 0.5, 0.9), strict=True)
            quantile_errors.append(np.mean([np.abs(level - q).mean() for level, q in pairs]))
        else:
            x = test[number].to_numpy()
            error = np.abs(
                model.conditional_cdf(number, test[given], x)
                - truth.conditional_cdf(number, test[given], x)
            )
            quantile_errors.append(error.mean())
    joint = truth.log_density(test) - (
        model.score_samples(test) if ours else model.log_density(test)
    )
    return {
        "conditional": float(np.mean(conditional_errors)),
        "marginal": float(np.mean(marginal_errors)),
        "quantile_level": float(np.mean(quantile_errors)),
        "kl": float(joint.mean()),
    }


# Held-out likelihood of mixed rows


class Binned:
    """Columns as codes: levels, and bins of normal scores; with the mass of a value in its bin."""

    def __init__(self, train):
        encoding, rows = Encoding.read(train)
        self.schema = Schema(encoding, rows, random_state=np.random.RandomState(0))
        self.edges = ndtri(np.linspace(0, 1, N_BINS + 1))

    def cells(self, frame):
        """Return the cells of a table in normal scores."""
        variables = self.schema.encode(frame)
        return self.schema.cells(variables, self.schema.code(variables), "quantile")

    def encode(self, frame):
        """Return codes, -1 where missing, and the log-mass of each value given its code."""
        cells = self.cells(frame)
        codes, masses = np.full(cells.known.shape, -1), np.where(cells.known, cells.log_scale, 0.0)
        for j, part in enumerate(self.schema.variables):
            known = cells.known[:, j]
            codes[known, j] = np.minimum(cells.code[known, j], part.n_levels - 1).clip(0)
            if part.has_number:
                has = known & np.isfinite(cells.middle[:, j])
                y = cells.middle[has, j]
                bin_ = np.searchsorted(self.edges[1:-1], y)
                codes[has, j] = np.where(bin_ == 0, 0, bin_ + max(part.n_levels - 1, 0))
                low, high = cells.low[has, j], cells.high[has, j]
                own = log_normal_mass(low, y, high, 0.0, 1.0) + np.log(N_BINS)
                # A cell that is wider than a bin has all of its mass.
                masses[has, j] += np.where(high > low, np.minimum(own, 0.0), own)
                codes[has, j] = bin_ + part.n_levels  # after the atoms
        return codes, masses

    @property
    def n_codes(self):
        return [part.n_levels + N_BINS * part.has_number for part in self.schema.variables]


class LatentClass:
    """Classes of independent columns, by expectation-maximisation on binned columns."""

    def fit(self, train, seed):
        self.binned = Binned(train)
        codes, _ = self.binned.encode(train)
        held = np.arange(len(codes)) % 7 == 0
        best = None
        for k in (5, 10, 20, 40, 80):
            model = self._em(codes[~held], k, seed)
            score = self._scores(model, codes[held]).mean()
            if best is None or score > best[0]:
                best = score, k
        self.model = self._em(codes, best[1], seed)
        return self

    def _em(self, codes, k, seed):
        rng = np.random.default_rng(seed)
        share = rng.dirichlet(np.ones(k), len(codes))
        for _ in range(100):
            weights = np.log(share.mean(axis=0) + 1e-9)
            tables = []
            for j, n_codes in enumerate(self.binned.n_codes):
                one_hot = (codes[:, j, None] == np.arange(n_codes)).astype(float)
                prior = (one_hot.sum(axis=0) + 0.5) / (one_hot.sum() + 0.5 * n_codes)
                table = share.T @ one_hot + 1.0 * prior
                tables.append(np.log(table / table.sum(axis=1, keepdims=True)))
            joint = self._joint((weights, tables), codes)
            share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        return weights, tables

    def _joint(self, model, codes):
        weights, tables = model
        joint = np.tile(weights, (len(codes), 1))
        for j, table in enumerate(tables):
            known = codes[:, j] >= 0
            joint[known] += table[:, codes[known, j]].T
        return joint

    def _scores(self, model, codes):
        return logsumexp(self._joint(model, codes), axis=1)

    def score_samples(self, frame):
        codes, masses = self.binned.encode(frame)
        return self._scores(self.model, codes) + masses.sum(axis=1)


class Chain:
    """Gradient-boosted classifiers of each binned column given those before it."""

    def fit(self, train, seed):
        self.binned = Binned(train)
        codes, _ = self.binned.encode(train)
        self.steps = []
        for j, n_codes in enumerate(self.binned.n_codes):
            known = codes[:, j] >= 0
            counts = np.bincount(codes[known, j], minlength=n_codes) + 0.5
            prior = counts / counts.sum()
            model = None
            if j and len(np.unique(codes[known, j])) > 1:
                X = np.where(codes < 0, np.nan, codes)[known, :j]
                model = HistGradientBoostingClassifier(
                    max_iter=100,
                    learning_rate=0.05,
                    max_leaf_nodes=8,
                    early_stopping=True,
                    n_iter_no_change=5,
                    random_state=seed,
                    validation_fraction=0.15,
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        model.fit(X, codes[known, j])
                    except ValueError:  # a class of one row cannot be stratified
                        model.set_params(early_stopping=False, max_iter=30).fit(X, codes[known, j])
            self.steps.append((prior, model))
        return self

    def score_samples(self, frame):
        codes, masses = self.binned.encode(frame)
        total = masses.sum(axis=1)
        X = np.where(codes < 0, np.nan, codes)
        for j, (prior, model) in enumerate(self.steps):
            known = codes[:, j] >= 0
            proba = np.tile(prior, (known.sum(), 1))
            if model is not None:
                found = np.zeros_like(proba)
                found[:, model.classes_] = model.predict_proba(X[known, :j])
                proba = 0.99 * found + 0.01 * proba
            total[known] += np.log(proba[np.arange(known.sum()), codes[known, j]])
        return total


class Copula:
    """A Gaussian copula: levels in their order are intervals of a normal."""

    def fit(self, train, seed):
        self.binned = Binned(train)
        self.cuts = {}
        cells = self.binned.cells(train)
        for j, part in enumerate(self.binned.schema.variables):
            if part.n_levels:
                known = cells.known[:, j]
                code = np.minimum(cells.code[known, j], part.n_levels - 1)
                counts = np.bincount(code, minlength=part.n_levels) + 0.5
                if part.has_number:
                    counts = np.append(counts[1:], counts[0])  # the number comes last
                below = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
                self.cuts[j] = ndtri(below.clip(0, 1)), counts / counts.sum()
        _, y, _, _, known = self._cells(train)
        middle = np.where(known, y, 0.0)
        correlation = pd.DataFrame(np.where(known, middle, np.nan)).corr().fillna(0.0)
        correlation = correlation.to_numpy().copy()
        np.fill_diagonal(correlation, 1.0)
        values, vectors = np.linalg.eigh(correlation)
        self.covariance = (vectors * values.clip(1e-3)) @ vectors.T
        scale = np.sqrt(np.diag(self.covariance))
        self.covariance /= scale[:, None] * scale
        return self

    def _cells(self, frame):
        schema = self.binned.schema
        cells = self.binned.cells(frame)
        low, y, high = cells.low.copy(), cells.middle.copy(), cells.high.copy()
        log_scale = np.where(cells.known, cells.log_scale, 0.0)
        for j, part in enumerate(schema.variables):
            if not part.n_levels:
                continue
            ends, shares = self.cuts[j]
            known = cells.known[:, j]
            code = np.minimum(cells.code[:, j], part.n_levels - 1)
            if part.has_number:
                # Within its share, a number is uniform by its own normal score.
                number = known & (code == 0)
                p = shares[:-1].sum() + shares[-1] * ndtr(y[number, j])
                log_scale[number, j] += (
                    np.log(shares[-1])
                    + stats.norm.logpdf(y[number, j])
                    - stats.norm.logpdf(ndtri(p.clip(1e-9, 1 - 1e-9)))
                )
                low[number, j] = y[number, j] = high[number, j] = ndtri(p.clip(1e-9, 1 - 1e-9))
                atom = known & (code > 0)
                code = code - 1
                known = atom
            low[known, j], high[known, j] = ends[code[known]], ends[code[known] + 1]
            inside = (ndtr(low[known, j]) + ndtr(high[known, j])) / 2
            y[known, j] = ndtri(inside)
        return low, y, high, log_scale, cells.known

    def score_samples(self, frame):
        low, y, high, log_scale, known = self._cells(frame)
        total = log_scale.sum(axis=1)
        means = np.zeros((1, y.shape[1]))
        for i in range(len(y)):
            own = np.flatnonzero(known[i])
            unit, sd, *_ = conditional(means, self.covariance[None], y[i : i + 1, own], own, [])
            unit, sd = unit[0, 0], sd[0]
            below, above = (
                unit - (y[i, own] - low[i, own]) / sd,
                unit + (high[i, own] - y[i, own]) / sd,
            )
            mass = log_normal_mass(below, unit, above, 0.0, 1.0)
            total[i] += (mass - np.where(low[i, own] == high[i, own], np.log(sd), 0.0)).sum()
        return total


LIKELIHOOD = {
    "latent class": LatentClass,
    "Gaussian copula": Copula,
    "HGB chain": Chain,
}


def run_likelihood(args, seed):
    for name in args.sets:
        train, test = load(args.data, name, seed, args.max_rows)
        for method in ("TableDensity", *LIKELIHOOD):
            key = {
                "part": "likelihood",
                "set": name,
                "n": len(train),
                "method": method,
                "seed": seed,
            }
            if is_done(args, key):
                continue
            if method == "TableDensity":
                model, seconds = fitted(train, seed)
            else:
                started = time.process_time()
                model = LIKELIHOOD[method]().fit(train, seed)
                seconds = time.process_time() - started
            scores = model.score_samples(test)
            finite = np.isfinite(scores)
            record(
                args,
                key,
                {
                    "ll": float(scores[finite].mean()),
                    "se": float(stats.sem(scores[finite])),
                    "nonfinite": int((~finite).sum()),
                    "cpu_s": seconds,
                },
            )


# Gaps


def with_gaps(frame, share, rng):
    gaps = rng.uniform(size=frame.shape) < share
    gaps &= frame.notna().to_numpy()
    found = frame.astype(dict.fromkeys(frame.select_dtypes("number"), float))
    return found.mask(gaps), gaps


class Imputer:
    """An imputer of numbers, on ordinal codes or on one-hot columns."""

    def __init__(self, train, kind, seed):
        self.names = list(train)
        self.numeric = [name for name in train if pd.api.types.is_numeric_dtype(train[name])]
        self.levels = {
            n: sorted(train[n].dropna().unique()) for n in train if n not in self.numeric
        }
        self.scale = {n: (train[n].mean(), train[n].std() or 1.0) for n in self.numeric}
        self.one_hot = kind == "KNNImputer"
        make = {
            "KNNImputer": lambda: KNNImputer(n_neighbors=10),
            "IterativeImputer": lambda: IterativeImputer(max_iter=10, random_state=seed),
            "posterior": lambda: IterativeImputer(sample_posterior=True, random_state=seed),
            "SimpleImputer": lambda: SimpleImputer(),
        }
        self.imputer = make[kind]().fit(self._encode(train))

    def _encode(self, frame):
        columns = []
        for name in self.names:
            if name in self.numeric:
                mean, scale = self.scale[name]
                columns.append(((frame[name] - mean) / scale).to_numpy(float)[:, None])
                continue
            levels = self.levels[name]
            code = (
                frame[name].map(dict(zip(levels, range(len(levels)), strict=True))).to_numpy(float)
            )
            one_hot = (code[:, None] == np.arange(len(levels))).astype(float)
            one_hot[np.isnan(code)] = np.nan
            columns.append(one_hot)
        return np.concatenate(columns, axis=1)

    def fill(self, frame):
        X = self.imputer.transform(self._encode(frame))
        found, start = {}, 0
        for name in self.names:
            if name in self.numeric:
                mean, scale = self.scale[name]
                found[name] = X[:, start] * scale + mean
                start += 1
                continue
            levels = self.levels[name]
            best = X[:, start : start + len(levels)].argmax(axis=1)
            found[name] = np.array(levels, dtype=object)[best]
            start += len(levels)
        return pd.DataFrame(found)


def by_sklearn(kind):
    def impute(train, test, seed):
        filled, draws = Imputer(train, kind, seed).fill(test), None
        if kind == "IterativeImputer":
            posterior = Imputer(train, "posterior", seed)
            draws = [posterior.fill(test) for _ in range(N_DRAWS)]
        return filled, draws

    return impute


def by_miceforest(train, test, seed):
    """Return the means and modes of the draws, and the draws."""
    import miceforest

    texts = list(train.select_dtypes(exclude="number"))
    train, test = categorised(train, test)
    kernel = miceforest.ImputationKernel(train, num_datasets=N_DRAWS, random_state=seed)
    kernel.mice(5, num_threads=1)
    new = kernel.impute_new_data(test, random_state=seed)
    # Its default iteration is the first guesses, without any iteration.
    draws = [new.complete_data(k, iteration=5) for k in range(N_DRAWS)]
    draws = [draw.astype(dict.fromkeys(texts, object)) for draw in draws]
    filled = draws[0].copy()
    for name in filled:
        values = pd.concat([draw[name] for draw in draws], axis=1)
        filled[name] = values.mode(axis=1)[0] if name in texts else values.mean(axis=1)
    return filled, draws


IMPUTERS = {
    **{kind: by_sklearn(kind) for kind in ("IterativeImputer", "KNNImputer", "SimpleImputer")},
    "miceforest": by_miceforest,
}


def run_gaps(args, seed):
    for name in args.sets:
        train, test = load(args.data, name, seed, args.max_rows)
        complete = train.notna().all(axis=1)
        train = train[complete].reset_index(drop=True)
        test = test[test.notna().all(axis=1)].reset_index(drop=True)
        for share in (0.1, 0.3, 0.5):
            rng = np.random.default_rng(seed)
            (gappy, _), (holes, gaps) = with_gaps(train, share, rng), with_gaps(test, share, rng)
            for method in ("TableDensity", *IMPUTERS):
                key = {
                    "part": "gaps",
                    "set": name,
                    "n": len(train),
                    "share": share,
                    "method": method,
                    "seed": seed,
                }
                if is_done(args, key):
                    continue
                started = time.process_time()
                if method == "TableDensity":
                    model = TableDensity(handle_unknown="rare", random_state=seed).fit(gappy)
                    filled = model.impute(holes, "mean")
                    draws = model.impute(holes, "draw", n_draws=N_DRAWS, random_state=seed)
                    scores = model.score_samples(holes)
                    finite = np.isfinite(scores)
                    more = {"ll": float(scores[finite].mean()), "nonfinite": int((~finite).sum())}
                else:
                    more = {}
                    try:
                        filled, draws = IMPUTERS[method](gappy, holes, seed)
                    except ImportError as error:
                        print(key | {"error": repr(error)}, flush=True)
                        continue
                seconds = time.process_time() - started
                record(args, key, errors_of(test, filled, draws, gaps) | more | {"cpu_s": seconds})


FILLED = {  # whether gaps are filled by draws, before a fit that needs complete rows
    "IterativeImputer, AutoDensity": False,
    "IterativeImputer's draws, AutoDensity": True,
}


def run_incomplete(args, seed):
    """Score test rows, complete and with gaps, by models of training rows with gaps.

    The density of observed cells under `AutoDensity` is estimated by importance sampling, with
    draws of `TableDensity`.
    """
    for name in args.sets:
        (path,) = [*Path(args.data).rglob(f"{name}.npz")]
        train, val, test = load_numbers(path, seed)
        train = pd.DataFrame(np.concatenate([train, val])[: args.max_rows]).astype(float)
        test = pd.DataFrame(test[:200]).astype(float)
        for share in (0.1, 0.3, 0.5):
            rng = np.random.default_rng(seed)
            (gappy, _), (holes, gaps) = with_gaps(train, share, rng), with_gaps(test, share, rng)
            key = {"part": "incomplete", "set": name, "n": len(train), "share": share, "seed": seed}
            left = [m for m in ("TableDensity", *FILLED) if not is_done(args, key | {"method": m})]
            if not left:
                continue
            started = time.process_time()
            table = TableDensity(columns=dict.fromkeys(train, "continuous"), random_state=seed)
            table.fit(gappy)
            seconds = time.process_time() - started
            repeated = pd.concat([holes] * N_IMPORTANCE, ignore_index=True)
            draws = table.impute(repeated, "draw", random_state=seed)
            log_proposal = table._log_prob(
                table._variables(draws), np.tile(~gaps, (N_IMPORTANCE, 1))
            )
            for method in left:
                if method == "TableDensity":
                    complete, observed = table.score_samples(test), table.score_samples(holes)
                    more = {"cpu_s": seconds}
                else:
                    imputer = IterativeImputer(sample_posterior=FILLED[method], random_state=seed)
                    auto = AutoDensity(random_state=seed).fit(imputer.fit_transform(gappy))
                    complete = auto.score_samples(test.to_numpy())
                    ratios = auto.score_samples(draws.to_numpy()) - log_proposal
                    ratios = ratios.reshape(N_IMPORTANCE, -1)
                    observed = logsumexp(ratios, axis=0) - np.log(N_IMPORTANCE)
                    effective = 1 / (softmax(ratios, axis=0) ** 2).sum(axis=0)
                    more = {"effective": float(np.median(effective))}
                found = {"complete": complete.mean(), "observed": observed.mean()}
                record(args, key | {"method": method}, found | more)


def errors_of(test, filled, draws, gaps):
    """Return mean standardised RMSE, accuracy, CRPS and coverage of draws over columns."""
    rmse, accuracy, crps, coverage = [], [], [], []
    for j, name in enumerate(test):
        own = gaps[:, j]
        if not own.any():
            continue
        truth = test[name][own].to_numpy()
        if not pd.api.types.is_numeric_dtype(test[name]):
            accuracy.append((filled[name][own].to_numpy() == truth).mean())
            continue
        scale = test[name].std() or 1.0
        rmse.append(np.sqrt((((filled[name][own].to_numpy(float) - truth) / scale) ** 2).mean()))
        if draws is None:
            continue
        drawn = np.stack([draw[name][own].to_numpy(float) for draw in draws]) / scale
        truth = truth / scale
        spread = np.abs(drawn[:, None] - drawn[None]).mean(axis=(0, 1))
        crps.append((np.abs(drawn - truth).mean(axis=0) - spread / 2).mean())
        low, high = np.quantile(drawn, [0.1, 0.9], axis=0)
        coverage.append(((low <= truth) & (truth <= high)).mean())
    return {
        key: float(np.mean(values))
        for key, values in {
            "rmse": rmse,
            "accuracy": accuracy,
            "crps": crps,
            "coverage_80": coverage,
        }.items()
        if values
    }


# Outliers


def one_hot(train, test):
    """Return standardised numbers, one-hot levels, and indicators of gaps; medians fill gaps."""
    both = pd.concat([train, test], keys=["train", "test"])
    X = pd.get_dummies(both, dummy_na=True).astype(float)
    gaps = both.select_dtypes("number").isna().astype(float).add_suffix(" is missing")
    X = pd.concat([X.fillna(X.loc["train"].median()), gaps], axis=1)
    mean, scale = X.loc["train"].mean(), X.loc["train"].std().replace(0, 1.0)
    X = (X - mean) / scale
    return X.loc["train"].to_numpy(), X.loc["test"].to_numpy()


def planted(test, odd, kind, rng):
    """Return a table in which some rows have cells of other rows, gaps, or wrong numbers."""
    found = test.astype(dict.fromkeys(test.select_dtypes("number"), float))
    usual = test.isna().mean().to_numpy() < 0.01
    numbers = [found.columns.get_loc(name) for name in found.select_dtypes("number")]
    for row in odd:
        if kind == "factors":  # of a number that is not 0, as if it had another unit
            values = found.iloc[row, numbers].to_numpy(dtype=float)
            if (places := np.flatnonzero(np.nan_to_num(values))).size:
                place = rng.choice(places)
                found.iloc[row, numbers[place]] = values[place] * rng.choice([3, 0.2])
            continue
        if kind == "gaps":  # in two columns that hardly ever have any
            found.iloc[row, rng.permutation(np.flatnonzero(usual))[:2]] = np.nan
            continue
        other = rng.integers(len(test))
        for j in rng.permutation(test.shape[1])[:2]:
            found.iloc[row, j] = test.iloc[other, j]
    return found


def ecod(X, Z):
    from pyod.models.ecod import ECOD

    return -ECOD().fit(X).decision_function(Z)


DETECTORS = {
    "IsolationForest": lambda X, Z, seed: (
        IsolationForest(random_state=seed).fit(X).score_samples(Z)
    ),
    "kNN": lambda X, Z, seed: -NearestNeighbors(n_neighbors=5).fit(X).kneighbors(Z)[0][:, -1],
    "ECOD": lambda X, Z, seed: ecod(X, Z),
}


# The statistic of each of our methods, by what is planted.
OF_TABLES = {
    "swaps": {"TableDensity": "log_density", "dependence": "dependence"},
    "gaps": {"TableDensity": "log_density"},
    "factors": {"TableDensity": "log_pool", "log-density": "log_density"},
}


def run_outliers(args, seed):
    for name in args.sets:
        train, test = load(args.data, name, seed, args.max_rows)
        kinds = {"swaps": {}, "gaps": {"missing": "model"}, "factors": {}}
        for kind, settings in kinds.items():
            rng = np.random.default_rng(seed)
            odd = rng.permutation(len(test))[: len(test) // 10]
            rows = planted(test, odd, kind, rng)
            changed = ((rows != test) & ~(rows.isna() & test.isna())).any(axis=1).to_numpy()
            ours = OF_TABLES[kind]
            for method in (*ours, *DETECTORS):
                key = {"part": "outliers", "set": name, "n": len(train), "kind": kind}
                key |= {"method": method, "seed": seed}
                if is_done(args, key):
                    continue
                if method in ours:
                    density = FrozenEstimator(fitted(train, seed, **settings)[0])
                    detector = DensityOutlierDetector(density, statistic=ours[method])
                    scores = detector.fit(train[:100]).score_samples(rows)
                else:
                    scores = DETECTORS[method](*one_hot(train, rows), seed)
                ranks = stats.rankdata(-scores)
                record(args, key, {"auroc": float(roc_auc_score(changed, ranks))})


# Synthetic rows

TARGETS = {
    "slid": "wages",
    "hdma": "deny",
    "ofp": "hlth",
    "wages": "lwage",
    "abalone": "rings",
    "adult_12k": "income",
}


def sdv_rows(name, **settings):
    def rows(train, n, seed):
        from sdv import single_table
        from sdv.metadata import Metadata

        metadata = Metadata.detect_from_dataframes({"rows": train}, infer_keys=None)
        model = getattr(single_table, name)(metadata, **settings)
        model.fit({"rows": train})
        drawn = model.sample(n)
        return drawn["rows"] if isinstance(drawn, dict) else drawn

    return rows


def arf_rows(train, n, seed):
    np.in1d = np.isin  # noqa: NPY201 - arfpy 0.1 needs a name that numpy has removed
    from arfpy import arf

    texts = train.select_dtypes(exclude="number").columns
    forest = arf.arf(train.astype(dict.fromkeys(texts, "category")), verbose=False)
    forest.forde()
    return forest.forge(n)[list(train)].reset_index(drop=True)


def diffusion_rows(train, n, seed):
    from ForestDiffusion import ForestDiffusionModel

    names = list(train)
    texts = [j for j, name in enumerate(names) if train[name].dtype == object]
    whole = [j for j, name in enumerate(names) if train[name].dtype == int]
    levels = {j: sorted(train[names[j]].unique()) for j in texts}
    X = np.stack(
        [
            train[name].map(levels[j].index) if j in levels else train[name]
            for j, name in enumerate(names)
        ],
        axis=1,
    ).astype(float)
    model = ForestDiffusionModel(
        X, cat_indexes=texts, int_indexes=whole, duplicate_K=10, n_jobs=1, seed=seed
    )
    drawn = pd.DataFrame(model.generate(batch_size=n), columns=names)
    for j in texts:
        code = drawn[names[j]].round().astype(int).clip(0, len(levels[j]) - 1)
        drawn[names[j]] = np.array(levels[j], dtype=object)[code]
    return drawn


def own_rows(**settings):
    def rows(train, n, seed):
        return fitted(train, seed, **settings)[0].sample(n, random_state=seed)

    return rows


SAMPLERS = {
    "TableDensity": own_rows(),
    "independent columns": lambda train, n, seed: pd.DataFrame(
        {
            name: train[name].sample(n, replace=True, random_state=seed + i).to_numpy()
            for i, name in enumerate(train)
        }
    ),
    "Gaussian copula (sdv)": sdv_rows("GaussianCopulaSynthesizer"),
    "TVAE (sdv)": sdv_rows("TVAESynthesizer"),
    "CTGAN (sdv)": sdv_rows("CTGANSynthesizer"),
    "arfpy": arf_rows,
    "ForestDiffusion": diffusion_rows,
}


def run_rows(args, seed):
    """Complete rows only: not all of the samplers know gaps."""
    for name in args.sets:
        train, test = (
            rows.dropna().reset_index(drop=True)
            for rows in load(args.data, name, seed, args.max_rows)
        )
        n = len(train)
        for method in ("real rows", *SAMPLERS):
            key = {"part": "rows", "set": name, "n": n, "method": method, "seed": seed}
            if is_done(args, key):
                continue
            np.random.seed(seed)  # noqa: NPY002 - some samplers have no seed of their own
            torch.manual_seed(seed)
            fit_seconds = fitted(train, seed)[1] if method == "TableDensity" else 0.0
            started = time.process_time()
            try:
                fake = test if method == "real rows" else SAMPLERS[method](train, n, seed)
            except Exception as error:  # whatever a peer raises is its result
                print(key | {"error": repr(error)}, flush=True)
                continue
            seconds = fit_seconds + time.process_time() - started
            fake = fake.astype(train.dtypes)
            source = train if method == "real rows" else fake
            found = {
                "auc": discriminator(train, fake, seed),
                "prediction": prediction(source, test, TARGETS[name], seed),
                "distance": distance_ratio(train, test, fake),
                "copies": copies(train, fake),
                **shapes(train, fake),
                "cpu_s": seconds,
            }
            record(args, key, found)


def categorised(*tables):
    """Return tables whose texts are categories of the same levels."""
    both = pd.concat(tables, keys=range(len(tables)))
    for name in both.select_dtypes(exclude="number"):
        both[name] = both[name].astype("category")
    return [both.loc[i].reset_index(drop=True) for i in range(len(tables))]


def discriminator(real, fake, seed):
    """Return the cross-validated AUC of gradient boosting that tells rows apart."""
    n = min(len(real), len(fake))
    tables = categorised(real.sample(n, random_state=seed), fake.sample(n, random_state=seed))
    both = pd.concat(tables)
    model = HistGradientBoostingClassifier(random_state=seed, categorical_features="from_dtype")
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_score(model, both, np.repeat([0, 1], n), cv=folds, scoring="roc_auc")
    return float(scores.mean())


def prediction(source, test, target, seed):
    """Return the AUC or R2 on real rows of gradient boosting that is trained on a table."""
    source, test = categorised(source, test)
    settings = {"random_state": seed, "categorical_features": "from_dtype"}
    X, Z = source.drop(columns=target), test.drop(columns=target)
    if pd.api.types.is_numeric_dtype(test[target]):
        model = HistGradientBoostingRegressor(**settings).fit(X, source[target])
        return float(model.score(Z, test[target]))
    model = HistGradientBoostingClassifier(**settings).fit(X, source[target])
    proba = np.zeros((len(Z), len(test[target].cat.categories)))
    proba[:, [*map(test[target].cat.categories.get_loc, model.classes_)]] = model.predict_proba(Z)
    proba = proba[:, 1] if proba.shape[1] == 2 else proba
    return float(roc_auc_score(test[target].cat.codes, proba, multi_class="ovr"))


def distance_ratio(train, test, fake):
    """Return the mean distance to the closest training row, relative to real test rows."""
    X, Z = one_hot(train, pd.concat([test, fake], ignore_index=True))
    distance = NearestNeighbors(n_neighbors=1).fit(X).kneighbors(Z)[0][:, 0]
    return float(np.mean(distance[len(test) :]) / np.mean(distance[: len(test)]))


def copies(train, rows):
    """Return the share of rows that equal a training row which occurs once."""

    def keys(frame):
        frame = frame[list(train)].astype(dict.fromkeys(train.select_dtypes("number"), float))
        return pd.util.hash_pandas_object(frame.astype(str), index=False)

    once = keys(train).drop_duplicates(keep=False)
    return float(keys(rows).isin(once).mean())


def shapes(real, fake):
    """Return sdmetrics' scores of columns and of pairs of columns; 1 is best."""
    try:
        from sdmetrics.reports.single_table import QualityReport
    except ImportError:
        return {}
    numbers = real.select_dtypes("number").columns
    kinds = {name: {"sdtype": "numerical" if name in numbers else "categorical"} for name in real}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = QualityReport()
        report.generate(real, fake, {"columns": kinds}, verbose=False)
    return {  # some pairs have none
        key: float(report.get_details(name)["Score"].mean())
        for key, name in (("columns", "Column Shapes"), ("pairs", "Column Pair Trends"))
    }


def is_done(args, key):
    if args.methods and key["method"] not in args.methods:
        return True
    if not args.out.exists():
        return False
    lines = map(json.loads, args.out.read_text().splitlines())
    return any(all(line.get(name) == value for name, value in key.items()) for line in lines)


def record(args, key, values):
    line = key | {name: round(value, 5) for name, value in values.items()}
    print(line, flush=True)
    append(args.out, line)


def run_limits(args, seed):
    """Complete rows only, as in *rows*."""
    for name in args.sets:
        train, test = (
            rows.dropna().reset_index(drop=True)
            for rows in load(args.data, name, seed, args.max_rows)
        )
        for limit in (5, 10, 30, None):
            method = f"time_limit={limit}"
            key = {"part": "limits", "set": name, "n": len(train), "method": method, "seed": seed}
            if is_done(args, key):
                continue
            started = time.perf_counter(), time.process_time()
            density = TableDensity(handle_unknown="rare", time_limit=limit, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of components that had no time
                density.fit(train)
            seconds = time.perf_counter() - started[0], time.process_time() - started[1]
            fake = density.sample(len(train), random_state=seed).astype(train.dtypes)
            found = {
                "ll": density.score_samples(test).mean(),
                "auc": discriminator(train, fake, seed),
                "s": seconds[0],
                "cpu_s": seconds[1],
            }
            record(args, key, found)


SHARE_OF_GAPS, N_SAMPLED, N_ROUNDS = 0.2, 20_000, 7


def run_speed(args, seed):
    """Rows that a fitted density answers in a second of processor time."""
    for name in args.sets:
        train, _ = load(args.data, name, seed, args.max_rows)
        key = {"part": "speed", "set": name, "n": len(train), "method": OURS, "seed": seed}
        if is_done(args, key):
            continue
        density, seconds = fitted(train, seed)
        gappy, _ = with_gaps(train, SHARE_OF_GAPS, np.random.default_rng(seed))
        category = train.select_dtypes(exclude="number").columns[0]
        given = train.loc[train[category].notna(), [category]].iloc[0].to_dict()
        calls = {
            "score": (len(train), density.score_samples, train),
            "impute": (len(train), density.impute, gappy),
            "draw": (len(train), partial(density.impute, method="draw"), gappy),
            "sample": (N_SAMPLED, partial(density.sample, given=given), N_SAMPLED),
            "predict_proba": (len(train), density.predict_proba, category, train),
        }
        record(args, key, {"columns": train.shape[1], "fit_s": seconds, **per_second(calls)})


def per_second(calls):
    """Return rows per processor second of calls in turn, the best of some rounds of each.

    Rounds lie seconds apart: other machines of a shared processor slow a single one down.
    """
    best = dict.fromkeys(calls, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(N_ROUNDS):
            for what, (n, function, *args) in calls.items():
                started = time.process_time()
                function(*args)
                best[what] = max(best[what], n / (time.process_time() - started))
    return best


LARGE = {"100,000": 100_000, "1,000,000": 1_000_000}
N_EPOCHS, N_SCORED = 10, 20_000


def run_scale(args, seed):
    """Rows of adult that repeat, with noise on a column; each size has a process."""
    for name, n in LARGE.items():
        key = {"part": "scale", "set": "adult_12k", "method": name, "seed": seed}
        if is_done(args, key):
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            record(args, key, executor.submit(fit_large, args.data, n, seed).result())


def fit_large(data, n, seed):
    """Return processor seconds and gigabytes of a fit, and of scores of some rows."""
    fitted(load(data, "adult_12k", seed, 200)[0], seed, max_iter=1)  # imports all that a fit uses
    table, _ = load(data, "adult_12k", seed, None)
    rng = np.random.default_rng(seed)
    rows = table.iloc[rng.integers(0, len(table), n)].reset_index(drop=True)
    texts = rows.select_dtypes(exclude="number")
    rows = rows.astype(dict.fromkeys(texts, "category"))
    rows["fnlwgt"] += rng.normal(0, 1000, n).round().astype(int)
    before, started = peak_gigabytes(), time.process_time()
    density = TableDensity(handle_unknown="rare", max_iter=N_EPOCHS, random_state=seed).fit(rows)
    found = {"fit_s": time.process_time() - started, "fit_gb": peak_gigabytes() - before}
    started = time.process_time()
    density.score_samples(rows[:N_SCORED])
    found["rows_per_s"] = N_SCORED / (time.process_time() - started)
    return found | {"peak_gb": peak_gigabytes()}


def peak_gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


OURS = "TableDensity"


def compared(frame, rows, score, digits, less_is_better=False):
    """Print a score of each method, means over seeds, and how `TableDensity` compares.

    The mean is over the rows of the table that all methods have.
    """
    key = frame[rows].astype(str).agg(", ".join, axis=1).rename(", ".join(rows))
    wide = frame.groupby([key, "method"], sort=False)[score].mean().unstack("method")
    wide = wide.dropna(how="all", axis=1).dropna(subset=OURS)
    wide = wide[[OURS, *wide.columns.drop(OURS)]]
    gain = wide.rsub(wide[OURS], axis=0) * (-1 if less_is_better else 1)
    cells = wide.map(lambda value: "" if np.isnan(value) else f"{value:.{digits}f}")
    cells.loc["mean"] = [f"{value:.{digits}f}" for value in wide.dropna().mean()]
    ahead = [f"{(gain[name] > 0).sum()} of {gain[name].count()}" for name in wide]
    cells.loc[f"{OURS} is ahead on"] = ["", *ahead[1:]]
    print_table(cells, {})


def show(lines):
    """Print the tables of `tables.md`."""
    frame = pd.DataFrame(lines)
    parts = {part: own.dropna(axis=1, how="all") for part, own in frame.groupby("part")}
    if "reference" in parts:
        names = {
            "conditional": "log-conditionals",
            "marginal": "log-marginals",
            "quantile_level": "quantiles",
            "kl": "joint",
        }
        own = parts["reference"].groupby(["set", "n", "method"])[[*names]].mean()
        print("\nreference\n")
        print_table(own.rename(columns=names), dict.fromkeys(names.values(), 3))
    for part, rows, score, digits, less_is_better in (
        ("likelihood", ["set"], "ll", 2, False),
        ("gaps", ["set", "share"], "rmse", 3, True),
        ("gaps", ["set", "share"], "crps", 3, True),
        ("incomplete", ["set", "share"], "observed", 2, False),
        ("incomplete", ["set", "share"], "complete", 2, False),
    ):
        if part in parts:
            print(f"\n{part}: {score}\n")
            compared(parts[part], rows, score, digits, less_is_better)
    if "outliers" in parts:
        for kind, own in parts["outliers"].groupby("kind"):
            print(f"\noutliers, {kind}: AUROC\n")
            if kind == "swaps":  # the score that is meant for them is the detector's "dependence"
                own = own.replace({"method": {OURS: "log-density", "dependence": OURS}})
            compared(own, ["set"], "auroc", 3)
    if "rows" in parts:
        scores = {"auc": 3, "prediction": 3, "distance": 2, "columns": 3, "pairs": 3, "cpu_s": 1}
        by_set = parts["rows"].groupby(["method", "set"])[[*scores]].mean()
        own = by_set.groupby("method").mean().sort_values("auc")
        print("\nrows: means over tables\n")
        print_table(own, scores)

    if "limits" in parts:
        scores = {"ll": 2, "auc": 3, "s": 1, "cpu_s": 1}
        print("\nlimits: means over tables\n")
        print_table(parts["limits"].groupby("method", sort=False)[[*scores]].mean(), scores)
    if "scale" in parts:
        figures = {"fit_s": 0, "fit_gb": 2, "peak_gb": 2, "rows_per_s": 0}
        own = parts["scale"].rename(columns={"method": "rows"}).groupby("rows", sort=False)
        print("\nscale\n")
        print_table(own[[*figures]].mean(), figures)
    if "speed" in parts:
        figures = {"n": 0, "columns": 0, "fit_s": 1}
        figures |= dict.fromkeys(("score", "impute", "draw", "sample", "predict_proba"), 0)
        print("\nspeed: rows per processor second\n")
        of_sizes = parts["speed"].groupby(["set", "n"], sort=False).mean(numeric_only=True)
        print_table(of_sizes.reset_index("n")[[*figures]], figures)


PARTS = {
    "reference": run_reference,
    "likelihood": run_likelihood,
    "gaps": run_gaps,
    "incomplete": run_incomplete,
    "outliers": run_outliers,
    "rows": run_rows,
    "limits": run_limits,
    "speed": run_speed,
    "scale": run_scale,
    "table": None,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--max-rows", type=int, default=MAX_ROWS)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.parts == ["table"]:
        return show(read(args.out))
    for seed in args.seeds:
        for part in args.parts:
            PARTS[part](args, seed)


if __name__ == "__main__":
    main()
