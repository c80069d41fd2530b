"""Columns of a table: the variables that each kind makes of one."""

from typing import NamedTuple

import numpy as np

from ..columns.checks import unseen_error
from ..columns.dates import (
    DAY,
    WEEK,
    check_zone,
    joined_moment,
    local_seconds,
    moment_text,
    moments_of,
    split_moment,
    start_of_week,
    utc_seconds,
    zone_of,
)
from ..columns.frames import Column
from ..columns.kinds import FEW_VALUES, GIVEN, bounds_of, date_bounds, is_few
from ..columns.lattice import ON_LATTICE, decimals_of, lattice_of
from ..preprocessing.angles import emptiest_angle
from ._maps import counted
from ._outside import outside_share
from ._variables import UNSEEN, Levels, Number

MAX_CATEGORIES = 200
MAX_ORDERED = 1_000  # levels, each of which has a frequency in each class
RARE_ROWS = 3  # a category with fewer rows is rare
ONCE = 1.5  # rows below which a category occurs once


class ColumnSetting(NamedTuple):
    """What the kinds need besides a column."""

    name: object
    handle_unknown: str
    random_state: np.random.RandomState
    weight: np.ndarray  # of the rows with a known value
    missing: float  # weight of the other rows
    is_stated: bool  # whether the user gave the kind, which then may make values impossible
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
    found = lattice_of(np.union1d(values, 0.0))
    return {} if found is None else {"unit": found[0], "decimals": found[1]}


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


def on_lattice(column, setting, kind, low=None, high=None):
    values = _numbers(column, setting, kind)
    distinct = np.unique(values)
    found = lattice_of(distinct)
    if found is None or (kind in ("count", "integer") and found[1] > 0):
        raise ValueError(
            f"columns gives {setting.name!r} the kind {kind!r}, but it holds "
            f"{distinct[distinct != np.rint(distinct)][0]:g}: choose 'continuous', or round it."
        )
    step, decimals = found
    if kind in ("count", "integer"):
        step = 1.0
    low, high = bounds_of(low, high)
    _check_inside(values, low, high, setting, open_ends=False, tolerance=ON_LATTICE * step)
    low, high = _outermost(distinct, step, low, high, decimals)
    if is_few(distinct, values):
        return [_numeric_levels(values, setting, step, low, high, decimals)]
    limits = {"low": low, "high": high, "outside": setting.outside_kind}
    return [Number(values, setting, step=step, decimals=decimals, **limits)]


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
    n_levels = len(column.categories or set(column.values[column.known].tolist()))
    if n_levels > MAX_ORDERED:
        raise ValueError(
            f"column {setting.name!r} has {n_levels} ordered levels; at most {MAX_ORDERED} are "
            "possible: convert it to numbers, such as its codes, or group its levels."
        )
    if column.role == "number":
        values = column.values[column.known]
        distinct = np.unique(values)
        if (found := lattice_of(distinct)) is not None:
            step, decimals = found
            low = 0.0 if distinct[0] >= 0 else -np.inf
            ends = _outermost(distinct, step, low, np.inf, decimals)
            return [_numeric_levels(values, setting, step, *ends, decimals)]
    levels = column.categories or sorted(set(column.values[column.known].tolist()))
    known = column.values[column.known]
    counts = [setting.weight[known == level].sum() for level in levels]
    scores = np.linspace(-1.5, 1.5, len(levels)) if len(levels) > 1 else np.zeros(1)
    return [Levels(levels, counts, scores=scores, outside=unseen_share(counts, setting))]


def categorical(column, setting):
    values = column.values[column.known]
    distinct, counts = counted(values.astype(object), setting.weight)
    names = [value.item() if hasattr(value, "item") else value for value in distinct.tolist()]
    if column.role == "bool":  # the other value is possible too, if there is only one
        names, counts = (
            [False, True],
            [setting.weight[values == level].sum() for level in (False, True)],
        )
        return [Levels(names, counts)]
    if setting.handle_unknown == "rare":
        order = np.argsort(-counts, kind="stable")
        kept = sorted(k for k in order[:MAX_CATEGORIES] if counts[k] >= RARE_ROWS)
        rare = [k for k in np.flatnonzero(counts) if k not in set(kept)]
        shares = np.maximum(counts[rare], 1)  # of rows of any weight, none is next to impossible
        shares /= shares.sum()
        pooled = dict(zip((names[k] for k in rare), shares.tolist(), strict=True))
        levels = [names[k] for k in kept] + ["(rare)"]
        return [Levels(levels, [*counts[kept], counts[rare].sum()], pooled=pooled)]
    if len(names) > MAX_CATEGORIES or (
        len(names) > 2 * FEW_VALUES and len(names) > len(values) / 2
    ):
        raise ValueError(
            f"column {setting.name!r} has {len(names)} categories in {len(values)} rows: leave it "
            "out if it names the rows, convert dates by pandas.to_datetime, group its categories, "
            "or set handle_unknown='rare', which pools the rare ones."
        )
    return [Levels(names, counts, outside=unseen_share(counts, setting))]


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
    found = lattice_of(np.union1d(distinct, 0.0))
    if found is not None and is_few(distinct, values):
        step, decimals = found
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
    week, weekday, time = split_moment(moments)
    if low is None and high is None:
        weeks = _part_of_numbers(week, setting)
    else:
        low, high = bounds_of(*date_bounds(setting.name, [low, high]))
        _check_inside(moments, low, high, setting, open_ends=False, write=moment_text)
        if high - low < WEEK:
            raise ValueError(
                f"column {setting.name!r} has the bounds {moment_text(low)} and "
                f"{moment_text(high)}, less than a week apart: move one of them out."
            )
        weeks = Weeks(moments, setting, low, high)
    parts = [weeks, _numeric_levels(weekday, setting, 1.0, 0.0, 6.0, 0)]
    if time.any():
        parts.append(angle(time, setting, float(DAY)))
    return parts


