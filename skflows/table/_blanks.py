"""Columns of numbers whose missing values are 0, as the sums of their rows show.

For example, the discount of orders that have none. As unknown values, they would be drawn and
imputed, and the total would be reduced by a discount that nobody gets.
"""

from itertools import chain
from operator import itemgetter

import numpy as np

from ..columns.arrays import some_rows
from ..columns.kinds import stated
from ..columns.lattice import decimals_of
from ._formula_search import LEAST_ROWS, MAX_ROWS, TOLERANCE, all_sums_of, varying
from ._missing import level_codes, levels_without, name_of_level
from ._rule_exceptions import MAX_EXCEPTIONS
from ._rule_kinds import RESOLUTION, ZeroWhere


def blanks_of_sums(encoding, rows, columns=None):
    """Return the columns whose missing values are 0, with the other columns of their sums.

    A sum has to hold in rows that have a value, and with 0 in rows that have none. A total that
    is never missing has to have rows of two terms: others may have one of several alternatives. The
    user states the kind of none of these columns.

    Parameters
    ----------
    encoding : Encoding
        The encoding of the table.
    rows : ndarray of shape (n, n_columns)
        Its encoded rows.
    columns : dict, optional
        Kinds that the user gives, by name.

    Returns
    -------
    blanks : dict of int to list of int
        Places of the columns, and of the other columns of the sums.
    """
    rows = rows[some_rows(len(rows), MAX_ROWS)]
    is_stated = stated(columns, encoding.keys)
    is_blank = np.isnan(rows)
    numbers = [
        j
        for j, (name, role) in enumerate(zip(encoding.keys, encoding.roles, strict=True))
        if role == "number" and j not in encoding.identifiers and not is_blank[:, j].all()
    ]
    n_blank = is_blank.sum(axis=0)
    candidates = [
        j
        for j in numbers
        if encoding.keys[j] not in is_stated
        and min(n_blank[j], len(rows) - n_blank[j]) >= LEAST_ROWS
    ]
    blanks: dict = {}
    if not candidates:
        return blanks
    steps, filled = {}, rows.copy()
    filled[:, candidates] = np.nan_to_num(rows[:, candidates])
    for j in numbers:
        known = rows[~is_blank[:, j], j]
        decimals = decimals_of(known)
        steps[j] = RESOLUTION * np.ptp(known) if decimals is None else 10.0**-decimals
    sums = chain(*(all_sums_of(some, *varying(some, numbers), steps) for some in (filled, rows)))
    for determinants, target, factors, constant in sums:
        places = [*determinants, target]
        terms = filled[:, places] * [*factors, -1.0]
        tolerance = TOLERANCE * min(steps[j] for j in places)  # a small term must matter
        holds = np.abs(terms.sum(axis=1) + constant) <= tolerance
        is_term = ~is_blank[:, places] & (np.abs(terms) > tolerance)
        signs = np.sign([*factors, -1.0])
        totals = [j for j, sign in zip(places, signs, strict=True) if (signs == sign).sum() == 1]
        if {*totals} - {*candidates}:  # one of several alternatives would be all of the total
            is_term &= (is_term.sum(axis=1) > 2)[:, None]
        added = terms_left_out(is_blank[:, places], is_term, holds, np.isin(places, candidates))
        for k in added:
            others = {*places} - {places[k]}
            blanks[places[k]] = sorted(others.union(blanks.get(places[k], ())))
    return blanks


def terms_left_out(is_blank, is_term, holds, may_be_left_out):
    """Return the terms of a sum that rows leave blank where they are 0.

    Parameters
    ----------
    is_blank : ndarray of shape (n, n_terms) of bool
        Which terms are missing.
    is_term : ndarray of shape (n, n_terms) of bool
        Which ones change the sum.
    holds : ndarray of shape (n,) of bool
        Whether the sum holds in each row, if missing terms are 0.
    may_be_left_out : ndarray of shape (n_terms,) of bool
        Which terms are asked for.

    Returns
    -------
    terms : list of int
        The terms. Without any of the others, nothing is known of them.
    """
    terms = np.flatnonzero(may_be_left_out).tolist()
    n_blank = is_blank.sum(axis=1)
    while terms:
        # A row that lacks another column, or all but one, does not tell.
        is_told = is_blank[:, terms].sum(axis=1) == n_blank
        is_told &= n_blank < is_blank.shape[1] - 1
        shares = []
        for k in terms:
            lacks = is_told & is_blank[:, k]
            if (alone := lacks & (n_blank == 1)).sum() >= LEAST_ROWS:
                lacks = alone  # other columns may be blank for another reason
            has = is_told & is_term[:, k]
            are_enough = min(lacks.sum(), has.sum()) >= LEAST_ROWS
            shares.append(min(holds[lacks].mean(), holds[has].mean()) if are_enough else 0.0)
        if min(shares) >= 1 - MAX_EXCEPTIONS:
            break
        del terms[np.argmin(shares)]
    return terms


