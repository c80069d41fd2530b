"""Arguments of the ``skflows`` command."""

import argparse
from functools import partial
from importlib import import_module
from pathlib import Path

from .. import __version__
from . import _arguments, _model_files

DESCRIPTION = (
    "Fit a density to a table, score rows, draw new ones, predict a column, and find outliers."
)
EPILOG = """\
examples:
  skflows fit data.csv -o model.skflows --random-state 0
  skflows score model.skflows new.csv -o scores.csv
  skflows sample model.skflows -n 1000 -o synthetic.csv
  skflows fit houses.csv --target price -o prices.skflows
  skflows predict prices.skflows new.csv -o predicted.csv --coverage 0.8
  skflows impute model.skflows gaps.csv -o complete.csv
  skflows outliers data.csv -o flagged.csv --fdr 0.05 --report report.html
  skflows compress images/ --model digits.skflows -o images.skfc
  skflows decompress images.skfc --model digits.skflows -o restored/
  skflows demo

Tables are CSV files with column names in the first line, Parquet files (by their suffix .parquet)
or folders of either; separator, decimal mark, encoding and compression are detected. An output that
ends with / is a folder of Parquet files. Texts, dates and missing values are modelled by a density
of tables; if you choose another one, these columns and rows are left out, with a warning, unless
there is a --target. Amounts, percentages, dates, times and durations are read as numbers. Outputs
have the rows of the data in their order, and their form.
For a ranking without p-values and reasons, scikit-learn's NearestNeighbors or IsolationForest is
enough.
Models run no code when they are loaded; pickles can, and need --allow-pickle. The name - is
standard input or output, for tables and for models. A terminal shows numbers with six digits; files
and pipes get all digits. An error is one line on standard error, and exit code 2.
"""


def make_parser():
    """Return the parser; its result has a function ``run`` that takes the arguments."""
    style = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": EPILOG}
    parser = _arguments.Parser("skflows", description=DESCRIPTION, **style)
    parser.add_argument("--version", action="version", version=f"skflows {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (add_arguments, module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, **style)
        command.set_defaults(run=partial(_run, module, f"run_{name}"))
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        add_arguments(command)
    return parser


def _add_fit(command):
    command.add_argument("data", type=Path, help="table, one row per sample")
    command.add_argument("-o", "--output", type=Path, required=True, help="file of the model")
    command.add_argument(
        "--estimator",
        choices=_model_files.ESTIMATORS,
        help="architecture (default: nsf, or table for texts or missing values); auto tries many "
        "and takes longer. With --target, a flow, or table for categories: neither auto nor "
        "gaussianization",
    )
    command.add_argument(
        "--target",
        metavar="COLUMN",
        help="fit a regressor of this column of numbers, or a classifier of its categories, given "
        "the others, which may hold texts and missing values, for skflows predict; without it, fit "
        "a density of all columns",
    )
    _add_columns(command, "column that identifies the rows, to leave out")
    command.add_argument(
        "--max-iter",
        type=_arguments.positive,
        metavar="N",
        help="largest number of epochs (default: 100; with texts or missing values, about 800 "
        "steps over all folds, within 50 to 100 epochs)",
    )
    command.add_argument(
        "--time-limit",
        type=_arguments.seconds,
        metavar="S",
        help="seconds to fit in (flows, table, auto); one component is always fitted, which may "
        "take longer",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="fit in 20 seconds with as many densities or epochs as the time allows, so that "
        "results differ even with the same --random-state",
    )
    command.add_argument(
        "--memory-limit",
        type=_arguments.memory,
        metavar="SIZE",
        help="memory for the rows, such as 2GB: a table that needs more is trained on in parts",
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="folder to store the training in every ten seconds",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="continue the fit whose checkpoint is in the folder, if there is one",
    )
    command.add_argument(
        "--contamination",
        type=_arguments.contamination,
        metavar="F",
        help="fraction of the rows that are outliers, or auto (the default); not with --target",
    )
    command.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="a report of synthetic rows of a density beside the rows of the table, in one file",
    )
    _add_random_state(command)


