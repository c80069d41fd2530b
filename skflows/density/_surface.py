"""What a fitted density offers beyond its score: outlier labels and a latent space."""

import numpy as np
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils.stats import _weighted_percentile
from sklearn.utils.validation import check_array, check_is_fitted


class OutlierDensityMixin(OutlierMixin, DensityMixin):
    """Mean score and outlier labels, from `score_samples` and the parameter `contamination`."""

    def score(self, X, y=None):
        """Mean log-density of the rows, so that a search maximises held-out likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        return float(np.mean(self.score_samples(X)))

    def decision_function(self, X):
        """Log-density above the outlier threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``.
        """
        return self.score_samples(X) - self.offset_

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
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _set_offset(self, scores, weight):
        """Set the outlier threshold from the scores and weights of the training rows."""
        if self.contamination == "auto":
            first, third = (
                _weighted_percentile(scores, weight, rank, average=True) for rank in (25, 75)
            )
            self.offset_ = float(first - 1.5 * (third - first))
        else:
            rank = 100 * self.contamination
            self.offset_ = float(_weighted_percentile(scores, weight, rank, average=True))


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
            Their latent coordinates.
        """
        check_is_fitted(self)
        return self._map_rows("forward", self._validate(X, reset=False))[0]

    def inverse_transform(self, Z):
        """Rows of given latent coordinates.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_features)
            Latent coordinates.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows that `transform` maps to Z.
        """
        check_is_fitted(self)
        Z = check_array(Z, dtype=np.float64, order="C", input_name="Z")
        if Z.shape[1] != self.n_features_in_:
            raise ValueError(
                f"Z has {Z.shape[1]} features, but {type(self).__name__} was fitted on "
                f"{self.n_features_in_}; pass the output of transform."
            )
        return self._map_rows("inverse", Z)[0]

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
        return self._round_trip_error(self._validate(X, reset=False)).max(axis=1)

    @property
    def _n_features_out(self):
        return self.n_features_in_

    def _round_trip_error(self, X):
        latent = self._map_rows("forward", X)[0]
        return np.abs(self._map_rows("inverse", latent)[0] - X)
