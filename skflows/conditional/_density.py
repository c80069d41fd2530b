"""Conditional density: any flow, given other columns."""

from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from ..callbacks._run import clock, fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import (
    check_exact_table,
    check_integer,
    check_magnitude,
    check_may_be_table,
    column_names,
    holds_times,
    key_of,
    row_shape,
)
from ..columns.checks import warn_user
from ..columns.encoding import copy_names
from ..columns.types import Floats, RandomState, Table, Weights
from ..density import FlowDensity, NSFDensity
from ..distribution.distribution import (
    ConditionalDistribution,
    distribution_of,
    plausible_ends,
)
from ..ensemble._folds import N_FOLDS, make_folds
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.dequantizer import Dequantizer
from ..preprocessing.sklearn_compat import (
    HasMethods,
    Interval,
    StrOptions,
    check_sample_weight,
    safe_indexing,
)
from ..preprocessing.validation import Table as PreparedTable
from ..preprocessing.validation import validate_bounds, validate_weight
from ..training.threads import fit_context
from ._circle import Circle
from ._flows import FlowMixture, signs_of
from ._trees import (
    LEAST_ROWS,
    MAX_OUTPUTS,
    SHARE_OF_TIME,
    TreePredictions,
    ignore_trees,
    model_residuals,
    shares_of,
)
from ._value_probabilities import fit_value_probabilities

FOLDED_ROWS = (50, 5_000)  # between them, an ensemble of folds is worth its time


class Pairs(NamedTuple):
    """Rows of X and y, read once, to fit a density to and to calibrate it with.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
        The rows as numbers, or the table as it was given if a transformer comes first.
    encoding : Encoding or None
        What the numbers stand for.
    Y : ndarray of shape (n, n_outputs)
        The outputs.
    names : list or None
        Their names.
    weight : ndarray of shape (n,)
        Positive weights, of which the largest is 1.
    is_used : ndarray of shape (n_given,) of bool
        Which rows of the user these are: the others have the weight 0.
    """

    X: Any
    encoding: Any
    Y: np.ndarray
    names: list | None
    weight: np.ndarray
    is_used: np.ndarray

    def take(self, index):
        """Return some of the pairs, as if only these had been given."""
        weight = self.weight[index] / self.weight[index].max()
        X, is_used = safe_indexing(self.X, index), np.ones(len(index), dtype=bool)
        return self._replace(X=X, Y=self.Y[index], weight=weight, is_used=is_used)


def default_flow():
    """Return the flow that a conditional density has unless another one is given."""
    return NSFDensity(n_transforms=2, dropout=0.2)


