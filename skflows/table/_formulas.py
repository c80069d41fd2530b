"""The rules that compute a number from others, or a date as another one plus a span of time."""

from itertools import product

import numpy as np

from ..columns.dates import months_later, months_of, start_of_day, time_of_day
from ..columns.lattice import decimals_of
from ._rule_kinds import Counts, Function, Target

HALF = 1e-6  # steps, before rounding, that round a half up; down if they are subtracted
STEPS_APART = 1.25  # by which numbers that were rounded apart may differ from their sum
UNITS = {"weeks": 604_800.0, "days": 86_400.0, "hours": 3_600.0, "minutes": 60.0, "seconds": 1.0}
MONTHS = {"months": 1.0, "years": 12.0}
LIKELY = 0.9  # share of some rows that follow a formula, from which on it may be a rule
N_DAY_PARTS = 2  # of the variables of a date: its week and weekday


class Formula(Function):
    """Base of the rules that compute a number from others, rounded as the target is.

    ``line`` has the arguments of a rule after the target, and ``terms(columns, *line)`` returns
    columns, whose sum times factors plus a constant is the number before rounding, these factors
    and the constant. ``rest(rows, i)`` is the determinant i that gives the target. Of several
    determinants, the one of the largest ``sizes(rows, schema)`` should give it: the term of a sum
    that changes least by it, or the factor that most likely has a possible value. If the rows of
    the fit round some halves up and others down, ``up`` is the share that is rounded up, and
    ``halves`` says of totals whether they are, by what they are if rounded down.
    """

    has_halves, up = True, None

    def total(self, rows):
        """Return the number in each row, before rounding."""
        terms, factors, constant = self.terms(rows[:, self.determinants], *self.line)
        return terms @ np.array(factors) + constant

    def with_rows(self, rows, weight):
        """Return the same rule with the counts of other rows."""
        line = *self.line, self.variable, self.nudge
        return type(self)(self.determinants, self.target, *line, rows, weight)

    def count(self, rows, weight):
        """Return the counts of rows."""
        self.up, self.halves = None, {}
        if self.has_halves:
            x, (low, high) = rows[:, self.target.column], self._ends(rows)
            is_half = high - low > self.target.tolerance
            are_up, are_down = (
                is_half & (np.abs(x - end) <= self.target.tolerance) for end in (high, low)
            )
            # Halves that are no binary numbers are rounded up or down by their last bit.
            if are_up.any() and are_down.any() and (self.is_broken(rows) & is_half).any():
                self.up = np.average(are_up[are_up | are_down], weights=weight[are_up | are_down])
                up, down = {*low[are_up].tolist()}, {*low[are_down].tolist()}
                if up.isdisjoint(down):  # the last bit of another formula, such as x / 40 * 100
                    self.halves = dict.fromkeys(up, True) | dict.fromkeys(down, False)
        return Counts.of_breaks(self.is_broken(rows), rows[:, self.columns], weight)

    def expected(self, rows):
        """Return what the target should be in each row, NaN where it would be outside its kind.

        Of a half that may be rounded up or down, it is the value that the target has, if any.
        """
        expected = rounded(self.total(rows), self.variable, self.nudge)
        if self.up is not None:
            x, (low, high) = rows[:, self.target.column], self._ends(rows)
            expected = np.where(low == high, low, expected)
            for end in (low, high):
                expected = np.where(np.abs(x - end) <= self.target.tolerance, end, expected)
        return expected

    def _ends(self, rows):
        """Return totals in which halves are rounded down and up, as in the fit if it has shown."""
        total = self.total(rows)
        low, high = (rounded(total, self.variable, nudge) for nudge in (-HALF, HALF))
        for row in np.flatnonzero(high > low) if self.halves else ():
            is_up = self.halves.get(low[row])
            if is_up is not None:
                low[row] = high[row] = high[row] if is_up else low[row]
        return low, high

    def error(self, rows):
        """Return how far the target is from its expected value, infinite if that is impossible."""
        error = super().error(rows)
        is_known = ~np.isnan(rows[:, self.columns]).any(axis=1)
        return np.where(is_known & np.isnan(error), np.inf, error)

    def log_share(self, rows):
        """Return the log-probability of the side to which a half is rounded, 0 for others."""
        if self.up is None:
            return super().log_share(rows)
        low, high = self._ends(rows)
        is_up = np.abs(rows[:, self.target.column] - high) <= self.target.tolerance
        share = np.log(np.where(is_up, self.up, 1 - self.up))
        return np.where(high - low > self.target.tolerance, share, 0.0)

    def drawn(self, rows, expected, random_state):
        """Return random values of the target for which the rule holds."""
        if self.up is None:
            return expected
        low, high = self._ends(rows)
        return np.where(random_state.uniform(size=len(rows)) < self.up, high, low)

    def all_told(self, schema, rows, i):
        """Return the values of column i for which the rule holds, (k, n), and their shares."""
        if self.up is None or i != self.target.column:
            return super().all_told(schema, rows, i)
        return np.stack(self._ends(rows)), np.array([1 - self.up, self.up])

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns.

        If the target is rounded more than a term is, several values of the term fit.
        """
        if i not in self.determinants:
            return i == self.target.column
        is_rounded = lattice_of_variable(self.variable)[1] is not None
        tolerance = self.slopes[self.determinants.index(i)] * Target.of(schema, i).tolerance
        return not (is_rounded and tolerance < (1 - 1e-9) * self.target.tolerance)

    def tolerances(self, schema):
        """Return within which difference values of each determinant are equal."""
        return np.array([Target.of(schema, i).tolerance for i in self.determinants])

    def are_coarse(self, schema):
        """Return which determinants leave out values of the target, as they have larger steps."""
        changes = np.array(self.slopes) * self.tolerances(schema)
        return changes > (1 + 1e-9) * self.target.tolerance

    def largest_first(self, rows, schema, is_open):
        """Yield determinants and the rows in which each is the largest open one, then the next.

        Parameters
        ----------
        rows : ndarray of shape (n, n_columns)
            Encoded rows.
        schema : Schema
            The schema.
        is_open : ndarray of shape (n, n_determinants) of bool
            Which determinants count.
        """
        sizes = np.where(is_open, self.sizes(rows, schema), -1.0)
        by_size = np.argsort(-sizes, axis=1, kind="stable")
        for place, (k, i) in product(by_size.T, enumerate(self.determinants)):
            yield i, np.flatnonzero(is_open[:, k] & (place == k))

    def told(self, schema, rows, i):
        """Return what column i should be, NaN where no possible value fits the other columns."""
        if i == self.target.column:
            return self.expected(rows)
        options = self.options(schema, rows, i)
        fits = np.empty(options.shape, dtype=bool)
        for k, option in enumerate(options):
            trial = rows.copy()
            trial[:, i] = option
            error = np.abs(self.expected(trial) - rows[:, self.target.column])
            fits[k] = error <= self.target.tolerance
        told = options[fits.argmax(axis=0), np.arange(len(rows))]
        return np.where(fits.sum(axis=0) == 1, told, np.nan)

    def options(self, schema, rows, i):
        """Return values that determinant i may have, (k, n), of which a single one should fit."""
        variable = schema.variable_of(i)
        if variable.has_number:
            return rounded(self.rest(rows, i), variable, 0.0)[None]
        return np.repeat(np.array(variable.levels, dtype=float)[:, None], len(rows), axis=1)

    def told_with(self, schema, rows, other, i, roughly):
        """Return what two unknown columns should be: column i and what another formula tells by it.

        Both formulas are linear in column i. For example, a gross amount and the rate of its tax
        tell the net amount and the tax, as gross = net + tax and tax = rate * net. If column i is
        in the other formula alone, several of its values may fit, of which one is returned. If it
        is in both, one of several is returned only roughly.

        Returns
        -------
        told : ndarray of shape (2, n)
            Column i and the target of the other formula, NaN where no possible values fit.
        """
        second, target = other.target.column, rows[:, self.target.column]
        trial, totals = rows.copy(), []
        for x in range(3):
            trial[:, i] = x
            trial[:, second] = other.total(trial)
            totals.append(self.total(trial))
        slope, next_slope = np.diff(totals, axis=0)
        is_told = np.isclose(slope, next_slope)
        if (
            i in self.determinants and not roughly
        ):  # no two values of the column have the same rounded total
            step = np.abs(slope) * Target.of(schema, i).tolerance
            is_told &= step >= (1 - 1e-9) * self.target.tolerance
        with np.errstate(divide="ignore", invalid="ignore"):
            x = (target - totals[0]) / slope
        x = possible_numbers(x, schema.variable_of(i))
        trial[:, i], trial[:, second] = x, np.nan
        told = np.full((2, len(rows)), np.nan)
        options, _ = other.all_told(schema, trial, second)  # such as a half rounded up and down
        for y in options:
            trial[:, second] = y
            fits = is_told & (np.abs(self.expected(trial) - target) <= self.target.tolerance)
            told[:, fits] = x[fits], y[fits]
        return told


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

    @property
    def line(self):
        return self.coefficients, self.constant

    @staticmethod
    def terms(columns, coefficients, constant):
        return columns, coefficients, constant

    def rest(self, rows, i):
        """Return what column i should be, before rounding."""
        others = rows.copy()
        others[:, i] = 0.0
        coefficient = self.coefficients[self.determinants.index(i)]
        return (rows[:, self.target.column] - self.total(others)) / coefficient

    def sizes(self, rows, schema):
        """Return the size of each term."""
        return np.abs(rows[:, self.determinants] * self.coefficients)

    def text(self, names):
        """Return the rule as text."""
        text = ""
        for j, coefficient in zip(self.determinants, self.coefficients, strict=True):
            size = abs(coefficient)
            term = str(names[j]) if size == 1 else f"{size:.6g} * {names[j]}"
            if is_short_inverse(size):
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

    has_halves = False

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

    def log_share(self, rows):
        """Return the log-probability of a target for which the rule holds, among such values."""
        error = rows[:, self.target.column] - self.expected(rows)
        return np.log(self.shares[self._place(error)])

    def possible(self, expected):
        """Return the values of the target for which the rule holds, of shape (3, n)."""
        values = expected + self.step * np.array([[-1], [0], [1]])
        moved = rounded(values, self.variable, 0.0)
        return np.where(np.isnan(moved), expected, moved)

    def drawn(self, rows, expected, random_state):
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

    has_halves = False

    @staticmethod
    def is_later(constant):
        """Return whether a constant alone gives a later date."""
        return constant >= 0

    @staticmethod
    def constant_and_errors(columns, factors, y):
        """Return the constant beside columns times factors, and the errors of dates y."""
        rest = y - columns @ np.array(factors)
        constant = np.median(rest)
        return float(constant), rest - constant

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
        name, unit = largest_unit([*self.coefficients[1:], self.constant][0])
        first, *number = (names[j] for j in self.determinants)
        text = f"{names[self.target.column]} = {first}"
        text += "".join(f" + {each} ({name})" for each in number)
        return text + signed(self.constant / unit, name)


class DaysLater(Elapsed):
    """The day of a date as the one of another date plus days; each has its own time of day."""

    def __init__(self, determinants, target, *line_and_rows):
        super().__init__(determinants, day_of(target), *line_and_rows)

    @staticmethod
    def constant_and_errors(columns, factors, y):
        """Return the constant beside columns times factors, and the errors of dates y."""
        days = np.column_stack([start_of_day(columns[:, 0]), columns[:, 1:]])
        return Elapsed.constant_and_errors(days, factors, start_of_day(y))

    def target_of(self, schema, i):
        """Return column i of the rule as a target, a date without its time of day."""
        return day_of(super().target_of(schema, i))

    def total(self, rows):
        """Return the date in each row, at its own time of day."""
        days = rows.copy()
        days[:, self.determinants[0]] = start_of_day(rows[:, self.determinants[0]])
        return super().total(days) + time_of_day(rows[:, self.target.column])

    def rest(self, rows, i):
        """Return what column i should be, a first date at its own time of day."""
        rest = super().rest(rows, i)
        return rest + time_of_day(rows[:, i]) if i == self.determinants[0] else rest

    def text(self, names):
        """Return the rule as text."""
        dates = {self.determinants[0], self.target.column}
        return super().text([f"day of {x}" if i in dates else x for i, x in enumerate(names)])


class MonthsLater(Elapsed):
    """A date as another date plus months: a number of months or years, a constant or both.

    Coefficients are months for each unit of the number. The constant is a tuple of months and of
    the seconds after or before that moment.
    """

    @staticmethod
    def is_later(constant):
        """Return whether a constant alone gives a date in a later month."""
        return constant[0] > 0

    @staticmethod
    def constant_and_errors(columns, factors, y):
        """Return the constant beside columns times factors, and the errors of dates y."""
        first, months = columns[:, 0], columns[:, 1:] @ np.array(factors[1:])
        between = np.floor(months_of(y)) - np.floor(months_of(first))
        fewest = np.rint(np.median(between - months))
        if np.mean(np.abs(between - months - fewest) <= 1) < LIKELY:  # quick, as most are no rule
            return (np.nan, np.nan), np.full(len(y), np.inf)
        fits = []
        for constant in (fewest, fewest + 1):  # of which a day before may be in the month before
            rest = y - months_later(first, np.rint(months + constant))
            fits.append(((float(constant), float(np.median(rest))), rest - np.median(rest)))
        return min(fits, key=lambda fit: np.count_nonzero(fit[1]))

    def span(self, rows):
        """Return the months between both dates, and the seconds after or before that moment."""
        numbers = rows[:, self.determinants[1:]] @ np.array(self.coefficients[1:])
        return np.rint(numbers + self.constant[0]), self.constant[1]

    def total(self, rows):
        """Return the date in each row."""
        months, seconds = self.span(rows)
        return months_later(rows[:, self.determinants[0]], months) + seconds

    def rest(self, rows, i):
        """Return what column i should be: the number, or a first date of which there are several
        if it is cut off at the end of a month.
        """
        months, seconds = self.span(rows)
        later = rows[:, self.target.column] - seconds
        if i == self.determinants[0]:
            return months_later(later, -months)
        between = np.floor(months_of(later)) - np.floor(months_of(rows[:, self.determinants[0]]))
        return (between - self.constant[0]) / self.coefficients[1]

    def told(self, schema, rows, i):
        """Return what column i should be; of several first dates, one that keeps the rule stays."""
        told = super().told(schema, rows, i)
        if i != self.determinants[0]:
            return told
        return np.where(self.error(rows) <= self.target.tolerance, rows[:, i], told)

    def text(self, names):
        """Return the rule as text."""
        first, *number = (names[j] for j in self.determinants)
        text = f"{names[self.target.column]} = {first}"
        for each, factor in zip(number, self.coefficients[1:], strict=True):
            (unit,) = (name for name, months in MONTHS.items() if months == factor)
            text += f" + {each} ({unit})"
        months, seconds = self.constant
        name, unit = largest_unit(seconds)
        return text + signed(months, "months") + signed(seconds / unit, name)


def day_of(target):
    """Return a date as a target without its time of day, and a number as it is."""
    return target._replace(variables=target.variables[:N_DAY_PARTS])


def largest_unit(seconds):
    """Return the name and the seconds of the largest unit of which seconds are a multiple."""
    return next((each for each in UNITS.items() if seconds % each[1] == 0), ("seconds", 1.0))


def signed(number, unit):
    """Return a number and its unit as a term of a sum, empty for 0."""
    return f" {'-' if number < 0 else '+'} {abs(number):.6g} {unit}" if number else ""


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
        least = np.abs(self.factors(known)).min(axis=0, initial=np.inf)
        self.slopes = [
            abs(factor * (rate or 1.0)) * np.delete(least, i).prod() for i, rate in enumerate(rates)
        ]
        self.counts = self.count(rows, weight)

    @property
    def line(self):
        return self.factor, self.rates

    @staticmethod
    def terms(columns, factor, rates):
        return factors_of(columns, np.array(rates)).prod(axis=1, keepdims=True), (factor,), 0.0

    def factors(self, rows):
        """Return the factors of each row, of shape (n, n_determinants)."""
        return factors_of(rows[:, self.determinants], self.rates)

    def rest(self, rows, i):
        """Return what column i should be, before rounding; NaN beside a 0."""
        place = self.determinants.index(i)
        divisor = self.factor * np.delete(self.factors(rows), place, axis=1).prod(axis=1)
        rest = rows[:, self.target.column] / nonzero(divisor)
        rate = self.rates[place]
        return (rest - 1) / rate if rate else rest

    def sizes(self, rows, schema):
        """Return the size of each factor in steps of its column: more of them fit the target."""
        steps = self.tolerances(schema) * np.where(self.rates, np.abs(self.rates), 1.0)
        return np.abs(self.factors(rows)) / steps

    def text(self, names):
        """Return the rule as text."""
        is_inverse = is_short_inverse(self.factor)
        factors = [] if self.factor == 1 or is_inverse else [f"{self.factor:.6g}"]
        for j, rate in zip(self.determinants, self.rates, strict=True):
            if not rate:
                factors.append(str(names[j]))
                continue
            per = "" if abs(rate) == 1 else f" / {1 / abs(rate):.0f}"
            factors.append(f"(1 {'-' if rate < 0 else '+'} {names[j]}{per})")
        divisor = f" / {1 / self.factor:.6g}" if is_inverse else ""
        return f"{names[self.target.column]} = {' * '.join(factors)}{divisor}"


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

    @property
    def line(self):
        return (self.sign,)

    @staticmethod
    def terms(columns, sign):
        first, second, term = columns.T
        return (first * second + sign * term)[:, None], (1.0,), 0.0

    def rest(self, rows, i):
        """Return what column i should be, before rounding; NaN beside a 0."""
        first, second, term = rows[:, self.determinants].T
        target, place = rows[:, self.target.column], self.determinants.index(i)
        if place == 2:
            return self.sign * (target - first * second)
        divisor = second if place == 0 else first
        return (target - self.sign * term) / nonzero(divisor)

    def sizes(self, rows, schema):
        """Return the size of each factor in steps of its column; the term counts as the largest.

        Any factors leave it a value, while few of its values leave one for a factor.
        """
        sizes = np.abs(rows[:, self.determinants]) / self.tolerances(schema)
        sizes[:, 2] = np.inf
        return sizes

    def text(self, names):
        """Return the rule as text."""
        first, second, term = (names[j] for j in self.determinants)
        sign = "-" if self.sign < 0 else "+"
        return f"{names[self.target.column]} = {first} * {second} {sign} {term}"


class Quotient(Formula):
    """A number as another one divided by a third, or by its square, rounded as the target is.

    For example, a price per square metre, a share in per cent, or a body mass index. It says
    nothing where the divisor is 0.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`: the number that is divided, and the divisor.
    factor : float
        A constant factor.
    power : int
        1, or 2 for the square.
    variable, nudge
        As in `Linear`.
    """

    kind = "quotient"

    def __init__(self, determinants, target, factor, power, variable, nudge, rows, weight):
        self.determinants, self.target = determinants, target
        self.factor, self.power = factor, power
        self.variable, self.nudge = variable, nudge
        sizes = np.abs(rows[~np.isnan(rows[:, determinants]).any(axis=1)][:, determinants])
        least, largest = sizes[:, 0].min(initial=np.inf), sizes[:, 1].max(initial=1e-300)
        slope = abs(factor) / largest**power
        self.slopes = [slope, slope * power * least / largest]
        self.counts = self.count(rows, weight)

    @property
    def line(self):
        return self.factor, self.power

    @staticmethod
    def terms(columns, factor, power):
        first, divisor = columns[:, 0], columns[:, 1] ** power
        return (first / nonzero(divisor))[:, None], (factor,), 0.0

    def error(self, rows):
        """Return how far the target is from its expected value, NaN beside a divisor of 0."""
        return np.where(rows[:, self.determinants[1]] == 0, np.nan, super().error(rows))

    def rest(self, rows, i):
        """Return what column i should be, before rounding; NaN beside a 0."""
        first, second = rows[:, self.determinants].T
        target = rows[:, self.target.column] / self.factor
        if i == self.determinants[0]:
            return target * nonzero(second) ** self.power
        divisor = first / nonzero(target)
        return divisor if self.power == 1 else np.sqrt(np.where(divisor < 0, np.nan, divisor))

    def sizes(self, rows, schema):
        """Return the size of both numbers in steps of their columns."""
        return np.abs(rows[:, self.determinants]) / self.tolerances(schema)

    def text(self, names):
        """Return the rule as text."""
        first, second = (str(names[j]) for j in self.determinants)
        divisor = second if self.power == 1 else f"{second}**{self.power}"
        factor = "" if self.factor == 1 else f"{self.factor:.6g} * "
        if is_short_inverse(self.factor):
            factor, divisor = "", f"({1 / self.factor:.6g} * {divisor})"
        return f"{names[self.target.column]} = {factor}{first} / {divisor}"


class ByValue(Formula):
    """Base of formulas with a number for each value of a column, their second determinant.

    They say nothing of values that have no number. ``seen`` has the encoded values that have one,
    in their order.
    """

    def _have_number(self, rows):
        return np.isin(rows[:, self.determinants[1]], self.seen)

    def count(self, rows, weight):
        """Return the counts of rows."""
        some = self._have_number(rows)
        return super().count(rows[some], weight[some])

    def error(self, rows):
        """Return how far the target is from its expected value, NaN where the rule says nothing."""
        return np.where(self._have_number(rows), super().error(rows), np.nan)

    def tells(self, schema, i):
        """Return whether the rule tells column i, given its other columns."""
        return i == self.determinants[1] or super().tells(schema, i)

    def options(self, schema, rows, i):
        """Return values that determinant i may have, of which a single one should fit."""
        if i == self.determinants[0]:
            return super().options(schema, rows, i)
        return np.repeat(np.array(self.seen)[:, None], len(rows), axis=1)

    def of_levels(self, schema, rows, i, levels):
        """Return the probabilities of the levels of a column that the rule tells.

        Several values may have the same number, or none the number of a row.
        """
        if i != self.determinants[1]:
            return super().of_levels(schema, rows, i, levels)
        levels = super().of_levels(schema, rows, i, levels)
        some = np.flatnonzero(np.isnan(self.told(schema, rows, i)))
        trial, target = rows[some], Target.of(schema, i)
        for value in self.seen:
            trial[:, i] = value
            broken = some[self.is_broken(trial)]
            levels[broken, target.place(schema, np.array([value]))] *= np.exp(
                self.counts.log_broken
            )
        return levels / levels.sum(axis=1, keepdims=True)

    def sizes(self, rows, schema):
        """Return 1 for the first determinant and 0 for the second, few values of which fit."""
        return np.repeat([[1.0, 0.0]], len(rows), axis=0)


class FactorByValue(ByValue):
    """A number as another one times a factor for each value of a column, rounded as the target is.

    For example, a fee in per cent of an amount that depends on the channel.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`: the number, and the column that has factors.
    seen : tuple of float
        Encoded values of this column, in their order.
    factors : tuple of float
        The factor of each.
    variable, nudge
        As in `Linear`.
    """

    kind = "product"

    def __init__(self, determinants, target, seen, factors, variable, nudge, rows, weight):
        self.determinants, self.target = determinants, target
        self.seen, self.factors = seen, factors
        self.variable, self.nudge = variable, nudge
        self.slopes = [min(map(abs, factors)), 0.0]
        self.counts = self.count(rows, weight)

    @property
    def line(self):
        return self.seen, self.factors

    @staticmethod
    def terms(columns, seen, factors):
        number, value = columns.T
        return (number * number_of_value(value, seen, factors))[:, None], (1.0,), 0.0

    def rest(self, rows, i):
        """Return what the number should be, before rounding; NaN beside a factor of 0."""
        if i != self.determinants[0]:
            return np.full(len(rows), np.nan)
        factor = number_of_value(rows[:, self.determinants[1]], *self.line)
        return rows[:, self.target.column] / nonzero(factor)

    def text(self, names):
        """Return the rule as text."""
        number, column = (names[j] for j in self.determinants)
        return f"{names[self.target.column]} = {number} * a factor of {column}"


class ElapsedByValue(ByValue, MonthsLater):
    """A date as another one plus a span of time for each value of a column.

    For example, the end of a subscription, which depends on the plan.

    Parameters
    ----------
    determinants, target, rows, weight
        As in `Lookup`: the other date, and the column that has spans.
    seen : tuple of float
        Encoded values of this column, in their order.
    months, seconds : tuple of float
        The span of each: months of the calendar, and seconds after or before that moment.
    variable, nudge
        As in `Linear`, without a meaning for dates.
    """

    def __init__(self, determinants, target, seen, months, seconds, variable, nudge, rows, weight):
        self.determinants, self.target = determinants, target
        self.seen, self.months, self.seconds = seen, months, seconds
        self.variable, self.nudge = variable, nudge
        self.slopes = [1.0, 0.0]
        self.counts = self.count(rows, weight)

    @property
    def line(self):
        return self.seen, self.months, self.seconds

    def span(self, rows):
        """Return the months and the seconds of each row, NaN where there are none."""
        value = rows[:, self.determinants[1]]
        return [number_of_value(value, self.seen, each) for each in (self.months, self.seconds)]

    def told(self, schema, rows, i):
        """Return what column i should be, NaN where no possible value fits the other columns."""
        if i == self.determinants[1]:  # a value that has a span, not a date
            return Formula.told(self, schema, rows, i)
        return super().told(schema, rows, i)

    def text(self, names):
        """Return the rule as text."""
        date, column = (names[j] for j in self.determinants)
        return f"{names[self.target.column]} = {date} + a span for each {column}"


class DaysLaterByValue(DaysLater, ElapsedByValue):
    """The day of a date as the one of another date plus days for each value of a column."""

    def rest(self, rows, i):
        """Return what the first date should be, at its own time of day."""
        days = rows.copy()
        days[:, self.target.column] = start_of_day(rows[:, self.target.column])
        return super().rest(days, i)


def number_of_value(value, seen, numbers):
    """Return the number of each value, NaN of values that were not seen."""
    place = np.searchsorted(seen, value).clip(max=len(seen) - 1)
    return np.where(np.array(seen)[place] == value, np.array(numbers)[place], np.nan)


def factors_of(values, rates):
    """Return the factors of products: values, or 1 plus a rate times them where it is not 0."""
    return np.where(rates, 1 + rates * values, values)


def nonzero(numbers):
    """Return numbers with NaN in place of 0, by which nothing is divided."""
    return np.where(numbers == 0, np.nan, numbers)


def is_short(number):
    """Return whether a number has few digits."""
    return abs(number - float(f"{number:.6g}")) < 1e-12 * abs(number)


def is_short_inverse(number):
    """Return whether a number is better told by its inverse, such as 1 / 12."""
    return is_short(1 / number) and not is_short(number)


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
    x[known] = np.where(is_outside, np.nan, x[known]) + 0.0  # no negative zero
    return x


def possible_numbers(x, variable):
    """Return numbers rounded to possible values of a variable, NaN where there are none."""
    x = rounded(x, variable, 0.0)
    return x if variable.has_number else np.where(np.isin(x, variable.levels), x, np.nan)


def lattice_of_variable(variable):
    """Return origin, step and decimals of the numbers of a variable; no step if there is none."""
    if not variable.has_number:
        return variable.levels[0], variable.step, decimals_of(np.array(variable.levels))
    if variable.step is not None:
        return variable.origin, variable.step, variable.decimals
    return 0.0, variable.unit, variable.decimals
