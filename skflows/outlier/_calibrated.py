"""P-values of a calibrated detector, and what it flags by them."""

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ._calibration import discoveries


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
        p_values = np.asarray(p_values, dtype=np.float64)
        if self.fdr is None:
            return p_values <= self.alpha
        return discoveries(p_values, self.fdr, self.fdr_method)

    def batch_p_value(self, X, *, n_resamples=2000, random_state=None):
        """How probable it is that rows like those of `fit` are, together, so odd.

        The mean score of the rows is compared with that of as many rows drawn from those that
        calibrate, on both sides: rows can also be too likely (the typicality test). A shift that
        no single row gives away shows in many.

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
            At least ``1 / (n_resamples + 1)``.

        References
        ----------
        Nalisnick, Matsukawa, Teh & Lakshminarayanan, "Detecting Out-of-Distribution Inputs to
        Deep Generative Models Using Typicality", 2019.
        """
        check_is_fitted(self)
        self._check_calibrated()
        known = np.concatenate(self._calibration)
        rng = check_random_state(0 if random_state is None else random_state)
        scores = self.score_samples(X)
        means = np.array([rng.choice(known, len(scores)).mean() for _ in range(n_resamples)])
        as_odd = np.abs(means - known.mean()) >= np.abs(scores.mean() - known.mean())
        return float((1 + as_odd.sum()) / (n_resamples + 1))
