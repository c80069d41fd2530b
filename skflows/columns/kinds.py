"""Kinds of the columns of tables: how they are recognised, or stated by the user."""

from collections.abc import Mapping
from math import isnan
from numbers import Real
from typing import NamedTuple

import numpy as np

from .arrays import column_index
from .dates import DAY, moments_of
from .lattice import is_whole, lattice_of

KINDS = (
    "continuous",
    "bounded",
    "atoms",
    "count",
    "integer",
    "rounded",
    "ordinal",
    "categorical",
    "circular",
    "datetime",
    "identifier",
)
NUMBERS = ("continuous", "bounded", "atoms", "count", "integer", "rounded", "circular")
IDENTIFIER = "identifier"  # the kind of columns that name the rows
OPEN_KINDS = ("bounded", "atoms")  # whose bounds are impossible values
FEW_VALUES = 30  # numbers with at most so many distinct values are levels
ROWS_PER_LEVEL = 5  # on average, at least
MANY_MULTIPLES = 10  # distinct whole numbers, beyond which no step is common to them by chance
DISTINCT = 0.8  # share of distinct values from which on decimals are rounding, not a lattice
ATOM_SHARE, ATOM_ROWS = 0.02, 5  # share and number of equal rows from which on a value is an atom
MAX_ATOMS = 10
NEAR_BOUND = 1.0  # standard deviations within which the least value suggests a bound
SHARE_NEAR_WHOLE = 0.05  # of the values, which suggests that none exceeds the whole
WHOLES = {"percentages": 100.0, "shares": 1_000.0}  # of numbers with a sign, by what they are
GIVEN = "given in columns"
ORDERS = {"dayfirst": True, "monthfirst": False}  # of dates that are texts
THOUSANDS = "thousands"  # in front of what separates these in numbers that are texts


class Kind(NamedTuple):
    """The kind of a column, its arguments, why, and whether the user stated it."""

    name: str
    arguments: tuple
    reason: str
    is_stated: bool = False
    dayfirst: bool | None = None  # whether dates that are texts have the day first, if stated
    thousands: str | None = None  # what separates thousands in numbers that are texts, if stated


def decide(values, role, format=None, whole=1.0):
    """Return the kind of a column from its known values and its role, which the dtype tells.

    Texts may have a `Format`, which is part of the reason. Shares of a whole do not exceed it.
    """
    if format is not None:
        result = decide(values, role, whole=WHOLES.get(format.what, np.inf))
        if getattr(format, "is_time", False):
            result = Kind("circular", (float(DAY),), "times of day")
        text = f"{format.what} as texts, such as {format.write(values[:1])[0]!r}"
        return result._replace(reason=f"{text}: {result.reason}")
    match role:
        case "datetime":
            return Kind("datetime", (), "dates")
        case "ordered":
            return Kind("ordinal", (), "an ordered categorical dtype")
        case "bool":
            return Kind("categorical", (), "booleans")
        case "text" | "category":
            return Kind("categorical", (), f"{len(set(values))} distinct texts")
    distinct = np.unique(values)
    n_distinct = len(distinct)
    least = distinct[0] if n_distinct else 0.0
    if n_distinct and is_whole(values):
        step, _ = lattice_of(distinct) or (1, 0)
        is_many = n_distinct > MANY_MULTIPLES and not is_listed(distinct, values)
        if is_many and step > 1 and not (distinct % step).any():
            return Kind("rounded", bounds_of_share(values, whole), f"multiples of {step:g}")
        kind = "count" if least >= 0 else "integer"
        how = "whole numbers" + (", none negative" if least >= 0 else "")
        ends = bounds_of_share(values, whole) if whole > 1 else ()  # 0 and 1 are no shares
        return Kind(kind, ends, f"{how}, {n_distinct} distinct")
    if is_listed(distinct, values) and lattice_of(distinct) is not None:
        return Kind("ordinal", (), f"{n_distinct} distinct numbers")
    if n_distinct <= DISTINCT * len(values) and (result := lattice_of(distinct)) is not None:
        return Kind(
            "rounded", bounds_of_share(values, whole), f"repeated multiples of {result[0]:g}"
        )
    atoms = atoms_of(values)
    ends = likely_bounds(values, atoms, whole)
    if len(atoms):
        text = ", ".join(f"{atom:g}" for atom in atoms)
        return Kind("atoms", (atoms.tolist(), *ends), f"numbers, often exactly {text}")
    if np.isfinite(ends).any():
        is_share = np.isfinite(ends[1])
        text = f"between 0 and {whole:g}" if is_share else "positive, close to 0 for their spread"
        return Kind("bounded", ends, f"numbers {text}")
    return Kind("continuous", (), "numbers")


def is_few(distinct, values):
    """Whether numbers have so few distinct values that each can have its own probability."""
    return len(distinct) <= FEW_VALUES and len(values) >= ROWS_PER_LEVEL * len(distinct)


