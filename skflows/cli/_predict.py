"""Fitting a regressor: ``skflows fit --target``."""

import sys
import time

from ..conditional import ConditionalDensity, FlowRegressor
from ..conditional._density import default_flow
from ..conditional._regressor import HELD_OUT, LEAST_ROWS
from ..density import ARCHITECTURES
from ._columns import check_width, chosen_columns, left_out, numbers, select, used, with_parsed
from ._forms import hints_of, set_form
from ._progress import checkpoints, fit_with_progress, time_limit_of
from ._tables import check_writable, is_standard, open_table, say, shown

TARGET = (
    "a target is a column of numbers; for classes, use skflows.DensityClassifier in Python, or fit "
    "a table with --estimator table, whose predict_proba takes any column"
)


def fit_target(args):
    """Fit a regressor of one column given the others, and store it."""
    check_writable(args.output, args.data)
    if args.contamination is not None:
        raise ValueError("--contamination is for densities; with --target there are no outliers")
    if args.memory_limit is not None:
        raise ValueError(
            "--memory-limit is for densities; with --target, all rows are needed: give a table of "
            "fewer rows"
        )
    if others := [name for name, (kind, *_) in args.kind if kind != "categorical"]:
        raise ValueError(
            f"--kind {others[0]}: with --target, only categorical is possible, which makes numbers "
            "categories"
        )
    callbacks = checkpoints(args)
    named = args.columns and [*used(args), args.target]
    source = open_table(
        args.data, args.sep, args.decimal, used=named, kept=left_out(args), hints=hints_of(args)
    )
    check_width(args, source)
    table = source.read()
    X = chosen_columns(table, args.data, args.columns, [*left_out(args), args.target])
    names = list(X)
    target = select(table, [args.target], args.data).dropna()
    y = numbers(target, args.data, TARGET)[args.target]
    X = with_parsed(X.loc[target.index], X.select_dtypes(exclude=["number", "bool"]))
    model = FlowRegressor(ConditionalDensity(_flow(args)), random_state=args.random_state)
    if len(X) < LEAST_ROWS:
        model.set_params(calibration=HELD_OUT)  # since predict writes intervals
    start = time.perf_counter()
    interrupted = fit_with_progress(model, X, y, callbacks=callbacks)
    seconds = time.perf_counter() - start
    set_form(model, source.form._replace(target=args.target))
    model.save(sys.stdout.buffer if is_standard(args.output) else args.output)
    say(
        f"FlowRegressor fitted to {len(X)} rows of {len(names)} columns in {seconds:.1f} s: "
        f"{args.target} given {', '.join(map(str, names[:3]))}{', ...' * (len(names) > 3)}\n"
        f"wrote {shown(args.output)}",
        args.output,
    )
    return interrupted


def _flow(args):
    """Return the flow that the arguments ask for."""
    if args.estimator not in (None, *ARCHITECTURES):
        raise ValueError(
            f"--estimator {args.estimator} takes no --target: choose among "
            f"{', '.join(ARCHITECTURES)}"
        )
    flow = default_flow()
    if args.estimator not in (None, "nsf"):
        flow = ARCHITECTURES[args.estimator]()
    values = {"max_iter": args.max_iter, "time_limit": time_limit_of(args)}
    return flow.set_params(**{name: value for name, value in values.items() if value is not None})
