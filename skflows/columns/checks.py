"""Warnings about columns that mean little as they are, which point to the code of the user."""

import re
import sys
import warnings
from difflib import get_close_matches

import numpy as np
from scipy.linalg import qr, solve_triangular

from .arrays import key_of, listed, reads_as_number, some_rows
from .dates import ISO_DATE, moment_text
from .formats import other_forms, other_than_number
from .lattice import smallest_gap

CHECKED_VALUES = 2**20  # of a table: a sample of the rows shows what is wrong with all
MANY_COLUMNS = 300  # beyond which a QR decomposition takes too long
MORE_ROWS = 10  # than columns: with few different ones, a column is a function of the others
EXACT = 1e-4  # largest residual, in standard deviations, whatever the rounding errors
NO_COEFFICIENT = 1e-4
MAX_NAMED = 5
FEWEST = 5  # rows with a value that was filled in
NEAR_MEAN = 0.1  # standard deviations between that value and the mean of the others
ON_LATTICE = 1e-3  # distance to a whole number of gaps
MANY_ROWS, DIFFERENT = 20, 0.5  # rows, and the share of different texts, that show what names rows
MANY_CATEGORIES = 1_000  # too many to compare a text with all of them
PADDED = re.compile(r"0\d+")  # a code with leading zeros
YEARS = 1800, 2100  # between which consecutive whole numbers may be years
FAR_MORE_OFTEN = 5  # times as often as any other value, for a column without a lattice
MOST_DATES, FAR_DATES = (0.1, 0.9), 3.0  # quantiles, and ranges of these beyond them
MINUS, SIGN = "[-+\u2212]?", r"(US\$|[$€£¥%])"
GROUPS = r"(\d{1,3}(,\d{3})+|\d{1,3}('\d{3})+)"  # of thousands
POINTS = r"(\d{1,3}(\.\d{3})+|\d+),\d+|\d{1,3}(\.\d{3}){2,}"  # and a decimal comma, as in Europe
AMOUNT = rf"(({GROUPS}|\d{{1,3}}(\s\d{{3}})+|\d+|(?=\.\d))(\.\d+)?|{POINTS})"
# Without a sign, blanks and several commas may as well separate parts of a name or of a list.
NUMBER = re.compile(
    rf"{MINUS}({SIGN}\s?{MINUS}{AMOUNT}|{AMOUNT}\s?{SIGN}|{GROUPS}(\.\d+)?|{POINTS})"
)
LAST_COMMA = re.compile(r",\d+\D*$")  # the decimal mark, or one of thousands
DAY, MONTH = "(0?[1-9]|[12][0-9]|3[01])", "(0?[1-9]|1[0-2])"
YEAR = r"(\d{4}|(?<=\d\d.\d\d.)\d\d)"  # of two digits only if day and month have two too
DATE = re.compile(
    "|".join(
        f"{first}[{sep}]{second}[{sep}]{third}([T ]|$)"
        for sep in "./-"
        for first, second, third in (
            (r"\d{4}", MONTH, DAY),
            (DAY, MONTH, YEAR),
            (MONTH, DAY, YEAR),
        )
    )
)


class ColumnWarning(UserWarning):
    """A warning about the columns of a table; the parts of an ensemble do not repeat it."""


