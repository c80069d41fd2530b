"""The partitions of a table, as workers see them, and the sample that columns are prepared on."""

from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..columns.frames import read_frame
from ..columns.lattice import FEW_DECIMALS
from ..preprocessing.fixed_maps import MAX_ROWS
from ..preprocessing.sklearn_compat import safe_indexing
from ..preprocessing.validation import (
    prepare_table,
    validate_bounds,
    validate_weight,
    weighted_rows,
)
from ..table import TableDensity
from ..table._components import MAX_HELD_OUT

HELD_OUT_SAMPLE = MAX_HELD_OUT  # held-out rows that the sample has
MAX_DISTINCT = 1000  # values of a column, all of which the sample has
WITNESS_WEIGHT = 1e-9  # of rows that only show which values occur


class Partition(NamedTuple):
    """The validated rows of a partition: numbers, or a table as it is for `TableDensity`."""

    number: int
    rows: object
    weight: np.ndarray


def validated(estimator, names, number, part, weight=None):
    """Return the `Partition` of the rows of positive weight, in columns of these names if any."""
    if names is not None and [*part.columns] != names:
        raise ValueError(
            f"it has the columns {[*part.columns]}, but the table says {names}: give each "
            "partition the same columns in one order."
        )
    if not len(part) or (weight is not None and not np.any(weight)):
        return Partition(number, np.empty((0, part.shape[1])), np.empty(0))
    largest = 1.0 if weight is None else np.max(weight)
    if isinstance(estimator, TableDensity):
        weight = validate_weight(weight, np.empty((len(part), 1)), least=1)
        is_known = np.any([column.known for column in read_frame(part).columns], axis=0)
        used = np.flatnonzero(is_known & (weight > 0))
        rows, weight = safe_indexing(part, used), weight[used]
    else:
        rows, weight, _ = weighted_rows(clone(estimator), part, weight, least=1)
    return Partition(number, rows, weight * largest)


def facts(partition):
    """Return the number of rows of a partition, and the sum of their weights."""
    return len(partition.rows), float(partition.weight.sum())


def columns_of(estimator, sample):
    """Return how a fit to the sample treats discrete columns, and the names of the columns."""
    estimator = clone(estimator)
    dequantizer = prepare_table(estimator, sample["X"]).dequantizer
    return dequantizer, getattr(estimator, "feature_names_in_", None)


def check_bounds(partition, estimator, columns):
    """Raise an error if a row is not within the bounds of the estimator."""
    dequantizer, names = columns
    validate_bounds(estimator.bounds, partition.rows, dequantizer, names=names)


def is_held_out(partition, fraction, seed):
    """Return a mask of the rows to hold out: the same wherever the partition is."""
    rng = np.random.default_rng([seed, partition.number])
    n = len(partition.rows)
    mask = np.zeros(n, dtype=bool)
    # Rounded at random: small partitions hold out the fraction in the mean.
    mask[rng.permutation(n)[: int(fraction * n + rng.uniform())]] = True
    return mask


def split(partitions, fraction, seed, least=0):
    """Return the training rows with their weights, and those to hold out, of some partitions.

    If chance leaves no training row, the first ``least`` of the rows are.
    """
    mask = np.concatenate([is_held_out(partition, fraction, seed) for partition in partitions])
    if mask.all():
        mask[:least] = False
    rows = joined([partition.rows for partition in partitions])
    weight = np.concatenate([partition.weight for partition in partitions])
    return tuple((rows[kept], weight[kept]) for kept in (~mask, mask))


def joined(tables):
    """Return tables as one, all of them arrays or all of them DataFrames."""
    if not hasattr(tables[0], "columns"):
        return np.concatenate(tables)
    import pandas as pd  # a DataFrame needs it

    return pd.concat(tables, ignore_index=True)


def sample_of(partition, n_rows, fraction, seed):
    """Return a partition's share of the sample of a table.

    Parameters
    ----------
    partition : Partition
        The partition.
    n_rows : int
        Number of rows of the table.
    fraction, seed : float and int
        Which rows are held out.

    Returns
    -------
    train, held_out : tuple of ndarray
        Rows and weights. The training rows are all of them if the table has no more than a fit in
        one process takes, otherwise a random share.
    witnesses : ndarray of shape (n, n_features)
        Rows that show which values occur: see `witnesses_of`.
    """
    train, held_out = split([partition], fraction, seed)
    rng = np.random.default_rng([seed, partition.number, 1])
    if fraction:
        held_out = share(held_out, HELD_OUT_SAMPLE / (fraction * n_rows), rng)
    if n_rows <= MAX_ROWS:
        return train, held_out, train[0][:0]
    return share(train, MAX_ROWS / n_rows, rng), held_out, witnesses_of(train[0])


def share(table, fraction, rng):
    """Return a random fraction of the rows of a table, in their order, with their weights."""
    n = len(table[0])
    n_chosen = min(n, int(fraction * n + rng.uniform()))
    few = np.sort(rng.choice(n, n_chosen, replace=False))
    return tuple(safe_indexing(values, few) for values in table)


def witnesses_of(rows):
    """Return rows that show the extremes of each column, its decimals, and all values if these are
    few."""
    witnesses = [np.empty(0, dtype=int)]
    for column in read_frame(rows).columns:
        known = np.flatnonzero(column.known)
        distinct, first = np.unique(column.values[known], return_index=True)
        if len(first) > MAX_DISTINCT:
            finer = []
            if column.role == "number":
                rounded = (np.round(distinct, k) for k in range(FEW_DECIMALS + 1))
                finer = [np.flatnonzero(distinct != each)[:1] for each in rounded]
            first = first[np.concatenate([[0, len(first) - 1], *finer]).astype(int)]
        witnesses.append(known[first])
    return safe_indexing(rows, np.unique(np.concatenate(witnesses)))


def merged(samples):
    """Return the sample of several partitions from the sample of each."""
    train, held_out, witnesses = zip(*samples, strict=True)
    pairs = (zip(*pairs, strict=True) for pairs in (train, held_out))
    tables = [(joined(rows), np.concatenate(weights)) for rows, weights in pairs]
    return *tables, witnesses_of(joined(witnesses))


def arguments_of(sample, estimator, meta):
    """Return the sample of a table as arguments of `fit`, or of a method that `fit` calls.

    Parameters
    ----------
    sample : tuple
        What `merged` returned.
    estimator : FlowDensity or TableDensity
        The estimator.
    meta : DataFrame or None
        A table with the names and dtypes of the columns.
    """
    (rows, weight), (X_val, weight_val), extra = sample
    if len(extra):
        rows = joined([rows, extra])
        weight = np.concatenate([weight, np.full(len(extra), WITNESS_WEIGHT * weight.mean())])
    if isinstance(estimator, TableDensity):
        if not (len(rows) and len(X_val)):
            raise ValueError(
                f"{len(X_val)} of {len(rows) + len(X_val)} rows are held out by chance: fit "
                "TableDensity itself to so small a table."
            )
        held_out = np.repeat([False, True], [len(rows), len(X_val)])
        weight = np.concatenate([weight, weight_val])
        return {"X": joined([rows, X_val]), "sample_weight": weight, "held_out": held_out}
    arguments = {"X": framed(rows, meta), "sample_weight": weight}
    if len(X_val):
        arguments |= {"X_val": framed(X_val, meta), "sample_weight_val": weight_val}
    return arguments


def framed(rows, meta):
    """Return rows as a DataFrame with the columns of another."""
    if meta is None:
        return rows
    return type(meta)(rows, columns=meta.columns).astype(meta.dtypes)
