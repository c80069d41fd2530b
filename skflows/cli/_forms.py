"""How a CSV file is written, so that outputs have the form of the input."""

import csv
import re
import sys
import warnings
from collections import Counter
from dataclasses import replace
from datetime import timedelta, timezone
from typing import NamedTuple

import numpy as np

from ..columns.arrays import listed
from ..columns.dates import datetimes_of
from ..columns.formats import (
    OFFSET,
    OTHER_MARK,
    BooleanFormat,
    ClockFormat,
    DateFormat,
    DurationFormat,
    NumberFormat,
    find_format,
    is_word,
)
from ..columns.kinds import NUMBERS, decide
from ._cells import GAPS

FORM = "_file_form"  # the attribute of a model that has the form of its file, as a dict
# Cells that stand for missing values if all others of a column have a format.
PLACEHOLDERS = frozenset({"-", "--", "\u2013", "\u2014", "?", ".", "n.a.", "N.A.", "n.d.", "NaN"})
MAX_WORDS = 5  # that a message lists
MAX_DECIMALS = 12  # beyond which a column has whatever digits its numbers have


class FileForm(NamedTuple):
    """The form of a CSV file.

    Attributes
    ----------
    sep, decimal, line_end, encoding : str
        What separates columns, the decimal mark, what ends lines, and the encoding.
    quoted : list of str
        The columns whose cells are all quoted.
    is_header_quoted, is_gap_quoted : bool
        Whether the names of columns, and empty cells of these columns, are quoted.
    formats : dict of str to Format
        How columns of texts are read as numbers or dates, and written.
    styles : dict of str to Format
        How columns that pandas reads as numbers, booleans or dates are written.
    missing_texts : dict of str to str
        How missing cells of columns are written, unless they are empty.
    columns : list of str
        The columns of samples, if some of these have no value; others are the model's.
    target : str or None
        The column that the model of the file predicts.
    numbers : list of str
        The columns that held numbers in the fit, without a format.
    """

    sep: str = ","
    decimal: str = "."
    line_end: str = "\n"
    encoding: str = "utf-8"
    quoted: tuple | list = ()
    is_header_quoted: bool = False
    is_gap_quoted: bool = False
    formats: dict = {}
    styles: dict = {}
    missing_texts: dict = {}
    columns: tuple | list = ()
    target: str | None = None
    numbers: tuple | list = ()

    def with_formats_of(self, other):
        """Return this form with the formats, styles and missing texts of another one."""
        return self._replace(
            formats=other.formats,
            styles=other.styles,
            missing_texts=other.missing_texts,
            numbers=other.numbers,
        )

    def formats_after_fit(self):
        """Return the formats in which columns are read, also plain numbers, with words."""
        plain = NumberFormat(decimal=self.decimal)
        formats = dict.fromkeys(self.numbers, plain) | self.formats
        return {
            name: format
            if isinstance(format, BooleanFormat)  # of words
            else replace(format, accepts_words=True)
            for name, format in formats.items()
        }

    def with_format(self, names, format):
        """Return this form with a format of further columns, if there is one."""
        added = {} if format is None else dict.fromkeys(names, format)
        return self._replace(formats=self.formats | added)

    def format_of(self, name):
        """Return the format in which a column is written, or None."""
        return self.formats.get(name, self.styles.get(name))


def form_of(model):
    """Return the form of the file that a model was fitted to, or the default one."""
    return FileForm(**getattr(model, FORM, {}))


def set_form(model, form):
    """Store the form of a file in the model that is fitted to it."""
    setattr(model, FORM, form._asdict())


def hints_of(args):
    """Return what the arguments say about cells."""
    if args.thousands is not None and args.thousands == args.decimal:
        raise ValueError(
            f"{args.decimal!r} cannot be both the decimal mark and what separates thousands: give "
            "--decimal or --thousands"
        )
    return Hints(args.thousands, args.dayfirst, dict(args.kind))


def form_of_file(head, sep, decimal, encoding):
    """Return the form of a file from its first lines, without formats of texts."""
    lines = head.splitlines(keepends=True)
    line_end = "\r\n" if "\r\n" in head else "\r" if "\r" in head and "\n" not in head else "\n"
    rows = [row for row in csv.reader(lines, delimiter=sep) if row]
    raw = [_raw_cells(line.rstrip("\r\n"), sep) for line in lines]
    names, *rows = rows or [[]]
    quoted, styles, with_values = [], {}, set()
    missing_texts = {name: Counter() for name in names if name}
    for i, name in enumerate(names):
        # Lines with line breaks or quotes inside of cells do not tell.
        cells = [row[i] for row in raw[1:] if len(row) == len(names) and row[i] not in GAPS]
        if cells and all(cell[:1] == '"' for cell in cells):
            quoted.append(name)
        of_column = [row[i] for row in rows if i < len(row)]
        known = [cell for cell in of_column if cell not in GAPS]
        if name:
            missing_texts[name].update(cell for cell in of_column if cell in GAPS)
        if known:
            with_values.add(name)
        if (style := style_of(known, decimal)) is not None:
            styles[name] = style
    # For columns of which these lines have all values; empty columns tell of themselves only.
    every = sum((texts for name, texts in missing_texts.items() if name in with_values), Counter())
    missing_texts = {name: most_common(counts or every) for name, counts in missing_texts.items()}
    is_header_quoted = bool(raw) and all(cell[:1] == '"' for cell in raw[0])
    is_gap_quoted = any(cell == '""' for row in raw for cell in row)
    return FileForm(
        sep,
        decimal,
        line_end,
        encoding,
        quoted,
        is_header_quoted,
        is_gap_quoted,
        styles=styles,
        missing_texts={name: text for name, text in missing_texts.items() if text},
    )


