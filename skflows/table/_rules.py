"""How the rules of a table correct the scores and samples of its density.

The members of a density are trained on all columns. Where determinants and target of a rule are
known, the score of a row is the members' without the target, plus the log-probability that the rule
holds. A target that breaks its rule keeps the members' probability, relative to all values that
break it, times the probability of exceptions. The mixture's probabilities that an order holds or is
broken are replaced by the shares of the rows.
"""

from itertools import permutations, product

import numpy as np

from ..columns.checks import ColumnWarning, among, warn_user
from ._filling import Filling
from ._predictive import OneVariable, without
from ._rule_kinds import LEAST_BROKEN, Formula, without_level
from ._variables import in_chunks
from ._view import TableView

ROUNDS_OF_RULES = 15  # of draws in place of rows that break a rule
ROUNDS_OF_CATEGORIES = 8  # of these, in which the categories of a row stay
ROUNDS_OF_LARGEST = 3  # of these, in which the largest term of a given target follows
ROUNDS_OF_EXCEPTIONS = 9  # of these, before a row may be an exception to any rule that has some
DRAWS_AT_ONCE, MAX_DRAWS = 1_000, 20  # in each round, of all rows and of each
DRAWS_OF_SPANS = 20  # that keep the rules, before a span outside of the range of fit is accepted
REJECTED = 2  # cost of a draw that breaks a rule; of such a span, 1
MAX_NUMBERS, ROWS_TRIED = 300, 100  # numbers that are tried for a row, and rows at once
DRAWS_OF_TERMS = 10  # times as many, of terms of given targets: these cost little
CHEAP_ROUNDS = 2  # after which determinants of given targets are drawn on their own
N_WEIGHED = 4_000  # samples that tell how often the mixture breaks an order
RULE_FIELDS = ["rule", "kind", "exceptions", "rows"]  # of the table of rules


class Judged:
    """Rows as rules see them: without the targets that hold, and what this adds to their scores.

    Parameters
    ----------
    view : TableView
        The rows.
    given : ndarray of shape (n, n_variables) or None
        Which values are given.
    rules : Rules
        The rules.
    """

    def __init__(self, view, given, rules):
        schema, values = view.schema, view.values
        self.values = values
        rows = rules.encoded(schema, values)
        self.view, self.given, self.terms = view, given, np.zeros(len(values))
        if given is None or not given.any():  # conditional scores are the members' otherwise
            self.terms += rules.order_terms(rows)
        self.broken = []  # columns, rows in which they break a rule, and values that would not
        if not rules.functions:
            return
        values, given = schema.judged_spans(values.copy(), given)
        was_given = np.zeros(values.shape, dtype=bool) if given is None else given
        given = was_given.copy()
        for rule in rules.functions:
            for i in (rule.target.column, *rule.determinants):
                is_target = i == rule.target.column
                if not is_target and not (was_given.any() and rule.tells(schema, i)):
                    continue
                target = rule.target if is_target else rule.target_of(schema, i)
                expected, x = rule.told(schema, rows, i), rows[:, i]
                is_given = given[:, target.variables[0]]
                by_given = np.ones(len(rows), dtype=bool)
                for j in {*rule.columns} - {i}:
                    by_given &= was_given[:, schema.of_column[j][-1]]
                # A given target with unknown determinants is evidence about these; it tells the
                # only one that is not given.
                applies = by_given | ~is_given if is_target else by_given & ~is_given
                applies &= ~np.isnan(expected) & ~np.isnan(values[:, target.variables[-1]])
                holds = applies & (np.abs(x - expected) <= target.tolerance)
                is_scored = applies & ~is_given
                values[np.ix_(holds | is_scored, target.variables)] = np.nan
                given[np.ix_(holds, target.variables)] = False
                log_holds = rule.counts.log_holds - target.log_width
                if is_target:
                    log_holds = log_holds + rule.log_share(rows)
                self.terms += np.where(is_scored & holds, log_holds, 0.0)
                self.terms += np.where(is_scored & ~holds, rule.counts.log_broken, 0.0)
                rows_broken = np.flatnonzero(is_scored & ~holds)
                if len(rows_broken):
                    possible = rule.possible(expected[rows_broken])
                    self.broken.append((target, rows_broken, possible))
        self.view = TableView(schema, values, view.weight)
        if self.given is not None:
            self.given = given

    def log_prob(self, member):
        """Return the log-probability of the rows under a member and the rules."""
        total = member.log_prob(self.view, self.given) + self.terms
        if not self.broken:
            return total
        values = self.view.values.copy()
        for target, rows, possible in self.broken:
            at, others = np.ix_(rows, target.variables), ~np.isnan(values[rows])
            mass = 0.0
            for each in possible:
                values[at] = target.split(self.view.schema, each)
                log_mass = self._log_prob_of(member, values[rows], others) + target.log_width
                mass = mass + np.exp(np.minimum(log_mass, 0.0))
            total[rows] -= np.log(np.maximum(1 - mass, LEAST_BROKEN))
            values[at] = self.values[at]  # known when the next broken rule is judged
            total[rows] += self._log_prob_of(member, values[rows], others)
        return total

    def _log_prob_of(self, member, values, given):
        return member.log_prob(TableView(self.view.schema, values), given)


