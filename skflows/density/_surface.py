"""What a fitted density offers beyond its score: outlier labels and a latent space."""

import numpy as np
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils.stats import _weighted_percentile
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted

from ._discrete import N_DRAWS
from ._validation import validate_rows

FENCE_ROWS = 5_000


class OutlierDensityMixin(OutlierMixin, DensityMixin):
    """Scores and outlier labels, from `_score_rows` and the parameter `contamination`."""

    def __sklearn_is_fitted__(self):
        return hasattr(self, "offset_")

    def score_samples(self, X):
        """Log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats, in the units of X: a row's value depends on that row alone. With the
            columns of noise of a `CNFDensity`, the log of an importance-weighted estimate.
        """
        check_is_fitted(self)
        return self._score_rows(validate_rows(self, X, reset=False))

    def score(self, X, y=None, sample_weight=None):
        """Mean log-density of the rows, so that a search maximises held-out likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row in the mean.

        Returns
        -------
        score : float
            In nats per row.
        """
        scores = self.score_samples(X)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, scores, ensure_non_negative=True)
        return float(np.average(scores, weights=sample_weight))

    def decision_function(self, X):
        """Score above the outlier threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``, or `score_samples` where there is no threshold.
        """
        scores = self.score_samples(X)
        return scores if np.isneginf(self.offset_) else scores - self.offset_

    def predict(self, X):
        """Say which rows are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers.
        """
        return np.where(self.score_samples(X) >= self.offset_, 1, -1)

    def _threshold_on(self, X, weight, score_rows):
        """The threshold that `contamination` asks for, on training rows.

        Few rows tell quartiles, many take long to score. A fraction is meant to be exact.
        """
        if self.contamination is None:
            return -np.inf
        few = FENCE_ROWS // (N_DRAWS if self.discrete_ else 1)
        step = max(1, len(X) // few) if self.contamination == "auto" else 1
        return self._outlier_threshold(score_rows(X[::step]), weight[::step])

    def _outlier_threshold(self, scores, weight):
        """The threshold that `contamination` asks for, from the training rows' scores."""
        if self.contamination is None:
            return -np.inf
        ranks = [25, 75] if self.contamination == "auto" else [100 * self.contamination]
        quantiles = [_weighted_percentile(scores, weight, rank, average=True) for rank in ranks]
        if self.contamination == "auto":
            first, third = quantiles
            return float(first - 1.5 * (third - first))
        return float(quantiles[0])


class LatentMapMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """The latent map of a flow as a transformer, from ``_map_rows(direction, rows)``."""

    def transform(self, X):
        """Latent coordinates of each row, standard normal if the fit is perfect.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features)
            Their latent coordinates. A `CNFDensity` with columns of noise maps these along, from
            0: its Z has ``n_features + n_augmented`` columns.
        """
        check_is_fitted(self)
        return self._map_rows("forward", validate_rows(self, X, reset=False))[0]

    def inverse_transform(self, X):
        """Rows of given latent coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Latent coordinates, as many as `transform` gives.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            The rows that `transform` maps to them, without columns of noise.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=np.float64, order="C", input_name="X")
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} was fitted on "
                f"{self.n_features_in_}; pass the output of transform, which has "
                f"{self._n_features_out}."
            )
        return self._map_rows("inverse", X)[0]

    def reconstruction_error(self, X):
        """How exactly the latent map can be undone: ``max |x - inverse(forward(x))|``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            Largest absolute error over the columns of each row, in the units of X.

        References
        ----------
        Behrmann, Vicol, Wang, Grosse & Jacobsen, "Understanding and Mitigating Exploding
        Inverses in Invertible Neural Networks", 2020.
        """
        check_is_fitted(self)
        return self._round_trip_error(validate_rows(self, X, reset=False)).max(axis=1)

    @property
    def _n_features_out(self):
        return self.n_features_in_

    def _round_trip_error(self, X):
        latent = self._map_rows("forward", X)[0]
        return np.abs(self._map_rows("inverse", latent)[0] - X)
