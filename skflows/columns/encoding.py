"""Tables as rows of numbers, and back."""

from copy import copy

import numpy as np

from .checks import unseen_error, warn_of_unseen
from .dates import check_zone, local_seconds, zone_of
from .frames import Frame, read_frame, write_frame

NUMERIC = ("number", "datetime")  # roles of columns that are read as numbers
PLAIN = ("number", "bool")  # roles of columns that densities of numbers take
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
    seen, in the order of their texts, and a missing value as NaN. Such rows can be indexed, joined
    and permuted, so that folds, trimming and explanations need no code for tables.

    Parameters
    ----------
    frame : Frame
        The table that shows which columns and categories there are. No row of it is kept.
    handle_unknown : {"warn", "rare", "error"}, default="rare"
        Whether other categories are an error, or a warning.
    """

    def __init__(self, frame, handle_unknown="rare"):
        self.handle_unknown = handle_unknown
        self.names, self.library, self.dtype = frame.names, frame.library, frame.dtype
        self.columns = [column._replace(values=None, known=None) for column in frame.columns]
        self.categories = [
            [] if column.role in NUMERIC else sorted(set(column.values[column.known]), key=str)
            for column in frame.columns
        ]

    @classmethod
    def read(cls, X, **kwargs):
        """Return the encoding of a table, and its rows."""
        frame = read_frame(X)
        encoding = cls(frame, **kwargs)
        return encoding, encoding._rows(frame)

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

    @property
    def zones(self):
        """The time zones of the columns of dates, by name; None for local time."""
        named = zip(self.keys, self.columns, strict=True)
        return {name: zone_of(c.dtype) for name, c in named if c.role == "datetime"}

    @property
    def is_plain(self):
        """Whether all columns hold numbers or booleans."""
        return all(role in PLAIN for role in self.roles)

    def encode(self, X):
        """Return the rows of a table with the same columns, ``(n, n_columns)``.

        A category is found by its value, or else by its text. Those that this encoding has not seen
        share the place after the last one.
        """
        return self._rows(read_frame(X, self.names))

    def unseen(self, X):
        """Return the values of a table that are unseen categories, by the name of their column."""
        return self._rows_and_unseen(read_frame(X, self.names))[1]

    def encode_and_unseen(self, X):
        """Return what `encode` and `unseen` return, without an error or a warning."""
        return self._rows_and_unseen(read_frame(X, self.names))

    def _rows(self, frame):
        rows, unseen = self._rows_and_unseen(frame)
        if unseen and self.handle_unknown == "error":
            raise unseen_error(*next(iter(unseen.items())))
        if self.handle_unknown == "warn":
            warn_of_unseen(unseen, len(rows))
        return rows

    def _rows_and_unseen(self, frame):
        rows = np.full((len(frame), len(frame.columns)), np.nan)
        unseen = {}
        for j, (column, name) in enumerate(zip(frame.columns, self.keys, strict=True)):
            known, like = column.known, self.columns[j]
            if like.role not in NUMERIC:
                categories = self.categories[j]
                rows[known, j] = places_of(column.values[known], categories)
                is_unseen = rows[:, j] == len(categories)
                if is_unseen.any():
                    unseen[name] = column.values[is_unseen]
                continue
            if column.role != like.role and known.any():
                held, remedy = REMEDIES[like.role]
                raise ValueError(
                    f"column {name!r} held {held} in fit; now it holds "
                    f"{column.values[known].tolist()[0]!r}: convert it by {remedy}."
                )
            if like.role == "datetime" and known.any():
                check_zone(zone_of(column.dtype), zone_of(like.dtype), name)
            rows[known, j] = column.values[known]
        return rows, unseen

    def local_dates(self, rows, j):
        """Return the dates of a column of rows in seconds of local time, in the zone of fit."""
        seconds = rows[:, j].copy()
        known, name = ~np.isnan(seconds), self.keys[j]
        seconds[known] = local_seconds(seconds[known], self.zones[name], name)
        return seconds

    def frame(self, rows):
        """Return rows as a `Frame`, in which unseen categories are `UNSEEN_CATEGORY`."""
        columns = []
        for values, like, categories in zip(rows.T, self.columns, self.categories, strict=True):
            known = ~np.isnan(values)
            filled = np.where(known, values, 0.0)
            if like.role not in NUMERIC:
                named = np.empty(len(categories) + 1, dtype=object)
                named[:] = [*categories, UNSEEN_CATEGORY]
                filled = named[filled.astype(int)]
            columns.append(like._replace(values=filled, known=known))
        return Frame(columns, self.names, self.library, self.dtype)

    def decode(self, rows):
        """Return rows as a table like that of fit, with missing values for unseen categories."""
        columns = [
            column
            if column.role in NUMERIC
            else column._replace(known=column.known & (column.values != UNSEEN_CATEGORY))
            for column in self.frame(rows).columns
        ]
        return write_frame(columns, self.keys, self.library, self.dtype)

    def typical(self, rows):
        """Return the median of each column of numbers or dates, and the most frequent category."""
        found = np.full(rows.shape[1], np.nan)
        for j, column in enumerate(rows.T):
            known = column[~np.isnan(column)]
            if self.roles[j] in NUMERIC:
                found[j] = np.median(known) if len(known) else np.nan
            elif len(known):
                found[j] = np.bincount(known.astype(int)).argmax()
        return found

    def with_floats(self):
        """Return this encoding, decoding to floats where the table has other numbers."""
        found = copy(self)
        found.columns = [c._replace(dtype="") if c.role == "number" else c for c in self.columns]
        found.dtype = "" if self.is_plain else self.dtype
        return found

    def values(self, rows, roles):
        """Return the known values of the columns of some roles, by name."""
        named = zip(self.keys, self.frame(rows).columns, strict=True)
        return {name: c.values[c.known] for name, c in named if c.role in roles}


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
