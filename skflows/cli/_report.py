"""The report of ``skflows outliers --report``."""

from collections import Counter
from dataclasses import replace
from html import escape
from textwrap import shorten

import numpy as np
from scipy import stats

from ..calibration.ranks import least_p_value
from ..columns.arrays import is_missing
from ..columns.dates import seconds_of
from ..columns.formats import NumberFormat
from ..columns.lattice import decimals_of
from ..inspection import ExplanationDisplay, OutlierScoreDisplay, PValueDisplay
from ._findings import odd_columns, odd_parts
from ._page import breakable, number_cell, page, picture, table

MAX_LISTED = 200  # rows of the table
N_DRAWN = 4  # rows whose columns are drawn
N_REASONS = 3
MAX_BREAKS = 10  # rows that break a rule, whose names are listed
MAX_COLUMNS, MAX_CELL = 10, 40  # columns of the table, and characters of a cell
N_COMMON = 2  # texts that are named as usual
BULK = 0.25  # p-values above it are treated as inliers'
SUSPICIOUS = 0.01  # p-value of the test that these are uniform
HARMLESS = 0.1  # distance from uniform, which many rows show, and on which few flags depend
MIN_SHOWN = 1e-6  # p-value
FEW = 200  # rows: with fewer, the tail of their scores is hardly known

SCORES = {  # of numbers, and of tables with texts or missing values
    False: "the logarithm of the harmonic mean of the p-values of four detectors",
    True: "a log-density, in nats",
}


def report(found):
    """Return the page as text."""
    sections = [
        *([("Rows that break a rule", rule_table(found))] if found.broken else []),
        ("The oddest rows", oddest_rows(found)),
        ("How sure", how_sure(found)),
        ("Why they are odd", why(found)),
        ("Health of the fit", health(found)),
    ]
    doubts = " ".join(doubts_about(found)).replace("--reference", "<code>--reference</code>")
    note = f" in {found.seconds:.0f} s. A score is {SCORES[found.is_table]}."
    summary = verdict(found)
    if found.broken:
        n_broken = len(np.unique(np.concatenate([rows for _, rows in found.broken])))
        verb = "row breaks" if n_broken == 1 else "rows break"
        summary += f" {n_broken:,} {verb} a rule that nearly all others follow."
    return page(f"Outliers of {found.path.name}", summary, sections, note, doubts)


def verdict(found):
    n_flags, n = int(found.outlier.sum()), len(found.scores)
    if not n_flags:
        text = f"None of the {n:,} rows is flagged"
        least = least_p_value(found.detector.null_)
        if (found.p_values <= least).any():
            return (
                f"{text}, although some have the smallest possible p-value: with so few rows to "
                f"compare with, no p-value is below {least:.2g}, and a false discovery rate of "
                f"{found.fdr:.3g} requires {found.fdr / n:.2g}. Give "
                + ("a larger reference." if found.reference else "<code>--reference</code>.")
            )
        return f"{text}: none is odd enough for a false discovery rate of {found.fdr:.3g}."
    expected = found.fdr * n_flags
    most = "fewer than 1" if expected < 1 else f"about {round(expected):,} or fewer"
    verb = "is" if n_flags == 1 else "are"
    doubt = "" if found.reference else ", if the curve below holds"
    return (
        f"<strong>{n_flags:,} of {n:,} rows {verb} odd enough to check</strong>. Expect that "
        f"{most} of these are in order (a false discovery rate of {found.fdr:.3g}"
        f"{doubt}). {most_odd(found)}"
    )


def most_odd(found):
    """Return which columns make the most flagged rows odd, as a sentence."""
    rows = np.flatnonzero(found.outlier)
    first = [found.frame.columns[odd_columns(found.contributions[row])[0]] for row in rows]
    counts = Counter(first).most_common(N_REASONS)
    named = [f"{escape(str(name))} ({count:,})" for name, count in counts]
    return f"Most often odd: {', '.join(named)}."


