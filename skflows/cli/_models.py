"""The commands of models: ``skflows fit``, ``score``, ``sample`` and ``predict``."""

import sys
import time
import warnings

from ..conditional import FlowRegressor
from ..density import ARCHITECTURES, GaussianizationDensity
from ..ensemble._auto import AutoDensity
from ..persistence.model_file import load
from ..table import TableDensity
from ._csv import (
    check_writable,
    chosen_columns,
    complete_numbers,
    import_pandas,
    is_standard,
    needs_table,
    one_line,
    read_csv,
    say,
    select,
    standard_input,
    with_dates,
    write_csv,
)
from ._predict import fit_target
from ._progress import announce, fit_with_progress, n_jobs_for, time_limit_of

ESTIMATORS = ARCHITECTURES | {
    "gaussianization": GaussianizationDensity,
    "auto": AutoDensity,
    "table": TableDensity,
}
DENSITIES = tuple(ESTIMATORS.values())
MIXTURES = (AutoDensity, TableDensity)
MANY_VALUES = 30_000  # to which fitting a mixture takes long


def run_fit(args):
    """Fit a density to a CSV file, or one column given the others, and store it."""
    if args.target is not None:
        return fit_target(args)
    check_writable(args.output, args.data)
    table = read_csv(args.data, args.sep, args.decimal)
    frame = chosen_columns(table, args.data, args.columns, args.exclude)
    name = args.estimator or ("table" if needs_table(frame) else "nsf")
    model = ESTIMATORS[name](random_state=args.random_state)
    if name == "table":
        frame = with_dates(frame)
        model.set_params(handle_unknown="rare")
    else:
        frame = complete_numbers(frame, args.data, args.columns and [*frame])
    values = {"max_iter": args.max_iter, "contamination": args.contamination}
    for name, value in (values | {"time_limit": time_limit_of(args)}).items():
        if value is None:
            continue
        if name not in model.get_params():
            raise ValueError(f"{type(model).__name__} has no --{name.replace('_', '-')}")
        model.set_params(**{name: value})
    if "n_jobs" in model.get_params():
        model.set_params(n_jobs=n_jobs_for(model.time_limit))
    if isinstance(model, MIXTURES) and model.time_limit is None and frame.size > MANY_VALUES:
        announce(frame, "many densities", "may take minutes")

    start = time.perf_counter()
    interrupted = fit_with_progress(model, frame)
    seconds = time.perf_counter() - start
    model.save(sys.stdout.buffer if is_standard(args.output) else args.output)
    n, d = frame.shape
    columns = "1 column" if d == 1 else f"{d} columns"
    fitted = f"{type(model).__name__} fitted to {n} rows of {columns} in {seconds:.1f} s"
    say(f"{fitted}: {_summary(model)}\nwrote {args.output}", args.output)
    return interrupted


def _summary(model):
    """Return the result of a fit, in one line."""
    if hasattr(model, "leaderboard_"):
        pairs = zip(model.leaderboard_["component"], model.leaderboard_["weight"], strict=True)
        heaviest = ", ".join(f"{name} {weight:.2f}" for name, weight in [*pairs][:3] if weight)
        return f"{heaviest}, held-out log-density {model.stacked_score_:.4g} nats per row"
    held_out = model.best_validation_score_
    quality = "" if held_out is None else f", held-out log-density {held_out:.4g} nats per row"
    if not model.best_iter_:
        return f"no epoch of {model.n_iter_} improved on the initial weights{quality}"
    return f"{model.n_iter_} epochs, best {model.best_iter_}{quality}"


def run_score(args):
    """Score the rows of a CSV file by a stored density."""
    check_writable(args.output, args.model, args.data)
    if is_standard(args.model) and is_standard(args.data):
        raise ValueError("model and data are both -: only one of them can be standard input")
    model = load_model(args)
    table = read_csv(args.data, args.sep, args.decimal, texts_of(model))
    names = [*getattr(model, "feature_names_in_", table.columns)]
    if isinstance(model, TableDensity):
        frame = with_dates(select(table, names, args.data))
        warn_of_unseen(model, frame)
    else:
        remedy = "the model was fitted to numbers"
        frame = complete_numbers(table, args.data, names, remedy=remedy)
    scores = model.score_samples(frame if hasattr(model, "feature_names_in_") else frame.values)
    outlier = scores < model.offset_
    scored = table.iloc[:, :0].join(frame.iloc[:, :0].assign(log_density=scores, outlier=outlier))
    write_csv(scored.astype({"outlier": "Int64"}), args.output)
    if args.output:
        say(
            f"wrote {args.output}: {outlier.sum()} of {len(scores)} rows are outliers "
            f"(log-density below {model.offset_:.4g})",
            args.output,
        )


def texts_of(model):
    """Return the columns that held texts when a model was fitted."""
    columns = model._schema.columns if isinstance(model, TableDensity) else []
    return [column.name for column in columns if column.role == "text"]


