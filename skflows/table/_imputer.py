"""A transformer that fills in missing values by the density of a table."""

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from ..callbacks._run import fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.encoding import copy_names
from ..columns.frames import is_frame
from ..columns.types import Rows, Table
from ..density._third_party import fit_subtask
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import StrOptions
from ..training.threads import fit_context
from ._density import TableDensity


class TableImputer(
    PersistenceMixin, CallbackSupportMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator
):
    """Missing values filled in by the density of a table.

    Its interface resembles `sklearn.impute.IterativeImputer`. It also takes texts,
    dates and categories.

    Parameters
    ----------
    density : TableDensity, default=None
        The density to fit. None is `TableDensity()`.

    method : {"mean", "median", "mode"}, default="mean"
        The centre of the distribution of each missing value, given the known ones of its row;
        categories get their mode. "median" gives possible values, such as whole numbers for counts.

    sample_posterior : bool, default=False
        Whether to draw from that distribution instead, all values of a row together: for multiple
        imputation, with several seeds. Each call of `transform` then draws anew.

    random_state : int, RandomState instance or None, default=None
        Seeds the draws, and the fit unless ``density`` has a seed of its own.

    Attributes
    ----------
    density_ : TableDensity
        The fitted density.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import TableDensity, TableImputer
    >>> X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 2))
    >>> X[:, 1] += 0.1 * np.random.default_rng(1).normal(size=200)
    >>> X[:20, 1] = np.nan
    >>> imputer = TableImputer(TableDensity(max_iter=5, cv=2, random_state=0)).fit(X)
    >>> filled = imputer.transform([[1.0, np.nan]])
    >>> bool(0.7 < filled[0, 1] < 1.3)
    True
    """

    _parameter_constraints: dict = {
        "density": [TableDensity, None],
        "method": [StrOptions({"mean", "median", "mode"})],
        "sample_posterior": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(self, density=None, *, method="mean", sample_posterior=False, random_state=None):
        self.density = density
        self.method = method
        self.sample_posterior = sample_posterior
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None) -> Self:
        """Fit the density to the known values of X.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.
        """
        random_state = random_state_of(self)
        with fit_task(self, X, y, max_subtasks=1) as task:
            density = TableDensity() if self.density is None else clone(self.density)
            if density.random_state is None:
                density.set_params(random_state=random_state.randint(2**31 - 1))
            self.density_ = fit_subtask(task, density, X)
            copy_names(self.density_, self)
            self._draws = np.random.RandomState(random_state.randint(2**31 - 1))
        return self

    def transform(self, X: Table) -> Rows:
        """Return X with its missing values filled in.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_features)
            The complete rows.
        """
        check_is_fitted(self)
        if is_frame(X):
            validate_data(self, X, reset=False, skip_check_array=True)
        method = "draw" if self.sample_posterior else self.method
        return self.density_.impute(X, method, random_state=self._draws)