def doubts_about(found):
    """Return reasons to doubt the flags, as sentences."""
    doubts = []
    if found.reference is None and len(found.scores) < FEW:
        doubts.append(
            f"There are only {len(found.scores)} rows: on such small tables the curve behind the "
            "p-values is little more than a guess."
        )
    if doubt := doubt_about_bulk(found.p_values):
        doubts.append(doubt)
    if found.reference is None and found.outlier.any():
        doubts.append(
            "The p-values of flagged rows extrapolate a curve, which this table cannot verify. For "
            "a guarantee, give rows known to be normal with --reference."
        )
    return doubts


def how_sure(found):
    if found.reference is None:
        basis = (
            "The rows were judged by detectors that had not seen them. Their p-values come from a "
            "curve that fits the more normal three quarters of the table and is extrapolated to "
            "the lower tail."
        )
    else:
        basis = (
            f"The p-values are ranks among rows of {escape(found.reference.name)} that the fit had "
            "not seen (conformal prediction). If those rows are normal, the false discovery rate "
            "holds almost exactly, whatever the quality of the fit; not strictly, because each "
            "row was left out of the detectors alone, not of the scaling of the columns."
        )
    flags = "; rows below the line are flagged" if found.outlier.any() else ""
    scores = OutlierScoreDisplay.from_predictions(found.scores, threshold=lowest_kept(found))
    p_values = PValueDisplay.from_predictions(found.p_values)
    return (
        f"<p>{basis}</p>\n<div class='pictures'>\n"
        + picture(scores, "Scores of all rows" + flags + ".")
        + picture(p_values, "P-values of all rows: inliers alone would follow the diagonal.")
        + "</div>"
    )


def lowest_kept(found):
    """Return the score below which rows are flagged, if any are."""
    kept = found.scores[~found.outlier]
    return float(kept.min()) if found.outlier.any() and len(kept) else None


def row_name(found, row):
    """Return the name of a judged row, or its number in the file, counted from 1."""
    index = found.frame.index[row]
    return str(index + 1) if found.names is None else found.names[index]


def named_rows(found, rows):
    """Return the names of the first rows of some, as text."""
    names = [row_name(found, row) for row in rows[:MAX_BREAKS]]
    more = f" and {len(rows) - MAX_BREAKS} more" if len(rows) > MAX_BREAKS else ""
    what = "" if found.names is not None else "row " if len(rows) == 1 else "rows "
    return f"{what}{', '.join(names)}{more}"


def rule_table(found):
    """Return the table of the rules that few rows break."""
    lines = [
        f"<tr><td>{escape(text)}</td><td>{escape(named_rows(found, rows))}</td></tr>"
        for text, rows in found.broken
    ]
    return (
        "<p>Nearly all other rows follow these rules. Breaking one of them is odd, even if nothing "
        "else in a row is.</p>\n" + table([("rule", False), ("broken by", False)], lines)
    )


