"""The command ``skflows outliers``: which rows of a table are odd, how surely, and why."""

import time
import warnings
from textwrap import shorten

import numpy as np

from ..callbacks._progress import with_lines
from ..columns.arrays import is_missing
from ..table import TableDensity
from ._cells import NAMIBIA
from ._columns import (
    REMEDY_OF_FIT,
    Gaps,
    check_columns,
    check_free,
    chosen_columns,
    complete_numbers,
    ids,
    left_out,
    needs_table,
    numbers,
    numeric_columns,
    select,
    used,
    with_dates,
    without_identifiers,
)
from ._forms import hints_of, kinds_in
from ._page import check_report, write_report
from ._progress import (
    QUICK_SECONDS,
    announce,
    limit_of_user,
    print_status,
    progress_bars,
    with_progress,
)
from ._score import encoding_of, warn_of_unseen
from ._tables import (
    check_writable,
    import_pandas,
    is_csv,
    open_table,
    say,
    shown,
    writing,
)

TABLE_SECONDS = 30  # of the fit to a table with texts or missing values
QUICK = {"time_limit": QUICK_SECONDS, "n_orders": 1, "cv": 2}
N_ODDEST = 25  # rows, at least, that the report lists and, unless this takes long, scores explain
# Such explanations take time in proportion to rows x columns^2 x models: this many, half a minute.
MAX_EXPLAINED = 2_000_000
MOST_FLAGGED = 0.5  # share of the rows, up to which the others tell what is odd in them
SAME_REFERENCE = (
    "{} is the data table itself: rows used in the fit cannot be distinguished from normal ones. "
    "Give other rows that are known to be normal, or leave --reference out"
)
N_PRINTED, N_PRINTED_REASONS, MAX_CELL = 5, 3, 40  # rows without a flag, columns, characters
ADDED = ["score", "p_value", "outlier", "oddest_column", "second_oddest_column", "odd_only_with"]
ADDED += ["broken_rule"]


def run_outliers(args):
    """Find outliers, and write the table with their flags, and the report."""
    inputs = [args.data, *([args.reference] if args.reference else [])]
    check_writable(args.output, *inputs)
    check_report(args, *inputs)
    if args.reference is not None and args.reference.resolve() == args.data.resolve():
        raise ValueError(SAME_REFERENCE.format(args.data))
    known, form, hints = None, None, hints_of(args)
    settings = {"used": used(args), "kept": left_out(args), "hints": hints}
    if args.reference is not None:
        reference = open_table(args.reference, args.sep, args.decimal, **settings)
        known, form = reference.read(), reference.form
    settings |= {"form": form} | texts_in(known)
    source = open_table(args.data, args.sep, args.decimal, **settings)
    check_columns(args, source)
    if source.exceeds(args.memory_limit):
        return flag_in_batches(args, source, known)
    table = source.read()
    frame, is_table = judged_columns(args, table, known)
    is_table |= bool(hints.kinds)
    if not is_table:
        frame = complete_numbers(frame, args.data, args.columns and [*frame], remedy=REMEDY_OF_FIT)
    if known is None:
        known = frame
    else:
        known = known_rows(args, known, [*frame], is_table)
        if known.equals(frame):
            raise ValueError(SAME_REFERENCE.format(args.reference))
    kinds = kinds_in(frame, source.form, hints)
    findings = find_outliers(args, table, frame, known, source.form, is_table, kinds)
    added = added_columns(
        frame,
        findings.scores,
        findings.p_values,
        findings.outlier,
        findings.contributions,
        findings.partners,
        findings.broken,
    )
    raw = table
    if source.has_cells and (args.output is None or is_csv(args.output)):
        raw = import_pandas().concat(source.raw_batches(None), ignore_index=True)
    # Parsers may differ in what they skip.
    written = raw if len(raw) == len(table) else table
    if args.output is not None:
        with writing(args.output, source.form) as append:
            append(written.join(added), header=source.has_cells and [*source.header, *ADDED])
    say_flags(args, findings.outlier, len(findings.explained))
    if args.output is None or not findings.outlier.any():
        say_oddest(args, findings, written)
    say_broken(args, findings)
    from ._report import doubts_about, report

    for doubt in doubts_about(findings):
        say(f"caution: {doubt}", args.output)
    if args.report is not None:
        write_report(args, report(findings), args.output)


