"""Regression by a conditional density: predictions, quantiles and calibrated intervals."""

import math
from itertools import combinations
from numbers import Integral, Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MetaEstimatorMixin, MultiOutputMixin, RegressorMixin, clone
from sklearn.utils import check_consistent_length, indexable
from sklearn.utils.validation import check_is_fitted

from ..calibration import ranks
from ..callbacks._run import fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import check_may_be_table, some_rows
from ..columns.checks import warn_user
from ..columns.encoding import copy_names
from ..columns.types import Floats, Table, Weights
from ..density import CNFDensity
from ..density._third_party import was_interrupted
from ..distribution.distribution import (
    ConditionalDistribution,
    checked_probabilities,
    distribution_of,
)
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import Interval, StrOptions, safe_indexing
from ..training.threads import fit_context
from ._density import ConditionalDensity
from ._regions import translated
from ._trees import least_squares
from ._value_probabilities import ValueProbabilities

HELD_OUT = 0.2
DRAWS = 500  # of y, at most, which show how scores of one flow differ from the mean's
FEW_ROWS, FEW_DRAWS = 200, 100  # where calibration takes longer than training
LEAST_ROWS = 40  # from which calibration="auto" holds some out
ROWS_OF_SHARES = 50  # by which the shares of means are set, at least


class FlowRegressor(
    MultiOutputMixin,
    RegressorMixin,
    PersistenceMixin,
    CallbackSupportMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Regression by the density of y given X.

    Quantiles and the whole distribution of y at each row come from a `ConditionalDensity`, the
    mean from its parts. Intervals and regions are conformal: rows that the density has not seen
    set their level, so that they have the wanted coverage whether or not the density is right.

    Parameters
    ----------
    density : ConditionalDensity, default=None
        The density, which is cloned; by default one with its defaults. Its flow has the parameters
        of the training, such as `max_iter` and `time_limit`: for a short one with trees,
        ``ConditionalDensity(NSFDensity(n_transforms=2, dropout=0.2, max_iter=20), trees=True)``.

    prediction : {"mean", "median"}, default="mean"
        What `predict` returns. If the density has trees, "mean" mixes the means of each kind of
        flows, without and with trees, and the predictions of the trees themselves, with the least
        squared error on the calibration rows: the weights with the best likelihood are not the best
        ones for the mean. A kind that hardly reduces the error has no share. The mean then differs
        from the mean of the distribution: little for most rows, more in the tails of skewed y.

    calibration : "auto", float or None, default="auto"
        The rows that calibrate intervals. "auto" takes the folds that each flow of the density
        holds out, if there are any; otherwise, from 40 rows on, it holds out a fifth of the rows. A
        fraction holds out that part of the rows, in any case. With held-out rows, the coverage is
        guaranteed on average over tables. Folds leave more rows for training, but their coverage is
        approximate: their median score has chosen the last epoch, and draws from the mean of all
        flows show how its scores differ from a single flow's. None saves the time. After Ctrl-C,
        and with a `CNFDensity`, whose scores take a solver, at most about 200 of these rows
        calibrate. The same rows set `mean_shares_`.

    random_state : int, RandomState instance or None, default=None
        Seeds the held-out rows and, if it has no seed of its own, the density.

    Attributes
    ----------
    density_ : ConditionalDensity
        The fitted density.

    calibration_scores_ : dict of ndarray or None
        The scores of the calibration rows: "central", the probability of the narrowest central
        interval that contains y, for each output, and "highest_density", the probability of the
        smallest region.

    mean_shares_ : ndarray of shape (n_kinds + 1, n_outputs) or None
        What the mean of each output consists of: shares of the means of each kind of flows, in the
        order of `density_.flows_`, and of the predictions of the trees. None if the density has no
        trees, or with fewer than 50 calibration rows: then it is the mean of the distribution.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names of X seen in `fit`, if they are all strings.

    n_outputs_ : int
        Number of columns of y.

    output_names_ : list of str
        Names of the columns of y seen in `fit`, if they are all strings.

    References
    ----------
    Chernozhukov, Wüthrich & Zhu, "Distributional Conformal Prediction", 2021; Izbicki, Shimizu &
    Stern, "CD-split and HPD-split: Efficient Conformal Regions in High Dimensions", 2022; Vovk,
    "Cross-Conformal Predictors", 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skflows import ConditionalDensity, FlowRegressor, NSFDensity
    >>> X, y = load_diabetes(return_X_y=True)
    >>> density = ConditionalDensity(NSFDensity(n_transforms=1, max_iter=5))
    >>> regressor = FlowRegressor(density, random_state=0).fit(X, y)
    >>> regressor.predict(X[:3]).shape
    (3,)
    >>> regressor.predict_interval(X[:3], coverage=0.9).shape
    (3, 2)
    >>> regressor.predict_distribution(X[:3]).std().shape
    (3,)
    """

    _parameter_constraints: dict = {
        "density": [ConditionalDensity, None],
        "prediction": [StrOptions({"mean", "median"})],
        "calibration": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither"), None],
        "random_state": ["random_state"],
    }

    def __init__(self, density=None, *, prediction="mean", calibration="auto", random_state=None):
        self.density = density
        self.prediction = prediction
        self.calibration = calibration
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: Table, sample_weight: Weights = None) -> Self:
        """Fit the density, and calibrate its intervals.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows (see `ConditionalDensity.fit`).

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The target.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the likelihood, and in `mean_shares_`. The levels of intervals do
            not depend on them.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self.__dict__.pop("density_", None)  # a fit that fails leaves nothing fitted
        density = ConditionalDensity() if self.density is None else clone(self.density)
        density._validate_params()  # which reads the rows before its fit
        random_state = random_state_of(self)
        if density.random_state is None and self.random_state is not None:
            density.set_params(random_state=random_state.randint(2**31 - 1))
        if y is None:
            raise ValueError("FlowRegressor requires y to be passed, but the target y is None.")
        check_may_be_table(X)
        X, y = indexable(X, y)
        density._name = type(self).__name__
        pairs = density._read(X, y, sample_weight)
        n, fraction = len(pairs.Y), self.calibration
        if isinstance(fraction, str):  # "auto"
            splits_itself = density._folds(n) is not None or n < LEAST_ROWS
            fraction = None if splits_itself else HELD_OUT
            if fraction is not None:
                density.set_params(cv=None)
        with fit_task(self, X, y, max_subtasks=1, sample_weight=sample_weight) as task:
            self.calibration_scores_ = self.mean_shares_ = None
            if fraction is None:
                with task.inside(density):
                    context = density._fit_pairs(X, y, sample_weight, pairs)
                is_calibrated = self.calibration is not None and density.held_out_[0] is not None
                if is_calibrated:  # by features without the row's y, as in training
                    n_rows, n_draws = most_rows(density, n)
                    parts = calibration_rows(density, n_rows)
                    self.calibration_scores_ = fold_scores(
                        density, context, pairs.Y, parts, n_draws
                    )
                    contexts = [(context[rows], [i]) for i, rows in enumerate(parts)]
                    rows = np.concatenate(parts)
                    self.mean_shares_ = mean_shares(
                        density, contexts, pairs.Y[rows], pairs.weight[rows]
                    )
            else:
                check_takes_fewer_rows(density.cv)
                order = random_state.permutation(n)
                n_held_out = min(max(1, round(fraction * n)), n - 1)
                held_out, rest = order[:n_held_out], order[n_held_out:]
                some, rows = pairs.take(rest), np.flatnonzero(pairs.is_used)[rest]
                given = [safe_indexing(table, rows) for table in (X, y)]
                with task.inside(density):
                    density._fit_pairs(*given, some.weight, some)
                held_out = held_out[: most_rows(density, n)[0]]
                context = density._features(safe_indexing(pairs.X, held_out))
                distribution = distribution_of(density._source(context))
                self.calibration_scores_ = row_scores(distribution, pairs.Y[held_out])
                self.mean_shares_ = mean_shares(
                    density, [(context, None)], pairs.Y[held_out], pairs.weight[held_out]
                )
            self.density_ = density
            copy_names(density, self, "n_outputs_", "output_names_")
        return self

    def predict(self, X: Table) -> Floats:
        """Return the mean or the median of y at each row, by the parameter `prediction`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The predictions.
        """
        check_is_fitted(self)
        if self.prediction == "median" or self.mean_shares_ is None:
            return getattr(self.predict_distribution(X), self.prediction)()
        y = self.density_._mean(self.density_._encoded(X), self.mean_shares_)
        return y[:, 0] if self.n_outputs_ == 1 else y

    def predict_quantiles(self, X: Table, quantiles: ArrayLike = (0.05, 0.5, 0.95)) -> Floats:
        """Return quantiles of y at each row, which are not calibrated.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        quantiles : sequence of float, default=(0.05, 0.5, 0.95)
            Probabilities.

        Returns
        -------
        y : ndarray of shape (n_samples, n_quantiles) or (n_samples, n_quantiles, n_outputs)
            The quantiles.

        See Also
        --------
        TableDensity.quantile : The same of any column of a table, given any others.
        """
        probabilities = checked_probabilities(quantiles, "quantiles")
        distribution = self.predict_distribution(X)
        levels = np.reshape(probabilities, (-1, *[1] * len(distribution._shape)))
        return np.moveaxis(distribution.ppf(levels), 0, 1)

    def predict_distribution(self, X: Table) -> ConditionalDistribution:
        """Return the distribution of y at each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        distribution : ConditionalDistribution
            It has the methods of a frozen distribution of `scipy.stats`, such as `cdf`, `ppf`,
            `mean` and `std`, with one entry per row.
        """
        check_is_fitted(self)
        return self.density_.predict_distribution(X)

    def predict_interval(self, X: Table, coverage: float = 0.9, joint: bool = False) -> Floats:
        """Return an interval for each row that contains y with the given probability.

        It has the same probability below as above it under the density, at a level that the
        calibration rows set; if y is discrete, its ends are moved inwards to possible values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        coverage : float, default=0.9
            Probability that a new row's y is inside, over all rows.

        joint : bool, default=False
            Whether all outputs are inside with this probability, or each of them alone.

        Returns
        -------
        interval : ndarray of shape (n_samples, 2) or (n_samples, n_outputs, 2)
            Lower and upper ends, which belong to it. They are infinite if there are fewer
            than ``coverage / (1 - coverage)`` calibration rows.
        """
        if not isinstance(joint, bool | np.bool_):
            raise ValueError(f"joint={joint!r}; it must be a bool.")
        scores = self._calibration("central", coverage)
        if joint and scores.ndim > 1:
            scores = scores.max(axis=1)
        level = ranks.level(scores, coverage)
        return np.stack(self.predict_distribution(X)._central_interval(level), -1)

    def predict_region(self, X: Table, coverage: float = 0.9) -> list[Floats]:
        """Return the smallest region for each row that contains y with the given probability.

        The density is higher inside than outside: where it has several modes, the region may be a
        union of intervals. For several outputs, see `p_values`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        coverage : float, default=0.9
            Probability that a new row's y is inside, over all rows.

        Returns
        -------
        regions : list of ndarray of shape (n_intervals, 2)
            Lower and upper ends of the intervals of each row, in ascending order.
        """
        check_is_fitted(self)
        if self.n_outputs_ > 1:
            raise ValueError(
                f"y has {self.n_outputs_} columns, and regions are intervals of a single one: see "
                "whether p_values(X, y) exceeds 1 - coverage, or take predict_interval(joint=True)."
            )
        level = ranks.level(self._calibration("highest_density", coverage), coverage)
        return self.predict_distribution(X)._regions(level)

    def p_values(self, X: Table, y: Table) -> Floats:
        """Return the conformal p-value of y at each row: small where it is unlike the density.

        The values of y with a p-value above 1 - c are the highest-density region of coverage c,
        for several outputs too.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            A value for each row.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            For new pairs (x, y), ``P(p-value <= a) <= a``.
        """
        oddness = self._scores("highest_density")
        distribution = self.predict_distribution(X)
        Y = self.density_._checked_outputs(y)
        check_consistent_length(distribution, Y)
        scores = row_scores(distribution, Y)["highest_density"]
        return ranks.Ranks.fit(-oddness).p_values(-scores)

    def _scores(self, name):
        check_is_fitted(self)
        if self.calibration_scores_ is None:
            raise ValueError(
                f"There are no calibration rows: fit to at least {LEAST_ROWS} rows with "
                "calibration='auto', or take the intervals of predict_distribution(X).interval, "
                "which are not calibrated. (calibration=0.2 holds out a fifth of fewer rows too, "
                "but coverage=0.9 needs 9 calibration rows.)"
            )
        return self.calibration_scores_[name]

    def _calibration(self, name, coverage):
        scores = self._scores(name)
        if not (isinstance(coverage, Real) and 0 < float(coverage) < 1):
            raise ValueError(f"coverage={coverage!r}; it must be above 0 and below 1.")
        if len(scores) < ranks.rows_needed(coverage):
            warn_user(
                f"With {len(scores)} calibration rows, coverage={coverage:g} has no finite ends; "
                f"it needs {ranks.rows_needed(coverage)} of them."
            )
        return scores

    def __sklearn_is_fitted__(self):
        return hasattr(self, "density_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        density = ConditionalDensity() if self.density is None else self.density
        tags.input_tags = density.__sklearn_tags__().input_tags
        return tags


def check_takes_fewer_rows(cv):
    """Raise an error if the splits of `cv` name rows of the whole table."""
    if not (cv is None or isinstance(cv, Integral | str) or hasattr(cv, "split")):
        raise ValueError(
            "density.cv lists rows of the whole table, of which a calibration fraction takes some "
            "away: use calibration='auto', which calibrates by these splits, or a splitter."
        )


def most_rows(density, n):
    """Return how many rows and draws calibrate: few after Ctrl-C, or if scores take a solver."""
    is_slow = isinstance(density.estimator, CNFDensity) or was_interrupted(density)
    return (FEW_ROWS, FEW_DRAWS) if is_slow else (n, DRAWS)


def calibration_rows(density, n_rows):
    """Return the held-out rows of each fold, of which about ``n_rows`` are drawn at random."""
    parts = density.held_out_
    share = min(n_rows / sum(map(len, parts)), 1)
    return [rows[some_rows(len(rows), math.ceil(len(rows) * share))] for rows in parts]


def mean_shares(density, contexts, Y, weight):
    """Return the shares of the means of each output with the least squared error.

    They are None without trees or with few rows. The rows come as pairs of their context and the
    splits whose flows have not seen them, None for all.
    """
    if not density._has_trees or len(Y) < ROWS_OF_SHARES:
        return None
    means = np.concatenate([density._means(*each) for each in contexts], axis=1)
    pairs = zip(means.T, Y.T, strict=True)
    return np.transpose([shares_of_few(each, y, weight) for each, y in pairs])


def shares_of_few(predictions, y, weight):
    """Return the shares of predictions (n, n_kinds) in their mean, of as few kinds as do as well.

    Each kind costs time in every prediction. The kinds have the least Akaike information criterion
    of normal errors.
    """
    n, n_kinds = predictions.shape
    best, least = None, np.inf
    for size in range(1, n_kinds + 1):
        for kinds in map(list, combinations(range(n_kinds), size)):
            shares = np.zeros(n_kinds)
            shares[kinds] = least_squares(predictions[:, kinds], y, weight)
            squares = weight @ (predictions @ shares - y) ** 2
            criterion = n * np.log(max(squares, np.finfo(np.float64).tiny)) + 2 * size
            if criterion < least:
                best, least = shares, criterion
    return best


def fold_scores(density, context, y, parts, n_draws):
    """Return the scores of rows under the mean of the flows, from unseen rows under single flows.

    ``parts`` are the rows of each fold that are scored.

    Where the flows differ, their mean is wider and better than each of them, and scores under it
    are lower. Draws from the mean estimate the difference. Training rows cannot: the flows have
    seen them.
    """
    n, members = len(context), [*range(len(density.flows_))]
    # Trees know the rows that they have seen by heart, so that draws there are like no new ones.
    flows = [i for i in members if not isinstance(density.flows_[i], ValueProbabilities)]
    n_draws = min(n_draws, 2 * n)

    def by_fold(indices):
        return [indices[i :: len(parts)] for i in range(len(parts))]

    def scores_of(own, rows, y):
        return row_scores(distribution_of(density._source(context[rows]).of(own)), y)

    pairs = zip(by_fold(members), parts, strict=True)
    unseen = [scores_of(own, rows, y[rows]) for own, rows in pairs]
    some = np.arange(n_draws) * n // n_draws
    drawn = distribution_of(density._source(context[some]).of(flows))._sample(1, 0)[:, 0]
    one = [scores_of(own, some, drawn) for own in by_fold(flows)]
    mean = len(parts) * [scores_of(flows, some, drawn)]
    unseen, one, mean = map(joined, (unseen, one, mean))
    return {name: translated(scores, one[name], mean[name]) for name, scores in unseen.items()}


def joined(scores):
    """Return the scores of several parts of the rows as one."""
    names = scores[0] if scores else ()
    return {name: np.concatenate([part[name] for part in scores]) for name in names}


def row_scores(distribution, y):
    """Return the scores of rows that the density has not seen, by name."""
    y = y[:, 0] if y.shape[1:] == (1,) else y
    return {
        "central": distribution._central_scores(y),
        "highest_density": distribution._density_scores(y),
    }
