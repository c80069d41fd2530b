"""The commands of models: ``skflows fit``, ``sample``, ``impute`` and ``predict``."""

import sys
import time
from collections import Counter
from itertools import repeat

import numpy as np
from sklearn.utils import check_random_state

from ..columns.arrays import EXACT
from ..conditional import DensityClassifier, FlowRegressor
from ..table import TableDensity
from ..table._duration import expected_duration
from ._columns import (
    REMEDY_OF_FIT,
    WITHOUT_NAME,
    check_columns,
    check_free,
    chosen_columns,
    complete_numbers,
    empty_columns,
    ids,
    left_out,
    needs_table,
    numbers,
    select,
    unquoted,
    used,
    warn_of_many_texts,
    with_dates,
    with_parsed,
)
from ._forms import form_of, hints_of, kinds_in, set_form
from ._model_files import ESTIMATORS, load_model
from ._page import check_report, write_report
from ._predict import fit_target
from ._progress import (
    announce,
    announce_tables,
    checkpoints,
    fit_with_progress,
    limit_of_user,
    n_jobs_for,
    print_status,
    time_limit_of,
    with_progress,
)
from ._score import TableRows, Unseen, as_in_fit, encoding_of, given_values
from ._stored_rows import stored_rows
from ._tables import (
    check_writable,
    import_pandas,
    is_csv,
    is_standard,
    open_table,
    say,
    shown,
    writing,
)

COVERAGE = 0.9  # of intervals of predictions
MAX_NAMED = 5  # columns in a message
REMEDY_OF_CLASSIFIER = (
    "fill them in, or fit the classifier with --estimator table, which takes missing values"
)
MANY_VALUES = 30_000  # to which fitting a mixture takes long


def run_fit(args):
    """Fit a density to a table, or one column given the others, and store it."""
    if args.target is not None:
        return fit_target(args)
    check_writable(args.output, args.data)
    check_report(args, args.data)
    callbacks = checkpoints(args)
    hints = hints_of(args)
    table = open_table(
        args.data, args.sep, args.decimal, used=used(args), kept=left_out(args), hints=hints
    )
    check_columns(args, table)
    if table.exceeds(args.memory_limit):
        if args.report is not None:
            raise ValueError(
                f"{args.data} is larger than --memory-limit, and --report needs all rows: raise "
                "the limit, or leave --report out"
            )
        _check_kinds(hints, args.estimator or "nsf")
        model = _new_model(args, args.estimator or "nsf")
        model.set_callbacks(*callbacks)
        with stored_rows(args, table, model) as rows:
            data = *map(rows.frame, (rows.chunk(0), rows.held_out)), rows.chunk
            start = time.perf_counter()
            interrupted = fit_with_progress(model, *data, callbacks=callbacks, method="_fit_chunks")
            return _finish(args, model, table, rows.shape, start, interrupted)
    every = table.read()
    frame = chosen_columns(every, args.data, args.columns, left_out(args), models_texts=False)
    if args.columns is None and (empty := empty_columns(every, left_out(args))):
        names = [name for name in every if name in frame or name in empty]
        table.form = table.form._replace(columns=names)
    is_table = needs_table(frame) or bool(hints.kinds)
    name = args.estimator or ("table" if is_table else "nsf")
    _check_kinds(hints, name)
    model = _new_model(args, name)
    if name == "table":
        frame = with_dates(frame)
        warn_of_many_texts(frame, args.data, hints.texts)
        model.set_params(handle_unknown="rare", columns=kinds_in(frame, table.form, hints))
        model.set_params(n_jobs=n_jobs_for(expected_duration(model, *frame.shape)))
    else:
        frame = complete_numbers(frame, args.data, args.columns and [*frame], remedy=REMEDY_OF_FIT)
        if "n_jobs" in model.get_params():
            model.set_params(n_jobs=n_jobs_for(model.time_limit))
    if name == "table":
        announce_tables(model, frame)
    elif name == "auto" and model.time_limit is None and frame.size > MANY_VALUES:
        announce(frame, "many densities", "may take minutes")
    start = time.perf_counter()
    with limit_of_user(args):
        interrupted = fit_with_progress(model, frame, callbacks=callbacks)
    seconds = time.perf_counter() - start
    _finish(args, model, table, frame.shape, start, interrupted)
    if args.report is not None:
        from ._fit_report import report

        print_status("drawing synthetic rows and comparing them, which may take a minute ...")
        page = report(args.data, model, frame, seconds, args.random_state)
        write_report(args, page, args.output)
    return interrupted


def _check_kinds(hints, name):
    """Raise an error if kinds are stated for an estimator that has none."""
    if hints.kinds and name != "table":
        raise ValueError(f"--kind is for --estimator table, not for {name}")


def _new_model(args, name):
    """Return a new estimator with the parameters that the arguments set."""
    model = ESTIMATORS[name](random_state=args.random_state)
    values = {"max_iter": args.max_iter, "contamination": args.contamination}
    for name, value in (values | {"time_limit": time_limit_of(args)}).items():
        if value is None:
            continue
        if name not in model.get_params():
            raise ValueError(f"{type(model).__name__} has no --{name.replace('_', '-')}")
        model.set_params(**{name: value})
    return model


