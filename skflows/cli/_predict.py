"""Fitting a regressor or a classifier: ``skflows fit --target``."""

import sys
import time

from ..conditional import ConditionalDensity, DensityClassifier, FlowRegressor
from ..conditional._classifier import LEAST_POOLED
from ..conditional._density import default_flow
from ..conditional._regressor import HELD_OUT, LEAST_ROWS
from ..conditional._trees import LEAST_ROWS as ROWS_FOR_TREES
from ..density import ARCHITECTURES
from ..table import TableDensity
from ..table._duration import expected_duration
from ._columns import (
    as_numbers,
    check_columns,
    chosen_columns,
    left_out,
    needs_table,
    numbers,
    select,
    used,
    with_parsed,
    without_identifiers,
)
from ._forms import hints_of, kinds_in, set_form
from ._model_files import ESTIMATORS
from ._progress import (
    announce_tables,
    checkpoints,
    fit_with_progress,
    limit_of_user,
    n_jobs_for,
    time_limit_of,
)
from ._tables import check_writable, is_standard, open_table, say, shown

TARGET = "a target is a column of numbers, or of categories: correct or empty such cells"
MAX_CLASS_SHARE = 0.5  # of the rows: more different texts are no classes


def fit_target(args):
    """Fit a regressor of one column given the others, or a classifier, and store it."""
    check_writable(args.output, args.data)
    if args.contamination is not None:
        raise ValueError("--contamination is for densities; with --target there are no outliers")
    if args.report is not None:
        raise ValueError(
            "--report of fit is for densities; with --target, give it to skflows predict, with "
            "rows of known targets"
        )
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
    hints = hints_of(args)
    source = open_table(
        args.data, args.sep, args.decimal, used=named, kept=left_out(args), hints=hints
    )
    check_columns(args, source)
    table = source.read()
    unused = [*left_out(args), args.target]
    X = chosen_columns(table, args.data, args.columns, unused, models_texts=False)
    target = select(table, [args.target], args.data).dropna()
    if not len(target):
        raise ValueError(f"column {args.target!r} has no values: choose another --target")
    if n_left_out := len(table) - len(target):
        say(
            f"{n_left_out} of {len(table)} rows of {args.data} without {args.target!r}: left out",
            args.output,
        )
    X = with_parsed(X.loc[target.index], X.select_dtypes(exclude=["number", "bool"]))
    X = without_identifiers(X, args.data, hints.texts)
    names = list(X)
    check_is_no_date(target, hints)
    if args.target in hints.texts or is_category(target):
        y = target[args.target].astype(str)
        check_classes(y, args)
        model = _classifier(args, X, kinds_in(X, source.form, hints))
        if not model.estimator.__sklearn_tags__().input_tags.string:
            X = numbers(X, args.data)
        if isinstance(model.estimator, TableDensity):
            announce_tables(model.estimator, X)
    else:
        y = numbers(target, args.data, TARGET)[args.target]
        has_trees = args.estimator is None and args.max_iter is None and len(X) >= ROWS_FOR_TREES
        density = ConditionalDensity(_flow(args), trees=has_trees)
        model = FlowRegressor(density, random_state=args.random_state)
        if len(X) < LEAST_ROWS:
            model.set_params(calibration=HELD_OUT)  # since predict writes intervals
    start = time.perf_counter()
    with limit_of_user(args):
        interrupted = fit_with_progress(model, X, y, callbacks=callbacks)
    seconds = time.perf_counter() - start
    set_form(model, source.form._replace(target=args.target))
    model.save(sys.stdout.buffer if is_standard(args.output) else args.output)
    say(
        f"{type(model).__name__} fitted to {len(X)} rows of {len(names)} columns in "
        f"{seconds:.1f} s: {args.target} given {', '.join(map(str, names[:3]))}"
        f"{', ...' * (len(names) > 3)}\nwrote {shown(args.output)}",
        args.output,
    )
    return interrupted


def check_is_no_date(target, hints):
    """Raise an error if a column, as a table, holds dates that are not stated to be texts."""
    (name,) = target
    if name not in hints.texts and with_parsed(target, [name])[name].dtype.kind == "M":
        raise ValueError(
            f"{name!r} holds dates, which are no target. Fit without --target: skflows impute "
            "fills in unknown dates, and TableDensity.predict_distribution has their distribution"
        )


def is_category(target):
    """Return whether a column, as a table, holds categories: most cells are no numbers."""
    (column,) = (target[name] for name in target)
    if column.dtype.kind in "iuf":
        return False
    return column.dtype == bool or 2 * as_numbers(target).notna().sum().sum() <= len(target)


def check_classes(y, args):
    """Raise an error if the texts of a target are no classes."""
    n_classes = y.nunique()
    if n_classes < 2:
        raise ValueError(f"{args.target!r} has the single value {y.iloc[0]!r}: nothing to predict")
    if n_classes > max(2, MAX_CLASS_SHARE * len(y)):
        raise ValueError(
            f"{args.target!r} has {n_classes} different texts in {len(y)} rows, such as "
            f"{y.iloc[0]!r}: classes recur, so group them"
        )


def _classifier(args, X, kinds):
    """Return the classifier of some classes that the arguments ask for."""
    name = args.estimator or ("table" if needs_table(X) else "nsf")
    if name not in (*ARCHITECTURES, "table"):
        raise ValueError(
            f"--estimator {name} takes no --target of classes: choose table or one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    density = ESTIMATORS[name]()
    values = {"max_iter": args.max_iter, "time_limit": time_limit_of(args)}
    density.set_params(**{name: value for name, value in values.items() if value is not None})
    if name == "table":
        seconds = expected_duration(density, *X.shape)
        density.set_params(columns=kinds, handle_unknown="rare", n_jobs=n_jobs_for(seconds))
    # As by default in Python, with enough rows, unless the user wants the densities alone.
    is_pooled = args.estimator is None and len(X) >= LEAST_POOLED
    return DensityClassifier(density, classifiers=is_pooled, random_state=args.random_state)


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
