"""Rules that hold between the columns of a table, in all rows or nearly all.

A rule of the kind "function" tells a column, its target, by one or two others, the determinants.
So do rules of the kinds "linear", as a sum of others, up to a step if it was rounded apart from
them, and "product". A rule of the kind "order" says that one column is at most another.

Rules are found in encoded rows (n, n_columns). The members of a density are trained on all columns;
rules correct their scores and samples. Where determinants and target are known, the score of a row
is the members' without the target, plus the log-probability that the rule holds. A target that
breaks its rule keeps the members' probability, relative to all values that break it, times the
probability of exceptions. The mixture's probabilities that an order holds or is broken are replaced
by the shares of the rows.
"""

from typing import NamedTuple

import numpy as np

from ..columns.checks import ColumnWarning, among, warn_user
from ..columns.lattice import decimals_of
from ._predictive import OneVariable, without
from ._view import TableView

ROUNDS_OF_RULES = 15  # of draws in place of rows that break a rule
DRAWS_AT_ONCE, MAX_DRAWS = 1_000, 20  # in each round, of all rows and of each
CHEAP_ROUNDS = 2  # after which determinants of given targets are drawn on their own
N_WEIGHED = 4_000  # samples that tell how often the mixture breaks an order
LEAST_BROKEN = 1e-12  # probability that a member gives to all values that break a rule
RESOLUTION = 1e-6  # of the range of a number without rounding: closer numbers are equal
ROUNDING = 1e-9  # relative error of sums of weights
STEPS_APART = 1.25  # by which numbers that were rounded apart may differ from their sum
UNITS = {"weeks": 604_800.0, "days": 86_400.0, "hours": 3_600.0, "minutes": 60.0, "seconds": 1.0}
RULE_FIELDS = ["rule", "kind", "exceptions", "rows"]  # of the table of rules


class Target(NamedTuple):
    """The column that a rule tells."""

    column: int
    variables: np.ndarray  # those that hold its value
    tolerance: float  # within which values are equal
    log_width: float  # of a value with a density, 0 for probabilities

    @classmethod
    def of(cls, schema, i):
        """Return column i of a schema as a target."""
        column = schema.columns[i]
        variables = schema.of_column[i][column.has_flag :]
        tolerance, width = 0.25, 1.0  # of places of categories
        if column.kind == "datetime":  # the time of day has a density per second
            tolerance = 0.5
        elif column.is_number:
            (variable,) = column.value_variables
            step = variable.step
            if variable.has_number and step is None:
                low, high = variable.seen
                width = variable.unit or RESOLUTION * ((high - low) or 1.0)
                tolerance = width / 2 if variable.unit is None else width / 4
            else:
                tolerance = step / 4
        return cls(i, variables, tolerance, float(np.log(width)))

    def split(self, schema, expected):
        """Return the variables of encoded values, ``(n, n_variables)``."""
        return np.stack(schema.columns[self.column].split(expected)[-len(self.variables) :], axis=1)

    def place(self, schema, expected):
        """Return the places of encoded values among levels, -1 for others."""
        variable = schema.variables[self.variables[-1]]
        values = self.split(schema, expected)[:, -1]
        code = variable.code(values)
        is_level = (code < variable.n_levels) & ~variable.is_between(values, code)
        return np.where(is_level, code, -1)


class Counts(NamedTuple):
    """What the rows of a fit say of a rule."""

    share: float  # of exceptions
    n_rows: int  # that tell
    log_broken: float  # log-probability of an exception in scores
    log_holds: float

    @classmethod
    def of(cls, share, is_exception, weight):
        """Return the counts, given the rows that tell, as a rule that did not see each judges it.

        A row of weight 2, relative to the mean of the table, counts as two.
        """
        broken = (weight @ is_exception + 1) / (weight.sum() + 2)
        return cls(float(share), len(weight), float(np.log(broken)), float(np.log1p(-broken)))

    @classmethod
    def of_breaks(cls, is_broken, values, weight):
        """Return the counts of a rule without lists of rows, which rows with all values tell."""
        known = ~np.isnan(values).any(axis=1)
        is_broken, weight = is_broken[known], weight[known]
        share = np.average(is_broken, weights=weight) if len(weight) else 0.0
        return cls.of(share, is_broken, weight)


