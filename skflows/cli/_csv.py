"""Reading and writing CSV files, with errors that say what to do."""

import csv
import io
import re
import sys
import warnings
from importlib import import_module

import numpy as np

from ..persistence.atomic import check_replaceable, replace_file

REMEDY = "choose numeric columns with --columns, or encode them"
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "lzma"}
SEPARATORS = ",;\t|"
N_SNIFFED, MAX_SNIFFED = 20, 2**16  # lines, and characters, that tell the separator
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]|$)")
MAX_NAMES = 6  # column names that a message lists before it says "and 12 more"


def import_pandas():
    """Return pandas, or raise an error that says how to install it."""
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "reading and writing CSV files needs pandas: pip install pandas"
        ) from None
    return pandas


def read_csv(path, sep=None, decimal=None, texts=()):
    """Read a CSV file with a line of column names, or a Parquet file.

    Errors say what is wrong.

    Parameters
    ----------
    path : Path
        The file, which may be compressed; ``-`` is standard input.
    sep, decimal : str, default=None
        What separates columns, and the decimal mark. None finds out.
    texts : sequence of str
        Columns that are texts, even if all of them could be numbers.
    """
    pandas = import_pandas()
    if path.suffix == ".parquet":
        try:
            return pandas.read_parquet(path)
        except Exception as error:  # of the parser, or of a library that is missing
            raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    try:
        text = decoded(read_bytes(path))
        sep = sep or likely_separator(text)
        decimal = decimal or likely_decimal(text, sep)
        as_text = dict.fromkeys(texts, str)
        frame = pandas.read_csv(io.StringIO(text), sep=sep, decimal=decimal, dtype=as_text)
    except (OSError, MemoryError) as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:  # of the parser, a decoder or a decompressor
        raise ValueError(f"{path} is not a CSV file: {one_line(error)}") from error
    names = [str(name) for name in frame.columns]
    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError(
            f"{path} is not a CSV file: its rows have more fields than column names. Columns are "
            f"taken to be separated by {sep!r}: is it another --sep?"
        )
    # DataFrame(array).to_csv() numbers the columns; other numbers are a row of data.
    if all(re.fullmatch(r"[-+.]?\d[-+.\deE]*", name) for name in names) and names != [
        str(i) for i in range(len(names))
    ]:
        raise ValueError(
            f"the first line of {path} holds numbers, not column names: add a line of names"
        )
    if frame.empty:
        raise ValueError(f"{path} has column names but no rows")
    return frame


def read_bytes(path):
    """Return the content of a file, decompressed."""
    content = standard_input().read() if is_standard(path) else path.read_bytes()
    for magic, module in COMPRESSIONS.items():
        if content.startswith(magic):
            return import_module(module).decompress(content)
    return content


