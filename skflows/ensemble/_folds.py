"""Splits into training rows and held-out rows, and what is known about the held-out rows."""

from numbers import Integral

import numpy as np

N_FOLDS = 5


def make_folds(cv, n, seed, *, X=None, kept=None, copy_of=None, label=None, least=2):
    """Return pairs of indices of training and held-out rows.

    Parameters
    ----------
    cv : int, cross-validation generator, iterable or None
        A number of folds is shuffled; None is 5. An iterable has indices among all rows of the
        user.
    n : int
        Number of rows, which the indices returned refer to.
    seed : int
        Seed of the shuffling.
    X : ndarray of shape (n, d), optional
        The rows, for a splitter that looks at them.
    kept : ndarray of shape (n_samples,) of bool, optional
        Which of the user's rows these are.
    copy_of : ndarray of shape (n,), optional
        The first of the rows that each row equals. They are held out together, unless that leaves a
        fold without rows.
    label : ndarray of shape (n,), optional
        The class of each row. Each fold has the classes in equal shares.
    least : int, default=2
        Least number of rows to train on.
    """
    if cv is None:
        cv = N_FOLDS
    if isinstance(cv, Integral):
        if cv > max(n, N_FOLDS):  # the default takes fewer folds if there are few rows
            raise ValueError(
                f"cv={cv}, but X has {n} rows of positive weight, and each fold needs one: use "
                "fewer folds."
            )
        splits = _shuffled(min(int(cv), n), n, seed, label)
    elif hasattr(cv, "split"):
        splits = list(cv.split(np.empty((n, 1)) if X is None else X, label))
    else:
        kept = np.ones(n, dtype=bool) if kept is None else kept
        numbers, position = np.arange(len(kept)), np.cumsum(kept) - 1
        splits = [
            tuple(position[rows[kept[rows]]] for rows in (numbers[train], numbers[held_out]))
            for train, held_out in cv
        ]
    if copy_of is not None:
        splits = _with_copies_together(splits, copy_of)
    for i, (train, held_out) in enumerate(splits):
        if len(train) < least or not len(held_out):
            raise ValueError(
                f"split {i} of cv leaves {len(train)} rows of positive weight to train on and "
                f"{len(held_out)} to hold out; at least {least} and 1 are needed."
            )
    if not splits:
        raise ValueError("cv makes no split; give a number of folds, or a splitter.")
    return splits


def automatic_cv(n, seed, rows_with_folds, share, most):
    """Return the number of folds of n rows, or a splitter that holds out a share of them once.

    Beyond ``rows_with_folds``, a single part is accurate enough, of ``most`` rows at most.
    """
    if n <= rows_with_folds:
        return N_FOLDS
    from sklearn.model_selection import ShuffleSplit  # takes long to import

    return ShuffleSplit(1, test_size=min(round(share * n), most), random_state=seed)


def _shuffled(n_folds, n, seed, label):
    """Return shuffled folds; rows of a class are dealt out to them in turn."""
    order, fold_of = np.random.RandomState(seed).permutation(n), np.empty(n, dtype=int)
    if label is None:
        for i, rows in enumerate(np.array_split(order, n_folds)):
            fold_of[rows] = i
    else:
        fold_of[order[np.argsort(label[order], kind="stable")]] = np.arange(n) % n_folds
    return _splits_of(fold_of, n_folds)


def _with_copies_together(splits, copy_of):
    """Return splits that hold out rows with the row that they are copies of."""
    fold_of = np.full(len(copy_of), -1)
    for i, (_, held_out) in enumerate(splits):
        fold_of[held_out] = i
    together = fold_of[copy_of]
    if len(np.unique(together)) == len(np.unique(fold_of)):
        fold_of = together
    return _splits_of(fold_of, len(splits))


def _splits_of(fold_of, n_folds):
    return [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(n_folds)]


class Folds:
    """The rows that the components of a mixture are fitted to, and those that are held out.

    Parameters
    ----------
    splits : list of tuple of ndarray
        Indices of training and held-out rows in each fold.
    weight : ndarray of shape (n,)
        Weights of the rows.
    kept : ndarray of shape (n_samples,) of bool
        Which of the user's rows they are.

    Attributes
    ----------
    held_out_rows : ndarray of int
        The held-out rows, fold by fold.
    """

    def __init__(self, splits, weight, kept):
        self.splits, self.weight = splits, weight
        self.held_out_rows = np.concatenate([held_out for _, held_out in splits])
        self._kept = kept

    @property
    def held_out_weight(self):
        """Weights of the held-out rows, fold by fold."""
        return self.weight[self.held_out_rows]

    def means(self, scores):
        """Return the mean over the held-out rows of each column of scores."""
        with np.errstate(invalid="ignore"):  # of inf and -inf
            return np.average(scores, axis=0, weights=self.held_out_weight)

    def of_held_out(self, values):
        """Return the held-out rows' part of values of all rows of the user, fold by fold."""
        return values[np.flatnonzero(self._kept)[self.held_out_rows]]

    def spread(self, values):
        """Return values of the held-out rows, fold by fold, for all rows of the user, else NaN."""
        all_values = np.full((len(self._kept), *values.shape[1:]), np.nan)
        all_values[np.flatnonzero(self._kept)[self.held_out_rows]] = values
        return all_values