class Function:
    """Base of the rules that tell a column, their target, by others, their determinants.

    ``expected(rows)`` returns what the target should be, NaN where the rule says nothing.
    """

    @property
    def columns(self):
        """The determinants and the target."""
        return *self.determinants, self.target.column

    def is_broken(self, rows):
        """Return which rows break the rule; none with an unknown value does."""
        return np.abs(rows[:, self.target.column] - self.expected(rows)) > self.target.tolerance

    def log_prob_of_error(self, error):
        """Return the log-probability of the target minus what is expected, if the rule holds."""
        return np.zeros(len(error))

    def possible(self, expected):
        """Return the values of the target for which the rule holds, of shape (k, n)."""
        return expected[None]

    def drawn(self, expected, random_state):
        """Return random values of the target for which the rule holds."""
        return expected

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns."""
        return i == self.target.column

    def told(self, schema, rows, i):
        """Return what column i, the target, should be, NaN where the rule says nothing."""
        return self.expected(rows)

    def all_told(self, schema, rows, i):
        """Return the values of column i for which the rule holds, (k, n), and their shares."""
        return self.told(schema, rows, i)[None], np.ones(1)

    def of_levels(self, schema, rows, i, levels):
        """Return the probabilities of the levels of a column that the rule tells."""
        told, shares = self.all_told(schema, rows, i)
        place = np.full(told.shape, -1)
        follows = np.flatnonzero(~np.isnan(told[0]))
        target = Target.of(schema, i)
        place[:, follows] = [target.place(schema, each[follows]) for each in told]
        follows = np.flatnonzero((place >= 0).any(axis=0))
        place, levels = place[:, follows], levels.copy()
        shares = shares[:, None] * (place >= 0)
        shares *= np.exp(self.counts.log_holds) / shares.sum(axis=0)
        levels[follows] = without_level(levels[follows], place) * np.exp(self.counts.log_broken)
        for each, share in zip(place, shares, strict=True):  # a share of 0 changes nothing
            levels[follows, each] += share
        return levels


class Lookup(Function):
    """A column as a function of one or two others, by a list of the combinations seen.

    Parameters
    ----------
    determinants : tuple of int
        The columns that determine the target.
    target : Target
        The column that they determine.
    rows : ndarray of shape (n, n_columns)
        Encoded rows.
    weight : ndarray of shape (n,)
        Weight of each row.
    """

    kind = "function"

    def __init__(self, determinants, target, rows, weight):
        self.determinants, self.target = determinants, target
        columns = [*determinants, target.column]
        known = ~np.isnan(rows[:, columns]).any(axis=1)
        rows, weight = rows[known], weight[known]
        self.seen = [np.unique(rows[:, j]) for j in determinants]
        results, result = np.unique(rows[:, target.column], return_inverse=True)
        groups = Groups(self._key(rows), result.ravel(), len(results), weight)
        self.keys, self.results = groups.keys, results[groups.first]
        share = np.average(groups.is_exception, weights=weight) if len(rows) else 0.0
        tells = groups.tells
        self.counts = Counts.of(share, groups.is_unforeseen[tells], weight[tells])

    def _key(self, rows):
        """Return a number for each combination of determinants, -1 for one that was not seen."""
        key, is_seen = np.zeros(len(rows), dtype=int), np.ones(len(rows), dtype=bool)
        for j, seen in zip(self.determinants, self.seen, strict=True):
            place = np.searchsorted(seen, rows[:, j]).clip(max=max(len(seen) - 1, 0))
            is_seen &= seen[place] == rows[:, j] if len(seen) else False
            key = key * len(seen) + place
        return np.where(is_seen, key, -1)

    def expected(self, rows):
        """Return what the target should be in each row, NaN where the rule says nothing."""
        expected = np.full(len(rows), np.nan)
        if len(self.keys):
            key = self._key(rows)
            place = np.searchsorted(self.keys, key).clip(max=len(self.keys) - 1)
            is_seen = self.keys[place] == key
            expected[is_seen] = self.results[place[is_seen]]
        return expected

    def with_rows(self, rows, weight):
        """Return the same rule with the combinations of other rows."""
        return Lookup(self.determinants, self.target, rows, weight)

    def text(self, names):
        """Return the rule as text."""
        determinants = " and ".join(str(names[j]) for j in self.determinants)
        return f"{names[self.target.column]} follows from {determinants}"


class Formula(Function):
    """Base of the rules that compute a number from others, rounded as the target is.

    ``total(rows)`` returns it before rounding, ``rest(rows, i)`` the determinant i that gives the
    target, and ``sizes(rows)`` the sizes of the terms of the determinants.
    """

    def count(self, rows, weight):
        """Return the counts of rows."""
        return Counts.of_breaks(self.is_broken(rows), rows[:, self.columns], weight)

    def expected(self, rows):
        """Return what the target should be in each row, NaN where it would be outside its kind."""
        return rounded(self.total(rows), self.variable, self.nudge)

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns.

        If the target is rounded more than a term is, several values of the term fit.
        """
        if i not in self.determinants:
            return i == self.target.column
        is_rounded = lattice_of_variable(self.variable)[1] is not None
        tolerance = self.slopes[self.determinants.index(i)] * Target.of(schema, i).tolerance
        return not (is_rounded and tolerance < (1 - 1e-9) * self.target.tolerance)

    def told(self, schema, rows, i):
        """Return what column i should be, NaN where no possible value fits the other columns."""
        if i == self.target.column:
            return self.expected(rows)
        variable = schema.variables[schema.of_column[i][-1]]
        if variable.has_number:
            options = rounded(self.rest(rows, i), variable, 0.0)[None]
        else:  # one of the numbers that the column has, if a single one fits
            options = np.repeat(np.array(variable.levels, dtype=float)[:, None], len(rows), axis=1)
        fits = np.empty(options.shape, dtype=bool)
        for k, option in enumerate(options):
            trial = rows.copy()
            trial[:, i] = option
            error = np.abs(self.expected(trial) - rows[:, self.target.column])
            fits[k] = error <= self.target.tolerance
        told = options[fits.argmax(axis=0), np.arange(len(rows))]
        return np.where(fits.sum(axis=0) == 1, told, np.nan)