def most_common(counts):
    """Return the most common of some texts, or an empty one."""
    return max(counts, key=counts.__getitem__, default="")


def missing_texts_of(frame, formats, known):
    """Return how missing cells of columns with formats are written: as words, if most of them are.

    The table is read, but its formats are not; known is what is known of empty cells.
    """
    words = {}
    for name, format in formats.items():
        cells = frame[name].dropna()
        are_words = format.are_words(cells) & cells.map(is_word)  # but not "about 70"
        counts = Counter(cells[cells.isin(PLACEHOLDERS) | are_words])
        word = most_common(counts)
        if counts[word] > frame[name].isna().sum():
            words[name] = word
    return known | words


def _raw_cells(line, sep):
    """Return the cells of a line with their quotes."""
    pattern = rf'(?:^|(?<={re.escape(sep)}))("(?:[^"]|"")*"|[^{re.escape(sep)}]*)'
    return re.findall(pattern, line)


def style_of(cells, decimal):
    """Return how cells that pandas reads without a format are written, or None."""
    if cells and {cell.lower() for cell in cells} <= {"true", "false"}:
        true = next((cell for cell in cells if cell.lower() == "true"), None)
        false = next((cell for cell in cells if cell.lower() == "false"), None)
        if true is None:
            true = {"FALSE": "TRUE", "false": "true"}.get(false, "True")
        if false is None:
            false = {"TRUE": "FALSE", "true": "false"}.get(true, "False")
        return BooleanFormat(true, false)
    if offset := common_offset(cells):
        style = find_format([cell.removesuffix(offset) for cell in cells])
        if is_iso(style):
            return replace(style, pattern=style.pattern + offset)
    style = find_format(cells, decimal=decimal, is_plain=True)
    if isinstance(style, NumberFormat) and is_plain(style, decimal):
        return style if style.decimals <= MAX_DECIMALS else None
    return style if is_iso(style) else None


def common_offset(cells):
    """Return the offset from UTC in which all cells end, such as ``+01:00``, or None."""
    offsets = {match and match[0] for match in map(OFFSET.search, cells)}
    return offsets.pop() if len(offsets) == 1 else None


def is_plain(format, decimal):
    """Whether pandas reads the texts of a format of numbers."""
    plain = NumberFormat(decimal=format.decimal)
    names = ("positive", "negative", "zero", "one", "thousands")
    same = all(getattr(format, name) == getattr(plain, name) for name in names)
    return same and (format.decimal == decimal or not format.decimals)


def is_iso(format):
    """Whether the texts of a format are all dates in ISO 8601, which `with_dates` reads."""
    is_plain_date = isinstance(format, DateFormat) and not format.accepts_words
    return is_plain_date and format.pattern.startswith("%Y-")


class Hints(NamedTuple):
    """What the user says about the cells of a file.

    Attributes
    ----------
    thousands : str or None
        What separates thousands.
    dayfirst : bool or None
        Whether days stand before months.
    kinds : dict
        The kinds of columns, see `stated`.
    """

    thousands: str | None = None
    dayfirst: bool | None = None
    kinds: dict = {}

    @property
    def decimal(self):
        """The decimal mark that the mark of thousands leaves, or None."""
        return OTHER_MARK.get(self.thousands)

    @property
    def texts(self):
        """The columns that are texts, whatever they look like."""
        return [name for name, (kind, *_) in self.kinds.items() if kind == "categorical"]


