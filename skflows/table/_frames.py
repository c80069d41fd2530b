"""Columns of pandas and polars DataFrames and of arrays, read into NumPy and written back."""

import numbers
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.utils import check_array

from ..preprocessing.validation import check_different_names, is_missing

MICROSECONDS = 1e6  # in a second


class Column(NamedTuple):
    """A column as NumPy values: numbers in float64, dates in seconds, other values as objects.

    Attributes
    ----------
    values : ndarray of shape (n,)
        The values; those of missing entries mean nothing.
    known : ndarray of shape (n,) of bool
        Which entries are not missing.
    role : {"number", "datetime", "bool", "text", "category", "ordered"}
        What the dtype says of the column.
    dtype : str
        The dtype, as the library prints it.
    categories : list or None
        The categories of a categorical dtype.
    """

    values: np.ndarray
    known: np.ndarray
    role: str
    dtype: str
    categories: list | None = None

    def take(self, index):
        return self._replace(values=self.values[index], known=self.known[index])


class Frame(NamedTuple):
    """A table as a list of columns, with the library it comes from."""

    columns: list
    names: list | None  # None for an array
    library: str  # "pandas", "polars" or "numpy"
    dtype: str = ""  # of an array
    index: object = None  # of a pandas DataFrame

    def __len__(self):
        return len(self.columns[0].known)

    def take(self, index):
        columns = [column.take(index) for column in self.columns]
        return Frame(columns, self.names, self.library, self.dtype)


def is_frame(X):
    """Whether X is a DataFrame of pandas or polars."""
    return library_of(X) != "numpy" and hasattr(X, "columns")


def library_of(X):
    module = type(X).__module__.split(".")[0]
    return module if module in ("pandas", "polars") else "numpy"


def read_frame(X, names=None):
    """Return a table as a `Frame`, with the named columns only if ``names`` is given."""
    if is_frame(X):
        library = library_of(X)
        check_different_names(X)
        own = list(X.columns)
        names = own if names is None else names
        if missing := [name for name in names if name not in own]:
            raise ValueError(f"X lacks the columns {missing}, which were seen in fit.")
        read = _pandas_column if library == "pandas" else _polars_column
        columns = [read(X[name], name) for name in names]
        return Frame(columns, names, library, index=getattr(X, "index", None))
    X = check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=0)
    if X.dtype.kind == "c":
        raise ValueError("Complex data not supported: give real and imaginary parts as columns.")
    return Frame(
        [_array_column(column, j) for j, column in enumerate(X.T)], None, "numpy", str(X.dtype)
    )


def rows_of(X):
    """Return given values, a dict of scalars or a DataFrame, as a DataFrame-like `Frame`."""
    if not isinstance(X, Mapping):
        return read_frame(X)
    columns = [_array_column(_one_object(value), name) for name, value in X.items()]
    return Frame(columns, list(X), "dict")


def _one_object(value):
    if isinstance(value, np.datetime64):
        return np.array([value])
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def _checked(values, known, name):
    if np.isinf(values[known]).any():
        raise ValueError(
            f"column {name!r} contains infinity; give finite values, or NaN where it is missing."
        )
    return values


