"""Conditional densities, regression and classification, against known truth and against peers.

    python benchmarks/conditional.py known --out conditional.jsonl
    python benchmarks/conditional.py tables --data DIR --out conditional.jsonl
    python benchmarks/conditional.py seconds --data DIR --out conditional.jsonl
    python benchmarks/conditional.py coverage --data DIR --out conditional.jsonl
    python benchmarks/conditional.py fair --out conditional.jsonl
    python benchmarks/conditional.py classify --data DIR --out conditional.jsonl
    python benchmarks/conditional.py posterior --out conditional.jsonl
    python benchmarks/conditional.py cost --out conditional.jsonl
    python benchmarks/conditional.py show --out conditional.jsonl

Lines already in ``--out`` are not run again. DIR has the tables of `conditional_tables.py`.
"""

import argparse
import time
import warnings
from functools import partial
from itertools import product

import conditional_tables
import numpy as np
import torch
from protocol import append, print_table, read
from scipy import stats
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import KFold, cross_val_score, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

import skflows
from skflows.bijections._conditional import Conditional
from skflows.preprocessing.dequantizer import Dequantizer
from skflows.training.losses import LIKELIHOOD
from skflows.training.optimizer import FlatAdamW
from skflows.training.trainer import EMA_DECAY

LEVELS = np.linspace(0.05, 0.95, 19)
CONFIDENCES = np.round(1 - 2 * LEVELS[:9], 2)  # of intervals between pairs of these levels
COVERAGE = 0.9
FIRST_SEED = 2_000  # defaults were chosen on splits and draws of smaller seeds
GP_ROWS = 1_000  # a Gaussian process takes the cube of their number


# ---- Known conditional densities: x is uniform on [-2, 2], and a second column is irrelevant.


def heteroscedastic(x):
    return stats.norm(np.sin(2 * x), 0.2 + 0.3 * np.abs(x))


class Bimodal:
    """A mixture of two normals, of equal weights, whose means part along x."""

    def __init__(self, x):
        self.parts = [stats.norm(sign * (0.5 + np.abs(x)), 0.3) for sign in (-1, 1)]

    def logpdf(self, y):
        return np.logaddexp(*[part.logpdf(y) for part in self.parts]) - np.log(2)

    def rvs(self, random_state):
        draws = [part.rvs(random_state=random_state) for part in self.parts]
        return np.where(random_state.random(len(draws[0])) < 0.5, *draws)


def heavy_tailed(x):
    return stats.t(3, x, 0.3 * np.exp(0.3 * x))


class Circular:
    """An hour of the day, von Mises, whose mean winds around the clock twice."""

    def __init__(self, x):
        self.angle = stats.vonmises(np.exp(1 + x / 2), np.pi * x)

    def logpdf(self, y):
        return self.angle.logpdf(np.pi / 12 * y) + np.log(np.pi / 12)

    def rvs(self, random_state):
        return np.mod(12 / np.pi * self.angle.rvs(random_state=random_state), 24)


KNOWN = {
    "heteroscedastic": heteroscedastic,
    "bimodal": Bimodal,
    "heavy-tailed": heavy_tailed,
    "circular": Circular,
}