class Linear(Formula):
    """A number as a sum of others times constant factors, rounded as the target is.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`.
    coefficients : tuple of float
        The factor of each determinant.
    constant : float
        What is added.
    variable : Number or Levels
        The variable of the target.
    nudge : float
        Steps that are added before rounding, so that halves are rounded as the rows show.
    """

    kind = "linear"

    def __init__(self, determinants, target, coefficients, constant, variable, nudge, rows, weight):
        self.determinants, self.target = determinants, target
        self.coefficients, self.constant = coefficients, constant
        self.variable, self.nudge = variable, nudge
        self.slopes = np.abs(coefficients)  # of the target, by each determinant
        self.counts = self.count(rows, weight)

    def total(self, rows):
        """Return the sum in each row."""
        return rows[:, self.determinants] @ np.array(self.coefficients) + self.constant

    def rest(self, rows, i):
        """Return what column i should be, before rounding."""
        others = rows.copy()
        others[:, i] = 0.0
        coefficient = self.coefficients[self.determinants.index(i)]
        return (rows[:, self.target.column] - self.total(others)) / coefficient

    def sizes(self, rows):
        """Return the size of each term."""
        return np.abs(rows[:, self.determinants] * self.coefficients)

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        return type(self)(
            self.determinants,
            self.target,
            self.coefficients,
            self.constant,
            self.variable,
            self.nudge,
            rows,
            weight,
        )

    def text(self, names):
        """Return the rule as text."""
        text = ""
        for j, coefficient in zip(self.determinants, self.coefficients, strict=True):
            size = abs(coefficient)
            term = str(names[j]) if size == 1 else f"{size:.6g} * {names[j]}"
            if is_short(1 / size) and not is_short(size):
                term = f"{names[j]} / {1 / size:.6g}"
            text += f" {'-' if coefficient < 0 else '+'} {term}"
        if self.constant:
            text += f" {'-' if self.constant < 0 else '+'} {abs(self.constant):.6g}"
        text = text.removeprefix(" + ").strip()
        return f"{names[self.target.column]} = {text}"


