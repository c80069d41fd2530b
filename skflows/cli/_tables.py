"""Reading and writing tables in batches of rows: CSV and Parquet files, and folders of them."""

import codecs
import csv
import io
import re
import shutil
import sys
import tempfile
import warnings
import weakref
from abc import ABC, abstractmethod
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path

from ..columns.arrays import check_different
from ..columns.dates import MICROSECONDS
from ..columns.optional import optional
from ..persistence.atomic import check_replaceable, naming, replace_file
from ._cells import (
    GAPS,
    GROUPED,
    NAMIBIA,
    OVERLAP,
    UNCERTAIN,
    likely_decimal,
    texts_and_codes,
    warn_of_words,
)
from ._forms import FileForm, Hints, form_of_file, formats_in, missing_texts_of, read_formats

BATCH_ROWS, BATCH_VALUES = 2**17, 2**22  # at most, of a batch
BLOCK = 2**20  # bytes that are decoded at once
PARQUET = (".parquet", ".pq")
PARTS = "part.*.parquet"  # an output of this name is a folder of such files, one of each batch
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "lzma"}
SEPARATORS = ",;\t|"
# What begins a formula for some spreadsheet: signs, also of full width, and white space.
FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
N_TITLES, LEAST_BELOW = 20, 3  # lines in front of the names of columns at most, below at least
N_SNIFFED, MAX_SNIFFED = 20, 2**16  # lines, and characters, that tell the separator
# Memory of a fit: rows, prepared rows, the batches of an epoch, their weights and their order.
BYTES_PER_VALUE, BYTES_PER_ROW = 40, 64


def import_pandas():
    """Return pandas, or raise an error that says how to install it."""
    return optional("pandas", "reading and writing CSV files needs pandas", "pandas")


def import_parquet():
    """Return ``pyarrow.parquet``, or raise an error that says how to install it."""
    needed = "reading and writing Parquet files needs pyarrow"
    return optional("pyarrow.parquet", needed, "pyarrow")


def open_table(
    path,
    sep=None,
    decimal=None,
    texts=None,
    codes=(),
    used=None,
    kept=(),
    form=None,
    hints=Hints(),  # noqa: B008 (it cannot be changed)
):
    """Return a table, of which `batches` reads some rows at once. Errors say what is wrong.

    Parameters
    ----------
    path : Path
        A CSV file with a line of column names, which may be compressed, a Parquet file, or a folder
        of such files, which are read in the natural order of their names (``part.2`` before
        ``part.10``, as Dask writes them); ``-`` is standard input.
    sep, decimal : str, default=None
        What separates columns, and the decimal mark. None finds out.
    texts : sequence of str, default=None
        Columns that are texts, even if all of them could be numbers. None finds these and the
        columns of codes by their cells, see `texts_and_codes`.
    codes : sequence of str
        Columns in which ``NA`` is a value.
    used : sequence of str, optional
        Columns whose values are used, by default all but `kept`. Other columns of a CSV file are
        texts, which are written as they are read: ``NA`` stays.
    kept : sequence of str
        Columns that are not used, if `used` is not given.
    form : FileForm, optional
        The form of the file of a fit, whose formats columns of texts have. Without it, they are
        found when the whole table is read.
    hints : Hints
        What the user says about cells.
    """
    import_pandas()
    files = [path]
    if path.is_dir():
        visible = (file for file in path.rglob("*") if file.is_file() and file.name[0] not in "._")
        files = sorted(visible, key=natural_order)
        for file in files:
            if "=" in str(file.parent.relative_to(path)):
                raise ValueError(
                    f"{path} has Hive partitions, such as {file.parent.name!r}, whose column is in "
                    "the names of folders only: write it into the files"
                )
    are_parquet = [file.suffix in PARQUET for file in files]
    if not files or any(are_parquet) != all(are_parquet):
        raise ValueError(f"{path} must have CSV files or Parquet files, and no others")
    if are_parquet[0]:
        return ParquetTable(path, files)
    return CsvTable(path, files, sep, decimal, texts, codes, used, kept, form, hints)