def draw(name, n, seed):
    """Return rows X, y and the true log-densities."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (n, 2))
    truth = KNOWN[name](X[:, 0])
    y = truth.rvs(random_state=rng)
    return X, y, truth.logpdf(y)


def known(name, n, seed):
    """Return the divergence from a known density, coverages, and integrals."""
    X, y, _ = draw(name, n, seed)
    period = 24.0 if KNOWN[name] is Circular else None
    density = skflows.ConditionalDensity(circular=period)
    regressor = skflows.FlowRegressor(density, random_state=seed)
    seconds = timed(regressor.fit, X, y)
    X, y, log_density = draw(name, 5_000, seed + 1_000)
    distribution = regressor.predict_distribution(X[:20])
    # Between far quantiles, with nodes where the density is, and others between them.
    nodes = distribution.ppf(stats.norm.cdf(np.linspace(-4.5, 4.5, 200))[:, None])
    if period:  # from end to end
        nodes = np.concatenate([nodes, distribution.ppf([[0.0], [1.0]])])
        nodes = np.sort(nodes, axis=0)
    between = np.linspace(nodes[0], nodes[-1], 800)
    nodes = np.sort(np.concatenate([nodes, between]), axis=0)
    integral = np.trapezoid(distribution.pdf(nodes), nodes, axis=0)
    low, high = regressor.predict_interval(X, COVERAGE).T
    if period:
        y = low + np.mod(y - low, period)
    regions = regressor.predict_region(X, COVERAGE)
    is_inside = [contains(region, value, period) for region, value in zip(regions, y, strict=True)]
    return {
        "kl": log_density.mean() - regressor.density_.score(X, y),
        "coverage": np.mean((low <= y) & (y <= high)),
        "width": np.mean(high - low),
        "region_coverage": np.mean(is_inside),
        "region_width": np.mean([np.diff(region, axis=1).sum() for region in regions]),
        "integral_error": np.abs(integral - 1).max(),
        "seconds": seconds,
    }


def contains(region, value, period=None):
    """Whether a union of intervals contains a value."""
    if period:
        value = region[:, 0] + np.mod(value - region[:, 0], period)
    return ((region[:, 0] <= value) & (value <= region[:, 1])).any()


# ---- Coverage of tables whose rows are exchangeable, and whose targets repeat in several ways.


def counts(y, rng):
    return np.rint(np.exp(2.2 + 0.2 * y))


def hours(y, rng):
    """Multiples of 5 for every other row, and 40 for 45 % of all."""
    y = np.rint(40 + 8 * y)
    y = np.where(rng.random(len(y)) < 0.5, 5 * np.rint(y / 5), y)
    return np.where(rng.random(len(y)) < 0.45, 40, y).clip(1, 99)


def ratios(y, rng):
    """No column of discrete values, but three of them are frequent."""
    heap = rng.choice([0.8, 0.9, 2 / 3, 0], len(y), p=[0.06, 0.02, 0.01, 0.91])
    return np.where(heap, heap, 0.75 + 0.1 * y)


TARGETS = {"counts": counts, "hours": hours, "ratios": ratios}


def fair(name, n, seed, n_test=2_000):
    """Return the coverage of new rows, and that by the true noise of the same rows instead."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + n_test, 8))
    noise = rng.standard_normal(len(X))
    y = X[:, 0] + np.sin(2 * X[:, 1]) + X[:, 2] * X[:, 3] / 2 + np.exp(0.4 * X[:, 4]) * noise
    y = TARGETS[name](y, rng)
    regressor = skflows.FlowRegressor(random_state=seed)
    seconds = timed(regressor.fit, X[:n], y[:n])
    low, high = regressor.predict_interval(X[n:], COVERAGE).T
    score = np.abs(noise)
    level = np.sort(score[:n])[int(np.ceil((n + 1) * COVERAGE)) - 1]
    return {
        "coverage": np.mean((low <= y[n:]) & (y[n:] <= high)),
        "by_noise": np.mean(score[n:] <= level),
        "seconds": seconds,
    }


# ---- Regression tables. A contestant has `fit`, `quantiles`, `interval` and maybe `log_score`.


class Flow:
    """Our regressor, calibrated by its folds or by a part of the rows."""

    def __init__(self, seed, calibration="auto"):
        self.model = skflows.FlowRegressor(calibration=calibration, random_state=seed)

    def fit(self, X, y):
        self.model.fit(X, y)

    def mean(self, X):
        return self.model.predict(X)

    def quantiles(self, X):
        return self.model.predict_quantiles(X, LEVELS)

    def interval(self, X):
        return self.model.predict_interval(X, COVERAGE).T

    def log_score(self, X, y):
        return self.model.density_.log_prob(X, y)


