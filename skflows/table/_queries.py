"""Conditional and marginal densities of a fitted table, quantiles and imputation."""

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from ..columns.arrays import listed
from ..columns.frames import is_frame, read_frame, rows_of
from ..columns.types import Floats, RandomState, Rows, Table
from ._variables import ROWS_AT_ONCE
from ._view import LEAST_MASS, TableView

# Normal scores of the numbers among which quantiles are looked for.
GRID = np.concatenate([[-8.0, -6.0], np.linspace(-5, 5, 321), [6.0, 8.0]])
N_BISECTIONS = 30
MAX_NAMES = 6  # that a description lists
ROUNDING = 1e-6  # of a step of the grid
VALUES_AT_ONCE = ROWS_AT_ONCE * len(GRID)  # rows times levels of quantiles, to bound the memory


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
            frame = read_frame(X, self.columns) if not isinstance(X, dict) else frame
            names = frame.names
            if missing := [name for name in self.columns if name not in names]:
                raise ValueError(f"X lacks the columns {missing}, whose density this is.")
        else:
            names = self.columns
            if len(frame.columns) != len(names):
                raise ValueError(
                    f"X has {len(frame.columns)} columns; this is the density of {names}."
                )
        rows = schema.split(schema.encoding.rows(frame, names), names)
        rows = np.where(schema.parts_of(self.columns), rows, np.nan)
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
        return self.density._scores(rows, given if given.any() else None)

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

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Rows:
        """Draw rows of the columns, given the known values.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, for each given row.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_columns)
            The rows.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples={n_samples!r}; it must be an integer of at least 1.")
        random_state = check_random_state(random_state)
        drawn = self.density._complete(np.repeat(self._given, n_samples, axis=0), random_state)
        schema = self.density._schema
        return schema.encoding.decode(schema.joined(drawn, random_state), self.columns)

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


def without(variables, schema, i):
    """Return variables in which the value of a column is unknown, but not missing."""
    variables, own = variables.copy(), schema.of_column[i]
    is_flag = np.isin(own, list(schema.flag_of.values()))
    variables[:, own] = np.where(is_flag, 0.0, np.nan)
    return variables


class OneVariable:
    """The distribution of one variable in each row, given the other known ones.

    Parameters
    ----------
    density : TableDensity
        The fitted density.
    view : TableView
        The rows, in which the variable is unknown.
    j : int
        The variable.
    log_weights : ndarray of shape (n, n_members)
        Of the members.
    """

    def __init__(self, density, view, j, log_weights):
        self.part = density._schema.parts[j]
        self.shares = np.exp(log_weights).T
        self.members = [member.predictive(view, j) for member, _ in density._members]
        self.levels = None
        if self.members[0].levels is not None:
            self.levels = sum(
                share[:, None] * one.levels
                for share, one in zip(self.shares, self.members, strict=True)
            )

    def cdf(self, x):
        """Return the probability that the number is at most x, of shape (n, k) or (1, k)."""
        total = 0.0
        part = self.part
        scores = {
            own: own.forward(x.ravel())[0].reshape(x.shape)
            for own in {one.map for one in self.members}
        }
        for share, one in zip(self.shares, self.members, strict=True):
            below = one.number.cdf(scores[one.map])
            if one.levels is not None:
                below = one.levels[:, :1] * below
                for k, atom in enumerate(part.atoms, 1):
                    below = below + one.levels[:, k, None] * (x >= atom)
            total = total + share[:, None] * below
        return total

    def _numbers_on_grid(self):
        """Return the numbers at the scores of the grid, and these within bounds and no further
        out than a range of the numbers seen: heavy tails may have no mean."""
        limit = np.finfo(float).max / 4
        x = np.nan_to_num(self.part.maps["quantile"].inverse(GRID), posinf=limit, neginf=-limit)
        part, (low, high) = self.part, self.part.seen
        ends = max(2 * low - high, part.low), min(2 * high - low, part.high)
        return x, np.clip(x, *ends)

    @cached_property
    def _on_grid(self):
        """Numbers, with the atoms among them, and the probability of being at most each."""
        x = np.union1d(self._numbers_on_grid()[0], self.part.atoms)[None]
        return x[0], self.cdf(x)

    def quantile(self, q):
        """Return the quantiles of each row at the levels q, of shape (n, n_quantiles)."""
        step = max(1, VALUES_AT_ONCE // self.shares.shape[1])
        parts = [self._quantiles(q[start : start + step]) for start in range(0, len(q), step)]
        return np.concatenate(parts, axis=1)

    def _quantiles(self, q):
        """Return quantiles at few levels, which are looked for together."""
        part = self.part
        if not part.has_number:
            code = _count_below(np.cumsum(self.levels, axis=1), q).clip(max=part.n_levels - 1)
            return np.array(part.levels, dtype=np.float64)[code]
        x, below = self._on_grid
        first = _count_below(below, q).clip(1, len(x) - 1)
        low = x[first - 1]
        # The first number of the grid may be an atom.
        high = np.where(below[:, :1] >= q, low, x[first])
        for _ in range(N_BISECTIONS):
            middle = (low + high) / 2
            is_below = self.cdf(middle) < q
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        # At an atom the distribution function jumps: the upper end stays on it.
        is_atom = np.isin(x[first], part.atoms) & (
            np.abs(high - x[first]) <= ROUNDING * np.abs(x[first] - x[first - 1])
        )
        return part.value(part.snap(np.where(is_atom, x[first], high)))

    def mean(self):
        """Return the mean of each row, over the steps of the distribution function on a grid."""
        part, turn = self.part, 2j * np.pi
        if not part.has_number:
            levels = np.array(part.levels, dtype=np.float64)
            if part.period is None:
                return self.levels @ levels
            return self._angle(self.levels @ np.exp(turn * levels / part.period))
        x, inner = self._numbers_on_grid()
        middle, total = (inner[1:] + inner[:-1]) / 2, 0.0
        if part.period is not None:
            middle = np.exp(turn * middle / part.period)
        for share, one in zip(self.shares, self.members, strict=True):
            mass = np.diff(one.number.cdf(one.map.forward(x)[0][None]), axis=1)
            mean = mass @ middle / np.maximum(mass.sum(axis=1), LEAST_MASS)
            if one.levels is not None:
                mean = one.levels[:, 0] * mean + one.levels[:, 1:] @ part.atoms
            total = total + share * mean
        return total if part.period is None else self._angle(total)

    def _angle(self, mean):
        """Return the directions of mean points of the unit circle."""
        return np.mod(np.angle(mean) * self.part.period / (2 * np.pi), self.part.period)


def _count_below(rising, q):
    """Return how many values of each row are less than each level, of shape (n, n_quantiles)."""
    return np.stack([(rising < level).sum(axis=1) for level in q], axis=1)


def column_of(density, column, what):
    """Return the index of a column and of its only variable."""
    schema = density._schema
    density._check_names([column], "column")
    i = schema.names.index(column)
    model = schema.columns[i]
    if not getattr(model, what):
        needed = "levels" if what == "is_levels" else "numbers"
        remedy = "quantile" if what == "is_levels" else "predict_proba, or sample"
        if model.kind == "datetime":
            remedy = "sample(given=...) for its distribution, or impute for its median"
        raise ValueError(f"column {column!r} is {model.kind}, without {needed}; use {remedy}.")
    return i, schema.of_column[i][-1]


def one_variable(density, variables, i, j):
    variables = without(variables, density._schema, i)
    density._schema.warn_of_outside(variables, as_condition=True)
    view = TableView(density._schema, variables)
    return OneVariable(density, view, j, density._log_weights(view, view.known))


def probabilities_of(density, column, variables):
    """Return the probabilities of the levels of a column, given the other known values."""
    i, j = column_of(density, column, "is_levels")
    return one_variable(density, variables, i, j).levels


def quantiles_of(density, column, variables, levels):
    """Return quantiles of a numeric column, given the other known values."""
    i, j = column_of(density, column, "is_number")
    return one_variable(density, variables, i, j).quantile(levels)


def impute(density, variables, method):
    """Return complete variables: each unknown one by the centre of its distribution."""
    schema = density._schema
    found = variables.copy()
    view = TableView(schema, variables)
    log_weights = density._log_weights(view, view.known)
    # The means of week, weekday and time need not be those of any date.
    is_date = [c.kind == "datetime" for c in schema.columns for _ in c.parts]
    for j, part in enumerate(schema.parts):
        own = np.flatnonzero(~view.known[:, j])
        if not len(own):
            continue
        centre = "median" if method == "mean" and is_date[j] else method
        some = TableView(schema, variables[own])
        variable = OneVariable(density, some, j, log_weights[own])
        is_numeric = part.has_number or part.lattice is not None
        if not part.has_number and (centre == "mode" or not is_numeric):
            found[own, j] = part.decode(variable.levels.argmax(axis=1), None, None)
        elif centre == "mean":  # which need not be a level
            found[own, j] = variable.mean()
        else:
            found[own, j] = variable.quantile([0.5])[:, 0]
    return found
