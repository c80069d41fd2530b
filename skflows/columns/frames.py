"""Columns of pandas and polars DataFrames and of arrays, read into NumPy and written back."""

import numbers
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, date
from typing import Literal, NamedTuple

import numpy as np
from sklearn.utils import check_array

from .arrays import (
    EXACT,
    check_different_names,
    check_exact,
    checked_data,
    is_frame,
    is_missing,
    known_values,
    library_of,
)
from .checks import warn_user
from .dates import (
    MICROSECONDS,
    common_zone,
    datetimes_of,
    is_date,
    seconds_of,
    time_zone,
    zone_of,
)

# What to convert values to that are neither numbers nor texts, by the name of their type.
REMEDIES = {
    "Interval": "such as to texts by .astype(str)",
    "Period": "such as to dates by .dt.to_timestamp()",
    "Timedelta": "such as to seconds by .dt.total_seconds()",
    "timedelta": "such as to seconds",
    "timedelta64": "such as to seconds by dividing them by np.timedelta64(1, 's')",
}
DATE = "date"  # the dtype of objects that are dates of Python without a time
ARROW = "[pyarrow]"  # the end of the names of pandas' dtypes of Arrow
# Dtypes of floats that end where float64 goes on, as pandas, polars and Arrow name them.
FLOATS = {"float16": "f2", "halffloat": "f2", "float32": "f4", "float": "f4"}
DECIMAL = re.compile(r"decimal\w*\((?:precision=)?(\d+), (?:scale=)?(-?\d+)\)", re.IGNORECASE)


class Column(NamedTuple):
    """A column as NumPy values: numbers in float64, dates in seconds, other values as objects.

    Attributes
    ----------
    values : ndarray of shape (n,)
        The values, which mean nothing where entries are missing. Dates are in seconds since 1970,
        in UTC if the dtype has a time zone, otherwise in local time.
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
    index: object = None  # type: ignore[assignment]  # of a pandas DataFrame

    def __len__(self):
        return len(self.columns[0].known)

    def take(self, index):
        columns = [column.take(index) for column in self.columns]
        return Frame(columns, self.names, self.library, self.dtype)


def validate_table(estimator, X, *, reset=True, least=1, name=None):
    """Return a DataFrame as it is, or anything else as an array of any dtype.

    It sets the names and the number of columns of an estimator, or compares with them; errors name
    the estimator that the user knows, by default this one.
    """
    kwargs: dict = {"dtype": None, "ensure_all_finite": False, "ensure_min_samples": least}
    if is_frame(X):
        kwargs = {"skip_check_array": True}
        n, d = X.shape
        if n < least or not d:
            raise ValueError(
                f"Found a table of {n} sample(s) and {d} feature(s) while a minimum of {least} and "
                f"1 is required by {name or type(estimator).__name__}."
            )
    if name is None:
        return checked_data(estimator, X, reset=reset, **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        X = checked_data(estimator, X, name=name, reset=reset, **kwargs)
    for each in caught:
        warn_user(str(each.message).replace(type(estimator).__name__, name), each.category)
    return X


def read_frame(X, names=None, remedy=""):
    """Return a table as a `Frame`, with the named columns only if ``names`` is given.

    The error that a column is missing ends with the remedy.
    """
    if is_frame(X):
        library = library_of(X)
        check_different_names(X)
        all_names = list(X.columns)
        names = all_names if names is None else names
        if missing := [name for name in names if name not in all_names]:
            raise ValueError(f"X lacks the columns {missing}, which were seen in fit.{remedy}")
        read = _pandas_column if library == "pandas" else _polars_column
        columns = [read(X[name], name) for name in names]
        return Frame(columns, names, library, index=index_of(X))
    X = check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=0)
    if X.dtype.kind == "c":
        raise ValueError("Complex data not supported: give real and imaginary parts as columns.")
    return Frame(
        [_array_column(column, j) for j, column in enumerate(X.T)], None, "numpy", str(X.dtype)
    )


def index_of(X):
    """Return the index of a pandas DataFrame, or None; lists have a method of that name."""
    return getattr(X, "index", None) if is_frame(X) else None


def rows_of(X):
    """Return given values, a dict of scalars or a DataFrame, as a DataFrame-like `Frame`."""
    if not isinstance(X, Mapping):
        return read_frame(X)
    for name, value in X.items():
        if isinstance(value, slice | bytes) or (np.iterable(value) and not isinstance(value, str)):
            raise ValueError(
                f"column {name!r} is given as {value!r}; a condition is one value, not a range or "
                "several: give a DataFrame with a row for each value, or draw samples without it "
                "and keep the ones in the range."
            )
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
    if isinstance(dtype, pd.CategoricalDtype) or str(dtype).startswith("dictionary<"):
        categories, is_ordered = _categories_of(series)
        _check_categories(categories, name)
        role = "ordered" if is_ordered else "category"
        return Column(series.astype(object).to_numpy(), known, role, str(dtype), categories)
    if pd.api.types.is_bool_dtype(dtype):
        return Column(series.astype(object).to_numpy(), known, "bool", str(dtype))
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(f"Complex data not supported: column {name!r} is complex.")
    if pd.api.types.is_numeric_dtype(dtype):
        if dtype.kind != "f":
            check_exact(known_values(series), f"column {name!r}")
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return Column(_checked(values, known, name), known, "number", str(dtype))
    if pd.api.types.is_datetime64_any_dtype(dtype):
        if zone := zone_of(str(dtype)):
            time_zone(zone, name)
            series = series.dt.tz_convert(None)
        moments = series.astype("datetime64[us]").to_numpy().astype(np.int64)
        return Column(moments / MICROSECONDS, known, "datetime", str(dtype))
    return _object_column(series.to_numpy(dtype=object), known, name, str(dtype))


def _categories_of(series):
    """Return the categories of a Series of pandas, or of Arrow's dictionaries, and their order."""
    if hasattr(series, "cat"):
        return series.cat.categories.tolist(), series.cat.ordered
    import pyarrow as pa

    array = pa.table({"values": series})["values"].combine_chunks()
    return array.dictionary.to_pylist(), array.type.ordered