def warn_of_unseen(model, frame):
    """Warn of categories that fit has not seen, which count as rare ones."""
    for column in model._schema.columns:
        if column.kind != "categorical":
            continue
        (part,) = column.value_parts
        unseen = set(frame[column.name].dropna()) - {*part.levels, *(part.pooled or ())}
        if unseen:
            some = ", ".join(repr(value) for value in sorted(unseen, key=str)[:5])
            warnings.warn(
                f"column {column.name!r} has {len(unseen)} values that the fit has not seen, taken "
                f"for rare ones: {some}{', ...' * (len(unseen) > 5)}",
                stacklevel=2,
            )


def run_sample(args):
    """Draw rows from a stored density."""
    check_writable(args.output, args.model)
    import_pandas()  # before a model is loaded
    model = load_model(args)
    if isinstance(model, TableDensity):
        rows = model.sample(args.n_samples, random_state=args.random_state)
    elif hasattr(model, "feature_names_in_"):
        rows = model.sample(args.n_samples, random_state=args.random_state, as_frame=True)
    else:
        rows = model.sample(args.n_samples, random_state=args.random_state)
        rows = {f"x{i}": column for i, column in enumerate(rows.T)}
    write_csv(rows, args.output)
    if args.output:
        say(f"wrote {args.output}: {args.n_samples} rows", args.output)


def run_impute(args):
    """Fill in the missing values of a CSV file by a stored density of a table."""
    check_writable(args.output, args.model, args.data)
    model = load_model(args)
    if not isinstance(model, TableDensity):
        raise ValueError(
            f"{args.model} holds a {type(model).__name__}, which models complete rows: fit the "
            "table with --estimator table"
        )
    table = read_csv(args.data, args.sep, args.decimal, texts_of(model))
    frame = with_dates(select(table, [*model.feature_names_in_], args.data))
    warn_of_unseen(model, frame)
    filled = model.impute(frame, args.method, random_state=args.random_state)
    for name in filled.select_dtypes("datetime"):
        if table[name].dtype != filled[name].dtype:  # texts in the file, which stay as they are
            filled[name] = table[name].where(table[name].notna(), filled[name].astype(str))
    write_csv(table.assign(**{name: filled[name] for name in filled}), args.output)
    if args.output:
        n_gaps = int(frame.isna().sum().sum())
        say(f"wrote {args.output}: {n_gaps} missing values filled in", args.output)


def run_predict(args):
    """Predict the target of the rows of a CSV file, with intervals."""
    check_writable(args.output, args.model, args.data)
    if is_standard(args.model) and is_standard(args.data):
        raise ValueError("model and data are both -: only one of them can be standard input")
    model = load_model(args, (FlowRegressor,), "density_", "skflows fit --target")
    if model.n_outputs_ > 1:
        raise ValueError(f"{args.model} predicts {model.n_outputs_} columns; only one is possible")
    table = read_csv(args.data, args.sep, args.decimal)
    names = getattr(model, "feature_names_in_", None)
    X = table.to_numpy() if names is None else select(table, list(names), args.data)
    distribution = model.predict_distribution(X)
    columns = {"mean": distribution.mean(), "median": distribution.median()}
    columns["low"], columns["high"] = model.predict_interval(X, args.coverage).T
    write_csv(columns, args.output)
    if args.output:
        say(
            f"wrote {args.output}: {len(X)} predictions, with intervals of {args.coverage:.0%} "
            "coverage",
            args.output,
        )


def load_model(args, classes=DENSITIES, fitted="offset_", source="skflows"):
    """Load the model of a command: a file of `save`, or a pickle if the user trusts it."""
    path = args.model
    is_foreign = _is_foreign(path)
    if args.allow_pickle and is_foreign:
        model = _unpickle(path)
    else:
        try:
            model = load(standard_input() if is_standard(path) else path)
        except OSError as error:
            raise ValueError(f"cannot read {path}: {one_line(error)}") from error
        except ValueError as error:
            hint = "; if it is a pickle that you trust, add --allow-pickle" if is_foreign else ""
            raise ValueError(f"{one_line(error)}{hint}") from error
    if not isinstance(model, classes) or not hasattr(model, fitted):
        hint = "; use skflows predict" if isinstance(model, FlowRegressor) else ""
        raise ValueError(
            f"{path} is not a fitted model of {source}: it holds a {type(model).__name__}{hint}"
        )
    return model


def _is_foreign(path):
    """Return whether a file may be one that `save` did not write."""
    if is_standard(path):
        return True  # what comes in cannot be looked at beforehand
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(2) != b"PK"


def _unpickle(path):
    import joblib

    try:
        return joblib.load(standard_input() if is_standard(path) else path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:  # unpickling other bytes may raise anything
        raise ValueError(f"{path} is not a pickle that can be loaded: {one_line(error)}") from error
