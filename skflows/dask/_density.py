"""A density of Dask collections."""

from typing import TYPE_CHECKING, Self

import dask.array as da
import distributed
import numpy as np
from dask import delayed
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from ..columns.arrays import check_integer
from ..columns.types import RandomState, Table, Weights
from ..density._base import BaseFlowDensity
from ..density._flow_density import FlowDensity
from ..table import TableDensity
from ._fit import Fit, check_collection

if TYPE_CHECKING:
    import dask.dataframe as dd

CHUNK = 100_000  # rows of a chunk of samples


class DaskDensity(BaseEstimator):
    """Density of a Dask array or DataFrame, trained by the workers of a cluster.

    The table is never collected. Each worker trains on the rows of its partitions, and in each step
    the gradients of all workers are summed: the result is the same as in one process with the same
    batches. Methods for rows return lazy Dask collections.

    The columns are prepared as in one process, on a random sample of 131,072 rows, with rows that
    show the extremes and the values of each column. The outlier threshold is set by the sample, and
    so are the members of a `TableDensity` that are not networks.

    Parameters
    ----------
    estimator : FlowDensity or TableDensity
        The density to fit. The ``batch_size`` of a flow counts the rows of all workers together.

    client : distributed.Client, default=None
        The client of the cluster; None for the one that was created last.

    Attributes
    ----------
    estimator_ : FlowDensity or TableDensity
        The fitted density.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `fit` was given a DataFrame whose columns all have texts as names.

    Notes
    -----
    Rows are held out in each partition. The workers exchange one vector in each step, as long as
    the weights. Each worker must reach every other by TCP, and have a free thread.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from dask.distributed import Client
    >>> from skflows import NSFDensity
    >>> from skflows.dask import DaskDensity
    >>> X = da.from_array(np.random.default_rng(0).normal(size=(200, 2)), chunks=(50, 2))
    >>> with Client(processes=False, dashboard_address=":0") as client:
    ...     density = DaskDensity(NSFDensity(max_iter=2, random_state=0)).fit(X)
    ...     density.score_samples(X).compute().shape
    (200,)
    """

    def __init__(self, estimator, client=None):
        self.estimator = estimator
        self.client = client

    def __sklearn_clone__(self):
        return type(self)(clone(self.estimator), self.client)  # a client cannot be copied

    def __getstate__(self):
        return super().__getstate__() | {"client": None}

    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows. The sizes of its chunks may be unknown, and some may be empty.

        y : None
            Ignored.

        sample_weight : dask.array.Array or dask.dataframe.Series of shape (n_samples,), \
                default=None
            Weight of each row, in the same chunks as X.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        if not isinstance(self.estimator, FlowDensity | TableDensity):
            raise ValueError(
                "DaskDensity needs a TableDensity, or a flow such as NSFDensity, got "
                f"{type(self.estimator).__name__}. Fit it to a random sample of the table that "
                "fits into memory."
            )
        client = self._client()
        self.__dict__.pop("estimator_", None)
        self.estimator_ = Fit(client, self.estimator, X, sample_weight).run()
        validate_data(self, empty_like(X), skip_check_array=True)
        return self

    def _client(self):
        if self.client is not None:
            return self.client
        try:
            return distributed.default_client()
        except ValueError as error:
            raise ValueError(
                "There is no Dask client: create one, for example distributed.Client(), or give "
                "DaskDensity one."
            ) from error

    def to_local(self) -> BaseFlowDensity:
        """Return the fitted density, an estimator for tables in memory."""
        check_is_fitted(self)
        return self.estimator_

    def score_samples(self, X: Table) -> da.Array:
        """Return the log-density of each row, as a lazy collection.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : dask.array.Array or dask.dataframe.Series of shape (n_samples,)
            In nats, in the units of X.
        """
        return self._map("score_samples", X)

    def decision_function(self, X: Table) -> da.Array:
        """Return the score above the outlier threshold, as a lazy collection.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : dask.array.Array or dask.dataframe.Series of shape (n_samples,)
            Negative for outliers.
        """
        return self._map("decision_function", X)

    def predict(self, X: Table) -> da.Array:
        """Label each row as an inlier or an outlier, in a lazy collection.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : dask.array.Array or dask.dataframe.Series of shape (n_samples,)
            -1 for outliers, 1 for inliers.
        """
        return self._map("predict", X)

    @available_if(lambda self: hasattr(self.estimator, "transform"))
    def transform(self, X: Table) -> da.Array:
        """Return the latent coordinates of each row, as a lazy collection.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_latent)
            Their latent coordinates.
        """
        return self._map("transform", X)

    def score(self, X: Table, y: object = None) -> float:
        """Return the mean log-density of the rows, computed by the workers.

        Parameters
        ----------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        return float(self._client().compute(self.score_samples(X).mean()).result())

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None
    ) -> "da.Array | dd.DataFrame":
        """Draw rows from the fitted density, as a lazy collection.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
            The rows, in chunks of 100,000; a DataFrame if the density was fitted to one.
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        whole, rest = divmod(int(n_samples), CHUNK)
        sizes = [CHUNK] * whole + ([rest] if rest else [])
        seeds = check_random_state(random_state).randint(2**31 - 1, size=len(sizes))
        sampled = delayed(drawn, pure=True)
        there = delayed(self.estimator_, traverse=False)
        parts = [
            sampled(there, size, seed) for size, seed in zip(sizes, seeds.tolist(), strict=True)
        ]
        like = drawn(self.estimator_, 1, 0)
        if hasattr(like, "columns"):
            import dask.dataframe as dd

            return dd.from_delayed(parts, meta=like[:0])
        chunks = [
            da.from_delayed(part, (size, like.shape[1]), like.dtype)
            for part, size in zip(parts, sizes, strict=True)
        ]
        return da.concatenate(chunks)

    def _map(self, method, X):
        """Return the result of a method for each partition of X."""
        check_is_fitted(self)
        check_collection(X)
        empty = empty_like(X)
        validate_data(self, empty, reset=False, skip_check_array=True)
        there = delayed(self.estimator_, traverse=False)
        like = results(empty, self.estimator_, method)
        if hasattr(X, "columns"):
            return X.map_partitions(results, there, method, meta=like)
        if X.numblocks[1] > 1:
            X = X.rechunk({1: -1})
        shape: dict = {"drop_axis": 1}
        if like.ndim == 2:
            shape = {"chunks": (X.chunks[0], like.shape[1:])}
        return X.map_blocks(results, there, method, meta=like, dtype=like.dtype, **shape)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")


def empty_like(X):
    """Return a table in memory with the columns of a Dask collection, but no rows."""
    return X._meta if hasattr(X, "columns") else np.empty((0, *X.shape[1:]))


def drawn(estimator, n_samples, seed):
    """Return rows that a density draws, with names if it has them."""
    if isinstance(estimator, TableDensity):
        return estimator.sample(n_samples, seed)
    return estimator.sample(n_samples, seed, as_frame=hasattr(estimator, "feature_names_in_"))


def results(part, estimator, method):
    """Return what a method of an estimator gives for a partition, in a container of its kind."""
    rows = part
    if not len(part):  # estimators refuse a table without rows
        rows = drawn(estimator, 1, 0)
    values = np.asarray(getattr(estimator, method)(rows))[: len(part)]
    if not hasattr(part, "columns"):
        return values
    import pandas as pd  # a DataFrame needs it

    if values.ndim == 1:
        return pd.Series(values, index=part.index)
    return pd.DataFrame(values, index=part.index, columns=estimator.get_feature_names_out())
