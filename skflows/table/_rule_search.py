"""The search for the rules of a table."""

from itertools import combinations, groupby, permutations, product
from operator import itemgetter

import numpy as np
from scipy.stats import binom

from ..columns.dates import CALENDAR, calendar_part, start_of_day
from ._blanks import zeros_of
from ._formula_search import (
    MAX_ROWS,
    dates_of,
    elapsed_by_value_of,
    elapsed_of,
    formulas_of,
    numbers_of,
    without_reversed,
)
from ._formulas import DaysLater, ElapsedByValue, Linear, Product
from ._rule_exceptions import MAX_EXCEPTIONS, MAX_RELATIVE, are_random, codes_of
from ._rule_kinds import ROUNDING, Groups, Lookup, OfDate, Order, Target
from ._rules import Rules

MAX_PAIRS = 500  # of determinants: wider tables have functions of one column only
LEAST_TOLD = 0.2  # share of rows whose combination of determinants another row has
LEAST_OF_DATES = 0.5  # share of the rows of a date, in which what tells it is known
P_AT_ENDS = 0.2  # of as many exceptions at the ends of ranges, if these are random
LEAST_EVIDENCE = 10.0  # nats, beyond the logarithm of the number of candidates
LESS_BROKEN = 20  # times less often than independent columns break an order
NEAR = 0.2  # of the median difference: differences that show whether an order is sharp
LEAST_BY_CHANCE = 0.05  # share of rows that break it then
ROWS_BY_CHANCE, DATES_BY_CHANCE = 30, 15  # number of such rows: dates mostly have an order


def find_rules(schema, values, weight, copy_of):
    """Return the rules that hold in rows of a table.

    Parameters
    ----------
    schema : Schema
        The columns.
    values : ndarray of shape (n, n_variables)
        The rows.
    weight : ndarray of shape (n,)
        Weight of each row, 1 on average. Rules are looked for among rows of at least this weight,
        and among lighter ones in proportion to their weight.
    copy_of : ndarray of shape (n,)
        The first of the rows that each row equals: a copy is no evidence.
    """
    rows = np.stack(
        [
            column.joined(values[:, variables])
            for column, variables in zip(schema.columns, schema.of_column, strict=True)
        ],
        axis=1,
    )
    rng, some = np.random.RandomState(0), np.flatnonzero(copy_of == np.arange(len(rows)))
    of_copies = np.bincount(copy_of, weight, len(rows))[some]
    some = some[rng.uniform(size=len(some)) < of_copies + ROUNDING]
    if len(some) > MAX_ROWS:
        some = rng.permutation(some)[:MAX_ROWS]
    targets = [Target.of(schema, i) for i in range(len(schema.columns))]
    elapsed = elapsed_of(schema, rows[some])
    elapsed += elapsed_by_value_of(schema, rows[some], elapsed)
    formulas = [*formulas_of(schema, rows[some], targets), *elapsed]
    zones = {i: c.zone for i, c in enumerate(schema.columns) if c.kind == "datetime"}
    functions = functions_of(rows[some], numbers_of(schema), zones)
    zeros = zeros_of(schema, values, rows, {target for _, _, target, *_ in functions})
    candidates = [*without_reversed(formulas), *zeros, *functions]
    # A lookup takes each wrong value for the one of its own combination, where a formula tells.
    candidates.sort(key=lambda each: (issubclass(each[3], Lookup), each[0]))
    rules, ancestors = compatible(candidates)
    functions = [
        make(determinants, targets[i], *line, rows, weight)
        for _, determinants, i, make, *line in rules
    ]
    # Functions keep the order of what follows from the same columns as it is.
    family = {i: {i, *ancestors.get(i, ())} for i in range(rows.shape[1])}
    for rule in functions:
        target = rule.target.column
        known = rows[~np.isnan(rows[:, rule.columns]).any(axis=1)]
        # Times of day are free, and so are dates without a span.
        if isinstance(rule, DaysLater) or (
            isinstance(rule, ElapsedByValue) and np.isnan(rule.expected(known)).any()
        ):
            family[target] = {target}
    pairs = [(i, j) for i, j in comparable(schema) if not family[i] & family[j]]
    are_dates = [column.kind == "datetime" for column in schema.columns]
    by_day = pairs_by_day(schema)
    pairs = orders_of(rows[some], pairs, are_dates, by_day)
    orders = [Order(low, high, rows, weight, (low, high) in by_day) for low, high in pairs]
    orders.sort(key=lambda rule: rule.counts.log_broken)
    return Rules(functions, orders)