def is_listed(distinct, values):
    """Whether numbers have so few distinct values, and so many rows, that each is a level.

    With fewer rows, a normal with its correlations says more than a probability for each value.
    """
    return is_few(distinct, values) and len(values) >= 2 * len(distinct) ** 2


def atoms_of(values):
    """Return values that occur so often that they have a positive probability."""
    distinct, counts = np.unique(values, return_counts=True)
    often = counts >= max(ATOM_ROWS, ATOM_SHARE * len(values))
    order = np.argsort(-counts[often], kind="stable")[:MAX_ATOMS]
    return np.sort(distinct[often][order])


def likely_bounds(values, atoms, whole=1.0):
    """Return the bounds 0 and the whole, or only 0, that numbers seem to have."""
    rest = values[~np.isin(values, atoms)]
    if not len(rest) or rest.min() <= 0:
        return -np.inf, np.inf
    is_positive = rest.min() <= NEAR_BOUND * rest.std()
    is_share = rest.max() < whole >= values.max()
    if is_share and ((is_positive and whole == 1) or are_near(rest, whole)):
        return 0.0, whole
    return 0.0 if is_positive else -np.inf, np.inf


def bounds_of_share(values, whole):
    """Return the bounds 0 and the whole if multiples of a step seem to have them, otherwise ()."""
    is_share = values.min() >= 0 and values.max() <= whole and are_near(values, whole)
    return (0.0, whole) if is_share else ()


def are_near(values, whole):
    """Whether some values are near the whole, for their spread."""
    return np.mean(whole - values <= NEAR_BOUND * values.std()) >= SHARE_NEAR_WHOLE


def stated(columns, names):
    """Return the kinds that a user states for some columns, as a dict of names to `Kind`.

    Parameters
    ----------
    columns : dict or None
        The kinds by names, or by numbers, of columns. A kind is its name, or a tuple of it and its
        arguments; or a `Kind`, from code that has read texts and says why.
    names : list
        Names of all columns, or their numbers.
    """
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise ValueError(f"columns={columns!r}; give a dict of column names to kinds.")
    kinds = {}
    for key, kind in columns.items():
        if key not in names:
            key = names[column_index(key, len(names), names, "columns")]
        if isinstance(kind, Kind):
            kinds[key] = kind
            continue
        kind, *arguments = kind if isinstance(kind, tuple | list) and kind else (kind,)
        dayfirst = None
        if kind == "datetime" and arguments and arguments[0] in ORDERS:
            dayfirst, *arguments = arguments
            dayfirst = ORDERS[dayfirst]
        mark = None
        if arguments and arguments[0] == THOUSANDS:
            mark = arguments[1] if len(arguments) > 1 else None
            arguments = arguments[2:]
            if not isinstance(mark, str) or len(mark) != 1:
                raise ValueError(
                    f"columns gives {key!r} the kind {kind!r} with {THOUSANDS!r}, behind which the "
                    f"mark that separates them is missing, as in ({kind!r}, {THOUSANDS!r}, '.')."
                )
        values, bounds = [], date_bounds(key, arguments) if kind == "datetime" else arguments
        if kind == "atoms" and arguments:
            first, *bounds = arguments
            values = list(first) if np.iterable(first) else [first]
            arguments = [values, *bounds]
        are_numbers = all(
            number is None or (isinstance(number, Real) and not isnan(number))
            for number in [*values, *bounds]
        )
        if not are_numbers or (
            kind == "circular" and not all(period and period > 0 for period in bounds)
        ):
            raise ValueError(
                f"columns gives {key!r} the kind {kind!r} with {arguments}; bounds and values "
                "are numbers other than NaN, and a period is a positive number."
            )
        if kind == "atoms" and (not values or None in values):
            raise ValueError(
                f"columns gives {key!r} the kind 'atoms' without the values that rows repeat, such "
                "as 0 in ('atoms', [0], low, high)."
            )
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f"columns gives {key!r} the kind {kind!r}; choose among {list(KINDS)}."
            )
        low, high = bounds_of(*[*bounds, None, None][:2])
        if low > high or (low == high and kind in OPEN_KINDS):
            raise ValueError(
                f"columns gives {key!r} the kind {kind!r} with {arguments}, but the first "
                "bound must be less than the second: swap them, or move one of them."
            )
        kinds[key] = Kind(kind, tuple(arguments), GIVEN, True, dayfirst, mark)
    return kinds


def bounds_of(low, high):
    """Return bounds as numbers; None is an open end unless the kind has a default."""
    return -np.inf if low is None else low, np.inf if high is None else high


def date_bounds(name, bounds):
    """Return bounds of dates in seconds, None where one is left out."""
    try:
        return [None if bound is None else moments_of([bound])[0] for bound in bounds]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"columns gives {name!r} the kind 'datetime' with {bounds} ({error}); bounds are texts "
            "in the local time of the column, such as '2024-12-31' or '2024-12-31T18:30'."
        ) from None