class ConditionalDensity(PersistenceMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Density of the columns of y given the columns of X, ``p(y | x)``, by any flow.

    The conditioner networks of the flow see the encoded columns of X as their context; its
    parameters `preprocessing`, `bounds` and `discrete` refer to the columns of y. Small tables
    have an ensemble of flows: one for each fold, which it does not see. The
    median score of the folds stops the training of all that train as one stack.

    Parameters
    ----------
    estimator : FlowDensity, default=None
        The flow, which is cloned. By default ``NSFDensity(n_transforms=2, dropout=0.2)``.
        `warm_start` and `contamination` have no effect, `input_noise` is added to the encoded X
        too, and a `CNFDensity` has no coupling by optimal transport.

    cv : "auto", None, int, cross-validation generator or iterable, default="auto"
        How rows are held out, with a flow for each split; the density is the mean of theirs. The
        flows train together, and a ``time_limit`` of `estimator` holds for all of them.
        "auto" takes 5 folds from 50 to 5,000 rows. With None there is one flow, which holds out
        its own ``validation_fraction``.

    circular : float or dict, default=None
        The period of outputs that wrap around, such as 24 for hours or 360 for degrees: of all of
        them, or a dict with the period of some columns of y, by index or name. Their density is the
        same at both ends of a period. Discrete ones keep their values, such as 1 to 12 for months.
        Others are from 0 to the period, or around 0 if more values are negative than are above half
        a period. The flow's `preprocessing` is then "standardize". At most 3 outputs can be
        circular: each makes training take 3 times and scores 5 times as long. The R² of
        `FlowRegressor.score` ignores periods; use the `score` of this class in searches.

    encoder : "auto" or transformer, default="auto"
        What turns X into numbers. "auto" standardises numbers, and compresses them beyond 4
        standard deviations. Dates become days, with the sine and cosine of the season, of the day
        of the week and of the time of day. Texts, booleans and pandas' categories become one-hot
        columns or, from 13 categories on, means of y, cross-fitted on the training rows; if y has
        several columns, one-hot columns in any case, at most 24. Splits as `cv`, such as of groups,
        also split the rows of these means. A missing value becomes the mean, with an indicator, or
        a category of its own. A transformer is fitted to X and y first, and "auto" to its output.

    trees : "auto" or bool, default="auto"
        Whether the density also has flows that know predictions of y by gradient boosting and extra
        trees of scikit-learn, fitted to X, with categories and missing values as they are. These
        flows model the difference between y and its prediction, given X and the prediction: some
        after preprocessing of both y and its prediction, others, unless y has bounds, in the units
        of y. They are trained on predictions of rows that the trees have not seen. For a single
        discrete output of at most 121 values, extra trees also estimate their probabilities. The
        likelihood of held-out rows weights all kinds, and leaves out those with trees that do not
        help.
        "auto" has trees with the default `estimator`, from 50 rows on, up to 4 outputs, without
        circular ones and without splits as `cv`; a flow that is given is used as it is, unless
        trees are True. The default fit takes three to seven times as long. Flows without trees
        keep 3 % of the weight.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds, the trees and the flows; by default, the seed of `estimator` does.

    Attributes
    ----------
    flows_ : list
        The fitted flows, which take y and the encoded X side by side: one for each fold or, with
        trees, one for each fold of those without trees first, and then of each kind with trees;
        last the probabilities of the values of a discrete output by trees, if these help.

    weights_ : ndarray of shape (n_flows,)
        The weight of each flow in the density.

    histories_ : list of dict
        The history of each flow, as `history_` of its class. Flows that train together have the
        median of their validation scores.

    encoder_ : transformer
        The fitted encoder.

    held_out_ : list of ndarray or None
        The rows that each flow did not see, if there are folds: indices into the rows of positive
        weight.

    discrete_ : dict
        The discrete columns of y, by name or else by index, and the distance between their values.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names of X seen in `fit`, if they are all strings.

    n_outputs_ : int
        Number of columns of y.

    output_names_ : list of str
        Names of the columns of y seen in `fit`, if they are all strings.

    See Also
    --------
    FlowRegressor : Point predictions, quantiles and intervals.

    References
    ----------
    Rothfuss, Ferreira, Walther & Ulrich, "Conditional Density Estimation with Neural Networks:
    Best Practices and Benchmarks", 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skflows import ConditionalDensity, NSFDensity
    >>> X, y = load_diabetes(return_X_y=True)
    >>> density = ConditionalDensity(NSFDensity(n_transforms=1, max_iter=5), random_state=0)
    >>> density.fit(X, y).log_prob(X[:3], y[:3]).shape
    (3,)
    >>> density.sample(X[:3], n_samples=10, random_state=0).shape
    (3, 10, 1)

    With trees, by default, if no flow is given:

    >>> density = ConditionalDensity(random_state=0).fit(X[:100], y[:100])
    >>> len(density.flows_) > 5  # which are without trees
    True
    """

    _parameter_constraints: dict = {
        "estimator": [FlowDensity, None],
        "cv": [StrOptions({"auto"}), "cv_object"],
        "circular": [dict, Interval(Real, 0, None, closed="neither"), None],
        "encoder": [StrOptions({"auto"}), HasMethods(["fit_transform", "transform"])],
        "trees": [StrOptions({"auto"}), "boolean"],
        "random_state": ["random_state"],
    }

    _outputs = "y"  # what messages call the columns that are modelled

    def __init__(
        self,
        estimator=None,
        *,
        cv="auto",
        circular=None,
        encoder="auto",
        trees="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.cv = cv
        self.circular = circular
        self.encoder = encoder
        self.trees = trees
        self.random_state = random_state

    def fit(self, X: Table, y: Table, sample_weight: Weights = None) -> Self:
        """Fit the density of y given X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The conditions: numbers and, in a DataFrame or an array of objects, categories and
            dates. Missing values are None or NaN.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            What is modelled.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the likelihood; rows of weight 0 are left out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._fit_pairs(X, y, sample_weight)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def _fit_pairs(self, X, y, sample_weight, pairs=None):
        """Fit to pairs that `_read` returned, if any; return the features of their X.

        The callbacks see X, y and the weights.
        """
        from ..training.joint_fit import fit_jointly, stackable_groups

        self.__dict__.pop("flows_", None)  # a fit that fails leaves nothing fitted
        pairs = self._read(X, y, sample_weight) if pairs is None else pairs
        stacks, by_value, unseen, context = self._begin(pairs)
        attributes = partial(self._fitted, by_value=by_value, unseen=unseen)
        groups = [stackable_groups(stack, exact=False) for stack in stacks]
        n_epochs = sum(map(len, groups)) * stacks[0][0].recipe.owner.max_iter
        with fit_task(self, X, y, max_subtasks=n_epochs, sample_weight=sample_weight) as task:
            fits, histories = [], []
            for n_done, stack in enumerate(stacks):
                fits += stack
                for fit in stack:
                    fit.take_share_of_time(len(stacks) - n_done)
                histories += fit_jointly(
                    stack,
                    on_epoch_begin=partial(task.begin, "epoch"),
                    on_epoch_end=lambda histories, fits=fits: task.end(partial(attributes, fits)),
                    common_end=True,  # otherwise folds choose the weights that they calibrate
                )
                if any(history.interrupted or history.stopped for history in histories):
                    break
            self.__dict__.update(attributes(fits, is_final=True))
            members = [fit.recipe.owner for fit in fits]
            for member, history in zip(members, histories, strict=True):
                member._store_history(history, warm=False)
            self._interrupted = any(history.interrupted for history in histories)
            self.histories_ = [member.history_ for member in members]
        # Last, so that a user who turns warnings into errors loses nothing.
        for key in self._constant:
            warn_user(
                f"{self._outputs} has a single value in column {key!r}: it has no density, and "
                "the model has a narrow peak of arbitrary width there."
            )
        members[0]._warn_of_trouble(*histories)  # their parameters are the same
        if self.encoder_[-1].trees_ is None or self._has_trees:
            return context
        self.encoder_[-1].trees_ = None  # of no use
        return context[:, : -self.n_outputs_]

    def _read(self, X, y, sample_weight):
        """Return what is given to `fit` as `Pairs`, without rows of weight 0."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None."
            )
        Y, names = validate_outputs(y, least=2)
        check_may_be_table(X)
        check_consistent_length(X, Y)
        weight = validate_weight(sample_weight, Y, least=2)
        self.encoder_, encoding = self._new_encoder(), None
        if len(self.encoder_) == 1:
            encoding, X = self.encoder_[0].read(X)
        pairs = Pairs(X, encoding, Y, names, weight, is_used=weight > 0)
        if pairs.is_used.all():
            return pairs
        return pairs.take(np.flatnonzero(pairs.is_used))._replace(is_used=pairs.is_used)

    def _begin(self, pairs):
        """Return what a fit starts from.

        Returns
        -------
        stacks : list of list of FlowFit
            Prepared fits. Fits of a kind train together; there are several kinds with trees.
        by_value : list of ValueProbabilities
            Fitted to the same rows, kind by kind, if there are any.
        unseen : list of tuple or None
            With trees, rows of y and their features that each fit has not seen, with weights.
        context : ndarray of shape (n, n_context)
            The features of X.
        """
        started = clock()
        estimator = default_flow() if self.estimator is None else self.estimator
        has_seed = self.random_state is None and estimator.random_state is not None
        random_state = random_state_of(estimator if has_seed else self)
        Y, names, weight = pairs.Y, pairs.names, pairs.weight
        trees = self._new_trees(pairs, estimator, random_state)
        splits = self._splits(pairs, random_state)
        context = self._fit_encoder(pairs, trees, splits if self._has_own_splits else ())
        self.n_outputs_ = Y.shape[1]
        self.__dict__.pop("output_names_", None)  # of an earlier fit
        if names is not None and all(isinstance(name, str) for name in names):
            self.output_names_ = [*names]
        is_grid, what = row_shape(estimator) is not None, self._outputs
        discrete = Dequantizer.for_parameter(estimator.discrete, Y, names, is_grid, what=what)
        self._circle = Circle.for_parameter(self.circular, Y, names, discrete.columns)
        if self._circle:
            Y = self._circle.wrap(Y)
            discrete = Dequantizer.for_parameter(estimator.discrete, Y, names, is_grid, what=what)
        self._dequantizer = discrete
        self.discrete_ = self._dequantizer.named_gaps(names)
        is_constant = np.ptp(Y, axis=0) == 0
        is_constant[self._dequantizer.columns] = False  # a single value has a probability
        self._constant = [key_of(j, names) for j in np.flatnonzero(is_constant)]
        self._bounds = validate_bounds(
            estimator.bounds, Y, self._dequantizer, names=names, what=what
        )
        self._moment_ends = np.transpose(plausible_ends(Y.min(axis=0), Y.max(axis=0)))
        if self._circle:
            self._moment_ends[np.isfinite(self._circle.periods)] = -np.inf, np.inf
            estimator = self._circle.checked_flow(estimator, self._bounds)
        rows = np.column_stack([self._circle.cut_open(Y), context])
        self.held_out_ = [held_out for _, held_out in splits]

        def prepared(part, change):
            member = clone(estimator).set_params(random_state=random_state.randint(2**31 - 1))
            member._validate_params()
            member._dequantizer = self._dequantizer
            rows, weight, held_out = part
            table = PreparedTable(
                rows, weight, None, self._dequantizer, self._bounds, context.shape[1]
            )
            fit = member._start_fit(table, held_out, False, False, member.max_iter)
            fit.started = started
            change(fit)
            with fit.seeded():
                fit.prepare()
            if self._circle:
                self._circle.wrap_flow(fit)
            return fit

        def some(index):
            return None if index is None else (rows[index], weight[index])

        parts = [(*some(train), some(held_out)) for train, held_out in splits]
        if trees is None:
            return [[prepared(part, lambda fit: None) for part in parts]], [], None, context
        stack = [prepared(part, ignore_trees) for part in parts]
        parts = [  # what a flow without folds has held out, the other one holds out too
            (fit.train_rows, fit.train_weight, held_out or fit.held_out)
            for fit, (_, _, held_out) in zip(stack, parts, strict=True)
        ]
        unseen = [held_out for _, _, held_out in parts]
        by_value = []
        has_time = trees.seconds is None or clock() - started < trees.seconds
        if self._dequantizer and self.n_outputs_ == 1 and has_time:
            seen = [part[:2] for part in parts]
            by_value = fit_value_probabilities(
                seen, Y, self._dequantizer.gap[0], trees.random_state
            )
        stacks = [stack]
        # Without bounds and quantiles, preprocessing does not change the units of y.
        has_units = self._bounds is None and "quantile" in np.atleast_1d(estimator.preprocessing)
        for in_units_of_y in (False, True) if has_units else (False,):
            of_residuals = partial(
                model_residuals, trees=self.encoder_[-1].trees_, in_units_of_y=in_units_of_y
            )
            stacks.append([prepared(part, of_residuals) for part in parts])
        return stacks, by_value, unseen, context

    def _new_trees(self, pairs, estimator, random_state):
        """Return new trees, or None."""
        n, d = pairs.Y.shape
        is_wanted = self.trees
        if isinstance(is_wanted, str):  # "auto"
            is_plain = self.estimator is None and self.circular is None and not self._has_own_splits
            is_wanted = is_plain and n >= LEAST_ROWS and d <= MAX_OUTPUTS
        elif is_wanted:
            self._check_trees(n, estimator)
        if not is_wanted:
            return None
        limit = estimator.time_limit
        seconds = None if limit is None else SHARE_OF_TIME * limit
        return TreePredictions(random_state.randint(2**31 - 1), seconds)

    def _check_trees(self, n, estimator):
        """Raise an error if there cannot be trees."""
        trouble = None
        if self._has_own_splits:
            trouble = "splits as cv: trees that set their own folds would know rows of a group"
        elif self.circular is not None:
            trouble = "circular outputs, whose means trees do not predict"
        elif row_shape(estimator) is not None:
            trouble = f"images as outputs, such as of {type(estimator).__name__}"
        elif self._folds(n) is None and (n < LEAST_ROWS or not estimator.early_stopping):
            trouble = (
                f"{n} rows, early_stopping={estimator.early_stopping} and no folds: no rows are "
                "held out to weight the flows by"
            )
        if trouble:
            raise ValueError(f"trees=True with {trouble}. Use trees=False.")

    _name = "ConditionalDensity"  # in messages: of the estimator that the user knows

    @property
    def _has_own_splits(self):
        """Whether `cv` gives splits, such as of groups, in place of a number of folds."""
        return not (self.cv is None or isinstance(self.cv, str | Integral))

    def _new_encoder(self):
        """Return a pipeline of the given transformer, if any, and of a `ContextEncoder`."""
        from sklearn.pipeline import make_pipeline  # these take long to import

        from ._context import ContextEncoder

        first = [] if isinstance(self.encoder, str) else [clone(self.encoder)]
        encoder = ContextEncoder(accept_sparse=bool(first))
        encoder._name = self._name
        return make_pipeline(*first, encoder)

    def _fit_encoder(self, pairs, trees, splits):
        """Fit the encoder, with trees if there are any, and return the features of X."""
        self.encoder_[-1].set_params(trees=trees)
        y = pairs.Y[:, 0] if pairs.Y.shape[1] == 1 else pairs.Y
        if len(self.encoder_) == 1:
            encoder, weight = self.encoder_[0], pairs.weight
            context = encoder.fit_rows(pairs.encoding, pairs.X, y, weight, splits)
        else:
            params = {"sample_weight": pairs.weight, "splits": splits}
            params = {f"contextencoder__{name}": value for name, value in params.items()}
            context = self.encoder_.fit_transform(pairs.X, y, **params)
        copy_names(self.encoder_, self)
        return context

    def _features(self, X):
        """Return the features of rows that `_read` returned."""
        encoder = self.encoder_
        return encoder[0].features(X) if len(encoder) == 1 else encoder.transform(X)

    def _folds(self, n):
        """Return `cv` for n rows: None if there are no folds."""
        if not isinstance(self.cv, str):
            return self.cv
        return N_FOLDS if FOLDED_ROWS[0] <= n <= FOLDED_ROWS[1] else None

    def _splits(self, pairs, random_state):
        """Return pairs of training rows and held-out rows, None for those that the flow chooses."""
        n = len(pairs.Y)
        cv = self._folds(n)
        if cv is None:
            return [(np.arange(n), None)]
        seed = random_state.randint(2**31 - 1)
        return make_folds(cv, n, seed, X=pairs.X, kept=pairs.is_used)

    def _fitted(self, fits, by_value, unseen, is_final=False):
        """Return the attributes of a fitted density, from fits as they are now."""
        flows = [fit.snapshot(is_final) for fit in fits]
        rows = fits[0].train_rows
        ends = rows[[rows[:, 0].argmin(), rows[:, 0].argmax()]]
        ends[1, self.n_outputs_ :] = ends[0, self.n_outputs_ :]
        ends = self._dequantizer.add_noise(ends, np.array([[0.1], [0.9]]))
        # For a single output, an increasing map gives normal scores; some maps decrease.
        signs = [*signs_of(flows, ends), *len(by_value) * [1.0]]
        flows += by_value
        weights = np.full(len(flows), 1 / len(flows))
        if len(flows) > len(self.held_out_):
            weights = self._weights(flows, signs, unseen)
        kept = np.flatnonzero(weights)
        flows, signs = ([each[i] for i in kept] for each in (flows, signs))
        return {"flows_": flows, "_signs": signs, "weights_": weights[kept]}

    def _weights(self, flows, signs, unseen):
        """Return the weights of flows, without trees and of each kind with them, by unseen rows."""
        n_folds, d, scores = len(self.held_out_), self.n_outputs_, []
        for i, (rows, _) in enumerate(unseen):
            mixture = self._mixture(flows, signs, np.ones(len(flows)), rows[:, d:])
            of_rows = [
                mixture.of([k]).log_density(rows[:, :d], np.arange(len(rows)))
                for k in range(i, len(flows), n_folds)
            ]
            scores.append(np.column_stack(of_rows))
        weight = np.concatenate([weight for _, weight in unseen])
        return np.repeat(shares_of(np.concatenate(scores), weight) / n_folds, n_folds)

    def log_prob(self, X: Table, y: Table) -> Floats:
        """Return the log-density of each row of y given the row of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The conditions.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The values.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, in the units of y. In a discrete column, the density is the probability of the
            value, divided by the distance between values: exactly if it is the only column of y,
            otherwise by two points of the cell.
        """
        context, Y = self._encoded(X), self._checked_outputs(y)
        check_consistent_length(context, Y)
        return self._source(context).log_density(Y, np.arange(len(Y)))

    def score(self, X: Table, y: Table, sample_weight: Weights = None) -> float:
        """Return the mean of `log_prob`, so that a search maximises the likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The conditions.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The values.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the mean.

        Returns
        -------
        score : float
            In nats per row.
        """
        scores = self.log_prob(X, y)
        if sample_weight is None:
            return float(np.mean(scores))
        weight = check_sample_weight(sample_weight, scores, ensure_non_negative=True)
        return float(np.average(scores, weights=weight))

    def sample(self, X: Table, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        """Draw values of y for each row of X.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            The conditions.

        n_samples : int, default=1
            Number of draws for each row.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        y : ndarray of shape (n_rows, n_samples, n_outputs)
            The draws.
        """
        check_integer("n_samples", n_samples)
        return self.predict_distribution(X)._sample(n_samples, random_state)

    def predict_distribution(self, X: Table) -> ConditionalDistribution:
        """Return the distribution of y at each row of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The conditions.

        Returns
        -------
        distribution : ConditionalDistribution
            It has the methods of a frozen distribution of `scipy.stats`, such as `cdf`, `ppf`,
            `mean` and `std`, with one entry per row.
        """
        return distribution_of(self._source(self._encoded(X)))

    @property
    def _has_trees(self):
        """Whether there are flows with trees after those without, some for each split."""
        return len(self.flows_) > len(self.held_out_)

    def _means(self, context, folds=None):
        """Return the means of y by each kind of flows, without trees first, and by the trees.

        Parameters
        ----------
        context : ndarray of shape (n, n_context)
            The encoded rows.
        folds : list of int, optional
            The splits whose flows are asked, by default all.

        Returns
        -------
        means : ndarray of shape (n_kinds + 1, n, n_outputs)
            They are known only of a density that `_has_trees`.
        """
        n, d = len(self.held_out_), self.n_outputs_
        source, trees = self._source(context), self.encoder_[-1].trees_
        kinds = np.arange(len(self.flows_)).reshape(-1, n)[:, range(n) if folds is None else folds]
        of_flows = [distribution_of(source.of(kind)).mean().reshape(-1, d) for kind in kinds]
        return np.stack([*of_flows, trees.in_units_of_y(context[:, -d:])])

    def _mean(self, context, shares):
        """Return what the means that `_means` returns make together, by less work.

        Parameters
        ----------
        context : ndarray of shape (n, n_context)
            The encoded rows.
        shares : ndarray of shape (n_kinds + 1, n_outputs)
            The share of each of the means.

        Returns
        -------
        mean : ndarray of shape (n, n_outputs)
        """
        n, d, trees = len(self.held_out_), self.n_outputs_, self.encoder_[-1].trees_
        mean = shares[-1] * trees.in_units_of_y(context[:, -d:])
        of_kinds = shares[:-1].T  # of the outputs
        if (of_kinds == of_kinds[0]).all():  # such as of a single output: one mixture
            parts = [(of_kinds[0], of_kinds[0].sum())]
        else:
            parts = [*zip(np.eye(len(shares) - 1), shares[:-1], strict=True)]
        for kinds, share in parts:
            if np.any(share):
                weights = np.repeat(kinds, n)
                mixture = self._mixture(self.flows_, self._signs, weights, context)
                of_flows = distribution_of(mixture.of(np.flatnonzero(weights))).mean()
                mean += share * of_flows.reshape(-1, d)
        return mean

    def _source(self, context):
        """Return the mixture of the flows at encoded rows."""
        return self._mixture(self.flows_, self._signs, self.weights_, context)

    def _mixture(self, flows, signs, weights, context):
        about_y = self._circle, self._dequantizer, self._bounds, self._moment_ends
        return FlowMixture(flows, signs, weights, *about_y, context)

    def _encoded(self, X):
        check_is_fitted(self)
        return self.encoder_.transform(X)

    def _checked_outputs(self, y):
        Y, _ = validate_outputs(y)
        if Y.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y has {Y.shape[1]} columns, but {type(self).__name__} was fitted to "
                f"{self.n_outputs_}."
            )
        return Y

    def __sklearn_is_fitted__(self):
        return hasattr(self, "flows_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        tags.input_tags.allow_nan = isinstance(self.encoder, str)
        tags.input_tags.categorical = tags.input_tags.allow_nan
        tags.input_tags.string = tags.input_tags.allow_nan
        return tags


def validate_outputs(y, least=1):
    """Return y as rows of floats, and the names of its columns if it has any."""
    names = column_names(y)
    if names is None and getattr(y, "name", None) is not None:
        names = [y.name]
    if getattr(y, "ndim", 0) > 2:
        raise ValueError(
            f"y has the shape {y.shape}; give one row for each sample: y.reshape(len(y), -1)."
        )
    if holds_times(y):
        raise ValueError(
            "y holds dates or time differences; give numbers, such as the days since the first "
            "date, or the seconds by .dt.total_seconds()."
        )
    kwargs = {"ensure_2d": False, "ensure_min_samples": least, "input_name": "y"}
    check_exact_table(y, "y")
    try:
        Y = check_array(y, dtype=np.float64, **kwargs)
    except ValueError as error:
        if "could not convert" in str(error):
            text = f"{error}. y must be numbers: for classes, use DensityClassifier."
            raise ValueError(text) from error
        if "contains NaN" in str(error):
            raise ValueError("Input y contains NaN: drop the rows without a value of y.") from error
        raise
    Y = Y.reshape(len(Y), -1) if Y.ndim == 1 else Y
    check_magnitude(Y, names, what="y")
    return Y, None if names is None else list(names)