class RoundedSum(Linear):
    """A number as a sum of others that were rounded apart from it: it may be a step off.

    It takes the parameters of `Linear`. All columns have the same step.
    """

    def __init__(self, determinants, target, coefficients, constant, variable, nudge, rows, weight):
        self.step = lattice_of_variable(variable)[1]
        target = target._replace(tolerance=STEPS_APART * self.step)
        super().__init__(
            determinants, target, coefficients, constant, variable, nudge, rows, weight
        )
        errors = rows[:, target.column] - self.expected(rows)
        holds = np.abs(errors) <= target.tolerance
        counts = np.bincount(self._place(errors[holds]), weight[holds], 3) + 1
        self.shares = counts / counts.sum()

    def _place(self, error):
        return (1 + np.rint(np.nan_to_num(error) / self.step)).clip(0, 2).astype(int)

    def log_prob_of_error(self, error):
        """Return the log-probability of the target minus what is expected, if the rule holds."""
        return np.log(self.shares[self._place(error)])

    def possible(self, expected):
        """Return the values of the target for which the rule holds, of shape (3, n)."""
        values = expected + self.step * np.array([[-1], [0], [1]])
        moved = rounded(values, self.variable, 0.0)
        return np.where(np.isnan(moved), expected, moved)

    def drawn(self, expected, random_state):
        """Return random values of the target for which the rule holds."""
        place = random_state.choice(3, len(expected), p=self.shares)
        return self.possible(expected)[place, np.arange(len(expected))]

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns."""
        return i == self.target.column

    def all_told(self, schema, rows, i):
        """Return the values of the target for which the rule holds, (3, n), and their shares."""
        return self.possible(self.expected(rows)), self.shares

    def text(self, names):
        """Return the rule as text."""
        return f"{super().text(names)} +/- {self.step:.6g}"


class Elapsed(Linear):
    """A date as another date plus a span of time: a number of a unit, a constant or both.

    It takes the parameters of `Linear`: the first determinant is the other date, a second one the
    number. Coefficients and the constant are in seconds.
    """

    def expected(self, rows):
        """Return what the date should be in each row."""
        return np.rint(self.total(rows))

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns."""
        return i in self.columns

    def told(self, schema, rows, i):
        """Return what column i should be, NaN where no possible value fits the other columns."""
        if i == self.target.column or schema.columns[i].is_number:
            return super().told(schema, rows, i)
        return np.rint(self.rest(rows, i))

    def text(self, names):
        """Return the rule as text."""
        span = [*self.coefficients[1:], self.constant][0]
        units = [each for each in UNITS.items() if span % each[1] == 0]  # the largest is first
        name, unit = [*units, ("seconds", 1.0)][0]
        first, *number = (names[j] for j in self.determinants)
        text = f"{names[self.target.column]} = {first}"
        text += "".join(f" + {each} ({name})" for each in number)
        if self.constant:
            sign = "-" if self.constant < 0 else "+"
            text += f" {sign} {abs(self.constant) / unit:.6g} {name}"
        return text


class Product(Formula):
    """A number as the product of two or three others, rounded as the target is.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`.
    factor : float
        A constant factor.
    rates : tuple of float
        For each determinant, 0 if it is a factor. Otherwise 1 plus this times it is, such as
        -0.01 for a discount in per cent.
    variable, nudge
        As in `Linear`.
    """

    kind = "product"

    def __init__(self, determinants, target, factor, rates, variable, nudge, rows, weight):
        self.determinants, self.target, self.factor = determinants, target, factor
        self.rates, self.variable, self.nudge = np.array(rates), variable, nudge
        known = rows[~np.isnan(rows[:, determinants]).any(axis=1)]
        least = self.sizes(known).min(axis=0, initial=np.inf)
        self.slopes = [
            abs(factor * (rate or 1.0)) * np.delete(least, i).prod() for i, rate in enumerate(rates)
        ]
        self.counts = self.count(rows, weight)

    def factors(self, rows):
        """Return the factors of each row, of shape (n, n_determinants)."""
        return factors_of(rows[:, self.determinants], self.rates)

    def total(self, rows):
        """Return the product in each row."""
        return self.factor * self.factors(rows).prod(axis=1)

    def rest(self, rows, i):
        """Return what column i should be, before rounding; NaN beside a 0."""
        place = self.determinants.index(i)
        divisor = self.factor * np.delete(self.factors(rows), place, axis=1).prod(axis=1)
        rest = rows[:, self.target.column] / np.where(divisor == 0, np.nan, divisor)
        rate = self.rates[place]
        return (rest - 1) / rate if rate else rest

    def sizes(self, rows):
        """Return the size of each factor."""
        return np.abs(self.factors(rows))

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        line = self.factor, tuple(self.rates), self.variable, self.nudge
        return Product(self.determinants, self.target, *line, rows, weight)

    def text(self, names):
        """Return the rule as text."""
        factors = [] if self.factor == 1 else [f"{self.factor:.6g}"]
        for j, rate in zip(self.determinants, self.rates, strict=True):
            if not rate:
                factors.append(str(names[j]))
                continue
            per = "" if abs(rate) == 1 else f" / {1 / abs(rate):.0f}"
            factors.append(f"(1 {'-' if rate < 0 else '+'} {names[j]}{per})")
        return f"{names[self.target.column]} = {' * '.join(factors)}"


