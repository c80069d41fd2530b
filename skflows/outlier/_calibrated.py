"""P-values of a calibrated detector, and what it flags by them."""

import warnings
from numbers import Integral

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._calibration import discoveries, least_p_value


class CalibratedMixin:
    """P-values and flags, from `score_samples` and the scores and the null of the calibration.

    These are ``_calibration``, a list of arrays, and ``_null``, None without calibration.
    """

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