def compatible(candidates):
    """Return candidates of which no two have the same target, and none tells its own determinants.

    The first ones come first. But a sum with no more exceptions replaces a product, or a multiple,
    whose columns are among the ones that tell its terms, as it tells each term exactly. For
    example, gross amounts and rates tell taxes, and net amounts are gross amounts less taxes.

    Returns
    -------
    rules : list of tuple
        The candidates, in an order in which determinants come before what they determine.
    ancestors : dict of int to set of int
        The columns from which each target follows, at once or by way of others.
    """
    rules, ancestors = {}, {}

    def above(determinants):
        return set(determinants).union(*(ancestors.get(j, ()) for j in determinants))

    def add(candidate):
        target, ancestors_of_target = candidate[2], above(candidate[1])
        rules[target], ancestors[target] = candidate, ancestors_of_target
        for others in ancestors.values():
            if target in others:
                others |= ancestors_of_target

    for candidate in candidates:
        if candidate[2] not in rules and candidate[2] not in above(candidate[1]):
            add(candidate)
    for candidate in candidates:
        (share, *_), determinants, target, make, *line = candidate
        if make is not Linear or target not in rules or {*map(abs, line[0])} != {1.0}:
            continue
        (least, *_), implied, _, other, *_ = rules[target]
        is_implied = other is Product or (other is Linear and len(implied) == 1)
        columns = above(determinants)
        if is_implied and share <= least and columns.issuperset(implied) and target not in columns:
            add(candidate)
    return sorted(rules.values(), key=lambda rule: len(ancestors[rule[2]])), ancestors


def comparable(schema):
    """Return pairs of columns of numbers, or of dates, in both orders."""
    return [*permutations(numbers_of(schema), 2), *permutations(dates_of(schema), 2)]


def pairs_by_day(schema):
    """Return the pairs of a date with a time of day and one without, neither with a time zone."""
    dates = [(i, c) for i, c in enumerate(schema.columns) if c.kind == "datetime" and not c.zone]
    times = [i for i, column in dates if column.has_times]
    days = [i for i, column in dates if column.has_days]
    return {*product(times, days)}


def orders_of(rows, pairs, are_dates, by_day=()):
    """Return pairs of columns of which the first is at most the second, without what follows.

    The times of day of the first column do not count in the pairs ``by_day``.

    Of numbers, whose units may differ, an order with exceptions must be sharp: otherwise large
    differences are merely frequent.
    """
    n_columns = rows.shape[1]
    is_kept = np.zeros((n_columns, n_columns), dtype=bool)
    for low, each in groupby(pairs, key=itemgetter(0)):
        highs = np.array([high for _, high in each])
        is_known = ~np.isnan(rows[:, highs]) & ~np.isnan(rows[:, [low]])
        lows = np.repeat(rows[:, [low]], len(highs), axis=1)
        for k in (k for k, high in enumerate(highs) if (low, high) in by_day):
            lows[:, k] = start_of_day(lows[:, k])
        n_broken = (lows > rows[:, highs]).sum(axis=0)  # none where a value is unknown
        for k in np.flatnonzero(n_broken <= MAX_EXCEPTIONS * is_known.sum(axis=0)):
            high = highs[k]
            x, y = lows[is_known[:, k], k], rows[is_known[:, k], high]
            by_chance = np.searchsorted(np.sort(y), x).sum() / max(len(y), 1)  # if independent
            is_rare = n_broken[k] <= by_chance / LESS_BROKEN
            least = DATES_BY_CHANCE if are_dates[low] else ROWS_BY_CHANCE
            if is_rare and by_chance >= max(LEAST_BY_CHANCE * len(x), least):
                has_reason = not n_broken[k] or are_dates[low] or is_sharp(y - x)
                is_kept[low, high] = has_reason and (x != y).any()
    is_known, found = ~np.isnan(rows), []
    for low, high in np.argwhere(is_kept).tolist():
        between = is_kept[low] & is_kept[:, high]
        # Columns between them imply their order only where they are known.
        is_seen = is_known[np.ix_(is_known[:, low] & is_known[:, high], between)]
        if not is_seen.all(axis=0).any():
            found.append((low, high))
    return found


def is_sharp(gap):
    """Return whether gaps end at 0: far fewer are just below 0 than just above."""
    near = NEAR * np.median(gap)
    n_below, n_above = ((gap < 0) & (gap >= -near)).sum(), ((gap >= 0) & (gap <= near)).sum()
    return (n_below + 1) * LESS_BROKEN <= n_above + 1


