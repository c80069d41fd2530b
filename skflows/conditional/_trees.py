"""Predictions of y by ensembles of trees, and flows of their residuals."""

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.model_selection import KFold

from ..callbacks._run import clock
from ..ensemble._mixture import mixture_weights
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import Tree, TreePredictor
from ..preprocessing.validation import uneven

LEAST_ROWS = 50  # from which the default flow has trees
MAX_OUTPUTS = 4  # up to which it has them: each output has trees of its own
MAX_CATEGORIES = 255  # that the boosting takes as such; others are numbers to it
N_FOLDS, N_FOLDS_OF_FEW = 5, 10
LEAST_HELD_OUT = 50  # rows of folds, from which these decide how far the others go
FEW_ROWS = 1_000  # up to which there are more folds: trees of fewer rows are further from the truth
STAGES = (25, 50, 100, 200, 300)  # numbers of iterations of the boosting to choose from
# Trees of the boosting. Small ones are better where y is nearly a sum of smooth functions.
LARGE = {"learning_rate": 0.06, "max_leaf_nodes": 15, "min_samples_leaf": 5}
MIDDLE = {"learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 2}
SMALL = {"learning_rate": 0.15, "max_leaf_nodes": 5, "min_samples_leaf": 2}
LEAF_SIZES = (1, 5)  # of extra trees, which are weighted; more for each MANY_ROWS
MANY_ROWS = 5_000
N_TREES = 50
SHARE_OF_TIME = 0.3  # of a time limit, for gradient boosting or other models
LARGEST = 1e38  # of a number: forests work in float32
LEAST_GAIN = 0.05  # share of a kind of flows with trees, below which it is left out
LEAST_SHARE = 0.03  # of the flows without trees, for rows that trees predict far from the truth


class TreeColumns(PersistenceMixin, BaseEstimator):
    """Columns as trees take them, for estimators that consist of trees.

    Parameters
    ----------
    random_state : int, default=0
        Seeds the folds and the trees.
    seconds : float, default=None
        About the longest time for gradient boosting, which has fewer iterations if it is short.
    """

    def __init__(self, random_state=0, seconds=None):
        self.random_state = random_state
        self.seconds = seconds

    def _learn_columns(self, X, is_category):
        """Learn the categories of rows, and return the rows as trees take them."""
        known = {j: np.unique(X[:, j]) for j in np.flatnonzero(is_category)}
        self.known_ = {j: k for j, k in known.items() if len(k) <= MAX_CATEGORIES}
        self.numbers_ = [j for j in range(X.shape[1]) if j not in self.known_]
        return self._columns(X)

    def _columns(self, X):
        """Return the categories, as whole numbers from 0 and NaN if unknown, and the numbers."""
        places = [
            np.where(np.isin(X[:, j], known), np.searchsorted(known, X[:, j]), np.nan)
            for j, known in self.known_.items()
        ]
        return np.column_stack([*places, X[:, self.numbers_].clip(-LARGEST, LARGEST)])

    def _boosting(self, cls, n_columns, shape=LARGE):
        """Return new gradient boosting."""
        is_category = np.arange(n_columns) < len(self.known_)
        return cls(
            **shape,
            categorical_features=is_category if self.known_ else None,
            early_stopping=False,
            random_state=self.random_state,
        )

    def _fit(self, boosting, X, y, weight):
        """Fit gradient boosting, in which a column without known values must hold zeros."""
        X = np.where(np.isnan(X).all(axis=0), 0.0, X)
        return boosting.fit(X, y, uneven(weight))  # with weights, it draws many rows to sort

    def _stages(self, boosting, X, y, weight, n_fits, seconds, stages):
        """Return the numbers of iterations to choose from: few, or none, if the time is short."""
        if seconds is None:
            return stages
        if seconds <= 0:
            return []
        started = clock()
        self._fit(clone(boosting).set_params(max_iter=stages[0]), X, y, weight)
        took = clock() - started
        most = stages[0] * (seconds - took) / (n_fits * took)
        return [stage for stage in stages if stage <= most]


class TreePredictions(TreeColumns):
    """The mean of y by gradient boosting and by extra trees, as standard scores.

    Predictions of rows that the trees have not seen set the number of iterations of the boosting,
    and the weights of the ensembles.
    """

    def fit_transform(self, X, is_category, y, weight):
        """Fit to rows; return a prediction of each row by trees that have not seen it.

        Parameters
        ----------
        X : ndarray of shape (n, n_columns)
            Numbers and places of categories; NaN is a missing number.
        is_category : ndarray of shape (n_columns,) of bool
            Which columns hold categories.
        y : ndarray of shape (n,) or (n, n_outputs)
            The outputs.
        weight : ndarray of shape (n,) or None
            Weights of the rows.
        """
        Y = np.reshape(y, (len(X), -1))
        weight = np.ones(len(X)) if weight is None else weight
        X = self._learn_columns(X, is_category)
        self.loc_, self.scale_ = moments(Y, weight)
        standard = (Y - self.loc_) / self.scale_
        self.low_, self.high_ = standard.min(axis=0), standard.max(axis=0)
        fitted = [self._fit_output(X, column, weight) for column in standard.T]
        self.trees_ = [trees for trees, _ in fitted]
        return self._within_range([unseen for _, unseen in fitted])

    def transform(self, X):
        """Return a prediction of each row."""
        X = self._columns(X)
        return self._within_range(
            [sum(share * each.predict(X) for share, each in trees) for trees in self.trees_]
        )

    def in_units_of_y(self, predictions):
        """Return predictions, which are standard scores, in the units of y."""
        return self.loc_ + self.scale_ * predictions

    def _fit_output(self, X, y, weight):
        """Return pairs of a share and an ensemble of trees, and predictions of unseen rows."""
        has_few = len(X) <= FEW_ROWS and self.seconds is None
        n_folds = min(N_FOLDS_OF_FEW if has_few else N_FOLDS, len(X))
        folds = KFold(n_folds, shuffle=True, random_state=self.random_state)
        boosting = [
            self._boosting(HistGradientBoostingRegressor, X.shape[1], shape)
            for shape in (LARGE, MIDDLE, SMALL)
        ]
        seed = self.random_state
        forests = [
            ExtraTreesRegressor(
                N_TREES, min_samples_leaf=least_in_leaf(size, len(X)), random_state=seed
            )
            for size in LEAF_SIZES
        ]
        n_fits = (n_folds + 1) * len(self.loc_) * len(boosting)
        sizes = self._stages(boosting[0], X, y, weight, n_fits, self.seconds, STAGES) or STAGES[:1]
        stages = np.full((len(boosting), len(sizes), len(X)), np.inf)
        of_forests = np.empty((len(forests), len(X)))
        squares, most = np.zeros(stages.shape[:2]), np.full(len(boosting), len(sizes))
        n_held_out = 0
        for rows, others in folds.split(X):
            given = X[rows], y[rows], weight[rows]
            for k, model in enumerate(boosting):
                model.set_params(max_iter=sizes[most[k] - 1])
                staged = [*self._fit(clone(model), *given).staged_predict(X[others])]
                stages[k][: most[k], others] = [staged[i - 1] for i in sizes[: most[k]]]
            for k, forest in enumerate(forests):
                of_forests[k, others] = Forest.of(clone(forest).fit(*given)).predict(X[others])
            squares += (stages[..., others] - y[others]) ** 2 @ weight[others]
            best, n_held_out = squares.argmin(axis=1), n_held_out + len(others)
            if n_held_out >= LEAST_HELD_OUT:  # all later folds go to the next number, at most
                most = np.minimum(most, best + 2)
        for model, k in zip(boosting, best, strict=True):
            model.set_params(max_iter=sizes[k])
        unseen = np.column_stack([*stages[np.arange(len(boosting)), best], *of_forests])
        shares = least_squares(unseen, y, weight)
        classes: list = [*len(boosting) * [Boosting], *len(forests) * [Forest]]
        fits = [*(partial(self._fit, each) for each in boosting), *(each.fit for each in forests)]
        trees = [
            (float(share), cls.of(fit(X, y, weight)))
            for share, fit, cls in zip(shares, fits, classes, strict=True)
            if share
        ]
        return trees, unseen @ shares

    def _within_range(self, columns):
        """Return predictions within the range of y."""
        return np.column_stack(columns).clip(self.low_, self.high_)


class Boosting(NamedTuple):
    """The trees of gradient boosting of scikit-learn, as arrays that need no pickle.

    Attributes
    ----------
    nodes : structured ndarray of shape (n_nodes,)
        Nodes of all trees, one tree after another; of a classifier of several classes, a tree of
        each class in turn.
    sizes : ndarray of shape (n_trees,)
        Number of nodes of each tree.
    sets : ndarray of shape (n_sets, 8)
        Bits of the categories that go to the left, at each node that splits categories.
    n_sets : ndarray of shape (n_trees,)
        Number of such nodes of each tree.
    known : ndarray of shape (n_categorical, 8)
        Bits of the known categories of each column.
    place : ndarray of shape (n_columns,)
        Which row of `known` belongs to each column.
    baseline : ndarray of shape (n_outputs,)
        What the trees are added to. A classifier has an output for each class, or a single one.
    """

    nodes: np.ndarray
    sizes: np.ndarray
    sets: np.ndarray
    n_sets: np.ndarray
    known: np.ndarray
    place: np.ndarray
    baseline: np.ndarray

    @classmethod
    def of(cls, model):
        """Return the trees of fitted gradient boosting."""
        trees = [tree for of_outputs in model._predictors for tree in of_outputs]
        known, place = model._bin_mapper.make_known_categories_bitsets()
        return cls(
            np.concatenate([tree.nodes for tree in trees]),
            np.array([len(tree.nodes) for tree in trees]),
            np.concatenate([tree.raw_left_cat_bitsets for tree in trees]),
            np.array([len(tree.raw_left_cat_bitsets) for tree in trees]),
            known,
            place,
            np.asarray(model._baseline_prediction, dtype=np.float64).ravel(),
        )

    def predict(self, X):
        """Return the prediction of each row, (n,), or the scores of classes, (n, n_outputs)."""
        nodes = self.nodes
        left, right = nodes["left"].astype(np.int64), nodes["right"].astype(np.int64)
        column = nodes["feature_idx"]
        check_nodes(nodes["is_leaf"] == 0, left, right, column, self.sizes, X.shape[1])
        splits = nodes["is_categorical"] > 0
        is_known = nodes["bitset_idx"] < np.repeat(self.n_sets, self.sizes)
        if len(self.place) != X.shape[1] or not (
            is_known[splits].all() and (self.place[column[splits]] < len(self.known)).all()
        ):
            raise ValueError("a tree has a split of categories that does not exist")
        total = np.tile(np.reshape(self.baseline, (-1, 1)), len(X))  # a row for each output
        trees = zip(
            np.split(self.nodes, np.cumsum(self.sizes)[:-1]),
            np.split(self.sets, np.cumsum(self.n_sets)[:-1]),
            strict=True,
        )
        for i, (nodes, sets) in enumerate(trees):
            tree = TreePredictor(nodes, sets, sets)
            total[i % len(total)] += tree.predict(X, self.known, self.place, 1)
        return np.squeeze(total.T, axis=1) if len(total) == 1 else total.T


class Forest(NamedTuple):
    """The trees of a forest of scikit-learn, as arrays that need no pickle.

    Attributes
    ----------
    nodes : structured ndarray of shape (n_nodes,)
        Nodes of all trees, one tree after another.
    values : ndarray of shape (n_nodes, 1, n_outputs)
        The mean of y at each node, or the shares of the classes.
    sizes : ndarray of shape (n_trees,)
        Number of nodes of each tree.
    """

    nodes: np.ndarray
    values: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, model, has_values=True):
        """Return the trees of a fitted forest, or only their nodes, with values of 0."""
        trees = [each.tree_.__getstate__() for each in model.estimators_]
        sizes = np.array([tree["node_count"] for tree in trees])
        values = (
            [tree["values"] for tree in trees] if has_values else [np.zeros((sizes.sum(), 1, 1))]
        )
        nodes = np.concatenate([tree["nodes"] for tree in trees])
        return cls(nodes, np.concatenate(values), sizes)

    def predict(self, X):
        """Return the prediction of each row, (n,), or the shares of classes, (n, n_outputs)."""
        n_outputs = self.values.shape[2]
        total = np.zeros((len(X), n_outputs))
        for tree, _, X32 in self._each(X):
            total += tree.predict(X32)
        total /= len(self.sizes)
        return total[:, 0] if n_outputs == 1 else total

    def leaves(self, X):
        """Return the leaf of each row in each tree, (n, n_trees): its place among all nodes."""
        return np.column_stack([start + tree.apply(X32) for tree, start, X32 in self._each(X)])

    def _each(self, X):
        """Yield each tree, the place of its first node, and the rows as it takes them."""
        nodes, d = self.nodes, X.shape[1]
        left, right, column = nodes["left_child"], nodes["right_child"], nodes["feature"]
        check_nodes(left != -1, left, right, column, self.sizes, d)
        X32 = np.ascontiguousarray(X, dtype=np.float32)
        ends = np.cumsum(self.sizes)
        for start, end in zip(ends - self.sizes, ends, strict=True):
            tree = Tree(d, np.array([self.values.shape[2]]), 1)
            tree.__setstate__(
                {
                    "max_depth": 0,  # which predictions do not need
                    "node_count": end - start,
                    "nodes": nodes[start:end],
                    "values": self.values[start:end],
                }
            )
            yield tree, start, X32


