"""P-values of a detector, from rows that were held out of its fit, and what it flags by them."""

import warnings
from numbers import Integral

import numpy as np
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._components import N_FOLDS, splits_of
from .._mixture import MixtureMixin
from ..density._protocol import is_frozen
from ._calibration import ConformalNull, EmpiricalNull, discoveries, least_p_value
from ._scores import SCORES

NULLS = {
    "conformal": lambda scores: ConformalNull(np.sort(scores)),
    "empirical_null": EmpiricalNull.fit,
}


class CalibratedMixin:
    """P-values and flags, from the scores of held-out rows under the fitted ``models_``.

    The fit leaves ``_calibration``, a list of arrays of them, and ``_null``, None without
    calibration.
    """

    def _with_folds(self, estimator):
        """The estimator; a mixture holds out every row where rows of `fit` are to be judged."""
        judged = self.calibration == "empirical_null" and isinstance(estimator, MixtureMixin)
        if judged and isinstance(estimator.cv, str) and isinstance(self.cv, str):  # both "auto"
            return clone(estimator).set_params(cv=N_FOLDS)
        return estimator

    def _splits(self, estimator, X, random_state):
        """Pairs of rows to fit to and rows to hold out; none where nothing is to be held out."""
        seed = random_state.randint(2**31 - 1)
        if is_frozen(estimator):
            return []
        cv = self.cv
        if isinstance(cv, str):  # "auto"
            keeps = SCORES[self.statistic].held_out and isinstance(estimator, MixtureMixin)
            if self.calibration is None or keeps:
                return []
            cv = N_FOLDS
        return splits_of(cv, X, None, seed)

    def _set_held_out(self, estimator, X, splits):
        """Scores of rows by models that have not seen them, as far as there are any."""
        self.held_out_scores_ = np.full(len(X), np.nan)
        self._calibration = []
        for model, (_, rows) in zip(self.models_, splits, strict=False):
            scores = model.score_samples(X[rows])
            self.held_out_scores_[rows] = scores
            self._calibration.append(np.sort(scores))
        if splits:
            return
        (model,) = self.models_
        if is_frozen(estimator):
            self.held_out_scores_ = model.score_samples(X)
        elif hasattr(model.density, kept_as := SCORES[self.statistic].held_out):
            self.held_out_scores_[model.kept] = getattr(model.density, kept_as)
            if not model.kept.all():
                self.held_out_scores_[~model.kept] = model.score_samples(X[~model.kept])
        known = self.held_out_scores_[~np.isnan(self.held_out_scores_)]
        self._calibration = [np.sort(known)]

    def _set_threshold(self, X):
        known = np.concatenate(self._calibration)
        null = None if self.calibration is None else NULLS[self.calibration](known)
        self._null = null
        vars(self).pop("p_values_", None)  # of an earlier fit
        if self.calibration == "empirical_null":
            self.p_values_ = null.p_values(self.held_out_scores_)
        if null is not None and isinstance(self.contamination, str):
            self.offset_ = null.threshold(self.alpha)
            if np.isinf(self.offset_) and self.fdr is None:
                warnings.warn(
                    f"alpha={self.alpha:g} flags no row: with {len(known)} rows to calibrate, the "
                    f"least p-value is {least_p_value(null):.2g}. Hold out more rows, or raise "
                    "alpha.",
                    stacklevel=3,
                )
            return
        known = known[np.isfinite(known)]
        if not len(known) or not isinstance(self.contamination, str):
            known = self._score_rows(X)
        self.offset_ = self._outlier_threshold(known, np.ones(len(known)))

    def p_values(self, X):
        """How probable so low a score is for an inlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            Between 0 and 1; with ``calibration="conformal"``, at least ``1 / (n + 1)`` for ``n``
            rows to calibrate.
        """
        check_is_fitted(self)
        self._check_calibrated()
        return self._null.p_values(self.score_samples(X))

    def _check_calibrated(self):
        if self._null is None:
            raise ValueError(
                "calibration=None: there are no p-values. Set calibration='conformal', or "
                "'empirical_null' if the rows of fit may hold outliers."
            )

    def predict(self, X):
        """Say which rows are outliers: by `fdr` if it is set, else by `offset_`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers.
        """
        if self.fdr is None:
            return super().predict(X)
        return np.where(self.flag(self.p_values(X)), -1, 1)

    def flag(self, p_values):
        """Which of given p-values are flagged, by `fdr` if it is set, else by `alpha`.

        Parameters
        ----------
        p_values : array-like of shape (n_samples,)
            Of `p_values`, or the ``p_values_`` of the rows of `fit`.

        Returns
        -------
        outlier : ndarray of shape (n_samples,) of bool
            Whether a row is an outlier.
        """
        self._check_calibrated()
        p_values = np.asarray(p_values, dtype=np.float64)
        if not ((p_values >= 0) & (p_values <= 1)).all():
            raise ValueError(
                "p_values must lie between 0 and 1. (The p_values_ of rows that no model has held "
                "out are nan: set cv to a number of folds.)"
            )
        if self.fdr is None:
            return p_values <= self.alpha
        flagged = discoveries(p_values, self.fdr, self.fdr_method)
        least = least_p_value(self._null)
        if not flagged.any() and (p_values <= least).any():
            warnings.warn(
                f"Some rows are as odd as can be told, and none is flagged: fdr={self.fdr:g} among "
                f"{len(p_values)} rows asks for p-values as low as {self.fdr / len(p_values):.2g}, "
                f"and the least is {least:.2g}. Give more rows to calibrate.",
                stacklevel=2,
            )
        return flagged

    def batch_p_value(self, X, *, n_resamples=2000, random_state=None):
        """How probable it is that rows like those of `fit` are, together, so odd.

        The mean rank of their scores, among those of the rows that calibrate, is compared with that
        of as many rows drawn from both together, on both sides: rows can also be too likely (as in
        the typicality test). A shift that no single row gives away shows in many.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows, as one batch.

        n_resamples : int, default=2000
            Number of batches to compare with.

        random_state : int, RandomState instance or None, default=None
            Seed of these batches. None is the same ones in each call.

        Returns
        -------
        p_value : float
            At least ``1 / (n_resamples + 1)``. Of a single model it is exact: a batch of inliers
            gets a p-value of ``a`` or less with a probability of ``a`` at most.

        References
        ----------
        Nalisnick, Matsukawa, Teh & Lakshminarayanan, "Detecting Out-of-Distribution Inputs to
        Deep Generative Models Using Typicality", 2019.
        """
        check_is_fitted(self)
        self._check_calibrated()
        if not isinstance(n_resamples, Integral) or n_resamples < 1:
            raise ValueError(f"n_resamples={n_resamples!r}; it must be an integer of at least 1.")
        rng = check_random_state(0 if random_state is None else random_state)
        scores = self.score_samples(X)
        ranks = rankdata(np.concatenate([scores, *self._calibration]))
        centre = ranks.mean()
        observed = np.abs(ranks[: len(scores)].mean() - centre)
        means = [rng.choice(ranks, len(scores), replace=False).mean() for _ in range(n_resamples)]
        # Rounding must not tell equal means apart.
        as_odd = np.abs(np.array(means) - centre) >= observed * (1 - 1e-12)
        return float((1 + as_odd.sum()) / (n_resamples + 1))
