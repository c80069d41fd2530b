"""Any density estimator, on columns that a fixed map has prepared."""

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.validation import check_is_fitted

from . import _docs
from ._base import BaseFlowDensity
from ._discrete import Dequantizer
from ._protocol import check_is_density, check_n_samples, draw, fit_density
from ._surface import OutlierDensityMixin
from ._validation import validate_bounds, validate_rows, validate_weight


class TransformedDensity(OutlierDensityMixin, MetaEstimatorMixin, BaseEstimator):
    __doc__ = _docs.fill("""Density of rows whose image under a fixed map has another estimator's.

    ``make_pipeline(StandardScaler(), KernelDensity())`` scores rows in the units of the
    scaler's output. Here the map is part of the density: its log-determinant is added, and
    scores are in the units of X. With ``preprocessing=("quantile", "whiten")`` and a standard
    normal it is a Gaussian copula with flexible margins.

    Parameters
    ----------
    estimator : estimator
        A density estimator with `fit` and `score_samples`, such as
        `sklearn.mixture.GaussianMixture` or `sklearn.neighbors.KernelDensity`.

    {preprocessing}

    {data}

    contamination : float, "auto" or None, default="auto"
        Fraction of outliers in the training data, which sets the threshold of `predict`.
        "auto" puts it at the lower Tukey fence of the training scores, Q1 - 1.5 (Q3 - Q1).
        None sets none, and spares the time to find it: `predict` calls no row an outlier.

    random_state : int, RandomState instance or None, default=None
        Seeds the noise on discrete columns.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator of the mapped rows.

    preprocessor_ : torch.nn.Module
        The map.

    discrete_ : dict of int to float
        The discrete columns and the width of their cells.

    offset_ : float
        Log-density below which `predict` calls a row an outlier.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KernelDensity
    >>> from skflows import TransformedDensity
    >>> X = load_iris().data
    >>> density = TransformedDensity(KernelDensity(bandwidth=0.5), preprocessing="whiten").fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    """)

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"])],
        **{
            name: BaseFlowDensity._parameter_constraints[name]
            for name in ("preprocessing", "bounds", "discrete", "contamination", "random_state")
        },
    }

    def __init__(
        self,
        estimator,
        *,
        preprocessing="standardize",
        bounds=None,
        discrete="auto",
        contamination="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.preprocessing = preprocessing
        self.bounds = bounds
        self.discrete = discrete
        self.contamination = contamination
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the map, then the estimator to the mapped rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row, if the estimator takes weights; rows of weight 0 are left
            out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        import torch

        from . import _engine, _maps

        check_is_density(self.estimator)
        X = validate_rows(self, X, ensure_min_samples=2)
        weight = validate_weight(sample_weight, X, 2)
        X, weight = X[weight > 0], weight[weight > 0]
        names = getattr(self, "feature_names_in_", None)
        self._dequantizer = Dequantizer.for_parameter(self.discrete, X, names)
        self.discrete_ = self._dequantizer.gaps()
        bounds = validate_bounds(self.bounds, X, self._dequantizer, names=names)
        rows = self._dequantizer.spread_anew(X, check_random_state(self.random_state))
        self.preprocessor_ = _maps.fitted_preprocessor(
            self.preprocessing, bounds, torch.from_numpy(rows), torch.from_numpy(weight)
        )
        mapped, _ = _engine.map_rows(self.preprocessor_, "forward", rows)
        given = None if sample_weight is None else weight
        self.estimator_ = fit_density(clone(self.estimator), mapped, given)
        self.offset_ = self._threshold_on(X, weight, self._score_rows)
        return self

    def _score_rows(self, X):
        return self._dequantizer.mean_density(self._log_density, X)

    def _log_density(self, rows):
        from . import _engine

        mapped, log_det = _engine.map_rows(self.preprocessor_, "forward", rows)
        return self.estimator_.score_samples(mapped) + log_det

    def sample(self, n_samples=1, random_state=None):
        """Draw rows from the fitted density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The rows.
        """
        from . import _engine

        check_is_fitted(self)
        check_n_samples(n_samples)
        mapped = draw(self.estimator_, n_samples, check_random_state(random_state))
        X, _ = _engine.map_rows(self.preprocessor_, "inverse", np.asarray(mapped))
        return self._dequantizer.round(X)