def numeric():
    """Return a transformer of mixed columns into standardised numbers, for peers that need them."""
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=20)
    is_text = make_column_selector(dtype_exclude=np.number)
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include=np.number)), (texts, is_text)
    )


class Boosting:
    """scikit-learn's gradient boosting: a model for each quantile, and conformal intervals.

    Conformalised quantile regression (Romano, Patterson & Candès, 2019) holds out a fifth.
    """

    def __init__(self, seed):
        self.seed = seed

    def _fitted(self, X, y, level):
        model = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=level,
            early_stopping=True,
            random_state=self.seed,
        )
        return model.fit(categorical(X), y)

    def fit(self, X, y):
        self.models = [self._fitted(X, y, level) for level in LEVELS]
        X, X_held, y, y_held = train_test_split(X, y, test_size=0.2, random_state=self.seed)
        tail = (1 - COVERAGE) / 2
        self.ends = [self._fitted(X, y, level) for level in (tail, 1 - tail)]
        low, high = self._ends(X_held)
        scores = np.sort(np.maximum(low - y_held, y_held - high))
        rank = int(np.ceil((len(scores) + 1) * COVERAGE))
        self.margin = scores[min(rank, len(scores)) - 1]

    def _ends(self, X):
        return [model.predict(categorical(X)) for model in self.ends]

    def quantiles(self, X):
        found = [model.predict(categorical(X)) for model in self.models]
        return np.sort(np.column_stack(found), axis=1)

    def interval(self, X):
        low, high = self._ends(X)
        return low - self.margin, high + self.margin


def categorical(X):
    """Return a table with its texts as categories, which boosting takes; other input as it is."""
    return (
        X
        if isinstance(X, np.ndarray)
        else X.astype(dict.fromkeys(X.select_dtypes(exclude=np.number), "category"))
    )