def column_problems(X, discrete, names=None):
    """Return what is wrong with columns, as texts.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        The rows.
    discrete : array-like of int
        The columns that have noise added: they may depend on one another, as dummy columns do.
    names : array-like of str, default=None
        The names of the columns.
    """
    n, d = X.shape
    n_checked = max(CHECKED_VALUES // d, 2 * d + MORE_ROWS)
    rows = np.asarray(X if n <= n_checked else X[some_rows(n, n_checked)])
    return [*linear_functions(rows, discrete, names), *filled_in_values(rows, names)]


def linear_functions(X, discrete, names):
    """Yield a text for each column that is an exact linear function of others."""
    varies = np.flatnonzero(np.ptp(X, axis=0) > 0)
    if not 2 <= len(varies) <= MANY_COLUMNS or len(X) < len(varies) + MORE_ROWS:
        return
    unit = X[:, varies].astype(np.float64)
    unit /= np.abs(unit).max(axis=0)
    centred = unit - unit.mean(axis=0)
    scale = np.sqrt((centred**2).mean(axis=0))
    # Values are exact up to rounding, which is larger for a column far from zero.
    error = np.minimum(EXACT, 1e2 * np.finfo(X.dtype).eps / scale)
    R, pivots = qr(centred / scale, mode="r", pivoting=True)
    rank = int((np.abs(np.diag(R)) > error[pivots] * np.sqrt(len(X))).sum())
    if rank < len(varies) and len(np.unique(X, axis=0)) < len(varies) + MORE_ROWS:
        return
    coefficients = solve_triangular(R[:rank, :rank], R[:rank, rank:])
    for column, weights in zip(pivots[rank:], coefficients.T, strict=True):
        others = pivots[:rank][np.abs(weights) > NO_COEFFICIENT]
        involved = varies[[column, *others]]
        if np.isin(involved, discrete).all():
            continue
        first, *rest = (key_of(j, names) for j in involved)
        listed = rest if len(rest) <= MAX_NAMED else f"{len(rest)} others"
        yield (
            f"The column {first!r} is an exact linear function of {listed}: the likelihood is "
            "unbounded, and log-densities mean nothing. Drop the column."
        )


def filled_in_values(X, names):
    """Yield a text for each column in which missing values seem to be replaced by the mean."""
    for j, column in enumerate(X.T):
        values, counts = np.unique(column, return_counts=True)
        most = counts.argmax()
        others, value = np.delete(values, most), float(values[most])
        if counts[most] < FEWEST or len(others) < FEWEST:
            continue
        rest = column[column != value].astype(np.float64)
        with np.errstate(all="ignore"):  # of values that overflow
            is_near = abs(value - rest.mean()) <= NEAR_MEAN * rest.std()
        if not is_near:
            continue
        times = counts[most] / np.delete(counts, most).max()
        fits = fits_lattice(value, others)
        if times >= FAR_MORE_OFTEN if fits is None else times > 1 and not fits:
            yield (
                f"{counts[most] / len(X):.1%} of the rows have the value {value:.6g} in the column "
                f"{key_of(j, names)!r}, near its mean, as if missing values had been replaced by "
                "it: the density has a spike there. Leave these rows out, or fill them in by "
                "draws, for example by IterativeImputer(sample_posterior=True)."
            )


def fits_lattice(value, others):
    """Whether a value is a multiple of the gap between others, or None if they have no such gap."""
    gap = smallest_gap(others)
    steps = (others - others[0]) / gap
    if np.abs(steps - np.rint(steps)).max() >= ON_LATTICE:
        return None
    step = (value - others[0]) / gap
    return bool(abs(step - np.rint(step)) <= 10 * ON_LATTICE)


def names_rows(values):
    """Return whether values are consecutive whole numbers, each once, or texts that hardly repeat.

    More than half of such texts differ. Years, and dates, prices and numbers as texts, may differ
    without being names, but not codes with leading zeros.
    """
    if len(values) < MANY_ROWS:
        return False
    if values.dtype.kind in "iuf":
        low, high = values.min().item(), values.max().item()  # Python's integers do not overflow
        if high - low != len(values) - 1 or (YEARS[0] <= low and high <= YEARS[1]):
            return False
        return bool((values % 1 == 0).all() and len(np.unique(values)) == len(values))
    texts, least = {value for value in values if isinstance(value, str)}, DIFFERENT * len(values)
    if len(texts) > least:
        texts = {text for text in texts if PADDED.fullmatch(text) or not reads_as_number(text)}
    if len(texts) <= least or dates_among(texts) or numbers_among(texts):
        return False
    return other_forms(sorted(texts))[0] is None


def dates_among(texts):
    """Return a date and a text that is none in ISO 8601, if most of the texts look like dates."""
    distinct = sorted(set(texts))
    dates = [text for text in distinct if DATE.match(text)]
    if 2 * len(dates) <= len(distinct):
        return []
    others = [text for text in distinct if not ISO_DATE.match(text)]
    return list(dict.fromkeys([dates[0], *others[:1]]))


def numbers_among(texts):
    """Return a number with a sign, groups or a decimal comma, if most of the texts are such.

    Signs are $, €, £, ¥ and %; groups separate thousands.
    """
    distinct = sorted(set(texts))
    numbers = [text for text in distinct if NUMBER.fullmatch(text.strip())]
    return numbers[:1] if 2 * len(numbers) > len(distinct) else []


INTERNAL = ("skflows.", "sklearn.", "contextlib", "joblib.")


def warn_user(message, category=UserWarning):
    """Warn at the line outside of this package and scikit-learn that called them."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(INTERNAL):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def among(mask):
    """Return how many of several rows a mask has, as the end of a text."""
    return f" in {mask.sum()} of {len(mask)} rows" if len(mask) > 1 else ""


def warn_of_far_dates(name, moments):
    """Warn of the first date that is far from nearly all others, which is mostly a mistake."""
    if not len(moments):
        return
    low, high = np.quantile(moments, MOST_DATES)
    far = FAR_DATES * (high - low)
    is_far = (moments < low - far) | (moments > high + far)
    others = moments[~is_far]
    # Dates of things that become rare with their age have no gap.
    gap = np.abs(moments[is_far, None] - np.array([others.min(), others.max()])).min(initial=np.inf)
    if is_far.any() and gap >= far / 2 > 0:
        warn_user(
            f"The column {name!r} has the date {moment_text(moments[is_far.argmax()])}"
            f"{among(is_far)}, far from all others, {moment_text(others.min())} to "
            f"{moment_text(others.max())}. If it is a mistake, correct it before the fit, or leave "
            "it empty: it is a part of what the fit learns.",
            ColumnWarning,
        )


def warn_of_other_dates(columns):
    """Warn of the first column of dates most of which lie before or after all dates of the fit.

    Parameters
    ----------
    columns : iterable of tuple of (str, ndarray, tuple of (float, float))
        Names of columns, their dates, and the first and the last date of the fit, in seconds.
    """
    for name, moments, (first, last) in columns:
        for where, are_others in (("before", moments < first), ("after", moments > last)):
            if are_others.sum() > len(moments) / 2:
                warn_user(
                    f"X has dates {where} all dates of fit in column {name!r}{among(are_others)}; "
                    f"they were {moment_text(first)} to {moment_text(last)}. Such a row is unlike "
                    "all rows of fit, whatever its other values. If new dates are usual, leave "
                    "this column out of the fit.",
                    ColumnWarning,
                )
                return


def results_of_each(functions, *args):
    """Return what functions of the same rows return; only the first warns of their columns."""
    results = []
    for i, function in enumerate(functions):
        with warnings.catch_warnings():
            if i:
                warnings.simplefilter("ignore", ColumnWarning)
            results.append(function(*args))
    return results


def warn_of_columns(estimator, X, discrete):
    """Warn of columns under which a likelihood has no meaning (see `column_problems`)."""
    ignored = ("ignore", None, ColumnWarning, None)
    if ignored in [filter[:4] for filter in warnings.filters]:
        return  # a part of an estimator that has looked already: looking takes time
    for text in column_problems(X, discrete, getattr(estimator, "feature_names_in_", None)):
        warn_user(text, ColumnWarning)


def warn_of_row_names(columns, path=None):
    """Warn of columns that number or name the rows, and return the names of these columns.

    Columns are a dict of their known values. The command gives the path of their file.
    """
    if row_names := [name for name, values in columns.items() if names_rows(values)]:
        of, remedy = "X", "leave them out"
        if path is not None:
            of, remedy = path, "exclude them with --exclude, or one with --id"
        warn_user(
            f"these columns of {of} seem to identify rows: {listed(row_names, MAX_NAMED)}; "
            f"{remedy}, unless their values mean something",
            ColumnWarning,
        )
    return row_names


def warn_of_identifiers(columns):
    """Warn of columns of texts that a density of tables leaves out, because they name the rows.

    A dict by their names says how many texts differ.
    """
    names = list(columns)
    if len(names) == 1:
        seem, are = (
            f"column {listed(names)} seems to name the rows, since {columns[names[0]]}",
            "It is",
        )
    else:
        first = ", ".join(f"{str(name)!r}: {columns[name]}" for name in names[:MAX_NAMED])
        more = ", ..." * (len(names) > MAX_NAMED)
        seem, are = f"columns {listed(names, MAX_NAMED)} seem to name the rows", "They are"
        seem = f"{seem} ({first}{more})"
    warn_user(
        f"The {seem}. {are} left out of the model, and samples have placeholders. If the texts "
        f"mean something, use columns={{{names[0]!r}: 'categorical'}}.",
        ColumnWarning,
    )


def warn_of_blanks(names, others):
    """Warn of columns whose missing values count as 0, because sums with other columns say so."""
    is_one = len(names) == 1
    warn_user(
        f"A missing value in {'column' if is_one else 'columns'} {listed(names, MAX_NAMED)} counts "
        f"as 0, as sums with {listed(others, MAX_NAMED)} show; samples leave 0 blank if all rows "
        f"do. If it is an unknown value, use columns={{{names[0]!r}: 'continuous'}}.",
        ColumnWarning,
    )


def warn_of_empty(names, n_rows):
    """Warn of columns without a known value, which a density of tables leaves out."""
    which, have, they = "column", "has", "it is"
    if len(names) > 1:
        which, have, they = "columns", "have", "they are"
    warn_user(
        f"The {which} {listed(names, MAX_NAMED)} {have} no known value in {n_rows} rows: {they} "
        "left out of the model, and missing in samples.",
        ColumnWarning,
    )


def warn_of_gaps(names):
    """Warn that missing values in columns of numbers make an outlier detector much slower."""
    warn_user(
        f"X has missing values in {listed(names, MAX_NAMED)}: the detector fits a TableDensity, "
        "which takes about ten times as long as the default for complete rows. Impute the values, "
        "or leave these rows or columns out, if they do not matter.",
        ColumnWarning,
    )


def warn_of_texts(name, texts):
    """Warn of a column of texts most of which look like dates or numbers, and return such dates."""
    if dates := dates_among(texts):
        warn_user(
            f"The column {name!r} holds dates as texts, such as {' and '.join(map(repr, dates))}, "
            "which are taken for categories: convert it by pandas.to_datetime or, in a file, write "
            "all dates as in 2024-12-31.",
            ColumnWarning,
        )
    elif (other := other_than_number(texts)) is not None:
        warn_user(
            f"The column {name!r} is modelled as categories, since {other!r} is not a number. If "
            f"it holds numbers, use columns={{{name!r}: 'continuous'}}: other entries are read as "
            "missing.",
            ColumnWarning,
        )
    elif (form := other_forms(texts))[0] is not None:
        example, others = form
        which, have, them = f", {others[0]!r},", "has", "it"
        if len(others) > 1:
            which, have, them = f", such as {others[0]!r},", "have", "them"
        warn_user(
            f"{len(others)} of {len(texts)} values of column {name!r}{which} {have} another form "
            f"than {example!r}; such a column is categories. Write {them} in this form, or leave "
            f"{them} empty.",
            ColumnWarning,
        )
    elif numbers := numbers_among(texts):
        hint = ""
        if LAST_COMMA.search(numbers[0]):
            hint = (
                " If the comma is the decimal mark, read the file by --decimal , in the command "
                "line, or by pandas.read_csv(..., decimal=',')."
            )
        warn_user(
            f"The column {name!r} holds numbers as texts, such as {numbers[0]!r}, which are taken "
            "for categories: convert it to numbers: leave out currency signs, % and thousands "
            f"separators.{hint}",
            ColumnWarning,
        )
    return dates


def did_you_mean(value, categories):
    """Return a question for the category that a text may be a mistyped form of, or ''."""
    if not isinstance(value, str) or len(categories) > MANY_CATEGORIES:
        return ""
    texts = {each.lower(): each for each in categories if isinstance(each, str)}
    close = get_close_matches(value.lower(), texts, 1)
    return f"did you mean {texts[close[0]]!r}?" if close else ""


def unseen_error(name, values, categories):
    """Return the error for the values of a column whose categories the fit has not seen."""
    names = sorted({str(value) for value in values})
    hint = did_you_mean(names[0], categories) if len(names) == 1 else ""
    return ValueError(
        f"column {name!r} has categories that fit has not seen: {names[:10]}"
        f"{' and more' if len(names) > 10 else ''}{hint and f' ({hint})'}. Map them to known ones, "
        "or set handle_unknown='warn' or 'rare' before fit."
    )


def warn_of_unseen(unseen, n_rows, encoding):
    """Warn of categories that an encoding has not seen: a dict of the values of some columns."""
    texts = []
    for name, values in list(unseen.items())[:3]:
        rows = f"{len(values)} of {n_rows} rows" if n_rows > 1 else ""
        hint = did_you_mean(values[0], encoding.categories_of(name))
        details = "; ".join(filter(None, [rows, hint]))
        texts.append(f"{values[0]!r} in column {name!r}{details and f' ({details})'}")
    if texts:
        warn_user(
            f"X has categories that fit has not seen, such as {' and '.join(texts)}"
            f"{f' and {len(unseen) - 3} more columns' if len(unseen) > 3 else ''}. They get the "
            "probability of unseen categories, and say little or nothing about other columns.",
            ColumnWarning,
        )
