"""Features of the conditions of a conditional density: numbers, dates and categories."""

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import KFold
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder
from sklearn.utils import check_array

from ..columns.checks import (
    warn_of_far_dates,
    warn_of_other_dates,
    warn_of_row_names,
    warn_of_texts,
    warn_user,
)
from ..columns.dates import DAY, EPOCH, WEEK, YEAR
from ..columns.encoding import NUMERIC, Encoding
from ..columns.frames import is_frame, read_frame, validate_table
from ..persistence.mixin import PersistenceMixin

# With more categories, a category is encoded by the mean of y if y is a single column.
MAX_ONE_HOT = 12
N_FOLDS = 5  # of the cross-fitted means
FARTHEST = 4.0  # standard deviations, beyond which numbers are compressed
PERIODS = np.array([YEAR, WEEK, DAY])  # seconds: of the seasons, the week and the clock


class ContextEncoder(PersistenceMixin, TransformerMixin, BaseEstimator):
    """Standardised numbers, encoded categories and indicators of missing values, as floats.

    Numbers are standardised, and compressed beyond 4 standard deviations. A missing number becomes
    the mean, with an indicator if the column had missing values in `fit`. Dates become a number of
    days, and the sines and cosines of the season, the day of the week and the time of day.
    Categories are columns of texts or booleans, or of pandas' categorical dtype. Those with up to
    12 categories are encoded as one-hot, others as the cross-fitted mean of y or, if y has several
    columns, as one-hot with at most 24 columns. A missing value is a category of its own, and an
    unknown category is encoded as zeros or as the overall mean.

    Parameters
    ----------
    random_state : int, default=0
        Seeds the folds of the cross-fitted means.

    accept_sparse : bool, default=False
        Whether to make sparse matrices dense, or to raise an error.

    trees : TreePredictions, default=None
        Predictions of y, which become the last columns.
    """

    def __init__(self, random_state=0, accept_sparse=False, trees=None):
        self.random_state = random_state
        self.accept_sparse = accept_sparse
        self.trees = trees

    def fit(self, X, y=None, sample_weight=None):
        """Learn the columns of X."""
        self.fit_transform(X, y, sample_weight)
        return self

    def fit_transform(self, X, y=None, sample_weight=None, splits=()):
        """Learn the columns of X, and encode them; categories as means of other rows only.

        Rows that one of the splits holds out are encoded by the means of its training rows.
        """
        encoding, rows = self.read(X)
        return self.fit_rows(encoding, rows, y, sample_weight, splits)

    def transform(self, X):
        """Encode rows of X."""
        return self.features(self.rows(X))

    def rows(self, X):
        """Return rows of X as numbers, after `fit`."""
        X = self._checked(X, reset=False)
        if self.encoding_ is None and is_numeric(X):
            return finite(X)
        encoding = self.encoding_
        if encoding is None:
            encoding = Encoding(read_frame(np.zeros((1, self.n_features_in_))))
        rows, unseen = encoding.encode_and_unseen(X)
        self._warn_of_unseen(rows, unseen)
        warn_of_other_dates(
            (encoding.keys[j], encoding.local_dates(rows, j), ends)
            for j, ends in zip(np.flatnonzero(self.is_date_), self.date_ends_, strict=True)
        )
        return rows

    def read(self, X):
        """Return the encoding of X, None for an array of numbers, and its rows as numbers."""
        X = self._checked(X, reset=True)
        return (None, finite(X)) if is_numeric(X) else Encoding.read(X)

    def fit_rows(self, encoding, rows, y=None, sample_weight=None, splits=()):
        """Do what `fit_transform` does, with rows that `read` returned."""
        self.encoding_ = encoding
        roles = ["number"] * rows.shape[1] if encoding is None else encoding.roles
        self.is_date_ = np.array([role == "datetime" for role in roles])
        self.is_category_ = np.array([role not in NUMERIC for role in roles])
        self.date_ends_ = [
            (np.fmin.reduce(dates), np.fmax.reduce(dates))  # NaN if no date is known
            for dates in (encoding.local_dates(rows, j) for j in np.flatnonzero(self.is_date_))
        ]
        self.row_names_ = []  # columns that name the rows, of which `fit` warns
        if encoding is not None:
            columns = encoding.values(rows, ["text"])
            self.row_names_ = warn_of_row_names(columns)
            for name, texts in columns.items():
                if name not in self.row_names_:
                    warn_of_texts(name, texts)
            for name, moments in encoding.values(rows, ["datetime"]).items():
                warn_of_far_dates(name, moments)
        numbers, categories = self._split(rows)
        self.scaler_ = None
        if numbers.shape[1]:
            with np.errstate(invalid="ignore"):  # of a column without a known value
                self.scaler_ = StandardScaler().fit(numbers, sample_weight=sample_weight)
        self.has_missing_ = np.isnan(numbers).any(axis=0)
        self.known_ = [np.unique(column) for column in categories.T]
        n_categories = np.array(list(map(len, self.known_)))
        is_single = y is not None and np.ndim(np.squeeze(y)) == 1
        self.is_many_ = (n_categories > MAX_ONE_HOT) & is_single
        self.few_, self.many_ = None, None
        encoded = [self._encode_numbers(numbers)]
        if not self.is_many_.all():
            self.few_ = OneHotEncoder(
                handle_unknown="ignore", sparse_output=False, max_categories=2 * MAX_ONE_HOT
            )
            encoded.append(self.few_.fit_transform(categories[:, ~self.is_many_]))
        if self.is_many_.any():
            values, target = categories[:, self.is_many_], np.squeeze(y)
            # Whole numbers in y would be taken for classes by default.
            self.many_ = TargetEncoder(target_type="continuous").fit(values, target)
            self.target_mean_, self.target_scale_ = target.mean(), target.std() or 1.0
            # Before scikit-learn 1.9, its fit_transform draws folds of its own.
            folds = KFold(N_FOLDS, shuffle=True, random_state=self.random_state)
            many = np.empty(values.shape)
            # The given splits come last: rows of a group must not know each other.
            for train, others in [*folds.split(values), *splits]:
                encoder = clone(self.many_).fit(values[train], target[train])
                many[others] = encoder.transform(values[others])
            encoded.append((many - self.target_mean_) / self.target_scale_)
        self.trees_ = None if self.trees is None else clone(self.trees)
        if self.trees_ is not None:
            encoded.append(self.trees_.fit_transform(*self.columns(rows), y, sample_weight))
        return np.column_stack(encoded)

    def features(self, rows):
        """Return what `transform` returns, for rows as numbers."""
        numbers, categories = self._split(rows)
        encoded = [self._encode_numbers(numbers)]
        if self.few_ is not None:
            encoded.append(self.few_.transform(categories[:, ~self.is_many_]))
        if self.many_ is not None:
            many = self.many_.transform(categories[:, self.is_many_])
            encoded.append((many - self.target_mean_) / self.target_scale_)
        if self.trees_ is not None:
            encoded.append(self.trees_.transform(self.columns(rows)[0]))
        return np.column_stack(encoded)

    def columns(self, rows):
        """Return numbers and places of categories, as trees take them, and which are categories."""
        numbers, categories = self._split(rows)
        columns = np.column_stack([numbers, categories])
        return columns, np.arange(columns.shape[1]) >= numbers.shape[1]

    def _encode_numbers(self, numbers):
        if self.scaler_ is None:
            return numbers
        standard = np.nan_to_num(self.scaler_.transform(numbers))
        squashed = FARTHEST * np.arcsinh(standard / FARTHEST)
        return np.column_stack([squashed, np.isnan(numbers[:, self.has_missing_])])

    def _split(self, rows):
        """Return the numbers of rows, with parts of dates, and the places of their categories."""
        if self.encoding_ is None:
            return rows, rows[:, :0]
        dates = np.flatnonzero(self.is_date_)
        parts = [date_parts(self.encoding_.local_dates(rows, j)) for j in dates]
        numbers = np.column_stack([rows[:, ~(self.is_category_ | self.is_date_)], *parts])
        # A missing value is a category, the first one.
        return numbers, np.nan_to_num(rows[:, self.is_category_], nan=-1.0)

    def _warn_of_unseen(self, rows, unseen):
        """Warn of columns of which most values are categories that were not seen in `fit`."""
        encoding = self.encoding_
        for j, known in zip(np.flatnonzero(self.is_category_), self.known_, strict=True):
            column, name, names = rows[:, j], encoding.keys[j], encoding.categories[j]
            if name in self.row_names_:
                continue
            others = column[~np.isin(column, known) & ~np.isnan(column)].astype(int)
            if len(others) > len(column) / 2:
                first = names[others[0]] if others[0] < len(names) else unseen[name][0]
                warn_user(
                    f"{len(others)} of {len(column)} values of column {name!r} of X, such as "
                    f"{first!r}, were not seen in fit and carry no information. If its values are "
                    "written differently now, convert them; if they are unique, drop the column."
                )

    _name = "ConditionalDensity"  # in messages: of the estimator that the user knows

    def _checked(self, X, reset):
        """Return X as an array, or a DataFrame as it is, with the columns of `fit`."""
        X = X.toarray() if self.accept_sparse and issparse(X) else X
        return validate_table(self, X, reset=reset, name=self._name)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


def is_numeric(X):
    """Whether X is an array of numbers."""
    return not is_frame(X) and getattr(X, "dtype", np.dtype(object)).kind in "iuf"


def finite(X):
    """Return an array of numbers in float64; missing ones are NaN."""
    return check_array(X, dtype=np.float64, ensure_all_finite="allow-nan", input_name="X")


def date_parts(seconds):
    """Return dates as days, with sines and cosines of the season, the week and the clock."""
    seconds = seconds[:, None] + DAY * EPOCH.toordinal()
    # Whole periods are taken off first: a clock that stands still must give a constant.
    angles = 2 * np.pi * np.mod(np.nan_to_num(seconds), PERIODS) / PERIODS
    is_known = ~np.isnan(seconds)
    return np.column_stack([seconds / DAY, np.sin(angles) * is_known, np.cos(angles) * is_known])
