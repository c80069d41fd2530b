"""Tables as rows of numbers, and back."""

import math
from copy import copy
from numbers import Real

import numpy as np

from .arrays import is_integer_dtype, listed, reads_as_number
from .checks import ColumnWarning, names_rows, unseen_error, warn_of_unseen, warn_user
from .dates import check_zone, local_seconds, moments_of, utc_seconds, zone_of
from .formats import OTHER_MARK, DateFormat, find_format
from .frames import Column, Frame, fill_frame, read_frame, write_frame
from .kinds import IDENTIFIER, NUMBERS, stated

NUMERIC = ("number", "datetime")  # roles of columns that are read as numbers
PLAIN = ("number", "bool")  # roles of columns that densities of numbers take
MAX_WORDS = 3  # that a message lists
TEXTS = ("text", "category", "ordered")  # roles of columns that may hold texts
REMEDIES = {  # what columns held in fit, and how to convert them to it
    "number": ("numbers", "pandas.to_numeric or .astype(float)"),
    "datetime": ("dates", "pandas.to_datetime"),
}


class UnseenCategory:
    """The value of all categories that an encoding has not seen."""

    def __str__(self):
        return "(unseen)"


UNSEEN_CATEGORY = UnseenCategory()


class Encoding:
    """How a table becomes rows of float64, one number for each value, and back.

    A number stands as it is, a date as in `Column`, a category or boolean as its place among those
    seen or declared by a dtype, in the order of their texts, and a missing value as NaN. Texts with
    a `Format`, such as amounts, are numbers or dates, and are written back as such texts. Such rows
    can be indexed, joined and permuted, so that folds, trimming and explanations need no code for
    tables.

    Parameters
    ----------
    frame : Frame
        The table that shows which columns and categories there are. No row of it is kept.
    handle_unknown : {"warn", "rare", "error"}, default="rare"
        Whether other categories are an error, or a warning.
    kinds : dict, optional
        The kinds that the user states for some columns, see `stated`. Columns of categories have no
        format.
    finds_identifiers : bool, default=False
        Whether columns of texts that hardly repeat are identifiers, besides columns of which the
        user says so, and columns without a known value are left out. Their texts are not kept.
    """

    def __init__(self, frame, handle_unknown="rare", kinds=None, *, finds_identifiers=False):
        self.handle_unknown = handle_unknown
        self.names, self.library, self.dtype = frame.names, frame.library, frame.dtype
        self.columns = [column._replace(values=None, known=None) for column in frame.columns]
        given = stated(kinds, self.keys)
        self.formats = [
            format_of(column, name, given.get(name))
            for name, column in zip(self.keys, frame.columns, strict=True)
        ]
        self.columns = [
            column if format is None else column._replace(role=format.role)
            for column, format in zip(self.columns, self.formats, strict=True)
        ]
        self.identifiers = {  # and whether the user says so
            j: name in given
            for j, (name, column) in enumerate(zip(self.keys, frame.columns, strict=True))
            if (
                given[name].name == IDENTIFIER
                if name in given
                else finds_identifiers
                and self.formats[j] is None
                and column.role == "text"
                and names_rows(column.values[column.known])
            )
        }
        # Later values of columns without any are ignored, whatever they are.
        columns = enumerate(frame.columns)
        self.empty = [j for j, column in columns if finds_identifiers and not column.known.any()]
        self.different_texts = {
            j: different_texts(frame.columns[j])
            for j, is_stated in self.identifiers.items()
            if not is_stated
        }
        self.categories = [
            categories_of(column) if format is None and j not in self.identifiers else []
            for j, (column, format) in enumerate(zip(frame.columns, self.formats, strict=True))
        ]

    @classmethod
    def read(cls, X, **kwargs):
        """Return the encoding of a table, and its rows."""
        frame = read_frame(X)
        encoding = cls(frame, **kwargs)
        return encoding, encoding.rows(frame)

    @property
    def keys(self):
        """Names of the columns, or their numbers."""
        return list(range(len(self.columns))) if self.names is None else self.names

    def set_names(self, estimator):
        """Set the attributes of an estimator that is fitted to rows of this encoding."""
        estimator.n_features_in_ = len(self.columns)
        vars(estimator).pop("feature_names_in_", None)
        if self.names is not None and all(isinstance(name, str) for name in self.names):
            estimator.feature_names_in_ = np.array(self.names, dtype=object)

    @property
    def roles(self):
        """The roles of the columns."""
        return [column.role for column in self.columns]

    def categories_of(self, name):
        """Return the categories of a column, none for one of numbers or dates."""
        return self.categories[self.keys.index(name)]

    @property
    def inferred_identifiers(self):
        """How many texts differ in identifiers of which the user does not say so, by name."""
        return {self.keys[j]: text for j, text in self.different_texts.items()}

    @property
    def zones(self):
        """The time zones of the columns of dates, by name; None for local time."""
        named = zip(self.keys, self.columns, strict=True)
        return {name: zone_of(c.dtype) for name, c in named if c.role == "datetime"}

    @property
    def is_plain(self):
        """Whether all columns hold numbers or booleans, and not as texts."""
        has_formats = any(format is not None for format in self.formats)
        return not has_formats and all(role in PLAIN for role in self.roles)

    def reads_like(self, other):
        """Whether rows of another encoding have the same meaning."""
        mine, its = (
            (e.keys, e.roles, e.categories, e.formats, e.identifiers) for e in (self, other)
        )
        return self is other or mine == its

    def holds(self, frame):
        """Whether a table may be some rows of the one that this encoding was made of.

        Its columns have the same names in the same order, the same roles, and no other categories.
        """
        if frame.names != self.names or len(frame.columns) != len(self.columns):
            return False
        known = map(without_words, frame.columns, self.formats)
        columns = [
            column
            if format is None or np.isnan(known_numbers(column, format)).any()
            # A column of the fit, whose texts all have the format.
            else column._replace(role=format.role)
            for column, format in zip(known, self.formats, strict=True)
        ]
        roles = [(old.role, new.role) for old, new in zip(self.columns, columns, strict=True)]
        is_empty = [not column.known.any() for column in frame.columns]
        # Objects of several types are texts together, some rows of them may be numbers.
        same = [old in (new, "text") for old, new in roles]
        if not all(fits or empty for fits, empty in zip(same, is_empty, strict=True)):
            return False
        return not self._rows_and_unseen(frame)[1]

    def encode(self, X):
        """Return the rows of a table with the same columns, ``(n, n_columns)``.

        A category is found by its value, or else by its text. Those that this encoding has not seen
        share the place after the last one.
        """
        return self.rows(read_frame(X, self.names))

    def unseen(self, X):
        """Return the values of a table that are unseen categories, by the name of their column."""
        return self._rows_and_unseen(read_frame(X, self.names))[1]

    def encode_and_unseen(self, X):
        """Return what `encode` and `unseen` return, without an error or a warning."""
        return self._rows_and_unseen(read_frame(X, self.names))

    def rows(self, frame, names=None):
        """Return the rows of a table that has been read, missing in other than the named columns.

        A column with values of another role than in fit is an error, except that dates may be
        texts in ISO 8601, and categories may be anything but numbers in place of texts.
        """
        rows, unseen = self._rows_and_unseen(frame, names)
        for name, values in unseen.items():
            like = self.columns[self.keys.index(name)]
            if like.role == "text" and any(isinstance(value, Real) for value in values):
                raise ValueError(
                    f"column {name!r} held texts in fit; now it holds {values.tolist()[0]!r}: "
                    "convert it to texts as they were in fit, such as '01234' rather than 1234."
                )
            if self.handle_unknown == "error" or like.role == "bool":
                raise unseen_error(name, values, self.categories_of(name))
        if self.handle_unknown != "warn":  # ordered categories are never pooled as rare
            named = zip(self.keys, self.roles, strict=True)
            ordered = [name for name, role in named if role == "ordered"]
            unseen = {name: values for name, values in unseen.items() if name in ordered}
        warn_of_unseen(unseen, len(rows), self)
        return rows

    def _rows_and_unseen(self, frame, names=None):
        keys = self.keys
        rows = np.full((len(frame), len(keys)), np.nan)
        unseen = {}
        for column, name in zip(frame.columns, keys if names is None else names, strict=True):
            j = keys.index(name)
            column = without_words(column, self.formats[j])
            known, like = column.known, self.columns[j]
            if j in self.empty:
                continue
            if j in self.identifiers:
                rows[known, j] = 0.0
            elif like.role not in NUMERIC:
                categories = self.categories[j]
                rows[known, j] = places_of(column.values[known], categories)
                is_unseen = rows[:, j] == len(categories)
                if is_unseen.any():
                    unseen[name] = column.values[is_unseen]
            elif known.any():
                rows[known, j] = _numbers_of(column, like, name, self.formats[j])
        return rows, unseen

    def column(self, rows, j):
        """Return a column of rows as it is encoded, 0 where it is missing, as a `Column`."""
        known = ~np.isnan(rows[:, j])
        return self.columns[j]._replace(values=np.where(known, rows[:, j], 0.0), known=known)

    def named(self, j, values):
        """Return what known values of a column of rows stand for, dates as seconds."""
        if self.roles[j] in NUMERIC:
            return values
        named = np.empty(len(self.categories[j]) + 1, dtype=object)
        named[:] = [*self.categories[j], UNSEEN_CATEGORY]
        return named[values.astype(int)]

    def local_dates(self, rows, j):
        """Return the dates of a column of rows in seconds of local time, in the zone of fit."""
        seconds = rows[:, j].copy()
        known, name = ~np.isnan(seconds), self.keys[j]
        seconds[known] = local_seconds(seconds[known], self.zones[name], name)
        return seconds

    def frame(self, rows):
        """Return rows as a `Frame`, in which unseen categories are `UNSEEN_CATEGORY`."""
        columns = []
        for j in range(len(self.columns)):
            column = self.column(rows, j)
            columns.append(column._replace(values=self.named(j, column.values)))
        return Frame(columns, self.names, self.library, self.dtype)

    def with_placeholders(self, frame, given):
        """Return a `Frame` whose identifiers are numbered names; numbers are numbered.

        Names are texts, whatever the dtype was, such as of dates. Given columns, a dict by their
        places, have their known values.
        """
        columns, numbers = list(frame.columns), range(1, len(frame) + 1)
        for j in self.identifiers:
            column, of_rows = columns[j], given.get(j)
            roles = {column.role} if of_rows is None else {column.role, of_rows.role}
            if of_rows is not None and of_rows.known.all() and not roles & {"number", "text"}:
                columns[j] = of_rows
                continue
            role = "number" if roles == {"number"} else "text"
            values, known = np.array(numbers, float), column.known
            if role == "text":
                name = str(self.keys[j]) if self.names is not None else f"x{j}"
                name = f"{name[:1].upper()}{name[1:]}"
                values = np.array([f"{name} {k}" for k in numbers], object)
            if of_rows is not None:
                written = write_frame([of_rows], [j], "numpy", "object")[of_rows.known, 0]
                values[of_rows.known] = [text_of(v) if role == "text" else v for v in written]
                known = known | of_rows.known
            dtype = column.dtype if column.role == role else ""
            columns[j] = Column(values, known, role, dtype)
        return Frame(columns, frame.names, frame.library, frame.dtype)

    def decode(self, rows, names=None):
        """Return rows as a table like the one of fit, or some columns of it.

        Unseen categories become missing values.
        """
        return self.table(self.frame(rows), names)

    def table(self, frame, names=None):
        """Return a `Frame` as a table like the one of fit, or some columns of it."""
        names = self.keys if names is None else names
        columns = [frame.columns[self.keys.index(name)] for name in names]
        has_names = any(self.roles[j] != frame.columns[j].role for j in self.identifiers)
        columns = [
            self.written(self.keys.index(name), column)
            if column.role in NUMERIC
            else column._replace(known=column.known & (column.values != UNSEEN_CATEGORY))
            for name, column in zip(names, columns, strict=True)
        ]
        return write_frame(columns, names, self.library, "object" if has_names else self.dtype)

    def written(self, j, column):
        """Return a column as a table has it: as texts if it has a format."""
        if (format := self.formats[j]) is None:
            return column
        texts = np.full(len(column.known), "", dtype=object)
        texts[column.known] = format.write(column.values[column.known])
        return column._replace(values=texts, role="text")

    def check_written(self, j, column):
        """Raise an error if known numbers of a column would be written as other numbers."""
        format, numbers = self.formats[j], np.empty(0)
        if self.roles[j] != "number" or j in self.identifiers:
            return
        if column.role == "number":
            numbers = column.values[column.known].astype(np.float64)
        elif format is not None and column.role in TEXTS:
            numbers = known_numbers(column, format)
            numbers = numbers[~np.isnan(numbers)]
        if format is not None:
            is_other = ~format.are_exact(numbers)
        elif is_integer_dtype(self.columns[j].dtype or self.dtype):
            is_other = numbers % 1 != 0
        else:
            return
        if is_other.any():
            number = numbers[is_other][0]
            what, near = (
                ("whole numbers", f"{math.floor(number)} or {math.ceil(number)}")
                if format is None
                else (format.what, repr(format.write([number])[0]))
            )
            raise ValueError(
                f"given has {number:.10g} in column {self.keys[j]!r}; the column held {what} in "
                f"fit and cannot hold this number: give one such as {near}."
            )

    def written_levels(self, j, levels):
        """Return levels of a column as a table has them: numbers as texts, dates or integers."""
        if self.roles[j] not in NUMERIC:
            return list(levels)
        numbers = [level for level in levels if isinstance(level, Real)]
        values, known = np.array(numbers, dtype=np.float64), np.ones(len(numbers), dtype=bool)
        column = self.written(j, self.columns[j]._replace(values=values, known=known))
        table = write_frame([column], [self.keys[j]], self.library, self.dtype)
        written = table[:, 0] if self.library == "numpy" else table[self.keys[j]]
        return [*written, *levels[len(numbers) :]]  # "(rare)" is the last

    def fill(self, X, frame, rows):
        """Return X, which a `Frame` was read from, with missing values replaced by values of rows.

        Known values and the index of X stay as they are. A column with known values has its own
        dtype, others the dtype of fit.
        """
        columns, known_columns = [], [*map(without_words, frame.columns, self.formats)]
        for j, (old, new) in enumerate(zip(known_columns, self.frame(rows).columns, strict=True)):
            if not (old.known.any() and old.role == new.role):  # numbers are filled in by numbers
                new = self.written(j, new)
            # Texts that are filled in by dates have no dtype of dates.
            if old.known.any() and (new.role != "datetime" or old.role == "datetime"):
                new = new._replace(dtype=old.dtype)
            columns.append(new)
        known = np.stack([column.known for column in known_columns], axis=1)
        dtype = frame.dtype or self.dtype
        filled = write_frame(columns, self.keys, frame.library, dtype, frame.index)
        return fill_frame(X, known, filled)

    def typical(self, rows):
        """Return the median of each column of numbers or dates, and the most frequent category."""
        row = np.full(rows.shape[1], np.nan)
        for j, column in enumerate(rows.T):
            known = column[~np.isnan(column)]
            if self.roles[j] in NUMERIC:
                row[j] = np.median(known) if len(known) else np.nan
            elif len(known):
                row[j] = np.bincount(known.astype(int)).argmax()
        return row

    def with_floats(self):
        """Return this encoding, decoding to floats where the table has other numbers."""
        encoding = copy(self)
        encoding.columns = [c._replace(dtype="") if c.role == "number" else c for c in self.columns]
        encoding.dtype = "" if self.is_plain else self.dtype
        return encoding

    def values(self, rows, roles):
        """Return the known values of the columns of some roles, except identifiers, by name."""
        return {
            self.keys[j]: self.named(j, rows[~np.isnan(rows[:, j]), j])
            for j, column in enumerate(self.columns)
            if column.role in roles and j not in self.identifiers
        }


