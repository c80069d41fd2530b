"""The ``skflows outliers`` command: which rows of a table are odd, how surely, and why."""

import time
from typing import NamedTuple

import numpy as np

from ._auto import AutoDensity
from ._csv import complete_numbers, read_csv, write_csv
from ._progress import processes, show_progress, tell
from .outlier import DensityOutlierDetector
from .outlier._explain import quick_contributions

N_EXPLAINED = 25  # rows by their score itself, the oddest ones, or all that are flagged
ODD_ENOUGH = 0.1
ADDED = ["score", "p_value", "outlier", "oddest_column", "second_oddest_column"]


class Findings(NamedTuple):
    """What came of a search for outliers."""

    path: object
    reference: object  # path of the rows known to be normal, or None
    fdr: float
    detector: DensityOutlierDetector
    frame: object  # the rows that were judged, numbered as in the file
    n_left_out: int  # rows with a missing value
    left_out: list  # columns without numbers
    known: object  # the rows that the detector was fitted to
    scores: np.ndarray
    p_values: np.ndarray
    outlier: np.ndarray
    explained: np.ndarray  # numbers of the rows explained by their score, the oddest first
    parts: np.ndarray  # of all rows, by columns; of those not explained, of a simpler score
    seconds: float


def run(args):
    """Find outliers, and write the table with their flags, and the page."""
    if args.report is not None:
        if args.report.resolve() == args.output.resolve():
            raise ValueError(
                f"{args.output} is given for the table and for the page: choose two files, please"
            )
        from .inspection._common import check_matplotlib

        check_matplotlib("skflows outliers --report")
    table = read_csv(args.data)
    if taken := [name for name in ADDED if name in table]:
        raise ValueError(
            f"{args.data} has a column {taken[0]!r}, as the output would: rename it, please"
        )
    frame = known = complete_numbers(table, args.data, args.columns)
    if args.reference is not None:
        known = complete_numbers(read_csv(args.reference), args.reference, [*frame])
    found = find(args, table, frame, known)
    write_csv(table.join(columns_of(found)), args.output)
    basis = "conformal p-values" if args.reference else "if the empirical null holds in the tail"
    print(
        f"wrote {args.output}: {found.outlier.sum()} of {len(frame)} rows are flagged, with at "
        f"most {args.fdr:.3g} of the flags false on average ({basis})"
    )
    if args.report is not None:
        from ._report import page

        args.report.write_text(page(found), encoding="utf-8")
        print(f"wrote {args.report}")


def find(args, table, frame, known):
    """Judge the rows of ``frame``, what can be used of a table, by a detector of those known."""
    started = time.perf_counter()
    itself = args.reference is None
    density = AutoDensity(
        time_limit=args.time_limit,
        n_jobs=processes(args.time_limit),
        random_state=args.random_state,
    )
    show_progress(density)
    detector = DensityOutlierDetector(
        density,
        calibration="empirical_null" if itself else "conformal",
        fdr=args.fdr,
        random_state=args.random_state,
    ).fit(known)
    if itself:
        scores, p_values = detector.held_out_scores_, detector.p_values_
    else:
        scores = detector.score_samples(frame)
        p_values = detector._null.p_values(scores)  # p_values(frame) would score again
    outlier = detector.flag(p_values)
    order = np.lexsort((scores, p_values))
    explained = order[: max(N_EXPLAINED, outlier.sum())]
    tell(f"looking for the odd columns of {len(frame)} rows, most closely of {len(explained)} ...")
    parts = quick_contributions(frame.to_numpy(), detector._reference)
    parts[explained] = detector.explain(frame.iloc[explained])
    return Findings(
        path=args.data,
        reference=args.reference,
        fdr=args.fdr,
        detector=detector,
        frame=frame,
        n_left_out=len(table) - len(frame),
        left_out=[name for name in table if name not in frame],
        known=known,
        scores=scores,
        p_values=p_values,
        outlier=outlier,
        explained=explained,
        parts=parts,
        seconds=time.perf_counter() - started,
    )


def odd_columns(parts):
    """The columns that make a row odd, oddest first: with a tenth of the first one's share or more.

    What all columns share is the score of the row from which the explanation starts.
    """
    order = np.argsort(parts, kind="stable")
    with np.errstate(invalid="ignore"):
        shares = np.median(parts) - parts[order]
    return order[: max(1, (shares >= ODD_ENOUGH * shares[0]).sum())]


def columns_of(found):
    """The columns that the output has beyond those of the table, empty in rows left out."""
    oddest = np.full((2, len(found.frame)), "", dtype=object)
    for row, parts in enumerate(found.parts):
        for place, column in enumerate(odd_columns(parts)[:2]):
            oddest[place, row] = found.frame.columns[column]
    # More digits say nothing, and are hard to read.
    shown = [[float(f"{x:.6g}") for x in some] for some in (found.scores, found.p_values)]
    added = found.frame.iloc[:, :0].assign(
        **dict(zip(ADDED, [*shown, found.outlier.astype(int), *oddest], strict=True))
    )
    return added.astype({"outlier": "Int64"})
