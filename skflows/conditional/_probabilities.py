"""Class probabilities by trees and logistic regressions, and pools of class probabilities."""

import math

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from ..callbacks._run import clock
from ..ensemble._folds import make_folds
from ._context import ContextEncoder
from ._trees import N_FOLDS, STAGES, Boosting, Forest, TreeColumns

EXTRA_TREES = "extra trees"
N_TREES = 100
MOST_NUMBERS = 30_000  # about half of them in an extra tree; with many rows, leaves are larger
PENALTIES = (0.1, 1.0, 10.0)  # values of C of the logistic regressions, all of which are pooled
MOST_TREES = 1_000  # of gradient boosting, which has a tree for each class in each iteration
RIDGE = 10.0  # rows whose log-loss the penalty on unequal weights of a pool weighs as much as
LOWEST = -30.0  # of a log-probability in a pool


class ClassProbabilities(TreeColumns):
    """Class probabilities by gradient boosting, by extra trees and by logistic regressions.

    Predictions of rows that the trees have not seen set the number of iterations of the boosting.

    Parameters
    ----------
    random_state : int, default=0
        Seeds the folds and the trees.
    seconds : float, default=None
        About the longest time for all models. A model that one fit shows to need more than is left
        is left out.

    Attributes
    ----------
    models_ : dict
        The fitted models by their names.
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
        self.models_, unseen = {}, np.empty((0, *one_hot.shape))
        end = None if self.seconds is None else clock() + self.seconds
        models: list = [
            (f"logistic regression, C={C:g}", LogisticRegression(C=C, max_iter=300), features)
            for C in PENALTIES
        ]
        # A node has eight numbers and the shares of the classes.
        leaf = math.ceil(one_hot.shape[0] * (one_hot.shape[1] + 8) / MOST_NUMBERS)
        extra_trees = ExtraTreesClassifier(N_TREES, min_samples_leaf=leaf, random_state=seed)
        models.append((EXTRA_TREES, extra_trees, columns))
        for name, model, given in models:
            started = clock()
            if end is not None and started > end:
                return self._logarithms(unseen)
            model.fit(given, label, weight)
            if end is not None and clock() + len(folds) * (clock() - started) > end:
                continue
            proba = cross_val_predict(
                model,
                given,
                label,
                cv=folds,
                method="predict_proba",
                params={"sample_weight": weight},
            )
            self.models_[name] = Forest.of(model) if name == EXTRA_TREES else model
            unseen = np.concatenate([unseen, proba[None]])
        seconds = None if end is None else end - clock()
        boosting = self._fit_boosting(columns, label, weight, folds, seconds)
        if boosting is not None:
            self.models_["gradient boosting"], proba = boosting
            unseen = np.concatenate([unseen, proba[None]])
        return self._logarithms(unseen)

    def transform(self, X):
        """Return the log-probabilities of each row."""
        rows = self.encoder_.rows(X)
        columns = self._columns(self.encoder_.columns(rows)[0])
        features = self.encoder_.features(rows)
        proba = []
        for model in self.models_.values():
            if isinstance(model, LogisticRegression):
                proba.append(model.predict_proba(features))
                continue
            predicted = model.predict(columns)
            if isinstance(model, Boosting):
                if predicted.ndim == 1:  # of two classes
                    predicted = expit(np.column_stack([-predicted, predicted]))
                else:
                    predicted = softmax(predicted, axis=1)
            proba.append(predicted)
        return self._logarithms(proba)

    def for_p_values(self, log_proba):
        """Return the log-probabilities whose ranks make p-values: extra trees', or a pool's.

        Trees differ most about rows that are unlike all classes. A pool has equal weights, because
        fitted ones would depend on the rows that calibrate.
        """
        names = [*self.models_]
        if EXTRA_TREES in names:
            return log_proba[names.index(EXTRA_TREES)]
        return pooled(np.full(len(log_proba), 1 / len(log_proba)), log_proba)

    def _fit_boosting(self, columns, label, weight, folds, seconds):
        """Return trees of gradient boosting, and probabilities of rows that they have not seen.

        None if the time does not suffice.
        """
        boosting = self._boosting(HistGradientBoostingClassifier, columns.shape[1])
        n_classes = len(self.share_)
        most = max(MOST_TREES // n_classes, STAGES[0])
        stages = [stage for stage in STAGES if stage <= most]
        n_fits = len(folds) + 1
        stages = self._stages(boosting, columns, label, weight, n_fits, seconds, stages)
        if not stages:
            return None
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