def copy_names(fitted, wrapper, *others):
    """Give a wrapper the names and the number of columns of what it has fitted, and no others.

    Further names are other attributes to copy.
    """
    for name in ("n_features_in_", "feature_names_in_", *others):
        vars(wrapper).pop(name, None)
        if hasattr(fitted, name):
            setattr(wrapper, name, getattr(fitted, name))


def categories_of(column):
    """Return the categories of a column, seen or declared, in the order of their texts."""
    if column.role in NUMERIC:
        return []
    categories = {*column.values[column.known], *(column.categories or ())}
    if column.role == "bool":  # both are possible, even if only one was seen
        categories = {False, True}
    return sorted(categories, key=lambda category: (str(category), type(category).__name__))


def different_texts(column):
    """Return how many texts of a column differ, as a text."""
    known = column.values[column.known]
    return f"{len(set(known))} of {len(known)} texts differ"


def format_of(column, name, kind=None):
    """Return the format of the texts of a column, or None if they have none, or are categories.

    Parameters
    ----------
    column : Column
        The column.
    name : str or int
        Its name.
    kind : Kind, optional
        The kind that the user states.
    """
    is_category = kind is not None and kind.name in ("categorical", "ordinal", IDENTIFIER)
    if column.role != "text" or is_category:
        return None
    texts, thousands = column.values[column.known], kind and kind.thousands
    format = find_format(
        texts,
        OTHER_MARK.get(thousands),
        thousands,
        kind and kind.dayfirst,
        accepts_plain=True,
        accepts_words=True,
        is_number=kind is not None and kind.name in NUMBERS,
    )
    if format is not None and (are_words := format.are_words(texts)).any():
        words, n = [*dict.fromkeys(texts[are_words])], are_words.sum()
        warn_user(
            f"The column {name!r} holds {format.what}, such as {texts[~are_words][0]!r}, and "
            f"{listed(words, MAX_WORDS)} in {n} of {len(texts)} rows: read as missing. If "
            f"{'it is a value' if len(words) == 1 else 'they are values'}, use "
            f"columns={{{name!r}: 'categorical'}}.",
            ColumnWarning,
        )
    if isinstance(format, DateFormat) and format.is_ambiguous and kind is None:
        first, other = ("day", "month") if format.is_day_first else ("month", "day")
        warn_user(
            f"The dates of column {name!r}, such as {column.values[column.known][0]!r}, are read "
            f"with the {first} first, but may have the {other} first: state it by "
            f"columns={{{name!r}: ('datetime', '{other}first')}}, or '{first}first'.",
            ColumnWarning,
        )
    return format


