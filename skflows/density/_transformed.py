"""Any density estimator on columns that fixed maps have prepared."""

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone

from ..calibration.thresholds import by_held_out
from ..callbacks._run import fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.checks import warn_of_columns
from ..columns.types import Table, Weights
from ..preprocessing.sklearn_compat import HasMethods
from ..preprocessing.validation import prepare_table, uneven
from ..training.threads import fit_context
from . import _docstrings
from ._base import BaseFlowDensity
from ._outlier_labels import OutlierDensityMixin
from ._sampling import SamplingMixin
from ._third_party import (
    check_is_density,
    draw,
    fit_subtask,
    is_frozen,
    takes_weights,
    weighted_if,
)


class TransformedDensity(
    SamplingMixin, OutlierDensityMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator
):
    __doc__ = _docstrings.fill("""Density of another estimator on transformed columns.

    ``make_pipeline(StandardScaler(), KernelDensity())`` scores rows in the units of the scaler's
    output. Here the map is part of the density: its log-determinant is added, and scores are in the
    units of X. With ``preprocessing=("quantile", "whiten")`` and a standard normal it is a Gaussian
    copula with flexible margins.

    Parameters
    ----------
    estimator : estimator
        A density estimator with `fit` and `score_samples`, such as
        `sklearn.mixture.GaussianMixture` or `sklearn.neighbors.KernelDensity`.

    {preprocessing}

    {data}

    {contamination}

    random_state : int, RandomState instance or None, default=None
        Seeds the noise on discrete columns.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator of the mapped rows.

    preprocessor_ : torch.nn.Module
        The map.

    discrete_ : dict
        The discrete columns, by name or else by index, and the distance between their values.

    offset_ : float
        Log-density below which `predict` labels a row an outlier.

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
        preprocessing="quantile",
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

    @weighted_if(lambda self: takes_weights(self.estimator))
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Fit the map, then the estimator to the mapped rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least two.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, if the estimator takes weights; rows of weight 0 are left out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        import torch

        from ..preprocessing.fixed_maps import fitted_preprocessor
        from . import _evaluation

        check_is_density(self.estimator)
        table = prepare_table(self, X, sample_weight)
        self._dequantizer = table.dequantizer
        self.discrete_ = table.dequantizer.named_gaps(getattr(self, "feature_names_in_", None))
        warn_of_columns(self, table.X, table.dequantizer.columns)
        random_state = random_state_of(self)
        rows = self._dequantizer.add_random_noise(table.X, random_state)
        x, weight = torch.from_numpy(rows), torch.from_numpy(table.weight)
        self.preprocessor_ = fitted_preprocessor(self.preprocessing, table.bounds, x, weight)
        mapped, log_det = _evaluation.map_rows(self.preprocessor_, "forward", rows)
        weight = uneven(table.weight)
        with fit_task(self, X, y, max_subtasks=1, sample_weight=sample_weight) as task:
            self.estimator_ = fit_subtask(task, clone(self.estimator), mapped, weight)
            self._set_threshold(table, log_det)
        return self

    def _set_threshold(self, table, log_det):
        """Set the threshold, on held-out scores if the estimator keeps them for all rows."""
        self._judges_held_out = False
        self.__dict__.pop("held_out_scores_", None)  # of an earlier fit
        held_out = getattr(self.estimator_, "held_out_scores_", None)
        # What a frozen estimator keeps belongs to other rows.
        if held_out is None or is_frozen(self.estimator) or np.isnan(held_out).any():
            self.offset_ = self._threshold_on(table.X, table.weight, self._score_rows)
            return
        held_out = held_out + log_det
        self.held_out_scores_ = np.full(len(table.is_weighted), np.nan)
        self.held_out_scores_[table.is_weighted] = held_out
        self.offset_, self._judges_held_out = by_held_out(
            self.contamination,
            held_out,
            table.weight,
            lambda: (self._score_rows(table.X), table.weight),
        )

    def _score_rows(self, X):
        return self._dequantizer.mean_density(self._log_density, X)

    def _log_density(self, rows):
        from . import _evaluation

        mapped, log_det = _evaluation.map_rows(self.preprocessor_, "forward", rows)
        return self.estimator_.score_samples(mapped) + log_det

    def _as_module(self):
        """Return the density of rows as a PyTorch module."""
        from ._distribution import RowDensity
        from ._modules import MappedNormals, normals_of

        flow = MappedNormals(self.preprocessor_, *normals_of(self.estimator_))
        return RowDensity(flow, self._dequantizer, self.n_features_in_)

    def _sample_rows(self, n_samples, random_state):
        from . import _evaluation

        mapped = draw(self.estimator_, n_samples, random_state)
        X, _ = _evaluation.map_rows(self.preprocessor_, "inverse", np.asarray(mapped))
        return self._dequantizer.round(X)
