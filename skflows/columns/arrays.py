"""Validation of arrays of numbers, with errors that state the value and the remedy."""

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

MAX_VALUE = 1e305  # beyond it, differences overflow
EXACT = 2**53  # up to which float64 holds all integers
# Names of dtypes that may hold integers beyond.
WIDE_DTYPES = ("int64", "uint64", "int128", "uint128", "decimal", "object")
DTYPES = [np.float64, np.float32]
# What to add to scikit-learn's messages about unusable input.
REMEDIES = {
    "could not convert": "models numbers: use TableDensity, which models texts and "
    "dates too, or drop or encode the other columns first, texts for example with "
    "sklearn.preprocessing.OrdinalEncoder, dates as days since the first of them.",
    "contains NaN": "needs complete rows: impute missing values, or use TableDensity, which models "
    "them, or DensityOutlierDetector(TableDensity()), which judges such rows.",
    "contains infinity": "needs finite values: drop these rows, or clip them to the largest "
    "value that can occur.",
    "Complex data": "models real numbers: give the real and imaginary parts as two columns.",
    "dim <= 2": "takes rows: flatten images first, X.reshape(len(X), -1).",
    "1 sample": "needs more rows to learn a density from.",
}


def column_names(X):
    """Return the names of the columns of a DataFrame of any library, or None."""
    # Labels of a Series are attributes of it, but not of its class.
    return X.columns if hasattr(type(X), "columns") else None


def library_of(X):
    """Return the library of a table: "pandas", "polars" or, for anything else, "numpy"."""
    module = type(X).__module__.split(".")[0]
    return module if module in ("pandas", "polars") else "numpy"


def is_frame(X):
    """Whether X is a DataFrame of pandas or polars."""
    return library_of(X) != "numpy" and column_names(X) is not None


def check_magnitude(X, names=None, what="X"):
    """Raise an error if a value is so large that sums and differences would overflow."""
    if X.dtype == np.float64 and max(X.max(), -X.min()) > MAX_VALUE:
        row, column = np.argwhere(np.abs(X) > MAX_VALUE)[0]
        raise ValueError(
            f"{what}[{row}, {key_of(column, names)!r}] is {X[row, column]:.3g}; values beyond "
            f"{MAX_VALUE:g} overflow: divide the column by a constant, or drop the row."
        )


def check_exact(values, where):
    """Raise an error if an array holds integers that float64 would round to others.

    Neighbouring identifiers would become one number. The text ``where`` names the array.
    """
    if (value := first_inexact(values)) is not None:
        shown = value if abs(value) < 1e40 else "an integer of more than 40 digits"
        raise ValueError(
            f"{where} holds {shown}, but float64 holds all integers only up to 2**53. If it "
            "names the rows, leave it out or convert it to texts; otherwise subtract an offset, "
            "such as its least value, or convert it to float64 if rounding does not matter."
        )


def first_inexact(values):
    """Return the first integer or decimal number that float64 would round beyond 2**53, or None."""
    if values.dtype.kind in "iu":
        if values.dtype.itemsize < 8 or not values.size:
            return None
        if values.max() <= EXACT and values.min() >= -EXACT:
            return None
    elif values.dtype.kind != "O":
        return None
    for value in values.ravel().tolist():
        if isinstance(value, Integral):
            value = int(value)  # NumPy would compare as floats
        elif not isinstance(value, Decimal) or not value.is_finite():
            continue
        if abs(value) > EXACT and (abs(value) > MAX_VALUE or float(value) != value):
            return value
    return None


def check_exact_table(X, what=""):
    """Raise an error if a table, or a single column, holds integers that float64 would round."""
    suffix, what = what and f" of {what}", what or "X"
    if (names := column_names(X)) is not None:
        for name, dtype in zip(names, getattr(X, "dtypes", ()), strict=False):
            if str(dtype).lower().startswith(WIDE_DTYPES):
                check_exact(known_values(X[name]), f"column {name!r}{suffix}")
    elif hasattr(X, "to_numpy"):
        if str(X.dtype).lower().startswith(WIDE_DTYPES):
            check_exact(known_values(X), what)
    elif isinstance(X, np.ndarray | list | tuple):
        try:
            X = X if isinstance(X, np.ndarray) else np.array(X, dtype=object)
        except ValueError:  # of different lengths, which is another error
            return
        if X.ndim == 1:
            check_exact(X, what)
        for j, column in enumerate(X.T if X.ndim == 2 else ()):
            check_exact(column, f"column {j}{suffix}")