def _check_categories(categories, name):
    """Raise an error for categories that a model file cannot hold, such as intervals."""
    for category in categories:
        if not isinstance(category, str | bool | numbers.Real):
            raise ValueError(
                f"column {name!r} has categories of the type {type(category).__name__}, such as "
                f"{category}; they must be texts or numbers: convert them by "
                f"X[{name!r}].cat.rename_categories(str)."
            )


def _polars_column(series, name):
    import polars as pl

    dtype = series.dtype
    known = series.is_not_null().to_numpy()
    if dtype == pl.Boolean:
        return Column(np.array(series.to_list(), dtype=object), known, "bool", str(dtype))
    if dtype.is_numeric():
        if not dtype.is_float():
            check_exact(known_values(series), f"column {name!r}")
        values = series.cast(pl.Float64).to_numpy().astype(np.float64)
        known = known & ~np.isnan(values)
        return Column(_checked(values, known, name), known, "number", str(dtype))
    if dtype in (pl.Date, pl.Datetime):
        if zone := zone_of(str(dtype)):
            time_zone(zone, name)
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
        check_exact(values, f"column {name!r}")
        values = values.astype(np.float64)
        known = ~np.isnan(values)
        return Column(_checked(values, known, name), known, "number", "")
    if values.dtype.kind == "b":
        known = np.ones(len(values), dtype=bool)
        return Column(values.astype(object), known, "bool", "")
    if values.dtype.kind == "M":
        moments = values.astype("datetime64[us]").astype(np.int64) / MICROSECONDS
        return Column(moments, ~np.isnat(values), "datetime", str(values.dtype))
    if values.dtype.kind == "m":
        raise _unusable(name, ["timedelta64"])
    values = values.astype(object)
    return _object_column(values, ~np.array([is_missing(v) for v in values], dtype=bool), name, "")


