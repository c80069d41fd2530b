"""Columns of a table: the variables that each kind makes of one."""

from functools import partial
from inspect import signature
from typing import NamedTuple

import numpy as np

from ..columns.checks import ColumnWarning, warn_of_far_dates, warn_user
from ..columns.dates import (
    DAY,
    WEEK,
    YEAR,
    joined_moment,
    local_seconds,
    moment_text,
    moments_of_months,
    month_offset,
    months_of,
    split_moment,
    start_of_week,
    utc_seconds,
    zone_of,
)
from ..columns.encoding import NUMERIC
from ..columns.frames import Column
from ..columns.kinds import FEW_VALUES, GIVEN, bounds_of, date_bounds, is_few, is_listed
from ..columns.lattice import ON_LATTICE, decimals_of, lattice_of
from ..preprocessing.angles import emptiest_angle
from ._heaps import MOST_REPEATS, NO_HEAPS, Heaps
from ._maps import counted, repeat
from ._outside import outside_share
from ._variables import Levels, Number

MAX_CATEGORIES = 200
MAX_ORDERED = 1_000  # levels, each of which has a frequency in each class
RARE_ROWS = 3  # a category with fewer rows is rare
ROWS_AMONG_MANY = 20  # among too many categories, one with fewer is rare, or with 1 in 1000 rows
FREQUENT, SPIKE = 0.05, 5  # least share of an end of a lattice, and times the rows near it
FEW_MISSING = 0.05  # share of the rows
APART = 5  # steps from such an end to the other points, from which on it is something else
ONCE = 1.5  # rows below which a category occurs once


class ColumnSetting(NamedTuple):
    """What the kinds need besides a column."""

    name: object
    handle_unknown: str
    random_state: np.random.RandomState
    weight: np.ndarray  # of the rows with a known value
    missing: float  # weight of the other rows
    is_stated: bool  # whether the user gave the kind, which then may make values impossible
    categories: list  # whose places are the values, unless these are numbers or dates
    quantile: object = None  # map of the numbers to normal scores, if there is one already

    @property
    def outside(self):
        """Probability of numbers outside of an inferred kind."""
        return outside_share(self.weight.sum())

    @property
    def outside_kind(self):
        """Probability of numbers outside of the kind, 0 if it is stated."""
        return 0.0 if self.is_stated else self.outside


def rounding_of(values):
    """Return the unit and decimals of numbers, such as whole minutes, as arguments of `Number`."""
    lattice = lattice_of(np.union1d(values, 0.0))
    return {} if lattice is None else {"unit": lattice[0], "decimals": lattice[1]}


def _numbers(column, setting, kind):
    if column.role != "number":
        raise ValueError(
            f"columns gives {setting.name!r} the kind {kind!r}, but it holds "
            f"{'dates' if column.role == 'datetime' else 'texts'}; choose 'categorical', or "
            "convert it to numbers."
        )
    return column.values[column.known]


def _check_inside(
    values, low, high, setting, open_ends=True, write="{:.10g}".format, tolerance=0.0
):
    outside = (values < low - tolerance) | (values > high + tolerance)
    if open_ends:
        outside = (values <= low) | (values >= high)
    if outside.any():
        raise ValueError(
            f"column {setting.name!r} has the value {write(values[outside][0])}, which is not "
            f"{'between' if open_ends else 'within'} its bounds {write(low)} and {write(high)}: "
            "move the bounds out, or "
            + ("name it an atom: ('atoms', [values], low, high)." if open_ends else "drop the row.")
        )


def continuous(column, setting):
    values = _numbers(column, setting, "continuous")
    return [Number(values, setting, **rounding_of(values))]


def bounded(column, setting, low=None, high=None):
    values = _numbers(column, setting, "bounded")
    low, high = bounds_of(low, high)
    _check_inside(values, low, high, setting)
    rounding = rounding_of(values)
    return [Number(values, setting, low=low, high=high, outside=setting.outside_kind, **rounding)]


def with_atoms(column, setting, atoms, low=None, high=None):
    values = _numbers(column, setting, "atoms")
    low, high = bounds_of(low, high)
    rest = values[~np.isin(values, atoms)]
    _check_inside(rest, low, high, setting)
    limits = {"low": low, "high": high, "outside": setting.outside_kind}
    return [Number(values, setting, atoms=atoms, **limits, **rounding_of(values))]


