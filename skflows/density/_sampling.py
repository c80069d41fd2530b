"""Drawing rows from a fitted density."""

from collections.abc import Callable

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import check_integer
from ..columns.frames import data_frame
from ..columns.types import Floats, RandomState, Rows


def check_has_names(estimator):
    """Raise an error if an estimator cannot name columns."""
    if not hasattr(estimator, "feature_names_in_"):
        raise ValueError(
            f"as_frame=True needs column names, but {type(estimator).__name__} was fitted without "
            "them: fit it to a DataFrame whose column names are strings. In a pipeline, earlier "
            "steps pass names on after pipeline.set_output(transform='pandas'), before fit."
        )


class SamplingMixin:
    """The method `sample`, from `_sample_rows`."""

    feature_names_in_: np.ndarray
    _sample_rows: Callable[..., Floats]
    _whole_dtypes: dict[str, np.dtype]

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None, *, as_frame: bool = False
    ) -> Rows:
        """Draw rows from the fitted density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        as_frame : bool, default=False
            Return a pandas DataFrame with the column names seen in `fit`, and their integer and
            boolean dtypes; other columns of whole numbers are int64.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            The rows.
        """
        return self._sample(n_samples, random_state, as_frame)

    def _sample(self, n_samples, random_state, as_frame, **options):
        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        if as_frame:
            check_has_names(self)
        X = self._sample_rows(n_samples, check_random_state(random_state), **options)
        return self._frame(X) if as_frame else X

    def _frame(self, X):
        """Return rows as a DataFrame, with integers in columns of whole numbers."""
        gaps = getattr(self, "discrete_", {}).items()
        dtypes = {name: np.int64 for name, gap in gaps if float(gap).is_integer()}
        return data_frame(X, self.feature_names_in_, dtypes=dtypes | self._whole_dtypes)
