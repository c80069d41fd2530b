"""Which values of a row are missing, given the values."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from ..columns.arrays import listed
from ..columns.checks import MAX_NAMED, ColumnWarning, among, warn_user
from ._variables import first_features
from ._view import TableView

MAX_ROWS = 2_000  # with missing values, and as many complete ones, that trees are fitted to
MAX_ROUNDS = 100  # in which patterns are drawn again
LEAST_ROWS = 10  # of a level in which a column is always missing
LEAST_CHANCE = 1e-6  # of what trees say never happens
NEARLY_ALL = 0.9  # rows that lack a value, which is then no value of rows like them
CHANCE = 0.01  # that values missing at random are missing in all rows of any level of a variable


class FlagTree(NamedTuple):
    """A decision tree of the probability that a value is missing; arrays with one entry per node.

    Attributes
    ----------
    left, right : ndarray of int
        The children, -1 of a leaf.
    feature : ndarray of int
        The feature that decides; a row with at most the threshold goes to the left.
    threshold : ndarray of float
        See ``feature``.
    share : ndarray of float
        Probability that the value is missing.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    share: np.ndarray

    @classmethod
    def fit(cls, features, is_missing, weight):
        """Fit a tree, pruned so that each leaf raises the likelihood by more than chance does.

        The penalty of a leaf, in nats, is the logarithm of the rows and features it was chosen
        from: a tree of values that are missing at random has a single leaf.
        """
        from sklearn.tree import DecisionTreeClassifier

        n, n_features = features.shape
        penalty = np.log(n) + np.log(n_features)
        model = DecisionTreeClassifier(
            criterion="log_loss",  # in bits
            min_samples_leaf=2,
            ccp_alpha=penalty / np.log(2) / n,
            random_state=0,
        )
        nodes = model.fit(features, is_missing, weight).tree_
        share = np.zeros(nodes.node_count)
        for value, of_value in zip(model.classes_, nodes.value[:, 0].T, strict=True):
            if value:
                share = of_value
        return cls(nodes.children_left, nodes.children_right, nodes.feature, nodes.threshold, share)

    def predict(self, features):
        """Return the probability that the value is missing in each row."""
        node, rows = np.zeros(len(features), dtype=int), np.arange(len(features))
        while (is_inner := self.left[node] >= 0).any():
            goes_left = features[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(is_inner, np.where(goes_left, self.left[node], self.right[node]), node)
        return self.share[node]


class MissingPattern:
    """The distribution of the pattern of missing values, given the values that are known.

    Whether the value of a column is missing depends on the columns that are missing in fewer rows:
    on whether their values are missing, and on these values otherwise.

    Parameters
    ----------
    schema : Schema
        The columns and their variables.
    values : ndarray of shape (n, n_variables)
        Rows with missing values.
    is_missing : ndarray of shape (n, n_columns) of bool
        Which values are missing.
    weight : ndarray of shape (n,)
        Weight of each row.
    """

    def __init__(self, schema, values, is_missing, weight):
        n_missing = is_missing.sum(axis=0)
        is_identifier = ~np.isin(np.arange(len(n_missing)), schema.places)
        by_missing = np.lexsort((n_missing, is_identifier))  # identifiers have no values
        self.columns = by_missing[n_missing[by_missing] > 0].tolist()
        inputs = self._inputs(schema, values)
        first = first_features(schema.variables)
        of_column = [
            np.concatenate([np.arange(*first[j : j + 2]) for j in parts] or [[]]).astype(int)
            for parts in schema.of_place
        ]
        self.features = [of_column[i] for i in self.columns]  # of the inputs
        always = [i for i in range(len(n_missing)) if not n_missing[i]]
        known = np.concatenate([[], *(of_column[i] for i in always)]).astype(int)
        self.trees, self.trees_of_flags = [], []  # given values, and given only which are missing
        for place, i in enumerate(self.columns, first[-1]):
            chosen = np.append(known, place)  # which is still 0, and may be the only one
            for trees, features in (
                (self.trees, chosen),
                (self.trees_of_flags, chosen[chosen >= first[-1]]),
            ):
                tree = FlagTree.fit(inputs[:, features], is_missing[:, i], weight)
                trees.append(tree._replace(feature=features[tree.feature.clip(0)]))
            inputs[:, place] = is_missing[:, i]
            known = np.concatenate([known, of_column[i], [place]])
        lacks = np.isnan(values)
        self.log_ratio = np.average(self._log_ratios(schema, values, lacks), weights=weight)

    def _inputs(self, schema, values):
        """Return the features of values, and 0 for whether the values of columns are missing."""
        features = TableView(schema, values).features
        flags = np.zeros((len(features), len(self.columns)))
        return np.hstack([features, flags]).astype(np.float32)  # as scikit-learn's trees

    def _flags(self, inputs, decide, are_given=None):
        """Yield each column, the probabilities that its values are missing, and whether they are.

        The function ``decide`` takes the column and the probabilities. What it returns is an input
        for later columns; inputs change in place. The probability of a given value depends on what
        else is missing alone: the other values were drawn given this one, and say no more of it.
        """
        first = inputs.shape[1] - len(self.trees)
        for k, (column, tree) in enumerate(zip(self.columns, self.trees, strict=True)):
            share = tree.predict(inputs)
            if are_given is not None and are_given[:, column].any():
                of_flags = self.trees_of_flags[k].predict(inputs)
                share = np.where(are_given[:, column], of_flags, share)
            is_missing = decide(column, share)
            inputs[:, first + k] = is_missing
            inputs[np.ix_(is_missing, self.features[k])] = 0.0
            yield column, share, is_missing

    def are_lacking(self, schema, values):
        """Return which variables nearly all rows with such values lack, ``(n, n_variables)``."""
        are_lacking = np.zeros(values.shape, dtype=bool)
        inputs = self._inputs(schema, values)
        for column, share, _ in self._flags(inputs, lambda column, share: share >= 0.5):
            are_lacking[:, schema.of_place[column]] = (share >= NEARLY_ALL)[:, None]
        return are_lacking

    def draw(self, schema, values, given, random_state):
        """Return which variables are missing, ``(n, n_variables)``.

        Given values are known, and each row has a known value: patterns that say otherwise are
        drawn again.

        Parameters
        ----------
        schema : Schema
            The columns and their variables.
        values : ndarray of shape (n, n_variables)
            Complete rows.
        given : ndarray of shape (n, n_variables)
            Their given values, NaN for unknown ones.
        random_state : RandomState
            Seeds the draw.
        """
        inputs, last = self._inputs(schema, values), schema.last_of_places
        is_given, is_missing = ~np.isnan(given), np.zeros(values.shape, dtype=bool)
        rows = np.arange(len(values))
        are_given = np.zeros((len(values), len(schema.of_place)), dtype=bool)
        are_given[:, schema.places] = is_given[:, last]
        for _ in range(MAX_ROUNDS):
            drawn = np.zeros((len(rows), values.shape[1]), dtype=bool)
            decide = partial(drawn_flags, random_state)
            for column, _, flags in self._flags(inputs[rows], decide, are_given[rows]):
                drawn[:, schema.of_place[column]] = flags[:, None]
            is_missing[rows] = drawn
            is_empty = drawn[:, last].all(axis=1)
            rows = rows[(drawn & is_given[rows]).any(axis=1) | is_empty]
            if not len(rows):
                break
        is_missing &= ~is_given
        is_missing[is_missing[:, last].all(axis=1)] = False
        return is_missing

    def are_likely(self, schema, values, is_missing, random_state):
        """Return which complete rows are accepted as ones that lack the given variables.

        A row is accepted by its log-ratio relative to the mean of the rows of the fit.
        """
        log_ratios = self._log_ratios(schema, values, is_missing)
        return np.log(random_state.uniform(size=len(values))) < log_ratios - self.log_ratio

    def _log_ratios(self, schema, values, is_missing):
        """Return the log-likelihood of what each row lacks, relative to the shares of all rows.

        Identifiers do not count.
        """
        log_ratios, inputs = np.zeros(len(values)), self._inputs(schema, values)

        def decide(column, share):
            parts = schema.of_place[column]
            return is_missing[:, parts[-1]] if len(parts) else np.zeros(len(values), dtype=bool)

        for tree, (column, share, flags) in zip(
            self.trees, self._flags(inputs, decide), strict=True
        ):
            if column in schema.places:
                of_row, of_all = (
                    np.where(flags, each, 1 - each) for each in (share, tree.share[0])
                )
                log_ratios += np.log(of_row.clip(LEAST_CHANCE) / of_all.clip(LEAST_CHANCE))
        return log_ratios

    def draw_identifiers(self, schema, values, random_state):
        """Return which columns are identifiers that are missing, given rows with missing values."""
        is_missing = np.zeros((len(values), len(schema.of_place)), dtype=bool)

        def decide(column, share):
            if column in schema.places:
                return np.isnan(values[:, schema.of_place[column][-1]])
            return drawn_flags(random_state, column, share)

        for column, _, flags in self._flags(self._inputs(schema, values), decide):
            is_missing[:, column] = flags & (column not in schema.places)
        return is_missing


def drawn_flags(random_state, column, share):
    """Return whether values are missing, drawn with their probabilities."""
    return random_state.uniform(size=len(share)) < share


def rows_of_pattern(is_missing, weight, random_state):
    """Return the rows that a pattern is learnt from, and their weights.

    A sample of the rows with missing values stands for all, and one of the others.
    """
    rows, weights = [], []
    has_missing = is_missing.any(axis=1)
    for group in (np.flatnonzero(has_missing), np.flatnonzero(~has_missing)):
        chosen = np.sort(random_state.permutation(group)[:MAX_ROWS])
        rows.append(chosen)
        weights.append(weight[chosen] * len(group) / max(len(chosen), 1))
    rows, weights = np.concatenate(rows), np.concatenate(weights)
    return rows, weights / weights.mean()


class LevelsWithout(NamedTuple):
    """Levels of a column in whose rows of the fit another column is always missing.

    Attributes
    ----------
    column, other : int
        The column that is missing, and the one of the levels.
    codes : ndarray of int
        The levels.
    n_rows : ndarray of float
        Number of rows of each.
    """

    column: int
    other: int
    codes: np.ndarray
    n_rows: np.ndarray


def levels_without(schema, values, is_missing):
    """Return the levels of other columns in whose rows of the fit a column is always missing.

    Parameters
    ----------
    schema : Schema
        The columns and their variables.
    values : ndarray of shape (n, n_variables)
        The rows of the fit.
    is_missing : ndarray of shape (n, n_columns) of bool
        Which values are missing.

    Returns
    -------
    levels : list of LevelsWithout
        One for each pair of columns that has any.
    """
    lacks = is_missing[:, schema.places]
    columns = np.flatnonzero(lacks.any(axis=0))
    are_known = (~lacks[:, columns]).astype(float)
    log_share = np.log1p(-are_known.mean(axis=0))
    found = []
    for k in columns_of_levels(schema):
        code, n_levels = level_codes(schema, values, k)
        rows = np.flatnonzero((code >= 0) & (code < n_levels))
        entries = np.ones(len(rows)), (code[rows], rows)
        of_level = sparse.csr_array(entries, shape=(n_levels, len(code)))
        n, n_known = of_level.sum(axis=1)[:, None], of_level @ are_known
        is_without = (n_known == 0) & (n >= LEAST_ROWS)
        is_without &= n * log_share < np.log(CHANCE / n_levels)
        for i, is_found in zip(columns.tolist(), is_without.T, strict=True):
            if is_found.any():
                codes = np.flatnonzero(is_found)
                found.append(LevelsWithout(i, k, codes, n[codes, 0]))
    return found


def rows_without(levels, schema, values, k):
    """Return how many rows of each level of column k say that a row like these is not of it.

    A row has a value that all those rows of the fit lack. The counts are of shape
    ``(n, n_levels)``, or None if no column is always missing in any level.
    """
    levels = [each for each in levels if each.other == k]
    if not levels:
        return None
    counts = np.zeros((len(values), schema.columns[k].value_variables[0].n_levels))
    for each in levels:
        is_known = ~np.isnan(values[:, schema.of_column[each.column][-1]])
        counts[np.ix_(is_known, each.codes)] = each.n_rows
    return counts


def blank_columns(schema, levels, values, or_unknown=False):
    """Return which columns all rows of the fit with the same level lack, ``(n, n_columns)``.

    With ``or_unknown``, columns that some levels lack count as blank where the level is unknown.
    """
    are_blank = np.zeros((len(values), len(schema.columns)), dtype=bool)
    for i, k, codes, _ in levels:
        code, _ = level_codes(schema, values, k)
        are_blank[:, i] |= np.isin(code, codes)
        if or_unknown:
            are_blank[:, i] |= np.isnan(values[:, schema.of_column[k][-1]])
    return are_blank


class BlankPattern(NamedTuple):
    """A pattern in which rows lack what all rows of the fit with the same level lack.

    It takes the place of a `MissingPattern` where unknown values are filled in: one that such a row
    would have says nothing about its other values.
    """

    levels: Sequence

    def are_blank(self, schema, values):
        """Return which variables rows lack by their levels, ``(n, n_variables)``."""
        return schema.variables_of(blank_columns(schema, self.levels, values))

    def draw(self, schema, values, given, random_state):
        """Return which variables are missing, as `MissingPattern.draw` does."""
        return self.are_blank(schema, values) & np.isnan(given)

    def are_likely(self, schema, values, is_missing, random_state):
        """Return which complete rows may lack the given variables."""
        return ~(is_missing & ~self.are_blank(schema, values)).any(axis=1)


def warn_of_contradictions(schema, levels, given):
    """Warn of given values beside a level whose rows of the fit all lack such a value."""
    text, columns = "", set()
    for i, k, codes, n_rows in levels:
        code, _ = level_codes(schema, given, k)
        is_known = ~np.isnan(given[:, schema.of_column[i][-1]])
        if (is_both := is_known & np.isin(code, codes)).any():
            column, other = schema.columns[i], schema.columns[k]
            level = code[is_both.argmax()]
            columns.add(i)
            text = text or (
                f"given has {column.name!r} where {other.name!r} is "
                f"{name_of_level(other, level)!r}{among(is_both)}: all "
                f"{n_rows[codes == level][0]:.0f} such rows of fit lack it. Answers about other "
                "columns are unreliable."
            )
    if text:
        warn_user(text + and_more(len(columns) - 1), ColumnWarning)


def warn_of_levels_without(schema, levels, values, drawn=None):
    """Warn of values to fill in where rows of the fit never have one: see `levels_without`.

    Drawn variables have the levels of rows of which only some values are known.
    """
    worst, columns = (0, None, None, None), set()
    for i, k, codes, _ in levels:
        is_unknown = np.isnan(values[:, schema.of_column[i][-1]])
        code, _ = level_codes(schema, values if drawn is None else drawn, k)
        code = code[is_unknown & np.isin(code, codes)]
        columns |= {i} if len(code) else set()
        worst = max(worst, (len(code), i, k, np.unique(code)), key=lambda each: each[0])
    if not columns:
        return
    n, i, k, codes = worst
    column, other = schema.columns[i], schema.columns[k]
    names = listed([name_of_level(other, code) for code in codes], MAX_NAMED)
    where = f"in column {column.name!r} where {other.name!r} is {names}. No such row of fit has"
    if drawn is None:
        remedy = "leave it by keep_blanks=True (--keep-blanks)"
        if column.kind == "categorical":
            remedy += ", or write a category such as 'none' into them before fit"
        text = (
            f"X has {f'{n} missing values' if n > 1 else 'a missing value'} {where} a value there, "
            "so they are filled in from other rows. If a blank means that there is none, "
            f"{remedy}."
        )
    else:
        text = (
            f"Samples have {f'{n} values' if n > 1 else 'a value'} {where} one, so they are drawn "
            "as in other rows. Leave out complete=True (--complete) to keep them missing."
        )
    warn_user(text + and_more(len(columns) - 1), ColumnWarning)


def and_more(n_columns):
    """Return the end of a warning that holds for more columns."""
    return f" The same holds for {n_columns} more column{'s' * (n_columns > 1)}." * (n_columns > 0)


def name_of_level(column, code):
    """Return a level of a column as text."""
    level = column.value_variables[0].levels[code]
    return f"{level:g}" if column.is_number else str(level)


def columns_of_levels(schema):
    """Return the columns of categories and other listed values, except dates."""
    return [
        k
        for k, column in enumerate(schema.columns[: len(schema.places)])  # spans are no columns
        if column.is_levels and column.kind != "datetime"
    ]


def level_codes(schema, values, k):
    """Return the codes of the levels of a column, and the number of levels."""
    (variable,) = schema.columns[k].value_variables
    return variable.code(values[:, schema.of_column[k][-1]]), variable.n_levels