def _object_column(values, known, name, dtype):
    """Read Python objects, which must be all numbers, all booleans, all dates or all strings."""
    objects = values[known]
    if all(isinstance(value, bool | np.bool_) for value in objects) and len(objects):
        return Column(np.where(known, values, False), known, "bool", dtype)
    if all(isinstance(value, numbers.Real) for value in objects):
        check_exact(objects, f"column {name!r}")
        numeric = np.full(len(values), np.nan)
        numeric[known] = objects.astype(np.float64)
        return Column(_checked(numeric, known, name), known, "number", dtype)
    if all(map(is_date, objects)):
        if zone := common_zone(objects, name):
            dtype = f"datetime64[us, {zone}]"
        elif dtype and {type(value) for value in objects} == {date}:
            dtype = DATE
        elif not dtype:  # of an array, of which each value has its own unit
            dtype = str(np.array(list(objects), dtype="datetime64").dtype)
        moments = np.zeros(len(values))
        moments[known] = seconds_of(objects)
        return Column(moments, known, "datetime", dtype)
    kinds = sorted({type(value).__name__ for value in objects})
    if {"str"} < {*kinds} <= {"str", "int", "float"}:
        text = next(value for value in objects if isinstance(value, str))
        raise ValueError(
            f"column {name!r} holds numbers and texts such as {text!r}: convert it by "
            "pandas.to_numeric(errors='coerce'), which makes texts missing values, or to texts by "
            ".astype(str)."
        )
    if kinds not in (["str"], ["str_"]):
        raise _unusable(name, kinds)
    return Column(np.array([str(v) for v in values], dtype=object), known, "text", dtype)


def _unusable(name, kinds):
    """Return the error for values of other types than a column may have."""
    # The type is named as float() would, because scikit-learn's checks expect a TypeError.
    is_plain = all(kind in ("str", "int", "float", "bool") for kind in kinds)
    remedies = [f", {REMEDIES[kind]}" for kind in kinds if kind in REMEDIES]
    return (ValueError if is_plain else TypeError)(
        f"column {name!r} holds values of the types {', '.join(kinds)}; the argument must be a "
        "string or a number, and all of a column of one type: convert them"
        f"{''.join(remedies[:1])}."
    )


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
    if np.dtype(dtype).kind == "M":
        return np.stack([_moments(column).astype(dtype) for column in columns], axis=1)
    values = np.full((len(columns[0].known), len(columns)), np.nan, dtype=object)
    for column, target in zip(columns, values.T, strict=True):
        if column.role == "datetime":
            target[:] = _date_objects(column)
        else:
            target[column.known] = column.values[column.known]
    return values


def data_frame(rows, names, index=None, dtypes=None):
    """Return rows of numbers as a pandas DataFrame.

    Parameters
    ----------
    rows : ndarray of shape (n, n_columns)
        The rows.
    names : list
        Names of the columns.
    index : Index, optional
        Of the rows.
    dtypes : dict, optional
        The integer or boolean dtypes that columns have where they hold whole numbers, by name.
    """
    import pandas as pd  # optional

    frame = pd.DataFrame(rows, index=index, columns=names)
    for name, dtype in (dtypes or {}).items():
        column = frame[name]
        # Beyond 2**53, floats skip integers.
        if (column == column.round()).all() and column.abs().max() < EXACT:
            frame[name] = column.astype(dtype)
    return frame


def labelled(values, labels, X, name=None):
    """Return values in a row for each of X as a pandas DataFrame, with the index of X.

    Parameters
    ----------
    values : ndarray of shape (n, n_labels)
        The values.
    labels : sequence
        The columns.
    X : object
        The table that the rows belong to.
    name : str or int, optional
        What the labels are values of.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "as_frame=True returns a DataFrame of pandas, which is not installed: pip install "
            "pandas, or leave as_frame out."
        ) from error
    index = X.index if isinstance(X, pd.DataFrame) else None
    return pd.DataFrame(values, index, pd.Index(labels, name=name))


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
    """Return the nearest numbers that a dtype holds."""
    name = dtype.lower().split("[")[0]
    if name in FLOATS:
        largest = float(np.finfo(FLOATS[name]).max)
        return np.clip(values, -largest, largest)
    if digits := DECIMAL.match(dtype):
        precision, scale = map(int, digits.groups())
        end = 10.0 ** (precision - scale)
        high = min(end - 10.0**-scale, np.nextafter(end, 0))
        return np.clip(np.round(values, scale), -high, high)
    ends = np.iinfo(name if name in np.sctypeDict else "int64")  # polars has wider ones
    high = float(ends.max)
    if high > ends.max:  # float64 rounds the largest integers of 64 bits up
        high = np.nextafter(high, 0)
    return np.clip(np.round(values), ends.min, high)


def _moments(column):
    """Return dates as datetime64, in UTC if their dtype has a time zone."""
    return datetimes_of(np.where(column.known, column.values.astype(float), np.nan))


def _date_objects(column):
    """Return dates for an array of objects: datetime64, or with a time zone Python's datetime."""
    moments, zone = _moments(column), zone_of(column.dtype)
    if zone is None and column.dtype not in ("", DATE):
        moments = moments.astype(column.dtype)
    objects = np.empty(len(moments), dtype=object)
    for i, (moment, known) in enumerate(zip(moments, column.known, strict=True)):  # one by one,
        objects[i] = moment  # because NumPy would make them datetimes or integers
        if zone is not None and known:
            objects[i] = moment.item().replace(tzinfo=UTC).astimezone(time_zone(zone, ""))
        if column.dtype == DATE:
            objects[i] = moment.item().date() if known else None
    return objects