class MapieQuantiles(Boosting):
    """The same boosting, with all quantiles conformalised by MAPIE on a fifth of the rows."""

    def fit(self, X, y):
        self.encoder = numeric()  # MAPIE takes no categories
        self._fit(self.encoder.fit_transform(X), y)

    def _fit(self, X, y):
        from mapie.regression import ConformalizedQuantileRegressor

        X, X_held, y, y_held = train_test_split(X, y, test_size=0.2, random_state=self.seed)
        models = [self._fitted(X, y, level) for level in LEVELS]
        self.intervals = [
            ConformalizedQuantileRegressor(
                [low, high, models[len(LEVELS) // 2]], confidence_level=confidence, prefit=True
            ).conformalize(X_held, y_held)
            for low, high, confidence in zip(models, reversed(models), CONFIDENCES, strict=False)
        ]

    def _predicted(self, X):
        """Return predictions, and intervals of shape (n, 2, n_levels), the widest first."""
        found = [own.predict_interval(X) for own in self.intervals]
        return found[0][0], np.concatenate([own for _, own in found], axis=2)

    def quantiles(self, X):
        middle, intervals = self._predicted(self.encoder.transform(X))
        low, high = np.moveaxis(intervals, 1, 0)
        return np.sort(np.column_stack([low, middle, high]), axis=1)

    def interval(self, X):
        return self._predicted(self.encoder.transform(X))[1][:, :, 0].T


class MapieCross(MapieQuantiles):
    """MAPIE's CV+ intervals of gradient boosting for the mean, by five folds."""

    def _fit(self, X, y):
        from mapie.regression import CrossConformalRegressor

        model = HistGradientBoostingRegressor(early_stopping=True, random_state=self.seed)
        self.model = CrossConformalRegressor(model, list(CONFIDENCES), random_state=self.seed)
        self.model.fit_conformalize(X, y)

    def _predicted(self, X):
        return self.model.predict_interval(X)


class QuantileForest:
    """quantile-forest's random forest, with leaves of five rows."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y):
        from quantile_forest import RandomForestQuantileRegressor

        self.encoder = numeric()
        self.model = RandomForestQuantileRegressor(
            300, min_samples_leaf=5, max_features=1 / 3, random_state=self.seed
        )
        self.model.fit(self.encoder.fit_transform(X), y)

    def mean(self, X):
        return self.model.predict(self.encoder.transform(X), quantiles="mean")

    def quantiles(self, X):
        return self.model.predict(self.encoder.transform(X), quantiles=list(LEVELS))

    def interval(self, X):
        tail = (1 - COVERAGE) / 2
        return self.model.predict(self.encoder.transform(X), quantiles=[tail, 1 - tail]).T


class Normal:
    """A peer whose prediction is a normal distribution."""

    def mean(self, X):
        return self._parameters(X)[0]

    def quantiles(self, X):
        return stats.norm(*[p[:, None] for p in self._parameters(X)]).ppf(LEVELS)

    def interval(self, X):
        return stats.norm(*self._parameters(X)).interval(COVERAGE)

    def log_score(self, X, y):
        normal = stats.norm(*self._parameters(X))
        if not self.gap:
            return normal.logpdf(y)
        cell = normal.cdf(y + self.gap / 2) - normal.cdf(y - self.gap / 2)
        return np.log(np.maximum(cell, 1e-300) / self.gap)

    def fit(self, X, y):
        self.gap = next(iter(Dequantizer.for_parameter("auto", y[:, None]).gaps().values()), None)
        self.encoder = numeric()
        self._fit(self.encoder.fit_transform(X), y)


class NGBoost(Normal):
    """NGBoost with a normal, its defaults, and early stopping on a tenth of the rows."""

    def __init__(self, seed):
        self.seed = seed

    def _fit(self, X, y):
        from ngboost import NGBRegressor

        parts = train_test_split(X, y, test_size=0.1, random_state=self.seed)
        X, X_held, y, y_held = parts
        self.model = NGBRegressor(verbose=False, random_state=self.seed)
        self.model.fit(X, y, X_val=X_held, Y_val=y_held, early_stopping_rounds=20)

    def _parameters(self, X):
        parameters = self.model.pred_dist(self.encoder.transform(X)).params
        return parameters["loc"], parameters["scale"]


class GaussianProcess(Normal):
    """scikit-learn's Gaussian process with one length scale, on at most 1,000 rows."""

    def __init__(self, seed):
        self.seed = seed

    def _fit(self, X, y):
        kernel = ConstantKernel() * RBF(np.sqrt(X.shape[1])) + WhiteKernel()
        self.model = GaussianProcessRegressor(
            kernel, normalize_y=True, n_restarts_optimizer=1, random_state=self.seed
        )
        self.model.fit(X[:GP_ROWS], y[:GP_ROWS])

    def _parameters(self, X):
        return self.model.predict(self.encoder.transform(X), return_std=True)


REGRESSORS = {
    "FlowRegressor": Flow,
    "HGB quantiles": Boosting,
    "MAPIE CQR": MapieQuantiles,
    "MAPIE CV+": MapieCross,
    "quantile-forest": QuantileForest,
    "NGBoost": NGBoost,
    "GaussianProcess": GaussianProcess,
}


CALIBRATIONS = {"by folds": Flow, "by a held-out fifth": partial(Flow, calibration=0.2)}


def crps(y, quantiles):
    """Return twice the mean pinball loss of quantiles: the CRPS by its quantile decomposition."""
    error = y[:, None] - quantiles
    return 2 * np.maximum(LEVELS * error, (LEVELS - 1) * error).mean()


def regress(table, method, seed, data):
    """Return the scores of one contestant on one table."""
    X, y, X_test, y_test = conditional_tables.split(table, data, seed)
    contestant = (REGRESSORS | CALIBRATIONS)[method](seed)
    seconds = timed(contestant.fit, X, y)
    start = time.process_time()
    quantiles = contestant.quantiles(X_test)
    low, high = contestant.interval(X_test)
    found = {
        "crps": crps(y_test, quantiles),
        "coverage": np.mean((low <= y_test) & (y_test <= high)),
        "width": np.mean(high - low),
        "n": len(X),
        "n_test": len(X_test),
        "seconds": seconds,
        "seconds_test": time.process_time() - start,
    }
    if hasattr(contestant, "log_score"):
        found["log_score"] = contestant.log_score(X_test, y_test).mean()
    return found


# ---- Classification. The last class is left out to be recognised as unknown.


def density_classifier(X, seed, has_folds=False):
    density = skflows.TableDensity(handle_unknown="rare")
    if isinstance(X, np.ndarray):
        density = skflows.NSFDensity(
            preprocessing="whiten", n_transforms=2, dropout=0.2, input_noise=0.1
        )
    if has_folds:
        density = skflows.StackedDensity([("flow", density)])
    return skflows.DensityClassifier(density, random_state=seed)


def shared_classifier(X, seed):
    """Our classifier whose classes share the networks of one density: of tables of numbers."""
    flow = skflows.NSFDensity(n_transforms=2, dropout=0.2, input_noise=0.1)
    return skflows.DensityClassifier(skflows.ConditionalDensity(flow), random_state=seed)


def peer(classifier, X):
    return classifier if isinstance(X, np.ndarray) else make_pipeline(numeric(), classifier)


CLASSIFIERS = {
    "DensityClassifier": density_classifier,
    "with folds": partial(density_classifier, has_folds=True),
    "shared networks": shared_classifier,
    "QDA": lambda X, seed: peer(QuadraticDiscriminantAnalysis(reg_param=0.1), X),
    "GaussianNB": lambda X, seed: peer(GaussianNB(var_smoothing=1e-3), X),
    "RandomForest": lambda X, seed: peer(RandomForestClassifier(300, random_state=seed), X),
}


# A TableDensity has folds itself, and ten classes with folds take long.
TABLES_OF = {
    "with folds": ("wine", "breast cancer"),
    "shared networks": ("wine", "breast cancer", "digits"),
}


def classify(table, method, seed, data):
    """Return the scores of one contestant on one table."""
    X, y = conditional_tables.LABELLED[table](data)
    rows = np.random.default_rng(seed).permutation(len(X))[: conditional_tables.MAX_ROWS]
    if len(rows) < len(X):
        X, y = X.iloc[rows].reset_index(drop=True), y.iloc[rows].to_numpy()
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
    model = CLASSIFIERS[method](X, seed)
    seconds = timed(model.fit, X, y)
    proba = np.clip(model.predict_proba(X_test), 1e-15, 1)
    found = {
        "log_loss": log_loss(y_test, proba / proba.sum(axis=1, keepdims=True)),
        "accuracy": np.mean(model.predict(X_test) == y_test),
        "seconds": seconds,
    }
    if len(np.unique(y)) > 2:
        known_class = y != y.max()
        model = CLASSIFIERS[method](X, seed).fit(X[known_class], y[known_class])
        own = hasattr(model, "score_samples")
        score = model.score_samples(X_test) if own else model.predict_proba(X_test).max(axis=1)
        found["unknown_auroc"] = roc_auc_score(y_test != y.max(), score)
    return found


# ---- Simulation-based inference. A task draws parameters, simulates, and samples its posterior.


class TwoMoons:
    """Two parameters, uniform on [-1, 1], whose posterior has two crescents."""

    bounds = ((-1, 1), (-1, 1))

    def sbi_prior(self):
        from sbi.utils import BoxUniform

        return BoxUniform(-torch.ones(2), torch.ones(2))

    def prior(self, n, rng):
        return rng.uniform(-1, 1, (n, 2))

    def _crescent(self, n, rng):
        angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
        return np.column_stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)])

    def simulate(self, parameters, rng):
        a, b = parameters.T
        shift = np.column_stack([-np.abs(a + b), b - a]) / np.sqrt(2)
        return self._crescent(len(a), rng) + shift

    def posterior(self, x, n, rng):
        # Each point of the crescent leads to one sum, up to its sign, and one difference.
        shift = np.sqrt(2) * (self._crescent(20 * n, rng) - x) * [1, -1]
        total = np.where(rng.random(len(shift)) < 0.5, 1, -1) * shift[:, 0]
        found = np.column_stack([total - shift[:, 1], total + shift[:, 1]]) / 2
        return found[(shift[:, 0] >= 0) & (np.abs(found) <= 1).all(axis=1)][:n]