def on_lattice(column, setting, kind, low=None, high=None, is_date=False):
    values = _numbers(column, setting, kind)
    distinct = np.unique(values)
    lattice = lattice_of(distinct)
    if lattice is None or (kind in ("count", "integer") and lattice[1] > 0):
        raise ValueError(
            f"columns gives {setting.name!r} the kind {kind!r}, but it holds "
            f"{distinct[distinct != np.rint(distinct)][0]:g}: choose 'continuous', or round it."
        )
    step, decimals = lattice
    if kind in ("count", "integer"):
        step = 1.0
    low, high = bounds_of(low, high)
    _check_inside(values, low, high, setting, open_ends=False, tolerance=ON_LATTICE * step)
    low, high = _outermost(distinct, step, low, high, decimals)
    if is_listed(distinct, values):
        return [_numeric_levels(values, setting, step, low, high, decimals)]
    values, atoms = np.round(values, decimals) + 0.0, []
    if not is_date:
        atoms = _frequent_ends(values, setting, low, high, step)
    # The other numbers lie between them.
    low, high = (
        np.round(end + inwards, decimals) + 0.0 if end in atoms else bound
        for end, inwards, bound in zip(
            (values.min(), values.max()), (step, -step), (low, high), strict=True
        )
    )
    limits = {"low": low, "high": high, "atoms": atoms, "outside": setting.outside_kind}
    rounding = {"step": step, "decimals": decimals, "may_have_heaps": not is_date}
    return [Number(values, setting, **rounding, **limits)]


def _frequent_ends(values, setting, low, high, step):
    """Return the ends of a lattice that stand apart from its other points.

    An amount is often 0 and a share often 100. A density that is smooth over the points would draw
    numbers near them, which no row has. Where the other points repeat and go on from the end, the
    map by their frequencies serves better: no rain is like little rain. So it does where only a few
    of them repeat, more often than rounding explains.
    """
    distinct, counts = counted(values, setting.weight)
    ends = []
    if len(distinct) < 3:
        return ends
    for end, next_, bound, near in ((0, 1, low, counts[1:6]), (-1, -2, high, counts[-6:-1])):
        is_often = counts[end] >= max(FREQUENT * counts.sum(), SPIKE * near.max())
        is_end = distinct[end] == bound or (np.isinf(bound) and not setting.is_stated)
        if not (is_often and is_end):
            continue
        others, is_atom = values != distinct[end], True
        if repeat(values[others]):
            is_atom = abs(distinct[end] - distinct[next_]) > APART * step
        elif repeat(values):
            steps = np.rint(np.abs(values[others] - distinct[end]) / step)
            heaps = Heaps.of(steps, setting.weight[others]) or NO_HEAPS
            is_atom = heaps.repeats(steps) <= MOST_REPEATS
        if is_atom:
            ends.append(distinct[end])
    return ends


def _outermost(distinct, step, low, high, decimals):
    """Return the first and the last point of a lattice within bounds."""
    first, last = distinct[[0, -1]]
    n_below, n_above = np.floor(np.array([first - low, high - last]) / step + ON_LATTICE)
    ends = first - step * n_below, last + step * n_above
    return [np.round(end, decimals) + 0.0 for end in ends]  # 0.0 rather than -0.0


def _numeric_levels(values, setting, step, low, high, decimals, period=None):
    _, first, level = np.unique(np.round(values, decimals), return_index=True, return_inverse=True)
    levels = values[first]  # as the table writes them
    counts = np.bincount(level, setting.weight)
    spread = levels.std() or 1.0
    scores = (levels - levels.mean()) / spread
    return Levels(
        levels.tolist(),
        counts,
        scores=scores,
        lattice=(step, low, high),
        period=period,
        # Nobody states the lattice of angles and times: its kind never refuses others.
        outside=setting.outside_kind if period is None else setting.outside,
    )


def count(column, setting, low=None, high=None):
    return on_lattice(column, setting, "count", 0.0 if low is None else low, high)


def integer(column, setting, low=None, high=None):
    return on_lattice(column, setting, "integer", low, high)