class ProductAndTerm(Formula):
    """A number as the product of two others plus or minus a third, rounded as the target is.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`: the two factors, and the term.
    sign : float
        1 if the term is added, -1 if it is subtracted.
    variable, nudge
        As in `Linear`.
    """

    kind = "product"

    def __init__(self, determinants, target, sign, variable, nudge, rows, weight):
        self.determinants, self.target, self.sign = determinants, target, sign
        self.variable, self.nudge = variable, nudge
        known = rows[~np.isnan(rows[:, determinants]).any(axis=1)]
        least = np.abs(known[:, determinants]).min(axis=0, initial=np.inf)
        self.slopes = [least[1], least[0], 1.0]
        self.counts = self.count(rows, weight)

    def total(self, rows):
        """Return the sum in each row."""
        first, second, term = rows[:, self.determinants].T
        return first * second + self.sign * term

    def rest(self, rows, i):
        """Return what column i should be, before rounding; NaN beside a 0."""
        first, second, term = rows[:, self.determinants].T
        target, place = rows[:, self.target.column], self.determinants.index(i)
        if place == 2:
            return self.sign * (target - first * second)
        divisor = second if place == 0 else first
        return (target - self.sign * term) / np.where(divisor == 0, np.nan, divisor)

    def sizes(self, rows):
        """Return the size of each factor; the term counts as the largest.

        Any factors leave it a value, while few of its values leave one for a factor.
        """
        sizes = np.abs(rows[:, self.determinants])
        sizes[:, 2] = np.inf
        return sizes

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        line = self.sign, self.variable, self.nudge
        return ProductAndTerm(self.determinants, self.target, *line, rows, weight)

    def text(self, names):
        """Return the rule as text."""
        first, second, term = (names[j] for j in self.determinants)
        sign = "-" if self.sign < 0 else "+"
        return f"{names[self.target.column]} = {first} * {second} {sign} {term}"


def factors_of(values, rates):
    """Return the factors of products: values, or 1 plus a rate times them where it is not 0."""
    return np.where(rates, 1 + rates * values, values)


def is_short(number):
    """Return whether a number has few digits."""
    return abs(number - float(f"{number:.6g}")) < 1e-12 * abs(number)


def rounded(x, variable, nudge):
    """Return numbers on the lattice of a variable, NaN where they are outside of its kind.

    A bound that was inferred is possible, such as an amount of 0, which is 0 times a price.
    """
    origin, step, decimals = lattice_of_variable(variable)
    if None not in (step, decimals) and np.isclose(step * 10.0**decimals, 1):
        x = np.round(x + step * nudge, decimals)  # halves as numpy and pandas round them
    elif step is not None:
        x = origin + step * np.rint((x - origin) / step + nudge)
        x = x if decimals is None else np.round(x, decimals)
    known = ~np.isnan(x)
    x = x.copy()
    is_outside = variable.is_outside(x[known]) & ~variable.outside.is_inferred_bound(x[known])
    x[known] = np.where(is_outside, np.nan, x[known])
    return x


def _have_same_values(schema, order):
    """Return whether each column of an order can have the values of the other."""
    low, high = (schema.columns[i].lattices for i in order.columns)
    return low == high


def lattice_of_variable(variable):
    """Return origin, step and decimals of the numbers of a variable; no step if there is none."""
    if not variable.has_number:
        return variable.levels[0], variable.step, decimals_of(np.array(variable.levels))
    if variable.step is not None:
        return variable.origin, variable.step, variable.decimals
    return 0.0, variable.unit, variable.decimals


