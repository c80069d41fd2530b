"""Which columns are sums or products of others, or dates that are a span of time after others."""

from functools import partial
from itertools import chain, combinations, permutations, product
from math import comb, perm

import numpy as np

from ._columns import Weeks
from ._formulas import (
    HALF,
    LIKELY,
    MONTHS,
    STEPS_APART,
    UNITS,
    DaysLater,
    DaysLaterByValue,
    Elapsed,
    ElapsedByValue,
    FactorByValue,
    Linear,
    MonthsLater,
    Product,
    ProductAndTerm,
    Quotient,
    RoundedSum,
    factors_of,
    lattice_of_variable,
    nonzero,
    rounded,
)
from ._missing import columns_of_levels
from ._rule_exceptions import FEW_EXCEPTIONS, MAX_EXCEPTIONS, MAX_RELATIVE, are_random, codes_of
from ._rule_kinds import ROUNDING

MAX_ROWS = 5_000  # among which rules are looked for
FEW_OF_FORMULAS = 0.02  # of numbers that are equal to a formula up to rounding
LEAST_ROWS, LEAST_DISTINCT = 20, 3  # known rows, and distinct values, of a linear rule
LEAST_OTHERS = 10  # rows in which its target differs from its most frequent value
N_SCREENED = 100  # rows, of which LIKELY show which sums may be constant, and the best lines
N_LINES = 20  # of which all rows show which is best
MAX_NUMBERS = 100  # among which longer sums are looked for
LEAST_TERMS, NEAR_ONE = 4, 0.2  # of sums that a regression shows, and how close factors are to 1
MAX_SUMS = 250_000  # of three or four columns: tables of more than 30 have sums of fewer
MAX_PAIRS_OF_TERMS = 600  # of multiples: tables of more than 35 columns have none
TRIMMED, N_TRIMS = 0.8, 4  # share of rows that fit best, and least squares of these, one by one
MOST_KNOWN = 0.5  # share of rows that know a column, from which on complete rows are enough
CLOSE = 0.25  # median error of a first fit, in standard deviations, that more may improve
LEAST_SPREAD = 5  # standard deviation in steps, below which multiples fit by chance
MAX_PRODUCTS = 50_000  # tables of more than 46 columns of numbers have none
MAX_VALUES, LEAST_OF_VALUE = 50, 3  # of a column that has a factor for each, and rows of each
N_VALUES = 3  # the most frequent ones, which show the pairs of numbers
MAX_TRIPLES = 200_000  # of two numbers and such a column: tables of more than 58 columns have none
MAX_ELAPSED = 2_000  # pairs of dates times numbers: beyond, times between dates are constant
TOLERANCE = 0.51  # steps by which rounding may move a sum
# The same if its columns were rounded on their own; their least deviation, in steps.
TOLERANCE_APART, LEAST_SPREAD_APART = 1.51, 8
SLACK = 2.0  # steps by which a line may miss its target before it is refined
SECOND = 1.0
DIGITS = 3  # of the factor of a product
DECIMALS = range(7)  # of factors that are tried, or of their inverses
NUDGES = (HALF, 0.0, -HALF)  # steps, before rounding


def formulas_of(schema, rows, targets):
    """Return the columns that are sums, products or quotients of others, or a line of one.

    Each is a tuple of its rank, the determinants, the target, a `Formula` such as `Linear`, and
    its further arguments.
    """
    multipliers, numbers = varying(rows, numbers_of(schema))
    steps = {}
    for i in multipliers:
        (variable,) = schema.columns[i].value_variables
        steps[i] = lattice_of_variable(variable)[1] or np.exp(targets[i].log_width)
    rules, are_lines = [], set()  # targets that are exactly on a line of another column
    relations = (
        (Linear, all_sums_of(rows, multipliers, numbers, steps)),
        (Linear, among_known(multiples_of, rows, numbers, steps)),
        (Product, products_of(rows, multipliers, numbers, steps)),
        (ProductAndTerm, among_known(products_and_terms_of, rows, multipliers, steps)),
        (Quotient, quotients_of(rows, numbers, steps)),
        (Linear, lines_of(rows, numbers, steps)),
        (FactorByValue, multiples_by_value_of(rows, numbers, steps)),
    )
    for make, (determinants, target, *line) in (
        (make, relation) for make, found in relations for relation in found
    ):
        if len(determinants) == 1 and target in are_lines:
            continue
        if make is FactorByValue and any(
            {*determinants, target} == {*columns, other} for _, columns, other, *_ in rules
        ):  # a product says more, as an earlier one of these does
            continue
        (variable,) = schema.columns[target].value_variables
        others, factors, constant = make.terms(rows[:, determinants], *line)
        known = ~(np.isnan(rows[:, target]) | np.isnan(others).any(axis=1))
        if known.sum() < LEAST_ROWS:
            continue
        x, columns, others = rows[known, target], rows[known][:, determinants], others[known]
        lines = [(factors, constant)]
        if len(determinants) == 1 and abs(factors[0]) != 1:
            lines = refinements(x, others[:, 0], factors[0], constant, steps[target])

        options = [(*line, nudge) for line in lines for nudge in NUDGES]
        misses = partial(misses_of, variable=variable, tolerance=targets[target].tolerance)
        order = (
            misses(options, x[:N_SCREENED], others[:N_SCREENED]).sum(axis=0).argsort(kind="stable")
        )
        options = [options[k] for k in order[:N_LINES]]
        are_exceptions = misses(options, x, others)
        *best, nudge = options[are_exceptions.sum(axis=0).argmin()]
        # A term that never changes its target agrees with a few wrong values by chance.
        if (np.abs(best[0]) * np.ptp(others, axis=0) < steps[target]).any():
            continue
        # A half may be rounded up in some rows and down in others.
        is_exception = misses([(*best, each) for each in NUDGES], x, others).all(axis=1)
        share = is_exception.mean()
        # A column that is nearly constant may be left out, and a sum tells little of it.
        in_steps = np.rint(x / steps[target])  # far apart, but within a step of a heavy tail
        most = [np.unique(each, return_counts=True)[1].max() for each in (in_steps, *columns.T)]
        if len(x) - most[0] < LEAST_OTHERS:
            continue
        most_exceptions = min(MAX_EXCEPTIONS, MAX_RELATIVE * (1 - max(most) / len(x)))
        is_sum = len(factors) > 1 and set(map(abs, factors)) == {1.0}
        places = np.array([[*determinants, target]])
        if share > most_exceptions and is_sum and may_be_rounded_apart(places, rows[known], steps):
            make, tolerance = RoundedSum, STEPS_APART * steps[target]
            is_exception = misses_of([(*best, nudge)], x, others, variable, tolerance)[:, 0]
            share = is_exception.mean()
        if share > most_exceptions:
            continue
        if may_be_exceptions(is_exception, rows[known], target):
            line = best if issubclass(make, Linear) else line
            n_negative = sum(factor < 0 for factor in best[0])
            rank = (round(share, 3), len(determinants) - 1.5, n_negative, (-target,))
            rules.append((rank, determinants, target, make, *line, variable, nudge))
            if len(determinants) == 1 and rank[0] == 0:  # no other line would be better
                are_lines.add(target)
    return with_clearest_first(rules, rows, schema, targets)


