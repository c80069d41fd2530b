"""Choosing the columns of a table, those that hold dates, and its complete rows."""

import re
import shlex
import warnings

import numpy as np

from ..columns.arrays import check_exact_table, listed
from ..columns.checks import MANY_ROWS, did_you_mean, names_rows, warn_of_row_names
from ..columns.dates import parsed
from ..columns.formats import is_word
from ..table._columns import MAX_CATEGORIES
from ._arguments import listed_name
from ._cells import PADDED
from ._forms import dates_of
from ._tables import import_pandas, restore_integers, without_formula

REMEDY = "correct these entries, or encode the texts as numbers"
REMEDY_OF_FIT = (
    "leave it out with --exclude {name}, or read such entries as missing with --kind {kind}, "
    "by a density of tables"
)
REMEDY_OF_MISSING = "fill them in, or drop those rows or columns"
MOST_MISTAKES = 0.1  # share of entries that are not numbers: with more, they are texts
MAX_COLUMNS = 10_000  # of a fit, beyond which networks take gigabytes and hours
WITHOUT_NAME = re.compile(r"Unnamed: \d+")  # how pandas names a column without a name
WITH_OFFSET = "2024-12-31T18:30+01:00"  # a date in messages
MAX_NAMES = 6  # column names that a message lists before it says "and 12 more"
FEW_NAMES = 20  # of a table, which are listed all if a name is not among them


def feature_columns(frame):
    """Return all columns except the row numbers that pandas, from 0, or R, from 1, writes first."""
    names = list(frame.columns)
    first = frame[names[0]]
    are_numbers = names[0] == "Unnamed: 0" and first.dtype.kind in "iu"
    if are_numbers and any((first == frame.index + start).all() for start in (0, 1)):
        warnings.warn("the first column has no name and holds row numbers: left out", stacklevel=2)
        return names[1:]
    return names


def select(frame, names, path):
    """Return the named columns, in that order; others are ignored."""
    frame = unquoted(frame, names)
    check_names(names, [*frame], path)
    return frame[list(names)]


def check_names(names, header, path):
    """Raise an error if some columns are not in a table."""
    if missing := [name for name in names if name not in header]:
        hint = did_you_mean(missing[0], header) if len(missing) == 1 else ""
        raise ValueError(
            f"{path} has no column {_quoted(missing)}; {hint and hint + ' '}it has {_all(header)}"
        )


def unquoted(frame, names):
    """Return a table with these names of columns where `CsvAppender` quoted them."""
    return frame.rename(columns={without_formula(name): name for name in names})


def ids(args):
    """Return the columns that name the rows, one or none."""
    return [] if args.id is None else [args.id]


def check_columns(args, table):
    """Raise an error if a fit takes too many columns, or if the arguments name others."""
    header = [name or f"Unnamed: {i}" for i, name in enumerate(table.header)]
    target = getattr(args, "target", None)  # some commands have no such option
    named = [*(args.columns or ()), *left_out(args), *([] if target is None else [target])]
    if target in left_out(args):
        raise ValueError(f"--target {target} is left out by --exclude or --id: give it once")
    written = {without_formula(name): name for name in [*named, *dict(args.kind)]}
    header = [written.get(name, name) for name in header]
    check_names(named, header, args.data)
    for name, _ in args.kind:
        if name not in header:
            raise ValueError(
                f"--kind {name}=...: {args.data} has no such column; it has {_all(header)}"
            )
    n = len(used(args)) if args.columns else table.n_columns - len(left_out(args))
    if n > MAX_COLUMNS:
        raise ValueError(
            f"{args.data} has {n} columns to fit to; at most {MAX_COLUMNS} are possible: choose "
            "some with --columns"
        )


def left_out(args):
    """Return the columns that the arguments leave out of a fit."""
    return [*args.exclude, *ids(args)]


def used(args):
    """Return the columns that the arguments choose, without those left out, or None for all."""
    return args.columns and [name for name in args.columns if name not in left_out(args)]