def _pandas_dtype(name):
    """Return a dtype of pandas from its name; it does not read the names of all of Arrow's."""
    if not name.endswith(ARROW):
        return name
    import pandas as pd
    import pyarrow as pa

    name = name.removesuffix(ARROW)
    if digits := DECIMAL.match(name):
        make = getattr(pa, name.split("(")[0])
        return pd.ArrowDtype(make(*map(int, digits.groups())))
    if zone := zone_of(name):
        return pd.ArrowDtype(pa.timestamp(name[len("timestamp[") :].split(",")[0], zone))
    if match := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=([01])>", name):
        values, indices, ordered = match.groups()
        types = map(pa.type_for_alias, (indices, values))
        return pd.ArrowDtype(pa.dictionary(*types, ordered == "1"))
    return pd.ArrowDtype(pa.type_for_alias(name))


def _with_new(categories, values):
    """Return categories, and the values that are not among them, which would be lost."""
    return list(dict.fromkeys([*categories, *values.tolist()]))


def _pandas_series(column):
    import pandas as pd

    values, known, role, dtype, categories = column
    target = _pandas_dtype(dtype)
    is_arrow = target is not dtype
    if categories is not None and not is_arrow:
        objects, categories = np.where(known, values, None), _with_new(categories, values[known])
        return pd.Series(pd.Categorical(objects, categories=categories, ordered=role == "ordered"))
    if role == "datetime":
        if dtype == DATE:
            return pd.Series(_date_objects(column), dtype=object)
        series = pd.Series(_moments(column))
        if zone := zone_of(dtype):
            series = series.dt.tz_localize("UTC").dt.tz_convert(time_zone(zone, ""))
        return series.astype(target) if is_arrow or dtype.startswith("datetime64") else series
    if role == "number":
        is_integer = dtype and pd.api.types.is_integer_dtype(target)
        is_exact = is_integer or DECIMAL.match(dtype) or dtype.lower().split("[")[0] in FLOATS
        series = pd.Series(np.where(known, within(values, dtype) if is_exact else values, np.nan))
        if is_integer and not known.all() and dtype[0].islower() and not is_arrow:
            return series.astype("Int64")
        return series.astype(target) if dtype not in ("", "object") else series
    series = pd.Series(np.where(known, values, None), dtype=object)
    if dtype in ("", "object", "bool"):
        return series.astype(bool) if dtype == "bool" and known.all() else series
    return series.astype(target)


TIME_UNITS: tuple[Literal["ns", "us", "ms"], ...] = ("ns", "us", "ms")


def _polars_series(name, column):
    import polars as pl

    values, known, role, dtype, categories = column
    if role == "datetime":
        series = pl.Series(name, _moments(column))
        if dtype == "Date":
            return series.cast(pl.Date)
        if zone := zone_of(dtype):
            series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
        for unit in TIME_UNITS:
            if f"time_unit='{unit}'" in dtype:
                return series.dt.cast_time_unit(unit)
        return series
    objects = [v if k else None for v, k in zip(values.tolist(), known, strict=True)]
    if role == "number":
        if digits := DECIMAL.match(dtype):
            numbers = [v if k else None for v, k in zip(within(values, dtype), known, strict=True)]
            return pl.Series(name, numbers).cast(pl.Decimal(*map(int, digits.groups())))
        target = getattr(pl, dtype, pl.Float64)
        if target.is_integer():
            whole = within(values, dtype).tolist()
            objects = [int(v) if k else None for v, k in zip(whole, known, strict=True)]
        if dtype == "Float32":
            objects = [None if v is None else float(within(v, dtype)) for v in objects]
        return pl.Series(name, objects, dtype=target)
    if dtype == "Enum":
        return pl.Series(name, objects, dtype=pl.Enum(_with_new(categories, values[known])))
    return pl.Series(name, objects, dtype=getattr(pl, dtype, pl.String))