def _part_of_numbers(values, setting):
    known = np.ones(len(values), dtype=bool)
    return on_lattice(Column(values, known, "number", ""), setting, "integer")[0]


class Weeks(Number):
    """The week of a date between bounds, which may lie within a week.

    Its number is the moment. The probabilities of the weeks in which the weekday and time are out
    of bounds are those of the nearest week in which they are not, so that they sum to 1 at every
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

    def cells(self, code, x, known, space):
        week = start_of_week(x)
        low, middle, high, width, log_scale = super().cells(code, week, known, space)
        first, last = self.ends
        low[known & (x - WEEK < first)] = -np.inf
        high[known & (x + WEEK > last)] = np.inf
        log_scale[known & ((x < first) | (x > last))] = -np.inf
        return low, middle, high, width, log_scale

    def is_outside(self, code, x, known):
        return known & ((x < self.ends[0]) | (x > self.ends[1]))

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
TEXTS = ("text", "category", "ordered")  # roles of columns that may hold texts


def part_ends(part):
    """Return the bounds of a variable."""
    return (part.low, part.high) if part.has_number else part.lattice[1:]


class ColumnModel:
    """A column of the table: its kind, and the variables that it becomes."""

    def __init__(self, column, kind, setting, models_gaps):
        self.name = setting.name
        self.kind, self.arguments, self.reason, self.is_stated = kind
        self.role, self.dtype, self.categories = column.role, column.dtype, column.categories
        self.n_missing = int((~column.known).sum())
        self.refuses_unseen = setting.handle_unknown == "error" or column.role == "bool"
        make = MAKERS[self.kind]
        if self.kind == "categorical" and column.role in ("number", "datetime"):
            column = column._replace(values=column.values.astype(object))
        if self.kind == "datetime" and column.role == "datetime":
            column = column._replace(values=local_seconds(column.values, self.zone, self.name))
        try:
            self.parts = make(column, setting, *self.arguments)
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise ValueError(
                f"columns gives {self.name!r} the kind {self.kind!r} with the arguments "
                f"{self.arguments}, which do not fit: {error}"
            ) from error
        self.has_gap_part = models_gaps
        if self.has_gap_part:
            counts = [setting.weight.sum(), setting.missing]
            self.parts = [Levels([False, True], counts), *self.parts]

    @property
    def value_parts(self):
        """The variables that hold the value, without the one that says whether it is missing."""
        return self.parts[self.has_gap_part :]

    @property
    def is_levels(self):
        """Whether the column has finitely many levels."""
        return len(self.value_parts) == 1 and not self.value_parts[0].has_number

    @property
    def decimals(self):
        """Decimals of the numbers of the column, or None if it has none, or many."""
        if not self.is_number:
            return None
        (part,) = self.value_parts
        return part.decimals if part.has_number else decimals_of(np.array(part.levels))

    @property
    def zone(self):
        """The time zone of the dates of fit, or None."""
        return zone_of(self.dtype)

    @property
    def is_number(self):
        return self.role == "number" and self.kind != "categorical"

    def encode(self, column):
        """Return the levels and numbers of each variable, and which are known.

        Values of a category that the fit has not seen raise an error, or are `UNSEEN`.
        """
        values, known = column.values, column.known
        if self.role == column.role == "datetime" and known.any():
            check_zone(zone_of(column.dtype), self.zone, self.name)
        if self.kind == "datetime":
            if column.role in TEXTS:
                values = self._moments_of(values, known)
            elif column.role != "datetime" and known.any():
                raise ValueError(
                    f"column {self.name!r} held dates in fit; now it does not: convert it by "
                    "pandas.to_datetime."
                )
            values = np.where(known, values, 0.0).astype(np.float64)
            if column.role == "datetime":
                values = local_seconds(values, self.zone, self.name)
            of_parts = split_moment(values)[: len(self.value_parts)]
            if isinstance(self.value_parts[0], Weeks):
                of_parts = joined_moment(*of_parts), *of_parts[1:]
        else:
            if self.role == "number" and column.role != "number" and known.any():
                raise ValueError(
                    f"column {self.name!r} held numbers in fit; now it holds "
                    f"{column.values[column.known][0]!r}."
                )
            if self.role == "text" and known.any() and column.role not in TEXTS:
                raise ValueError(
                    f"column {self.name!r} held texts in fit; now it holds "
                    f"{column.values[column.known][0]!r}: convert it to texts as they were in fit, "
                    "such as '01234' rather than 1234."
                )
            of_parts = [values]
        found = []
        if self.has_gap_part:
            found.append((*self.parts[0].encode(~known, np.ones_like(known)), np.ones_like(known)))
        for part, own in zip(self.value_parts, of_parts, strict=True):
            code, x = part.encode(own, known)
            unseen = known & (code == UNSEEN)
            if self.refuses_unseen and unseen.any():
                raise unseen_error(self.name, own[unseen])
            found.append((code, x, known))
        return found

    def _moments_of(self, texts, known):
        found = np.zeros(len(texts))
        try:
            found[known] = moments_of(texts[known])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"column {self.name!r} held dates in fit; now it holds texts, of which one is no "
                f"date in ISO 8601 without a time zone ({error}): convert it by "
                "pandas.to_datetime."
            ) from None
        return found

    def value_text(self, code, x, known, j):
        """Return the value of one row as text; j is the variable to show of it."""
        if self.kind != "datetime":
            return f"{x[j]:.10g}"
        if isinstance(self.parts[j], Weeks):
            return moment_text(x[j])
        (value,) = self.decode(code[None], x[None], known[None]).values
        return moment_text(local_seconds(np.array([value]), self.zone, self.name)[0])

    def range_text(self, part):
        """Return a text on what values a variable of the column has."""
        if isinstance(part, Weeks):
            return f"dates between {' and '.join(map(moment_text, part.ends))}"
        if self.kind == "datetime":
            return "dates at other times of the day"
        step, low, high = (part.step, part.low, part.high) if part.has_number else part.lattice
        values = "numbers strictly" if step is None else f"in steps of {step:g}"
        return f"{values} between {low:.10g} and {high:.10g}"

    def remedy_for(self, x, part):
        """Return a sentence that says how a number can be made an ordinary value, if it can."""
        if self.kind in ("datetime", "circular") and not isinstance(part, Weeks):
            return ""
        if self.is_stated and self.arguments:
            low, high = part.ends if isinstance(part, Weeks) else part_ends(part)
            if not low < x < high:
                return " If it can occur, move the bounds that columns gives, or leave them out."
        say = f"columns={{{self.name!r}: 'continuous'}}"
        return f" If it can occur, say so before fit, for example by {say}."

    def decode(self, code, x, known, random_state=None):
        """Return the column from the levels and numbers of its variables."""
        if self.has_gap_part:
            gaps = known[:, 0] & (code[:, 0] == 1)
            code, x, known = code[:, 1:], x[:, 1:], known[:, 1:] & ~gaps[:, None]
        values = []
        for j, part in enumerate(self.value_parts):
            more = () if getattr(part, "pooled", None) is None else (random_state,)
            values.append(part.value(code[:, j], x[:, j], *more))
        whole = known.all(axis=1)
        if self.kind == "datetime":
            weeks = self.value_parts[0]
            if isinstance(weeks, Weeks):
                week, *_ = split_moment(values[0])
                found = weeks.moved_inside(joined_moment(week, *values[1:]))
            else:
                found = joined_moment(*values)
            found = utc_seconds(np.where(whole, found, 0.0), self.zone, self.name)
            return Column(found, whole, "datetime", self.dtype)
        is_number = self.role in ("number", "datetime")  # of which some may be categories
        found = values[0].astype(np.float64) if is_number else values[0]
        return Column(found, whole, self.role, self.dtype, self.categories)

    def describe(self):
        """Return a row of the table of decisions."""
        (first, *_) = self.value_parts
        unit = "density" if first.has_number and first.step is None else "probability"
        if (
            self.kind == "datetime"
            and len(self.value_parts) == 3
            and self.value_parts[2].has_number
        ):
            unit = "density per second"
        if self.kind == "atoms":
            unit = "density and probability"
        how = f"{first.n_levels} levels" if not first.has_number else "number"
        if self.kind == "datetime":
            how = " and ".join(["week", "weekday", "time"][: len(self.value_parts)])
        reason = self.reason
        if reason == GIVEN and self.arguments:
            reason += f": {(self.kind, *self.arguments)}"
        return {
            "column": self.name,
            "kind": self.kind,
            "modelled as": how,
            "unit": unit,
            "missing": self.n_missing,
            "reason": reason,
        }