def with_clearest_first(formulas, rows, schema, targets):
    """Return formulas in which the clearest one of several of the same columns comes first.

    Of a product and quotients it is the one that needs no rounding, such as a total of several
    pieces, or else of whose determinants the fewest values fit: shares in per cent, rather than the
    amount that is shared. Of sums it is one of whose terms the fewest fit: what remains of a budget
    of full thousands, rather than the budget.
    """
    groups: dict = {}
    for k, (rank, determinants, target, make, *line) in enumerate(formulas):
        is_sum = make is Linear and len(determinants) > 1
        if is_sum or make in (Product, Quotient):
            columns = [*determinants, target]
            some = rows[~np.isnan(rows[:, columns]).any(axis=1)][:N_SCREENED]
            rule = make(determinants, targets[target], *line, some, np.ones(len(some)))
            is_exact = np.isclose(rule.total(some), some[:, target], rtol=ROUNDING, atol=0.0)
            is_rounded = not is_sum and is_exact.mean() < LIKELY
            n_fit = round(ambiguity(rule, some, schema), 1) if is_sum or is_rounded else 0.0
            order = is_rounded, n_fit, make is Quotient
            groups.setdefault((frozenset(columns), is_sum), []).append((order, rank, k))
    formulas = list(formulas)
    for group in groups.values():
        (best, (share, *_), _), *others = sorted(group)
        for order, (own, size, n_negative, *rest), k in others:
            if order > best:
                # More than any sum has negative terms.
                rank = max(own, share), size, n_negative + rows.shape[1], *rest
                formulas[k] = (rank, *formulas[k][1:])
    return formulas


def ambiguity(rule, rows, schema):
    """Return how many values of determinants fit a target, as the sum of their logarithms."""
    total, tolerances, logs = rule.total(rows), rule.tolerances(schema), 0.0
    for i, tolerance in zip(rule.determinants, tolerances, strict=True):
        moved = rows.copy()
        moved[:, i] += tolerance
        change = np.nanmedian(np.abs(rule.total(moved) - total))
        logs += max(0.0, np.log(rule.target.tolerance / max(change, 1e-300)))
    return logs


def without_reversed(formulas):
    """Return formulas without lines that serve better from their target to their determinant.

    A net amount that is the sum of others leaves the gross amount to be told by it, whichever
    follows from the other with fewer exceptions.
    """
    shares = {(*each[1], each[2]): each[0][0] for each in formulas if len(each[1]) == 1}

    def exceptions(i, other):
        """Return the least share of exceptions with which several columns tell column i."""
        return min(
            (
                rank[0]
                for rank, determinants, target, *_ in formulas
                if target == i and len(determinants) > 1 and other not in determinants
            ),
            default=1.0,
        )

    def is_reversed(determinants, target):
        i = determinants[0]
        if len(determinants) > 1 or (target, i) not in shares:
            return False
        share = exceptions(target, i)
        return share <= max(shares[i, target], FEW_EXCEPTIONS) and share < exceptions(i, target)

    return [each for each in formulas if not is_reversed(each[1], each[2])]


