"""The best density for a table, with nothing to tune."""

from numbers import Integral, Real
from typing import Self

from sklearn.base import BaseEstimator

from ..callbacks._progress import VERBOSE
from ..callbacks._run import random_state_of
from ..columns.checks import warn_of_columns
from ..columns.types import Table, Weights
from ..density import _docstrings
from ..density._base import BaseFlowDensity
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..preprocessing.validation import prepare_table, resolve_bounds, uneven
from ..training.threads import fit_context
from ._folds import Folds, automatic_cv, make_folds
from ._mixture import MixtureMixin

ROWS_WITH_FOLDS = 2_000  # beyond, a single held-out part is accurate enough
HELD_OUT = 0.1
MAX_HELD_OUT = 10_000


class AutoDensity(MixtureMixin, BaseEstimator):
    __doc__ = _docstrings.fill("""The best density for a table of any size, with nothing to tune.

    A `StackedDensity` of a portfolio that suits the number of rows and columns: a normal with
    shrunk correlations, Gaussian mixtures, kernels of many widths, a Gaussian copula, iterative
    Gaussianisation and neural spline flows, on scaled and on whitened columns. The weights of the
    mixture maximise the likelihood of rows that its members have not seen, in five folds or, on
    large tables, in a tenth of the rows. (Flows use these rows for early stopping too, which
    matters little if there are many.)

    Parameters
    ----------
    time_limit : float, default=None
        Seconds that `fit` may take, for all components and folds together. Flows that are not done
        by then are cut short.

    cv : "auto", int, cross-validation generator or iterable, default="auto"
        How rows are held out. "auto" takes 5 folds up to 2,000 rows, otherwise a tenth of the rows,
        at most 10,000. Each component is fitted once for each fold; the Gaussian, the copula and
        the kernels are then fitted once more, to all rows.

    {data}

    {held_out_contamination}

    n_jobs : int, default=None
        Number of jobs to run in parallel. None is 1, -1 all processors. Under a time limit of less
        than 10 seconds it is 1, because processes take time to start.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds and all components.

    {mixture_verbose}

    Attributes
    ----------
    {mixture}

    discrete_ : dict
        The discrete columns, by name or else by index, and the distance between their values.

    References
    ----------
    Smyth & Wolpert, "Linearly Combining Density Estimators via Stacking", 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import AutoDensity
    >>> X = load_iris().data
    >>> density = AutoDensity(cv=2, random_state=0).fit(X)  # fewer folds take less time
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> best = density.leaderboard_["component"][0]
    """)

    _parameter_constraints: dict = {
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "cv": [StrOptions({"auto"}), "cv_object"],
        "n_jobs": [Integral, None],
        **{
            name: BaseFlowDensity._parameter_constraints[name]
            for name in ("bounds", "discrete", "contamination", "random_state")
        },
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        *,
        time_limit=None,
        cv="auto",
        bounds=None,
        discrete="auto",
        contamination="auto",
        n_jobs=None,
        random_state=None,
        verbose="auto",
    ):
        self.time_limit = time_limit
        self.cv = cv
        self.bounds = bounds
        self.discrete = discrete
        self.contamination = contamination
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Fit the portfolio, and the weights of its mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least three.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row. Gaussian mixtures, which take no weights, are then left out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        from ..training.data_parallel import current_group  # imports torch
        from ._portfolio import portfolio  # mixtures take long to import

        started = current_group().clock()

        table = prepare_table(self, X, sample_weight, least=3)
        rows = table.X
        # Components see arrays, so that columns are given by index; all have the same cells.
        names = getattr(self, "feature_names_in_", None)
        self._dequantizer = table.dequantizer
        self.discrete_ = table.dequantizer.named_gaps(names)
        warn_of_columns(self, rows, table.dequantizer.columns)
        seed = random_state_of(self).randint(2**31 - 1)
        cv = self.cv
        if isinstance(cv, str):  # "auto"
            cv = automatic_cv(len(rows), seed, ROWS_WITH_FOLDS, HELD_OUT, MAX_HELD_OUT)
        splits = make_folds(cv, len(rows), seed, X=rows, kept=table.is_weighted)
        data = {
            "bounds": resolve_bounds(self.bounds, rows.shape[1], names),
            "discrete": table.dequantizer.gaps(),
            "random_state": seed,
        }
        is_weighted = uneven(table.weight) is not None
        n, d = rows.shape
        components = portfolio(n, d, len(splits) > 1, is_weighted, data)
        folds = Folds(splits, table.weight, table.is_weighted)
        return self._fit_mixture(components, rows, folds, started=started, quiet=True)

    def _sample_rows(self, n_samples, random_state):
        # The components know the distance between values, not which values occur.
        return self._dequantizer.round(super()._sample_rows(n_samples, random_state))
