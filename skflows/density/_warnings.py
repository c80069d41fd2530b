"""Warnings that point to the user's code."""

import sys
import warnings

from ..preprocessing.column_checks import ColumnWarning, column_troubles

INTERNAL = ("skflows.", "sklearn.", "contextlib", "joblib.")


def warn_user(message, category=UserWarning):
    """Warn at the line outside of this package and scikit-learn that called them."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(INTERNAL):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def warn_of_columns(estimator, X, discrete):
    """Warn of columns under which a likelihood has no meaning (see `column_troubles`)."""
    if ("ignore", ColumnWarning) in [(action, kind) for action, _, kind, *_ in warnings.filters]:
        return  # a part of an estimator that has looked already: looking takes time
    for text in column_troubles(X, discrete, getattr(estimator, "feature_names_in_", None)):
        warn_user(text, ColumnWarning)
