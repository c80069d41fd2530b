"""The variables of a table's density: numbers, mapped to normal scores, and levels.

A column has one variable, or several (a date has its week, weekday and time). Rows are an array
of shape (n, n_variables): a number stands as it is, a level of names as its place, and what is
unknown as NaN. The code of a value is the place of its level, the number of levels for a value that
is none of them, and -1 without levels and where it is unknown; a number with atoms has level 0.
"""

import copy
from typing import NamedTuple

import numpy as np

from ..columns.kinds import likely_bounds
from ..columns.lattice import ON_LATTICE, SAME, Grid, lattice, lattice_of, smallest_gap
from ._heaps import LEAST_ODDS, MOST_REPEATS, Heaps
from ._maps import fit_maps, repeat
from ._outside import Outside, scale_of
from ._reach import UpperTail, are_far

ROWS_AT_ONCE = 5_000
MAX_LISTED = 1_000_000  # points of a lattice: a number with more is answered as if continuous
FARTHEST_SCORES = np.array([-8.0, 8.0])  # of numbers in answers
FARTHEST_LEVEL = 20  # times the range of levels, beyond which numbers are outside of their kind
ROWS_BETWEEN = 1.0  # that all unseen numbers between two levels count for
ROWS_PER_POINT = 8  # of a lattice, from which on its frequency tells more than its rounding


class Cells(NamedTuple):
    """Rows in one of the spaces of their numbers, each of shape (n, n_variables).

    A number is the interval from ``low`` to ``high``, or a point if these are equal. The
    probability of a row is the one of its levels and intervals times ``exp(log_scale)``. A number
    beyond bounds has no interval, only a ``log_scale``.
    """

    code: np.ndarray
    low: np.ndarray  # -inf for the first cell of a bounded lattice
    middle: np.ndarray  # NaN where there is no number
    high: np.ndarray
    width: np.ndarray  # from low to high, both finite
    log_scale: np.ndarray
    known: np.ndarray


def in_chunks(values, size=ROWS_AT_ONCE):
    """Return values in chunks of rows, which bound the memory of what is asked of them."""
    starts = range(0, max(len(values), 1), size)
    return [values[start : start + size] for start in starts]


def first_features(variables):
    """Return the place of each variable's first input of a network, and their number."""
    return np.concatenate([[0], np.cumsum([variable.n_features for variable in variables])])


def angle_features(turns, known):
    """Return the inputs of a network from numbers of turns, 0 where they are not known."""
    angle = 2 * np.pi * turns
    return [np.sin(angle) * known, np.cos(angle) * known]