def rounded(column, setting, low=None, high=None):
    values = _numbers(column, setting, "rounded")
    if low is None and values.min() >= 0:
        low = 0.0
    return on_lattice(column, setting, "rounded", low, high)


def ordinal(column, setting):
    known = column.values[column.known]
    n_levels = len(column.categories or set(known.tolist()))
    if n_levels > MAX_ORDERED:
        raise ValueError(
            f"column {setting.name!r} has {n_levels} ordered levels; at most {MAX_ORDERED} are "
            "possible: convert it to numbers, such as its codes, or group its levels."
        )
    if column.role == "number":
        distinct = np.unique(known)
        if (lattice := lattice_of(distinct)) is not None:
            step, decimals = lattice
            low = 0.0 if distinct[0] >= 0 else -np.inf
            ends = _outermost(distinct, step, low, np.inf, decimals)
            return [_numeric_levels(known, setting, step, *ends, decimals)]
    levels, values, counts = _listed(column, setting)
    if column.categories:  # in their order, with those that no row has
        levels = column.categories
        values = [setting.categories.index(level) for level in levels]
    counts = [setting.weight[known == value].sum() for value in values]
    scores = np.linspace(-1.5, 1.5, len(levels)) if len(levels) > 1 else np.zeros(1)
    return [Levels(levels, counts, scores=scores, outside=unseen_share(counts, setting))]