def formats_in(frame, names, decimal, hints, path):
    """Return the formats of the columns of texts of a table, by name, and say what they are."""
    formats = {}
    for name in names:
        cells = frame[name].dropna()
        if not len(cells) or not cells.map(type).eq(str).all():
            continue
        known = cells[~cells.isin(PLACEHOLDERS)]
        # A column of numbers with placeholders has no other sign of its format.
        is_marked = 0 < 2 * (len(cells) - len(known)) < len(cells)
        format = find_format(
            known,
            decimal,
            hints.thousands,
            hints.dayfirst,
            is_marked,
            accepts_words=True,
            is_number=hints.kinds.get(name, ("",))[0] in NUMBERS,
        )
        if format is None or is_iso(format):
            continue
        formats[name] = format
        known = known[~format.are_words(known)]
        mark = getattr(format, "thousands", "")
        shown = next((c for c in known if (mark and mark in c) or np.isnan(number_of(c))), None)
        if shown is not None:
            _say_format(name, format, shown, hints, path)
        if len(known) < len(cells):
            others, n = sorted({*cells} - {*known}), len(cells) - len(known)
            text = f"column {name!r} of {path} has {listed(others, MAX_WORDS)} in {n} "
            text += f"row{'s' * (n > 1)}: read as missing"
            if not PLACEHOLDERS.issuperset(others):
                text += f"; to keep values, add --kind {name}=categorical"
            print(f"skflows: {text}", file=sys.stderr)
    return formats


def _say_format(name, format, shown, hints, path):
    """Say in one line how a column is read, with a warning if it may be read otherwise."""
    what = f"column {name!r} of {path} holds {format.what}, such as {shown!r}"
    other = None
    if isinstance(format, DateFormat):
        how = "dates"
        if format.is_ambiguous and hints.dayfirst is None:
            first = "month" if format.is_day_first else "day"
            other = f"the {first} may stand first too: add --{first}first if it does"
    elif isinstance(format, ClockFormat | DurationFormat):
        how = "seconds"
    else:
        how = "numbers"
        is_open = format.positive == "{}" and format.thousands == "." and not format.decimals
        if is_open and hints.thousands is None and re.fullmatch(r".?\d{1,3}\.\d{3}", shown):
            how = shown.replace(".", "")
            other = "since the decimal mark is a comma: write a comma if decimals are meant"
    if other is None:
        print(f"skflows: {what}: read as {how}", file=sys.stderr)
    else:
        warnings.warn(f"{what}, read as {how}; {other}", stacklevel=2)


def read_formats(frame, formats, path, start=0, missing_texts=None):
    """Read the columns of texts with formats, in place.

    With the missing texts of a fit, warn of other words that are read as missing values.
    """
    import pandas as pd

    for name, format in formats.items():
        if name not in frame or frame[name].dtype.kind in "iufbM":
            continue
        cells = frame[name].dropna().astype(str)
        cells = cells[~cells.isin(PLACEHOLDERS)]
        are_words = format.are_words(cells)
        if missing_texts is not None:
            _warn_of_new_words(cells, are_words, name, format, path, missing_texts.get(name))
        cells = cells[~are_words]
        values = format.parse([*cells])
        for i in np.flatnonzero(np.isnan(values)):
            values[i] = number_of(cells.iloc[i]) if format.role == "number" else np.nan
        if np.isnan(values).any():
            row = np.flatnonzero(np.isnan(values))[0]
            usual = cells[~np.isnan(values)].iloc[:1]
            example = "".join(f" such as {cell!r}" for cell in usual)
            raise ValueError(
                f"{path} holds {cells.iloc[row]!r} in column {name!r}, row "
                f"{start + cells.index[row] + 1}, which held {format.what}{example} in fit: "
                "write it so, or leave it empty"
            )
        if format.role == "datetime":
            column = dates_of(values, np.nan, cells.index)
        else:
            column = pd.Series(values, cells.index)
        frame[name] = column.reindex(frame.index)


def _warn_of_new_words(cells, are_words, name, format, path, known):
    """Warn of words that are read as missing values; refuse a column that has become texts."""
    words = sorted({*cells[are_words]} - {known})
    if len(words) > MAX_WORDS and 2 * are_words.sum() > len(cells):
        raise ValueError(
            f"{path} holds {listed(words, MAX_WORDS)} in column {name!r}, which held {format.what} "
            "in fit: write numbers, or leave the cells empty"
        )
    if words:
        warnings.warn(
            f"column {name!r} of {path} holds {listed(words, MAX_WORDS)} among {format.what}: read "
            "as missing",
            stacklevel=2,
        )


def dates_of(seconds, offset, index):
    """Return seconds since 1970 as dates, with an offset from UTC in seconds unless it is NaN."""
    import pandas as pd

    dates = pd.Series(datetimes_of(seconds), index)
    if np.isnan(offset):
        return dates
    return dates.dt.tz_localize("UTC").dt.tz_convert(timezone(timedelta(seconds=offset)))


def number_of(cell):
    """Return a plain number, or NaN."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


def kinds_in(frame, form, hints):
    """Return the kinds of columns of a table that formats and the user tell, None if none.

    Times of day are circular.
    """
    kinds = {}
    for name, format in form.formats.items():
        if name in frame and isinstance(format, ClockFormat) and format.is_time:
            known = frame[name].dropna().to_numpy(dtype=float)
            kinds[name] = decide(known if len(known) else np.zeros(1), "number", format)
    return {name: kind for name, kind in (kinds | hints.kinds).items() if name in frame} or None
