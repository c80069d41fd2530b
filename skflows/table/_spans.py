"""The time between two dates of a row, as a column of its own.

The days of a hospital stay follow a distribution that the two dates, in a table of years, hardly
show: a model of the dates alone draws stays of months. Where a date is nearly always soon after
another, the span between them becomes one more column, after all columns of the table. It is known
where both dates are, and the rule that the later date is the earlier one plus the span keeps all
three together.

Guests leave a hotel in the morning, whenever they have arrived: where the time of day of the later
date is more regular than the time of day in the span, or has a larger step than the earlier date,
such as half hours, the span has whole days, from midnight to midnight, and both dates keep their
own times of day. It also has whole days where only one date has a time.
"""

from typing import NamedTuple

import numpy as np

from ..columns.dates import DAY, start_of_day
from ..columns.frames import Column
from ..columns.kinds import Kind, decide
from ._columns import ColumnModel, ColumnSetting
from ._formula_search import dates_that_add
from ._formulas import N_DAY_PARTS, UNITS, DaysLater, Elapsed
from ._rule_kinds import Target

SHORT = 0.25  # of the range of the dates: these show longer spans well enough
LEAST_ROWS = 30  # with both dates
FREQUENT = 0.5  # share of the rows of a later date that have the earlier one, for its span to count
LEAST_REGULAR = 15  # statistic of Rayleigh's test, by which times of day are not uniform
CLEARLY = 0.7  # times the circular variance of spans, below which times of day are more regular
SHARES = 0.05, 0.95  # between which ranges are taken, as single dates may be far out


class SpanColumn(NamedTuple):
    """The place of a column of spans, the places of both dates, and its unit in seconds."""

    column: int
    low: int
    high: int
    unit: float
    has_days: bool  # from midnight to midnight, so that both dates have their times of day

    def of(self, low, high):
        """Return the spans, in its unit, between dates in seconds."""
        if self.has_days:
            low, high = start_of_day(low), start_of_day(high)
        return (high - low) / self.unit

    def told(self, schema, i):
        """Return the variables of one of the dates that the other one and the span tell."""
        parts = schema.of_column[i][schema.columns[i].has_flag :]
        return parts[:N_DAY_PARTS] if self.has_days else parts


class Span(Elapsed):
    """A later date as an earlier one plus the span, by which both have their own distribution."""

    kind = "span"

    def count(self, rows, weight):
        """Return the counts of rows, none of which can break the rule."""
        return super().count(rows, weight)._replace(share=0.0, log_holds=0.0)

    def text(self, names):
        """Return the rule as text."""
        return f"{names[self.target.column]} = {names[self.determinants[0]]} + a span"


class DaysBetween(Span, DaysLater):
    """The day of a later date as the one of an earlier date plus a span of days."""


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
    nearest = {}  # of each later date, the earlier one with the shortest span in most rows
    for low, high in orders:
        span = rows[:, high] - rows[:, low]
        span = span[~np.isnan(span)]
        is_short = len(span) >= LEAST_ROWS
        is_short = is_short and spread_of(span) <= SHORT * min(spread[low], spread[high])
        is_frequent = len(span) >= FREQUENT * (~np.isnan(rows[:, high])).sum()
        rank = not is_frequent, np.median(span), low
        if is_short and rank < nearest.get(high, (True, np.inf, low)):
            nearest[high] = rank
    rules = schema.rules
    for high, (*_, low) in sorted(nearest.items(), key=lambda each: np.nanmean(rows[:, each[0]])):
        span, column = column_of(schema, low, high, rows, weight, random_state)
        if column is None:
            continue
        schema.add_span(column, span)
        values = schema.with_spans(np.hstack([values, np.empty((len(values), 1))]))
        rows = np.column_stack([rows, span.of(rows[:, low], rows[:, high])])
        kind = DaysBetween if span.has_days else Span
        line = (1.0, span.unit), 0.0, None, 0.0
        rule = kind((low, span.column), Target.of(schema, high), *line, rows, weight)
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
    seconds = rows[:, high] - rows[:, low]
    known = ~np.isnan(seconds)
    time = schema.columns[high].value_variables[N_DAY_PARTS:]
    has_density = bool(time) and time[0].has_number
    has_days = has_whole_days(schema, low, high, rows[known], weight[known])
    unit = UNITS["days" if has_days else "seconds"]
    if not has_days and not has_density:
        unit = next(each for each in UNITS.values() if (seconds[known] % each == 0).all())
    span = SpanColumn(len(schema.columns), low, high, unit, has_days)
    if not time and unit < UNITS["days"]:  # of dates over a change of summer time
        return span, None
    x = span.of(rows[:, low], rows[:, high])
    kind = Kind("continuous", (), "a span")
    if has_days or not has_density:
        kind = decide(x[known], "number", None)
    column = Column(np.where(known, x, 0.0), known, "number", "float64", None)
    setting = ColumnSetting(
        "span", "rare", random_state, weight[known], weight[~known].sum(), False, None
    )
    return span, ColumnModel(column, kind, setting, models_missing=False)


def has_whole_days(schema, low, high, rows, weight):
    """Return whether a span has whole days.

    It has them where one date has no time of day, and where the times of day of the later date are
    clearly more regular than those in the span. They may be less regular, but not clearly, if their
    step is larger than the earlier date's, such as half hours, which spans would blur.
    """
    first, last = (schema.columns[i] for i in (low, high))
    if first.zone is not None or last.zone is not None or not (first.has_times or last.has_times):
        return False
    if not (first.has_times and last.has_times):
        return True
    days = start_of_day(rows[:, high]) - start_of_day(rows[:, low])
    # How close times of day are to each other: 1 if all are equal, about 0 if they are uniform.
    of_high, of_span = (
        abs(np.average(np.exp(2j * np.pi * x / DAY), weights=weight))
        for x in (rows[:, high], rows[:, high] - rows[:, low])
    )
    n = weight.sum() ** 2 / (weight**2).sum()  # effective number of rows
    is_regular = n * of_high**2 > LEAST_REGULAR and 1 - of_high < CLEARLY * (1 - of_span)
    steps = [each.value_variables[-1].step for each in (first, last)]
    is_coarser = steps[1] is not None and (steps[0] is None or steps[0] < steps[1])
    is_coarser = is_coarser and CLEARLY * (1 - of_high) < 1 - of_span
    return bool((is_regular or is_coarser) and np.average(days > 0, weights=weight) > 0.5)