def texts_in(known):
    """Return the text columns of the reference, which are then text columns of the data too.

    `open_table` takes them; without a reference, it detects them.
    """
    if known is None:
        return {}
    others = known.select_dtypes(exclude=["number", "bool"])
    # True and False with missing values are objects, but not texts.
    return {
        "texts": [name for name in others if others[name].map(type).eq(str).any()],
        "codes": [name for name in others if others[name].eq(NAMIBIA).any()],
    }


def judged_columns(args, table, known):
    """Return the columns of a table to judge rows by, and whether they need a density of tables."""
    check_free(table, ADDED, args.data)
    frame = chosen_columns(table, args.data, args.columns, left_out(args), models_texts=False)
    if args.columns is None:
        frame = without_identifiers(frame, args.data, hints_of(args).texts)
    is_table = needs_table(frame)
    if known is not None:
        # Rows with missing values in the reference alone are left out.
        is_table |= needs_table(select(known, [*frame], args.reference).dropna())
    return with_dates(frame) if is_table else frame, is_table


def known_rows(args, known, names, is_table):
    """Return the usable part of the reference."""
    if is_table:
        return with_dates(select(known, names, args.reference))
    return complete_numbers(known, args.reference, names)


def say_flags(args, outlier, n_explained):
    """Print how many rows are flagged, how reliably, and how many lack reasons by their score."""
    basis = "conformal p-values" if args.reference else "if the empirical null holds in the tail"
    what = args.data if args.output is None else f"wrote {shown(args.output)}"
    say(
        f"{what}: flagged {outlier.sum()} of {len(outlier)} rows, with at most "
        f"{args.fdr:.3g} of the flags false on average ({basis})",
        args.output,
    )
    if not outlier.any():
        remedy = "allow more false flags by a higher --fdr"
        if args.reference is None:
            remedy += ", or give rows known to be normal by --reference"
        say(f"p_value ranks the rows: look at the lowest ones, or {remedy}", args.output)
    if n_explained < outlier.sum():
        say(
            f"for {outlier.sum() - n_explained} of these rows, the oddest columns are found by "
            "simpler densities, and odd_only_with is empty: the table has too many columns",
            args.output,
        )


def say_oddest(args, found, written):
    """Print the oddest rows with their reasons, as the table writes the values."""
    from ._findings import odd_columns
    from ._report import MIN_SHOWN, named_rows

    say("the oddest rows:", args.output)
    for row in found.oddest[:N_PRINTED]:
        place = found.frame.index[row]
        reasons = []
        for j in odd_columns(found.contributions[row])[:N_PRINTED_REASONS]:
            column = found.frame.columns[j]
            cell = "missing"
            if not is_missing(found.frame.iat[row, j]):
                cell = shorten(str(written.at[place, column]), MAX_CELL, placeholder=" ...")
            reasons.append(f"{column} = {cell}")
        p = found.p_values[row]  # the exact value of a tiny one means nothing
        text = f"p = {p:.2g}" if p >= MIN_SHOWN else f"p < {MIN_SHOWN}"
        say(f"  {named_rows(found, [row])} ({text}): {', '.join(reasons)}", args.output)


def say_broken(args, found):
    """Print the rows that break a rule which nearly all others follow."""
    from ._report import named_rows

    others = "others" if found.reference is None else "rows of the reference"
    for text, rows in found.broken[:N_PRINTED]:
        verb = "breaks" if len(rows) == 1 else "break"
        rule = f"the rule {text}, which nearly all {others} follow"
        say(f"{named_rows(found, rows)} {verb} {rule}", args.output)


