"""A mixture of the estimators that a user names."""

from numbers import Integral
from typing import Self

from sklearn.base import clone

from ..callbacks._progress import VERBOSE
from ..callbacks._run import random_state_of
from ..columns.checks import warn_of_columns
from ..columns.types import Table, Weights
from ..density import _docstrings
from ..density._base import BaseFlowDensity
from ..density._third_party import check_is_density, is_frozen, takes_weights, weighted_if
from ..preprocessing.dequantizer import discrete_columns
from ..preprocessing.sklearn_compat import BaseComposition
from ..preprocessing.validation import weighted_rows
from ..training.threads import fit_context
from ._estimators import component_of
from ._folds import Folds, make_folds
from ._mixture import MixtureMixin


def clone_with_seeds(estimator, random_state):
    """Return a clone in which each ``random_state`` of None is replaced by a drawn seed."""
    if is_frozen(estimator):
        return estimator
    seeds = {
        key: random_state.randint(2**31 - 1)
        for key, value in sorted(estimator.get_params().items())
        if value is None and key.split("__")[-1] == "random_state"
    }
    return clone(estimator).set_params(**seeds)


class NamedEstimators(BaseComposition):
    """The parameter ``estimators``, a list of pairs of a name and an estimator."""

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Get the parameters, including the parameters of the named estimators.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the estimators and their parameters.

        Returns
        -------
        params : dict
            Names and values.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params: object) -> Self:
        """Set parameters; ``name=estimator`` replaces one, ``name__parameter`` changes one.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The estimator.
        """
        return self._set_params("estimators", **params)

    def _check_named(self):
        """Raise an error unless these are pairs of a name and an estimator that scores rows."""
        are_pairs = [
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in self.estimators
        ]
        if not are_pairs or not all(are_pairs):
            raise ValueError(
                f"estimators={self.estimators!r}; give a list of (name, estimator) pairs."
            )
        for name, estimator in self.estimators:
            if not hasattr(estimator, "score_samples") or isinstance(estimator, type):
                raise TypeError(
                    f"the component {name!r} is {estimator!r}; give an instance of an estimator "
                    "with score_samples."
                )
        self._validate_names([name for name, _ in self.estimators])


class StackedDensity(MixtureMixin, NamedEstimators):
    __doc__ = _docstrings.fill("""Mixture of densities, weighted by the likelihood of held-out rows.

    Each estimator is fitted on all folds except one, in turn, and scores the rows of that fold; the
    weights of the mixture maximise the likelihood of these scores, by EM. A mixture gains most if
    its members err on different rows, and it is hardly ever worse than the best of them.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Named density estimators with `fit` and `score_samples`: flows, or scikit-learn's
        `GaussianMixture` and `KernelDensity`. They see arrays: columns are given by index. Flows
        use the held-out rows for early stopping.

    cv : int, cross-validation generator or iterable, default=5
        How rows are held out: the number of folds, which are shuffled, or a splitter. A single
        split, such as ``ShuffleSplit(1)``, saves time on large tables. None is 5. With k folds,
        each estimator is fitted k times, and k + 1 times with ``refit=True``. If it has a
        ``time_limit``, this holds for each of the fits; flows with early stopping train on all
        folds at once, and have one limit for all.

    refit : bool, default=False
        Whether each estimator is fitted again to all rows once the weights are known. Otherwise the
        models of the folds are kept, as equal members of the mixture: this ensemble is usually the
        better density, but takes longer to score.

    n_jobs : int, default=None
        Number of jobs to run in parallel. None is 1, -1 all processors.

    {held_out_contamination}

    random_state : int, RandomState instance or None, default=None
        Seeds the folds, and the estimators that have no seed of their own.

    {mixture_verbose}

    Attributes
    ----------
    {mixture}

    References
    ----------
    Smyth & Wolpert, "Linearly Combining Density Estimators via Stacking", 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.neighbors import KernelDensity
    >>> from skflows import StackedDensity
    >>> X = load_iris().data
    >>> components = [("gmm", GaussianMixture(3)), ("kde", KernelDensity(bandwidth=0.3))]
    >>> density = StackedDensity(components, random_state=0).fit(X)
    >>> density.weights_.shape
    (2,)
    >>> density.score_samples(X[:3]).shape
    (3,)
    """)

    _parameter_constraints: dict = {
        "estimators": [list],
        "cv": ["cv_object"],
        "refit": ["boolean"],
        "n_jobs": [Integral, None],
        "contamination": BaseFlowDensity._parameter_constraints["contamination"],
        "random_state": ["random_state"],
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        estimators,
        *,
        cv=5,
        refit=False,
        n_jobs=None,
        contamination="auto",
        random_state=None,
        verbose="auto",
    ):
        self.estimators = estimators
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    def _takes_weights(self):
        try:
            return all(takes_weights(estimator) for _, estimator in self.estimators)
        except (TypeError, ValueError):  # not a list of pairs, which `fit` says
            return True

    @weighted_if(_takes_weights)
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Fit all components, and the weights of their mixture.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. At least three.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, if all estimators take weights.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        components = self._checked_components()
        rows, weight, is_weighted = weighted_rows(self, X, sample_weight, least=3)
        warn_of_columns(self, rows, discrete_columns(rows))
        random_state = random_state_of(self)
        seed = random_state.randint(2**31 - 1)
        splits = make_folds(self.cv, len(rows), seed, X=rows, kept=is_weighted)
        components = [
            component._replace(recipe=clone_with_seeds(component.recipe, random_state))
            for component in components
        ]
        return self._fit_mixture(components, rows, Folds(splits, weight, is_weighted))

    def _checked_components(self):
        self._check_named()
        for _, estimator in self.estimators:
            check_is_density(estimator)
        return [component_of(name, each, self.refit) for name, each in self.estimators]
