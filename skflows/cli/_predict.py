"""Fitting a regressor: ``skflows fit --target``."""

import sys
import time

from ..conditional import ConditionalDensity, FlowRegressor
from ..conditional._density import default_flow
from ..conditional._regressor import HELD_OUT, LEAST_ROWS
from ..density import ARCHITECTURES
from ._columns import feature_columns, numbers, select
from ._progress import checkpoints, fit_with_progress, time_limit_of
from ._tables import check_writable, is_standard, read_table, say


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
    callbacks = checkpoints(args)
    table = read_table(args.data, args.sep, args.decimal)
    names = feature_columns(table) if args.columns is None else args.columns
    left_out = {*args.exclude, args.target}
    select(table, list(left_out), args.data)
    names = [name for name in names if name not in left_out]
    if not names:
        raise ValueError(f"no column of {args.data} is left beside the target {args.target!r}")
    known = table[table[args.target].notna()]
    y = numbers(known[[args.target]], args.data, "a target is a column of numbers")[args.target]
    X = select(known, names, args.data)
    model = FlowRegressor(ConditionalDensity(_flow(args)), random_state=args.random_state)
    if len(X) < LEAST_ROWS:
        model.set_params(calibration=HELD_OUT)  # since predict writes intervals
    start = time.perf_counter()
    interrupted = fit_with_progress(model, X, y, callbacks=callbacks)
    seconds = time.perf_counter() - start
    model.save(sys.stdout.buffer if is_standard(args.output) else args.output)
    say(
        f"FlowRegressor fitted to {len(X)} rows of {len(names)} columns in {seconds:.1f} s: "
        f"{args.target} given {', '.join(map(str, names[:3]))}{', ...' * (len(names) > 3)}\n"
        f"wrote {args.output}",
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