def _add_score(command):
    _add_model(command)
    command.add_argument("data", type=Path, help="table with the columns of the model")
    command.add_argument(
        "-o",
        "--output",
        type=_arguments.table,
        help="table of log_density (nats) and outlier (1 or 0), a line per row, in the order of "
        "the data (default: print)",
    )
    _add_id(command, "column of the data that the output repeats in front")
    _add_format(command)


def _add_sample(command):
    _add_model(command)
    command.add_argument(
        "-n",
        "--n-samples",
        type=_arguments.positive,
        default=1000,
        metavar="N",
        help="rows (default: 1000)",
    )
    command.add_argument(
        "--complete", action="store_true", help="draw rows of a table without missing values"
    )
    command.add_argument(
        "--given",
        type=_arguments.given,
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="draw rows that have this value, written as in the file of fit; for several columns, "
        "give the option several times",
    )
    command.add_argument("-o", "--output", type=_arguments.table, help="table (default: print)")
    _add_random_state(command)


def _add_predict(command):
    _add_model(command)
    command.add_argument("data", type=Path, help="table with the columns of the model")
    command.add_argument(
        "-o",
        "--output",
        type=_arguments.table,
        help="table of mean, median, low and high, or of the class and probabilities, a line per "
        "row, in the order of the data (default: print)",
    )
    _add_id(command, "column of the data that the output repeats in front")
    command.add_argument(
        "--coverage",
        type=_arguments.fraction,
        metavar="F",
        help="probability of the intervals from low to high of a regressor (default: 0.9)",
    )
    command.add_argument(
        "--report",
        type=Path,
        metavar="HTML",
        help="a report of the predictions of rows whose target the data have, in one file",
    )
    _add_format(command)


def _add_impute(command):
    _add_model(command)
    command.add_argument("data", type=Path, help="table with the columns of the model")
    command.add_argument(
        "-o",
        "--output",
        type=_arguments.table,
        help="the same table, its known values kept (default: print)",
    )
    command.add_argument(
        "--method",
        choices=["mean", "median", "mode", "draw"],
        default="mean",
        help="centre of each missing value's distribution, or a draw (default: mean)",
    )
    command.add_argument(
        "--keep-blanks",
        action="store_true",
        help="leave cells blank that count as 0, or in rows of a category none of whose rows in "
        "fit has a value",
    )
    _add_format(command)
    _add_random_state(command)


def _add_outliers(command):
    command.add_argument("data", type=Path, help="table, one row per sample")
    command.add_argument(
        "-o",
        "--output",
        type=_arguments.table,
        help="the same table, with the flag of each row in further columns (default: print the "
        "oddest rows)",
    )
    command.add_argument(
        "--reference",
        type=Path,
        metavar="TABLE",
        help="rows known to be normal, to fit and to calibrate with (default: the data themselves)",
    )
    command.add_argument(
        "--fdr",
        type=_arguments.fraction,
        default=0.05,
        metavar="F",
        help="largest fraction of false flags, on average (default: 0.05)",
    )
    _add_columns(command, "column that identifies the rows, to leave out; the report shows it")
    command.add_argument(
        "--memory-limit",
        type=_arguments.memory,
        metavar="SIZE",
        help="memory for the rows, such as 2GB; a larger table is judged in batches and needs "
        "--reference",
    )
    command.add_argument("--report", type=Path, metavar="HTML", help="a report, in one file")
    command.add_argument(
        "--quick",
        action="store_true",
        help="a result in 20 seconds for tables with texts or missing values too, by a smaller "
        "density, whose size depends on the time, so that results differ even with the same "
        "--random-state",
    )
    _add_random_state(command)


def _add_compress(command):
    command.add_argument(
        "data",
        type=Path,
        help="folder of PNG, BMP, PGM or PPM images of one size, or table of whole numbers",
    )
    command.add_argument(
        "-o",
        "--output",
        type=_arguments.table,
        required=True,
        help="compressed file, or a folder, in which it has the name of the data",
    )
    _add_compressor(command, "; if there is none, it is fitted to the data and written")
    _add_format(command)
    command.add_argument(
        "--max-iter",
        type=_arguments.positive,
        metavar="N",
        help="largest number of epochs of a new model (default: 100)",
    )
    command.add_argument(
        "--time-limit", type=_arguments.seconds, metavar="S", help="seconds to fit a new model in"
    )
    _add_random_state(command)