def _pandas_column(series, name):
    import pandas as pd

    dtype = series.dtype
    known = series.notna().to_numpy(dtype=bool)
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories.tolist()
        role = "ordered" if dtype.ordered else "category"
        return Column(series.astype(object).to_numpy(), known, role, str(dtype), categories)
    if pd.api.types.is_bool_dtype(dtype):
        return Column(series.astype(object).to_numpy(), known, "bool", str(dtype))
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(f"Complex data not supported: column {name!r} is complex.")
    if pd.api.types.is_numeric_dtype(dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return Column(_checked(values, known, name), known, "number", str(dtype))
    if pd.api.types.is_datetime64_any_dtype(dtype):
        local = series if series.dt.tz is None else series.dt.tz_localize(None)
        moments = local.to_numpy().astype("datetime64[us]").astype(np.int64)
        return Column(moments / MICROSECONDS, known, "datetime", str(dtype))
    return _object_column(series.to_numpy(dtype=object), known, name, str(dtype))


def _polars_column(series, name):
    import polars as pl

    dtype = series.dtype
    known = series.is_not_null().to_numpy()
    if dtype == pl.Boolean:
        return Column(np.array(series.to_list(), dtype=object), known, "bool", str(dtype))
    if dtype.is_numeric():
        values = series.cast(pl.Float64).to_numpy().astype(np.float64)
        known = known & ~np.isnan(values)
        return Column(_checked(values, known, name), known, "number", str(dtype))
    if dtype in (pl.Date, pl.Datetime):
        micro = series.cast(pl.Datetime("us")).cast(pl.Int64).fill_null(0).to_numpy()
        return Column(micro / MICROSECONDS, known, "datetime", str(dtype))
    values = np.array(series.to_list(), dtype=object)
    if dtype == pl.Enum:
        return Column(values, known, "ordered", "Enum", dtype.categories.to_list())
    if dtype == pl.Categorical:
        return Column(values, known, "category", "Categorical", sorted(set(values[known])))
    return _object_column(values, known, name, str(dtype))


def _array_column(values, name):
    if values.dtype.kind in "iuf":
        values = values.astype(np.float64)
        known = ~np.isnan(values)
        return Column(_checked(values, known, name), known, "number", "")
    if values.dtype.kind == "b":
        known = np.ones(len(values), dtype=bool)
        return Column(values.astype(object), known, "bool", "")
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")  # objects of nanoseconds are integers
    values = values.astype(object)
    return _object_column(values, ~np.array([is_missing(v) for v in values], dtype=bool), name, "")


def _object_column(values, known, name, dtype):
    """Read Python objects, which must be all numbers, all booleans, all dates or all strings."""
    found = values[known]
    if all(isinstance(value, bool | np.bool_) for value in found) and len(found):
        return Column(np.where(known, values, False), known, "bool", dtype)
    if all(isinstance(value, numbers.Real) for value in found):
        numeric = np.full(len(values), np.nan)
        numeric[known] = found.astype(np.float64)
        return Column(_checked(numeric, known, name), known, "number", dtype)
    if all(hasattr(value, "isoformat") and hasattr(value, "year") for value in found):
        moments = np.zeros(len(values))
        moments[known] = seconds_of(found)
        return Column(moments, known, "datetime", dtype)
    kinds = sorted({type(value).__name__ for value in found})
    if kinds not in (["str"], ["str_"]):
        # The type is named as float() would, because scikit-learn's checks expect a TypeError.
        error = (
            ValueError if all(k in ("str", "int", "float", "bool") for k in kinds) else TypeError
        )
        raise error(
            f"column {name!r} holds values of the types {', '.join(kinds)}; the argument must be a "
            "string or a number, and all of a column of one type: convert them."
        )
    return Column(np.array([str(v) for v in values], dtype=object), known, "text", dtype)


def seconds_of(dates):
    """Return dates in seconds since 1970, in local time."""
    naive = [date.replace(tzinfo=None) if hasattr(date, "tzinfo") else date for date in dates]
    return np.array(naive, dtype="datetime64[us]").astype(np.int64) / MICROSECONDS


def moment_text(seconds):
    """Return a date as text, or infinity, which is an open end."""
    if np.isinf(seconds):
        return str(seconds)
    moment = np.datetime64(round(seconds * MICROSECONDS), "us")
    return str(moment.item()).removesuffix(" 00:00:00")


def write_frame(columns, names, library, dtype="", index=None):
    """Return columns as a table of a library.

    Parameters
    ----------
    columns : list of Column
        The columns.
    names : list
        Their names.
    library : {"pandas", "polars", "numpy"}
        What to make.
    dtype : str
        Of an array.
    index : Index, optional
        Of a pandas DataFrame.
    """
    if library == "pandas":
        import pandas as pd

        made = {name: _pandas_series(c) for name, c in zip(names, columns, strict=True)}
        frame = pd.DataFrame(made)
        return frame if index is None else frame.set_axis(index, axis=0)
    if library == "polars":
        import polars as pl

        return pl.DataFrame([_polars_series(n, c) for n, c in zip(names, columns, strict=True)])
    if np.dtype(dtype or float).kind in "iufb":
        values = np.full((len(columns[0].known), len(columns)), np.nan)
        for column, target in zip(columns, values.T, strict=True):
            target[column.known] = column.values[column.known].astype(np.float64)
        is_float = np.dtype(dtype or float).kind == "f" or np.isnan(values).any()
        if is_float:
            return values
        return (within(values, dtype) if np.dtype(dtype).kind in "iu" else values).astype(dtype)
    values = np.full((len(columns[0].known), len(columns)), np.nan, dtype=object)
    for column, target in zip(columns, values.T, strict=True):
        target[column.known] = column.values[column.known]
    return values


def fill_frame(X, known, filled):
    """Return a table with its known values as they are, and others from a filled table.

    Parameters
    ----------
    X : DataFrame or ndarray of shape (n, n_columns)
        The table; of a DataFrame, the columns of ``filled`` are taken.
    known : ndarray of shape (n, n_columns) of bool
        Which values are known.
    filled : DataFrame or ndarray of shape (n, n_columns)
        What `write_frame` returned, of the same library.
    """
    library = library_of(filled)
    if library == "numpy":
        return np.where(known, np.asarray(X), filled)
    for name, has in zip(list(filled.columns), known.T, strict=True):
        if not has.any():
            continue
        if library == "pandas":
            filled[name] = X[name] if has.all() else X[name].where(has, filled[name])
        else:
            import polars as pl

            both = pl.select(pl.when(pl.Series(has)).then(X[name]).otherwise(filled[name]))
            filled = filled.with_columns(both.to_series().alias(name))
    return filled


def within(values, dtype):
    """Return numbers rounded to the nearest that an integer dtype holds."""
    dtype = dtype.lower().split("[")[0]
    ends = np.iinfo(dtype if dtype in np.sctypeDict else "int64")  # polars has wider ones
    high = float(ends.max)
    if high > ends.max:  # float64 rounds the largest integers of 64 bits up
        high = np.nextafter(high, 0)
    return np.clip(np.round(values), ends.min, high)


def _with_new(categories, values):
    """Return categories, and the values that are not among them, which would be lost."""
    return list(dict.fromkeys([*categories, *values.tolist()]))


def _pandas_series(column):
    import pandas as pd

    values, known, role, dtype, categories = column
    if categories is not None:
        objects, categories = np.where(known, values, None), _with_new(categories, values[known])
        return pd.Series(pd.Categorical(objects, categories=categories, ordered=role == "ordered"))
    if role == "datetime":
        micro = np.where(known, np.round(values * MICROSECONDS), 0).astype(np.int64)
        moments = micro.astype("datetime64[us]")
        moments[~known] = np.datetime64("NaT")
        series = pd.Series(moments)
        if dtype.startswith("datetime64") and "," in dtype:  # with a time zone
            zone = dtype.rstrip("]").split(", ")[1]
            series = series.dt.tz_localize(zone, ambiguous=False, nonexistent="shift_forward")
        return series.astype(dtype) if dtype.startswith("datetime64") else series
    if role == "number":
        is_integer = dtype and pd.api.types.is_integer_dtype(dtype)
        whole = within(values, dtype) if is_integer else values
        series = pd.Series(np.where(known, whole, np.nan))
        if is_integer and not known.all():
            return series.astype(dtype if dtype[0].isupper() else "Int64")
        return series.astype(dtype) if dtype not in ("", "object") else series
    series = pd.Series(np.where(known, values, None), dtype=object)
    if dtype in ("", "object", "bool"):
        return series.astype(bool) if dtype == "bool" and known.all() else series
    return series.astype(dtype)


def _polars_series(name, column):
    import polars as pl

    values, known, role, dtype, categories = column
    if role == "datetime":
        micro = [round(v * MICROSECONDS) if k else None for v, k in zip(values, known, strict=True)]
        series = pl.Series(name, micro, dtype=pl.Int64).cast(pl.Datetime("us"))
        if dtype == "Date":
            return series.cast(pl.Date)
        if "time_zone='" in dtype:
            zone = dtype.split("time_zone='")[1].split("'")[0]
            series = series.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        return series
    objects = [v if k else None for v, k in zip(values.tolist(), known, strict=True)]
    if role == "number":
        target = getattr(pl, dtype, pl.Float64)
        if target.is_integer():
            whole = within(values, dtype).tolist()
            objects = [int(v) if k else None for v, k in zip(whole, known, strict=True)]
        return pl.Series(name, objects, dtype=target)
    if dtype == "Enum":
        return pl.Series(name, objects, dtype=pl.Enum(_with_new(categories, values[known])))
    return pl.Series(name, objects, dtype=getattr(pl, dtype, pl.String))
