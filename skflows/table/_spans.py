"""The time between two dates of a row, as a column of its own.

The days of a hospital stay follow a distribution that the two dates, in a table of years, hardly
show: a model of the dates alone draws stays of months. Where a date is nearly always soon after
another, the span between them becomes one more column, after all columns of the table. It is known
where both dates are, and the rule that the later date is the earlier one plus the span keeps all
three together.
"""

import numpy as np

from ..columns.frames import Column
from ..columns.kinds import Kind, decide
from ._columns import ColumnModel, ColumnSetting
from ._rule_kinds import UNITS, Elapsed, Target
from ._rule_search import dates_that_add

SHORT = 0.25  # of the range of the dates: these show longer spans well enough
LEAST_ROWS = 30  # with both dates
SHARES = 0.05, 0.95  # between which ranges are taken, as single dates may be far out


class Span(Elapsed):
    """A later date as an earlier one plus the span, by which both have their own distribution."""

    kind = "span"

    def count(self, rows, weight):
        """Return the counts of rows, none of which can break the rule."""
        return super().count(rows, weight)._replace(share=0.0, log_holds=0.0)

    def text(self, names):
        """Return the rule as text."""
        return f"{names[self.target.column]} = {names[self.determinants[0]]} + a span"


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
        span = rows[:, high] - rows[:, low]
        unit, column = column_of(schema, high, span, weight, random_state)
        if column is None:
            continue
        determinants, line = (low, len(schema.columns)), ((1.0, unit), 0.0, None, 0.0)
        schema.add_span(column, low, high, unit)
        values = schema.with_spans(np.hstack([values, np.empty((len(values), 1))]))
        rows = np.column_stack([rows, span / unit])
        rule = Span(determinants, Target.of(schema, high), *line, rows, weight)
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


def column_of(schema, high, span, weight, random_state):
    """Return the unit of a span in seconds, and its column, in these units, if it has one.

    Its values have probabilities if the dates have, and densities per second if they have these.
    """
    known = ~np.isnan(span)
    time = schema.columns[high].value_variables[2:]
    unit, kind = UNITS["seconds"], Kind("continuous", (), "a span")
    if not (time and time[0].has_number):
        unit = next(each for each in UNITS.values() if (span[known] % each == 0).all())
        if not time and unit < UNITS["days"]:  # of dates over a change of summer time
            return unit, None
        kind = decide(span[known] / unit, "number", None)
    column = Column(np.where(known, span, 0.0) / unit, known, "number", "float64", None)
    setting = ColumnSetting(
        "span", "rare", random_state, weight[known], weight[~known].sum(), False, None
    )
    return unit, ColumnModel(column, kind, setting, models_missing=False)