def check_free(names, added, path):
    """Raise an error if a table has columns with names that an output adds."""
    if taken := [name for name in added if name in names]:
        raise ValueError(
            f"{path} has a column {taken[0]!r}, which the output adds: rename the column"
        )


def numbers(frame, path, remedy=REMEDY, remedy_of_missing=REMEDY_OF_MISSING):
    """Return the table in float64, or raise an error if an entry is not a finite number."""
    numbers = as_numbers(frame)
    check_exact_table(numbers, path)
    numbers = numbers.astype(np.float64)
    are_texts = numbers.isna() & frame.notna()
    if are_texts.any(axis=None):
        names = frame.columns[are_texts.any()]
        cells = frame.loc[are_texts[names[0]], names[0]]
        no_numbers = cells[import_pandas().to_numeric(cells, errors="coerce").isna()]
        if len(no_numbers):
            texts = [*map(str, no_numbers)]
            # A few words would be read as missing.
            fault = f"holds {next((text for text in texts if not is_word(text)), texts[0])!r}"
        else:
            padded = next(cell for cell in cells if PADDED.fullmatch(cell))
            fault = f"holds {padded!r}: if it holds quantities, remove leading zeros"
        kind = shlex.quote(f"{names[0]}=continuous")
        remedy = remedy.format(name=shlex.quote(listed_name(str(names[0]))), kind=kind)
        raise ValueError(
            f"{path} has columns that are not numbers: {_quoted(names)} ({names[0]!r} {fault}); "
            f"{remedy}"
        )
    for problem, fault, remedy in (
        ("missing", numbers.isna(), remedy_of_missing),
        ("infinite", np.isinf(numbers), REMEDY_OF_MISSING),
    ):
        if where := _listed_counts(fault.sum()):
            raise ValueError(f"{path} has {problem} values, {where}: {remedy}")
    return numbers