def least_in_leaf(size, n):
    """Return the least number of rows in a leaf of trees of n rows: more with many rows."""
    return size * -(-n // MANY_ROWS)


def check_nodes(is_inner, left, right, column, sizes, n_columns):
    """Raise an error for nodes of a damaged file: compiled code follows them without a check."""
    ends = np.cumsum(sizes)
    place = np.arange(len(left)) - np.repeat(ends - sizes, sizes)
    ahead = [(place < child) & (child < np.repeat(sizes, sizes)) for child in (left, right)]
    is_valid = ahead[0] & ahead[1] & (0 <= column) & (column < n_columns)
    if not is_valid[is_inner].all():
        raise ValueError("a tree has a node that leads nowhere")


def moments(Y, weight):
    """Return the weighted mean and standard deviation of each column, which is positive."""
    import torch

    from ..bijections._standardize import weighted_moments

    return [each.numpy() for each in weighted_moments(torch.tensor(Y), torch.tensor(weight))]


def ignore_trees(fit):
    """Let the flow of a fit that is not prepared ignore the predictions in its context."""
    fit.recipe = fit.recipe._replace(build_flow=partial(_flow_without, fit.recipe.build_flow))


def _flow_without(build, preprocess, n_features, n_context):
    return build(preprocess, n_features, n_context - n_features)


def model_residuals(fit, trees, in_units_of_y):
    """Let the flow of a fit that is not prepared model what the predictions leave.

    In units of y, the difference itself is preprocessed, which suits y with little noise. Otherwise
    it is the one between y and its prediction after preprocessing, which suits skewed y.
    """
    recipe = fit.recipe
    names = recipe.settings.preprocessing if in_units_of_y else None
    build = partial(_residual_flow, recipe.build_flow, fit.table, trees, names)
    fit.recipe = recipe._replace(build_flow=build)


def _residual_flow(build, table, trees, names, preprocess, n_features, n_context):
    import torch

    from ..bijections import Chain
    from ..bijections._conditional import FirstColumns
    from ..bijections._difference import Difference
    from ..preprocessing.fixed_maps import fitted_preprocessor

    dequantizer, in_units_of_y = table.dequantizer, names is not None
    noise = np.random.RandomState(0).uniform(size=(len(table.X), len(dequantizer.columns)))
    rows = dequantizer.add_noise(table.X, noise) if dequantizer else table.X
    loc, scale, rows, weight = map(torch.tensor, (trees.loc_, trees.scale_, rows, table.weight))
    difference = Difference(Chain([]) if in_units_of_y else preprocess, loc, scale)
    difference.initialize(rows, weight)
    flow = build(preprocess, n_features, n_context)
    flow.preprocess = difference
    if in_units_of_y:
        residuals = difference(rows)[0][:, :n_features]
        of_residuals = fitted_preprocessor(names, None, residuals, weight)
        flow.preprocess = Chain([difference, FirstColumns(of_residuals, n_features)])
    return flow


def least_squares(predictions, y, weight):
    """Return weights with the sum 1, for the mean of predictions with the least squared error."""
    errors = (predictions - y[:, None]) * np.sqrt(weight)[:, None]
    if not errors.any():  # a constant
        return np.full(errors.shape[1], 1 / errors.shape[1])
    # A large row keeps the sum at 1.
    large = 1e3 * np.linalg.norm(errors) + np.finfo(np.float64).tiny
    rows = np.vstack([errors, np.full(errors.shape[1], large)])
    shares, _ = nnls(rows, np.append(np.zeros(len(y)), large))
    return shares / shares.sum()


def shares_of(scores, weight):
    """Return the shares of flows without and with trees, from their scores of unseen rows.

    Parameters
    ----------
    scores : ndarray of shape (n, n_kinds)
        By each kind of flows, first by flows without trees.
    weight : ndarray of shape (n,)
        Weights of the rows.
    """
    is_used = np.isfinite(scores).all(axis=0)
    is_used[0] = True
    while True:  # until no kind with trees has a small share
        shares = np.zeros(len(is_used))
        shares[is_used] = mixture_weights(scores[:, is_used], weight)
        smallest = np.where(is_used[1:], shares[1:], np.inf).argmin() + 1
        if not is_used[smallest] or shares[smallest] >= LEAST_GAIN:
            break
        is_used[smallest] = False
    if shares[0] < LEAST_SHARE:
        shares[1:] *= (1 - LEAST_SHARE) / shares[1:].sum()
        shares[0] = LEAST_SHARE
    return shares
