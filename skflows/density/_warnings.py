"""Warnings that point to the user's code."""

import sys
import warnings

from ..preprocessing.column_checks import (
    MAX_NAMED,
    ColumnWarning,
    column_problems,
    dates_among,
    names_rows,
    numbers_among,
)
from ..preprocessing.validation import listed

INTERNAL = ("skflows.", "sklearn.", "contextlib", "joblib.")


def warn_user(message, category=UserWarning):
    """Warn at the line outside of this package and scikit-learn that called them."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(INTERNAL):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_of_columns(estimator, X, discrete):
    """Warn of columns under which a likelihood has no meaning (see `column_problems`)."""
    ignored = ("ignore", None, ColumnWarning, None)
    if ignored in [filter[:4] for filter in warnings.filters]:
        return  # a part of an estimator that has looked already: looking takes time
    for text in column_problems(X, discrete, getattr(estimator, "feature_names_in_", None)):
        warn_user(text, ColumnWarning)


def warn_of_row_names(columns, path=None):
    """Warn of columns that number or name the rows, in a dict of their known values.

    The command gives the path of their file.
    """
    if found := [name for name, values in columns.items() if names_rows(values)]:
        of, remedy = "X", "leave them out"
        if path is not None:
            of, remedy = path, "exclude them with --exclude, or one with --id"
        warn_user(
            f"these columns of {of} seem to identify rows: {listed(found, MAX_NAMED)}; "
            f"{remedy}, unless their values mean something",
            ColumnWarning,
        )


def warn_of_gaps(names):
    """Warn that gaps in columns of numbers make an outlier detector much slower."""
    warn_user(
        f"X has missing values in {listed(names, MAX_NAMED)}: the detector fits a TableDensity, "
        "which takes about ten times as long as the default for complete rows. Impute the values, "
        "or leave these rows or columns out; if gaps matter, give a TableDensity() as estimator.",
        ColumnWarning,
    )


def warn_of_texts(name, texts):
    """Warn of a column of texts that look like dates or numbers, and return such dates."""
    if dates := dates_among(texts):
        warn_user(
            f"The column {name!r} holds dates as texts, such as {' and '.join(map(repr, dates))}, "
            "which are taken for categories: convert it by pandas.to_datetime or, in a file, write "
            "all dates as in 2024-12-31.",
            ColumnWarning,
        )
    elif found := numbers_among(texts):
        warn_user(
            f"The column {name!r} holds numbers as texts, such as {found[0]!r}, which are taken "
            "for categories: convert it to numbers: leave out currency signs, % and thousands "
            "separators.",
            ColumnWarning,
        )
    return dates