class Number:
    """A number: a density between bounds, possibly with atoms, or the mass of a lattice's points.

    Parameters
    ----------
    x : ndarray of shape (n,)
        The known values.
    step : float, optional
        Distance between the points of the lattice of all possible values.
    low, high : float
        Bounds. A lattice contains its bounds, a density does not.
    atoms : sequence of float
        Values of positive probability, besides a density.
    period : float, optional
        The values are angles: ``low`` and ``low + period`` are the same.
    decimals : int, optional
        Decimals of samples.
    unit : float, optional
        Samples of a density are multiples of it.
    outside : float, default=0.0
        See `Outside`: the share of numbers that are no points of the lattice, and of numbers beyond
        the bounds.
    may_have_heaps : bool, default=False
        Whether points of a lattice may be rounded to larger steps (see `Heaps`), unless they repeat
        often.
    setting : ColumnSetting
        The weights of the values, and a random state for the noise on lattices from which maps are
        set.
    """

    has_number = True
    year = None  # of dates: its length
    season = None  # of dates of several years: the same, in which the other variables may repeat

    def __init__(
        self,
        x,
        setting,
        *,
        step=None,
        low=-np.inf,
        high=np.inf,
        atoms=(),
        period=None,
        decimals=None,
        unit=None,
        outside=0.0,
        may_have_heaps=False,
    ):
        self.step, self.low, self.high, self.period = step, low, high, period
        self.decimals, self.unit = decimals, unit
        self.atoms = np.asarray(atoms, dtype=np.float64)
        self.n_levels = 1 + len(self.atoms) if len(self.atoms) else 0
        x = self.encode(x)
        inside = ~np.isin(x, self.atoms)
        x, weight = x[inside], setting.weight[inside]
        self.origin = float(low if np.isfinite(low) else x.min()) if step is not None else 0.0
        if not len(x):  # all are atoms
            x = np.array([-1.0, 1.0]) if np.isinf([low, high]).all() else self._some_inside()
            weight = np.ones(len(x))
        if step is None and len(x) < 2:
            x, weight = np.repeat(x, 2), np.repeat(weight, 2)
        self.heaps = None
        is_whole = step is not None and abs(self.origin / step % 1 - 0.5) > 0.5 - ON_LATTICE
        if may_have_heaps and is_whole and len(x) < ROWS_PER_POINT * len(np.unique(x)):
            heaps = Heaps.of(self.whole(x), weight)
            # Points that repeat more often than steps explain have their own frequencies.
            if heaps is not None and repeat(x) and heaps.repeats(self.whole(x)) > MOST_REPEATS:
                heaps = None
            self.heaps = heaps
        self.seen = float(x.min()), float(x.max())
        ends = (low, high) if period is None else (-np.inf, np.inf)  # a circle has no ends
        self.outside = Outside(outside, *ends, step, scale_of(x, weight, step))
        self.tails = UpperTail(-x, weight), UpperTail(x, weight)
        if step is None:
            self.map_ends = low, high
        elif np.isfinite([low, high]).all():  # little mass of a normal lies beyond
            self.map_ends = low - step, high + step
        else:  # the outer cells are open
            # Where values hardly repeat, steps do not matter: they are as skewed as other numbers.
            has_logarithms = low in (0, step) and likely_bounds(x, ())[0] == 0
            has_logarithms &= self.heaps is not None or not repeat(x)
            self.map_ends = (low - step if has_logarithms else -np.inf), np.inf
        self._set_maps(x, weight, setting.random_state, setting.quantile)

    @property
    def is_plain(self):
        """Whether the quantiles of all numbers are mapped as they are."""
        has_bounds = np.isfinite(self.map_ends).any() or self.period is not None
        return self.step is None and not has_bounds and not self.n_levels

    def _set_maps(self, x, weight, random_state, quantile=None):
        self.maps = fit_maps(
            x,
            weight,
            self.step,
            self.origin,
            *self.map_ends,
            random_state,
            self.period,
            quantile if self.is_plain else None,
            None if self.heaps is None else self.cell_ends(x)[1],
        )

    def with_maps_of(self, x, weight, random_state, quantile=None):
        """Return the same variable with the maps of some rows, unless they are too few."""
        has = self.is_number(x)
        variable = copy.copy(self)
        if has.sum() > 1:
            variable._set_maps(x[has], weight[has], random_state, quantile)
        return variable

    def reach(self, n_draws):
        """Return the least and the largest value that some of n draws could plausibly have."""
        if self.period is not None:
            return -np.inf, np.inf
        below, above = self.tails
        low, high = self.snap(np.array([-below.reach(n_draws), above.reach(n_draws)]))
        return min(low, *self.atoms, np.inf), max(high, *self.atoms, -np.inf)

    def is_far(self, x):
        """Return which numbers are far from the ones of the fit."""
        is_far, has = np.zeros(len(x), dtype=bool), self.is_number(x)
        if self.period is None:
            is_far[has] = are_far(x[has], self.seen, self.reach(1), self.step)
        return is_far

    def as_condition(self, x):
        """Return dates as what they say of other variables: as dates between the ends of the fit.

        A date more than a month before or after them is one at the same time of the nearest year.
        """
        near = np.clip(x, *self.seen)
        distance = x - near
        if self.season is None or not (np.abs(distance) > self.season / 12).any():
            return near
        years = np.sign(distance) * np.ceil(np.abs(distance) / self.season)
        same_season = np.clip(self.snap(x - self.season * years), *self.seen)
        return np.where(np.abs(distance) > self.season / 12, same_season, near)

    def _some_inside(self):
        ends = [end for end in (self.low, self.high) if np.isfinite(end)]
        return (
            np.array([ends[0] + 1.0, ends[0] + 2.0])
            if len(ends) == 1 and np.isfinite(self.low)
            else (np.array([ends[0] - 1.0]) if len(ends) == 1 else np.linspace(*ends, 4)[1:-1])
        )

    def _wrapped(self, x):
        return x if self.period is None else self.low + np.mod(x - self.low, self.period)

    @property
    def n_features(self):
        """Number of inputs of a network: the score, the angle, and the levels."""
        return 1 + 2 * ((self.period or self.season) is not None) + self.n_levels

    @property
    def possible(self):
        """The points of the lattice that are not beyond all measure, None if there are none."""
        if self.step is None:
            return None
        ends = np.clip(self.maps["quantile"].inverse(FARTHEST_SCORES), self.low, self.high)
        first, last = np.rint((ends - self.origin) / self.step)
        if last - first >= MAX_LISTED:
            return None
        points = self.snap(self.origin + self.step * np.arange(first, last + 1))
        points = np.union1d(points, self.atoms) if self.n_levels else points
        return Grid(points, True, self.step)

    @property
    def usual(self):
        """The median number."""
        return float(self.snap(self.maps["quantile"].inverse(np.zeros(1)))[0])

    def whole(self, x):
        """Return numbers of a lattice that has zero as multiples of its step."""
        return np.rint(x / self.step)

    def cell_ends(self, points):
        """Return the ends of the cells of points of the lattice, infinite beyond outermost points.

        Also return them where the outermost points have cells as wide as a step outwards.
        """
        if self.heaps is None:
            closed = self.origin + self.step * (
                np.rint((points - self.origin) / self.step) + np.array([[-0.5], [0.5]])
            )
            below = np.where(points <= self.low, -np.inf, closed[0])
            return (below, np.where(points >= self.high, np.inf, closed[1])), closed
        limits = map(self.whole, (self.low, self.high))
        return self._closed(np.stack(self.heaps.cells(self.whole(points), *limits)))

    def ends_below(self, x):
        """Return the ends of the cells of numbers up to x, of each degree of heaps.

        Also return them with cells that are a step wide outwards, as `cell_ends`.
        """
        limits = map(self.whole, (self.low, self.high))
        return self._closed(self.heaps.ends_below(x / self.step + ON_LATTICE, *limits))

    def _closed(self, ends):
        ends = self.step * ends
        return ends, np.clip(ends, self.low - self.step / 2, self.high + self.step / 2)

    def encode(self, values):
        """Return the variable of numbers, with atoms of a lattice without rounding errors."""
        x = self._wrapped(values)
        for atom in self.atoms if self.step is not None else ():
            x = np.where(np.abs(x - atom) <= ON_LATTICE * self.step, atom, x)
        return x

    def code(self, x):
        """Return the codes of rows: 0 for a number and the places of atoms, if there are any."""
        code = np.full(len(x), -1)
        if self.n_levels:
            code[~np.isnan(x)] = 0
            for k, atom in enumerate(self.atoms, 1):
                code[x == atom] = k
        return code

    def is_number(self, x):
        """Return where the row has a number, and not a missing value or an atom."""
        has = ~np.isnan(x)
        return has & ~np.isin(x, self.atoms) if self.n_levels else has

    def cells(self, x, code, space):
        """Return the intervals of rows in a space, and the log of what multiplies them."""
        has = self.is_number(x)
        low, middle, high = (np.full(len(x), np.nan) for _ in range(3))
        width, log_scale = np.zeros(len(x)), np.zeros(len(x))
        beyond = np.zeros(len(x), dtype=bool)
        beyond[has] = self.outside.is_beyond(x[has])
        log_scale[beyond] = self.outside.log_beyond(x[beyond])
        has &= ~beyond
        forward = self.maps[space].forward
        numbers = x[has]
        if self.step is None:
            y, slope = forward(numbers)
            low[has] = middle[has] = high[has] = y
            log_scale[has] = slope + self.outside.log_inside
            return low, middle, high, width, log_scale
        points = self.origin + self.step * np.rint((numbers - self.origin) / self.step)
        ends, closed = self.cell_ends(points)
        below, above = (forward(each)[0] for each in closed)
        middle[has], width[has] = (below + above) / 2, above - below
        low[has] = np.where(np.isinf(ends[0]), -np.inf, below)
        high[has] = np.where(np.isinf(ends[1]), np.inf, above)
        off = np.abs(numbers - points) > ON_LATTICE * self.step
        log_scale[has] = np.where(off, self.outside.log_between, self.outside.log_inside)
        if self.heaps is not None:
            log_scale[has] += self.heaps.log_share(self.whole(points))
        return low, middle, high, width, log_scale

    def is_informative(self, x):
        """Return which values say something about other variables."""
        is_informative = ~np.isnan(x)
        has = self.is_number(x)
        is_informative[has] = ~self.outside.is_beyond(x[has])
        return is_informative

    def is_outside(self, x):
        """Return which numbers are beyond the bounds, or no points of the lattice."""
        is_outside = np.zeros(len(x), dtype=bool)
        has = self.is_number(x)
        numbers = x[has]
        is_off = False
        if self.step is not None:
            steps = (numbers - self.origin) / self.step
            is_off = np.abs(steps - np.rint(steps)) > ON_LATTICE
        is_outside[has] = is_off | self.outside.is_beyond(numbers)
        return is_outside

    def decode(self, code, y, space, random_state):
        """Return the variable from codes and normal scores, and from random degrees of rounding."""
        x = np.full(len(y), np.nan)
        has = code <= 0
        numbers = self.maps[space].inverse(y[has])
        if self.heaps is not None:
            whole, *limits = (each / self.step for each in (numbers, self.low, self.high))
            numbers = self.step * self.heaps.drawn(whole, *np.rint(limits), random_state)
        x[has] = self.snap(numbers)
        if self.n_levels:
            x[~has] = self.atoms[code[~has] - 1]
        return x

    def snap(self, x):
        """Return the possible number nearest to each x; atoms stay as they are."""
        number = self._nearest_number(x)
        return np.where(np.isin(x, self.atoms), x, number) if self.n_levels else number

    def _nearest_number(self, x):
        if self.step is not None:
            x = self.origin + self.step * np.rint(
                (np.clip(x, self.low, self.high) - self.origin) / self.step
            )
            if self.decimals is not None:
                x = np.round(x, self.decimals)
            return x if self.period is None else self._wrapped(x)
        if self.unit is None:
            return x
        index = np.rint(x / self.unit)
        if self.period is None:  # bounds are no samples
            low = np.floor(self.low / self.unit + ON_LATTICE) + 1
            high = np.ceil(self.high / self.unit - ON_LATTICE) - 1
            if low > high:
                return x
            index = np.clip(index, low, high)
        return self._wrapped(np.round(self.unit * index, self.decimals))

    def value(self, x, random_state=None):
        """Return the numbers that rows stand for."""
        if self.period is None:
            return x
        x = np.mod(x, self.period)
        if self.decimals is not None:  # remove rounding errors
            rounded = np.round(x, self.decimals)
            x = np.where(np.abs(rounded - x) < SAME * self.period, rounded, x)
        return np.mod(x, self.period)

    def features(self, x, code, middle):
        """Return the inputs of a network."""
        has = self.is_number(x)
        y = np.where(has & ~np.isnan(middle), middle, 0.0)
        features = [y]
        if (turn := self.period or self.season) is not None:
            features += angle_features(np.where(has, x, 0.0) / turn, has)
        features += [code == k for k in range(self.n_levels)]
        return np.stack(features, 1).astype(np.float64)