class GaussianLinear:
    """Ten parameters, normal as is their noise, each of variance 0.1."""

    bounds = None

    def sbi_prior(self):
        return torch.distributions.MultivariateNormal(torch.zeros(10), 0.1 * torch.eye(10))

    def prior(self, n, rng):
        return np.sqrt(0.1) * rng.standard_normal((n, 10))

    def simulate(self, parameters, rng):
        return parameters + np.sqrt(0.1) * rng.standard_normal(parameters.shape)

    def posterior(self, x, n, rng):
        return x / 2 + np.sqrt(0.05) * rng.standard_normal((n, 10))


TASKS = {"two moons": TwoMoons(), "Gaussian linear": GaussianLinear()}


class FlowPosterior:
    """Our conditional density, with a larger flow than its default and without dropout."""

    def __init__(self, task, seed):
        flow = skflows.NSFDensity(n_transforms=4, dropout=0.0, bounds=task.bounds)
        self.density = skflows.ConditionalDensity(flow, random_state=seed)
        self.seed = seed

    def fit(self, observations, parameters):
        self.density.fit(observations, parameters)

    def sample(self, observed, n):
        return self.density.sample(observed, n, random_state=self.seed)


class SbiPosterior:
    """Neural posterior estimation by sbi, with a neural spline flow and its other defaults."""

    def __init__(self, task, seed):
        torch.manual_seed(seed)
        self.prior = task.sbi_prior()

    def fit(self, observations, parameters):
        from sbi.inference import NPE

        inference = NPE(self.prior, density_estimator="nsf", show_progress_bars=False)
        inference.append_simulations(as_tensor(parameters), as_tensor(observations))
        self.posterior = inference.build_posterior(inference.train())

    def sample(self, observed, n):
        draw = partial(self.posterior.sample, (n,), show_progress_bars=False)
        return [draw(x=as_tensor(row[None])).numpy() for row in observed]


