"""The ``skflows`` command: fit, score, sample and flag CSV files, without writing Python."""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

from . import __version__, _arguments
from ._auto import AutoDensity
from ._csv import check_writable, numbers, one_line, read_csv, read_numbers, select, write_csv
from ._progress import fit_with_progress, processes
from .density import ARCHITECTURES, GaussianizationDensity

ESTIMATORS = ARCHITECTURES | {"gaussianization": GaussianizationDensity, "auto": AutoDensity}

DESCRIPTION = "Fit a density to a table, score rows, draw new ones, and find outliers."
EPILOG = """\
examples:
  skflows fit data.csv -o model.joblib --random-state 0
  skflows score model.joblib new.csv -o scores.csv
  skflows sample model.joblib -n 1000 -o synthetic.csv
  skflows outliers data.csv -o flagged.csv --fdr 0.05 --report report.html
  skflows demo

Tables are CSV files: commas, and a first line of column names.
A model is a joblib file, and loading one can run any code that its author put in it:
use only models from sources that you trust.
"""


def main(argv=None):
    """Run the command.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments. None takes those of the process.

    Returns
    -------
    code : int
        Exit code: 0, or 2 after an error, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            interrupted = args.run(args)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("skflows: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # The reader has what it wanted, as `head` does. What is still buffered must go
            # somewhere, or Python complains at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
            print(f"skflows: error: {one_line(error)}", file=sys.stderr)
            return 2
    return 130 if interrupted else 0


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
        model.set_params(n_jobs=processes(args.time_limit))

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
    """What came of a fit, in a line."""
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


def run_outliers(args):
    """Flag the outliers of a CSV file."""
    from ._flag import run

    outputs = [path for path in (args.output, args.report) if path is not None]
    for path in outputs:
        check_writable(path, args.data, *([args.reference] if args.reference else []))
    run(args)


def run_demo(args):
    """Compare a flow with scikit-learn's densities on a real table."""
    from ._demo import run

    check_writable(args.output)
    return run(args.output, max_iter=args.max_iter)


def _load(path):
    import joblib

    try:
        model = joblib.load(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {one_line(error)}") from error
    except Exception as error:  # unpickling bytes of another kind may raise anything
        raise ValueError(
            f"{path} is not a model of skflows ({type(error).__name__}: {one_line(error)})"
        ) from error
    if not isinstance(model, tuple(ESTIMATORS.values())) or not hasattr(model, "offset_"):
        raise ValueError(
            f"{path} is not a fitted model of skflows: it holds a {type(model).__name__}"
        )
    return model


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"skflows: warning: {one_line(message)}", file=sys.stderr)


def _parser():
    style = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": EPILOG}
    parser = _arguments.Parser("skflows", description=DESCRIPTION, **style)
    parser.add_argument("--version", action="version", version=f"skflows {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run, text):
        name = run.__name__.removeprefix("run_")
        sub = commands.add_parser(name, help=text, description=text, **style)
        sub.set_defaults(run=run)
        return sub

    seeded = {
        "type": _arguments.seed,
        "metavar": "N",
        "help": "seed, for the same result each time",
    }

    fit = command(run_fit, "fit a density to a CSV file (Ctrl-C keeps the best weights so far)")
    fit.add_argument("data", type=Path, help="CSV file of numbers, one row per sample")
    fit.add_argument("-o", "--output", type=Path, required=True, help="file of the model")
    fit.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        default="nsf",
        help="architecture (default: nsf); auto tries many and takes longer",
    )
    fit.add_argument(
        "--columns", type=_arguments.names, metavar="A,B", help="columns (default: all)"
    )
    fit.add_argument(
        "--max-iter",
        type=_arguments.positive,
        metavar="N",
        help="largest number of epochs (default: 100)",
    )
    fit.add_argument(
        "--time-limit",
        type=_arguments.seconds,
        metavar="S",
        help="seconds to fit in (flows, auto)",
    )
    fit.add_argument(
        "--contamination",
        type=_arguments.contamination,
        metavar="F",
        help="fraction of the rows that are outliers, or auto (the default)",
    )
    fit.add_argument("--random-state", **seeded)

    score = command(run_score, "give each row of a CSV file its log-density and an outlier flag")
    score.add_argument("model", type=Path, help="file written by skflows fit")
    score.add_argument("data", type=Path, help="CSV file with the columns of the model")
    score.add_argument(
        "-o",
        "--output",
        type=Path,
        help="CSV file of log_density (nats) and outlier (1 or 0), a line per row (default: print)",
    )

    sample = command(run_sample, "draw new rows from a model")
    sample.add_argument("model", type=Path, help="file written by skflows fit")
    sample.add_argument(
        "-n",
        "--n-samples",
        type=_arguments.positive,
        default=1000,
        metavar="N",
        help="rows (default: 1000)",
    )
    sample.add_argument("-o", "--output", type=Path, help="CSV file (default: print)")
    sample.add_argument("--random-state", **seeded)

    outliers = command(run_outliers, "flag the outliers of a CSV file and say why they are odd")
    outliers.add_argument("data", type=Path, help="CSV file of numbers, one row per sample")
    outliers.add_argument(
        "-o", "--output", type=Path, required=True, help="CSV file of the rows and their flags"
    )
    outliers.add_argument(
        "--reference",
        type=Path,
        metavar="CSV",
        help="rows known to be normal, to fit and to calibrate with (default: the data themselves)",
    )
    outliers.add_argument(
        "--fdr",
        type=_arguments.fraction,
        default=0.05,
        metavar="F",
        help="largest fraction of false flags, on average (default: 0.05)",
    )
    outliers.add_argument(
        "--columns", type=_arguments.names, metavar="A,B", help="columns (default: all)"
    )
    outliers.add_argument("--report", type=Path, metavar="HTML", help="a page to read, in one file")
    outliers.add_argument(
        "--time-limit",
        type=_arguments.seconds,
        metavar="S",
        help="seconds to fit in; to find the odd columns takes some more",
    )
    outliers.add_argument("--random-state", **seeded)

    demo = command(run_demo, "compare a flow with scikit-learn's densities on a real table")
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("skflows_demo.png"),
        help="picture (default: skflows_demo.png)",
    )
    demo.add_argument(
        "--max-iter", type=_arguments.positive, metavar="N", help="fewer epochs, for a glimpse"
    )
    return parser
