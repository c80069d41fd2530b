"""Tables as rows of numbers, and back."""

import numpy as np

from .checks import unseen_error, warn_of_unseen
from .dates import check_zone, zone_of
from .frames import Frame, read_frame, write_frame

NUMERIC = ("number", "datetime")  # roles of columns that are read as numbers
PLAIN = ("number", "bool")  # roles of columns that densities of numbers take


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
    def is_plain(self):
        """Whether all columns hold numbers or booleans."""
        return all(column.role in PLAIN for column in self.columns)

    def encode(self, X):
        """Return the rows of a table with the same columns, ``(n, n_columns)``.

        Categories that this encoding has not seen share the place after the last one.
        """
        return self._rows(read_frame(X, self.names))

    def _rows(self, frame):
        rows = np.full((len(frame), len(frame.columns)), np.nan)
        unseen = {}
        for j, (column, name) in enumerate(zip(frame.columns, self.keys, strict=True)):
            known, like = column.known, self.columns[j]
            if like.role not in NUMERIC:
                categories = self.categories[j]
                place = {category: k for k, category in enumerate(categories)}
                rows[known, j] = [place.get(v, len(categories)) for v in column.values[known]]
                is_unseen = rows[:, j] == len(categories)
                if is_unseen.any():
                    unseen[name] = column.values[is_unseen]
                continue
            if column.role != like.role and known.any():
                raise ValueError(
                    f"column {name!r} held {like.role}s in fit; now it holds "
                    f"{column.values[known][0]!r}: convert it to the kind of values of fit, "
                    "such as with pandas.to_numeric or .astype(float)."
                )
            if like.role == "datetime" and known.any():
                check_zone(zone_of(column.dtype), zone_of(like.dtype), name)
            rows[known, j] = column.values[known]
        if unseen and self.handle_unknown == "error":
            raise unseen_error(*next(iter(unseen.items())))
        if self.handle_unknown == "warn":
            warn_of_unseen(unseen, len(rows))
        return rows

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

    def values(self, rows, roles):
        """Return the known values of the columns of some roles, by name."""
        named = zip(self.keys, self.frame(rows).columns, strict=True)
        return {name: c.values[c.known] for name, c in named if c.role in roles}
