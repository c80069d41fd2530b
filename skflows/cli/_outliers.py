"""The command ``skflows outliers``: which rows of a table are odd, how surely, and why."""

import sys
import time

import numpy as np

from ..persistence.atomic import replace_file
from ..table import TableDensity
from ._csv import (
    check_writable,
    chosen_columns,
    complete_numbers,
    is_standard,
    needs_table,
    read_csv,
    say,
    select,
    with_dates,
    write_csv,
)
from ._models import warn_of_unseen
from ._progress import print_status

TABLE_SECONDS = 30  # of the fit to a table with texts or gaps
N_EXPLAINED = 25  # rows, at least, that are explained by their own score
SAME_REFERENCE = (
    "{} is the data table itself: rows used in the fit cannot be distinguished from normal ones. "
    "Give other rows that are known to be normal, or leave --reference out"
)
ADDED = ["score", "p_value", "outlier", "oddest_column", "second_oddest_column", "odd_only_with"]


def run_outliers(args):
    """Find outliers, and write the table with their flags, and the report."""
    for path in (args.output, args.report):
        check_writable(path, args.data, *([args.reference] if args.reference else []))
    if args.report is not None:
        if is_standard(args.report):
            raise ValueError("--report needs a file: only the table can be standard output")
        if args.report.resolve() == args.output.resolve():
            raise ValueError(
                f"{args.output} is given for both the table and the report: choose two files"
            )
        from ..inspection._common import check_matplotlib

        check_matplotlib("skflows outliers --report")
    if args.reference is not None and args.reference.resolve() == args.data.resolve():
        raise ValueError(SAME_REFERENCE.format(args.data))
    known, texts = None, ()
    if args.reference is not None:
        known = read_csv(args.reference, args.sep, args.decimal)
        texts = list(known.select_dtypes(exclude=["number", "bool"]))
    table = read_csv(args.data, args.sep, args.decimal, texts)
    exclude = args.exclude
    if args.id is not None:
        select(table, [args.id], args.data)
        exclude = [*exclude, args.id]
    if taken := [name for name in ADDED if name in table]:
        raise ValueError(
            f"{args.data} has a column {taken[0]!r}, which the output adds: rename the column"
        )
    frame = chosen_columns(table, args.data, args.columns, exclude)
    if known is not None:
        known = select(known, [*frame], args.reference)
    is_table = needs_table(frame) or (known is not None and needs_table(known.dropna()))
    if is_table:
        frame = with_dates(frame)
    else:
        frame = complete_numbers(frame, args.data, args.columns and [*frame])
    if known is None:
        known = frame
    else:
        if is_table:
            known = with_dates(known)
        else:
            known = complete_numbers(known, args.reference, [*frame])
        if known.equals(frame):
            raise ValueError(SAME_REFERENCE.format(args.reference))
    found = find_outliers(args, table, frame, known, is_table)
    write_csv(table.join(added_columns(found)), args.output)
    basis = "conformal p-values" if args.reference else "if the empirical null holds in the tail"
    say(
        f"wrote {args.output}: {found.outlier.sum()} of {len(frame)} rows are flagged, with at "
        f"most {args.fdr:.3g} of the flags false on average ({basis})",
        args.output,
    )
    from ._report import doubts_about, report

    for doubt in doubts_about(found):
        say(f"caution: {doubt}", args.output)
    if args.report is not None:
        with replace_file(args.report, "w", encoding="utf-8") as file:
            file.write(report(found))
        say(f"wrote {args.report}", args.output)


def find_outliers(args, table, frame, known, is_table=False):
    """Judge the rows of ``frame``, the usable part of a table, by a detector of known rows."""
    from ..outlier import DensityOutlierDetector
    from ..outlier._explain import quick_contributions
    from ._findings import Findings

    started = time.perf_counter()
    judges_itself = args.reference is None
    density = None
    if is_table:
        density = TableDensity(
            handle_unknown="rare",
            missing="model",
            time_limit=TABLE_SECONDS,
            random_state=args.random_state,
        )
    detector = DensityOutlierDetector(
        density,
        calibration="empirical_null" if judges_itself else "conformal",
        fdr=args.fdr,
        random_state=args.random_state,
    )
    for name in running_numbers(known):
        print(
            f"skflows: the column {name!r} numbers the rows: if it is an identifier, give it by "
            "--id or --exclude",
            file=sys.stderr,
        )
    detector.fit(known)
    if is_table:
        warn_of_unseen(detector.models_[0].density.estimator_, frame)
    if judges_itself:
        scores, p_values = detector.held_out_scores_, detector.p_values_
    else:
        scores = detector.score_samples(frame)
        p_values = detector._null.p_values(scores)  # p_values(frame) would score again
    outlier = detector.flag(p_values)
    order = np.lexsort((scores, p_values))
    explained = order[: max(N_EXPLAINED, outlier.sum())]
    print_status(f"finding the odd columns of {len(frame)} rows ...")
    partners = np.full(len(frame), -1)
    if is_table:
        contributions = detector.models_[0].density.surprises(frame)
    else:
        contributions = quick_contributions(frame.to_numpy(), detector._reference)
    contributions[explained] = detector.explain(frame.iloc[explained])
    flagged = np.flatnonzero(outlier)
    if not is_table:
        partners[flagged] = detector._partners(
            frame.iloc[flagged].to_numpy(), contributions[flagged].argmin(axis=1)
        )
    return Findings(
        path=args.data,
        reference=args.reference,
        fdr=args.fdr,
        detector=detector,
        frame=frame,
        names=None if args.id is None else table[args.id].astype(str),
        n_left_out=len(table) - len(frame),
        left_out=[name for name in table if name not in frame],
        known=known,
        scores=scores,
        p_values=p_values,
        outlier=outlier,
        explained=explained,
        contributions=contributions,
        partners=partners,
        seconds=time.perf_counter() - started,
    )


def running_numbers(frame):
    """Return the columns whose values are consecutive whole numbers, each once."""
    return [
        name
        for name, column in frame.select_dtypes("number").items()
        if len(column) > 2 and (np.diff(np.sort(column)) == 1).all()
    ]


def added_columns(found):
    """Return the columns that the output adds to those of the table, empty in rows left out."""
    from ._findings import odd_columns

    oddest = np.full((2, len(found.frame)), "", dtype=object)
    for row, contributions in enumerate(found.contributions):
        for place, column in enumerate(odd_columns(contributions)[:2]):
            oddest[place, row] = found.frame.columns[column]
    names = np.append(found.frame.columns.to_numpy(dtype=object), "")  # -1 is no partner
    # More digits mean nothing, and are hard to read.
    rounded = [[float(f"{x:.6g}") for x in some] for some in (found.scores, found.p_values)]
    added = found.frame.iloc[:, :0].assign(
        **dict(
            zip(
                ADDED,
                [*rounded, found.outlier.astype(int), *oddest, names[found.partners]],
                strict=True,
            )
        )
    )
    return added.astype({"outlier": "Int64"})
