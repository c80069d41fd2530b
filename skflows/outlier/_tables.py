"""Densities of tables inside a detector: rows as arrays of objects, and back to DataFrames."""

from copy import copy
from operator import itemgetter

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from ..columns.dates import check_zone, zone_of
from ..columns.frames import Column, is_frame, read_frame, write_frame
from ..density._third_party import is_frozen
from ..persistence.mixin import PersistenceMixin

NUMERIC = ("number", "datetime")  # roles of columns that are read as numbers
PLAIN = ("number", "bool")  # roles of columns that densities of numbers take


def takes_tables(estimator):
    """Whether an estimator takes DataFrames of any columns, with gaps."""
    return hasattr(estimator, "__sklearn_tags__") and get_tags(estimator).input_tags.string


def needs_table_density(X):
    """Whether X has texts, dates or gaps, which densities of numbers do not take."""
    if not is_frame(X):
        return False
    columns = read_frame(X).columns
    return any(column.role not in PLAIN or not column.known.all() for column in columns)


def names_with_gaps(X):
    """Return the columns of a DataFrame with gaps, if all columns hold numbers."""
    frame = read_frame(X)
    if any(column.role not in PLAIN for column in frame.columns):
        return []
    names = frame.names or range(len(frame.columns))
    return [n for n, column in zip(names, frame.columns, strict=True) if not column.known.all()]


class RowCodec:
    """Turns tables into arrays of objects, None where a value is missing, and back."""

    def __init__(self, X):
        frame = read_frame(X)
        self.names, self.library, self.dtype = frame.names, frame.library, frame.dtype
        self.like = [column._replace(values=None, known=None) for column in frame.columns]
        self.levels = [  # values of columns that are not numeric
            [] if column.role in NUMERIC else sorted(set(column.values[column.known]), key=str)
            for column in frame.columns
        ]

    def rows(self, X):
        frame = read_frame(X, self.names)
        rows = np.full((len(frame), len(frame.columns)), None, dtype=object)
        names = self.names or range(len(self.like))
        for target, column, like, name in zip(rows.T, frame.columns, self.like, names, strict=True):
            if like.role in NUMERIC and column.role != like.role and column.known.any():
                raise ValueError(
                    f"column {name!r} held {like.role}s in fit; now it holds "
                    f"{column.values[column.known][0]!r}: convert it to the kind of values of fit, "
                    "such as with pandas.to_numeric or .astype(float)."
                )
            if like.role == "datetime" and column.known.any():
                check_zone(zone_of(column.dtype), zone_of(like.dtype), name)
            target[column.known] = column.values[column.known]
        return rows

    def table(self, rows):
        columns = []
        for values, like in zip(rows.T, self.like, strict=True):
            known = np.array([value is not None for value in values], dtype=bool)
            is_float = like.role in NUMERIC
            filled = np.where(known, values, 0.0).astype(float) if is_float else values
            columns.append(Column(filled, known, like.role, like.dtype, like.categories))
        names = self.names or list(range(len(columns)))
        return write_frame(columns, names, self.library, self.dtype)

    def texts(self):
        """Yield the name of each column of texts, with the different ones."""
        names = self.names or range(len(self.like))
        for name, like, levels in zip(names, self.like, self.levels, strict=True):
            if like.role == "text":
                yield name, levels

    def codes(self, rows):
        """Return numbers for rows: numeric columns as they are, the values of others numbered.

        Values that fit has not seen share a number.
        """
        found = np.full(rows.shape, np.nan)
        for target, values, levels, like in zip(
            found.T, rows.T, self.levels, self.like, strict=True
        ):
            known = np.array([value is not None for value in values], dtype=bool)
            if like.role in NUMERIC:
                target[known] = values[known].astype(float)
            else:
                number = {level: k for k, level in enumerate(levels)}
                target[known] = [number.get(value, len(levels)) for value in values[known]]
        return found


class OnTables(PersistenceMixin, BaseEstimator):
    """A density of tables whose rows are arrays of objects."""

    def __init__(self, estimator, codec):
        self.estimator = estimator
        self.codec = codec

    def fit(self, X, y=None, sample_weight=None):
        self.estimator_ = self.estimator.fit(self.codec.table(X), sample_weight=sample_weight)
        return self

    def score_samples(self, X):
        return self.estimator_.score_samples(self.codec.table(X))

    def dependence(self, X):
        """Return the log-density of each row minus those of its single columns."""
        density = self.estimator_
        rows = density._rows(self.codec.table(X))
        joint = density._log_prob(rows)
        parts = (np.isin(np.arange(rows.known.shape[1]), own) for own in density._schema.of_column)
        singles = sum(density._log_prob(rows.only(own[None])) for own in parts)
        # A value that is impossible on its own has no dependence on others.
        return np.where(np.isneginf(singles), -np.inf, joint - singles)

    def surprises(self, table):
        """Return how much less likely each value is than usual, given the others of its row.

        Quick contributions to the scores of rows, as columns of differences in nats, by the member
        with the largest weight.
        """
        density = copy(self.estimator_)
        density._members = [(max(density._members, key=itemgetter(1))[0], 1.0)]
        rows = density._rows(table)
        found = np.zeros((len(rows), len(self.codec.like)))
        for i, parts in enumerate(density._schema.of_column):
            given = rows.known.copy()
            given[:, parts] = False
            scores = density._log_prob(rows, given)
            found[:, i] = scores - np.median(scores)
        return found

    @property
    def held_out_scores_(self):
        return self.estimator_.held_out_scores_


def on_tables(estimator, codec):
    """Return an estimator of arrays of objects, frozen if the given one is."""
    if not is_frozen(estimator):
        return OnTables(estimator, codec)
    wrapped = OnTables(estimator.estimator, codec)
    wrapped.estimator_ = estimator.estimator
    return FrozenEstimator(wrapped)
