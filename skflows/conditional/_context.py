"""Encoding of the conditions of a conditional density: numbers, dates, categories and gaps."""

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import KFold
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder
from sklearn.utils import check_array

from ..columns.arrays import checked_data, is_missing
from ..columns.checks import warn_of_texts, warn_user
from ..columns.dates import check_zone, common_zone, is_date, time_zone

# With more categories, a category is encoded by the mean of y if y is a single column.
MAX_ONE_HOT = 12
N_FOLDS = 5  # of the cross-fitted means
LEAST_ROWS = 10  # among which most values of a column should be known
FARTHEST = 4.0  # standard deviations, beyond which numbers are compressed
PERIODS = np.array([365.2425, 7.0, 1.0])  # days: of the seasons, the week and the clock
CLOCK = {"hour": 24, "minute": 1440, "second": 86_400, "microsecond": 86_400_000_000}  # in a day


class ContextEncoder(TransformerMixin, BaseEstimator):
    """Standardised numbers, encoded categories and indicators of gaps, as columns of floats.

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
    """

    def __init__(self, random_state=0, accept_sparse=False):
        self.random_state = random_state
        self.accept_sparse = accept_sparse

    def fit(self, X, y=None, sample_weight=None):
        """Learn the columns of X."""
        self.fit_transform(X, y, sample_weight)
        return self

    def fit_transform(self, X, y=None, sample_weight=None):
        """Learn the columns of X, and encode them; categories as means of other rows only."""
        numbers, categories = self._validated(X, reset=True)
        self.scaler_ = None
        if numbers.shape[1]:
            with np.errstate(invalid="ignore"):  # of a column without a known value
                self.scaler_ = StandardScaler().fit(numbers, sample_weight=sample_weight)
        self.has_gaps_ = np.isnan(numbers).any(axis=0)
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
            for rows, others in folds.split(values):
                encoder = clone(self.many_).fit(values[rows], target[rows])
                many[others] = encoder.transform(values[others])
            encoded.append((many - self.target_mean_) / self.target_scale_)
        return np.column_stack(encoded)

    def transform(self, X):
        """Encode rows of X."""
        numbers, categories = self._validated(X, reset=False)
        self._warn_of_unknown(categories)
        encoded = [self._encode_numbers(numbers)]
        if self.few_ is not None:
            encoded.append(self.few_.transform(categories[:, ~self.is_many_]))
        if self.many_ is not None:
            many = self.many_.transform(categories[:, self.is_many_])
            encoded.append((many - self.target_mean_) / self.target_scale_)
        return np.column_stack(encoded)

    def _encode_numbers(self, numbers):
        if self.scaler_ is None:
            return numbers
        standard = np.nan_to_num(self.scaler_.transform(numbers))
        squashed = FARTHEST * np.arcsinh(standard / FARTHEST)
        return np.column_stack([squashed, np.isnan(numbers[:, self.has_gaps_])])

    def _warn_of_unknown(self, categories):
        """Warn of columns in which most values are unknown."""
        names = self._names()[self.is_category_]
        columns = zip(names, categories.T, self.known_, strict=True)
        for name, column, known in columns:
            known = set(known)
            unknown = [value for value in column if value not in known]
            if len(column) >= LEAST_ROWS and len(unknown) > len(column) / 2:
                warn_user(
                    f"{len(unknown)} of {len(column)} values of column {name!r} of X, such as "
                    f"{unknown[0]!r}, did not occur in fit and tell nothing. If its values are "
                    "written differently now, convert them; if they are unique, drop the column."
                )

    def _names(self):
        return getattr(self, "feature_names_in_", np.arange(self.n_features_in_, dtype=object))

    def _validated(self, X, reset):
        """Return the columns of numbers and dates as floats, and those of categories as texts."""
        table = X = X.toarray() if self.accept_sparse and issparse(X) else X
        kwargs = {"dtype": None, "ensure_all_finite": False, "reset": reset}
        # A common dtype with numbers, which there may be, would make dates numbers.
        columns = zip(getattr(X, "columns", ()), kinds_of(X), strict=False)
        if others := [name for name, kind in columns if kind.startswith(("date", "categor"))]:
            if hasattr(X, "with_columns"):  # polars
                X = X.with_columns(type(X[n])(n, X[n].to_list(), dtype=object) for n in others)
            else:
                X = X.astype(dict.fromkeys(others, object))
        X = checked_data(self, X, name="ConditionalDensity", **kwargs)
        if X.dtype.kind == "m":
            raise ValueError(
                f"X holds time differences, such as {X.ravel()[0]}: convert them to numbers, such "
                "as to seconds by .dt.total_seconds()."
            )
        if X.dtype.kind == "M":
            X = X.astype("datetime64[us]").astype(object)
        if reset:
            by_dtype = [kind.startswith(("categor", "bool")) for kind in kinds_of(table)]
            self.is_category_ = np.array(by_dtype or X.shape[1] * [X.dtype.kind == "b"])
            if X.dtype.kind not in "biuf":
                self.is_category_ |= [any(map(is_text, column)) for column in X.T]
            self.is_date_ = np.zeros(X.shape[1], dtype=bool)
            if X.dtype.kind == "O":
                self.is_date_ |= [any(map(is_date, column)) for column in X.T]
                self.is_date_ &= ~self.is_category_
        categories = X[:, self.is_category_]
        if hasattr(table, "columns"):  # as they are, before any common dtype
            names = np.array(table.columns, dtype=object)[self.is_category_]
            columns = [table[name].to_list() for name in names]
            categories = np.array(columns, dtype=object).reshape(-1, len(X)).T
        if reset:
            self.is_text_ = np.zeros(X.shape[1], dtype=bool)
            self.is_text_[self.is_category_] = [
                any(isinstance(value, str) for value in column) for column in categories.T
            ]
            kinds = np.array(kinds_of(table) or X.shape[1] * [""])
            is_plain = ~np.char.startswith(kinds, "categor")[self.is_category_]
            names = self._names()[self.is_category_]
            for name, column in zip(names[is_plain], categories.T[is_plain], strict=True):
                warn_of_texts(name, [value for value in column if isinstance(value, str)])
        names, is_number = self._names(), ~(self.is_category_ | self.is_date_)
        numbers = as_numbers(X[:, is_number], names[is_number])
        dates, names = X.T[self.is_date_], names[self.is_date_]
        zones = self._zones(dates, names, reset)
        dates = map(date_parts, dates, names, zones)
        return np.column_stack([numbers, *dates]), as_texts(categories)

    def _zones(self, dates, names, reset):
        """Return the time zone of fit of each column of dates; one of later dates must fit it."""
        found = [
            common_zone(filter(is_date, column), name)
            for column, name in zip(dates, names, strict=True)
        ]
        if reset:
            self.zones_ = found
        # An encoder that an older version stored takes dates in any zone as local time.
        fitted = getattr(self, "zones_", len(names) * [None])
        if hasattr(self, "zones_"):
            for name, column, now, before in zip(names, dates, found, fitted, strict=True):
                if any(map(is_date, column)):
                    check_zone(now, before, name)
        return [zone and time_zone(zone, name) for name, zone in zip(names, fitted, strict=True)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


def kinds_of(table):
    """Return the dtypes of a DataFrame as lower-case texts; an array has none.

    Arrow's names of dates and categories begin as those of pandas and polars do.
    """
    names = [str(dtype).lower() for dtype in getattr(table, "dtypes", [])]
    renamed = {"timestamp[": "datetime[", "dictionary<": "categorical<"}
    for old, new in renamed.items():
        names = [name.replace(old, new, name.startswith(old)) for name in names]
    return names


def is_text(value):
    """Whether a value is a category, whatever its column's dtype."""
    return isinstance(value, str | bool | np.bool_)


def date_parts(column, name, zone):
    """Return dates as days, with sines and cosines of the season, the week and the clock."""
    days = np.array([as_day(value, name, zone) for value in column])[:, None]
    # Whole periods are taken off first: a clock that stands still must give a constant.
    angles = 2 * np.pi * np.mod(np.nan_to_num(days), PERIODS) / PERIODS
    is_known = ~np.isnan(days)
    return np.column_stack([days, np.sin(angles) * is_known, np.cos(angles) * is_known])


def as_day(value, name, zone=None):
    """Return a date as days since the year 1, in the local time of a zone, and a gap as NaN."""
    if is_missing(value):
        return np.nan
    if not is_date(value):
        raise ValueError(
            f"Column {name!r} of X holds {np.array(value).item()!r} among dates: convert it by "
            "pandas.to_datetime."
        )
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    value = value if zone is None else value.astimezone(zone)
    return value.toordinal() + sum(getattr(value, unit, 0) / n for unit, n in CLOCK.items())


def as_texts(columns):
    """Return categories as texts."""
    texts = [[as_text(value) for value in row] for row in columns]
    return np.array(texts, dtype=object).reshape(columns.shape)


def as_text(value):
    """Return a value as a text, a gap as an empty one, and a number whatever its dtype."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return "" if is_missing(value) else str(value)


def as_numbers(columns, names):
    """Return columns as floats, a gap as NaN."""
    if columns.dtype.kind == "O":
        columns = [list(map(as_number, row, names)) for row in columns]
    columns = np.asarray(columns, dtype=np.float64)
    if not columns.size:
        return columns
    return check_array(columns, ensure_all_finite="allow-nan", input_name="X")


def as_number(value, name):
    """Return a value as a float, a gap as NaN."""
    try:
        return np.nan if is_missing(value) else float(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{error}. Column {name!r} of X holds {value!r} among numbers: give numbers alone, or "
            "texts for a column of categories."
        ) from error