def zeros_of(schema, values, rows, told):
    """Return categories whose rows leave a column blank where others have terms of a sum.

    Columns that functions tell are left out, as these say more. Each is a tuple of a rank, the
    categories' column, the column that is 0 there, `ZeroWhere`, and its further arguments.
    """
    is_asked = [place in schema.blanks and i not in told for i, place in enumerate(schema.places)]
    columns = np.flatnonzero(is_asked).tolist()
    is_zero = np.zeros((len(rows), len(schema.encoding.keys)), dtype=bool)
    is_zero[:, [schema.places[i] for i in columns]] = rows[:, columns] == 0
    zeros = []
    for i, k, codes, n_rows in levels_without(schema, values, is_zero) if columns else ():
        column = schema.columns[k]
        if column.kind == "categorical":
            code, _ = level_codes(schema, values, k)
            places = np.unique(rows[np.isin(code, codes), k])
            labels = [name_of_level(column, each) for each in codes]
            zeros.append((n_rows.sum(), ((0.0, 0), (k,), i, ZeroWhere, places, labels)))
    return [zero for _, zero in sorted(zeros, key=itemgetter(0), reverse=True)]


def with_told_blanks(schema, rows, values, solve):
    """Return variables of rows in which no blank counts as 0 where known values tell otherwise.

    Of several blanks of a rule that zeros break, a single one has another value if this alone can
    be; otherwise all are unknown.

    Parameters
    ----------
    schema : Schema
        The schema.
    rows : ndarray of shape (n, n_columns)
        Encoded rows.
    values : ndarray of shape (n, n_variables)
        Their variables, in which blanks are 0.
    solve : callable
        Returns variables with what rules tell by known ones.

    Returns
    -------
    values : ndarray of shape (n, n_variables)
        The variables.
    """
    columns = [i for i, place in enumerate(schema.places) if place in schema.blanks]
    is_blank = np.zeros((len(rows), len(schema.columns)), dtype=bool)
    is_blank[:, columns] = np.isnan(rows[:, [schema.places[i] for i in columns]])
    is_blank &= schema.rules.encoded(schema, values) == 0
    if not is_blank.any():
        return values

    def broken(values):
        """Yield the columns of each function, and which rows break it."""
        encoded = schema.rules.encoded(schema, values)
        for rule in schema.rules.functions:
            yield list(rule.columns), rule.is_broken(encoded)

    # What known values tell without blanks, such as a net amount by the gross amount.
    told = solve(np.where(schema.variables_of(is_blank), np.nan, values))
    told = np.where(np.isnan(told), values, told)
    is_open = np.zeros_like(is_blank)
    for places, is_broken in broken(told):
        is_open[:, places] |= is_broken[:, None]
    is_open &= is_blank & (schema.rules.encoded(schema, told) == 0)
    before = None
    while before is None or (before != is_open).any():  # also the other blanks of their rules
        before = is_open.copy()
        for rule in schema.rules.functions:
            places = list(rule.columns)
            is_open[:, places] |= is_blank[:, places] & is_open[:, places].any(axis=1)[:, None]
    zeros, n_ways = told.copy(), np.zeros(len(rows), dtype=int)
    for i in columns:
        some, variables = np.flatnonzero(is_open[:, i]), schema.of_column[i]
        trial = zeros[some]
        trial[:, variables] = np.nan
        trial[:, variables] = solve(trial)[:, variables]
        fits = ~np.isnan(trial[:, variables[-1]])
        for places, is_broken in broken(trial):
            fits &= ~(is_broken & is_open[np.ix_(some, places)].any(axis=1))
        told[some[fits]] = trial[fits]
        n_ways[some[fits]] += 1
    several = (n_ways != 1) & (is_open.sum(axis=1) > 1)
    told[schema.variables_of(is_open & several[:, None])] = np.nan
    return np.where(schema.variables_of(is_blank), told, values)