def known_values(series):
    """Return the known values of a Series of pandas or polars, without a change of their type."""
    if hasattr(series, "dropna"):
        return series.dropna().to_numpy()
    series = series.drop_nulls()
    is_wide = str(series.dtype).endswith("128")  # which NumPy does not have
    return np.array(series.to_list(), dtype=object) if is_wide else series.to_numpy()


def validate_rows(estimator, X, *, reset=True, ensure_min_samples=1, shape=None):
    """Return X as an array of floats, or raise an error that says what to do.

    Rows may be grids of a shape: None is the estimator's shape, and an empty one means no grids.
    """
    if shape := row_shape(estimator) if shape is None else shape:
        X = flat_rows(X, shape, type(estimator).__name__)
    if not reset and is_valid(estimator, X, ensure_min_samples):
        return X
    # C order, because torch takes no negative strides, such as in X[::-1].
    kwargs = {"dtype": DTYPES, "order": "C", "ensure_min_samples": ensure_min_samples}
    rows = checked_data(estimator, X, reset=reset, **kwargs)
    if reset:
        estimator._whole_dtypes = whole_dtypes(X)
    return rows


def is_missing(value):
    """Whether a value is None, NaN, NaT or ``pd.NA``, which differ from themselves."""
    if value is None:
        return True
    try:
        return not bool(value == value)
    except (TypeError, ValueError):  # pd.NA has no truth value
        return True


def listed(names, limit=12):
    """Return the first ``limit`` names, quoted, to keep the message for a wide table readable."""
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def is_integer_dtype(name):
    """Return whether a dtype, as a library prints it, is one of integers."""
    return re.match(r"u?int\d", name, re.IGNORECASE) is not None


def check_different_names(X):
    """Raise an error if columns of a DataFrame have the same name."""
    names = column_names(X)
    if not getattr(names, "is_unique", True):
        check_different(names, "X")


def check_integer(name, value, least=1):
    """Raise an error if the value of a parameter is not an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r}; it must be an integer of at least {least}.")


def checked_number(name, value, most=math.inf):
    """Return the value of a parameter as a float from 0 to ``most``, or raise an error."""
    if not (isinstance(value, Real) and 0 <= float(value) <= most and float(value) < math.inf):
        bounds = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
        raise ValueError(f"{name}={value!r}; it must be a number {bounds}.")
    return float(value)


def check_different(names, what):
    """Raise an error if several columns have the same name."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{what} has more than one column {listed(twice)}; rename them.")


def check_may_be_table(X):
    """Raise an error if a dict, or the path of a file, is in the place of a table."""
    if isinstance(X, str | os.PathLike):
        raise ValueError(
            f"X is {str(X)!r}; give a table: read the file first, for example by "
            f"pandas.read_csv({str(X)!r})."
        )
    # Some sparse arrays are dicts.
    if isinstance(X, Mapping) and not issparse(X):
        raise ValueError(
            "X is a dict; give a table: pandas.DataFrame(X) if it holds columns, or "
            "pandas.DataFrame([X]) if it holds one row."
        )


def checked_data(estimator, X, name=None, **kwargs):
    """Return what scikit-learn's `validate_data` returns; its errors say what to do.

    They name the estimator that the user knows, by default this one.
    """
    check_may_be_table(X)
    check_different_names(X)
    if not kwargs.get("skip_check_array"):  # otherwise, who reads the table looks at its integers
        check_exact_table(X)
    try:
        if kwargs.get("dtype") is not None and holds_times(X):
            raise TypeError("could not convert dates or times to numbers")
        return validate_data(estimator, X, **kwargs)
    except (TypeError, ValueError) as error:
        name = name or type(estimator).__name__
        is_conversion = isinstance(error, TypeError) or any(
            cause in str(error) for cause in ("could not convert", "setting an array element")
        )
        if is_conversion and (columns := non_numeric_columns(X)):
            raise ValueError(
                f"X has columns that are not numbers: {[*columns]} (the first holds "
                f"{next(iter(columns.values()))!r}). {name} {REMEDIES['could not convert']}"
            ) from error
        message = str(error).replace(type(estimator).__name__, name)
        remedies = [remedy for cause, remedy in REMEDIES.items() if cause in message]
        if remedies:
            cause = message.split("\n")[0]  # scikit-learn's advice would hide the remedy
            raise ValueError(f"{cause.rstrip('.')}. {name} {remedies[0]}") from error
        if message == str(error):
            raise
        raise type(error)(message) from error