def as_tensor(array):
    return torch.tensor(array, dtype=torch.float32)


POSTERIORS = {"ConditionalDensity": FlowPosterior, "sbi NPE": SbiPosterior}


def posterior(task, method, n, seed, n_observations=5, n_samples=1_000):
    """Return how well a classifier tells posterior samples from true ones: 0.5 is not at all."""
    rng, task = np.random.default_rng(seed), TASKS[task]
    parameters = task.prior(n, rng)
    contestant = POSTERIORS[method](task, seed)
    seconds = timed(contestant.fit, task.simulate(parameters, rng), parameters)
    observed = task.simulate(task.prior(n_observations, rng), rng)
    samples = contestant.sample(observed, n_samples)
    accuracy = []
    for x, own in zip(observed, samples, strict=True):
        true = task.posterior(x, n_samples, rng)
        rows = StandardScaler().fit_transform(np.concatenate([true, own]))
        width = 10 * rows.shape[1]
        classifier = MLPClassifier((width, width), max_iter=1_000, random_state=seed)
        folds = KFold(5, shuffle=True, random_state=seed)
        label = np.repeat([0, 1], [len(true), len(own)])
        accuracy.append(cross_val_score(classifier, rows, label, cv=folds).mean())
    return {"c2st": np.mean(accuracy), "seconds": seconds}


# ---- Cost of a context