def elapsed_of(schema, rows):
    """Return the dates that are another date plus a span of time, as `formulas_of` does.

    The span is constant, or a number of weeks, days, hours, minutes or seconds plus a constant; or
    it is one of months or years of the calendar, or of days, whatever the times of day.
    """
    dates = dates_that_add(schema)
    local = [i for i in dates_of(schema) if schema.columns[i].zone is None]
    days = permutations([i for i in local if i in dates], 2)
    days = [pair for pair in days if any(schema.columns[i].has_times for i in pair)]
    numbers = numbers_of(schema)
    if max(perm(len(dates), 2), perm(len(local), 2)) * len(numbers) > MAX_ELAPSED:
        numbers = []
    rules = []
    for make, pairs, units in (
        (Elapsed, permutations(dates, 2), UNITS.values()),
        (MonthsLater, permutations(local, 2), MONTHS.values()),
        (DaysLater, days, [UNITS["days"]]),
    ):
        for first, target in pairs:
            spans = [((first, j), (1.0, unit)) for j in numbers for unit in units]
            if make is not DaysLater:  # of a constant day, times of day say more
                spans.insert(0, ((first,), (1.0,)))
            for determinants, factors in spans:
                rule = span_of(make, determinants, factors, target, rows)
                if rule is not None:
                    rules.append(rule)
                    if rule[0][0] == 0:
                        break  # no number would be better
    return rules


def elapsed_by_value_of(schema, rows, elapsed):
    """Return the dates that are another one plus a span for each value of a column.

    They are tuples as `formulas_of` returns. Columns of numbers that tell the span say more, as
    the rules of `elapsed_of` do.
    """
    told = {frozenset((*determinants, target)) for _, determinants, target, *_ in elapsed}
    adding, rules = {*dates_that_add(schema)}, []
    local = {i for i in dates_of(schema) if schema.columns[i].zone is None}
    pairs = [*permutations(sorted(adding | local), 2)]
    listed = columns_of_levels(schema)
    for column in listed if len(pairs) * len(listed) <= MAX_ELAPSED else ():
        groups = rows_by_value(rows[:, column])
        for pair in pairs if groups else ():
            if frozenset((*pair, column)) in told:
                continue
            spans = [Elapsed] * (adding >= {*pair}) + [MonthsLater] * (local >= {*pair})
            makes = [(ElapsedByValue, spans)]
            if adding & local >= {*pair} and any(schema.columns[i].has_times for i in pair):
                makes.append((DaysLaterByValue, [DaysLater]))
            for make, kinds in makes:
                rule = spans_of(make, kinds, *pair, column, groups, rows)
                if rule is not None:
                    rules.append(rule)
                    break
    return rules


def spans_of(make, kinds, first, target, column, groups, rows):
    """Return a date as another one plus a span for each value of a column, None if it is none.

    The groups are the rows of each value, most rows first. Some values may have no span.
    """
    is_known = ~np.isnan(rows[:, first] + rows[:, target])
    groups = {value: some[is_known[some]] for value, some in groups.items()}
    n_left = (1 - MOST_KNOWN) * sum(map(len, groups.values()))  # rows that may have no span
    fits = {}
    for value, some in groups.items():
        for n in sorted({min(N_SCREENED, len(some)), len(some)}):  # few show that most are no rule
            part = some[:n]
            x, y = rows[np.ix_(part, [first])], rows[part, target]
            of_value = [span_and_misses(kind, x, y) for kind in kinds if len(part)]
            is_span = len(part) >= LEAST_OF_VALUE
            if not is_span or min(misses.mean() for _, misses in of_value) > 1 - LIKELY:
                n_left -= len(some)
                break
        else:
            fits[value] = of_value
        if n_left < 0:
            return None

    def best(prefers_months):
        return {
            value: min(each, key=lambda fit: (fit[1].sum(), prefers_months and fit[0][1] != 0))
            for value, each in fits.items()
        }

    chosen = best(False)
    if any(months for (months, _), _ in chosen.values()):
        chosen = best(True)  # of few rows, which may be in months of the same length
    spans = {value: span for value, (span, _) in chosen.items()}
    ordered, at_once = [*spans.values()], (0.0, 0.0)
    if len({*ordered}) < 2 or ordered[0] < at_once or min(ordered) < at_once == ordered[0]:
        return None  # of two dates, the one that is mostly later is the target
    told = np.concatenate([groups[value] for value in spans])
    is_exception = np.concatenate([misses for _, misses in chosen.values()])
    n_rows = dict.fromkeys(ordered, 0)
    for value, span in spans.items():
        n_rows[span] += len(groups[value])
    n_errors, n_exceptions = len(told) - max(n_rows.values()), is_exception.sum()
    if (
        len(told) < LEAST_ROWS
        or n_exceptions > min(MAX_EXCEPTIONS * len(told), MAX_RELATIVE * n_errors)
        or np.ptp(rows[told, first]) == 0
        or not may_be_exceptions(is_exception, rows[told], target)
    ):
        return None
    values = sorted(spans)
    months, seconds = zip(*(spans[value] for value in values), strict=True)
    # Of several columns that tell the spans, the one with the fewest values comes first.
    rank = (round(float(is_exception.mean()), 3), 0.5, len(values), (-target,))
    line = tuple(values), months, seconds, None, 0.0
    return rank, (first, column), target, make, *line


def span_and_misses(kind, x, y):
    """Return the months and seconds between dates x and y, and which dates are not so far apart."""
    constant, errors = kind.constant_and_errors(x, (1.0,), y)
    span = constant if kind is MonthsLater else (0.0, constant)
    return span, np.abs(errors) > SECOND / 2