def oddest_rows(found):
    names = [escape(str(name)) for name in found.frame.columns]
    texts = column_texts(found)
    pairs = zip(found.frame, texts, strict=True)
    mark = found.form.decimal
    usual = [escape(usual_values(found.known[name], text)) for name, text in pairs]

    def described(row, columns):
        values = " <em>with</em> ".join(
            f"{names[j]} = {escape(texts[j](found.frame.iat[row, j]))} "
            f"<span class='usual'>({usual[j]})</span>"
            for j in columns
        )
        return values if len(columns) == 1 else f"{values}, odd only together"

    listed = found.oddest[:MAX_LISTED]
    reasons = {
        row: odd_parts(found.contributions[row], found.partners[row])[:N_REASONS] for row in listed
    }
    odd = {row: {j for columns in parts for j in columns} for row, parts in reasons.items()}
    shown = most_frequent(odd.values(), len(names))
    is_number = [found.frame[name].dtype.kind in "iuf" for name in found.frame]
    head = [(name, True) for name in ("row", "score", "p&#8209;value")]
    head.append(("odd columns, and the range of 90 % of the rows", False))
    head += [(breakable(found.frame.columns[j]), is_number[j]) for j in shown]
    lines = []
    for row in listed:
        why = "; ".join(described(row, columns) for columns in reasons[row])
        cells = [
            f"<td class='number'>{escape(row_name(found, row))}</td>",
            number_cell(found.scores[row], f"{found.scores[row]:.1f}".replace(".", mark)),
            number_cell(found.p_values[row], p_value(found.p_values[row]).replace(".", mark)),
            f"<td class='why'>{why}</td>",
        ]
        for j in shown:
            value = found.frame.iat[row, j]
            text = escape(shorten(texts[j](value), MAX_CELL, placeholder=" …"))
            number = float(value) if is_number[j] and not is_missing(value) else None
            cells.append(number_cell(number, text, is_number[j], is_odd=j in odd[row]))
        flagged = " class='flagged'" if found.outlier[row] else ""
        lines.append(f"<tr{flagged}>{''.join(cells)}</tr>")
    hidden = found.outlier.sum() - len(listed)
    more = f" {hidden:,} more flagged rows are in the output." if hidden > 0 else ""
    if len(shown) < len(names):
        more += f" The {len(shown)} columns that are odd most often are shown."
    names_of = "Row 1 is the first one below the column names."
    if found.names is not None:
        names_of = f"Rows have the names of the column {escape(str(found.names.name))}."
    return (
        f"<p>{names_of} An orange edge marks a flag, and orange cells are odd. A value "
        f"within its range can be odd given the other values of its row.{more} Click on a name to "
        "sort by it.</p>\n" + table(head, lines)
    )


def most_frequent(odd, n_columns):
    """Return the columns to show: all of a narrow table, otherwise those most often odd."""
    if n_columns <= MAX_COLUMNS:
        return range(n_columns)
    counts = Counter(j for columns in odd for j in columns)
    return sorted(j for j, _ in counts.most_common(MAX_COLUMNS))


def usual_values(column, text):
    """Return the range of 90 % of a column, or its most common texts with their shares."""
    known = column.dropna()
    if not len(known):
        return "none"
    if column.dtype.kind in "iufMm":
        low, high = (known.quantile(q, interpolation="nearest") for q in (0.05, 0.95))
        return f"{text(low)} to {text(high)}"
    shares = known.astype(object).value_counts(normalize=True).head(N_COMMON)
    texts = (shorten(text(value), MAX_CELL, placeholder=" …") for value in shares.index)
    return ", ".join(f"{each} ({share:.0%})" for each, share in zip(texts, shares, strict=True))


def column_texts(found):
    """Return a function for each column that writes its values as its file does."""
    return [text_as(found.form, name, column) for name, column in found.frame.items()]


def text_as(form, name, column):
    """Return a function that writes values of a column as a file of a form does."""
    format, kind = form.format_of(name), column.dtype.kind
    role = getattr(format, "role", None)
    if role == "number" and kind in "iuf" and not hides_digits(format, column):
        numbers = list
    elif role == "datetime" and kind == "M" and column.dt.tz is None:
        numbers = seconds_of
    else:
        return value_text(column, form.decimal)
    return lambda value: "missing" if is_missing(value) else format.write(numbers([value]))[0]


def hides_digits(format, column):
    """Return whether numbers have more decimals than a format, which the first lines tell."""
    if not isinstance(format, NumberFormat):
        return False
    known = column.dropna().to_numpy(dtype=np.float64)
    decimals = decimals_of(known) if len(known) else None
    return decimals is None or decimals > format.decimals


