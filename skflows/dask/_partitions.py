"""The partitions of a table, as workers see them, and the sample that columns are prepared on."""

from typing import NamedTuple

import numpy as np
from sklearn.base import clone

from ..preprocessing.fixed_maps import MAX_ROWS
from ..preprocessing.validation import prepare_table, validate_bounds, weighted_rows

HELD_OUT_SAMPLE = 1000  # held-out rows on which a fit checks its threshold
MAX_DISTINCT = 1000  # values of a column, all of which the sample has
WITNESS_WEIGHT = 1e-9  # of rows that only show which values occur


class Partition(NamedTuple):
    """The validated rows of a partition."""

    number: int
    rows: np.ndarray
    weight: np.ndarray


def validated(estimator, number, part, weight=None):
    """Return the `Partition` of the rows of positive weight."""
    if not len(part) or (weight is not None and not np.any(weight)):
        return Partition(number, np.empty((0, part.shape[1])), np.empty(0))
    largest = 1.0 if weight is None else np.max(weight)
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


def split(partitions, fraction, seed):
    """Return the training rows with their weights, and those to hold out, of some partitions."""
    mask = np.concatenate([is_held_out(partition, fraction, seed) for partition in partitions])
    rows = np.concatenate([partition.rows for partition in partitions])
    weight = np.concatenate([partition.weight for partition in partitions])
    return (rows[~mask], weight[~mask]), (rows[mask], weight[mask])


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
    return tuple(array[few] for array in table)


def witnesses_of(rows):
    """Return rows that show the extremes of each column, a value that is not whole, and all values
    if these are few."""
    if not len(rows):
        return rows
    found = [rows.argmin(axis=0), rows.argmax(axis=0)]
    for column in rows.T:
        found.append(np.flatnonzero(column != np.rint(column))[:1])
        _, first = np.unique(column, return_index=True)
        if len(first) <= MAX_DISTINCT:
            found.append(first)
    return rows[np.unique(np.concatenate(found))]


def joined_sample(parts, meta):
    """Return the sample of a table as arguments of `fit`.

    Parameters
    ----------
    parts : list
        What `sample_of` returned for each partition.
    meta : DataFrame or None
        A table with the names and dtypes of the columns.
    """
    train, held_out, witnesses = zip(*parts, strict=True)
    rows, weight = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    extra = witnesses_of(np.concatenate(witnesses))
    if len(extra):
        rows = np.concatenate([rows, extra])
        weight = np.concatenate([weight, np.full(len(extra), WITNESS_WEIGHT * weight.mean())])
    X_val, weight_val = (np.concatenate(arrays) for arrays in zip(*held_out, strict=True))
    arguments = {"X": framed(rows, meta), "sample_weight": weight}
    if len(X_val):
        arguments |= {"X_val": framed(X_val, meta), "sample_weight_val": weight_val}
    return arguments


def framed(rows, meta):
    """Return rows as a DataFrame with the columns of another."""
    if meta is None:
        return rows
    return type(meta)(rows, columns=meta.columns).astype(meta.dtypes)
