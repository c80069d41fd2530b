"""The best density known for a table, with nothing to tune."""

import time
from numbers import Integral, Real

from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ._components import N_FOLDS, splits_of
from ._mixture import MixtureMixin
from .density import _docs
from .density._base import BaseFlowDensity
from .density._discrete import Dequantizer
from .density._validation import resolve_bounds, validate_bounds, validate_rows, validate_weight

ROWS_WITH_FOLDS = 2_000  # beyond, a single held-out part is exact enough
HELD_OUT = 0.1
MOST_HELD_OUT = 10_000


class AutoDensity(MixtureMixin, BaseEstimator):
    __doc__ = _docs.fill("""The best density known for a table of any size, with nothing to tune.

    A `StackedDensity` of a portfolio that suits the number of rows and columns: a normal with
    shrunk correlations, Gaussian mixtures, kernels of many widths, a Gaussian copula, iterative
    Gaussianisation and neural spline flows, on the columns as they are and on whitened ones.
    The weights of the mixture maximise the likelihood of rows that its members have not seen,
    of five folds or, on large tables, of a tenth of the rows; so they say what suits the table.
    (Flows stop early by these rows too, which costs nothing where they are many.)

    Parameters
    ----------
    time_limit : float, default=None
        Seconds that `fit` may take. Flows that have not ended by then are cut short.

    cv : "auto", int, cross-validation generator or iterable, default="auto"
        How rows are held out. "auto" takes 5 folds up to 2,000 rows, beyond a tenth of
        the rows, 10,000 at most.

    {data}

    contamination : float, "auto" or None, default="auto"
        Fraction of outliers in the training data, which sets the threshold of `predict`.
        "auto" puts it at the lower Tukey fence of the held-out scores, Q1 - 1.5 (Q3 - Q1).
        None sets none, and spares the time to find it: `predict` calls no row an outlier.

    n_jobs : int, default=None
        Number of processes that fit. None is 1, -1 all processors. Under a time limit of less
        than 10 seconds it is 1, for processes take some to start.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds and all components.

    verbose : int, default=0
        Print what each component reaches.

    Attributes
    ----------
    {mixture}

    discrete_ : dict of int to float
        The discrete columns and the width of their cells.

    References
    ----------
    Smyth & Wolpert, "Linearly Combining Density Estimators via Stacking", 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import AutoDensity
    >>> X = load_iris().data
    >>> density = AutoDensity(random_state=0).fit(X)
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
            for name in ("bounds", "discrete", "contamination", "random_state", "verbose")
        },
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
        verbose=0,
    ):
        self.time_limit = time_limit
        self.cv = cv
        self.bounds = bounds
        self.discrete = discrete
        self.contamination = contamination
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the portfolio, and the weights of its mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least three.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Importance of each row. Gaussian mixtures, which take none, are then left out.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        started = time.time()
        from ._portfolio import portfolio  # mixtures and kernels take long to import

        X = validate_rows(self, X, ensure_min_samples=3)
        weight = None if sample_weight is None else validate_weight(sample_weight, X, 3)
        names = getattr(self, "feature_names_in_", None)
        rows = X if weight is None else X[weight > 0]
        dequantizer = Dequantizer.for_parameter(self.discrete, rows, names)
        bounds = resolve_bounds(self.bounds, X.shape[1], names)
        validate_bounds(bounds, rows, dequantizer)
        self.discrete_ = dequantizer.gaps()
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        splits = self._splits(rows, X, weight, seed)
        data = {"bounds": bounds, "discrete": self.discrete_, "random_state": seed}
        components = portfolio(*rows.shape, len(splits) > 1, weight is not None, data)
        return self._fit_stack(components, X, weight, splits, self.time_limit, started, quiet=True)

    def _splits(self, rows, X, weight, seed):
        from sklearn.model_selection import ShuffleSplit  # takes long to import

        cv = self.cv
        if isinstance(cv, str):  # "auto"
            n_held_out = min(max(1, round(HELD_OUT * len(rows))), MOST_HELD_OUT)
            one = ShuffleSplit(1, test_size=n_held_out, random_state=seed)
            cv = N_FOLDS if len(rows) <= ROWS_WITH_FOLDS else one
        return splits_of(cv, X, weight, seed)