class Order:
    """One column is at most another.

    Parameters
    ----------
    low, high : int
        The columns.
    rows : ndarray of shape (n, n_columns)
        Encoded rows.
    weight : ndarray of shape (n,)
        Weight of each row.
    """

    kind = "order"

    def __init__(self, low, high, rows, weight):
        self.low, self.high = low, high
        self.counts = Counts.of_breaks(self.is_broken(rows), rows[:, self.columns], weight)
        self.model = None  # the mixture's probabilities that the order is broken, and kept

    @property
    def columns(self):
        return self.low, self.high

    def is_broken(self, rows):
        """Return which rows break the order; none with an unknown value does."""
        return rows[:, self.low] > rows[:, self.high]

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        return Order(self.low, self.high, rows, weight)

    def weigh(self, rows):
        """Note how often samples of the mixture break the order, if both values are known."""
        known = ~np.isnan(rows[:, self.columns]).any(axis=1)
        n_broken, n = self.is_broken(rows).sum(), known.sum()
        broken = (n_broken + 1) / (n + 2)
        self.model = float(broken), float(1 - broken)

    @property
    def acceptance(self):
        """The share of drawn rows that break the order to keep: as many as in the fit."""
        broken, kept = self.model
        odds = self.counts.share / max(1 - self.counts.share, LEAST_BROKEN)
        return min(1.0, odds * kept / broken)

    def text(self, names):
        """Return the rule as text."""
        return f"{names[self.low]} <= {names[self.high]}"


