"""The time between two dates of a row, as a column of its own.

The days of a hospital stay follow a distribution that the two dates, in a table of years, hardly
show: a model of the dates alone draws stays of months. Where a date is nearly always soon after
another, the span between them becomes one more column, after all columns of the table. It is known
where both dates are, and the rule that the later date is the earlier one plus the span keeps all
three together.

Guests leave a hotel in the morning, whenever they have arrived: where the time of day of the later
date is more regular than the time of day in the span, the span has whole days, from midnight to
midnight, and the later date keeps its own time of day.
"""

from typing import NamedTuple

import numpy as np

from ..columns.dates import DAY
from ..columns.frames import Column
from ..columns.kinds import Kind, decide
from ._columns import ColumnModel, ColumnSetting
from ._rule_kinds import UNITS, Elapsed, Target
from ._rule_search import dates_that_add

SHORT = 0.25  # of the range of the dates: these show longer spans well enough
LEAST_ROWS = 30  # with both dates
SHARES = 0.05, 0.95  # between which ranges are taken, as single dates may be far out


class Between(NamedTuple):
    """The column of a span: its place, the places of both dates, and its unit in seconds."""

    column: int
    low: int
    high: int
    unit: float
    has_days: bool  # from midnight to midnight, so that both dates have their times of day

    def of(self, low, high):
        """Return the spans between dates in seconds."""
        if self.has_days:
            low, high = midnight(low), midnight(high)
        return (high - low) / self.unit

    def told(self, schema, i):
        """Return the variables of one of the dates that the other one and the span tell."""
        return parts_of(schema, i, self.has_days)

    def times(self, schema, i):
        """Return a list of the variables of one of the dates that they do not tell."""
        return parts_of(schema, i)[len(self.told(schema, i)) :].tolist()


class Span(Elapsed):
    """A later date as an earlier one plus the span, by which both have their own distribution."""

    kind = "span"

    def count(self, rows, weight):
        """Return the counts of rows, none of which can break the rule."""
        return super().count(rows, weight)._replace(share=0.0, log_holds=0.0)

    def text(self, names):
        """Return the rule as text."""
        return f"{names[self.target.column]} = {names[self.determinants[0]]} + a span"


class DaysBetween(Span):
    """The day of a later date as the one of an earlier date plus days."""

    def target_of(self, schema, i):
        """Return column i of the rule as a target, without the time of day of a date."""
        target = super().target_of(schema, i)
        if schema.columns[i].kind != "datetime":
            return target
        return target._replace(variables=parts_of(schema, i, has_days=True))

    def total(self, rows):
        """Return the later date, at its own time of day."""
        low, days = rows[:, self.determinants].T
        return midnight(low) + DAY * days + time_of_day(rows[:, self.target.column])

    def rest(self, rows, i):
        """Return what column i should be: an earlier date at its own time of day."""
        rest = super().rest(rows, i)
        return rest + time_of_day(rows[:, i]) if i == self.determinants[0] else rest


def midnight(seconds):
    """Return the beginnings of the days of dates without a time zone."""
    return DAY * np.floor(seconds / DAY)


def time_of_day(seconds):
    """Return seconds since midnight."""
    return seconds - midnight(seconds)


def parts_of(schema, i, has_days=False):
    """Return the variables of a date, or of its day alone."""
    parts = schema.of_column[i][schema.columns[i].has_flag :]
    return parts[:2] if has_days else parts


def spread_of_times(seconds):
    """Return the circular standard deviation of times of day, in radians."""
    turns = np.exp(2j * np.pi * seconds / DAY)
    return np.sqrt(-2 * np.log(np.clip(np.abs(turns.mean()), 1e-12, 1)))


