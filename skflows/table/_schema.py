"""The columns of a table and the variables that they become."""

import copy

import numpy as np

from ..columns.checks import ColumnWarning, warn_of_texts, warn_of_unseen, warn_user
from ..columns.encoding import UNSEEN_CATEGORY
from ..columns.kinds import decide, stated
from ._columns import ColumnModel, ColumnSetting, Weeks
from ._maps import fit_quantile_maps
from ._variables import UNSEEN, Cells, Rows

FITTED_TOGETHER = 50  # columns: of fewer, those of other kinds are not worth a quantile map


def fitted_together(columns, weight):
    """Return the quantile maps of complete columns, by the keys of a dict of their values."""
    if len(columns) < FITTED_TOGETHER or len(weight) < 2:
        return {}
    return dict(
        zip(columns, fit_quantile_maps(np.stack([*columns.values()], 1), weight), strict=True)
    )


class Schema:
    """The columns of a table and their variables.

    Parameters
    ----------
    frame : Frame
        The table of the fit.
    names : list
        Names of its columns, or their numbers.
    columns : dict or None
        Kinds that the user gives, by name.
    handle_unknown : {"warn", "rare", "error"}
        What to do with unknown categories.
    models_gaps : bool
        Whether missing entries are modelled.
    random_state : RandomState
        For noise on lattices.
    weight : ndarray of shape (n_samples,), optional
        Importance of each row. Those of weight 0 may have categories that others have not, and
        count for nothing else.
    """

    def __init__(
        self, frame, names, columns, handle_unknown, models_gaps, random_state, weight=None
    ):
        weight = np.ones(len(frame)) if weight is None else weight
        given = stated(columns, names)
        self.names = names
        self.columns = []
        quantile_maps = fitted_together(
            {
                name: column.values[weight > 0]
                for name, column in zip(names, frame.columns, strict=True)
                if column.role == "number" and column.known.all() and name not in given
            },
            weight[weight > 0],
        )
        for name, column in zip(names, frame.columns, strict=True):
            kind, is_used = given.get(name), weight > 0
            if not (column.known & is_used).any():
                raise ValueError(
                    f"column {name!r} has no known value in the {is_used.sum()} rows of this fit: "
                    "leave it out."
                )
            used, own = column, weight
            is_categorical = kind is not None and kind.name == "categorical"
            if column.role in ("number", "datetime") and not is_categorical:
                used, own = column.take(is_used), weight[is_used]
            if kind is None:
                kind = decide(used.values[used.known], used.role)
                if column.role == "text" and warn_of_texts(name, column.values[column.known]):
                    reason = ": if they are dates, convert them by pandas.to_datetime"
                    kind = kind._replace(reason=kind.reason + reason)
            own, missing = own[used.known], own[~used.known].sum()
            quantile = quantile_maps.get(name)
            setting = ColumnSetting(
                name, handle_unknown, random_state, own, missing, kind.is_stated, quantile
            )
            self.columns.append(ColumnModel(used, kind, setting, models_gaps))
        self.of_column, self.parts = [], []
        self.flag_of = {}  # the variable that says whether the value of another is missing
        self.weeks = []  # variables of dates with bounds, the week first
        for column in self.columns:
            first = len(self.parts)
            self.parts += column.parts
            self.of_column.append(np.arange(first, len(self.parts)))
            if column.has_gap_part:
                self.flag_of |= dict.fromkeys(range(first + 1, len(self.parts)), first)
            if isinstance(column.value_parts[0], Weeks):
                self.weeks.append(self.of_column[-1][column.has_gap_part :])

    def encode(self, frame, names=None):
        """Return `Rows` from a table with all columns, or with the named ones."""
        names = self.names if names is None else names
        n, d = len(frame), len(self.parts)
        rows = Rows(np.full((n, d), -1), np.full((n, d), np.nan), np.zeros((n, d), dtype=bool))
        for name, column in zip(names, frame.columns, strict=True):
            i = self.names.index(name)
            encoded = self.columns[i].encode(column)
            for j, (code, x, known) in zip(self.of_column[i], encoded, strict=True):
                rows.code[:, j], rows.x[:, j], rows.known[:, j] = code, x, known
        warn_of_unseen(self._unseen(rows, frame, names), len(rows))
        return rows

    def _unseen(self, rows, frame, names):
        """Return the values of categories that the fit has not seen, by column.

        The encoding of a table has told of those that it has not seen either.
        """
        found = {}
        for name, column in zip(names, frame.columns, strict=True):
            own = self.of_column[self.names.index(name)]
            values = column.values[(rows.code[:, own] == UNSEEN).any(axis=1)]
            values = [value for value in values if value is not UNSEEN_CATEGORY]
            if values:
                found[name] = values
        return found

    def with_maps_of(self, rows, weight, random_state):
        """Return the same kinds and levels, with the maps of the numbers of some `Rows`."""
        found = copy.copy(self)
        plain = {
            j: rows.x[:, j]
            for j, part in enumerate(self.parts)
            if part.has_number and part.is_plain and rows.known[:, j].all()
        }
        maps = fitted_together(plain, weight)
        found.parts = [
            part.with_maps_of(*(values[:, j] for values in rows), weight, random_state, maps.get(j))
            if part.has_number
            else part
            for j, part in enumerate(self.parts)
        ]
        found.columns = [copy.copy(column) for column in self.columns]
        for column, own in zip(found.columns, self.of_column, strict=True):
            column.parts = [found.parts[j] for j in own]
        return found

    def decode(self, rows, names=None, random_state=None):
        """Return columns from `Rows`."""
        found = []
        for name in self.names if names is None else names:
            i = self.names.index(name)
            js = self.of_column[i]
            found.append(
                self.columns[i].decode(
                    rows.code[:, js], rows.x[:, js], rows.known[:, js], random_state
                )
            )
        return found

    def with_values(self, rows):
        """Return rows of which no value is missing: those that are unknown exist."""
        rows = rows.copy()
        rows.code[:, list(self.flag_of.values())] = 0
        return rows

    def outside(self, rows, names, as_condition=False):
        """Yield descriptions of values outside of the kinds of some columns.

        Each is the first such value of a column with its number of rows, whether it is impossible,
        and the remedy. As conditions, only those count that say nothing about other columns.
        """
        for name in names:
            i = self.names.index(name)
            column = self.columns[i]
            own = [values[:, self.of_column[i]] for values in rows]
            for j, part in enumerate(column.parts):
                values = [each[:, j] for each in own]
                *_, log_scale = part.cells(*values, "quantile")
                is_outside = part.is_outside(*values)
                if as_condition:
                    is_outside &= ~part.is_informative(*values)
                is_outside |= values[2] & np.isneginf(log_scale)
                if not is_outside.any():
                    continue
                first = is_outside.argmax()
                yield (
                    f"{column.value_text(*(each[first] for each in own), j)} in column {name!r}, "
                    f"in {is_outside.sum()} of {len(rows)} rows; its values are "
                    f"{column.range_text(part)}.",
                    bool(np.isneginf(log_scale[is_outside]).any()),
                    column.remedy_for(values[1][first], part),
                )

    def check_possible(self, rows, names):
        """Raise an error if a value of a row has no probability."""
        for text, is_impossible, _ in self.outside(rows, names):
            if is_impossible:
                raise ValueError(f"given has the impossible value {text}")

    def warn_of_outside(self, rows, names=None, as_condition=False):
        """Warn of the first values outside of their kind, of impossible ones if there are any."""
        found = list(self.outside(rows, self.names if names is None else names, as_condition))
        for text, is_impossible, remedy in sorted(found, key=lambda each: not each[1])[:1]:
            what = "Such a value has a small density."
            if as_condition:
                what = "Nothing follows from it for other columns."
            if is_impossible:
                what = "The row scores -inf, and answers about its other values are unreliable."
            warn_user(f"X has {text} {what}{remedy}", ColumnWarning)

    def parts_of(self, names):
        """Return a mask of the variables of some columns."""
        mask = np.zeros(len(self.parts), dtype=bool)
        for name in names:
            mask[self.of_column[self.names.index(name)]] = True
        return mask

    def cells(self, rows, space):
        """Return rows in one of the spaces of their numbers."""
        found = [
            part.cells(rows.code[:, j], rows.x[:, j], rows.known[:, j], space)
            for j, part in enumerate(self.parts)
        ]
        low, middle, high, width, log_scale = (
            np.stack(each, 1) for each in zip(*found, strict=True)
        )
        return Cells(rows.code, low, middle, high, width, log_scale, rows.known)