class Groups:
    """Rows grouped by a key, and the most frequent result of each group.

    Parameters
    ----------
    key, result : ndarray of shape (n,) of int
        The group of each row, and its result.
    n_results : int
        Number of results.
    weight : ndarray of shape (n,), optional
        Weight of each row.

    Attributes
    ----------
    keys, first : ndarray of shape (n_groups,)
        The groups in order, and the most frequent result of each, by weight.
    n_groups : int
        Number of groups of at least two rows.
    tells : ndarray of shape (n,) of bool
        Which groups of rows have at least two: these rows tell.
    is_exception, is_unforeseen : ndarray of shape (n,) of bool
        Which rows have another result than the most frequent one of their group, and of the other
        rows of their group.
    """

    def __init__(self, key, result, n_results, weight=None):
        pairs, inverse = np.unique(key * n_results + result, return_inverse=True)
        total = np.bincount(inverse.ravel(), weight, len(pairs))
        keys, results = np.divmod(pairs, max(n_results, 1))
        order = np.lexsort((-total, keys))
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self.keys, self.first = keys[starts], results[order[starts]]
        most, second = total[order[starts]], np.zeros(len(starts))
        has_second = np.diff(starts, append=len(keys)) > 1
        second[has_second] = total[order[starts[has_second] + 1]]
        group = np.searchsorted(self.keys, key)
        n_of_group = np.bincount(group, minlength=len(starts))
        self.tells, self.n_groups = (n_of_group > 1)[group], (n_of_group > 1).sum()
        self.is_exception = result != self.first[group]
        # Without a row of the most frequent result, another may be as frequent.
        rest = most[group] - (1 if weight is None else weight)
        self.is_unforeseen = self.is_exception | (rest <= (1 + ROUNDING) * second[group])


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
        values = values.copy()
        was_given = np.zeros(values.shape, dtype=bool) if given is None else given
        given = was_given.copy()
        for rule in rules.functions:
            for i in (rule.target.column, *rule.determinants):
                is_target = i == rule.target.column
                if not is_target and not (was_given.any() and rule.tells(schema, i)):
                    continue
                target = rule.target if is_target else Target.of(schema, i)
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
                log_holds = rule.counts.log_holds + rule.log_prob_of_error(x - expected)
                log_holds -= target.log_width
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
    functions : list of Lookup, Linear, RoundedSum, Elapsed or Product
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
        nothing = density._nothing_known(N_WEIGHED)
        rows = self.encoded(
            density._schema, self._drawn(density, nothing, np.random.RandomState(0))
        )
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
            error = np.abs(rows[:, rule.target.column] - rule.expected(rows))
            holds = (error <= rule.target.tolerance) & ~is_far[:, determinants].any(axis=1)
            is_far[np.ix_(holds, rule.target.variables)] = False
        return is_far

    def are_kept(self, schema, values):
        """Return which rows break no rule."""
        rows, kept = self.encoded(schema, values), np.ones(len(values), dtype=bool)
        for rule in self:
            kept &= ~rule.is_broken(rows)
        return kept

    def without_orders(self):
        """Return the other rules."""
        return Rules(self.functions)

    def complete(self, density, values, random_state):
        """Return variables, the unknown ones drawn given the known ones, so that rules are kept."""
        schema = density._schema
        values = self.solved(schema, values)
        drawn = self._drawn(density, values, random_state)
        pending = np.flatnonzero(self._rejected(schema, drawn, values, random_state))
        for i in range(ROUNDS_OF_RULES):
            if not len(pending):
                return drawn
            known = self._with_terms(schema, values[pending], drawn[pending])
            if i >= CHEAP_ROUNDS:
                known = self._with_determinants(density, known, random_state)
            # Of several draws of each row, the first that keeps the rules: rounds take time.
            n_draws = int(np.clip(DRAWS_AT_ONCE // len(pending), 1, MAX_DRAWS))
            again = self._drawn(density, np.repeat(known, n_draws, axis=0), random_state)
            given = np.repeat(values[pending], n_draws, axis=0)
            is_rejected = self._rejected(schema, again, given, random_state).reshape(-1, n_draws)
            first = is_rejected.argmin(axis=1) + n_draws * np.arange(len(pending))
            drawn[pending], pending = again[first], pending[is_rejected.all(axis=1)]
        self._exchange(schema, drawn, values, pending)
        return drawn

    def solved(self, schema, values):
        """Return variables in which formulas tell the only unknown determinant."""
        formulas = [rule for rule in self.functions if isinstance(rule, Formula)]
        if not formulas or not np.isnan(values).any():
            return values
        values, rows = values.copy(), self.encoded(schema, values)
        for rule in formulas:
            for i in rule.determinants:
                unknown = np.flatnonzero(np.isnan(rows[:, i]))
                told = rule.told(schema, rows[unknown], i)
                rows[unknown, i] = told
                unknown, told = unknown[~np.isnan(told)], told[~np.isnan(told)]
                column = schema.columns[i]
                variables = schema.of_column[i][column.has_flag :]
                split = column.split(told)[column.has_flag :]
                values[np.ix_(unknown, variables)] = np.stack(split, axis=1)
        return values

    def _rejected(self, schema, drawn, values, random_state):
        """Return which rows break an order, or a function of a given target, and do not stay."""
        rows = self.encoded(schema, drawn)
        given = self.encoded(schema, values)
        rejected = np.zeros(len(rows), dtype=bool)
        for rule in self.orders:
            is_open = np.isnan(given[:, rule.columns]).any(axis=1)
            is_broken = rule.is_broken(rows) & is_open
            rejected |= is_broken & (random_state.uniform(size=len(rows)) >= rule.acceptance)
        for rule in self.functions:
            x, expected = given[:, rule.target.column], rule.expected(rows)
            is_open = np.isnan(given[:, rule.determinants]).any(axis=1)
            is_broken = is_open & (np.abs(x - expected) > rule.target.tolerance)
            rejected |= is_broken & (random_state.uniform(size=len(rows)) >= rule.counts.share)
        return rejected

    def _with_terms(self, schema, values, drawn):
        """Return values with the drawn terms of a given target, except for the largest one.

        Drawn terms beside which no value of the largest one gives the target stay unknown.
        """
        rows, values = self.encoded(schema, drawn), values.copy()
        for rule in self.functions:
            if not isinstance(rule, Formula):
                continue
            given = self.encoded(schema, values)
            is_open = np.isnan(given[:, rule.determinants])
            open_rows = np.flatnonzero(
                is_open.any(axis=1) & ~np.isnan(given[:, rule.target.column])
            )
            largest = np.where(is_open, rule.sizes(rows), -1.0).argmax(axis=1)
            trial = np.where(np.isnan(given), rows, given)
            told = [rule.told(schema, trial, j) for j in rule.determinants]
            told = np.stack(told, axis=1)[np.arange(len(rows)), largest]
            open_rows = open_rows[~np.isnan(told[open_rows])]
            for k, j in enumerate(rule.determinants):
                some = open_rows[is_open[open_rows, k] & (largest[open_rows] != k)]
                values[np.ix_(some, schema.of_column[j])] = drawn[np.ix_(some, schema.of_column[j])]
        return self.solved(schema, values)

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
                j, view = schema.of_column[i][-1], TableView(schema, values[open_rows])
                log_weights = density._log_weights(view, view.known)
                levels = OneVariable(density, view, j, log_weights).levels
                drawn = choose(levels, random_state)
                values[open_rows, j] = schema.variables[j].decode(drawn, None, None)
        return values

    def _exchange(self, schema, drawn, values, pending):
        """Exchange the two values of an order that rows break after all rounds."""
        for rule in self.orders:
            if not _have_same_values(schema, rule):
                continue
            low, high = (schema.of_column[i] for i in rule.columns)
            broken = pending[rule.is_broken(self.encoded(schema, drawn[pending]))]
            broken = broken[np.isnan(values[np.ix_(broken, [low[-1], high[-1]])]).all(axis=1)]
            drawn[np.ix_(broken, [*low, *high])] = drawn[np.ix_(broken, [*high, *low])]

    def _drawn(self, density, values, random_state):
        """Return variables, the unknown ones drawn, and targets as functions expect them."""
        drawn = density._drawn_by_members(values, random_state)
        if not self.columns:
            return drawn
        schema = density._schema
        rows = self.encoded(schema, drawn, random_state)
        for i in self.columns:  # pooled values are one of these from now on
            self._set(schema, drawn, rows, i)
        for rule in self.functions:
            target = rule.target
            expected = rule.expected(rows)
            is_free = np.isnan(values[:, target.variables[0]]) & ~np.isnan(rows[:, target.column])
            is_free &= ~np.isnan(expected)
            stays = random_state.uniform(size=len(rows)) < rule.counts.share
            follows = is_free & ~stays
            rows[follows, target.column] = rule.drawn(expected[follows], random_state)
            same = np.abs(rows[:, target.column] - expected) <= target.tolerance
            other = np.flatnonzero(is_free & stays & same)
            if len(other):
                rows[other, target.column] = self._another(
                    density, drawn[other], target, expected[other], random_state
                )
            self._set(schema, drawn, rows, target.column)
        return drawn

    def fill(self, schema, values, is_unknown):
        """Replace unknown targets in complete rows by what rules expect of them, and keep orders.

        An unknown value that breaks an order becomes equal to the known one. Two are exchanged if
        each may have the value of the other; otherwise the lower one becomes equal to the other.
        """
        rows = self.encoded(schema, values)

        def put(some, i, x):
            rows[some, i] = x
            values[np.ix_(some, schema.of_column[i])] = np.stack(schema.columns[i].split(x), axis=1)

        for _ in range(2):  # what orders change may tell a target, and the reverse
            for rule in self.orders:
                broken = rule.is_broken(rows)
                low, high = rule.columns
                open_low, open_high = (is_unknown[:, schema.of_column[i][-1]] for i in rule.columns)
                is_exchanged = open_low & open_high & _have_same_values(schema, rule)
                both = np.flatnonzero(broken & is_exchanged)
                put_low, put_high = rows[both, high], rows[both, low]
                put(both, low, put_low)
                put(both, high, put_high)
                for i, other, is_open, toward in (
                    (low, high, open_low & ~is_exchanged, np.floor),
                    (high, low, open_high & ~open_low, np.ceil),
                ):
                    some = np.flatnonzero(broken & is_open)
                    put(some, i, schema.columns[i].nearest(rows[some, other], toward))
            for rule in self.functions:
                target, expected = rule.target, rule.expected(rows)
                follows = is_unknown[:, target.variables[0]] & ~np.isnan(expected)
                put(np.flatnonzero(follows), target.column, expected[follows])

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
        every[:, -1] = variable.decode(np.arange(variable.n_levels), None, None)
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
        all_told = [rule.all_told(schema, rows, i) for rule in rules]
        expected = np.full((len(values), max(len(told) for told, _ in all_told)), np.nan)
        probability = np.zeros(expected.shape)
        for rule, (told, shares) in zip(rules, all_told, strict=True):
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
        view = TableView(schema, values)
        levels = OneVariable(density, view, j, density._log_weights(view, view.known)).levels
        levels = without_level(levels, target.place(schema, expected))
        values[:, j] = schema.variables[j].decode(choose(levels, random_state), None, None)
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


def without_level(levels, place):
    """Return the probabilities of levels given that it is none of certain ones in each row.

    Places are an array (n,) or (k, n); the ones below 0 are no level.
    """
    levels, others = levels.copy(), np.ones_like(levels)
    for each in np.atleast_2d(place):
        rows = np.flatnonzero(each >= 0)
        levels[rows, each[rows]] = others[rows, each[rows]] = 0.0
    total = levels.sum(axis=1, keepdims=True)
    others /= np.maximum(others.sum(axis=1, keepdims=True), 1.0)
    return np.where(total > LEAST_BROKEN, levels / np.maximum(total, LEAST_BROKEN), others)
