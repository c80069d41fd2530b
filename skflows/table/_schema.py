"""The columns of a table and the variables that they become."""

import copy
from itertools import chain, islice

import numpy as np

from ..columns.checks import (
    ColumnWarning,
    among,
    unseen_error,
    warn_of_blanks,
    warn_of_empty,
    warn_of_identifiers,
    warn_of_other_dates,
    warn_of_texts,
    warn_of_unseen,
    warn_user,
)
from ..columns.encoding import NUMERIC
from ..columns.frames import Column
from ..columns.kinds import GIVEN, IDENTIFIER, Kind, decide, stated
from ._columns import ColumnModel, ColumnSetting, Weeks
from ._maps import fit_quantile_maps, forward_together
from ._rules import Rules
from ._variables import Cells

NO_VALUE = "no known value"
FITTED_TOGETHER = 50  # columns: fewer of other kinds are not worth a quantile map


def fitted_together(columns, weight, least=1):
    """Return the quantile maps of complete columns, by the keys of a dict of their values.

    There are none if there are fewer columns than the least number.
    """
    if len(columns) < least or len(weight) < 2:
        return {}
    return dict(
        zip(columns, fit_quantile_maps(np.stack([*columns.values()], 1), weight), strict=True)
    )


class Schema:
    """The encoding of a table, the kinds of its columns, their variables, and their rules.

    Parameters
    ----------
    encoding : Encoding
        The encoding of the table.
    rows : ndarray of shape (n_samples, n_columns)
        The encoded rows of the fit.
    columns : dict, optional
        Kinds that the user gives, by name.
    models_missing : bool
        Whether missing entries are modelled.
    random_state : RandomState, optional
        For noise on lattices.
    weight : ndarray of shape (n_samples,), optional
        Weight of each row. Rows of weight 0 may have categories that others have not, and
        count for nothing else.
    blanks : dict of int to list of int, optional
        Columns whose missing values are 0, by their places in encoded rows, and other columns. A
        value is unknown in rows that lack all of these.
    """

    def __init__(
        self,
        encoding,
        rows,
        columns=None,
        *,
        models_missing=False,
        random_state=None,
        weight=None,
        blanks=None,
    ):
        weight = np.ones(len(rows)) if weight is None else weight
        self.blanks = {} if blanks is None else blanks
        self.blank_if_zero = [j for j in self.blanks if not (rows[:, j] == 0).any()]
        before, rows = rows, self.blanks_as_zeros(rows)
        n_zeros = (np.isnan(before) & ~np.isnan(rows)).sum(axis=0)
        is_used, are_known = weight > 0, ~np.isnan(rows)
        self.encoding = encoding
        self.empty = np.flatnonzero(~are_known[is_used].any(axis=0)).tolist()
        # Where the columns are in encoded rows: the ones that are left out have no variables.
        self.places = [
            j for j in range(len(encoding.keys)) if j not in {*encoding.identifiers, *self.empty}
        ]
        self.names = [encoding.keys[j] for j in self.places]
        given = stated(columns, encoding.keys)
        self.columns = []
        reasons = {
            encoding.keys[j]: (IDENTIFIER, GIVEN if is_stated else encoding.different_texts[j])
            for j, is_stated in encoding.identifiers.items()
        }
        reasons |= {encoding.keys[j]: ("", NO_VALUE) for j in self.empty}
        self.left_out = [
            {
                "column": name,
                "kind": kind,
                "modelled as": "left out",
                "unit": "",
                "missing": int((~are_known[:, encoding.keys.index(name)]).sum()),
                "reason": reason,
            }
            for name, (kind, reason) in reasons.items()
        ]
        if encoding.inferred_identifiers:
            warn_of_identifiers(encoding.inferred_identifiers)
        if self.blanks:
            terms = {*chain(*self.blanks.values())}
            others = terms - {*self.blanks} or terms
            names = ([encoding.keys[j] for j in sorted(each)] for each in (self.blanks, others))
            warn_of_blanks(*names)
        if self.empty:
            warn_of_empty([encoding.keys[j] for j in self.empty], is_used.sum())
        if not self.names:
            raise ValueError(
                "X has only columns that name the rows, or have no known value, which are left "
                "out: nothing is left to have a density."
            )
        quantile_maps = fitted_together(
            {
                name: rows[is_used, j]
                for j, name in zip(self.places, self.names, strict=True)
                if encoding.roles[j] == "number" and are_known[:, j].all() and name not in given
            },
            weight[is_used],
            FITTED_TOGETHER,
        )
        for j, name in zip(self.places, self.names, strict=True):
            column, kind = encoding.column(rows, j), given.get(name)
            categories, used, column_weight = encoding.categories[j], column, weight
            is_categorical = kind is not None and kind.name == "categorical"
            if column.role in NUMERIC and not is_categorical:
                used, column_weight = column.take(is_used), weight[is_used]
            values = used.values[used.known]
            if kind is None:
                kind = decide(values, used.role, encoding.formats[j])
                if column.role == "text" and warn_of_texts(name, encoding.named(j, values)):
                    reason = ": if they are dates, convert them by pandas.to_datetime"
                    kind = kind._replace(reason=kind.reason + reason)
            if n_zeros[j]:
                kind = kind._replace(reason=f"{kind.reason}, {n_zeros[j]} blanks count as 0")
            setting = ColumnSetting(
                name,
                encoding.handle_unknown,
                random_state,
                column_weight[used.known],
                column_weight[~used.known].sum(),
                kind.is_stated,
                categories,
                quantile_maps.get(name),
            )
            self.columns.append(ColumnModel(used, kind, setting, models_missing))
        self.rules, self.companions, self.ranges = Rules(), {}, None
        self.of_column, self.variables = [], []
        self.flag_of = {}  # the variable that says whether the value of another is missing
        self.weeks = []  # variables of dates with bounds, the week first
        self.spans = []  # `SpanColumn` of each further column
        for column in self.columns:
            self._add_variables(column)
            first = self.of_column[-1][0]
            if column.has_flag:
                self.flag_of |= dict.fromkeys(range(first + 1, len(self.variables)), first)
            if isinstance(column.value_variables[0], Weeks):
                self.weeks.append(self.of_column[-1][column.has_flag :])

    def _add_variables(self, column):
        first = len(self.variables)
        self.variables += column.variables
        self.of_column.append(np.arange(first, len(self.variables)))

    def add_span(self, column, span):
        """Add a column of the spans between two columns of dates."""
        self.spans.append(span)
        self.columns.append(column)
        self._add_variables(column)

    def with_classes(self, label, weight, n_classes):
        """Return a copy that has the class of each row as its last column, beside the table's."""
        schema = copy.copy(self)
        schema.columns, schema.variables = [*self.columns], [*self.variables]
        schema.of_column = [*self.of_column]
        # As booleans, classes are all there are: none is rare or unseen.
        column = Column(label.astype(np.float64), np.ones(len(label), dtype=bool), "bool", "")
        classes = [*range(n_classes)]
        setting = ColumnSetting("class", "error", None, weight, 0.0, False, classes)
        kind = Kind("categorical", (), "classes")
        schema.columns.append(ColumnModel(column, kind, setting, models_missing=False))
        schema._add_variables(schema.columns[-1])
        return schema

    def with_spans(self, values):
        """Return variables in which spans are known where both dates are."""
        if not self.spans:
            return values
        values = values.copy()
        for span in self.spans:
            low, high = (
                self.columns[i].joined(values[:, self.of_column[i]]) for i in (span.low, span.high)
            )
            split = self.columns[span.column].split(span.of(low, high))
            values[:, self.of_column[span.column]] = np.stack(split, axis=1)
        return values

    def judged_spans(self, values, given=None):
        """Return variables with their spans, and a mask of the given ones, as scores take them.

        A span is given where both dates are. Where one is, the other one follows from it and the
        span, which is scored in its place. A span between dates that others tell already says
        nothing new, and is left out.
        """
        if given is None or not self.spans:
            return values, given
        values, given = values.copy(), given.copy()
        dates = sorted({i for span in self.spans for i in (span.low, span.high)})
        is_given = {i: given[:, self.of_column[i]].all(axis=1) for i in dates}
        is_told, is_used = dict(is_given), np.zeros((len(self.columns), len(values)), dtype=bool)
        for _ in self.spans:  # a date may tell another one by several spans
            for span in self.spans:
                k, low, high = span[:3]
                tells = (is_told[low] ^ is_told[high]) & ~np.isnan(values[:, self.of_column[k][-1]])
                for i in (low, high):
                    values[np.ix_(tells & ~is_told[i], span.told(self, i))] = np.nan
                    is_told[i] = is_told[i] | tells
                is_used[k] |= tells
        for k, low, high, *_ in self.spans:
            both = is_told[low] & is_told[high] & ~is_used[k]
            are_given = is_given[low] & is_given[high]
            given[np.ix_(both, self.of_column[k])] = are_given[both, None]
            values[np.ix_(both & ~are_given, self.of_column[k])] = np.nan
        return values, given

    def with_rare(self, drawn, is_unknown, random_state):
        """Return drawn variables with rare categories that go with the other values of the row."""
        for j, companion in self.companions.items():
            any_rare = is_unknown[:, j] & (drawn[:, j] == self.variables[j].n_values)
            rows, k = np.flatnonzero(any_rare), companion.variable
            of_rare = rows[is_unknown[rows, k]]  # which may be any category too
            drawn[of_rare, k] = self.variables[k].value(drawn[of_rare, k], random_state)
            places = companion.drawn(self.variables[k].code(drawn[rows, k]), random_state)
            drawn[rows, j] = np.where(np.isnan(places), drawn[rows, j], places)
        return drawn

    @property
    def have_seasons(self):
        """Which variables are parts of dates of several years, ``(n_variables,)``."""
        have_seasons = np.zeros(len(self.variables), dtype=bool)
        for parts in self.of_column:
            have_seasons[parts] = any(self.variables[j].season is not None for j in parts)
        return have_seasons

    @property
    def come_first(self):
        """Which variables are parts of dates with seasons that hardly any row of the fit lacks.

        What depends on the season is easier to tell from the date than the date from it. Rows that
        have a date that others lack may be unlike the rest.
        """
        columns = zip(self.columns, self.of_column, strict=True)
        parts = [j for column, parts in columns for j in parts if column.is_mostly_known]
        return self.have_seasons & np.isin(np.arange(len(self.variables)), parts)

    @property
    def n_missing(self):
        """In how many rows of the fit each variable was missing, which flags never are."""
        return np.array(
            [
                column.n_missing * (j >= column.has_flag)
                for column in self.columns
                for j in range(len(column.variables))
            ]
        )

    def encode(self, X):
        """Return the variables of a table with the columns of fit."""
        return self.split(self.encoding.encode(X))

    def split(self, rows, names=None):
        """Return the variables of encoded rows, of all columns or of some, ``(n, n_variables)``.

        Categories that no row of the fit has are an error or a warning here if the encoding has
        seen them, or if they are numbers: it tells of others itself.
        """
        values = np.full((len(rows), len(self.variables)), np.nan)
        rows = self.blanks_as_zeros(rows)
        unseen = {}
        for name in self.names if names is None else self.modelled(names):
            i = self.names.index(name)
            column, variables, place = self.columns[i], self.of_column[i], self.places[i]
            values[:, variables] = np.stack(column.split(rows[:, place]), axis=1)
            if column.listed is not None and column.value_variables[0].pooled is None:
                is_unseen = column.is_unseen(values[:, variables])
                is_unseen &= rows[:, place] != column.unseen
                if is_unseen.any():
                    unseen[name] = self.encoding.named(place, rows[is_unseen, place])
                    if column.refuses_unseen:
                        raise unseen_error(name, unseen[name], self.encoding.categories_of(name))
        warn_of_unseen(unseen, len(rows), self.encoding)
        return self.with_spans(values)

    def variable_of(self, i):
        """Return the last variable of column i, which holds its number or category."""
        return self.variables[self.of_column[i][-1]]

    def put(self, values, some, i, x):
        """Set column i of some rows of variables to encoded values, in place."""
        values[np.ix_(some, self.of_column[i])] = np.stack(self.columns[i].split(x), axis=1)

    def joined(self, values, random_state=None):
        """Return the encoded rows that variables stand for, without columns that are left out."""
        rows = np.full((len(values), len(self.encoding.keys)), np.nan)
        of_columns = zip(self.places, self.columns, self.of_column, strict=False)  # without spans
        for place, column, variables in of_columns:
            rows[:, place] = column.joined(values[:, variables], random_state)
        return rows

    def blanks_as_zeros(self, rows):
        """Return encoded rows in which missing values that count as 0 are 0.

        One that is 0 may make another one so, as a discount that is a sum of parts.
        """
        if not self.blanks:
            return rows
        filled, is_new = rows.copy(), True
        while is_new:
            is_new = False
            for j, others in self.blanks.items():
                is_blank = np.isnan(filled[:, j]) & ~np.isnan(filled[:, others]).all(axis=1)
                filled[is_blank, j] = 0.0
                is_new |= is_blank.any()
        return filled

    def zeros_as_blanks(self, rows):
        """Return encoded rows in which values of 0 are missing, if they are in the rows of fit."""
        rows = rows.copy()
        for j in self.blank_if_zero:
            rows[rows[:, j] == 0, j] = np.nan
        return rows

    def modelled(self, names):
        """Return the names of columns that are not left out."""
        return [name for name in names if name in self.names]

    @property
    def of_place(self):
        """The variables of each column of encoded rows; none of those left out."""
        by_place = dict(zip(self.places, self.of_column, strict=False))  # spans have none
        none = np.empty(0, dtype=int)
        return [by_place.get(j, none) for j in range(len(self.encoding.keys))]

    @property
    def last_of_places(self):
        """The last variable of each column that is not left out: it is known if the value is."""
        return [self.of_place[j][-1] for j in self.places]

    def usual(self, name):
        """Return an encoded value of a column that is ordinary in the rows of the fit.

        It is 0 of a column without a known value.
        """
        if name not in self.names:
            return 0.0
        column = self.columns[self.names.index(name)]
        parts = [variable.usual for variable in column.value_variables]
        return column.joined(np.array([[0.0] * column.has_flag + parts]))[0]

    def describe(self):
        """Return the rows of the table of decisions."""
        columns = self.columns[: len(self.places)]  # without spans
        rows = [*(column.describe() for column in columns), *self.left_out]
        order = {name: j for j, name in enumerate(self.encoding.keys)}
        return sorted(rows, key=lambda row: order[row["column"]])

    def with_maps_of(self, values, weight, random_state):
        """Return the same kinds, levels and rules, with what maps and rules say of some rows."""
        schema = copy.copy(self)
        plain = {
            j: values[:, j]
            for j, variable in enumerate(self.variables)
            if variable.has_number and variable.is_plain and not np.isnan(values[:, j]).any()
        }
        maps = fitted_together(plain, weight)
        schema.variables = [
            variable.with_maps_of(values[:, j], weight, random_state, maps.get(j))
            if variable.has_number
            else variable
            for j, variable in enumerate(self.variables)
        ]
        schema.rules = self.rules.with_rows(self, values, weight)
        schema.columns = [copy.copy(column) for column in self.columns]
        for column, variables in zip(schema.columns, self.of_column, strict=True):
            column.variables = [schema.variables[j] for j in variables]
        return schema

    def with_values(self, values):
        """Return variables of which no value is missing: those that are unknown exist."""
        return self._with_flags(values, np.zeros_like)

    def without_missing(self, values):
        """Return variables in which missing values are unknown: they may be missing or exist."""
        return self._with_flags(values, lambda flags: np.where(flags == 1, np.nan, flags))

    def with_unknown_values(self, values):
        """Return variables in which unknown values exist, and missing ones stay missing."""
        return self._with_flags(values, lambda flags: np.where(np.isnan(flags), 0.0, flags))

    def _with_flags(self, values, change):
        values, flags = values.copy(), list(self.flag_of.values())
        values[:, flags] = change(values[:, flags])
        return values

    def reach(self, n_draws):
        """Return the least and the largest plausible value of each variable in n draws."""
        return np.transpose([variable.reach(n_draws) for variable in self.variables])

    def outside(self, values, names, as_condition=False):
        """Yield descriptions of values outside of the kinds of some columns.

        Each is the first such value of a column with its number of rows, whether it is impossible,
        and the remedy. As conditions, only those count that say nothing about other columns.
        """
        for name in self.modelled(names):
            i = self.names.index(name)
            column = self.columns[i]
            of_column = values[:, self.of_column[i]]
            for j, variable in enumerate(column.variables):
                x = of_column[:, j]
                *_, log_scale = variable.cells(x, variable.code(x), "quantile")
                is_outside = variable.is_outside(x)
                if as_condition:
                    is_outside &= ~variable.is_informative(x)
                is_outside |= np.isneginf(log_scale)
                if not is_outside.any():
                    continue
                first = is_outside.argmax()
                yield (
                    f"{column.value_text(of_column[first], j)} in column {name!r}"
                    f"{among(is_outside)}; its values are {column.range_text(variable)}.",
                    bool(np.isneginf(log_scale[is_outside]).any()),
                    column.remedy_for(x[first], variable),
                )

    def check_possible(self, values, names):
        """Raise an error if a value of a row has no probability."""
        for text, is_impossible, _ in self.outside(values, names):
            if is_impossible:
                raise ValueError(f"given has the impossible value {text}")

    def far(self, values, names):
        """Yield descriptions of numbers and dates far from the values of the fit."""
        for name in self.modelled(names):
            i = self.names.index(name)
            column, of_column = self.columns[i], values[:, self.of_column[i]]
            j = int(column.has_flag)
            if (far := column.variables[j].is_far(of_column[:, j])).any():
                remedy = (
                    "Check its unit, or leave it out: answers about other columns are unreliable."
                )
                if column.kind == "datetime":
                    remedy = (
                        "Answers about other columns are ones for the same time of the nearest "
                        "year in fit, or the nearest date."
                    )
                yield (
                    f"{column.value_text(of_column[far.argmax()], j)} in column {name!r}"
                    f"{among(far)}, far from its values in fit: {column.seen_text}. {remedy}"
                )

    def as_conditions(self, values):
        """Return values as what they say of other variables (see `Number.as_condition`)."""
        dates = [
            j for j, variable in enumerate(self.variables) if variable.year and variable.has_number
        ]
        if not dates:
            return values
        values = values.copy()
        for j in dates:
            values[:, j] = self.variables[j].as_condition(values[:, j])
        return values

    def dates(self, values, names):
        """Yield the name of each column of dates, its dates, and the ends of its dates in fit."""
        for name in self.modelled(names):
            i = self.names.index(name)
            column = self.columns[i]
            if column.kind == "datetime":
                yield name, column.joined(values[:, self.of_column[i]]), column.seen

    def warn_of_outside(self, values, names=None, as_condition=False, what="X"):
        """Warn of the first values outside of their kind, of impossible ones if there are any.

        As conditions, numbers far from the values of the fit count too. In scores, dates count most
        of which lie before or after all dates of the fit.
        """
        names = self.names if names is None else names
        outside = sorted(self.outside(values, names, as_condition), key=lambda each: not each[1])
        for text, is_impossible, remedy in outside[:1]:
            consequence = "Such a value has a small density."
            if as_condition:
                consequence = "Nothing follows from it for other columns."
            if is_impossible:
                consequence = (
                    "The row scores -inf, and answers about its other values are unreliable."
                )
            warn_user(f"{what} has {text} {consequence}{remedy}", ColumnWarning)
        if not as_condition and not outside:
            warn_of_other_dates(self.dates(values, names))
        if as_condition and not outside:
            for text in islice(self.far(values, names), 1):
                warn_user(f"{what} has {text}", ColumnWarning)

    def place_of(self, j):
        """Return the place of the column that has variable j."""
        return next(i for i, variables in enumerate(self.of_column) if j in variables)

    def variables_of(self, cells):
        """Return a mask of variables from one of columns, of the same rows."""
        return np.repeat(cells, [*map(len, self.of_column)], axis=1)

    def mask_of(self, names):
        """Return a mask of the variables of some columns."""
        mask = np.zeros(len(self.variables), dtype=bool)
        for name in names:
            mask[self.of_column[self.names.index(name)]] = True
        return mask

    def code(self, values):
        """Return the codes of all variables."""
        return np.stack(
            [variable.code(values[:, j]) for j, variable in enumerate(self.variables)], axis=1
        )

    def cells(self, values, code, space):
        """Return rows in one of the spaces of their numbers."""
        parts = np.zeros((5, *values.shape))
        plain = [j for j, each in enumerate(self.variables) if each.has_number and each.is_plain]
        for j in np.delete(np.arange(len(self.variables)), plain):
            parts[:, :, j] = self.variables[j].cells(values[:, j], code[:, j], space)
        if plain:
            maps = [self.variables[j].maps[space] for j in plain]
            y, log_slope = forward_together(maps, values[:, plain])
            log_inside = [self.variables[j].outside.log_inside for j in plain]
            parts[:3, :, plain] = y
            parts[4][:, plain] = np.where(np.isnan(y), 0.0, log_slope + log_inside)
        return Cells(code, *parts, ~np.isnan(values))