def add_spans(schema, values, weight, random_state):
    """Add the spans between dates, and their rules, to a schema; return the variables with spans.

    Parameters
    ----------
    schema : Schema
        The columns and their rules, without spans.
    values : ndarray of shape (n, n_variables)
        The rows of the fit.
    weight : ndarray of shape (n,)
        Weight of each row.
    random_state : RandomState
        For noise on lattices.
    """
    dates = dates_that_add(schema)
    told = {rule.target.column for rule in schema.rules.functions}
    orders = [rule.columns for rule in schema.rules.orders if {*rule.columns} <= {*dates} - told]
    # Dates that other rules tell have no span: both would tell one of them.
    rows = schema.rules.encoded(schema, values)
    spread = {i: spread_of(rows[:, i]) for order in orders for i in order}
    nearest = {}  # of each later date, the earlier one with the shortest span
    for low, high in orders:
        span = rows[:, high] - rows[:, low]
        span = span[~np.isnan(span)]
        is_short = len(span) >= LEAST_ROWS
        is_short = is_short and spread_of(span) <= SHORT * min(spread[low], spread[high])
        if is_short and (high not in nearest or np.median(span) < nearest[high][0]):
            nearest[high] = np.median(span), low
    rules = schema.rules
    for high, (_, low) in sorted(nearest.items(), key=lambda each: np.nanmean(rows[:, each[0]])):
        between, column = column_of(schema, low, high, rows, weight, random_state)
        if column is None:
            continue
        schema.add_span(column, between)
        values = schema.with_spans(np.hstack([values, np.empty((len(values), 1))]))
        rows = np.column_stack([rows, between.of(rows[:, low], rows[:, high])])
        kind = DaysBetween if between.has_days else Span
        target = Target.of(schema, high)._replace(variables=between.told(schema, high))
        line = (1.0, between.unit), 0.0, None, 0.0
        rule = kind((low, between.column), target, *line, rows, weight)
        follows = those_that_follow(rules.functions, high)
        before = [each for each in rules.functions if each not in follows]
        rules.functions = [*before, rule, *follows]
    return values


def spread_of(values):
    """Return the range of most of the known values."""
    return float(np.ptp(np.nanquantile(values, SHARES)))


def those_that_follow(functions, column):
    """Return the rules whose determinants follow from a column, or are this column."""
    told, rules = {column}, []
    for rule in functions:
        if told & {*rule.determinants}:
            rules.append(rule)
            told.add(rule.target.column)
    return rules


def column_of(schema, low, high, rows, weight, random_state):
    """Return the span between two dates of encoded rows, and its column, None if it has none.

    Its values have probabilities if the dates have, and densities per second if they have these.
    """
    span = rows[:, high] - rows[:, low]
    known = ~np.isnan(span)
    time = schema.columns[high].value_variables[2:]
    has_days = are_regular(schema, low, high, rows[known])
    unit, kind = UNITS["seconds"], Kind("continuous", (), "a span")
    if has_days:
        unit = float(DAY)
    elif not (time and time[0].has_number):
        unit = next(each for each in UNITS.values() if (span[known] % each == 0).all())
    between = Between(len(schema.columns), low, high, unit, has_days)
    if not time and unit < UNITS["days"]:  # of dates over a change of summer time
        return between, None
    span = between.of(rows[:, low], rows[:, high])
    if has_days or not (time and time[0].has_number):
        kind = decide(span[known], "number", None)
    column = Column(np.where(known, span, 0.0), known, "number", "float64", None)
    setting = ColumnSetting(
        "span", "rare", random_state, weight[known], weight[~known].sum(), False, None
    )
    return between, ColumnModel(column, kind, setting, models_missing=False)


def are_regular(schema, low, high, rows):
    """Return whether later dates have more regular times of day than their spans."""
    columns = [schema.columns[i] for i in (low, high)]
    if any(len(each.value_variables) < 3 or each.zone is not None for each in columns):
        return False
    span = rows[:, high] - rows[:, low]
    if np.ptp(midnight(rows[:, high]) - midnight(rows[:, low])) == 0:  # such as shifts of a day
        return False
    return spread_of_times(rows[:, high]) < spread_of_times(span)