def span_of(make, determinants, factors, target, rows):
    """Return a date as another one plus a span, as `formulas_of` does, or None if it is none."""
    for some in rows[: 2 * N_SCREENED], rows:  # few show that most combinations are no rule
        known = some[~np.isnan(some[:, [*determinants, target]]).any(axis=1)]
        if len(known) >= LEAST_ROWS:
            columns, y = known[:, determinants], known[:, target]
            constant, error = make.constant_and_errors(columns, factors, y)
            is_exception = np.abs(error) > SECOND / 2
            if is_exception.mean() > 1 - LIKELY:
                return None
    if len(known) < LEAST_ROWS:
        return None
    share = is_exception.mean()
    is_later = len(determinants) > 1 or make.is_later(constant)  # of two dates, one is the target
    if share > MAX_EXCEPTIONS or not is_later or np.ptp(columns[:, 0]) == 0:
        return None
    if not may_be_exceptions(is_exception, known, target):
        return None
    rank = (round(share, 3), len(determinants) - 1.5, 0, (-target,))
    return rank, determinants, target, make, factors, constant, None, 0.0


def misses_of(lines, x, others, variable, tolerance):
    """Return which values differ from sums of other columns, of shape ``(n, n_lines)``.

    Each line is a tuple of factors, a constant and a nudge.
    """
    factors, constants, nudges = (np.array(each) for each in zip(*lines, strict=True))
    expected = rounded(others @ factors.T + constants, variable, nudges)
    return ~(np.abs(x[:, None] - expected) <= tolerance)


def may_be_exceptions(is_exception, rows, target):
    """Return whether the exceptions of a formula, in rows, do not depend on the other columns."""
    return are_random(is_exception, np.delete(codes_of(rows), target, axis=1), FEW_OF_FORMULAS)


def may_be_rounded_apart(sets, rows, steps):
    """Return which sets of columns may be sums up to a step, as each was rounded on its own.

    Their columns have the same step, which is small beside their range: otherwise sums agree by
    chance.
    """
    columns = np.unique(sets)
    step, spread = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    step[columns] = [steps[j] for j in columns]
    spread[columns] = rows[:, columns].std(axis=0)
    is_small = spread >= LEAST_SPREAD_APART * step
    is_same = np.ptp(step[sets], axis=1) <= ROUNDING * step[sets].max(axis=1)
    return is_same & is_small[sets].all(axis=1)


def among_known(search, rows, numbers, steps):
    """Yield what a search in complete rows finds, also of columns that most rows lack.

    A column that few rows know is searched in these, beside the columns that most of them know.
    """
    is_known = ~np.isnan(rows)
    is_frequent = is_known.mean(axis=0) >= MOST_KNOWN
    yield from search(rows, [j for j in numbers if is_frequent[j]], steps)
    for rare in (j for j in numbers if not is_frequent[j]):
        some = is_known[:, rare]
        beside = is_known[some].mean(axis=0) >= MOST_KNOWN
        for determinants, target, *line in search(
            rows[some], [j for j in numbers if beside[j]], steps
        ):
            if rare in (*determinants, target):
                yield determinants, target, *line


def varying(rows, numbers):
    """Return the columns with at least two values, such as two rates, and with at least three."""
    n_distinct = {i: len(np.unique(rows[~np.isnan(rows[:, i]), i])) for i in numbers}
    return tuple([i for i in numbers if n_distinct[i] >= least] for least in (2, LEAST_DISTINCT))


def n_sums(n, size):
    """Return how many sums and differences of some of n columns there are."""
    return comb(n, size) * 2 ** (size - 1)


def all_sums_of(rows, multipliers, numbers, steps):
    """Yield short sums, then long ones, of columns that two values are enough for, or more."""
    # A term may have two values, such as no postage or 4.90, unless there are many such columns.
    in_sums = multipliers if n_sums(len(multipliers), 4) <= MAX_SUMS else numbers
    search = partial(sums_of, pairs={*in_sums} - {*numbers})
    short = [*among_known(search, rows, in_sums, steps)]
    yield from short
    long = partial(long_sums_of, targets={*numbers}, short=short)
    yield from among_known(long, rows, in_sums, steps)


def sums_of(rows, numbers, steps, pairs=()):
    """Yield sums and differences of two or three columns that a further column may be.

    Of one sum, each of its columns is a target once. One term may be of the ``pairs``, columns of
    two values, if its target has a wide range.

    Each is a tuple of the determinants, the target, and the ``line`` of a rule: of `Linear`, their
    factors 1 or -1, and a constant.
    """
    known = rows[~np.isnan(rows[:, numbers]).any(axis=1)]
    if len(known) < LEAST_ROWS:
        return
    known, steps = known[:N_SCREENED], steps | dict.fromkeys(pairs, 0.0)  # they are no lattice
    is_narrow = {j: known[:, j].std() < LEAST_SPREAD * steps[j] for j in numbers}
    for size in (3, 4):
        signs = np.array([(1, *each) for each in product((1, -1), repeat=size - 1)])
        if not 0 < n_sums(len(numbers), size) <= MAX_SUMS:
            return
        sets = np.array([*combinations(numbers, size)], dtype=int)
        n_pairs = np.isin(sets, [*pairs]).sum(axis=1)
        sets, n_pairs = sets[n_pairs <= 1], n_pairs[n_pairs <= 1]
        is_apart = may_be_rounded_apart(sets, known, steps)
        width = np.array([max(steps[j] for j in each) for each in sets])
        width *= np.where(is_apart, TOLERANCE_APART, TOLERANCE)
        for sign in signs:
            total = sum(s * known[:, sets[:, k]] for k, s in enumerate(sign))
            constant = np.median(total, axis=0)
            is_constant = (np.abs(total - constant) <= width).mean(axis=0) >= LIKELY
            for i in np.flatnonzero(is_constant):
                for target in range(size):
                    others = [k for k in range(size) if k != target]
                    j = int(sets[i, target])
                    if n_pairs[i] and (j in pairs or is_narrow[j]):
                        continue
                    yield (
                        tuple(int(sets[i, k]) for k in others),
                        j,
                        tuple(float(-sign[k] * sign[target]) for k in others),
                        float(constant[i] * sign[target]),
                    )