def _finish(args, model, table, shape, start, interrupted):
    """Store a fitted model, and say so; return whether Ctrl-C ended the fit."""
    seconds = time.perf_counter() - start
    set_form(model, table.form)
    model.save(sys.stdout.buffer if is_standard(args.output) else args.output)
    n, d = shape
    columns = "1 column" if d == 1 else f"{d} columns"
    fitted = f"{type(model).__name__} fitted to {n} rows of {columns} in {seconds:.1f} s"
    say(f"{fitted}: {_summary(model)}\nwrote {shown(args.output)}", args.output)
    return interrupted


def _summary(model):
    """Return the result of a fit, in one line."""
    if hasattr(model, "leaderboard_"):
        pairs = zip(model.leaderboard_["component"], model.leaderboard_["weight"], strict=True)
        heaviest = [f"{name} (weight {weight:.2f})" for name, weight in [*pairs][:3] if weight]
        held_out = f"held-out log-density {model.stacked_score_:.4g} nats per row"
        return f"mixture of {', '.join(heaviest)}; {held_out}"
    held_out = model.best_validation_score_
    quality = "" if held_out is None else f", held-out log-density {held_out:.4g} nats per row"
    if not model.best_iter_:
        return f"no epoch of {model.n_iter_} improved on the initial weights{quality}"
    return f"{model.n_iter_} epochs, best {model.best_iter_}{quality}"


def run_sample(args):
    """Draw rows from a stored density."""
    check_writable(args.output, args.model)
    import_pandas()  # before a model is loaded
    model = load_model(args)
    given = given_values(model, dict(args.given)) if args.given else None
    if args.output is not None and not is_standard(args.output):
        print_status(f"drawing {args.n_samples} rows of {model.n_features_in_} columns ...")
    if isinstance(model, TableDensity):
        rows = model.sample(args.n_samples, args.random_state, given=given, complete=args.complete)
    elif hasattr(model, "feature_names_in_"):
        rows = model.sample(args.n_samples, random_state=args.random_state, as_frame=True)
    else:
        rows = model.sample(args.n_samples, random_state=args.random_state)
        rows = {f"x{i}": column for i, column in enumerate(rows.T)}
    form, rows = form_of(model), import_pandas().DataFrame(rows)
    names = form.columns or [*rows]
    header = ["" if WITHOUT_NAME.fullmatch(name) and name not in rows else name for name in names]
    rows = rows.reindex(columns=names)
    with writing(args.output, form) as append:
        append(rows, **({"header": header} if is_csv(args.output) else {}))
    if args.output:
        say(f"wrote {shown(args.output)}: {args.n_samples} rows", args.output)


def run_impute(args):
    """Fill in the missing values of a table by a stored density, in batches."""
    check_writable(args.output, args.model, args.data)
    model = load_model(args)
    if not isinstance(model, TableDensity):
        raise ValueError(
            f"{args.model} holds a {type(model).__name__}, which models complete rows: fit the "
            "table with --estimator table"
        )
    names = model.feature_names_in_
    table = open_table(args.data, args.sep, args.decimal, **as_in_fit(model), used=names)
    rows, n_filled = TableRows(model, args.data), Counter()
    schema = model._schema
    decimals = {name: schema.columns[i].decimals for i, name in enumerate(schema.names)}
    random_state = check_random_state(args.random_state)
    with writing(args.output, table.form) as append:
        for batch, raw in with_raw(table, args.output):
            batch = unquoted(batch, names)
            frame = rows.of(batch)
            settings = {"keep_blanks": args.keep_blanks, "random_state": random_state}
            filled = model.impute(frame, args.method, **settings)
            n_filled.update((frame.isna() & filled.notna()).sum().to_dict())
            columns = filled_columns(batch, filled, decimals)
            if raw is None:
                append(batch.assign(**columns))
                continue
            raw = unquoted(raw, names)
            for name, column in columns.items():
                known = batch[name].notna()
                if filled[name].dtype.kind == "M":
                    column = filled[name]
                raw[name] = raw[name].where(known, append.cells(column, name))
            append(raw, header=table.header)
    rows.report()
    if args.output:
        text = f"wrote {shown(args.output)}: {n_filled.total()} missing values filled in"
        columns = [f"{name} {n}" for name, n in n_filled.most_common() if n]
        if len(columns) > 1:
            more = f" and {len(columns) - MAX_NAMED} other columns" * (len(columns) > MAX_NAMED)
            text += f" ({', '.join(columns[:MAX_NAMED])}{more})"
        say(text, args.output)


def with_raw(table, output):
    """Yield batches of a table and, if it and the output are CSV, their rows as they are written.

    Otherwise there is None in their place.
    """
    raw = (
        table.raw_batches(table.batch_rows) if table.has_cells and is_csv(output) else repeat(None)
    )
    for batch in with_progress(table, output):
        rows = next(raw)
        # Parsers may differ in what they skip.
        yield batch, rows if rows is not None and len(rows) == len(batch) else None