def decoded(content):
    """Return text from bytes: UTF-8 or, with its mark, UTF-16; otherwise Windows-1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def likely_separator(text):
    """Return what separates the columns: what splits the first lines into equally many fields."""
    lines = text[:MAX_SNIFFED].splitlines()[:N_SNIFFED]
    widths = {}
    for sep in SEPARATORS:
        counts = [len(row) for row in csv.reader(lines, delimiter=sep) if row]
        if counts and counts[0] > 1 and len(set(counts)) == 1:
            widths[sep] = counts[0]
    return max(widths, key=widths.get, default=",")


def likely_decimal(text, sep):
    """Return the decimal mark: a comma if numbers in the first lines have one."""
    if sep == ",":
        return "."
    lines = text[:MAX_SNIFFED].splitlines()[1:N_SNIFFED]
    cells = [cell.strip() for row in csv.reader(lines, delimiter=sep) for cell in row]
    return "," if any(re.fullmatch(r"[-+]?\d*,\d+([eE][-+]?\d+)?", cell) for cell in cells) else "."


def feature_columns(frame):
    """Return all columns except the row numbers that ``DataFrame.to_csv`` writes by default."""
    names = list(frame.columns)
    if names[0] == "Unnamed: 0" and frame[names[0]].equals(frame.index.to_series()):
        warnings.warn("the first column has no name and holds row numbers: left out", stacklevel=2)
        return names[1:]
    return names


def select(frame, names, path):
    """Return the named columns, in that order; others are ignored."""
    # As `write_csv` writes them.
    frame = frame.rename(columns={without_formula(name): name for name in names})
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(f"{path} has no column {_quoted(missing)}; it has {_quoted(frame)}")
    return frame[list(names)]


def numbers(frame, path, remedy):
    """Return the table in float64, or raise an error if an entry is not a finite number."""
    pandas = import_pandas()
    numbers = frame.apply(pandas.to_numeric, errors="coerce").astype(np.float64)
    texts = frame.where(numbers.isna()).dropna(axis=1, how="all")
    if texts.columns.size:
        value = texts.iloc[:, 0].dropna().iloc[0]
        raise ValueError(
            f"{path} has columns that are not numbers: {_quoted(texts)} "
            f"({texts.columns[0]!r} holds {str(value)!r}); {remedy}"
        )
    for problem, found in {"missing": numbers.isna(), "infinite": np.isinf(numbers)}.items():
        if where := _counted(found):
            raise ValueError(
                f"{path} has {problem} values, {where}: fill them in, or drop those rows or columns"
            )
    return numbers


def chosen_columns(frame, path, columns=None, exclude=()):
    """Return the named columns of a table, or all of them, without excluded ones."""
    names = feature_columns(frame) if columns is None else columns
    select(frame, exclude, path)
    frame = select(frame, [name for name in names if name not in exclude], path)
    empty = [name for name in frame if frame[name].isna().all()]
    if empty and columns is None:
        warnings.warn(
            f"columns of {path} without a value are left out: {_quoted(empty)}", stacklevel=2
        )
        frame = frame.drop(columns=empty)
    if not frame.columns.size:
        raise ValueError(f"no column of {path} is left")
    return frame


def needs_table(frame):
    """Return whether a table has texts, dates or gaps, which densities of numbers do not take.

    Entries that are no numbers in a column of numbers are mistakes rather than texts.
    """
    numeric = frame.apply(import_pandas().to_numeric, errors="coerce").notna().sum()
    return bool(frame.isna().any(axis=None) or (numeric <= frame.notna().sum() / 2).any())


def with_dates(frame):
    """Return a table in which texts are dates if all of a column are, in ISO 8601.

    Whole numbers with gaps, which CSV files are read to float64 for, are integers again.
    """
    pandas = import_pandas()
    frame = frame.copy()
    for name in frame.select_dtypes("float"):
        if (frame[name] % 1 == 0).sum() == frame[name].notna().sum():
            frame[name] = frame[name].astype("Int64")
    for name in frame.select_dtypes(exclude=["number", "bool"]):
        texts = frame[name].dropna()
        if len(texts) and all(isinstance(t, str) and ISO_DATE.match(t) for t in texts):
            dates = pandas.to_datetime(frame[name], errors="coerce", format="ISO8601")
            if dates.notna().sum() == len(texts):
                frame[name] = dates
    return frame


def complete_numbers(frame, path, columns=None, exclude=(), remedy=REMEDY):
    """Return the named columns of a table, or the numeric ones, in the rows without missing values.

    It warns of what is left out. If most entries of a column are numbers, the others are mistakes
    rather than texts, and an error.
    """
    frame = chosen_columns(frame, path, columns, exclude)
    if columns is None:
        are_numbers = frame.apply(import_pandas().to_numeric, errors="coerce").notna().sum()
        texts = frame.columns[are_numbers <= frame.notna().sum() / 2]
        if len(texts) == frame.columns.size:
            raise ValueError(f"{path} has no column of numbers: encode the texts as numbers")
        if len(texts):
            warnings.warn(
                f"columns of {path} that are not numbers are left out: {_quoted(texts)}",
                stacklevel=2,
            )
        frame = frame.drop(columns=texts)
    complete = frame.notna().all(axis=1)
    if not complete.all():
        left_out = f"of {len(frame)} rows of {path} have missing values ({_counted(frame.isna())})"
        if not complete.any():
            raise ValueError(f"all {left_out}: fill them in, or leave out columns")
        warnings.warn(f"{(~complete).sum()} {left_out}: left out", stacklevel=2)
    return numbers(frame[complete], path, remedy)


def write_csv(columns, path):
    """Write a dict of columns, or a table, to a file, or print it if ``path`` is None or ``-``.

    A file that ends with ``.parquet`` is written as Parquet.
    """
    frame = import_pandas().DataFrame(columns)
    if path is not None and path.suffix == ".parquet":
        with replace_file(path, "wb") as file:
            frame.to_parquet(file, index=False)
        return
    frame.columns = [without_formula(name) for name in frame]
    for name in frame.select_dtypes(exclude="number"):
        frame[name] = frame[name].map(without_formula)
    if path is None or is_standard(path):
        frame.to_csv(sys.stdout, index=False)
        return
    with replace_file(path, "w", encoding="utf-8", newline="") as file:
        frame.to_csv(file, index=False)


def without_formula(cell):
    """Return a cell that no spreadsheet runs as a formula: with ``'`` in front of what may be one.

    See OWASP, "CSV Injection". Numbers stay as they are.
    """
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def is_standard(path):
    """Return whether a path stands for standard input or output."""
    return str(path) == "-"


def standard_input():
    """Return the bytes that come in, or raise an error if nothing can."""
    if sys.stdin is None:
        raise ValueError("- is standard input, which is closed")
    return sys.stdin.buffer


def say(text, output=None):
    """Print what a command has done: to standard error if its result goes to standard output."""
    print(text, file=sys.stderr if output is not None and is_standard(output) else sys.stdout)


def check_writable(path, *inputs):
    """Raise an error, before the work starts, if its result could not be stored."""
    if path is None or is_standard(path):
        return
    if path.exists() and any(other.exists() and path.samefile(other) for other in inputs):
        raise ValueError(f"{path} is an input: choose another output")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: Is a directory")
    check_replaceable(path)


def _counted(found):
    """Return how many entries of which columns are true, as text."""
    counts = found.sum().loc[lambda count: count > 0]
    return _listed([f"{count} in {str(name)!r}" for name, count in counts.items()])


def _listed(texts):
    more = len(texts) - MAX_NAMES
    return ", ".join(texts[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _quoted(names):
    return _listed([repr(str(name)) for name in names])


def one_line(error):
    """Return the message of an error without line breaks."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