def _add_decompress(command):
    command.add_argument("data", type=Path, help="file written by skflows compress")
    command.add_argument(
        "-o",
        "--output",
        type=_arguments.table,
        required=True,
        help="new folder of images (as in restored/), or table",
    )
    _add_compressor(command, "")


def _add_compressor(command, text):
    command.add_argument(
        "--model",
        type=Path,
        required=True,
        help=f"file of the model by which the data are compressed{text}",
    )
    command.set_defaults(allow_pickle=False)


def _add_demo(command):
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("skflows_demo.png"),
        help="picture (default: skflows_demo.png)",
    )
    command.add_argument(
        "--max-iter", type=_arguments.positive, metavar="N", help="fewer epochs, for a quick look"
    )


def _add_model(command):
    command.add_argument("model", type=Path, help="file written by skflows fit")
    command.add_argument(
        "--allow-pickle",
        action="store_true",
        help="load a pickle (joblib), which can run any code that its author put in it",
    )

    for option in ("--kind", "--thousands", "--dayfirst", "--monthfirst"):
        command.add_argument(
            option, nargs="?", const="", type=_arguments.of_fit, help=argparse.SUPPRESS
        )


def _add_columns(command, id_text):
    command.add_argument(
        "--columns",
        type=_arguments.names,
        metavar="A,B",
        help="columns (default: all that the model takes)",
    )
    command.add_argument(
        "--exclude", type=_arguments.names, metavar="A,B", default=(), help="columns to leave out"
    )
    command.add_argument(
        "--kind",
        type=_arguments.kind,
        metavar="COLUMN=KIND",
        action="append",
        default=[],
        help="kind of a column, such as zip=categorical or share=bounded,0,1, as in the parameter "
        "columns of TableDensity; for several columns, give the option several times",
    )
    _add_id(command, id_text)
    _add_format(command)
    command.add_argument(
        "--thousands",
        type=_arguments.thousands,
        metavar="C",
        help="what separates thousands, such as '.', which makes the decimal mark a comma "
        "(default: detected)",
    )
    order = command.add_mutually_exclusive_group()
    for first in ("day", "month"):
        order.add_argument(
            f"--{first}first",
            dest="dayfirst",
            action="store_const",
            const=first == "day",
            help=f"in dates that can be read in two ways, the {first} stands first",
        )


def _add_id(command, text):
    command.add_argument("--id", metavar="COLUMN", help=text)


def _add_format(command):
    command.add_argument(
        "--sep", metavar="C", help="what separates columns, such as ';' (default: detected)"
    )
    command.add_argument(
        "--decimal", choices=[".", ","], help="decimal mark of numbers (default: detected)"
    )


def _add_random_state(command):
    command.add_argument(
        "--random-state",
        type=_arguments.seed,
        metavar="N",
        help="seed, for the same result each time, except under a limit of time",
    )


def _run(module, name, args):
    """Run a command by a function of a module, which is imported after arguments are checked."""
    return getattr(import_module(f".{module}", __package__), name)(args)


# Name of each command, with the function that adds its arguments, the module that runs it, and its
# help.
COMMANDS = {
    "fit": (
        _add_fit,
        "_models",
        "fit a density, a regressor or a classifier to a table (Ctrl-C keeps the best weights so "
        "far)",
    ),
    "score": (
        _add_score,
        "_score",
        "give each row of a table its log-density and an outlier flag",
    ),
    "sample": (_add_sample, "_models", "draw new rows from a model"),
    "predict": (
        _add_predict,
        "_models",
        "predict the target of each row of a table, with intervals or probabilities",
    ),
    "impute": (
        _add_impute,
        "_models",
        "fill in the missing values of a table by a table model",
    ),
    "outliers": (
        _add_outliers,
        "_outliers",
        "flag the outliers of a table and say why they are odd",
    ),
    "compress": (
        _add_compress,
        "_compress",
        "compress images or a table of whole numbers without loss, by a model of similar data",
    ),
    "decompress": (
        _add_decompress,
        "_compress",
        "restore the images or the table that skflows compress wrote",
    ),
    "demo": (
        _add_demo,
        "_demo",
        "compare a flow with scikit-learn's densities on a real table",
    ),
}