def natural_order(path):
    """Return the key by which paths are sorted, their numbers by value."""
    return [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", str(path))]


def read_table(*args, **kwargs):
    """Return a whole table, as `open_table` finds it."""
    return open_table(*args, **kwargs).read()


@contextmanager
def reading(path, kind):
    """Raise an error of a parser, a decoder or a decompressor as one that names the file."""
    try:
        yield
    except ImportError:
        raise
    except (OSError, MemoryError) as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:
        raise ValueError(f"{path} is not a {kind} file: {one_line(error)}") from error


def fit_bytes(n_columns):
    """Return about how many bytes of memory a fit takes for each row."""
    return BYTES_PER_VALUE * n_columns + BYTES_PER_ROW


class FileTable(ABC):
    """A table in files.

    Attributes
    ----------
    n_rows, n_columns : int
        Its size, approximate for CSV files.
    fraction : float
        How much of it has been read.
    header : list of str
        The names of the columns as they are written.
    form : FileForm
        The form of a CSV file, by default the usual one.
    """

    form = FileForm()
    has_cells = False  # of texts, which `raw_batches` reads

    @property
    def n_bytes(self):
        """About how many bytes of memory a fit to the whole table takes."""
        return self.n_rows * fit_bytes(self.n_columns)

    @property
    def batch_rows(self):
        """Largest number of rows of a batch, fewer of a wide table."""
        return max(1, min(BATCH_ROWS, BATCH_VALUES // self.n_columns))

    @abstractmethod
    def batches(self, n_rows, columns=None):
        """Yield tables of consecutive rows.

        Parameters
        ----------
        n_rows : int or None
            Largest number of rows of each; None for no matter how many.
        columns : sequence of str, optional
            Columns that are needed; others may be left out.
        """

    def exceeds(self, limit):
        """Return whether a fit to all rows takes more bytes than a limit, if there is one."""
        return limit is not None and self.n_bytes > limit

    def read(self):
        """Return the whole table."""
        frames = list(self.batches(None))
        return frames[0] if len(frames) == 1 else import_pandas().concat(frames)


class ParquetTable(FileTable):
    """A table in Parquet files."""

    def __init__(self, path, files):
        self.path, self.files = path, files
        self.fraction = 0.0
        headers = [self._open(file) for file in files]
        self.names = self.header = headers[0].schema_arrow.names
        check_different(filter(None, self.names), path)
        self.n_columns = len(self.names)
        self.n_rows = sum(header.metadata.num_rows for header in headers)
        for header, file in zip(headers, files, strict=True):
            if header.schema_arrow.names != self.names:
                raise ValueError(f"{file} has other columns than {files[0]}")
        if not self.n_rows:
            raise ValueError(f"{path} has column names but no rows")

    def batches(self, n_rows, columns=None):
        if columns is not None and not set(columns) <= set(self.names):
            columns = None
        start = 0
        for file in self.files:
            with reading(file, "Parquet"):
                batches = self._open(file).iter_batches(n_rows or self.batch_rows, columns=columns)
                for batch in batches:
                    frame = batch.to_pandas()
                    # An index with a name is a column, for example of identifiers.
                    frame = frame.reset_index([n for n in frame.index.names if n in self.names])
                    frame.index = import_pandas().RangeIndex(start, start + len(frame))
                    start += len(frame)
                    self.fraction = start / self.n_rows
                    yield frame

    def _open(self, file):
        with reading(file, "Parquet"):
            # With pre_buffer, data that was read stays in memory.
            return import_parquet().ParquetFile(file, pre_buffer=False, buffer_size=BLOCK)


class CsvTable(FileTable):
    """A table in CSV files."""

    has_cells = True

    def __init__(self, path, files, sep, decimal, texts, codes, used, kept, form, hints):
        self.path = path
        self.fraction = 0.0
        self.files = []
        for file in files:
            with reading(file, "CSV"):
                self.files.append(CsvFile(file))
        first = self.files[0]
        if sep is not None:
            check_separator(first.head, sep, path)
        self.sep = sep or likely_separator(first.head)
        for file in self.files:
            file.skip_titles(self.sep)
        rows = list(csv.reader(first.first_lines(), delimiter=self.sep))
        decimal = decimal or hints.decimal
        has_format = form.formats if form is not None else ()
        self.decimal = decimal or likely_decimal(rows, self.sep, has_format)
        self.size = sum(file.n_bytes for file in self.files)
        self.n_rows = sum(file.n_lines - 1 for file in self.files)
        self.n_columns = max(1, len(next(self._rows(first), [])))
        self.kept, self.used = as_written(kept), None if used is None else as_written(used)
        # Most files need no search of their cells, which takes long.
        is_searched = self.sep not in SEPARATORS or any(file.is_uncertain for file in self.files)
        others = ()
        if texts is None:
            texts = ()
            if is_searched:
                rows, places = self._all_rows(), self._places()
                texts, codes, others = texts_and_codes(rows, places, self.decimal)
        self.texts, self.codes = as_written([*texts, *hints.texts]), as_written(codes)
        head = "".join(first.first_lines())
        self.form = form_of_file(head, self.sep, self.decimal, first.written_encoding)
        self.has_formats, self.hints, self.given_decimal = form is not None, hints, decimal
        texts = {
            name: text for name, text in self.form.missing_texts.items() if name not in self.codes
        }
        self.form = self.form._replace(missing_texts=texts)
        if form is not None:
            self.form = self.form.with_formats_of(form)
        if is_searched and (places := self._places({*self.texts, *others})):
            known = {} if form is None else form.missing_texts  # the fit has said so
            warn_of_words(self._all_rows(), places, self.codes, known)
        self.names = None

    def read(self):
        frame = super().read()
        if not self.has_formats:
            unused = self.texts | self._kept_of({*frame})
            names = [name for name in frame.select_dtypes(["object", "str"]) if name not in unused]
            # In a file separated by commas, the decimal mark of a column may be another.
            decimal = self.given_decimal or (self.decimal if self.sep != "," else None)
            formats = formats_in(frame, names, decimal, self.hints, self.path)
            texts = missing_texts_of(frame, formats, self.form.missing_texts)
            self.form = self.form._replace(formats=formats, missing_texts=texts)
            read_formats(frame, formats, self.path)
            if self.decimal == ",":
                self._read_thousands(frame)
        restore_integers(frame)
        return frame

    def raw_batches(self, n_rows):
        """Yield the rows of `batches` as they are written: tables of texts."""
        pandas = import_pandas()
        names, start = [name or f"Unnamed: {i}" for i, name in enumerate(self.header)], 0
        for file in self.files:
            rows = filter(is_row, islice(self._rows(file), 1, None))
            while some := list(islice(rows, n_rows)):
                cells = [[*row, *[""] * (len(names) - len(row))] for row in some]
                index = pandas.RangeIndex(start, start + len(cells))
                start += len(cells)
                yield pandas.DataFrame(cells, columns=names, dtype=object, index=index)

    @property
    def header(self):
        """The names of the columns as they are written."""
        return next(self._rows(self.files[0]), [])

    def batches(self, n_rows, columns=None):
        pandas = import_pandas()
        start, n_bytes = 0, 0
        for file in self.files:
            for frame in self._frames(file, n_rows):
                self._check(frame, file)
                if self.has_formats or n_rows is not None:
                    known = self.form.missing_texts if self.has_formats else None
                    read_formats(frame, self.form.formats_after_fit(), self.path, start, known)
                    if self.decimal == ",":
                        self._read_thousands(frame)
                frame.index = pandas.RangeIndex(start, start + len(frame))
                start += len(frame)
                read = n_bytes + file.n_bytes * file.fraction_read()
                self.fraction = read / max(1, self.size)
                if len(frame):
                    yield frame
            n_bytes += file.n_bytes
        if not start:
            raise ValueError(f"{self.path} has column names but no rows")

    def _places(self, among=None):
        """Return the places and names of the columns that are used, or of some of them."""
        names = next(self._rows(self.files[0]), [])
        kept = self._kept_of({*names})
        return {
            i: name
            for i, name in enumerate(names)
            if name not in kept and (among is None or name in among)
        }

    def _all_rows(self):
        """Yield the cells of each line of all files, without the names of columns."""
        for file in self.files:
            yield from islice(self._rows(file), 1, None)

    def _rows(self, file):
        """Yield the cells of each line."""
        csv.field_size_limit(2**31 - 1)  # pandas has no such limit
        with reading(file.path, "CSV"), file.open() as text:
            yield from csv.reader(text, delimiter=self.sep)

    def _kept_of(self, names):
        """Return which of the columns are not used."""
        return self.kept & names if self.used is None else names - self.used

    def _frames(self, file, n_rows):
        read_csv = import_pandas().read_csv
        with reading(file.path, "CSV"):
            header = next(self._rows(file), [])  # as pandas names what has no name
            names = {name or f"Unnamed: {i}" for i, name in enumerate(header)}
            kept = self._kept_of(names)
            others = tuple(gap for gap in GAPS if gap != NAMIBIA)
            no_gaps = dict.fromkeys(self.codes & names, others) | dict.fromkeys(kept, ("",))
            as_texts = self.texts | kept | (self.form.formats.keys() & names)
            settings = {
                "sep": self.sep,
                "decimal": self.decimal,
                "dtype": dict.fromkeys(as_texts, str),
                # One list for all columns takes much less time than one for each.
                "na_values": {name: no_gaps.get(name, GAPS) for name in names}
                if no_gaps
                else [*GAPS],
                "keep_default_na": False,
            }
            with file.open(is_tracked=True) as text:
                result = read_csv(text, **settings, chunksize=n_rows)
                yield from [result] if n_rows is None else result

    def _read_thousands(self, frame):
        """Make texts with dots between thousands numbers, which pandas does not."""
        for name in frame.select_dtypes(exclude=["number", "bool"]):
            if name not in self.texts and name not in self._kept_of({name}):
                is_sure = self.hints.thousands is not None
                frame[name] = without_thousands(frame[name], name, is_sure)

    def _check(self, frame, file):
        """Raise an error if rows were probably misread."""
        names = [str(name) for name in frame.columns]
        if not isinstance(frame.index, import_pandas().RangeIndex):
            raise ValueError(
                f"{file.path} is not a CSV file: its rows have more fields than column names. "
                f"Columns are taken to be separated by {self.sep!r}: is it another --sep?"
            )
        # DataFrame(array).to_csv() numbers the columns; other numbers are a row of data.
        if all(re.fullmatch(r"[-+.]?\d[-+.\deE]*", name) for name in names) and names != [
            str(i) for i in range(len(names))
        ]:
            raise ValueError(
                f"the first line of {file.path} holds numbers, not column names: add a line of "
                "names"
            )
        # pandas has renamed the second column of a name. The last line may be incomplete.
        lines = csv.reader(file.first_lines()[:-1], delimiter=self.sep)
        check_different(filter(None, next(lines, [])), file.path)
        if self.names is None:
            self.names = names
        elif names != self.names:
            raise ValueError(f"{file.path} has other columns than {self.files[0].path}")


def is_row(cells):
    """Return whether a line is a row: pandas skips lines of blanks."""
    return bool(cells) and not (len(cells) == 1 and cells[0] and not cells[0].strip())


def restore_integers(frame, names=slice(None)):
    """Make whole numbers with missing values, which pandas reads as floats, integers again.

    In a batch, only columns that are known to be integers are given: its rows may not show it.
    """
    floats = frame.loc[:, names].select_dtypes("float")
    for name in floats.columns[floats.isna().any()]:
        known = frame[name].dropna()
        if len(known) and (known % 1 == 0).all() and known.abs().max() < 2**53:
            frame[name] = frame[name].astype("Int64")


def without_thousands(column, name, is_sure=False):
    """Return texts as numbers if all are such with decimal commas and with dots of thousands.

    It warns of dots that may as well be decimal marks, unless the user is sure.
    """
    cells = column.dropna()
    are_texts = cells.map(type).eq(str)
    if not len(cells) or not are_texts.all() or not cells.str.fullmatch(GROUPED).all():
        return column
    if not is_sure and not cells.str.contains(r"[.]\d{3}[.,]").any():
        cell = cells[cells.str.contains(".", regex=False)].iloc[0]
        warnings.warn(
            f"column {name!r} has the number {cell}, read as {cell.replace('.', '')}, since the "
            "decimal mark is a comma: write a comma if decimals are meant",
            stacklevel=2,
        )
    plain = cells.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    return import_pandas().to_numeric(plain).reindex(column.index)


class CsvFile:
    """A text file: its encoding, its size when decompressed, its lines, and the first ones.

    Standard input is copied to a temporary folder.
    """

    def __init__(self, path):
        self.path = self.source = path
        self.n_titles = 0  # lines in front of the names of columns
        if is_standard(path):
            folder = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, folder)
            self.source = Path(folder, "copy")
            with open(self.source, "wb") as copy:
                shutil.copyfileobj(standard_input(), copy)
        with self._bytes() as content:
            start = content.read(BLOCK)
            # UTF-16 has a mark; anything else that is not UTF-8 is read as Windows-1252.
            is_utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
            self.encoding = "utf-16" if is_utf16 else "utf-8-sig"
            self.has_mark = start.startswith(codecs.BOM_UTF8)
            decoder = codecs.getincrementaldecoder(self.encoding)()
            self.is_uncertain = is_utf16  # whether it may have cells for `texts_and_codes`
            self.n_bytes, self.n_lines, block, end = 0, 0, start, b""
            while block:
                self.n_bytes += len(block)
                self.n_lines += max(block.count(b"\n"), block.count(b"\r"))
                self.is_uncertain = self.is_uncertain or bool(UNCERTAIN.search(end + block))
                end = block[-OVERLAP:]
                following = content.read(BLOCK)
                if self.encoding == "utf-8-sig":
                    try:
                        decoder.decode(block, final=not following)
                    except UnicodeDecodeError:
                        self.encoding = "cp1252"
                block = following
        self.head = start.decode(self.encoding, errors="replace")[:MAX_SNIFFED]

    @property
    def written_encoding(self):
        """The encoding of outputs that have the form of this file."""
        is_plain = self.encoding == "utf-8-sig" and not self.has_mark
        return "utf-8" if is_plain else self.encoding

    def first_lines(self):
        """Return the first lines; none that may be incomplete, unless it is the only one."""
        lines = list(io.StringIO(self.head, newline=""))[self.n_titles :]
        return lines[:-1] if len(self.head) == MAX_SNIFFED and len(lines) > 1 else lines

    @contextmanager
    def open(self, is_tracked=False):
        """Open the text; `fraction_read` is of what was opened last to be tracked."""
        with self._bytes(is_tracked) as content:
            with io.TextIOWrapper(content, self.encoding, newline="") as text:
                for _ in range(self.n_titles):
                    text.readline()
                yield text

    def skip_titles(self, sep):
        """Skip lines in front of the names of columns, such as the title of a report."""
        self.n_titles = n_titles(self.first_lines(), sep)
        if self.n_titles:
            title = self.head.lstrip().splitlines()[0].strip(sep)
            lines = "line" if self.n_titles == 1 else f"{self.n_titles} lines"
            warnings.warn(
                f"the first {lines} of {self.path}, {title!r}, "
                f"{'is' if self.n_titles == 1 else 'are'} no part of the table: left out",
                stacklevel=2,
            )

    def fraction_read(self):
        """Return how much of the file has been read."""
        return min(1.0, self.raw.tell() / max(1, self.size))

    @contextmanager
    def _bytes(self, is_tracked=False):
        """Open the content, decompressed."""
        with open(self.source, "rb") as raw:
            size = raw.seek(0, io.SEEK_END)
            raw.seek(0)
            if is_tracked:
                self.raw, self.size = raw, size
            magic = raw.read(max(map(len, COMPRESSIONS)))
            raw.seek(0)
            for prefix, module in COMPRESSIONS.items():
                if magic.startswith(prefix):
                    with import_module(module).open(raw) as content:
                        yield content
                    return
            yield raw


def n_titles(lines, sep):
    """Return the number of lines in front of the names of columns.

    Titles fill at most half of the columns. The names are texts, one for each column, except for
    columns without a name at the end, and the lines below have as many cells.
    """
    reader = csv.reader(lines[: N_TITLES + N_SNIFFED], delimiter=sep)
    rows, ends = [], [0]
    try:
        for row in reader:
            rows.append(row)
            ends.append(reader.line_num)
    except csv.Error:
        return 0
    for k, row in enumerate(rows[: N_TITLES + 1]):
        filled = [cell.strip() for cell in row if cell.strip()]
        are_names = len(filled) > 1 and filled == [cell.strip() for cell in row[: len(filled)]]
        below = [len(each) for each in rows[k + 1 :] if each]
        if not are_names or len(below) < LEAST_BELOW or set(below) != {len(row)}:
            continue
        is_text = not any(re.fullmatch(r"[-+]?[\d.,]+", cell) for cell in filled)
        titles = [sum(map(bool, map(str.strip, each))) for each in rows[:k]]
        if k and (not is_text or max(titles) > len(filled) / 2):
            return 0
        return ends[k]
    return 0


def likely_separator(text):
    """Return the separator that splits the first lines into equally many fields."""
    widths = {}
    for sep in SEPARATORS:
        counts = field_counts(text, sep, n_titles(sniffed_lines(text), sep))
        if are_columns(counts):
            widths[sep] = counts[0]
    return max(widths, key=widths.get, default=",")


def check_separator(text, sep, path):
    """Raise an error if only another separator splits the first lines evenly, into more fields."""
    counts, likely = field_counts(text, sep), likely_separator(text)
    others = field_counts(text, likely)
    if are_columns(others) and not are_columns(counts) and others[0] > max(counts):
        raise ValueError(
            f"{path} looks separated by {likely!r}, not by {sep!r}: leave --sep out, which finds it"
        )


def sniffed_lines(text):
    """Return the first lines."""
    return text[:MAX_SNIFFED].splitlines()[:N_SNIFFED]


def field_counts(text, sep, start=0):
    """Return the number of fields of each of the first lines, from one of them on."""
    return [len(row) for row in csv.reader(sniffed_lines(text)[start:], delimiter=sep) if row]


def are_columns(counts):
    """Return whether these numbers of fields are equal and more than one."""
    return len(set(counts)) == 1 and counts[0] > 1


@contextmanager
def writing(path, form=FileForm()):  # noqa: B008 (it cannot be changed)
    """Yield a function that appends rows to a CSV file, or to a Parquet file by its suffix.

    Without a path, or if it is ``-``, they are printed, to a terminal with six digits. A file is
    replaced as a whole at the end, and so is an empty folder. CSV has a form.
    """
    if path is None or is_standard(path):
        yield CsvAppender(sys.stdout, form, is_read=sys.stdout.isatty())
    elif path.name == PARTS:
        with new_folder(path.parent) as folder:
            yield PartsAppender(folder)
    elif path.suffix in PARQUET:
        with replace_file(path) as file, ParquetAppender(file) as append:
            yield append
    else:
        with replace_file(path, "w", encoding=form.encoding, newline="") as file:
            yield CsvAppender(file, form)


@contextmanager
def new_folder(path):
    """Yield a folder that takes the place of an empty one, or of none, at the end."""
    target = path.resolve()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
        folder = Path(temporary, "parts")
        folder.mkdir()  # which others may read, unlike a temporary one
        yield folder
        with naming(path):
            if target.exists():
                target.rmdir()
            folder.rename(target)


def is_csv(path):
    """Return whether a table that is written, to a path or printed, is CSV."""
    return path is None or (path.name != PARTS and path.suffix not in PARQUET)


def write_table(columns, path, form=FileForm()):  # noqa: B008 (it cannot be changed)
    """Write a dict of columns, or a table, as `writing` does."""
    with writing(path, form) as append:
        append(import_pandas().DataFrame(columns))


class CsvAppender:
    """Appends rows to an open text file, with the names of the columns in front.

    Numbers that a person reads, on a terminal, have few digits; in files they are exact, unless
    their column has a format.

    Parameters
    ----------
    file : text file
        The file.
    form : FileForm
        How it is written.
    is_read : bool
        Whether a person reads it.
    """

    def __init__(self, file, form=FileForm(), is_read=False):  # noqa: B008 (it cannot be changed)
        self.file, self.form, self.is_read, self.is_begun = file, form, is_read, False
        self.is_special = re.compile(rf'[{re.escape(form.sep)}"\r\n]')

    def __call__(self, frame, header=None):
        """Append rows; the header has the names of the columns as they are written."""
        frame = frame.copy(deep=False)
        restore_integers(frame)
        columns = []
        for name in frame:
            cells = self.cells(frame[name], name)
            columns.append(self._quoted(cells, name in self.form.quoted, self.form.is_gap_quoted))
        if not self.is_begun:
            names = [without_formula(str(name)) for name in (header or frame)]
            self._write([self._quoted(names, self.form.is_header_quoted)])
        self.is_begun = True
        self._write(zip(*columns, strict=True))

    def _write(self, rows):
        end, sep = self.form.line_end, self.form.sep
        # A line without a cell would be no row.
        self.file.writelines((sep.join(cells) or '""') + end for cells in rows)

    def _quoted(self, cells, is_always, is_gap_quoted=False):
        gaps = set(GAPS) - ({""} if is_gap_quoted else set())
        return [
            '"' + cell.replace('"', '""') + '"'
            if (is_always and cell not in gaps) or self.is_special.search(cell)
            else cell
            for cell in cells
        ]

    def cells(self, column, name):
        """Return the cells of a column as texts."""
        format, known = self.form.format_of(name), column.notna().to_numpy()
        kind = getattr(column.dtype, "kind", "O")
        if kind == "O" and known.any() and column[known].map(type).eq(bool).all():
            kind = "b"  # with missing values
        cells = [self.form.missing_texts.get(name, "")] * len(column)
        if kind in "iufb" and format is not None and format.role in ("number", "bool"):
            texts = format.write(column[known].astype(float))
        elif kind == "M" and format is not None and format.role == "datetime":
            moments = column[known]
            if moments.dt.tz is not None:
                moments = moments.dt.tz_convert(format.zone).dt.tz_localize(None)
            moments = moments.astype("datetime64[us]").astype("int64")
            texts = format.write(moments / MICROSECONDS)
        elif kind == "f":
            numbers = column[known].tolist()
            numbers = map(with_few_digits, numbers) if self.is_read else numbers
            texts = [repr(number).replace(".", self.form.decimal) for number in numbers]
        else:
            texts = column[known].astype(str).tolist()
            if kind not in "iufbM" and format is None:
                texts = [without_formula(text, self.form.decimal) for text in texts]
        for i, text in zip(known.nonzero()[0], texts, strict=True):
            cells[i] = text
        return cells


class ParquetAppender:
    """Appends rows to an open Parquet file, each time as a row group."""

    def __init__(self, file):
        self.file, self.writer = file, None

    def __enter__(self):
        return self

    def __call__(self, frame):
        table = arrow_table(frame, self.writer and self.writer.schema)
        if self.writer is None:
            self.writer = import_parquet().ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)

    def __exit__(self, *error):
        if self.writer is not None:
            self.writer.close()


class PartsAppender:
    """Appends rows to a folder, each time as a Parquet file."""

    def __init__(self, folder):
        self.folder, self.n_parts, self.schema = folder, 0, None

    def __call__(self, frame):
        table = arrow_table(frame, self.schema)
        part = PARTS.replace("*", str(self.n_parts))
        import_parquet().write_table(table, self.folder / part)
        self.n_parts, self.schema = self.n_parts + 1, table.schema


def arrow_table(frame, schema=None):
    """Return rows as an Arrow table, with the types of earlier ones if there are any."""
    from pyarrow import Table

    try:
        return Table.from_pandas(frame, schema, preserve_index=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"later rows do not have the types of the first ones ({one_line(error)}): write "
            "CSV in place of Parquet"
        ) from error


def with_few_digits(x):
    """Return a number with six digits, or more if it has more in front of the decimal point."""
    return float(f"{x:.6g}") if abs(x) < 1e6 else round(x, 0)


def without_formula(cell, decimal="."):
    """Return a cell that no spreadsheet runs as a formula: with ``'`` in front of what may be one.

    See OWASP, "CSV Injection". Numbers, with a decimal mark, stay as they are.
    """
    if not isinstance(cell, str) or not cell.startswith(FORMULAS):
        return cell
    try:
        float(cell.replace(decimal, "."))
    except ValueError:
        return f"'{cell}"
    return cell


def as_written(names):
    """Return the names of columns, and those under which `CsvAppender` writes them."""
    return {*names, *map(without_formula, names)}


def is_standard(path):
    """Return whether a path stands for standard input or output."""
    return str(path) == "-"


def shown(path):
    """Return the name of an output for a message."""
    return "standard output" if is_standard(path) else path


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
    if path.name == PARTS:
        folder = path.parent.resolve()
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ValueError(
                f"{path.parent} is not an empty folder: delete it, or choose another output"
            )
        path = folder.parent / PARTS
    elif path.is_dir():
        raise ValueError(f"cannot write {path}: Is a directory")
    if path.suffix in PARQUET:
        import_parquet()
    check_replaceable(path)


def one_line(error):
    """Return the message of an error without line breaks."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