def as_numbers(frame):
    """Return a table of numbers, with NaN for entries that are not numbers.

    In a column of texts with leading zeros, such as 01000, no entry is a number.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"])
    numbers = frame.drop(columns=texts.columns)
    if texts.columns.size:
        numbers = numbers.join(texts.apply(_numbers_of_texts))[[*frame]]
    return numbers


def _numbers_of_texts(column):
    if any(isinstance(cell, str) and PADDED.fullmatch(cell) for cell in column):
        return column.map(lambda cell: np.nan)
    return import_pandas().to_numeric(column, errors="coerce")


def empty_columns(frame, excluded=()):
    """Return the names of columns without a value, except excluded ones."""
    return [name for name in frame.columns[frame.isna().all()] if name not in excluded]


def chosen_columns(frame, path, columns=None, exclude=(), *, models_texts=True):
    """Return the named columns of a table, or all of them, without excluded ones.

    It warns of columns that name the rows: of texts only if these are part of the model.
    """
    frame = unquoted(frame, [*(columns or ()), *exclude])
    names = feature_columns(frame) if columns is None else columns
    select(frame, exclude, path)
    frame = select(frame, [name for name in names if name not in exclude], path)
    empty = empty_columns(frame)
    if empty and columns is None:
        if named := [name for name in empty if not WITHOUT_NAME.fullmatch(str(name))]:
            warnings.warn(
                f"columns of {path} without a value are left out: {_quoted(named)}", stacklevel=2
            )
        frame = frame.drop(columns=empty)
    if not frame.columns.size:
        raise ValueError(f"no column of {path} is left")
    if columns is None and len(frame) >= MANY_ROWS:  # fewer show nothing
        named = frame if models_texts else frame.select_dtypes("number")
        warn_of_row_names({name: named[name].dropna().to_numpy() for name in named}, path)
    return frame


def without_identifiers(frame, path, kept):
    """Return a table without columns of texts that name the rows, with a warning of these.

    Columns that the user calls categories are kept.
    """
    texts = frame.select_dtypes(exclude=["number", "bool"]).drop(columns=kept, errors="ignore")
    identifiers = [name for name in texts if names_rows(texts[name].dropna().to_numpy())]
    if identifiers and len(identifiers) < frame.columns.size:
        warnings.warn(
            f"columns of {path} that seem to name the rows are left out: {_quoted(identifiers)}; "
            "to use their texts, group them, or add --kind COLUMN=categorical",
            stacklevel=2,
        )
        frame = frame.drop(columns=identifiers)
    return frame


def warn_of_many_texts(frame, path, kept):
    """Warn of columns of many texts, such as names of persons, which samples repeat.

    Columns that name the rows, which samples replace, do not count, nor do those that the user
    calls categories.
    """
    texts = frame.select_dtypes(exclude=["number", "bool", "datetime", "datetimetz"])
    counts = texts.drop(columns=kept, errors="ignore").nunique()
    many = [
        name
        for name in counts.index[counts > MAX_CATEGORIES]
        if not names_rows(texts[name].dropna().to_numpy())
    ]
    if many:
        kinds = " ".join(f"--kind {shlex.quote(str(name))}=identifier" for name in many)
        different = ", ".join(f"{counts[name]} in {str(name)!r}" for name in many[:MAX_NAMES])
        warnings.warn(
            f"{path} has many different texts, {different}{', ...' * (len(many) > MAX_NAMES)}, and "
            f"samples repeat them: if they name persons or rows, add {kinds}, and samples have "
            "placeholders",
            stacklevel=2,
        )


def needs_table(frame):
    """Return whether a table has texts, dates or missing values, which densities of numbers refuse.

    Few entries of a column of numbers that are not numbers are mistakes rather than texts.
    """
    return bool(frame.isna().any(axis=None) or hold_texts(frame).any())


def hold_texts(frame):
    """Return which columns hold texts, a Series: one entry that is no number is a mistake."""
    known = frame.notna().sum()
    n_others = known - as_numbers(frame).notna().sum()
    return (n_others > (MOST_MISTAKES * known).clip(lower=1)) | (n_others == known)


def with_dates(frame, encoding=None):
    """Return a table in which texts are dates if all of a column are, in ISO 8601.

    After a fit, its encoding says which columns are dates, and which are integers, whatever these
    rows hold.
    """
    if encoding is None:
        return with_parsed(frame, frame.select_dtypes(exclude=["number", "bool"]))
    dtypes = {n: c.dtype.lower() for n, c in zip(encoding.keys, encoding.columns, strict=True)}
    floats = [name for name, dtype in dtypes.items() if dtype.startswith("float")]
    frame = frame.astype({name: float for name in frame.select_dtypes("Int64") if name in floats})
    restore_integers(frame, [name for name, dtype in dtypes.items() if "int" in dtype])
    return with_parsed(frame, encoding.zones, are_dates=True)


def with_parsed(frame, names, are_dates=False):
    """Return a table in which the texts of some columns are dates if all of a column are.

    If they must be dates, because they were in `fit`, other texts are an error. A dict has the time
    zone of each column in `fit`. If the UTC offset changes, as with summer time, dates are in UTC.
    """
    frame = frame.copy()
    zones = names if isinstance(names, dict) else {}
    changing = []
    for name in names:
        texts = frame[name].dropna()
        if not len(texts) or not texts.map(type).eq(str).all():
            continue
        seconds, offsets = parsed(texts)
        if not np.isnan(seconds).any():
            changes = len(np.unique(offsets)) > 1  # pandas has one offset for a column
            have_offset = ~np.isnan(offsets)
            expected = zones.get(name) is not None if are_dates else have_offset[0]
            check_offsets(name, texts, have_offset, expected, are_dates)
            in_utc = changes or zones.get(name) is not None
            dates = dates_of(seconds, 0.0 if in_utc else offsets[0], texts.index)
            frame[name] = dates.reindex(frame.index)
            if changes and not are_dates:
                changing.append(name)
        elif are_dates:
            row = texts.index[np.isnan(seconds)][0]
            raise ValueError(
                f"column {name!r} held dates in fit; now row {row + 1} holds {texts[row]!r}: write "
                "all its dates as in 2024-12-31"
            )
    if changing:
        warnings.warn(
            f"the UTC offsets of dates change, as by summer time, in {_quoted(changing)}: they are "
            "read in UTC; if the local time of day matters, write the dates without offsets, in "
            "later files too",
            stacklevel=2,
        )
    return frame


def check_offsets(name, texts, have_offset, expected, is_later):
    """Raise an error if only some dates have a UTC offset, or if this differs from the fit.

    Without it, what instant they mean is not known.
    """
    if (have_offset == expected).all():
        return
    row = texts.index[have_offset != expected][0]
    if not is_later:
        raise ValueError(
            f"column {name!r} holds dates with and without UTC offsets, such as {texts.iloc[0]!r} "
            f"and {texts[row]!r} in row {row + 1}: write all or none with an offset"
        )
    before, remedy = "no UTC offsets", "without an offset, in the local time of the fit"
    if expected:
        before, remedy = "UTC offsets", f"with its offset, as in {WITH_OFFSET}"
    raise ValueError(
        f"the dates of column {name!r} had {before} in fit; now row {row + 1} holds "
        f"{texts[row]!r}: write it {remedy}"
    )


def numeric_columns(frame, path, columns=None, exclude=()):
    """Return the named columns of a table, or else those in which nearly all entries are numbers.

    It warns about columns that are left out. The other entries of such columns are mistakes, not
    texts, and raise an error later on.
    """
    frame = chosen_columns(frame, path, columns, exclude)
    if columns is not None:
        return frame
    texts = frame.columns[hold_texts(frame)]
    if len(texts) == frame.columns.size:
        raise ValueError(f"{path} has no column of numbers: encode the texts as numbers")
    if len(texts):
        warnings.warn(
            f"columns of {path} that are not numbers are left out: {_quoted(texts)}", stacklevel=2
        )
    return frame.drop(columns=texts)


def complete_numbers(frame, path, columns=None, exclude=(), remedy=REMEDY):
    """Return the numeric columns of a table in the rows without missing values."""
    gaps = Gaps(path)
    complete = gaps.left_out_of(numeric_columns(frame, path, columns, exclude))
    gaps.report()
    return numbers(complete, path, remedy)


class Gaps:
    """The rows with missing values, which are left out, and counted over batches of a table."""

    def __init__(self, path):
        self.path = path
        self.n_rows = self.n_left_out = 0
        self.counts = None  # missing values of each column

    def left_out_of(self, frame):
        """Return the rows without missing values."""
        missing = frame.isna()
        complete = ~missing.any(axis=1)
        self.n_rows += len(frame)
        self.n_left_out += int((~complete).sum())
        counts = missing.sum()
        self.counts = counts if self.counts is None else self.counts + counts
        return frame[complete]

    def report(self):
        """Warn about rows that were left out, or raise an error if no other rows are left."""
        if not self.n_left_out:
            return
        where = _listed_counts(self.counts)
        rows = f"of {self.n_rows} rows of {self.path} have missing values ({where})"
        if self.n_left_out == self.n_rows:
            raise ValueError(f"all {rows}: fill them in, or leave out columns")
        warnings.warn(f"{self.n_left_out} {rows}: left out", stacklevel=2)


def _listed_counts(counts):
    """Return how many entries of which columns were counted, as text."""
    counts = counts.loc[lambda count: count > 0]
    texts = [f"{count} in {str(name)!r}" for name, count in counts.items()]
    more = len(texts) - MAX_NAMES
    return ", ".join(texts[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _all(header):
    """Return the names of the columns of a table, all of them if they are few."""
    return listed(header, FEW_NAMES if len(header) <= FEW_NAMES else MAX_NAMES)


def _quoted(names):
    return listed([*names], MAX_NAMES)