def find_outliers(args, table, frame, known, form, is_table=False, kinds=None):
    """Judge the rows of ``frame``, the usable part of a table, by a detector of known rows."""
    from ._findings import RARELY_BROKEN, Findings, broken_rules

    started = time.perf_counter()
    labels = select(table, ids(args), args.data).astype(str)
    detector = fitted_detector(args, known, is_table, kinds)
    broken = []
    if is_table:
        density = detector.models_[0].density.estimator
        warn_of_unseen(encoding_of(density).unseen(frame))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what scores warn of too
            most = RARELY_BROKEN if args.reference is None else MOST_FLAGGED
            broken = broken_rules(density, frame, most)
    if args.reference is None:
        scores, p_values = detector.held_out_scores_, detector.p_values_
    else:
        scores = detector.score_samples(frame)
        p_values = detector.null_.p_values(scores)  # p_values(frame) would score again
    outlier = detector.flag(p_values)
    oddest = oddest_first(scores, p_values, outlier)
    explained = oddest[: most_explained(detector)]
    print_status(f"finding the odd columns of {len(frame)} rows ...")
    with warnings.catch_warnings():
        judge = detector
        if is_table and args.reference is None and 0 < outlier.mean() < MOST_FLAGGED:
            warnings.simplefilter("ignore")  # the first fit has told them
            judge = without_flagged(args, frame[~outlier], kinds)
        contributions, partners = explanations(judge, frame, explained, outlier, is_table)
    return Findings(
        path=args.data,
        reference=args.reference,
        fdr=args.fdr,
        detector=detector,
        is_table=is_table,
        frame=frame,
        names=None if args.id is None else labels[args.id],
        n_left_out=len(table) - len(frame),
        left_out=[name for name in table if name not in frame],
        known=known,
        form=form,
        scores=scores,
        p_values=p_values,
        outlier=outlier,
        oddest=oddest,
        explained=explained,
        contributions=contributions,
        partners=partners,
        broken=broken,
        seconds=time.perf_counter() - started,
    )


def flag_in_batches(args, source, known):
    """Judge the rows of a large table by a detector of the reference, and write their flags.

    The table is read twice: flags depend on the p-values of all rows, which take 16 bytes each.
    """
    remedies = {
        "give a --reference": args.reference is None,
        "leave --report out": args.report is not None,
        "add -o FILE": args.output is None,
    }
    if needed := [remedy for remedy, is_needed in remedies.items() if is_needed]:
        raise ValueError(
            f"{args.data} is larger than --memory-limit, and is to be judged in batches: raise the "
            f"limit, or {' and '.join(needed)}"
        )
    frame, is_table = judged_columns(args, next(source.batches(source.batch_rows)), known)
    names = [*frame]
    if not is_table:
        names = [*numeric_columns(frame, args.data, args.columns and names)]
    kinds = kinds_in(frame, source.form, hints_of(args))
    detector = fitted_detector(args, known_rows(args, known, names, is_table), is_table, kinds)
    gaps = Gaps(args.data)
    encoding = encoding_of(detector.models_[0].density.estimator) if is_table else None

    def usable(batch):
        if is_table:
            return with_dates(select(batch, names, args.data), encoding)
        return numbers(gaps.left_out_of(select(batch, names, args.data)), args.data)

    frames = map(usable, with_progress(source, args.output, names))
    scores = np.concatenate([detector.score_samples(frame) for frame in frames if len(frame)])
    gaps.report()
    p_values = detector.null_.p_values(scores)
    outlier = detector.flag(p_values)
    explained = oddest_first(scores, p_values, outlier)[: most_explained(detector)]
    is_explained = np.zeros(len(scores), dtype=bool)
    is_explained[explained] = True
    start = 0
    with writing(args.output) as append:
        for batch in with_progress(source, args.output):
            frame = usable(batch)
            part = slice(start, start + len(frame))
            start += len(frame)
            rows = np.flatnonzero(is_explained[part])
            reasons = explanations(detector, frame, rows, outlier[part], is_table)
            added = added_columns(frame, scores[part], p_values[part], outlier[part], *reasons)
            append(batch.join(added))
    say_flags(args, outlier, len(explained))