def functions_of(rows, numbers, zones):
    """Return the columns that one or two others determine; some columns are numbers.

    Each is a tuple of its rank, the determinants, the target, and `Lookup`, or `OfDate` with its
    further arguments: dates, of which the zones are given, also determine by their parts. Columns
    that one column determines have no entry for two.
    """
    n_columns = rows.shape[1]
    codes = codes_of(rows)
    n_pairs = n_columns * (n_columns - 1) // 2
    n_sets = n_columns + min(n_pairs, MAX_PAIRS) + len(zones) * len(CALENDAR)
    threshold = LEAST_EVIDENCE + np.log(n_columns * n_sets)
    is_repeated = [np.bincount(code[code >= 0]).max(initial=0) > 1 for code in codes.T]
    singles = [(j,) for j in range(n_columns) if is_repeated[j]]
    pairs = list(combinations([j for (j,) in singles], 2))

    def told_by(key, determinants, others, make, *line, **kwargs):
        for target in likely_targets(key, codes):
            if target in determinants or target in others:
                continue
            # It would take the place of an order of dates, or of the span between them.
            if target in zones and (key >= 0)[codes[:, target] >= 0].mean() < LEAST_OF_DATES:
                continue
            share = share_of_exceptions(key, target, codes, threshold, **kwargs)
            if share is not None:
                # A wrong value is no reason to tell one column by two that it tells, nor by one of
                # many more values, of which few have two rows.
                n_keys = len(np.unique(key))
                rank = (round(share, 2), len(determinants), n_keys.bit_length(), round(share, 3))
                rank = (*rank, n_keys, determinants)
                yield rank, determinants, target, make, *line

    functions = []
    for (j,) in singles:
        functions += told_by(codes[:, j], (j,), (), Lookup, is_ordered=j in numbers)
    for j, zone in zones.items():
        for part in CALENDAR:
            key = codes_of(calendar_part(rows[:, j], part, zone, j)[:, None])[:, 0]
            functions += told_by(key, (j,), (), OfDate, part, zone)
    told = {target for _, _, target, *_ in functions}
    for determinants in pairs if len(pairs) <= MAX_PAIRS else ():
        first, second = single_keys = codes[:, determinants].T
        is_known = (first >= 0) & (second >= 0)
        key = np.where(is_known, first * (second.max() + 1) + second, -1)
        functions += told_by(key, determinants, told, Lookup, single_keys=single_keys)
    return functions


def likely_targets(key, codes):
    """Return the columns in which neighbours in the order of a key mostly agree."""
    order = np.argsort(key, kind="stable")
    key, codes = key[order], codes[order]
    same = np.flatnonzero((key[1:] == key[:-1]) & (key[1:] >= 0))
    first, second = codes[same], codes[same + 1]
    known = (first >= 0) & (second >= 0)
    n_different = (known & (first != second)).sum(axis=0)
    n_known = known.sum(axis=0)
    return np.flatnonzero(known.any(axis=0) & (n_different <= 2 * MAX_EXCEPTIONS * n_known))


def share_of_exceptions(key, target, codes, threshold, single_keys=(), is_ordered=False):
    """Return the share of exceptions of a function, or None if it is none.

    A function of two columns, whose codes are ``single_keys``, is none if one of them says as much.
    Nor is a function of a number, whose codes are in its order, if ranges of its results overlap,
    and the next lower and higher values say as much: repeated values then agree by chance.
    """
    result = codes[:, target]
    known = (key >= 0) & (result >= 0)
    key, result, codes = key[known], result[known], codes[known]
    groups = Groups(key, result, result.max(initial=0) + 1)
    n, n_exceptions = groups.tells.sum(), (groups.is_unforeseen & groups.tells).sum()
    n_free = n - groups.n_groups  # results that the first row of their group does not set
    if n_free <= 0 or n < LEAST_TOLD * len(key) or n_exceptions > MAX_EXCEPTIONS * n:
        return None
    shares = np.bincount(result) / len(result)
    by_chance, n_errors = (shares**2).sum(), n * (1 - shares.max())
    for single_key in single_keys:
        single = Groups(single_key[known], result, len(shares))
        n_errors = min(n_errors, single.is_exception[groups.tells].sum())
    if is_ordered and n_exceptions:
        n_errors = min(n_errors, errors_of_neighbours(groups, key, result))
    by_chance, share = max(by_chance, 1 - n_errors / n), n_exceptions / n
    is_better = n_exceptions <= MAX_RELATIVE * n_errors
    if not is_better or n_free * divergence(1 - share, by_chance) < threshold:
        return None
    others = np.delete(codes[groups.tells], target, axis=1)
    return share if are_random(groups.is_exception[groups.tells], others) else None


def errors_of_neighbours(groups, key, result):
    """Return how many rows have another result than the next keys, if ranges of results overlap.

    They do if a result has several ranges of keys, or if exceptions gather at the ends of ranges.
    """
    first, tells = groups.first, groups.tells
    is_step = np.diff(first) != 0
    group = np.searchsorted(groups.keys, key[tells])
    is_at_end = (np.append(is_step, False) | np.append(False, is_step))[group]
    is_exception = groups.is_exception[tells]
    by_chance = binom.sf(is_at_end[is_exception].sum() - 1, is_exception.sum(), is_at_end.mean())
    if is_step.sum() < len(np.unique(first)) and by_chance >= P_AT_ENDS:
        return np.inf
    lower, higher = np.append(first[1:2], first[:-1]), np.append(first[1:], first[-2:-1])
    return sum((each[group] != result[tells]).sum() for each in (lower, higher)) / 2


def divergence(p, q):
    """Return the divergence of a probability from a smaller one, 0 if it is none."""
    if p <= q or q >= 1:
        return 0.0
    return p * np.log(p / q) + (0.0 if p == 1 else (1 - p) * np.log((1 - p) / (1 - q)))
