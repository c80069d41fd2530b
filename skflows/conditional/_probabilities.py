"""Class probabilities by trees and logistic regressions, and pools of class probabilities."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit, log_softmax
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ..ensemble._folds import make_folds
from ._context import ContextEncoder
from ._trees import N_FOLDS, STAGES, Boosting, Forest, TreeColumns

N_TREES = 100
PENALTIES = (0.1, 1.0, 10.0)  # values of C of the logistic regressions, all of which are pooled
NAMES = ("boosting", "extra trees", *(f"logistic regression, C={C:g}" for C in PENALTIES))
MOST_TREES = 1_000  # of a boosting, which has a tree for each class in each iteration
RIDGE = 10.0  # rows whose log-loss the penalty on unequal weights of a pool weighs as much as
LOWEST = -30.0  # of a log-probability in a pool


class ClassProbabilities(TreeColumns):
    """Class probabilities by a boosting, by extra trees and by logistic regressions.

    Predictions of rows that the trees have not seen set the number of iterations of the boosting.
    """

    def fit_transform(self, X, label, weight):
        """Fit to rows; return the log-probabilities of each row by models that have not seen it.

        Parameters
        ----------
        X : array-like of shape (n, n_columns)
            Any columns, with missing values.
        label : ndarray of shape (n,)
            Classes, as numbers from 0.
        weight : ndarray of shape (n,)
            Weights of the rows.

        Returns
        -------
        log_proba : ndarray of shape (n_models, n, n_classes)
        """
        self.encoder_ = ContextEncoder(random_state=self.random_state)
        encoding, rows = self.encoder_.read(X)
        one_hot = np.eye(label.max() + 1)[label]
        features = self.encoder_.fit_rows(encoding, rows, one_hot, weight)
        columns = self._learn_columns(*self.encoder_.columns(rows))
        self.share_ = np.average(one_hot, axis=0, weights=weight)
        self.share_weight_ = 1 / (len(label) + 2)  # Laplace's rule of succession
        seed = self.random_state
        folds = make_folds(min(N_FOLDS, len(label)), len(label), seed, label=label)
        extra_trees = ExtraTreesClassifier(N_TREES, random_state=seed)
        self.boosting_, unseen = self._fit_boosting(columns, label, weight, folds)
        unseen = [unseen, unseen_proba(extra_trees, columns, label, weight, folds)]
        self.extra_trees_ = Forest.of(extra_trees.fit(columns, label, weight))
        self.regressions_ = []
        for C in PENALTIES:
            regression = LogisticRegression(C=C, max_iter=300)
            unseen.append(unseen_proba(regression, features, label, weight, folds))
            self.regressions_.append(regression.fit(features, label, weight))
        return self._logarithms(unseen)

    def transform(self, X):
        """Return the log-probabilities of each row."""
        rows = self.encoder_.rows(X)
        columns = self._columns(self.encoder_.columns(rows)[0])
        features = self.encoder_.features(rows)
        log_odds = self.boosting_.predict(columns)
        if log_odds.ndim == 1:  # of two classes
            boosted = np.exp(log_expit(np.column_stack([-log_odds, log_odds])))
        else:
            boosted = np.exp(log_softmax(log_odds, axis=1))
        regressions = [each.predict_proba(features) for each in self.regressions_]
        return self._logarithms([boosted, self.extra_trees_.predict(columns), *regressions])

    def _fit_boosting(self, columns, label, weight, folds):
        """Return the trees of a boosting, and the probabilities of rows that it has not seen."""
        boosting = self._boosting(HistGradientBoostingClassifier, columns.shape[1])
        n_classes = len(self.share_)
        most = max(MOST_TREES // n_classes, STAGES[0])
        stages = [stage for stage in STAGES if stage <= most]
        stages = self._stages(boosting, columns, label, len(folds) + 1, stages)
        boosting.set_params(max_iter=stages[-1])
        unseen = np.empty((len(stages), len(label), n_classes))
        for train, others in folds:
            model = self._fit(clone(boosting), columns[train], label[train], weight[train])
            staged = [*model.staged_predict_proba(columns[others])]
            unseen[:, others] = [staged[stage - 1] for stage in stages]
        known = self._logarithms(unseen)[:, np.arange(len(label)), label]
        best = np.average(known, axis=1, weights=weight).argmax()
        boosting.set_params(max_iter=stages[best])
        return Boosting.of(self._fit(boosting, columns, label, weight)), unseen[best]

    def _logarithms(self, proba):
        """Return log-probabilities, mixed with the shares of the classes: none is impossible."""
        share_weight = self.share_weight_
        return np.log((1 - share_weight) * np.asarray(proba) + share_weight * self.share_)


def unseen_proba(model, X, label, weight, folds):
    """Return the class probabilities of each row by a model that has not seen it."""
    proba = np.empty((len(label), label.max() + 1))
    for train, others in folds:
        proba[others] = (
            clone(model).fit(X[train], label[train], weight[train]).predict_proba(X[others])
        )
    return proba


def pooled(weights, log_proba):
    """Return the logarithmic pool of class probabilities: weighted products, normalised.

    Parameters
    ----------
    weights : ndarray of shape (n_models,)
        Powers of the probabilities.
    log_proba : ndarray of shape (n_models, n, n_classes)
        Log-probabilities, of which those below -30 count as -30.

    References
    ----------
    Genest & Zidek, "Combining Probability Distributions: A Critique and an Annotated
    Bibliography", 1986.
    """
    return log_softmax(np.tensordot(weights, np.maximum(log_proba, LOWEST), 1), axis=-1)


def pool_weights(log_proba, label, weight):
    """Return non-negative weights of a pool with the least log-loss of rows of known classes.

    A penalty draws them towards equal weights with the sum 1.
    """
    n_models, rows = len(log_proba), np.arange(len(label))
    equal, log_proba = 1 / n_models, np.maximum(log_proba, LOWEST)
    weight = weight / weight.sum()
    known = log_proba[:, rows, label]

    def loss(weights):
        log_pool = pooled(weights, log_proba)
        expected = np.einsum("nk,mnk->mn", np.exp(log_pool), log_proba)
        difference = weights - equal
        value = -weight @ log_pool[rows, label] + RIDGE / len(label) * difference @ difference
        return value, (expected - known) @ weight + 2 * RIDGE / len(label) * difference

    start = np.full(n_models, equal)
    return minimize(loss, start, jac=True, bounds=n_models * [(0, None)]).x