def fitted_detector(args, known, is_table, kinds=None):
    """Return a detector of known rows, or of the rows to judge."""
    from ..outlier import DensityOutlierDetector

    density, bars = None, []
    if is_table:
        settings = QUICK if args.quick else {"time_limit": TABLE_SECONDS, "n_jobs": -1}
        density = table_density(args, kinds, **settings)
        if not args.quick:
            announce(known, "a model of mixed columns with missing values", "takes up to a minute")
        bars = progress_bars()
    detector = DensityOutlierDetector(
        density,
        calibration="empirical_null" if args.reference is None else "conformal",
        fdr=args.fdr,
        random_state=args.random_state,
    )
    detector.set_callbacks(*bars)
    with limit_of_user(args), with_lines(not bars):
        return detector.fit(known)


def without_flagged(args, frame, kinds):
    """Return a detector of the other rows, which tells what is odd in the flagged ones.

    A model that has seen a single odd value may have learnt it.
    """
    from ..outlier import DensityOutlierDetector

    density = table_density(args, kinds, **QUICK)
    detector = DensityOutlierDetector(density, random_state=args.random_state)
    detector.set_callbacks(*progress_bars())
    with with_lines(False):
        return detector.fit(frame)


def table_density(args, kinds, **settings):
    """Return a new density of tables with texts and missing values."""
    return TableDensity(
        columns=kinds,
        handle_unknown="rare",
        missing="model",
        random_state=args.random_state,
        **settings,
    )


def oddest_first(scores, p_values, outlier):
    """Return the indices of the flagged rows and of the next oddest ones, if few are flagged."""
    return np.lexsort((scores, p_values))[: max(N_ODDEST, outlier.sum())]


def most_explained(detector):
    """Return how many rows can be explained by their own score in half a minute."""
    return MAX_EXPLAINED // (detector.n_features_in_**2 * len(detector.models_))


def explanations(detector, frame, explained, outlier, is_table):
    """Return the contributions of the columns of each row, and partners of the oddest one.

    Rows that are not among the explained ones have contributions to a simpler score, and no
    partners.
    """
    from ..outlier._explain import partners_of, quick_explanation

    partners = np.full(len(frame), -1)
    if not len(frame):  # all rows of a batch have missing values
        return np.empty(frame.shape), partners
    contributions = quick_explanation(detector, frame)
    if len(explained):
        contributions[explained] = detector.explain(frame.iloc[explained])
    flagged = explained[outlier[explained]]
    if not is_table and len(flagged):
        partners[flagged] = partners_of(
            detector, frame.iloc[flagged].to_numpy(), contributions[flagged].argmin(axis=1)
        )
    return contributions, partners


def added_columns(frame, scores, p_values, outlier, contributions, partners, broken=()):
    """Return the columns that the output adds to the table's, empty in rows left out."""
    from ._findings import odd_columns

    oddest = np.full((2, len(frame)), "", dtype=object)
    for row, of_row in enumerate(contributions):
        for place, column in enumerate(odd_columns(of_row)[:2]):
            oddest[place, row] = frame.columns[column]
    rules = np.full(len(frame), "", dtype=object)
    for text, rows in reversed(broken):  # of several, the one that the fewest rows break
        rules[rows] = text
    names = np.append(frame.columns.to_numpy(dtype=object), "")  # -1 is no partner
    # More digits are meaningless and hard to read.
    rounded = [[float(f"{x:.6g}") for x in some] for some in (scores, p_values)]
    added = frame.iloc[:, :0].assign(
        **dict(
            zip(
                ADDED,
                [*rounded, outlier.astype(int), *oddest, names[partners], rules],
                strict=True,
            )
        )
    )
    return added.astype({"outlier": "Int64"})