def categorical(column, setting):
    values = column.values[column.known]
    names, _, counts = _listed(column, setting)
    if column.role == "bool":  # the other value is possible too, if there is only one
        names = setting.categories
        counts = [setting.weight[values == place].sum() for place in range(len(names))]
        return [Levels(names, counts)]
    is_many = len(names) > MAX_CATEGORIES
    is_many |= len(names) > 2 * FEW_VALUES and len(names) > len(values) / 2
    if is_many and setting.handle_unknown == "error":
        raise ValueError(
            f"column {setting.name!r} has {len(names)} categories in {len(values)} rows: leave it "
            f"out by columns={{{setting.name!r}: 'identifier'}} if it names the rows, convert "
            "dates by pandas.to_datetime, group its categories, or set handle_unknown='rare', "
            "which pools the rare ones."
        )
    if is_many or setting.handle_unknown == "rare":
        order = np.argsort(-counts, kind="stable")
        least = RARE_ROWS
        if is_many:  # of many categories alike, the most frequent are so by chance
            least = max(least, min(ROWS_AMONG_MANY, len(values) // 1000))
        kept = sorted(k for k in order[:MAX_CATEGORIES] if counts[k] >= least)
        rare = [k for k in np.flatnonzero(counts) if k not in set(kept)]
        if setting.handle_unknown != "rare" or counts[rare].max(initial=0) >= RARE_ROWS:
            which = (
                f"the rarest {len(rare)} count as one" if kept else "all are rare, and count as one"
            )
            warn_user(
                f"The column {setting.name!r} has {len(names)} categories in {len(values)} rows: "
                f"{which}. If they name the rows, leave them out by "
                f"columns={{{setting.name!r}: 'identifier'}}.",
                ColumnWarning,
            )
        shares = np.maximum(counts[rare], 1)  # of rows of any weight, none is next to impossible
        shares /= shares.sum()
        pooled = dict(zip((names[k] for k in rare), shares.tolist(), strict=True))
        levels = [names[k] for k in kept] + ["(rare)"]
        return [Levels(levels, [*counts[kept], counts[rare].sum()], pooled=pooled)]
    return [Levels(names, counts, outside=unseen_share(counts, setting))]


def _listed(column, setting):
    """Return the distinct values of a column in order, their encoded values, and their weights."""
    values, counts = counted(column.values[column.known], setting.weight)
    if column.role in NUMERIC:
        return values.tolist(), values, counts
    names = [setting.categories[int(place)] for place in values]
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[k] for k in order], values[order], counts[order]


def unseen_share(counts, setting):
    """Return the probability of a category that is not among those with some counts."""
    if setting.handle_unknown == "error":
        return 0.0
    counts = np.asarray(counts)
    return outside_share(counts.sum(), counts[counts < ONCE].sum())


def circular(column, setting, period):
    return [angle(_numbers(column, setting, "circular"), setting, float(period))]


def angle(values, setting, period):
    """Return the variable of numbers on a circle."""
    values = np.mod(values, period)
    distinct = np.unique(values)
    lattice = lattice_of(np.union1d(distinct, 0.0))
    if lattice is not None and is_few(distinct, values):
        step, decimals = lattice
        high = step * (np.ceil(np.round(period / step, 6)) - 1)  # the last below a whole turn
        return _numeric_levels(values, setting, step, 0.0, high, decimals, period)
    cut = emptiest_angle(values, period)
    ends = {"low": cut, "high": cut + period}
    rounding = rounding_of(np.append(values, period))  # a whole turn is a multiple too
    return Number(values, setting, period=period, **ends, **rounding)


def datetime(column, setting, low=None, high=None):
    if column.role != "datetime":
        raise ValueError(
            f"columns calls {setting.name!r} a datetime, but it holds no dates: convert it by "
            "pandas.to_datetime."
        )
    moments = column.values[column.known]
    if not setting.is_stated:
        warn_of_far_dates(setting.name, moments)
    week, weekday, time = split_moment(moments)
    if low is None and high is None:
        weeks = _variable_of_dates(week, setting, YEAR / WEEK)
    else:
        low, high = bounds_of(*date_bounds(setting.name, [low, high]))
        _check_inside(moments, low, high, setting, open_ends=False, write=moment_text)
        if high - low < WEEK:
            raise ValueError(
                f"column {setting.name!r} has the bounds {moment_text(low)} and "
                f"{moment_text(high)}, less than a week apart: move one of them out."
            )
        weeks = _with_seasons(Weeks(moments, setting, low, high), moments, YEAR)
    variables = [weeks, _numeric_levels(weekday, setting, 1.0, 0.0, 6.0, 0)]
    if time.any():
        variables.append(angle(time, setting, float(DAY)))
    return variables


def months(column, setting, offset):
    """Return the variable of dates that are once a month, quarter or year, at the same offset."""
    number = months_of(column.values[column.known] - offset)
    return [_variable_of_dates(number, setting._replace(is_stated=False), 12, "rounded")]


def _variable_of_dates(values, setting, year, kind="integer"):
    """Return the variable of numbers of weeks or months, of which a year has some."""
    known = np.ones(len(values), dtype=bool)
    column = Column(values, known, "number", "")
    return _with_seasons(on_lattice(column, setting, kind, is_date=True)[0], values, year)


def _with_seasons(variable, values, year):
    """Return a variable of dates, which has seasons if its values are more than a year apart.

    Values that are always at about the same time of the year have none.
    """
    places = np.sort(np.mod(values, year))
    largest_gap = np.diff(places, append=places[0] + year).max()
    has_seasons = np.ptp(values) > year and year - largest_gap > year / 12
    variable.year, variable.season = year, year if has_seasons else None
    return variable


class Weeks(Number):
    """The week of a date between bounds, which may lie within a week.

    Its number is the moment. A week in which the weekday and time are out of bounds gives its
    probability to the nearest week in which they are not, so that probabilities sum to 1 at every
    weekday and time.

    Parameters
    ----------
    moments : ndarray of shape (n,)
        Dates in seconds.
    setting : ColumnSetting
        See `Number`.
    first, last : float
        The bounds in seconds, at least a week apart.
    """

    def __init__(self, moments, setting, first, last):
        self.ends = first, last
        low, high = map(start_of_week, self.ends)
        super().__init__(start_of_week(moments), setting, step=WEEK, low=low, high=high)

    def _set_maps(self, x, weight, random_state, quantile=None):
        super()._set_maps(start_of_week(x), weight, random_state)

    def features(self, x, code, middle):
        return super().features(start_of_week(x), code, middle)

    def cells(self, x, code, space):
        low, middle, high, width, log_scale = super().cells(start_of_week(x), code, space)
        first, last = self.ends
        low[x - WEEK < first] = -np.inf
        high[x + WEEK > last] = np.inf
        log_scale[self.is_outside(x)] = -np.inf
        return low, middle, high, width, log_scale

    def is_outside(self, x):
        return (x < self.ends[0]) | (x > self.ends[1])

    def moved_inside(self, x):
        """Return drawn moments, in the nearest week in which they are within the bounds."""
        first, last = self.ends
        return np.where(x < first, x + WEEK, np.where(x > last, x - WEEK, x))


# Each kind makes the variables of a column, from further arguments if it has any.
MAKERS = {
    "continuous": continuous,
    "bounded": bounded,
    "atoms": with_atoms,
    "count": count,
    "integer": integer,
    "rounded": rounded,
    "ordinal": ordinal,
    "categorical": categorical,
    "circular": circular,
    "datetime": datetime,
}


def _often(variable):
    """Return the atoms of a variable as text, "" if it has none."""
    return ", ".join(f"{atom:.10g}" for atom in variable.atoms) if variable.has_number else ""


def ends_of(variable):
    """Return the least and the largest value of a variable that its kind allows."""
    if not variable.has_number:
        return variable.lattice[1:]
    return min([variable.low, *variable.atoms]), max([variable.high, *variable.atoms])


class ColumnModel:
    """A column of the table: its kind, and the variables that it becomes.

    Parameters
    ----------
    column : Column
        The encoded values of the fit, 0 where missing.
    kind : Kind
        The kind.
    setting : ColumnSetting
        What the kinds need besides.
    models_missing : bool
        Whether missing entries are modelled.
    """

    month_offset = None  # of dates that are numbers of months, in seconds from their beginnings

    def __init__(self, column, kind, setting, models_missing):
        self.name = setting.name
        self.kind, self.arguments, self.reason, self.is_stated = kind[:4]
        self.role, self.dtype, self.categories = column.role, column.dtype, column.categories
        self.n_rows, self.n_missing = len(column.known), int((~column.known).sum())
        self.refuses_unseen = setting.handle_unknown == "error" or column.role == "bool"
        make = MAKERS[self.kind]
        if self.kind == "datetime" and column.role == "datetime":
            column = column._replace(values=local_seconds(column.values, self.zone, self.name))
            if not self.arguments:
                self.month_offset = month_offset(column.values[column.known])
            if self.has_months:
                make = partial(months, offset=self.month_offset)
        try:
            signature(make).bind(column, setting, *self.arguments)
        except TypeError as error:
            raise ValueError(
                f"columns gives {self.name!r} the kind {self.kind!r} with the arguments "
                f"{self.arguments}, which do not fit: {error}"
            ) from error
        self.variables = make(column, setting, *self.arguments)
        if column.role in NUMERIC:
            known = column.values[column.known]
            self.seen = known.min(), known.max()
        self.has_flag = models_missing
        if self.has_flag:
            counts = [setting.weight.sum(), setting.missing]
            self.variables = [Levels([False, True], counts), *self.variables]
        self.listed = None  # the encoded values that places of levels of names stand for
        (first, *_) = self.value_variables
        if not first.has_number and first.lattice is None:
            names = first.names
            if column.role not in NUMERIC:
                place = {name: k for k, name in enumerate(setting.categories)}
                names = [place[name] for name in names]
            self.listed = np.array(names, dtype=np.float64)
        # The encoded value of what is none of these.
        self.unseen = np.nan if column.role in NUMERIC else float(len(setting.categories))

    @property
    def is_mostly_known(self):
        """Whether hardly any row of the fit lacks a value."""
        return self.n_missing <= FEW_MISSING * self.n_rows

    @property
    def has_months(self):
        """Whether dates are numbers of months."""
        return self.month_offset is not None

    @property
    def has_times(self):
        """Whether dates have weeks, weekdays and times of day."""
        return self.kind == "datetime" and len(self.value_variables) == 3

    @property
    def has_days(self):
        """Whether dates have weeks and weekdays, and are all midnights."""
        return self.kind == "datetime" and len(self.value_variables) == 2

    @property
    def value_variables(self):
        """The variables that hold the value, without the one that says whether it is missing."""
        return self.variables[self.has_flag :]

    @property
    def is_levels(self):
        """Whether the column has finitely many levels, which months have too."""
        return len(self.value_variables) == 1 and not self.value_variables[0].has_number

    @property
    def possible(self):
        """The values whose probabilities are listed, None if these are not listed.

        Numbers on a lattice are listed with those that no row has, unless there are many.
        """
        if self.kind == "datetime":
            return None
        (variable,) = self.value_variables
        if not variable.has_number and variable.lattice is None:
            return list(variable.levels)
        numbers = variable.possible
        if numbers is None or len(numbers.values) > MAX_ORDERED:
            return None
        return numbers.values.tolist()

    @property
    def decimals(self):
        """Decimals of the numbers of the column, or None if it has none, or many."""
        if not self.is_number:
            return None
        (variable,) = self.value_variables
        return variable.decimals if variable.has_number else decimals_of(np.array(variable.levels))

    @property
    def lattices(self):
        """The step of each variable, with an offset if it is a number, or its levels."""
        variable = self.value_variables[-1]
        if not self.is_number or variable.step is None:
            return [variable.step for variable in self.value_variables]
        if self._takes_levels:
            return variable.levels
        return variable.step, round(self._first_point / variable.step % 1, 6) % 1

    @property
    def _takes_levels(self):
        """Whether filled in numbers are levels, even if others are possible."""
        variable = self.value_variables[-1]
        return not variable.has_number and (self.kind == "ordinal" or variable.lattice is None)

    @property
    def _first_point(self):
        variable = self.value_variables[-1]
        return variable.origin if variable.has_number else variable.levels[0]

    def nearest(self, x, toward):
        """Return encoded numbers, moved to possible ones by `numpy.floor` or `numpy.ceil`."""
        variable = self.value_variables[-1]
        if self.kind == "datetime" or variable.step is None:
            return x
        if self._takes_levels:
            levels = np.array(variable.levels, dtype=np.float64)
            is_down = toward is np.floor
            place = np.searchsorted(levels, x, side="right" if is_down else "left") - is_down
            return levels[place.clip(0, len(levels) - 1)]
        steps = (x - self._first_point) / variable.step
        return self._first_point + variable.step * toward(np.round(steps, 6))

    @property
    def zone(self):
        """The time zone of the dates of fit, or None."""
        return zone_of(self.dtype)

    @property
    def is_number(self):
        return self.role == "number" and self.kind != "categorical"

    @property
    def is_ordered(self):
        """Whether the values are numbers or dates."""
        return self.is_number or self.kind == "datetime"

    def split(self, values):
        """Return the variables of encoded values, as a list of arrays; NaN is unknown."""
        known = ~np.isnan(values)
        flags = [np.where(known, 0.0, 1.0)] if self.has_flag else []
        if self.kind == "datetime":
            local = values.copy()
            local[known] = local_seconds(values[known], self.zone, self.name)
            of_parts = split_moment(local)[: len(self.value_variables)]
            if self.has_months:
                of_parts = [months_of(local - self.month_offset)]
            elif isinstance(self.value_variables[0], Weeks):
                of_parts = joined_moment(*of_parts), *of_parts[1:]
            pairs = zip(self.value_variables, of_parts, strict=True)
            return [*flags, *(variable.encode(each) for variable, each in pairs)]
        (variable,) = self.value_variables
        return [*flags, variable.encode(values) if self.listed is None else self._places(values)]

    def _places(self, values):
        """Return the places of encoded values among the listed ones, the next one for others."""
        order = np.argsort(self.listed)
        place = order[np.searchsorted(self.listed, values, sorter=order).clip(max=len(order) - 1)]
        place = np.where(self.listed[place] == values, place, self.value_variables[0].n_values)
        return np.where(np.isnan(values), np.nan, place)

    def is_unseen(self, values):
        """Return where the variables of this column stand for a category that fit has not seen."""
        if self.listed is None:
            return np.zeros(len(values), dtype=bool)
        return values[:, -1] == len(self.listed)

    def value_text(self, values, j):
        """Return the value of one row as text; j is the variable to show of it."""
        if self.kind != "datetime":
            return f"{values[j]:.10g}"
        if isinstance(self.variables[j], Weeks):
            return moment_text(values[j])
        value = self.joined(values[None])
        return moment_text(local_seconds(value, self.zone, self.name)[0])

    @property
    def seen_text(self):
        """The least and the largest number or date of the fit as text."""
        return " to ".join(
            moment_text(end) if self.kind == "datetime" else f"{end:.10g}" for end in self.seen
        )

    def range_text(self, variable):
        """Return a text on what values a variable of the column has."""
        if isinstance(variable, Weeks):
            return f"dates between {' and '.join(map(moment_text, variable.ends))}"
        if self.has_months:
            each = "" if variable.step == 1 else f"{variable.step:g} "
            return f"dates every {each}month{'s' * bool(each)}"
        if self.kind == "datetime":
            return "dates at other times of the day"
        step, low, high = (
            (variable.step, variable.low, variable.high)
            if variable.has_number
            else variable.lattice
        )
        if step is None:
            what, below, above = "numbers", "below", "above"
        else:
            is_whole = step == 1 and (np.isinf(low) or low % 1 == 0)
            what = "whole numbers" if is_whole else f"numbers in steps of {step:g}"
            what = f"{often}, and {what}" if (often := _often(variable)) else what
            below, above = "of at most", "of at least"
        if np.isinf(low):
            return what if np.isinf(high) else f"{what} {below} {high:.10g}"
        if np.isinf(high):
            return f"{what} {above} {low:.10g}"
        if step is not None:
            return f"{what} from {low:.10g} to {high:.10g}"
        return f"{what} {above} {low:.10g} and {below} {high:.10g}"

    def remedy_for(self, x, variable):
        """Return a sentence that says how a number can be made an ordinary value, if it can."""
        if self.kind in ("datetime", "circular") and not isinstance(variable, Weeks):
            return ""
        if self.is_stated and self.arguments:
            low, high = variable.ends if isinstance(variable, Weeks) else ends_of(variable)
            if not low < x < high:
                return " If it can occur, move the bounds that columns gives, or leave them out."
        say = f"columns={{{self.name!r}: 'continuous'}}"
        return f" If it can occur, say so before fit, for example by {say}."

    def joined(self, values, random_state=None):
        """Return the encoded values that values of the variables stand for."""
        if self.has_flag:
            values = np.where(values[:, :1] == 1, np.nan, values[:, 1:])
        drawn = [
            variable.value(x, random_state)
            for variable, x in zip(self.value_variables, values.T, strict=True)
        ]
        if self.listed is not None:
            known, encoded = ~np.isnan(drawn[0]), np.full(len(values), np.nan)
            encoded[known] = np.append(self.listed, self.unseen)[drawn[0][known].astype(int)]
            return encoded
        if self.kind != "datetime":
            return drawn[0]
        weeks = self.value_variables[0]
        if isinstance(weeks, Weeks):
            week, *_ = split_moment(drawn[0])
            moments = weeks.moved_inside(joined_moment(week, *drawn[1:]))
        elif self.has_months:
            moments = moments_of_months(drawn[0]) + self.month_offset
        else:
            moments = joined_moment(*drawn)
        known = ~np.isnan(moments)
        moments[known] = utc_seconds(moments[known], self.zone, self.name)
        return moments

    def describe(self):
        """Return a row of the table of decisions."""
        (first, *_) = self.value_variables
        unit = "density" if first.has_number and first.step is None else "probability"
        if (
            self.kind == "datetime"
            and len(self.value_variables) == 3
            and self.value_variables[2].has_number
        ):
            unit = "density per second"
        if self.kind == "atoms":
            unit = "density and probability"
        how = f"{first.n_levels} levels" if not first.has_number else "number"
        if self.kind == "datetime":
            how = " and ".join(["week", "weekday", "time"][: len(self.value_variables)])
        if self.has_months:
            how = "month"
        reason = self.reason
        if reason == GIVEN and self.arguments:
            reason += f": {(self.kind, *self.arguments)}"
        if self.kind != "atoms" and (often := _often(first)):
            reason += f", often exactly {often}"
        if first.has_number and first.heaps is not None:
            steps = first.step * first.heaps.usual_steps
            reason += f", often multiples of {', '.join(f'{step:.10g}' for step in steps)}"
        return {
            "column": self.name,
            "kind": self.kind,
            "modelled as": how,
            "unit": unit,
            "missing": self.n_missing,
            "reason": reason,
        }
