"""The result of a search for outliers."""

from typing import NamedTuple

import numpy as np

from ..columns.frames import rows_of
from ..outlier import DensityOutlierDetector

MIN_CONTRIBUTION = 0.1  # of an odd column, as a fraction of the oddest one's
RARELY_BROKEN = 0.02  # share of exceptions from which on breaking a rule is nothing odd


class Findings(NamedTuple):
    """The result of a search for outliers."""

    path: object
    reference: object  # path of the rows known to be normal, or None
    fdr: float
    detector: DensityOutlierDetector
    is_table: bool  # whether it takes texts, dates and missing values
    frame: object  # the rows that were judged, indexed as in the file
    names: object  # of all rows of the file, or None
    n_left_out: int  # rows with a missing value
    left_out: list  # columns that are not numeric
    known: object  # the rows that the detector was fitted to
    form: object  # of the file
    scores: np.ndarray
    p_values: np.ndarray
    outlier: np.ndarray
    oddest: np.ndarray  # indices of the flagged and other odd rows, the oddest first
    explained: np.ndarray  # the first of these, which are explained by their own score
    # Contributions of the columns of all rows; to a simpler score for rows not explained.
    contributions: np.ndarray
    partners: np.ndarray  # of all rows, the column that is odd only with the oddest one, or -1
    broken: list  # rules that nearly all rows follow, as texts, each with the rows that break it
    seconds: float


def breaks_of(density, table):
    """Yield each rule of a density of tables, as text, with its exceptions in fit and in a table.

    These are a share, and a mask of the rows that break the rule.
    """
    schema = density._schema
    values = schema.split(schema.encoding.rows(rows_of(table), [*table]), [*table])
    rows = schema.rules.encoded(schema, values)
    for rule in schema.rules:
        yield rule.text(schema.names), rule.counts.share, rule.is_broken(rows)


def broken_rules(density, table, most):
    """Return the rules that few rows of a table break, and these rows, the fewest first.

    A rule has few exceptions in the rows of the fit, and at most this share of them in the table.
    """
    broken = [
        (text, np.flatnonzero(is_broken))
        for text, share, is_broken in breaks_of(density, table)
        if is_broken.any() and share <= RARELY_BROKEN and is_broken.mean() <= most
    ]
    return sorted(broken, key=lambda each: len(each[1]))


def odd_parts(contributions, partner):
    """Return what makes a row odd, the oddest first: columns, and a pair odd only together."""
    first, *others = odd_columns(contributions)
    if partner < 0:
        return [(column,) for column in (first, *others)]
    return [(first, partner), *((column,) for column in others if column != partner)]


def odd_columns(contributions):
    """Return the columns that make a row odd, the oddest first.

    The score of the row from which the explanation starts is shared by all columns, and does not
    count.
    """
    order = np.argsort(contributions, kind="stable")
    with np.errstate(invalid="ignore"):
        shares = np.median(contributions) - contributions[order]
    return order[: max(1, (shares >= MIN_CONTRIBUTION * shares[0]).sum())]
