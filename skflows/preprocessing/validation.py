"""Tables of numbers validated for a fit: weights, bounds and discrete columns."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..columns.arrays import check_magnitude, column_index, key_of, row_shape, validate_rows
from .dequantizer import Dequantizer
from .sklearn_compat import check_sample_weight


class Table(NamedTuple):
    """A validated table: the rows of positive weight, and how their columns are treated."""

    X: np.ndarray
    weight: np.ndarray  # of which the largest is 1
    is_weighted: np.ndarray | None  # which of the user's rows have a positive weight
    dequantizer: Dequantizer
    bounds: list | None  # a pair for each column, widened by half a cell if it is discrete
    n_context: int = 0  # number of last columns of X that are the context of the others


def prepare_table(estimator, X, sample_weight=None, *, least=2, dequantizer=None):
    """Validate a table by the parameters ``discrete`` and ``bounds`` of an estimator.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted.
    X : array-like of shape (n_samples, n_features)
        The rows.
    sample_weight : array-like of shape (n_samples,), default=None
        Weight of each row.
    least : int, default=2
        Least number of rows of positive weight.
    dequantizer : Dequantizer, default=None
        That of an earlier fit, if this one continues it; it learns about new values.

    Returns
    -------
    table : Table
        The table.
    """
    reset = dequantizer is None
    X, weight, is_weighted = weighted_rows(estimator, X, sample_weight, least=least, reset=reset)
    names = getattr(estimator, "feature_names_in_", None)
    if reset:
        is_grid = row_shape(estimator) is not None
        dequantizer = Dequantizer.for_parameter(estimator.discrete, X, names, is_grid)
        if getattr(estimator, "verbose", 0) not in (0, "auto") and dequantizer and not is_grid:
            gaps = dequantizer.named_gaps(names).items()
            print("Discrete columns: " + ", ".join(f"{key} (gap {gap:g})" for key, gap in gaps))
    bounds = validate_bounds(estimator.bounds, X, dequantizer, names=names)
    if not reset:
        dequantizer.update(X)
    return Table(X, weight, is_weighted, dequantizer, bounds)


def weighted_rows(estimator, X, sample_weight, *, least, reset=True):
    """Return the rows of positive weight, their weights, and which of the given rows they are."""
    X = validate_rows(estimator, X, reset=reset, ensure_min_samples=least)
    check_magnitude(X, getattr(estimator, "feature_names_in_", None))
    weight = validate_weight(sample_weight, X, least)
    is_weighted = weight > 0
    if not is_weighted.all():
        X, weight = X[is_weighted], weight[is_weighted]
    return X, weight, is_weighted


def validate_weight(sample_weight, X, least):
    """Return weights of which the largest is 1 and at least ``least`` are positive."""
    weight = check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(
            f"sample_weight is negative for {(weight < 0).sum()} rows (the least is "
            f"{weight.min():g}); give rows that should not count a weight of 0."
        )
    # Sums of huge weights would overflow. After scaling, weights that are relatively tiny become 0.
    weight = weight / (weight.max() or 1.0)
    if (n_positive := (weight > 0).sum()) < least:
        raise ValueError(
            f"sample_weight is positive for {n_positive} of {len(X)} rows; at least {least} are "
            "needed, because rows of weight 0 are left out."
        )
    return weight


def resolve_bounds(bounds, n_features, names=None, what="X"):
    """Return one pair of bounds for each column, or None; a dict has pairs for some columns."""
    if bounds is None:
        return None
    if isinstance(bounds, Mapping):
        given = {
            column_index(key, n_features, names, "bounds", what): pair
            for key, pair in bounds.items()
        }
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
    """Return a pair of bounds for each column, widened by half a cell if discrete, or None."""
    pairs = resolve_bounds(bounds, X.shape[1], names, what)
    if pairs is None:
        return None
    low, high = (
        np.array([np.inf * sign if end is None else end for end in ends], dtype=np.float64)
        for sign, ends in zip((-1, 1), zip(*pairs, strict=True), strict=True)
    )
    if not (low < high).all():  # NaN is not below anything
        column = int(np.argmin(low < high))
        raise ValueError(
            f"bounds[{key_of(column, names)!r}]={pairs[column]}; give numbers, the lower one first."
        )
    low[dequantizer.columns] -= dequantizer.gap / 2
    high[dequantizer.columns] += dequantizer.gap / 2
    outside = (X <= low) | (X >= high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        key = key_of(column, names)
        raise ValueError(
            f"{what}[{row}, {key!r}] is {X[row, column]:g}, not within bounds[{key!r}]="
            f"{pairs[column]}; the density is 0 on a bound and beyond: move the bound out, drop "
            "the row, or name the column in discrete if its values repeat."
        )
    return list(zip(low, high, strict=True))


def uneven(weight):
    """Return weights of rows, or None if all are equal, which changes nothing."""
    return None if np.ptp(weight) == 0 else weight
