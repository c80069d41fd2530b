"""Checks of what a user passes, with errors that state the value and the remedy."""

from collections.abc import Mapping

import numpy as np
from sklearn.utils.validation import _check_sample_weight, validate_data

from ._discrete import column_index

DTYPES = [np.float64, np.float32]
# What scikit-learn's messages about unusable input leave unsaid.
REMEDIES = {
    "could not convert string": "models numbers: drop or encode the other columns first, texts for "
    "example with sklearn.preprocessing.OrdinalEncoder, dates as days since the first of them.",
    "contains infinity": "needs finite values: drop these rows, or clip them to the largest "
    "value that can occur.",
    "Complex data": "models real numbers: give the real and imaginary parts as two columns.",
    "1 sample": "needs more rows to learn a density from.",
}


def validate_rows(estimator, X, *, reset=True, ensure_min_samples=1):
    """X as an array of floats, or an error that says what to do."""
    if not reset and is_valid(estimator, X, ensure_min_samples):
        return X
    kwargs = {"reset": reset, "ensure_min_samples": ensure_min_samples}
    try:
        # C order: torch takes no negative strides, as those of X[::-1].
        return validate_data(estimator, X, dtype=DTYPES, order="C", **kwargs)
    except (TypeError, ValueError) as error:
        name = type(estimator).__name__
        unconverted = isinstance(error, TypeError) or "could not convert" in str(error)
        if unconverted and (columns := columns_without_numbers(X)):
            raise ValueError(
                f"X has columns that are not numbers: {[*columns]} (the first holds "
                f"{next(iter(columns.values()))!r}). {name} {REMEDIES['could not convert string']}"
            ) from error
        remedies = [remedy for cause, remedy in REMEDIES.items() if cause in str(error)]
        if not remedies:
            raise
        raise ValueError(f"{str(error).rstrip('.')}. {name} {remedies[0]}") from error


def columns_without_numbers(X):
    """Names of the columns of a frame that hold texts, dates or the like, and one such value."""
    found = {name: first_of_no_number(np.ravel(X[name])) for name in getattr(X, "columns", [])}
    return {name: str(value) for name, value in found.items() if value is not None}


def first_of_no_number(values):
    """The first entry that is no number, or None."""
    for value in [] if values.dtype.kind in "biuf" else values:
        try:
            float(value)
        except (TypeError, ValueError):
            return value
    return None


def is_valid(estimator, X, least):
    """Whether X is such that scikit-learn would return it as it is, without a warning.

    Where this says no, it may still be valid. For a single row, scikit-learn's own look at it
    takes longer than many a flow.
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
    with np.errstate(all="ignore"):  # a sum of finite values may overflow: no proof, then
        return bool(np.isfinite(X.sum()))


def validate_weight(sample_weight, X, least):
    """Weights of which the largest is 1 and at least ``least`` are positive."""
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(
            f"sample_weight is negative for {(weight < 0).sum()} rows (the least is "
            f"{weight.min():g}); give rows that should not count a weight of 0."
        )
    # Sums of huge weights would overflow. Scaled first: what vanishes beside the largest is 0.
    weight = weight / weight.max()
    if (n_positive := (weight > 0).sum()) < least:
        raise ValueError(
            f"sample_weight is positive for {n_positive} of {len(X)} rows; {least} are "
            "needed at least, because rows of weight 0 are left out."
        )
    return weight


def resolve_bounds(bounds, n_features, names=None):
    """One pair of bounds for each column, or None; a dict has pairs of some columns."""
    if bounds is None:
        return None
    if isinstance(bounds, Mapping):
        given = {column_index(key, n_features, names): pair for key, pair in bounds.items()}
        bounds = [given.get(j) for j in range(n_features)]
    try:
        pairs = [(None, None) if pair is None else tuple(pair) for pair in bounds]
        ends = [end for pair in pairs for end in pair if end is not None]
        np.array(ends, dtype=np.float64)
        if len(pairs) != n_features or any(len(pair) != 2 for pair in pairs):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds={bounds!r}; give one pair (low, high) of numbers for each of the "
            f"{n_features} columns, with None where there is no bound, or a dict of pairs."
        ) from None
    return pairs


def validate_bounds(bounds, X, dequantizer, *, names=None, what="X"):
    """A pair of bounds for each column, widened by half a cell where it is discrete, or None."""
    pairs = resolve_bounds(bounds, X.shape[1], names)
    if pairs is None:
        return None
    low, high = (
        np.array([np.inf * sign if end is None else end for end in ends], dtype=np.float64)
        for sign, ends in zip((-1, 1), zip(*pairs, strict=True), strict=True)
    )
    if not (low < high).all():  # NaN is not below anything
        column = int(np.argmin(low < high))
        raise ValueError(f"bounds[{column}]={pairs[column]}; give numbers, the lower one first.")
    low[dequantizer.columns] -= dequantizer.gap / 2
    high[dequantizer.columns] += dequantizer.gap / 2
    outside = (X <= low) | (X >= high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{what}[{row}, {column}] is {X[row, column]:g}, not within bounds[{column}]="
            f"{pairs[column]}; the density is 0 on a bound and beyond: move the bound out, drop "
            "the row, or name the column in discrete if its values repeat."
        )
    return list(zip(low, high, strict=True))