def without_words(column, format):
    """Return a column in which words among texts with a format are missing."""
    if format is None or not format.accepts_words or column.role != "text":
        return column
    return column._replace(known=column.known & ~format.are_words(column.values))


def known_numbers(column, format):
    """Return the known values of a column of texts as numbers, NaN for texts of another format."""
    if column.role not in TEXTS:
        return np.full(1, np.nan)
    return format.parse([str(value) for value in column.values[column.known]])


def _numbers_of(column, like, name, format=None):
    """Return the known values of a column that held numbers or dates in fit, as numbers."""
    values, is_date = column.values[column.known], like.role == "datetime"
    zone = zone_of(like.dtype)
    if column.role == like.role:
        if is_date:
            check_zone(zone_of(column.dtype), zone, name)
        return values
    categories = column.categories or ()
    if not is_date and len(categories) and all(isinstance(each, Real) for each in categories):
        return values.astype(np.float64)  # numbers of pandas' categorical dtype
    held, remedy = REMEDIES[like.role]
    if format is not None and column.role in TEXTS:
        numbers = known_numbers(column, format)
        if not np.isnan(numbers).any():
            return numbers
        text, example = values[np.isnan(numbers)][0], format.write([0.0])[0]
        raise ValueError(
            f"column {name!r} held {format.what} such as {example!r} in fit; now it holds "
            f"{text!r}: write it so, or leave it empty."
        )
    if not (is_date and column.role in TEXTS):
        words = [value for value in values.tolist() if not reads_as_number(value)]
        if column.role in TEXTS and 0 < len(words) < len(values):
            raise ValueError(
                f"column {name!r} held {held} in fit; now it holds {words[0]!r}, which is no "
                "number: correct it, or leave it empty."
            )
        raise ValueError(
            f"column {name!r} held {held} in fit; now it holds {values.tolist()[0]!r}: convert it "
            f"by {remedy}."
        )
    try:
        return utc_seconds(moments_of(values), zone, name)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {name!r} held dates in fit; now it holds texts, of which one is no date in "
            f"ISO 8601 without a time zone; {error}: convert it by {remedy}."
        ) from None


def places_of(values, categories):
    """Return the places of values among categories, or the number of these where there is none.

    A column of categories may come as numbers or as texts later, as from a file.
    """
    place, none = {category: k for k, category in enumerate(categories)}, len(categories)
    places = [place.get(value, none) for value in values]
    if none in places:
        place = {text_of(category): k for k, category in enumerate(categories)}
        pairs = zip(values, places, strict=True)
        places = [place.get(text_of(v), none) if k == none else k for v, k in pairs]
    return places


def text_of(value):
    """Return a category as a text: a whole number is the same whatever its dtype."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)
