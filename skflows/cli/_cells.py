"""What the cells of a CSV file mean: numbers, texts or missing values, where it is not certain."""

import re
import warnings
from collections import Counter

from ..columns.arrays import reads_as_number
from ..columns.dates import ISO_DATE

GAPS = (  # texts that are missing values, as in pandas
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
NAMIBIA = "NA"  # a missing value, except among two-letter codes
LEAST_CODES = 2  # different ones, beside it
WORDS = frozenset({NAMIBIA, "N/A", "n/a", "NULL", "null", "None"})  # gaps that may be values too
BOOLEANS = {"True", "TRUE", "true", "False", "FALSE", "false"}  # as pandas has them
GROUPED = re.compile(r"\s*[-+]?([1-9]\d{0,2}(\.\d{3})+|\d+)(,\d+)?\s*")  # with a decimal comma
# Amounts and per cents with decimals, by their mark and the other one.
AMOUNT = r"[€$£]\s?-?\d[\d{other}]*[{mark}]\d\d?|-?\d[\d{other}]*[{mark}]\d\d?\s?[€$£%]"
MAX_COUNTS = 5  # that a warning lists
CODE, PADDED = re.compile("[A-Z]{2}"), re.compile(r"\s*[-+]?0\d+\s*")
# A file without such bytes has no words and no leading zeros: nothing is looked for.
UNCERTAIN = re.compile(
    rb"""(?:^|[,;\t|"'\s])(?:NA|N/A|n/a|NULL|null|None|[-+]?0\d+)(?:[,;\t|"'\s]|$)"""
)
OVERLAP = 64  # bytes of a block with which the next one is searched


def texts_and_codes(rows, columns, decimal):
    """Return the columns that hold texts although they look like numbers or missing values.

    Parameters
    ----------
    rows : iterable of list of str
        The cells.
    columns : dict of int to str
        The places and names of the columns to look at.
    decimal : str
        The decimal mark.

    Returns
    -------
    texts : set of str
        Columns with whole numbers that have leading zeros.
    codes : set of str
        Columns of two-letter codes, one of which is NA, mostly without a further NA in its row.
    others : set of str
        Further columns of texts, among which a gap may be a word.
    """
    padded, n_na, n_together, others = {}, Counter(), Counter(), set()
    numeric, codes = {*columns}, {i: set() for i in columns}
    for row in rows:
        if NAMIBIA in row:
            places = [i for i in columns if i < len(row) and row[i] == NAMIBIA]
            n_na.update(places)
            n_together.update(places if len(places) > 1 else ())
        for i in columns:
            cell = row[i] if i < len(row) else ""
            if cell in GAPS:
                continue
            if i in codes:
                if CODE.fullmatch(cell):
                    codes[i].add(cell)
                else:
                    del codes[i]
            if i not in padded and PADDED.fullmatch(cell):
                padded[i] = cell.strip()
            if i in numeric and not reads_as_number(cell.replace(decimal, ".")):
                numeric.discard(i)
                if cell not in BOOLEANS and not ISO_DATE.match(cell):
                    others.add(i)
    for i in sorted(padded.keys() & numeric):
        warnings.warn(
            f"column {columns[i]!r} is read as texts, since numbers such as {padded[i]!r} have "
            "leading zeros: remove these if it holds quantities",
            stacklevel=2,
        )
    # Where other cells of most of the rows are NA too, it is how the file writes missing values.
    codes = [
        i
        for i in sorted(n_na.keys() & codes.keys())
        if len(codes[i]) >= LEAST_CODES and 2 * n_together[i] <= n_na[i]
    ]
    for i in codes:
        warnings.warn(
            f"column {columns[i]!r} holds codes of two letters, and {NAMIBIA!r} is read as "
            "one of them: leave cells empty where a value is missing",
            stacklevel=2,
        )
    return tuple({columns[i] for i in some} for some in (padded, codes, others))


def warn_of_words(rows, columns, codes, known):
    """Warn of words, such as NA, that are read as missing values in columns of texts.

    Parameters
    ----------
    rows : iterable of list of str
        The cells.
    columns : dict of int to str
        The places and names of the columns.
    codes : set of str
        Columns in which NA is a value.
    known : dict of str to str
        Words of columns of which there is no need to warn.
    """
    counts, n_rows = Counter(), 0
    for row in rows:
        n_rows += bool(row)  # of an empty line there is no row
        for i in columns:
            if i < len(row) and row[i] in WORDS:
                counts[i, row[i]] += 1
    texts = [
        f"{word!r} in {count} of {n_rows} rows of {columns[i]!r}"
        for (i, word), count in sorted(counts.items())
        if not (word == NAMIBIA and columns[i] in codes) and known.get(columns[i]) != word
    ]
    if texts:
        more = len(texts) - MAX_COUNTS
        warnings.warn(
            f"{', '.join(texts[:MAX_COUNTS])}{f' and {more} more' if more > 0 else ''}: read as "
            "missing; if it is a value, write another word, such as 'none'",
            stacklevel=2,
        )


def likely_decimal(rows, sep, has_format=()):
    """Return the decimal mark of rows, the first of which has the names: a comma if numbers do.

    It warns about numbers in which the mark may also separate thousands, except in columns of which
    the fit knows the format.
    """
    if sep == ",":
        return "."
    names, *rows = rows or [[]]
    cells = [(i, cell.strip()) for row in rows for i, cell in enumerate(row)]
    numbers = {
        mark: [(i, c) for i, c in cells if re.fullmatch(rf"[-+]?\d*[{mark}]\d+([eE][-+]?\d+)?", c)]
        for mark in ",."
    }
    has_both = any(re.fullmatch(r"[-+]?\d{1,3}(\.\d{3})+,\d+", cell) for _, cell in cells)
    has_amounts, has_points = (
        any(re.fullmatch(AMOUNT.format(mark=mark, other=other), cell) for _, cell in cells)
        for mark, other in (",.", ".,")
    )
    is_comma = numbers[","] or has_both or (has_amounts and not has_points and not numbers["."])
    decimal = "," if is_comma else "."
    # In files of tabs, numbers with points and three decimals are common.
    marked = numbers[decimal] if decimal == "," or sep == ";" else []
    marked = [(i, cell) for i, cell in marked if i >= len(names) or names[i] not in has_format]
    if marked and all(re.fullmatch(r"[-+]?[1-9]\d{0,2}[,.]\d{3}", cell) for _, cell in marked):
        i, cell = marked[0]
        warnings.warn(
            f"column {names[i] if i < len(names) else i!r} has the number {cell}, read as "
            f"{cell.replace(decimal, '.')}: if {decimal!r} separates thousands, leave it out of "
            f"numbers, or give --thousands {decimal} to fit or outliers",
            stacklevel=2,
        )
    return decimal
