"""How the unknown values of rows are drawn so that they follow the rules of a table."""

from itertools import permutations

import numpy as np

from ._formulas import Formula
from ._missing import rows_without
from ._predictive import OneVariable, without
from ._rule_kinds import without_level
from ._view import TableView, distinct_rows

ROUNDS_OF_RULES = 15  # of draws in place of rows that break a rule
ROUNDS_OF_CATEGORIES = 8  # of these, in which the categories of a row stay
ROUNDS_OF_KNOWN = 3  # of these, in which rows lack the same, and what is known more often stays
ROUNDS_OF_LARGEST = 3  # of these, in which the largest term of a given target follows
ROUNDS_OF_EXCEPTIONS = 9  # of these, before a row may be an exception to one more rule
DRAWS_AT_ONCE, MAX_DRAWS = 1_000, 20  # in each round, of all rows and of each
DRAWS_OF_SPANS = 20  # that keep the rules, before a span outside of the range of fit is accepted
REJECTED = 2  # cost of a draw that breaks a rule; of such a span, 1
DRAWS_OF_TERMS = 10  # times as many, of terms of given targets: these cost little
OUTWEIGHED = 0.5  # of levels that a known value leaves possible, up to which others outweigh it
CHEAP_ROUNDS = 2  # after which determinants of given targets are drawn on their own