def training_step(architecture, n_outputs, n_context):
    """Return a function that trains a flow on a batch of rows beside their context."""
    bijection = getattr(skflows, f"{architecture}Density")()._build_bijection(n_outputs, n_context)
    if n_context:
        bijection = Conditional(bijection, n_outputs)
    optimizer = FlatAdamW(bijection.train(), 1e-3, ema_decay=EMA_DECAY)

    def step(rows):
        weight, n = torch.ones(len(rows)), torch.tensor(len(rows))
        losses, gradients = LIKELIHOOD.gradients(bijection, rows, weight, n)
        optimizer.step(losses["loss"], gradients, 1.0)

    return step


def cost(architecture, n_outputs, n_context, n_rows=256, n_steps=60, n_first=10):
    """Return the median processor time of a step, with a context and without, in turns."""
    rows = torch.randn(n_rows, n_outputs + n_context)
    contestants = {
        "ms_without": (training_step(architecture, n_outputs, 0), rows[:, :n_outputs].clone()),
        "ms_with": (training_step(architecture, n_outputs, n_context), rows),
    }
    times = {name: [] for name in contestants}
    for _ in range(n_steps):
        for name, (step, own) in contestants.items():
            start = time.process_time()
            step(own)
            times[name].append(1e3 * (time.process_time() - start))
    median = {name: np.median(own[n_first:]) for name, own in times.items()}
    return median | {"ratio": median["ms_with"] / median["ms_without"]}


# ---- Running and showing