class Rules:
    """The rules of a table, in an order in which determinants come before what they determine.

    Parameters
    ----------
    functions : list of Function
        Rules that tell a column by others.
    orders : list of Order
        Rules that a column is at most another, the strictest first.
    """

    def __init__(self, functions=(), orders=()):
        self.functions, self.orders = list(functions), list(orders)

    def __iter__(self):
        yield from self.functions
        yield from self.orders

    @property
    def formulas(self):
        """The rules that compute a number from others."""
        return [rule for rule in self.functions if isinstance(rule, Formula)]

    @property
    def columns(self):
        """The columns that rules are about."""
        return sorted({i for rule in self for i in rule.columns})

    def encoded(self, schema, values, random_state=None):
        """Return the encoded rows of variables; NaN in columns without a rule."""
        rows = np.full((len(values), len(schema.columns)), np.nan)
        for i in self.columns:
            of_column = values[:, schema.of_column[i]]
            rows[:, i] = schema.columns[i].joined(of_column, random_state)
        return rows

    def with_rows(self, schema, values, weight):
        """Return the same rules with the combinations and counts of other rows."""
        rows = self.encoded(schema, values)
        return Rules(
            *(
                [rule.with_rows(rows, weight) for rule in rules]
                for rules in (self.functions, self.orders)
            )
        )

    def judged(self, view, given=None):
        """Return the rows of a view as the rules see them."""
        return Judged(view, given, self)

    def weigh(self, density):
        """Note how often the mixture breaks each order in rows that keep the ones before it."""
        nothing, random_state = density._nothing_known(N_WEIGHED), np.random.RandomState(0)
        exceptions = self._exceptions(N_WEIGHED, random_state)
        drawn = self._drawn(density, nothing, exceptions, random_state)
        rows = self.encoded(density._schema, drawn)
        for rule in self.orders:
            rule.weigh(rows)
            rows = rows[~rule.is_broken(rows)]

    def order_terms(self, rows):
        """Return what orders add to the scores of encoded rows, up to the first that is broken."""
        terms, keeps = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        for rule in self.orders:
            if rule.model is None:  # while the members are fitted
                continue
            log_broken, log_kept = np.log(rule.model)
            broken = keeps & rule.is_broken(rows)
            known = ~np.isnan(rows[:, rule.columns]).any(axis=1)
            terms[broken] += rule.counts.log_broken - log_broken
            keeps &= ~broken
            terms[keeps & known] += rule.counts.log_holds - log_kept
        return terms

    def far_out(self, schema, values, is_far):
        """Return which variables lie far out, except for targets that follow from none of these."""
        rows, is_far = self.encoded(schema, values), is_far.copy()
        for rule in self.functions:
            determinants = np.concatenate([schema.of_column[i] for i in rule.determinants])
            is_kept = rule.error(rows) <= rule.target.tolerance
            holds = is_kept & ~is_far[:, determinants].any(axis=1)
            is_far[np.ix_(holds, rule.target.variables)] = False
        return is_far

    def are_kept(self, schema, values):
        """Return which rows break no rule."""
        rows, kept = self.encoded(schema, values), np.ones(len(values), dtype=bool)
        for rule in self:
            kept &= ~rule.is_broken(rows)
        return kept

    def broken_functions(self, schema, values):
        """Return whether rows break each function, 1 or 0, NaN where it tells nothing."""
        rows, functions = self.encoded(schema, values), []
        for rule in self.functions:
            error = rule.error(rows)
            functions.append(np.where(np.isnan(error), np.nan, error > rule.target.tolerance))
        return functions

    def without_orders(self):
        """Return the other rules."""
        return Rules(self.functions)

    def complete(self, density, values, random_state, n_rounds=ROUNDS_OF_RULES):
        """Draw the unknown variables given the known ones, so that rules are kept.

        Returns
        -------
        drawn : ndarray of shape (n, n_variables)
            The complete rows.
        is_filled : ndarray of shape (n,) of bool
            Rows whose draws broke a rule in all rounds: their unknown values follow in the end.
        """
        schema = density._schema
        exceptions = self._exceptions(len(values), random_state)
        values = self.solved(schema, values, exceptions)
        drawn = self._drawn(density, values, exceptions, random_state)
        pending = np.flatnonzero(self._rejected(schema, drawn, values, exceptions, random_state))
        if schema.flag_of:  # missing values stay so, or rows would have more: they break no rule
            flags = np.ix_(pending, [*schema.flag_of.values()])
            values = values.copy()
            values[flags] = drawn[flags]
            values[pending] = self.solved(schema, values[pending], exceptions[pending])
        is_open, rows = np.zeros(len(values), dtype=bool), self.encoded(schema, values[pending])
        for rule, is_exception in zip(self.functions, exceptions[pending].T, strict=True):
            if isinstance(rule, Formula):
                is_open[pending] |= rule.is_open(rows) & ~is_exception
        cost, n_kept = np.full(len(drawn), REJECTED), np.zeros(len(drawn))
        # Of categories whose numbers break orders more often, fewer rows would be left otherwise.
        categories_stay = values.copy()
        at = np.ix_(pending[~self._are_open(rows, self.functions)], schema.ranges.levels)
        categories_stay[at] = drawn[at]
        for i in range(n_rounds):
            if not len(pending):
                break
            if i == ROUNDS_OF_EXCEPTIONS:
                self._add_exceptions(schema, drawn, exceptions, pending)
            # Of several draws of each row, the first that keeps the rules: rounds take time.
            n_draws = int(np.clip(DRAWS_AT_ONCE // len(pending), 1, MAX_DRAWS))
            of = np.repeat(pending, np.where(is_open[pending], DRAWS_OF_TERMS, 1) * n_draws)
            known = (categories_stay if i < ROUNDS_OF_CATEGORIES else values)[of]
            open_rows, is_tried = np.flatnonzero(is_open[of]), np.ones(len(of), dtype=bool)
            terms = known[open_rows], exceptions[of[open_rows]], i < ROUNDS_OF_LARGEST
            known[open_rows], is_tried[open_rows] = self._with_terms(density, *terms, random_state)
            tried = np.flatnonzero(is_tried)
            place = np.arange(len(tried)) - np.searchsorted(of[tried], of[tried])
            tried = tried[place < n_draws]  # as many of each row, at most
            if not len(tried):
                continue
            of, known = of[tried], known[tried]
            if i >= CHEAP_ROUNDS:
                known = self._with_determinants(density, known, random_state)
            again = self._drawn(density, known, exceptions[of], random_state)
            is_rejected = self._rejected(schema, again, values[of], exceptions[of], random_state)
            costs = REJECTED * is_rejected
            open_rows = np.flatnonzero(is_open[of])
            costs[open_rows] += self._have_unseen_span(
                schema, again[open_rows], values[of[open_rows]]
            )
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
        self.fill(schema, left, np.isnan(values[pending]))
        drawn[pending], is_filled[pending] = left, cost[pending] >= REJECTED
        return drawn, is_filled

    def _exceptions(self, n, random_state):
        """Draw in which of n rows each function is an exception, of shape (n, n_functions)."""
        shares = [rule.counts.share for rule in self.functions]
        return random_state.uniform(size=(n, len(shares))) < shares

    def _add_exceptions(self, schema, drawn, exceptions, pending):
        """Let rows whose known values hardly fit be exceptions to one more rule, the likeliest."""
        rows = self.encoded(schema, drawn[pending])
        shares = np.zeros((len(pending), len(self.functions)))
        for k, rule in enumerate(self.functions):
            shares[:, k] = rule.counts.share * (rule.is_broken(rows) & ~exceptions[pending, k])
        exceptions[pending] |= (shares > 0) & (shares == shares.max(axis=1, initial=0)[:, None])

    def solved(self, schema, values, exceptions=None, as_centres=False):
        """Return variables with the unknown columns of formulas that known values tell.

        As centres, a rounded target tells its determinants too, though only roughly, and so do
        formulas with exceptions. No formula tells anything in rows that are exceptions to it.
        """
        if not self.formulas or not np.isnan(values).any():
            return values
        values, rows = values.copy(), self.encoded(schema, values)
        if exceptions is None:
            exceptions = np.zeros((len(values), len(self.functions)), dtype=bool)
        follows = {
            rule: ~is_exception
            for rule, is_exception in zip(self.functions, exceptions.T, strict=True)
        }
        steps = [(self._tell_one, False), (self._tell_two, False)]
        if as_centres:  # last, as exact ones come first
            steps += [(self._tell_two, True), (self._tell_one, True)]
        # What one step tells, in place, may let another one tell more.
        while any(tell(schema, values, rows, follows, roughly) for tell, roughly in steps):
            pass
        return values

    def _tell_one(self, schema, values, rows, follows, roughly):
        """Set each column that is the only unknown one of a formula, in place.

        Only formulas without exceptions set their target. Roughly means determinants of a target
        that is rounded more than they are, such as a net amount by its tax. Return whether a column
        was set.
        """
        has_told = False
        terms = [
            (rule, i)
            for rule in self.formulas
            for i in (rule.columns if rule.counts.share == 0 else rule.determinants)
            if rule.tells(schema, i) != roughly
        ]
        for rule, i in terms:
            is_unknown = np.isnan(rows[:, i]) & have_value(schema, values, i)
            some = np.flatnonzero(is_unknown & follows[rule])
            told = rule.all_told(schema, rows[some], i)[0]
            told = np.where((told == told[0]).all(axis=0), told[0], np.nan)
            has_told |= self._tell(schema, values, rows, some, i, told)
        return has_told

    def _tell_two(self, schema, values, rows, follows, roughly):
        """Set pairs of unknown columns that two formulas determine together, in place.

        The first formula has the target of the other as a determinant. Roughly means also pairs of
        which others fit as well, whose first column is in the other formula alone, or of which the
        other formula has exceptions. Return whether a pair was set.
        """
        has_told = False
        for rule, other in permutations(self.formulas, 2):
            second = other.target.column
            if second not in rule.determinants:
                continue
            n_unknown = np.isnan(rows[:, sorted({*rule.columns, *other.columns})]).sum(axis=1)
            for i in other.determinants:
                is_rough = i not in rule.determinants or other.counts.share > 0
                if (is_rough and not roughly) or not schema.columns[i].is_number:
                    continue
                are_two = (n_unknown == 2) & follows[rule] & follows[other]
                for j in (i, second):
                    are_two &= np.isnan(rows[:, j]) & have_value(schema, values, j)
                some = np.flatnonzero(are_two)
                told = rule.told_with(schema, rows[some], other, i, roughly)
                has_told |= self._tell(schema, values, rows, some, i, told[0])
                self._tell(schema, values, rows, some, second, told[1])
        return has_told

    @staticmethod
    def _tell(schema, values, rows, some, i, told):
        """Set column i of some rows to told values that are not NaN, in place.

        Return whether there are any.
        """
        some, told = some[~np.isnan(told)], told[~np.isnan(told)]
        rows[some, i] = told
        schema.put(values, some, i, told)
        return len(some) > 0

    def _rejected(self, schema, drawn, values, exceptions, random_state):
        """Return which rows break an order and do not stay, or a function without an exception."""
        rows = self.encoded(schema, drawn)
        given = self.encoded(schema, values)
        rejected = np.zeros(len(rows), dtype=bool)
        for rule in self.orders:
            is_open = np.isnan(given[:, rule.columns]).any(axis=1)
            is_broken = rule.is_broken(rows) & is_open
            rejected |= is_broken & (random_state.uniform(size=len(rows)) >= rule.acceptance)
        for rule, is_exception in zip(self.functions, exceptions.T, strict=True):
            is_open = np.isnan(given[:, rule.determinants]).any(axis=1)
            rejected |= rule.is_broken(rows) & is_open & ~is_exception
        return rejected

    @staticmethod
    def _are_open(rows, rules):
        """Return which encoded rows know the target of some rule, and not all determinants."""
        is_open = np.zeros(len(rows), dtype=bool)
        for rule in rules:
            is_open |= rule.is_open(rows)
        return is_open

    def _have_unseen_span(self, schema, drawn, values):
        """Return which rows have a span outside of the range of the fit, between given dates.

        A date between these follows from one span, and no member has drawn the other one.
        """
        is_unseen = np.zeros(len(drawn), dtype=bool)
        if not schema.spans or not len(drawn):
            return is_unseen
        given, rows = (self.encoded(schema, schema.with_spans(each)) for each in (values, drawn))
        for k, *_ in schema.spans:
            low, high = schema.columns[k].seen
            is_unseen |= np.isnan(given[:, k]) & ((rows[:, k] < low) | (rows[:, k] > high))
        return is_unseen

    def _with_terms(self, density, values, exceptions, by_largest, random_state):
        """Return rows of given targets with drawn terms, and which of them are possible.

        Rates and other listed numbers are drawn first, as they and the target may tell the others.
        Of drawn terms, the largest one follows, which changes least; or one that no rule tells and
        whose numbers are as close as those of the target, which most often has a possible value.
        Rows are possible if all formulas hold that tell.
        """
        schema, terms = density._schema, values.copy()
        is_possible = np.ones(len(values), dtype=bool)
        if not len(values):
            return terms, is_possible
        drawn = self._drawn(density, terms, exceptions, random_state)
        for j in self._first_terms(schema):
            terms[:, j] = np.where(np.isnan(terms[:, j]), drawn[:, j], terms[:, j])
            terms = self.solved(schema, terms, exceptions)
        terms = self.solved(schema, terms, exceptions, as_centres=True)
        rows = self.encoded(schema, drawn)
        stays = np.zeros(rows.shape, dtype=bool)
        for i in self.columns:
            variable = schema.variables[schema.of_column[i][-1]]
            if not by_largest:
                stays[:, i] = any(rule.target.column == i for rule in self.functions)
            elif variable.has_number and variable.n_levels:  # frequent, such as no overtime
                stays[:, i] = np.isin(rows[:, i], variable.atoms)
        # A term may be the target of an earlier formula.
        for rule, is_exception in reversed([*zip(self.functions, exceptions.T, strict=True)]):
            if not isinstance(rule, Formula):
                continue
            given = self.encoded(schema, terms)
            open_rows = np.flatnonzero(rule.is_open(given) & ~is_exception)
            given, trial = given[open_rows], rows[open_rows]
            trial = np.where(np.isnan(given), trial, given)
            is_unknown = np.isnan(given[:, rule.determinants])
            comes_last = stays[np.ix_(open_rows, rule.determinants)]
            if not by_largest:
                comes_last |= rule.are_coarse(schema)
            sizes = np.where(comes_last, 0.0, rule.sizes(trial, schema))
            largest = np.where(is_unknown, sizes, -1.0).argmax(axis=1)
            for k, j in enumerate(rule.determinants):
                some = np.flatnonzero(largest == k)
                told = rule.told(schema, trial[some], j)
                is_told = ~np.isnan(told)
                if not by_largest and schema.columns[j].is_number:  # a small term may change a lot
                    is_told &= are_in_range(schema.variables[schema.of_column[j][-1]], told)
                trial[some[is_told], j] = told[is_told]
            fits = ~rule.is_broken(trial)
            is_possible[open_rows] &= fits
            for k, j in enumerate(rule.determinants):
                some = np.flatnonzero(fits & is_unknown[:, k])
                schema.put(terms, open_rows[some], j, trial[some, j])
        return terms, is_possible

    def _needed(self, schema):
        """Return variables of numbers that formulas need and no rule tells, if they have steps.

        The ones with few possible values come first.
        """
        needed = {i for rule in self.formulas for i in rule.determinants}
        needed -= {rule.target.column for rule in self.functions}
        variables = [schema.of_column[i][-1] for i in needed if schema.columns[i].is_number]
        sizes = {j: number_of_values(schema.variables[j]) for j in variables}
        return sorted((j for j in variables if np.isfinite(sizes[j])), key=sizes.get)

    def _first_terms(self, schema):
        """Return the needed variables that are listed, or that let two formulas tell two columns.

        For example, a net amount and the rate of its tax tell the gross amount and the tax.
        """
        keys = set()
        for rule, other in permutations(self.formulas, 2):
            shared = {*rule.determinants} & {*other.determinants}
            if shared and other.target.column in rule.determinants:
                keys |= {*other.determinants} - shared
        keys = {schema.of_column[i][-1] for i in keys}
        return [j for j in self._needed(schema) if j in keys or not schema.variables[j].has_number]

    def _with_determinants(self, density, values, random_state):
        """Return values with determinants drawn so that they agree with given targets."""
        from ._network import choose

        schema, values = density._schema, values.copy()
        for rule in self.functions[::-1]:
            (i, *others), rows = rule.determinants, self.encoded(schema, values)
            if others or not schema.columns[i].is_levels:
                continue
            open_rows = np.flatnonzero(
                np.isnan(rows[:, i]) & ~np.isnan(rows[:, rule.target.column])
            )
            if len(open_rows):
                j = schema.of_column[i][-1]
                view = TableView.of_conditions(schema, values[open_rows])
                log_weights = density._log_weights(view, view.known)
                levels = OneVariable(density, view, j, log_weights).levels
                drawn = choose(levels, random_state)
                values[open_rows, j] = schema.variables[j].decode(drawn)
        return values

    def _drawn(self, density, values, exceptions, random_state):
        """Return variables, the unknown ones drawn, and targets as functions expect them."""
        drawn = density._drawn_by_members(values, random_state)
        if not self.columns:
            return drawn
        schema = density._schema
        rows = self.encoded(schema, drawn, random_state)
        for i in self.columns:  # pooled values are one of these from now on
            self._set(schema, drawn, rows, i)
        for rule, stays in zip(self.functions, exceptions.T, strict=True):
            target = rule.target
            if isinstance(rule, Formula):
                self._give_frequent(schema, rule, values, rows, drawn, stays)
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
                    density, drawn[other], target, expected[other], random_state
                )
            self._set(schema, drawn, rows, target.column)
        return drawn

    def _give_frequent(self, schema, rule, values, rows, drawn, stays):
        """Let a term give a target that was drawn as a frequent value, in place.

        For example, a stock of 0: the sum of drawn terms hardly ever is. The largest possible term
        follows that is in no other function.
        """
        i, variable = rule.target.column, rule.variable
        others = {j for other in self.functions if other is not rule for j in other.columns}
        has_frequent = variable is not None and variable.has_number and variable.n_levels  # no date
        if not has_frequent or others.issuperset(rule.determinants):
            return
        is_open = np.isin(rows[:, i], variable.atoms) & rule.is_broken(rows) & ~stays
        is_open &= np.isnan(values[:, rule.target.variables[0]])
        sizes = rule.sizes(rows, schema)
        for k, j in enumerate(rule.determinants):
            is_known = ~np.isnan(values[:, schema.of_column[j][-1]])
            sizes[:, k] = np.where(is_known | (j in others), np.nan, sizes[:, k])
        by_size = np.argsort(-sizes, axis=1, kind="stable")  # NaN last
        for place, (k, j) in product(by_size.T, enumerate(rule.determinants)):
            some = np.flatnonzero(is_open & (place == k) & ~np.isnan(sizes[:, k]))
            told = rule.told(schema, rows[some], j)
            is_told = are_in_range(schema.variables[schema.of_column[j][-1]], told)
            rows[some[is_told], j] = told[is_told]
            schema.put(drawn, some[is_told], j, told[is_told])
            is_open[some[is_told]] = False

    def fill(self, schema, values, is_unknown, are_means=False):
        """Let the unknown values of complete rows follow the rules, in place (see `Filling`)."""
        Filling(self, schema, values, is_unknown, are_means).fill()

    def fill_by_possible(self, schema, values, filled, are_means):
        """Let rows of centres that break a formula follow from a possible number, in place.

        Of the numbers near the centre, such as numbers of pieces, the first with which other
        columns have possible values, such as the price of a piece.

        Parameters
        ----------
        schema : Schema
            The schema.
        values : ndarray of shape (n, n_variables)
            The rows with their unknown values.
        filled : ndarray of shape (n, n_variables)
            The complete rows.
        are_means : bool
            As in `Filling`.
        """
        is_broken = self._break_formulas(schema, values, filled, are_means)
        for j in self._needed(schema) if is_broken.any() else ():
            for rows in in_chunks(np.flatnonzero(np.isnan(values[:, j]) & is_broken), ROWS_TRIED):
                numbers = nearest_numbers(schema.variables[j], filled[rows, j])
                of = np.repeat(rows, numbers.shape[1])
                trial = values[of]
                trial[:, j] = numbers.ravel()
                trial = self.solved(schema, trial, as_centres=True)
                again = np.where(np.isnan(trial), filled[of], trial)
                self.fill(schema, again, np.isnan(trial), are_means)
                is_kept = ~self._break_formulas(schema, values[of], again, are_means)
                kept, first = np.unique(of[is_kept], return_index=True)
                filled[kept] = again[is_kept][first]
                is_broken[kept] = False

    def _break_formulas(self, schema, values, filled, are_means):
        """Return which complete rows break a formula without exceptions of an unknown column."""
        rows, is_broken = self.encoded(schema, filled), np.zeros(len(values), dtype=bool)
        is_unknown = np.isnan(self.encoded(schema, values))
        for rule in self.formulas:
            if rule.counts.share == 0:
                breaks = rule.is_broken(rows) & is_unknown[:, rule.columns].any(axis=1)
                if are_means:  # which are not rounded
                    error = np.abs(rule.total(rows) - rows[:, rule.target.column])
                    breaks &= error > rule.target.tolerance
                is_broken |= breaks
        return is_broken

    def probabilities(self, schema, values, j, levels):
        """Return the probabilities of the levels of variable j, which is unknown in rows."""
        i = schema.place_of(j)
        column = schema.columns[i]
        if not column.is_levels or j != schema.of_column[i][-1]:
            return levels
        rows = self.encoded(schema, values)
        for rule in self.functions:
            if rule.tells(schema, i):
                levels = rule.of_levels(schema, rows, i, levels)
        return self._of_determinant(schema, rows, i, levels)

    def are_of_determinant(self, i):
        """Return whether a column follows from column i alone."""
        return any(rule.determinants == (i,) for rule in self.functions)

    def _of_determinant(self, schema, rows, i, levels):
        """Return the probabilities of the levels of column i, given what follows from it alone."""
        if not self.are_of_determinant(i):
            return levels
        variable = schema.variables[schema.of_column[i][-1]]
        every = np.zeros((variable.n_levels, len(schema.of_column[i])))
        every[:, -1] = variable.decode(np.arange(variable.n_levels))
        of_levels = np.full((variable.n_levels, rows.shape[1]), np.nan)
        of_levels[:, i] = schema.columns[i].joined(every)
        for rule in self.functions:  # determinants come first: what follows is followed further
            (j, *others), target = rule.determinants, rule.target
            if others or np.isnan(of_levels[:, j]).all():
                continue
            expected = of_levels[:, target.column] = rule.expected(of_levels)
            # A known determinant in between tells what follows from it.
            x = np.where(np.isnan(rows[:, j]), rows[:, target.column], np.nan)
            differs = np.abs(x[:, None] - expected) > target.tolerance  # not if one is unknown
            levels = levels * np.where(differs, np.exp(rule.counts.log_broken), 1.0)
        return levels / levels.sum(axis=1, keepdims=True)

    def expectation(self, schema, values, j):
        """Return what a rule expects of variable j, a number, in rows, and the probabilities.

        Each is an array (n, k) of possible values. Probabilities are 0 where no rule tells the
        number.
        """
        i = schema.place_of(j)
        rules = [rule for rule in self.functions if rule.tells(schema, i)]
        is_value = schema.variables[j].has_number and schema.columns[i].kind != "datetime"
        if not rules or not is_value or j != schema.of_column[i][-1]:
            return np.full((len(values), 1), np.nan), np.zeros((len(values), 1))
        rows = self.encoded(schema, values)
        all_told = [(rule, *rule.all_told(schema, rows, i)) for rule in rules]
        all_told.sort(key=lambda each: len(each[1]))  # first by rules that tell a single value
        expected = np.full((len(values), len(all_told[-1][1])), np.nan)
        probability = np.zeros(expected.shape)
        for rule, told, shares in all_told:
            is_new = np.isnan(expected).all(axis=1) & ~np.isnan(told[0])
            expected[is_new, : len(told)] = told[:, is_new].T
            probability[is_new, : len(told)] = np.exp(rule.counts.log_holds) * shares
        return expected, probability

    def warn_of_broken(self, schema, given):
        """Warn of given values that break a rule that all rows of the fit follow."""
        rows = self.encoded(schema, given)
        for rule in self:
            if rule.counts.share == 0 and (is_broken := rule.is_broken(rows)).any():
                warn_user(
                    f"given breaks the rule {rule.text(schema.names)!r}{among(is_broken)}. All "
                    f"{rule.counts.n_rows} rows of fit that tell follow it: answers about other "
                    "columns are unreliable.",
                    ColumnWarning,
                )

    def warn_of_broken_draws(self, schema, values, drawn):
        """Warn of draws beside known values that break a rule that all rows of the fit follow."""
        rows = self.encoded(schema, values)
        if np.isnan(rows).all():  # as in samples without conditions
            return
        drawn = self.encoded(schema, drawn)
        for rule in self:
            is_mixed = np.isnan(rows[:, rule.columns]).any(axis=1) & ~np.isnan(rows).all(axis=1)
            if rule.counts.share == 0 and (is_broken := rule.is_broken(drawn) & is_mixed).any():
                warn_user(
                    f"Draws beside the known values break the rule {rule.text(schema.names)!r}"
                    f"{among(is_broken)}, although all {rule.counts.n_rows} rows of fit that tell "
                    "follow it. Check the known values: perhaps no others fit them.",
                    ColumnWarning,
                )

    @staticmethod
    def _set(schema, values, rows, i):
        values[:, schema.of_column[i]] = np.stack(schema.columns[i].split(rows[:, i]), axis=1)

    @staticmethod
    def _another(density, values, target, expected, random_state):
        """Return values of a target other than the expected ones, given the rest of the rows."""
        from ._network import choose

        schema, i = density._schema, target.column
        values = without(values, schema, i)
        column, j = schema.columns[i], target.variables[-1]
        if not column.is_levels:
            return column.joined(
                density._drawn_by_members(values, random_state)[:, schema.of_column[i]]
            )
        view = TableView.of_conditions(schema, values)
        levels = OneVariable(density, view, j, density._log_weights(view, view.known)).levels
        levels = without_level(levels, target.place(schema, expected))
        values[:, j] = schema.variables[j].decode(choose(levels, random_state))
        return column.joined(values[:, schema.of_column[i]], random_state)

    def describe(self, names):
        """Return the rows of a table of the rules."""
        return [
            dict(
                zip(
                    RULE_FIELDS,
                    [rule.text(names), rule.kind, rule.counts.share, rule.counts.n_rows],
                    strict=True,
                )
            )
            for rule in self
        ]


def have_value(schema, values, i):
    """Return which rows are known to have a value of column i, even if it is unknown."""
    if not schema.columns[i].has_flag:
        return np.ones(len(values), dtype=bool)
    return values[:, schema.of_column[i][0]] == 0


def are_in_range(variable, x):
    """Return which numbers are within the range of the fit, and so not NaN."""
    if not variable.has_number:
        return ~np.isnan(x)
    low, high = variable.seen
    return ((x >= low) & (x <= high)) | np.isin(x, variable.atoms)


def number_of_values(variable):
    """Return how many numbers a variable may have within the range of the fit."""
    if not variable.has_number:
        return variable.n_levels
    return np.inf if variable.step is None else np.ptp(variable.seen) / variable.step


def nearest_numbers(variable, x):
    """Return numbers of a variable with steps that the fit may have, the nearest to x first.

    Parameters
    ----------
    variable : Number or Levels
        The variable.
    x : ndarray of shape (n,)
        The numbers.

    Returns
    -------
    numbers : ndarray of shape (n, k)
        As many for each x.
    """
    if variable.has_number:
        (low, high), step = variable.seen, variable.step
        k = int(min(MAX_NUMBERS, 1 + number_of_values(variable)))
        first = np.clip(x - step * (k // 2), low, high - step * (k - 1))
        numbers = variable.snap(first[:, None] + step * np.arange(k))
        numbers = np.hstack([numbers, np.tile(variable.atoms, (len(x), 1))])
    else:
        numbers = np.tile(variable.decode(np.arange(variable.n_levels)), (len(x), 1))
    order = np.argsort(np.abs(numbers - x[:, None]), axis=1, kind="stable")
    return np.take_along_axis(numbers, order, axis=1)