def amount_text(form, name):
    """Return a function that writes differences of a column's numbers, with three digits or more.

    They are amounts as the file writes them, but not times of day.
    """
    format = form.format_of(name)
    if not isinstance(format, NumberFormat) or format.exponent:
        format = NumberFormat(decimal=form.decimal)

    def text(value):
        magnitude = int(np.floor(np.log10(abs(value)))) if value and np.isfinite(value) else 0
        decimals = max(format.decimals, 2 - magnitude)
        return replace(format, decimals=decimals, style="fixed").write([value])[0]

    return text


def value_text(column, decimal="."):
    """Return a function that writes values of a column without a format, for a reader."""
    known, spec = column.dropna(), ""
    if column.dtype.kind == "M":
        has_clock = (known != known.dt.normalize()).any()
        spec = "%Y-%m-%d %H:%M" if has_clock else "%Y-%m-%d"
    elif column.dtype.kind in "iuf":
        decimals = decimals_of(known.to_numpy(dtype=np.float64)) if len(known) else None
        spec = ".6g" if decimals is None else f".{decimals}f"
        return lambda x: "missing" if is_missing(x) else f"{x:{spec}}".replace(".", decimal)
    return lambda value: "missing" if is_missing(value) else f"{value:{spec}}"


def p_value(value):
    """Return a p-value as text; the exact value of a tiny one means nothing."""
    return "&lt;&nbsp;1e-6" if value < MIN_SHOWN else f"{value:.2g}"


def why(found):
    if not len(found.explained):
        return "<p>The table has too many columns to compute their contributions to the score.</p>"
    texts = column_texts(found)
    drawn = []
    for row in found.explained[:N_DRAWN]:
        display = ExplanationDisplay.from_predictions(
            found.contributions[row],
            values=[text(value) for text, value in zip(texts, found.frame.iloc[row], strict=True)],
            feature_names=[str(name) for name in found.frame.columns],
            max_features=6,
        )
        drawn.append(picture(display, f"Row {escape(row_name(found, row))}"))
    return (
        "<p>Contributions: how the score changes when a similar normal row takes the values of the "
        "odd one, column by column. They add up to the score under the model that explains, not to "
        "the score above: it has seen all rows of the fit, or, in a table with texts or missing "
        "values, the ones that are not flagged.</p>\n"
        "<div class='pictures'>" + "".join(drawn) + "</div>"
    )


def health(found):
    n, d = found.known.shape
    facts = [f"Fitted to {n:,} rows of {d} columns."]
    if found.n_left_out:
        facts.append(f"Rows with missing values, which were not judged: {found.n_left_out:,}.")
    if found.left_out:
        names = ", ".join(escape(str(name)) for name in found.left_out)
        facts.append(f"Columns that were left out: {names}.")
    facts.append(uniformity(found.p_values))
    return "<ul>" + "".join(f"<li>{fact}</li>" for fact in facts) + "</ul>"


def uniformity(p_values):
    """Return how the p-values of most rows are distributed, as text."""
    share = (p_values > BULK).mean()
    is_uniform = not doubt_about_bulk(p_values)
    text = "uniform among them, as they should be" if is_uniform else "not uniform among them"
    return (
        f"{share:.0%} of the rows have p-values above {BULK}; with inliers only, it would be "
        f"{1 - BULK:.0%}. The p-values are {text}. (This says nothing about the lower tail.)"
    )


def doubt_about_bulk(p_values):
    """Return a doubt if the p-values of most rows are unlike inliers', as text or ""."""
    bulk = p_values[p_values > BULK]
    if len(bulk) < 2:
        return "Hardly any row resembles the rows of the fit: check the data before the flags."
    test = stats.kstest((bulk - BULK) / (1 - BULK), "uniform")
    if test.pvalue >= SUSPICIOUS or test.statistic < HARMLESS:
        return ""
    return (
        "The number of flags is doubtful: the p-values of ordinary rows are not uniform "
        f"(p = {test.pvalue:.1g}). The rows may be few, repeated, or different as a whole from the "
        "rows of the fit."
    )
