"""Conditional and marginal densities of a fitted table, quantiles and imputation."""

from collections.abc import Hashable, Mapping, Sequence
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from ..columns.arrays import check_integer, listed
from ..columns.frames import is_frame, read_frame, rows_of
from ..columns.types import Floats, RandomState, Rows, Table
from ..training.threads import in_one_thread
from ._formulas import Elapsed
from ._predictive import OneVariable, log_prob_of_column, without
from ._variables import in_chunks
from ._view import TableView

MAX_NAMES = 6  # that a description lists


class ConditionalTable:
    """The density of some columns of a table, given values of others.

    `TableDensity.condition` and `TableDensity.marginal` return it.

    Parameters
    ----------
    density : TableDensity
        The fitted density.
    columns : list
        The columns that the density is of.
    given : ndarray of shape (1, n_variables) or (n, n_variables)
        Known variables: one row, or one for each row to score.
    description : str
        The given values as text.
    """

    def __init__(self, density, columns, given, description=""):
        self.density = density
        self.columns = columns
        self._given = given
        self._description = description

    def __repr__(self):
        given = self._description and f", given {self._description}"
        return f"<{type(self).__name__} of {listed(self.columns, MAX_NAMES)}{given}>"

    def _joined(self, X):
        """Return given and scored variables together, and which of them are given."""
        schema = self.density._schema
        frame = rows_of(X)
        if frame.names is not None:
            if missing := [name for name in self.columns if name not in frame.names]:
                raise ValueError(f"X lacks the columns {missing}, whose density this is.")
            if isinstance(X, Mapping):
                self.density._check_names(frame.names, "X", with_left_out=True)
            else:
                frame = read_frame(X, self.columns)
            names = frame.names
        else:
            names = self.columns
            if len(frame.columns) != len(names):
                raise ValueError(
                    f"X has {len(frame.columns)} columns; this is the density of {names}."
                )
        rows = schema.split(schema.encoding.rows(frame, names), names)
        self.density._check_n_rows(rows, 1, len(names))
        rows = np.where(schema.mask_of(self.columns), rows, np.nan)
        given = self._given
        if len(given) not in (1, len(rows)) and len(rows) != 1:
            raise ValueError(
                f"X has {len(rows)} rows, but {len(given)} are given; give one, or as many."
            )
        rows, given = np.broadcast_arrays(rows, given)
        return np.where(np.isnan(given), rows, given), ~np.isnan(given)

    def score_samples(self, X: Table) -> Floats:
        """Return the log-density of the columns in each row, given the known values.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_columns)
            The rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats.
        """
        rows, given = self._joined(X)
        if not given.any() or len(self.columns) > 1:
            return self.density._scores(rows, given if given.any() else None, self.columns)
        self.density._schema.warn_of_outside(rows, self.columns)
        i = self.density._schema.names.index(self.columns[0])
        return log_prob_of_column(self.density, rows, given, i)

    def score(self, X: Table, y: object = None) -> float:
        """Return the mean of `score_samples`.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_columns)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None, *, complete: bool = False
    ) -> Rows:
        """Draw rows of the columns, given the known values, with missing values as in `fit`.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, for each given row.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        complete : bool, default=False
            Whether to draw rows without missing values.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_columns)
            The rows.
        """
        check_integer("n_samples", n_samples)
        random_state = check_random_state(random_state)
        values = np.repeat(self._given, n_samples, axis=0)
        rows = self.density._drawn_rows(values, complete, random_state)
        return self.density._schema.encoding.decode(rows, self.columns)

    def marginal(self, columns: Sequence[str | int]) -> "ConditionalTable":
        """Return the density of some of the columns, given the same values.

        Parameters
        ----------
        columns : list of str or int
            Their names.

        Returns
        -------
        marginal : ConditionalTable
            The density.
        """
        columns = chosen(columns, self.columns)
        if unknown := [name for name in columns if name not in self.columns]:
            raise ValueError(f"columns names {unknown}, but this is the density of {self.columns}.")
        return ConditionalTable(self.density, columns, self._given, self._description)


def chosen(columns, names):
    """Return the columns of a marginal density, at least one, as a list."""
    columns = [columns] if isinstance(columns, str | Integral) else list(columns)
    if not columns:
        raise ValueError(f"columns is empty; give at least one of {names}.")
    if len({*columns}) < len(columns):
        raise ValueError(f"columns={columns} names a column twice; name each once.")
    return columns


def describe(given, rows, names):
    """Return given values as a text: values of a dict, otherwise the names of the columns."""
    if not isinstance(given, Mapping):
        return f"{listed(names, MAX_NAMES)} in {len(rows)} row{'s' if len(rows) > 1 else ''}"
    values = [
        f"{name}={str(value)!r}" if isinstance(value, str) else f"{name}={value}"
        for name, value in given.items()
    ]
    more = f" and {len(values) - MAX_NAMES} more" if len(values) > MAX_NAMES else ""
    return ", ".join(values[:MAX_NAMES]) + more


def check_order(call, column, X, q=0.5):
    """Raise an error if a table is in the place of another argument, or a name in its place."""
    are_tables = [is_frame(each) or isinstance(each, Mapping) for each in (column, q)]
    is_array = not isinstance(column, Hashable)  # names may be tuples
    if any(are_tables) or isinstance(X, str) or is_array or np.ndim(q) > 1:
        raise ValueError(f"the arguments are in the wrong order; the call is {call}.")


def column_of(density, column, what):
    """Return the index of a column and of its only variable."""
    schema = density._schema
    density._check_names([column], "column")
    i = schema.names.index(column)
    model = schema.columns[i]
    if getattr(model, what) in (None, False):
        needed = "numbers or dates" if what == "is_ordered" else "values that are listed"
        remedy = "predict_proba, or sample" if what == "is_ordered" else "quantile"
        raise ValueError(f"column {column!r} is {model.kind}, without {needed}; use {remedy}.")
    return i, schema.of_column[i][-1]


@in_one_thread
def probabilities_of(density, column, values):
    """Return the probabilities of the listed values of a column, given the other known values."""
    i, j = column_of(density, column, "possible")
    values = without(values, density._schema, i)
    density._schema.warn_of_outside(values, as_condition=True)
    probabilities = []
    for some in in_chunks(values):
        view = TableView.of_conditions(density._schema, some)
        outcome = OneVariable(density, view, j, density._log_weights(view, view.known))
        probabilities.append(outcome.probabilities)
    return np.concatenate(probabilities)


@in_one_thread
def impute(density, values, method, pattern, keep_blanks):
    """Return rows with each unknown value by the centre of its distribution.

    Blanks of the pattern do not change other values by rules. They are filled in last, or kept.
    """
    schema = density._schema
    values = density._solved(values, as_centres=True)
    filled = values.copy()
    view = TableView.of_conditions(schema, values)
    log_weights = density._log_weights(view, view.known)
    # The means of week, weekday and time need not make a date, nor numbers of days or months one.
    of_dates = {
        i for rule in schema.rules.functions if isinstance(rule, Elapsed) for i in rule.determinants
    }
    is_date = [
        column.kind == "datetime" or i in of_dates
        for i, column in enumerate(schema.columns)
        for _ in column.variables
    ]
    for j, variable in enumerate(schema.variables):
        unknown = np.flatnonzero(~view.known[:, j])
        if not len(unknown):
            continue
        centre = "median" if method == "mean" and is_date[j] else method
        outcome = OneVariable(density, view, j, log_weights, unknown)
        is_numeric = variable.has_number or variable.lattice is not None
        if not variable.has_number and (centre == "mode" or not is_numeric):
            filled[unknown, j] = variable.likeliest(outcome.levels)
        elif centre == "mean":  # which need not be a level
            filled[unknown, j] = outcome.mean()
        else:
            filled[unknown, j] = outcome.median()

    def followed(values, is_blank):
        """Return rows in which the centres of unknown values, except blanks, follow the rules."""
        rows = np.where(is_blank, np.nan, np.where(np.isnan(values), filled, values))
        schema.rules.fill(schema, rows, np.isnan(values) & ~is_blank, method == "mean")
        schema.rules.fill_by_possible(schema, values, rows, method == "mean")
        rows[is_blank] = np.nan
        return rows

    def blanks_of(rows):
        return pattern.are_blank(schema, rows) & np.isnan(values)

    is_blank = blanks_of(filled)
    rows = followed(values, is_blank)
    if (blanks_of(rows) != is_blank).any():  # which depend on a category that a rule tells
        is_blank = blanks_of(rows)
        rows = followed(values, is_blank)
    if keep_blanks or not is_blank.any():
        return rows
    return followed(rows, np.zeros_like(is_blank))