def timed(function, *args):
    """Return the processor time of a call in seconds."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def jobs(args):
    """Yield the key of each run, and what runs it."""
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    if args.what == "known":
        for name in KNOWN:
            for n in (500, 5_000):
                for seed in seeds:
                    key = {"what": "known", "table": name, "n": n, "seed": seed}
                    yield key, lambda name=name, n=n, seed=seed: known(name, n, seed)
    if args.what == "fair":
        for n, seed, name in product((331, 1_500), seeds, TARGETS):
            key = {"what": "fair", "table": name, "n": n, "seed": seed}
            yield key, lambda a=(name, n, seed): fair(*a)
    if args.what == "posterior":
        for task in TASKS:
            for n in (1_000, 10_000):
                for method, seed in product(args.methods or POSTERIORS, seeds):
                    key = {"what": "posterior", "task": task, "method": method}
                    key |= {"n": n, "seed": seed}
                    yield key, lambda a=(task, method, n, seed): posterior(*a)
    if args.what == "cost":
        for architecture in ("NSF", "MAF", "RealNVP"):
            for sizes in ((1, 10), (5, 10), (5, 30)):
                key = {"what": "cost", "flow": architecture, "seed": 0}
                key |= dict(zip(("n_outputs", "n_context"), sizes, strict=True))
                yield key, lambda a=(architecture, *sizes): cost(*a)
    if args.what in ("tables", "seconds", "coverage"):
        methods = CALIBRATIONS if args.what == "coverage" else REGRESSORS
        for table in args.tables or conditional_tables.TABLES:
            for seed in seeds:
                for method in args.methods or methods:
                    key = {"what": args.what, "table": table, "method": method, "seed": seed}
                    yield key, lambda a=(table, method, seed, args.data): regress(*a)
    if args.what == "classify":
        for table in args.tables or conditional_tables.LABELLED:
            for seed in seeds:
                for method in args.methods or CLASSIFIERS:
                    if table not in TABLES_OF.get(method, (table,)):
                        continue
                    key = {"what": "classify", "table": table, "method": method, "seed": seed}
                    yield key, lambda a=(table, method, seed, args.data): classify(*a)


# Of each kind of run: what makes a row of the printed table, what makes a column, and the scores.
SHOWN = {
    "known": (["table", "n"], None, {
        "kl": 3, "coverage": 3, "width": 2, "region_coverage": 3, "region_width": 2,
        "integral_error": 4, "seconds": 0,
    }),
    "tables": (["table", "n"], "method", {
        "crps": 3, "log_score": 3, "coverage": 3, "width": 2,
    }),
    "seconds": (["table", "n"], "method", {"seconds": 1, "seconds_test": 1}),
    "fair": (["n"], None, {"coverage": 3, "by_noise": 3}),
    "coverage": (["table", "n"], "method", {"coverage": 3, "width": 2, "crps": 3}),
    "posterior": (["task", "n"], "method", {"c2st": 3, "seconds": 0}),
    "cost": (["flow"], None, {"ms_without": 2, "ms_with": 2, "ratio": 2}),
    "classify": (["table"], "method", {
        "log_loss": 3, "accuracy": 3, "unknown_auroc": 3, "seconds": 1,
    }),
}  # fmt: skip
RANKED = {"crps": True, "log_score": False, "log_loss": True}  # whether less is better


def by_chance(n, n_test, n_splits, n_draws=20_000):
    """Return the middle 95 % of the mean coverage over splits, if rows are exchangeable.

    The procedure is the same, with a random score of each row instead of one from a model. Since
    only ranks matter, splits of one table count as splits of different ones.
    """
    rng = np.random.default_rng(0)
    rank = int(np.ceil((n + 1) * COVERAGE))
    inside = rng.beta(rank, n + 1 - rank, (n_draws, n_splits))  # the probability of a new row
    return np.quantile(rng.binomial(n_test, inside).mean(axis=1) / n_test, [0.025, 0.975])


def show(lines):
    """Print a Markdown table of means over seeds for each kind of run and score."""
    import pandas as pd

    for what, (rows, column, scores) in SHOWN.items():
        frame = pd.DataFrame([line for line in lines if line["what"] == what])
        if frame.empty:
            continue
        by = [*rows, *filter(None, [column])]
        mean = frame.groupby(by, sort=False)[[*scores]].mean()
        print(f"\n{what}, mean over seeds {sorted(map(int, frame['seed'].unique()))}")
        if column is None:
            print_table(mean, scores)
            continue
        for score, digits in scores.items():
            # In the order of the first appearance; unstack(sort=False) mixes incomplete tables up.
            order = [frame.set_index(key).index.unique() for key in (rows, column)]
            wide = (
                mean[score]
                .unstack()
                .reindex(index=order[0], columns=order[1])
                .dropna(axis=1, how="all")
                .dropna(axis=0, how="all")
            )
            if score == "coverage":
                sizes = frame.groupby(rows, sort=False).agg({"n_test": "first", "seed": "nunique"})
                wide[["by chance from", "to"]] = [
                    by_chance(int(n), *map(int, own))
                    for (_, n), own in zip(sizes.index, sizes.to_numpy(), strict=True)
                ]
            print(f"\n{score}\n")
            print_table(wide, dict.fromkeys(wide, digits))
            label, last = "median", wide.median()
            if score in RANKED:  # of contestants on all tables
                ranks = wide.dropna(axis=1).rank(axis=1, ascending=RANKED[score])
                label, last = "mean rank", ranks.mean().reindex(wide.columns)
            if score in RANKED or what == "seconds":
                cells = ["" if np.isnan(value) else f"{value:.2f}" for value in last]
                print(f"| {label} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=[*SHOWN, "show"])
    parser.add_argument("--data", help="folder of the tables")
    parser.add_argument("--out", required=True, help="JSON lines of results")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="the others follow")
    parser.add_argument("--methods", nargs="*", help="only these contestants")
    parser.add_argument("--tables", nargs="*", help="only these tables")
    args = parser.parse_args()
    lines = read(args.out)
    if args.what == "show":
        show(lines)
        return
    run_left(jobs(args), lines, args.out)


def run_left(jobs, lines, out):
    """Run the jobs that no stored line has, on one thread, and store their lines."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        for key, job in jobs:
            if any(key.items() <= line.items() for line in lines):
                continue
            line = key | {name: float(value) for name, value in job().items()}
            print(line, flush=True)
            append(out, line)


if __name__ == "__main__":
    main()