def filled_columns(batch, filled, decimals):
    """Return the columns with missing values, filled in, by name; others stay as they are."""
    columns = {}
    for name in filled.columns[batch[[*filled]].isna().any()]:
        if name not in decimals:  # an identifier
            continue
        old, new = batch[name], filled[name]
        if new.dtype.kind == "M" and old.dtype != new.dtype:  # texts in the file, which stay so
            new = old.where(old.notna(), new.astype(str))
        elif decimals[name] is not None:
            new = new.round(decimals[name]).where(old.isna(), old)
            if not decimals[name] and new.abs().max() < EXACT and (new % 1 == 0).all():
                new = new.astype("Int64")
        columns[name] = new
    return columns


def as_integers(values):
    """Return whole numbers as integers, and other numbers as they are."""
    is_whole = (np.abs(values) < EXACT) & (values == np.floor(values))  # neither is infinite
    return values.astype(np.int64) if is_whole.all() else values


def run_predict(args):
    """Predict the target of the rows of a table, with intervals, in batches."""
    check_writable(args.output, args.model, args.data)
    check_report(args, args.model, args.data)
    model = load_model(args, (FlowRegressor, DensityClassifier), "n_features_in_")
    is_classifier = isinstance(model, DensityClassifier)
    if is_classifier and args.coverage is not None:
        raise ValueError(
            f"--coverage is for regressors; {args.model} predicts classes, with probabilities"
        )
    coverage = COVERAGE if args.coverage is None else args.coverage
    if not is_classifier and model.n_outputs_ > 1:
        raise ValueError(f"{args.model} predicts {model.n_outputs_} columns; only one is possible")
    labels = ids(args)
    if is_classifier:
        added = ["predicted", *(f"probability_{each}" for each in model.classes_)]
    else:
        added = ["mean", "median", "low", "high"]
        model.set_params(prediction="mean")  # also of a model that predicts medians
    check_free(labels, added, args.data)
    names, encoding = getattr(model, "feature_names_in_", None), encoding_of(model)
    targets = known_targets(args, model, names, is_classifier)
    settings, read = as_in_fit(model), names
    if targets is not None:
        read = [*names, targets.target]
        # The fit reads true and false as booleans, unless --kind says that they are texts.
        is_text = is_classifier and {*model.classes_} != {"True", "False"}
        settings["texts"] += [targets.target] * is_text
    table = open_table(args.data, args.sep, args.decimal, **settings, used=read, kept=labels)
    if targets is not None and targets.target not in table.header:
        raise ValueError(
            f"{args.data} has no column {targets.target!r}, which --report compares with the "
            "predictions: leave --report out"
        )
    form = table.form
    if not is_classifier:
        form = form.with_format(added, form.formats.get(form_of(model).target))
    needed, n_rows, unseen = None if names is None else [*read, *labels], 0, Unseen(encoding)
    with writing(args.output, form) as append:
        for batch in with_progress(table, args.output, needed):
            named = select(batch, labels, args.data)
            if names is None:
                X = unquoted(batch, labels).drop(columns=labels).to_numpy()
            else:
                X = select(batch, names, args.data)
                X = X if encoding is None else with_parsed(X, encoding.zones, are_dates=True)
            unseen.add(X)
            if is_classifier:
                if encoding is None and names is not None:
                    X = numbers(X, args.data, remedy_of_missing=REMEDY_OF_CLASSIFIER)
                probability = model.predict_proba(X)
                columns = model.classes_[probability.argmax(axis=1)], *probability.T
            else:
                distribution = model.predict_distribution(X)
                low, high = model.predict_interval(X, coverage).T
                ends = distribution.median(), low, high
                if distribution.is_discrete:
                    ends = map(as_integers, ends)
                columns = model.predict(X), *ends
            append(named.assign(**dict(zip(added, columns, strict=True))))
            n_rows += len(X)
            if targets is not None:
                targets.add(batch, X, labels)
    unseen.warn()
    if args.output and is_classifier:
        say(f"wrote {shown(args.output)}: {n_rows} predictions, with probabilities", args.output)
    elif args.output:
        of = f"{100 * coverage:.6g}% coverage"
        say(
            f"wrote {shown(args.output)}: {n_rows} predictions, with intervals of {of}",
            args.output,
        )
    if targets is not None:
        from ._predict_report import report

        print_status("judging the predictions ...")
        write_report(args, report(model, targets, coverage, table.form), args.output or "-")


def known_targets(args, model, names, is_classifier):
    """Return where a report collects the rows whose target is known, or None without a report."""
    if args.report is None:
        return None
    target = form_of(model).target
    if target is None or names is None:
        raise ValueError(
            f"{args.model} does not know the name of its target: fit it with skflows fit --target "
            "to have a --report"
        )
    from ._predict_report import KnownTargets

    return KnownTargets(args, target, is_classifier)