def long_sums_of(rows, numbers, steps, targets, short):
    """Yield sums and differences of four or more columns that a target may be, as `sums_of` does.

    Factors near 1 or -1 in a regression on other columns show which are its terms. The columns of
    short sums that are the same number, and copies and multiples, would share the factors.
    """
    if not LEAST_TERMS < len(numbers) <= MAX_NUMBERS:
        return
    known = rows[~np.isnan(rows[:, numbers]).any(axis=1)][: max(N_SCREENED, 2 * len(numbers))]
    if len(known) < max(LEAST_ROWS, 2 * len(numbers)):
        return
    scale = known.std(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # of constants
        is_line = np.abs(np.corrcoef(known, rowvar=False)) > 1 - ROUNDING
    for target in (j for j in numbers if j in targets):
        same = {j for terms, each, *_ in short if each == target for j in terms}
        others = []
        for j in numbers:
            is_new = not is_line[j, [target, *others]].any()
            if is_new and j not in same and scale[j] > 0:
                others.append(j)
        if len(others) < LEAST_TERMS:
            continue
        others = np.array(others)
        terms, y = known[:, others] / scale[others], known[:, target]
        terms = np.column_stack([terms, np.ones(len(known))])
        slopes, _ = trimmed_fit(terms, y, steps[target])
        slopes = slopes[:-1] / scale[others]
        is_term = np.abs(np.abs(slopes) - 1) <= NEAR_ONE
        if is_term.sum() < LEAST_TERMS:
            continue
        signs, places = np.sign(slopes[is_term]), others[is_term]
        rest = y - known[:, places] @ signs
        is_apart = may_be_rounded_apart(np.array([[*places, target]]), known, steps)
        width = max(steps[j] for j in (*places, target))
        width *= TOLERANCE_APART if is_apart else TOLERANCE
        constant = np.median(rest)
        if (np.abs(rest - constant) <= width).mean() >= LIKELY:
            yield tuple(places.tolist()), int(target), tuple(signs.tolist()), float(constant)


def trimmed_fit(terms, y, step):
    """Return the slopes of a least squares fit to the rows that fit best, and all errors."""
    is_near = np.ones(len(y), dtype=bool)
    for _ in range(N_TRIMS):
        slopes = np.linalg.lstsq(terms[is_near], y[is_near], rcond=None)[0]
        error = np.abs(y - terms @ slopes)
        is_near = error <= max(np.quantile(error, TRIMMED), step)
    return slopes, error


def multiples_of(rows, numbers, steps):
    """Yield sums of two columns times factors that a further column may be, as `sums_of` does.

    The factors have few digits, such as 3 in points = 3 * won + drawn.
    """
    known = rows[~np.isnan(rows[:, numbers]).any(axis=1)][:N_SCREENED]
    if len(known) < LEAST_ROWS or comb(len(numbers), 2) > MAX_PAIRS_OF_TERMS:
        return
    centre, scale = known.mean(axis=0), known.std(axis=0)
    numbers = [j for j in numbers if scale[j] > 0]
    wide = [j for j in numbers if scale[j] >= LEAST_SPREAD * steps[j]]
    for pair in combinations(numbers, 2):
        targets = [j for j in wide if j not in pair]
        terms = (known[:, pair] - centre[[*pair]]) / scale[[*pair]]
        if not targets or abs(np.mean(terms.prod(axis=1))) > 1 - 1e-9:  # they are on a line
            continue
        terms = np.column_stack([terms, np.ones(len(terms))])
        slopes = np.linalg.lstsq(terms, known[:, targets], rcond=None)[0]
        error = np.median(np.abs(known[:, targets] - terms @ slopes), axis=0)
        for target in np.array(targets)[error <= CLOSE * scale[targets]]:
            y, step = known[:, target], steps[target]
            slopes, error = trimmed_fit(terms, y, step)
            if (error <= SLACK * step).mean() < LIKELY:
                continue
            factors = [float(f"{each:.{DIGITS}g}") for each in slopes[:2] / scale[[*pair]]]
            if 0.0 in factors or set(map(abs, factors)) == {1.0}:  # a line, or a sum
                continue
            rest = y - known[:, pair] @ np.array(factors)
            constant = round(np.median(rest) / step, 2) * step
            if (np.abs(rest - constant) <= TOLERANCE * step).mean() >= LIKELY:
                yield pair, int(target), tuple(factors), float(constant)


def products_of(rows, multipliers, numbers, steps):
    """Yield products of two or three columns that a further column may be, as `sums_of` does.

    They have a coefficient with few digits, and the rates of `Product`: columns between 0 and 100
    may be per cents that are added or subtracted.
    """
    if comb(len(multipliers), 2) * len(multipliers) > MAX_PRODUCTS:
        return
    columns, rates = [*range(rows.shape[1])], [0.0] * rows.shape[1]
    for j, rate in rates_of(rows, multipliers).items():
        columns += [j, j]
        rates += [-rate, rate]
    factors = [*multipliers, *range(rows.shape[1], len(columns))]
    in_pairs, in_triples = (
        factors if comb(len(factors), k) * len(numbers) <= MAX_PRODUCTS else multipliers
        for k in (2, 3)
    )
    columns, rates = np.array(columns), np.array(rates)
    rows = factors_of(rows[:, columns], rates)
    pairs, triples = combinations(in_pairs, 2), triples_of(rows, in_triples, numbers, steps)
    for factors in chain(pairs, triples):
        determinants = tuple(columns[[*factors]].tolist())
        if len({*determinants}) < len(factors):
            continue  # a column and its rate
        values = rows[:, factors].prod(axis=1)
        own = rates[[*factors]]
        targets = [j for j in numbers if j not in determinants]
        for target, short in multiples_among(values, rows, targets, steps):
            tolerance = TOLERANCE * steps[target]
            if rates_matter(rows[:, target], rows[:, factors], own, short, tolerance):
                yield determinants, target, short, tuple(own.tolist())


def multiples_among(values, rows, targets, steps):
    """Yield the columns that are values times a number of few digits, and this number."""
    some = np.flatnonzero(np.isfinite(values) & (values != 0))[: 2 * N_SCREENED]
    if len(some) < LEAST_ROWS:
        return
    known, values = rows[np.ix_(some, targets)], values[some, None]
    ratios, count = lower_medians((known / values).T), (~np.isnan(known)).sum(axis=0)
    shorts, tolerances = short_numbers(ratios), [TOLERANCE * steps[j] for j in targets]
    n_misses = (np.abs(known - shorts[:, None] * values) > tolerances).sum(axis=1)
    for k in np.flatnonzero(count >= LEAST_ROWS):
        short = shorts[n_misses[:, k].argmin(), k]
        if short and n_misses[:, k].min() <= (1 - LIKELY) * count[k]:
            yield targets[k], short


def quotients_of(rows, numbers, steps):
    """Yield quotients of two columns that a further column may be, as `sums_of` yields sums.

    Their ``line`` is a factor with few digits, and the power of the divisor.
    """
    if perm(len(numbers), 3) > MAX_PRODUCTS:
        return
    for first, second in permutations(numbers, 2):
        targets = [j for j in numbers if j not in (first, second)]
        for power in 1, 2:
            divisor = rows[:, second] ** power
            factors = np.column_stack([rows[:, first], 1 / nonzero(divisor)])
            for target, short in multiples_among(factors.prod(axis=1), rows, targets, steps):
                own, tolerance = np.ones(2), TOLERANCE * steps[target]
                if rates_matter(rows[:, target], factors, own, short, tolerance):
                    yield (first, second), target, short, power


def products_and_terms_of(rows, multipliers, steps):
    """Yield products of two columns plus or minus a third, as `sums_of` yields sums."""
    known = rows[~np.isnan(rows[:, multipliers]).any(axis=1)][:N_SCREENED]
    if len(known) < LEAST_ROWS:
        return
    deviation = known.std(axis=0)
    # Where few steps vary, such numbers agree by chance.
    numbers = [j for j in multipliers if deviation[j] >= LEAST_SPREAD * steps[j]]
    if comb(len(multipliers), 2) * len(numbers) ** 2 > MAX_SUMS:
        return
    numbers = np.array(numbers, dtype=int)
    tolerance = TOLERANCE * np.array([steps[j] for j in numbers])
    terms = known[:, numbers]
    for pair in combinations(multipliers, 2):
        value = known[:, pair].prod(axis=1)[:, None]
        for sign in 1.0, -1.0:
            for term in range(len(numbers)):
                error = np.abs(terms - value - sign * terms[:, [term]])
                is_target = (error <= tolerance).mean(axis=0) >= LIKELY
                is_target &= value.std() >= LEAST_SPREAD * tolerance
                for target in np.flatnonzero(is_target):
                    columns = *pair, int(numbers[term]), int(numbers[target])
                    if len({*columns}) == len(columns):
                        yield columns[:3], columns[3], sign


def rates_matter(x, factors, rates, coefficient, tolerance):
    """Return whether a product holds in far more rows than with one of its rates at its median.

    A factor near 1 often vanishes in rounding, so that few rows would tell it from none.
    """
    if not rates.any():
        return True
    known = ~np.isnan(factors).any(axis=1) & ~np.isnan(x)
    x, factors = x[known], factors[known]

    def n_exceptions(factors, coefficients):
        expected = np.multiply.outer(coefficients, factors.prod(axis=1))
        return (np.abs(x - expected) > tolerance).sum(axis=1).min()

    most = MAX_RELATIVE * len(x)
    for i in np.flatnonzero(rates):
        constant = factors.copy()
        constant[:, i] = np.median(factors[:, i])
        values, coefficients = constant.prod(axis=1), [coefficient]
        if (tells := values != 0).any():  # a rate of 100 % may be the median
            ratio = np.median(x[tells] / values[tells])
            coefficients += [float(f"{ratio:.{digits}g}") for digits in (2, DIGITS, 9)]
        most = min(most, MAX_RELATIVE * n_exceptions(constant, coefficients))
    return n_exceptions(factors, [coefficient]) <= most


def rates_of(rows, multipliers):
    """Return the columns that may be rates, between 0 and 1 or 100, with what 1 of them is."""
    rates = {}
    for j in multipliers:
        least, most = np.nanmin(rows[:, j]), np.nanmax(rows[:, j])
        if least >= 0 and most <= 100:
            rates[j] = 0.01 if most > 1 else 1.0
    return rates


def triples_of(rows, multipliers, numbers, steps):
    """Return sets of three columns whose product a further column may be in a few rows."""
    known = rows[~np.isnan(rows[:, multipliers]).any(axis=1)][:LEAST_ROWS]
    n_products = comb(len(multipliers), 3) * len(numbers)
    if len(known) < LEAST_ROWS or not 0 < n_products <= MAX_PRODUCTS:
        return []
    sets = np.array([*combinations(multipliers, 3)])
    y = known[:, None, numbers]
    with np.errstate(all="ignore"):  # of products that overflow, and of 0, which tells no factor
        values = known[:, sets].prod(axis=2)[:, :, None]
        ratios = y / nonzero(values)
        middle = (np.isfinite(ratios).sum(axis=0, keepdims=True) - 1).clip(min=0) // 2
        ratios = np.take_along_axis(np.sort(ratios, axis=0), middle, axis=0)
        errors = np.abs(y - short_numbers(ratios) * values)
    tolerance = TOLERANCE * np.array([steps[j] for j in numbers])
    is_near = ((errors <= tolerance).mean(axis=1) > 0.5).any(axis=0) & (ratios[0] != 0)
    is_near &= (sets[:, :, None] != numbers).all(axis=1)
    return [tuple(each) for each in sets[is_near.any(axis=1)].tolist()]


def short_numbers(numbers):
    """Return the nearest numbers of few digits, and the nearest inverses of such, ``(2, ...)``."""
    with np.errstate(all="ignore"):  # of 0
        inputs = np.stack([numbers, 1 / numbers])
        unit = np.floor(np.log10(np.abs(inputs))) - DIGITS + 1
        large, small = 10.0 ** unit.clip(min=0), 10.0 ** -unit.clip(max=0)  # both are exact
        short = np.rint(inputs / large * small) * large / small
        return np.nan_to_num(np.stack([short[0], 1 / short[1]]))


def lines_of(rows, numbers, steps):
    """Yield pairs of columns that may lie on a line, as `sums_of` does."""
    rng, lines = np.random.default_rng(0), {}
    is_known = ~np.isnan(rows)
    rarest_first = sorted(numbers, key=lambda i: is_known[:, i].sum())
    for place, i in enumerate(rarest_first, 1):  # each pair once, in rows of its rarer column
        some = np.flatnonzero(is_known[:, i])[: 2 * N_SCREENED]
        others = np.array(rarest_first[place:], dtype=int)
        others = others[is_known[np.ix_(some, others)].sum(axis=0) >= LEAST_ROWS]
        if not len(others):
            continue
        x, y = rows[some, i], rows[np.ix_(some, others)].T
        first, second = rng.integers(0, len(x), (2, 4 * N_SCREENED))
        differs = x[first] != x[second]
        if not differs.any():
            continue
        first, second = first[differs], second[differs]
        slopes = lower_medians((y[:, first] - y[:, second]) / (x[first] - x[second]))
        others, y, slopes = others[slopes != 0], y[slopes != 0], slopes[slopes != 0]
        residuals = y - slopes[:, None] * x
        constants = lower_medians(residuals)
        error = np.abs(residuals - constants[:, None])
        step_of_y = np.array([steps[j] for j in others])
        # The slopes are not exact yet, as the differences are rounded.
        near_y = SLACK * step_of_y + 1e-3 * (np.nanmax(y, axis=1) - np.nanmin(y, axis=1))
        near_x = np.abs(slopes) * (SLACK * steps[i] + 1e-3 * np.ptp(x))
        enough = LIKELY * (~np.isnan(y)).sum(axis=1)
        for k in np.flatnonzero((error <= near_y[:, None]).sum(axis=1) >= enough):
            lines[i, int(others[k])] = (float(slopes[k]),), float(constants[k])
        for k in np.flatnonzero((error <= near_x[:, None]).sum(axis=1) >= enough):
            slope, constant = float(slopes[k]), float(constants[k])
            lines[int(others[k]), i] = (1 / slope,), 0.0 - constant / slope  # not -0.0
    for (i, j), line in sorted(lines.items()):
        yield (i,), j, *line


def multiples_by_value_of(rows, numbers, steps):
    """Yield columns that may be another one times a factor for each value of a third.

    Each is a tuple of the determinants, the target, and the arguments ``seen`` and ``factors`` of
    `FactorByValue`. The rows of a few frequent values show which pairs of numbers these may be.
    """
    if rows.shape[1] * len(numbers) ** 2 > MAX_TRIPLES:
        return
    for column in range(rows.shape[1]):
        others = [j for j in numbers if j != column]
        groups = rows_by_value(rows[:, column]) if len(others) >= 2 else {}
        pairs: dict = {}
        for some in [*groups.values()][:N_VALUES]:  # some may have a factor of 0
            pairs = pairs_of_multiples(rows[some[: 2 * N_SCREENED]], others, steps) | pairs
        # The column with larger steps tells the other one exactly.
        for x, y in sorted(
            pairs, key=lambda pair: abs(pairs[pair]) * steps[pair[0]] < steps[pair[1]]
        ):
            factors = {
                value: factor_of(rows[np.ix_(groups[value], [x, y])], steps[y])
                for value in sorted(groups)
            }
            factors = {value: each for value, each in factors.items() if not np.isnan(each)}
            if len({*factors.values()}) > 1:
                yield (x, column), y, tuple(factors), tuple(factors.values())


def rows_by_value(column):
    """Return the rows of each value of a column, most rows first; none unless values are few."""
    seen, place = np.unique(column, return_inverse=True)
    seen = seen[~np.isnan(seen)].tolist()
    if not 2 <= len(seen) <= MAX_VALUES:
        return {}
    groups = {value: np.flatnonzero(place == k) for k, value in enumerate(seen)}
    return dict(sorted(groups.items(), key=lambda each: -len(each[1])))


def pairs_of_multiples(rows, numbers, steps):
    """Return pairs of columns of which the second seems to be a multiple of the first: by what."""
    step, pairs = np.array([steps[j] for j in numbers]), {}
    for x in numbers:
        known = rows[~np.isnan(rows[:, x]) & (rows[:, x] != 0)]
        if len(known) < LEAST_ROWS:
            continue
        is_large = np.abs(known[:, x]) >= np.median(np.abs(known[:, x]))
        y, count = known[:, numbers].T, (~np.isnan(known[:, numbers])).sum(axis=0)
        ratios = lower_medians(y[:, is_large] / known[is_large, x])
        near = np.abs(y - ratios[:, None] * known[:, x]) <= SLACK * step[:, None]
        for k in np.flatnonzero((near.sum(axis=1) >= LIKELY * count) & (count >= LEAST_ROWS)):
            in_steps = np.rint(y[k] / step[k])  # far apart, or the numbers agree by chance
            in_steps = in_steps[~np.isnan(in_steps)]
            most = np.unique(in_steps, return_counts=True)[1].max()
            is_spread = np.std(in_steps) >= LEAST_SPREAD and count[k] - most >= LEAST_OTHERS
            if numbers[k] != x and is_spread:
                pairs[x, numbers[k]] = float(ratios[k])
    return pairs


def factor_of(pairs, step):
    """Return the factor of few digits with which most pairs of numbers agree, NaN of few pairs."""
    x, y = pairs[~np.isnan(pairs).any(axis=1) & (pairs[:, 0] != 0)].T
    if len(x) < LEAST_OF_VALUE:  # a pair agrees with its own ratio
        return np.nan
    is_large = np.abs(x) >= np.median(np.abs(x))  # rounding changes their ratios least
    ratio = np.median(y[is_large] / x[is_large])
    factors = np.array([*short_decimals(ratio), ratio])
    n_misses = (np.abs(y[:, None] - factors * x[:, None]) > TOLERANCE * step).sum(axis=0)
    return float(factors[n_misses.argmin()])


def short_decimals(number):
    """Yield decimals of few places near a number, and inverses of such, the shortest first."""
    for decimals in DECIMALS:
        yield round(number, decimals)
        inverse = round(1 / number, decimals) if number else 0.0
        if inverse:
            yield 1 / inverse


def lower_medians(values):
    """Return the median of each row, the lower of the middle two; NaN is no value."""
    ordered = np.sort(values, axis=1)  # NaN last
    middle = np.maximum((~np.isnan(values)).sum(axis=1) - 1, 0) // 2
    return np.take_along_axis(ordered, middle[:, None], axis=1)[:, 0]


def refinements(y, x, slope, constant, step):
    """Return slopes and constants close to those of a line, from short decimals to exact ones."""
    for _ in range(3):
        error = np.abs(y - slope * x - constant)
        near = error <= max(3 * np.median(error), step)
        if near.sum() < 2 or np.ptp(x[near]) == 0:
            break
        centre, level = x[near].mean(), y[near].mean()
        apart = x[near] - centre
        refined = apart @ (y[near] - level) / (apart @ apart)
        if refined == 0:
            break
        slope, constant = refined, level - refined * centre
    lines = []
    for short in dict.fromkeys(short_decimals(slope)):
        if short:
            rest = np.median(y - short * x)
            ends = {0.0, *(round(rest, places) for places in range(3)), float(rest)}
            lines += [((float(short),), end) for end in sorted(ends, key=abs)]
    return [*lines, ((float(slope),), float(constant))]


def numbers_of(schema):
    """Return the columns of numbers that are no angles."""
    return [i for i, c in enumerate(schema.columns) if c.is_number and c.kind != "circular"]


def dates_of(schema):
    """Return the columns of dates."""
    return [i for i, column in enumerate(schema.columns) if column.kind == "datetime"]


def dates_that_add(schema):
    """Return the columns of dates that may be any date: a date plus a span of time is one too."""
    return [
        i
        for i in dates_of(schema)
        if not schema.columns[i].has_months
        and not isinstance(schema.columns[i].value_variables[0], Weeks)
    ]