class Levels:
    """One of finitely many levels, with a probability for each.

    Parameters
    ----------
    levels : list
        Values, in their order.
    counts : sequence of float
        Rows of each.
    scores : ndarray of shape (n_levels,), optional
        Numbers that say how far apart ordered levels are.
    lattice : tuple of (step, low, high), optional
        Numbers that are not among the levels are possible too. Those between two levels count as
        the nearest level, the more frequent one in the middle, and share its probability: together
        they count as one row. Beyond all levels, a small probability falls geometrically.
    pooled : dict of object to float, optional
        Rare values, with their shares, that the last level stands for. Their places follow those
        of the other levels.
    period : float, optional
        The numbers are angles: 0 and ``period`` are the same.
    outside : float, default=0.0
        Probability of unseen categories; of numbers, as in `Number`.
    """

    has_number = False
    year = season = None  # as in `Number`

    def __init__(
        self,
        levels,
        counts,
        *,
        scores=None,
        lattice=None,
        pooled=None,
        period=None,
        outside=0.0,
    ):
        self.levels = list(levels)
        self.n_levels = len(self.levels)
        self.counts = np.asarray(counts, dtype=np.float64)
        self.scores = scores
        self.lattice = lattice
        self.pooled = pooled
        self.period = period
        self.unseen = outside  # probability of what is not a level
        if lattice is not None or pooled is not None:
            self.unseen = 1 / (self.counts.sum() + 2)
        if lattice is not None:
            step, low, high = lattice
            if outside and period is None:  # no number is so far out that its probability is 0
                reach = FARTHEST_LEVEL * (step + self.levels[-1] - self.levels[0])
                low = max(low, self.levels[0] - reach)
                high = min(high, self.levels[-1] + reach)
            ends = (low, high) if period is None else (-np.inf, np.inf)
            scale = scale_of(np.array(self.levels), self.counts, step)
            self.outside = Outside(outside, *ends, step, scale)
            cells = np.rint((np.array(self.levels) - self.levels[0]) / step)
            self.ratio = 1 - 1 / (2 + cells[-1])
            self.n_between = np.diff(cells) - 1
            is_more = self.counts[:-1] >= self.counts[1:]
            n_below = (self.n_between + is_more) // 2  # that count as the lower level
            self.last_near = self.levels[0] + step * (cells[:-1] + n_below)
            per_point = ROWS_BETWEEN / np.maximum(self.n_between, 1)
            rows = self.counts + np.append(per_point * n_below, 0.0)
            rows[1:] += per_point * (self.n_between - n_below)
            self.log_listed = np.log(self.counts / rows)
            self.log_between = np.log(per_point[:, None] / np.stack([rows[:-1], rows[1:]], 1))
            n_below, n_above = (
                np.inf if np.isinf(end) else np.rint(abs(end - outer) / step)
                for end, outer in ((low, self.levels[0]), (high, self.levels[-1]))
            )
            self.total = sum((1 - self.ratio**n) / (1 - self.ratio) for n in (n_below, n_above))
            if self.total == 0:
                self.unseen = 0.0

    @property
    def n_features(self):
        return self.n_levels + (self.scores is not None) + 2 * (self.season is not None)

    @property
    def possible(self):
        """The listed numbers and those between them, unless these are many; others are rare.

        Between numbers that are all multiples of a larger step, such as every fifth year, only
        these multiples count, unless few numbers have it by chance.
        """
        levels, step = np.array(self.levels, dtype=np.float64), self.step
        if self.lattice is not None:
            common, _ = lattice_of(levels) or (step, 0)
            if (len(levels) - 1) * np.log(common / step) > np.log(LEAST_ODDS):
                step = common
            levels, _ = lattice(levels, step)
        return Grid(levels, True, self.step)

    def of_possible(self, probabilities):
        """Return the probabilities of the possible numbers, from the probabilities of levels."""
        if self.lattice is None:
            return probabilities
        points = self.possible.values
        code = self.code(points)
        share = np.exp(self._log_share(points, code))
        share /= np.bincount(code, share)[code]
        return probabilities[:, code] * share

    @property
    def usual(self):
        """The most frequent level."""
        code = np.atleast_1d(self.counts.argmax())
        return float(self.decode(code)[0])

    @property
    def step(self):
        """The distance of numbers, at least."""
        if self.lattice is not None:
            return self.lattice[0]
        return smallest_gap(np.array(self.levels, dtype=np.float64))

    @property
    def n_values(self):
        """Number of places of a level of names: of the levels, or of those and of pooled values."""
        return self.n_levels if self.pooled is None else self.n_levels - 1 + len(self.pooled)

    @property
    def names(self):
        """The values that places stand for, without the place of other values."""
        return self.levels if self.pooled is None else [*self.levels[:-1], *self.pooled]

    def reach(self, n_draws):
        """Return no limits: draws are levels."""
        return -np.inf, np.inf

    def is_far(self, x):
        """Return which numbers are far from the levels."""
        if self.lattice is None or self.period is not None:
            return np.zeros(len(x), dtype=bool)
        return are_far(x, (self.levels[0], self.levels[-1]), self.reach(1), self.step)

    def encode(self, values):
        """Return the variable of numbers."""
        return values if self.period is None else np.mod(values, self.period)

    def code(self, x):
        """Return the codes of rows."""
        known = ~np.isnan(x)
        code = np.full(len(x), -1)
        if self.lattice is None:
            code[known] = np.minimum(x[known], self.n_levels - (self.pooled is not None))
            return code
        points, _ = self._nearest(x[known])
        half = self.lattice[0] / 2
        near = np.searchsorted(self.last_near + half, points)
        is_near = (points > self.levels[0] - half) & (points < self.levels[-1] + half)
        is_near &= ~self.outside.is_beyond(x[known])
        code[known] = np.where(is_near, near, self.n_levels)
        return code

    def is_between(self, x, code):
        """Return which numbers are no levels, but count as the nearest."""
        if self.lattice is None:
            return np.zeros(len(x), dtype=bool)
        is_near = (code >= 0) & (code < self.n_levels)
        levels = np.array(self.levels)[np.where(is_near, code, 0)]
        return is_near & (np.abs(x - levels) > self.lattice[0] / 2)

    def _nearest(self, x):
        """Return the points of the lattice next to numbers, and which numbers are not on them."""
        step = self.lattice[0]
        x = np.clip(x, self.outside.low, self.outside.high)  # beyond, nothing depends on it
        points = self.levels[0] + step * np.rint((x - self.levels[0]) / step)
        is_off = np.abs(x - points) > ON_LATTICE * step
        if self.period is not None:  # a whole turn is 0
            points = np.mod(points + step / 4, self.period) - step / 4
        return points, is_off

    def is_informative(self, x):
        """Return which values say something about other variables."""
        if self.lattice is None:
            return ~np.isnan(x) & ((x < self.n_levels) | (self.pooled is not None))
        return ~np.isnan(x) & ~self.outside.is_beyond(x)

    def is_outside(self, x):
        """Return which numbers are none of the lattice."""
        is_outside = np.zeros(len(x), dtype=bool)
        if self.lattice is not None:
            has = ~np.isnan(x)
            is_outside[has] = self._nearest(x[has])[1] | self.outside.is_beyond(x[has])
        return is_outside

    def cells(self, x, code, space):
        """Return no intervals, and the log of what multiplies probabilities of levels."""
        none, known = np.full(len(code), np.nan), ~np.isnan(x)
        log_scale = np.zeros(len(code))
        with np.errstate(divide="ignore"):
            if self.lattice is not None:
                log_scale[known] = self._log_scale_of_numbers(x[known], code[known])
            elif self.pooled is not None:
                rare = known & (code == self.n_levels - 1)
                unseen = self.unseen if self.pooled else 1.0
                shares = np.array([*self.pooled.values()]) * (1 - unseen)
                log_scale[rare] = np.log(np.append(shares, unseen))[
                    x[rare].astype(int) - (self.n_levels - 1)
                ]
            else:
                log_scale[known] = np.log(
                    np.where(code[known] == self.n_levels, self.unseen, 1 - self.unseen)
                )
        return none, none, none, np.zeros(len(code)), log_scale

    def _log_scale_of_numbers(self, x, code):
        points, is_off = self._nearest(x)
        is_near = code < self.n_levels
        log_scale = np.full(len(x), np.log1p(-self.unseen))
        log_scale[is_near] += self._log_share(points[is_near], code[is_near])
        log_scale[~is_near] = self._log_mass_of_unseen(points[~is_near])
        log_scale += np.where(is_off, self.outside.log_between, self.outside.log_inside)
        beyond = self.outside.is_beyond(x)
        log_scale[beyond] = self.outside.log_beyond(x[beyond])
        return log_scale

    def _log_share(self, x, code):
        """Return the log of the shares that numbers have of the probability of their level."""
        log_share, is_between = self.log_listed[code], self.is_between(x, code)
        x, code = x[is_between], code[is_between]
        is_upper = (x < np.array(self.levels)[code]).astype(int)
        log_share[is_between] = self.log_between[code - is_upper, is_upper]
        return log_share

    def _log_mass_of_unseen(self, x):
        if self.total == 0:
            return np.full(len(x), -np.inf)
        steps = np.rint(np.maximum(self.levels[0] - x, x - self.levels[-1]) / self.lattice[0])
        return np.log(self.unseen) + (steps - 1) * np.log(self.ratio) - np.log(self.total)

    def decode(self, code, y=None, space=None, random_state=None):
        """Return the variable from codes; for pooled values it is none of these."""
        if self.lattice is not None:
            return np.array(self.levels, dtype=np.float64)[code]
        if self.pooled is None:
            return code.astype(np.float64)
        return np.where(code < self.n_levels - 1, code, self.n_values).astype(np.float64)

    def likeliest(self, probabilities):
        """Return the variable's likeliest value, from the probabilities of levels.

        A pooled value has a share of the probability of its level.
        """
        if self.pooled is not None and self.n_levels > 1:
            probabilities = probabilities.copy()
            probabilities[:, -1] *= max(self.pooled.values(), default=0.0)
        return self.decode(probabilities.argmax(axis=1))

    def value(self, x, random_state=None):
        """Return the numbers that rows stand for: each of levels of names is the place of one.

        A value that is none of pooled ones stands for any of these.
        """
        if self.pooled is None:
            return x
        x, is_any = x.copy(), x == self.n_values
        # With nothing pooled, it stands for any of the others.
        shares = np.array([*self.pooled.values()]) if self.pooled else self.counts[:-1]
        places = np.arange(len(shares)) + (self.n_levels - 1 if self.pooled else 0)
        if random_state is None:
            x[is_any] = places[np.argmax(shares)]
        else:
            x[is_any] = random_state.choice(places, is_any.sum(), p=shares / shares.sum())
        return x

    def features(self, x, code, middle):
        """Return the inputs of a network."""
        features = [code == k for k in range(self.n_levels)]
        if self.scores is not None:
            is_level = (code >= 0) & (code < self.n_levels)
            score = np.where(is_level, self.scores[np.clip(code, 0, self.n_levels - 1)], 0.0)
            if self.lattice is not None:  # numbers between levels, and beyond
                score = np.where(code >= 0, np.interp(x, self.levels, self.scores), score)
            features.append(score)
        if self.season is not None:
            features += angle_features(np.where(code >= 0, x, 0.0) / self.season, code >= 0)
        return np.stack(features, 1).astype(np.float64)