def holds_times(X):
    """Whether X has dates or time differences, which NumPy would take for integers."""
    # A column named "dtype" is an attribute of a DataFrame.
    is_one = hasattr(X, "dtype") and not is_frame(X)
    return any(
        dtype.is_temporal()
        if hasattr(dtype, "is_temporal")
        else getattr(dtype, "kind", "") in ("m", "M")
        for dtype in ([X.dtype] if is_one else getattr(X, "dtypes", []))
    )


def row_shape(estimator):
    """Return the shape of the grid that a row of an estimator is, or None if it is a table's."""
    return getattr(estimator, "_row_shape", None)


def grid_shape(name, shape):
    """Return the shape of grids, height, width and channels, or raise an error that names it."""
    are_sizes = [not isinstance(n, bool) and isinstance(n, Integral) and int(n) > 0 for n in shape]
    if len(are_sizes) != 3 or not all(are_sizes):
        raise ValueError(
            f"{name}={shape!r}; give three positive integers, the height, the width and the "
            "number of channels, such as (28, 28, 1)."
        )
    return tuple(shape)


def flat_rows(X, shape, name):
    """Return grids as rows, which they may be already; raise an error if X has neither shape.

    The first side of a shape may be None: grids of any length.
    """
    given: tuple[int, ...] = np.shape(X) if isinstance(X, list | tuple) else getattr(X, "shape", ())
    if len(given) > 2:
        known = tuple(given[1] if side is None else side for side in shape)
        if given[1:] in (known, known[:-1] if shape[-1] == 1 else known):
            return np.reshape(X, (given[0], -1))
    elif len(given) < 2:
        return X
    else:
        n_grids, rest = divmod(given[1], math.prod(side or 1 for side in shape))
        if not rest and (None in shape or n_grids == 1):
            return X
    sides = ["length" if side is None else str(side) for side in shape]
    d = " * ".join(sides) if None in shape else math.prod(shape)
    raise ValueError(
        f"X has the shape {given}; {name} was built for grids of shape ({', '.join(sides)}): give "
        f"an array of shape (n_samples, {', '.join(sides)}) or, flattened, (n_samples, {d})."
    )


def whole_dtypes(X):
    """Return the dtypes of the integer and boolean columns of a pandas DataFrame, by name."""
    dtypes = getattr(X, "dtypes", {})
    columns = dtypes.items() if hasattr(dtypes, "items") else []
    return {name: str(dtype) for name, dtype in columns if getattr(dtype, "kind", "O") in "biu"}


def non_numeric_columns(X):
    """Return the names of columns of a DataFrame that hold texts or dates, each with one value."""
    names = column_names(X)
    columns = {} if names is None else {name: X[name].to_numpy() for name in names}
    entries = {name: first_non_number(values) for name, values in columns.items()}
    return {name: str(value) for name, value in entries.items() if value is not None}


def first_non_number(values):
    """Return the first entry that is not a number, or None."""
    others = [] if values.dtype.kind in "biuf" else values
    return next((value for value in others if not reads_as_number(value)), None)


def reads_as_number(value):
    """Return whether a value is a number, or a text of one."""
    if isinstance(value, np.datetime64 | np.timedelta64):  # to NumPy 1, floats
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def is_valid(estimator, X, least):
    """Whether scikit-learn would surely return X as it is, without a warning.

    For a single row, scikit-learn's own checks take longer than many a flow.
    """
    if not (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.dtype in DTYPES
        and X.flags.c_contiguous
        and len(X) >= least
        and X.shape[1] == estimator.n_features_in_
        and not hasattr(estimator, "feature_names_in_")
    ):
        return False
    with np.errstate(all="ignore"):  # a sum of finite values may overflow, which proves nothing
        return bool(np.isfinite(X.sum()))


def key_of(column, names):
    """Return the name of a column if it has one, otherwise its index."""
    return int(column) if names is None else str(names[column])


def some_rows(n_rows, n):
    """Return the indices of n of a table's rows, drawn at random but the same each time.

    Every k-th row would miss what comes in a period.
    """
    return np.sort(np.random.default_rng(0).choice(n_rows, min(n, n_rows), replace=False))


def column_index(column, n_features, names, parameter, what="X"):
    """Return the index of a column that is given by index or, if columns have names, by name."""
    if isinstance(column, str) and names is not None and column in names:
        return list(names).index(column)
    is_number = isinstance(column, Integral) and not isinstance(column, bool | np.bool_)
    if is_number and -n_features <= column < n_features:
        return int(column) % n_features
    known = f"0 to {n_features - 1}" if names is None else f"0 to {n_features - 1} or {list(names)}"
    raise ValueError(
        f"{parameter} names the column {column!r}, which {what} does not have; it has {known}."
    )