class Completion:
    """The draws of a density, made to keep the rules of its table.

    Parameters
    ----------
    rules : Rules
        The rules.
    density : TableDensity
        The density, which draws whatever rules say.
    pattern : MissingPattern, optional
        Which values of a row are missing, given all. None completes rows.
    """

    def __init__(self, rules, density, pattern=None):
        self.rules, self.density, self.schema = rules, density, density._schema
        self.pattern = pattern

    def complete(self, values, random_state, n_rounds=ROUNDS_OF_RULES, lacks=None):
        """Draw the unknown variables given the known ones, so that rules are kept.

        With a pattern, ``lacks`` says which variables are missing, ``(n, n_variables)``. None draws
        that. Rows that are drawn again lack the same: fewer values break fewer rules.

        Returns
        -------
        drawn : ndarray of shape (n, n_variables)
            The complete rows, or rows with missing values by the pattern.
        is_filled : ndarray of shape (n,) of bool
            Rows whose draws broke a rule in all rounds: their unknown values follow in the end.
        """
        exceptions, given = self.exceptions(len(values), random_state), values
        values = self._with_levels(values, random_state)
        values = self.density._solved(values, exceptions)
        drawn, is_likely = self._drawn(values, exceptions, random_state, lacks, given)
        lacks = np.isnan(drawn) & np.isnan(given)
        is_rejected = self._rejected(drawn, values, exceptions, random_state)
        pending = np.flatnonzero(is_rejected | ~is_likely)
        # Missing values stay so, or rows would have more: they break no rule.
        if self.schema.flag_of:
            flags = np.ix_(pending, [*self.schema.flag_of.values()])
            values = values.copy()
            values[flags] = drawn[flags]
            values[pending] = self.density._solved(values[pending], exceptions[pending])
        rows = self.rules.encoded(self.schema, values[pending])
        are_open = np.zeros(exceptions[pending].shape, dtype=bool)  # for each function
        for k, rule in enumerate(self.rules.functions):
            are_open[:, k] = rule.is_open(rows)
        formulas = [k for k, rule in enumerate(self.rules.functions) if isinstance(rule, Formula)]
        is_open = np.zeros(len(values), dtype=bool)
        is_open[pending] = (are_open & ~exceptions[pending])[:, formulas].any(axis=1)
        cost, n_kept = np.full(len(drawn), REJECTED), np.zeros(len(drawn))
        some = pending[~are_open.any(axis=1)]
        categories_stay, known_stay = self._with_drawn(values, drawn, some)
        for i in range(n_rounds):
            if not len(pending):
                break
            if i == ROUNDS_OF_EXCEPTIONS:
                self._add_exceptions(drawn, exceptions, pending)
            # Of several draws of each row, the first that keeps the rules: rounds take time.
            n_draws = int(np.clip(DRAWS_AT_ONCE // len(pending), 1, MAX_DRAWS))
            of = np.repeat(pending, np.where(is_open[pending], DRAWS_OF_TERMS, 1) * n_draws)
            known = categories_stay if i < ROUNDS_OF_CATEGORIES else values
            known = (known_stay if i < ROUNDS_OF_KNOWN else known)[of]
            open_rows, is_tried = np.flatnonzero(is_open[of]), np.ones(len(of), dtype=bool)
            terms = known[open_rows], exceptions[of[open_rows]], i < ROUNDS_OF_LARGEST
            known[open_rows], is_tried[open_rows] = self._with_terms(*terms, random_state)
            tried = np.flatnonzero(is_tried)
            place = np.arange(len(tried)) - np.searchsorted(of[tried], of[tried])
            tried = tried[place < n_draws]  # as many of each row, at most
            if not len(tried):
                continue
            of, known = of[tried], known[tried]
            if i >= CHEAP_ROUNDS:
                known = self._with_determinants(known, random_state)
            same = lacks[of] if i < ROUNDS_OF_KNOWN else None
            again, is_likely = self._drawn(known, exceptions[of], random_state, same, given[of])
            costs = self._costs(again, values[of], exceptions[of], is_open[of], random_state)
            costs[~is_likely] = 2 * REJECTED  # and never drawn
            n_kept += np.bincount(of, costs < REJECTED, len(n_kept))
            by_cost = np.lexsort((costs, of))
            some, first = np.unique(of[by_cost], return_index=True)
            best = by_cost[first]
            is_better = costs[best] <= cost[some]
            some, best = some[is_better], best[is_better]
            drawn[some], cost[some] = again[best], costs[best]
            most = np.where(n_kept[pending] < DRAWS_OF_SPANS, 0, REJECTED - 1)
            pending = pending[cost[pending] > most]
        left, is_filled = drawn[pending], np.zeros(len(drawn), dtype=bool)
        self.rules.fill(self.schema, left, np.isnan(values[pending]) & ~np.isnan(left))
        drawn[pending], is_filled[pending] = left, cost[pending] >= REJECTED
        return drawn, is_filled

    def _with_drawn(self, values, drawn, some):
        """Return values to which some rows add what they have drawn, as these break rules.

        First categories: there would be fewer rows of those whose numbers break orders more often.
        Then also what the fit knew more often than what breaks an order: a score without the latter
        does not depend on it.
        """
        categories, n_missing = values.copy(), self.schema.n_missing
        at = np.ix_(some, self.schema.ranges.levels)
        # What rules tell stays in rows that were drawn without it.
        categories[at] = np.where(np.isnan(drawn[at]), values[at], drawn[at])
        rows, least = self.rules.encoded(self.schema, drawn[some]), np.full(len(some), np.inf)
        for rule in self.rules.orders:
            most = max(n_missing[self.schema.of_column[i][-1]] for i in rule.columns)
            least = np.where(rule.is_broken(rows), np.minimum(least, most), least)
        stays = (n_missing < least[:, None]) & np.isfinite(least)[:, None] & ~np.isnan(drawn[some])
        known = categories.copy()
        known[some] = np.where(stays, drawn[some], known[some])
        return categories, known

    def exceptions(self, n, random_state):
        """Draw in which of n rows each function is an exception, of shape (n, n_functions)."""
        shares = [rule.counts.share for rule in self.rules.functions]
        return random_state.uniform(size=(n, len(shares))) < shares

    def _add_exceptions(self, drawn, exceptions, pending):
        """Let rows whose known values hardly fit be exceptions to one more rule, the likeliest."""
        rows = self.rules.encoded(self.schema, drawn[pending])
        shares = np.zeros((len(pending), len(self.rules.functions)))
        for k, rule in enumerate(self.rules.functions):
            shares[:, k] = rule.counts.share * (rule.is_broken(rows) & ~exceptions[pending, k])
        exceptions[pending] |= (shares > 0) & (shares == shares.max(axis=1, initial=0)[:, None])

    def _costs(self, drawn, values, exceptions, is_open, random_state):
        """Return the cost of each draw, 0 for the best ones."""
        costs = REJECTED * self._rejected(drawn, values, exceptions, random_state)
        open_rows = np.flatnonzero(is_open)
        costs[open_rows] += self._have_unseen_span(drawn[open_rows], values[open_rows])
        return costs

    def _rejected(self, drawn, values, exceptions, random_state):
        """Return which rows break an order and do not stay, or a function without an exception."""
        rows = self.rules.encoded(self.schema, drawn)
        given = self.rules.encoded(self.schema, values)
        rejected = np.zeros(len(rows), dtype=bool)
        for rule in self.rules.orders:
            is_open = np.isnan(given[:, rule.columns]).any(axis=1)
            is_broken = rule.is_broken(rows) & is_open
            rejected |= is_broken & (random_state.uniform(size=len(rows)) >= rule.acceptance)
        for rule, is_exception in zip(self.rules.functions, exceptions.T, strict=True):
            is_open = np.isnan(given[:, rule.determinants]).any(axis=1)
            rejected |= rule.is_broken(rows) & is_open & ~is_exception
        return rejected

    def _have_unseen_span(self, drawn, values):
        """Return which rows have a span outside of the range of the fit, between given dates.

        A date between these follows from one span, and no member has drawn the other one.
        """
        is_unseen = np.zeros(len(drawn), dtype=bool)
        if not self.schema.spans or not len(drawn):
            return is_unseen
        given, rows = (
            self.rules.encoded(self.schema, self.schema.with_spans(each))
            for each in (values, drawn)
        )
        for k, *_ in self.schema.spans:
            low, high = self.schema.columns[k].seen
            is_unseen |= np.isnan(given[:, k]) & ((rows[:, k] < low) | (rows[:, k] > high))
        return is_unseen

    def _with_terms(self, values, exceptions, by_largest, random_state):
        """Return rows of given targets with drawn terms, and which of them are possible.

        Rates and other listed numbers are drawn first, as they and the target may tell the others.
        Of drawn terms, the largest one follows, which changes least; or one that no rule tells,
        with steps as small as the target's, which most often has a possible value.
        Rows are possible if all formulas hold that tell.
        """
        terms = values.copy()
        is_possible = np.ones(len(values), dtype=bool)
        if not len(values):
            return terms, is_possible
        drawn = self.drawn(terms, exceptions, random_state)
        for j in self._first_terms():
            terms[:, j] = np.where(np.isnan(terms[:, j]), drawn[:, j], terms[:, j])
            terms = self.density._solved(terms, exceptions)
        terms = self.density._solved(terms, exceptions, as_centres=True)
        rows = self.rules.encoded(self.schema, drawn)
        stays = np.zeros(rows.shape, dtype=bool)
        for i in self.rules.columns:
            variable = self.schema.variable_of(i)
            if not by_largest:
                stays[:, i] = any(rule.target.column == i for rule in self.rules.functions)
            elif variable.has_number and variable.n_levels:  # frequent, such as no overtime
                stays[:, i] = np.isin(rows[:, i], variable.atoms)
        known = self.rules.encoded(self.schema, terms)
        # A term may be the target of an earlier formula.
        for rule, is_exception in reversed([*zip(self.rules.functions, exceptions.T, strict=True)]):
            if not isinstance(rule, Formula):
                continue
            open_rows = np.flatnonzero(rule.is_open(known) & ~is_exception)
            trial = np.where(np.isnan(known[open_rows]), rows[open_rows], known[open_rows])
            is_unknown = np.isnan(known[np.ix_(open_rows, rule.determinants)])
            comes_last = stays[np.ix_(open_rows, rule.determinants)]
            if not by_largest:
                comes_last |= rule.are_coarse(self.schema)
            sizes = np.where(comes_last, 0.0, rule.sizes(trial, self.schema))
            largest = np.where(is_unknown, sizes, -1.0).argmax(axis=1)
            for k, j in enumerate(rule.determinants):
                some = np.flatnonzero(largest == k)
                told = rule.told(self.schema, trial[some], j)
                is_told = ~np.isnan(told)
                variable = self.schema.variable_of(j)
                if not by_largest and self.schema.columns[j].is_number:
                    is_told &= are_in_range(variable, told)  # a small term may change a lot
                trial[some[is_told], j] = told[is_told]
            fits = ~rule.is_broken(trial)
            is_possible[open_rows] &= fits
            for k, j in enumerate(rule.determinants):
                some = np.flatnonzero(fits & is_unknown[:, k])
                known[open_rows[some], j] = trial[some, j]
                self.schema.put(terms, open_rows[some], j, trial[some, j])
        return terms, is_possible

    def _first_terms(self):
        """Return the needed variables that are listed, or that let two formulas tell two columns.

        For example, a net amount and the rate of its tax tell the gross amount and the tax.
        """
        keys = set()
        for rule, other in permutations(self.rules.formulas, 2):
            shared = {*rule.determinants} & {*other.determinants}
            if shared and other.target.column in rule.determinants:
                keys |= {*other.determinants} - shared
        keys = {self.schema.of_column[i][-1] for i in keys}
        return [
            j
            for j in self.rules.needed(self.schema)
            if j in keys or not self.schema.variables[j].has_number
        ]

    def _with_determinants(self, values, random_state):
        """Return values with determinants drawn so that they agree with given targets."""
        values = values.copy()
        for rule in self.rules.functions[::-1]:
            (i, *others), rows = rule.determinants, self.rules.encoded(self.schema, values)
            if others or not self.schema.columns[i].is_levels:
                continue
            open_rows = np.flatnonzero(
                np.isnan(rows[:, i]) & ~np.isnan(rows[:, rule.target.column])
            )
            if len(open_rows):
                levels = self._levels(values[open_rows], i)
                self._choose(values, open_rows, i, levels, random_state)
        return values

    def _with_levels(self, values, random_state):
        """Return values with levels drawn where known values say which ones are possible.

        For example, the status of an employee whose day of leaving is known.
        """
        levels_without = self.density._levels_without
        for k in sorted({each.other for each in levels_without}):
            counts = rows_without(levels_without, self.schema, values, k)
            is_unknown = np.isnan(values[:, self.schema.of_column[k][-1]])
            rows = np.flatnonzero(is_unknown & counts.any(axis=1) & (counts == 0).any(axis=1))
            for rule in self.rules.functions:  # what determinants tell is sharper than what lacks
                if rule.target.column == k:
                    told = rule.expected(self.rules.encoded(self.schema, values[rows]))
                    rows = rows[np.isnan(told)]
            if len(rows):
                levels = self._levels(values[rows], k)
                possible = levels * (counts[rows] == 0)
                is_sure = possible.sum(axis=1) > OUTWEIGHED
                levels[is_sure], values = possible[is_sure], values.copy()
                self._choose(values, rows, k, levels, random_state)
        return values

    def _levels(self, values, i):
        """Return the probabilities of the levels of column i, which is unknown."""
        distinct, inverse = distinct_rows(values)
        view = TableView.of_conditions(self.schema, distinct)
        log_weights = self.density._log_weights(view, view.known)
        one = OneVariable(self.density, view, self.schema.of_column[i][-1], log_weights)
        return one.levels[inverse]

    def _choose(self, values, rows, i, levels, random_state):
        """Draw the levels of column i in some rows, in place."""
        from ._network import choose

        j = self.schema.of_column[i][-1]
        values[rows, j] = self.schema.variables[j].decode(choose(levels, random_state))

    def drawn(self, values, exceptions, random_state):
        """Return variables, the unknown ones drawn, and targets as functions expect them."""
        return self._drawn(values, exceptions, random_state, None, values)[0]

    def _drawn(self, values, exceptions, random_state, lacks, given):
        """Return what `drawn` does, and which rows are likely to lack what they do.

        See `complete`. Values that are not given may be missing, even if rules infer them.
        """
        drawn = self.density._drawn_by_members(values, random_state)
        is_likely = np.ones(len(drawn), dtype=bool)
        functions = [*zip(self.rules.functions, exceptions.T, strict=True)]
        if self.pattern is not None:
            # What is missing depends on values, which must be the ones that rules tell. Rows of a
            # category that lacks a determinant may have any target.
            may_be_blank = {each.column for each in self.density._levels_without}
            sure = [each for each in functions if may_be_blank.isdisjoint(each[0].determinants)]
            self._follow(sure, values, drawn, random_state)
            if lacks is None:
                lacks = self.pattern.draw(self.schema, drawn, given, random_state)
            else:
                is_likely = self.pattern.are_likely(self.schema, drawn, lacks, random_state)
            drawn[lacks] = np.nan
        self._follow(functions, values, drawn, random_state)
        return drawn, is_likely

    def _follow(self, functions, values, drawn, random_state):
        """Let drawn targets follow from determinants, in place.

        Functions are pairs of a rule and of which rows are exceptions to it.
        """
        if not self.rules.columns:
            return
        rows, every = self.rules.encoded(self.schema, drawn, random_state), np.arange(len(drawn))
        for i in self.rules.columns:  # pooled values are one of these from now on
            self.schema.put(drawn, every, i, rows[:, i])
        for rule, stays in functions:
            target = rule.target
            if isinstance(rule, Formula):
                self._give_frequent(rule, values, rows, drawn, stays)
            expected = rule.expected(rows)
            is_free = np.isnan(values[:, target.variables[0]]) & ~np.isnan(rows[:, target.column])
            is_free &= ~np.isnan(expected)
            follows = is_free & ~stays
            rows[follows, target.column] = rule.drawn(
                rows[follows], expected[follows], random_state
            )
            same = np.abs(rows[:, target.column] - expected) <= target.tolerance
            other = np.flatnonzero(is_free & stays & same)
            if len(other):
                rows[other, target.column] = self._another(
                    drawn[other], target, expected[other], random_state
                )
            self.schema.put(drawn, every, target.column, rows[:, target.column])

    def _give_frequent(self, rule, values, rows, drawn, stays):
        """Let a term give a target that was drawn as a frequent value, in place.

        For example, a stock of 0: the sum of drawn terms hardly ever is. The largest possible term
        follows that is in no other function.
        """
        i, variable = rule.target.column, rule.variable
        others = {j for other in self.rules.functions if other is not rule for j in other.columns}
        has_frequent = variable is not None and variable.has_number and variable.n_levels  # no date
        if not has_frequent or others.issuperset(rule.determinants):
            return
        is_free = np.isnan(values[:, rule.target.variables[0]]) & ~stays
        some = np.flatnonzero(is_free & np.isin(rows[:, i], variable.atoms))
        some = some[rule.is_broken(rows[some])]
        of_determinants = [self.schema.of_column[j][-1] for j in rule.determinants]
        is_open = np.isnan(values[np.ix_(some, of_determinants)])
        is_open &= [j not in others for j in rule.determinants]
        differs = np.ones(len(some), dtype=bool)
        for j, places in rule.largest_first(rows[some], self.schema, is_open):
            places = places[differs[places]]
            told = rule.told(self.schema, rows[some[places]], j)
            is_told = are_in_range(self.schema.variable_of(j), told)
            places, told = places[is_told], told[is_told]
            rows[some[places], j] = told
            self.schema.put(drawn, some[places], j, told)
            differs[places] = False

    def _another(self, values, target, expected, random_state):
        """Return values of a target other than the expected ones, given the rest of the rows."""
        i = target.column
        values = without(values, self.schema, i)
        column = self.schema.columns[i]
        if not column.is_levels:
            return column.joined(
                self.density._drawn_by_members(values, random_state)[:, self.schema.of_column[i]]
            )
        place = target.place(self.schema, expected)
        levels = without_level(self._levels(values, i), place)
        self._choose(values, slice(None), i, levels, random_state)
        return column.joined(values[:, self.schema.of_column[i]], random_state)


def are_in_range(variable, x):
    """Return which numbers are within the range of the fit, and so not NaN."""
    if not variable.has_number:
        return ~np.isnan(x)
    low, high = variable.seen
    return ((x >= low) & (x <= high)) | np.isin(x, variable.atoms)
