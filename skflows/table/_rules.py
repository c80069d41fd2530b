"""How the rules of a table correct the scores and samples of its density.

The members of a density are trained on all columns. Where determinants and target of a rule are
known, the score of a row is the members' without the target, plus the log-probability that the rule
holds. A target that breaks its rule keeps the members' probability, relative to all values that
break it, times the probability of exceptions. The mixture's probabilities that an order holds or is
broken are replaced by the shares of the rows.
"""

from itertools import permutations

import numpy as np

from ..columns.checks import ColumnWarning, among, warn_user
from ._completion import Completion
from ._filling import Filling
from ._formulas import Formula
from ._rule_kinds import LEAST_BROKEN
from ._variables import in_chunks
from ._view import TableView

MAX_NUMBERS, ROWS_TRIED = 300, 100  # numbers that are tried for a row, and rows at once
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
        """Return the encoded rows of variables; NaN in columns without a rule.

        Without a random state, a category that `fit` has not seen stays one, of which no rule tells
        anything; with it, such a draw is one of the rare categories.
        """
        rows = np.full((len(values), len(schema.columns)), np.nan)
        for i in self.columns:
            column, of_column = schema.columns[i], values[:, schema.of_column[i]]
            rows[:, i] = column.joined(of_column, random_state)
            if random_state is None and column.listed is not None:
                rows[column.is_unseen(of_column), i] = column.unseen
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
        completion = Completion(self, density)
        exceptions = completion.exceptions(N_WEIGHED, random_state)
        drawn = completion.drawn(nothing, exceptions, random_state)
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

    def solved(self, schema, values, exceptions=None, as_centres=False, may_be_blank=None):
        """Return variables with the unknown columns that known values tell.

        As centres, a rounded target tells its determinants too, though only roughly, and so do
        formulas with exceptions. No formula tells anything in rows that are exceptions to it.
        Cells of the mask ``may_be_blank``, of shape ``(n, n_columns)``, are left unknown.
        """
        if not self.functions or not np.isnan(values).any():
            return values
        values, rows = values.copy(), self.encoded(schema, values)
        if exceptions is None:
            exceptions = np.zeros((len(values), len(self.functions)), dtype=bool)
        follows = {
            rule: ~is_exception
            for rule, is_exception in zip(self.functions, exceptions.T, strict=True)
        }
        has_value = np.ones(rows.shape, dtype=bool)
        for i in self.columns:
            has_value[:, i] = have_value(schema, values, i)
        if may_be_blank is not None:
            has_value &= ~may_be_blank
        steps = [(self._tell_one, False), (self._tell_two, False)]
        if as_centres:  # last, as exact ones come first
            steps += [(self._tell_two, True), (self._tell_one, True)]
        # What one step tells, in place, may let another one tell more.
        state = schema, values, rows, follows, has_value
        while any(tell(*state, roughly) for tell, roughly in steps):
            pass
        return values

    def _tell_one(self, schema, values, rows, follows, has_value, roughly):
        """Set each column that is the only unknown one of a formula, in place.

        Only functions without exceptions set their target. Roughly means determinants of a target
        that is rounded more than they are, such as a net amount by its tax. Return whether a column
        was set.
        """
        has_told = False
        terms = [
            (rule, i)
            for rule in (self.formulas if roughly else self.functions)  # a category may tell a term
            for i in (rule.columns if rule.counts.share == 0 else rule.determinants)
            if rule.tells(schema, i) != roughly
        ]
        for rule, i in terms:
            is_unknown = np.isnan(rows[:, i]) & has_value[:, i]
            some = np.flatnonzero(is_unknown & follows[rule])
            told = rule.all_told(schema, rows[some], i)[0]
            told = np.where((told == told[0]).all(axis=0), told[0], np.nan)
            has_told |= self._tell(schema, values, rows, some, i, told)
        return has_told

    def _tell_two(self, schema, values, rows, follows, has_value, roughly):
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
                    are_two &= np.isnan(rows[:, j]) & has_value[:, j]
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

    def needed(self, schema):
        """Return variables of numbers that formulas need and no rule tells, if they have steps.

        The ones with few possible values come first.
        """
        needed = {i for rule in self.formulas for i in rule.determinants}
        needed -= {rule.target.column for rule in self.functions}
        variables = [schema.of_column[i][-1] for i in needed if schema.columns[i].is_number]
        sizes = {j: number_of_values(schema.variables[j]) for j in variables}
        return sorted((j for j in variables if np.isfinite(sizes[j])), key=sizes.get)

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
        for j in self.needed(schema) if is_broken.any() else ():
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
        variable = schema.variable_of(i)
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
