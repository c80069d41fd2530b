"""The commands that fit, score and sample: ``skflows fit``, ``score`` and ``sample``."""

import time

from ..density import ARCHITECTURES, GaussianizationDensity
from ..ensemble._auto import AutoDensity
from ._csv import check_writable, numbers, one_line, read_csv, read_numbers, select, write_csv
from ._progress import fit_with_progress, n_jobs_for

ESTIMATORS = ARCHITECTURES | {"gaussianization": GaussianizationDensity, "auto": AutoDensity}


def run_fit(args):
    """Fit a density to a CSV file and store it."""
    check_writable(args.output, args.data)
    frame = read_numbers(args.data, args.columns)
    model = ESTIMATORS[args.estimator](random_state=args.random_state)
    for name in ("max_iter", "time_limit", "contamination"):
        value = getattr(args, name)
        if value is None:
            continue
        if name not in model.get_params():
            raise ValueError(f"{type(model).__name__} has no --{name.replace('_', '-')}")
        model.set_params(**{name: value})
    if "n_jobs" in model.get_params():
        model.set_params(n_jobs=n_jobs_for(args.time_limit))

    start = time.perf_counter()
    interrupted = fit_with_progress(model, frame)
    seconds = time.perf_counter() - start
    import joblib

    joblib.dump(model, args.output)
    n, d = frame.shape
    name = type(model).__name__
    print(f"{name} fitted to {n} rows of {d} columns in {seconds:.1f} s: {_summary(model)}")
    print(f"wrote {args.output}")
    return interrupted


def _summary(model):
    """Return the result of a fit, in one line."""
    if hasattr(model, "leaderboard_"):
        pairs = zip(model.leaderboard_["component"], model.leaderboard_["weight"], strict=True)
        heaviest = ", ".join(f"{name} {weight:.2f}" for name, weight in [*pairs][:3] if weight)
        return f"{heaviest}, held-out log-density {model.stacked_score_:.4g} nats per row"
    held_out = model.best_validation_score_
    quality = "" if held_out is None else f", held-out log-density {held_out:.4g} nats per row"
    return f"{model.n_iter_} epochs, best {model.best_iter_}{quality}"


def run_score(args):
    """Score the rows of a CSV file by a stored density."""
    check_writable(args.output, args.model, args.data)
    model = _load(args.model)
    frame = read_csv(args.data)
    frame = select(frame, getattr(model, "feature_names_in_", frame.columns), args.data)
    frame = numbers(frame, args.data, "the model was fitted to numbers")
    scores = model.score_samples(frame if hasattr(model, "feature_names_in_") else frame.values)
    outlier = scores < model.offset_
    write_csv({"log_density": scores, "outlier": outlier.astype(int)}, args.output)
    if args.output:
        print(
            f"wrote {args.output}: {outlier.sum()} of {len(scores)} rows are outliers "
            f"(log-density below {model.offset_:.4g})"
        )


def run_sample(args):
    """Draw rows from a stored density."""
    check_writable(args.output, args.model)
    model = _load(args.model)
    names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(model.n_features_in_)])
    rows = model.sample(args.n_samples, random_state=args.random_state)
    write_csv(dict(zip(names, rows.T, strict=True)), args.output)
    if args.output:
        print(f"wrote {args.output}: {args.n_samples} rows")


def _load(path):
    import joblib

    try:
        model = joblib.load(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:  # unpickling other bytes may raise anything
        raise ValueError(
            f"{path} is not a model of skflows ({type(error).__name__}: {one_line(error)})"
        ) from error
    if not isinstance(model, tuple(ESTIMATORS.values())) or not hasattr(model, "offset_"):
        raise ValueError(
            f"{path} is not a fitted model of skflows: it holds a {type(model).__name__}"
        )
    return model
