"""Entry point of the ``skflows`` command."""

import os
import re
import shlex
import sys
import warnings
from functools import partial

from ._interrupt import INTERRUPTED
from ._parser import make_parser
from ._tables import one_line

GIVEN = r"^given has (?:the impossible value )?(.*?) in column (['\"])(.*?)\2[,;]"
# What a detector advises, and what the command does.
FEW_TO_CALIBRATE = (
    "Give more rows to calibrate, or use flag(p_values(X, randomized=True)).",
    "Give more rows by --reference.",
)


def main(argv=None):
    """Run the command.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; the process's if None.

    Returns
    -------
    code : int
        Exit code: 0, or 2 after an error, 130 after Ctrl-C.
    """
    args = make_parser().parse_args(argv)
    with warnings.catch_warnings():
        is_quick = getattr(args, "quick", False) and getattr(args, "time_limit", None) is None
        warnings.showwarning = partial(_show_warning, set(), is_quick)
        # Readers of files have said so.
        warnings.filterwarnings("ignore", "these columns of X seem to identify rows")
        try:
            interrupted = args.run(args)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            print(": ".join(["skflows: interrupted", *interrupt.args]), file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # The reader has stopped, as `head` does. Redirect what is still buffered, or Python
            # reports an error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if args.debug:
                raise
            print(f"skflows: error: {_described(error)}", file=sys.stderr)
            return 2
    return INTERRUPTED if interrupted else 0


def _described(error):
    """Return an error in one line: an unexpected one with its type."""
    if isinstance(error, ValueError | OSError | ImportError | MemoryError | RuntimeError):
        return with_options(one_line(error))
    return f"{type(error).__name__}: {one_line(error)} (--debug shows where)"


def with_options(text, is_quick=False):
    """Return a message of the library in which options stand for parameters that the user states.

    A part of a fit has a part of the time that the user gives, which means nothing to them; nor
    does the time of ``--quick``.
    """

    def option(match):
        return f"--kind {shlex.quote(f'{match[2]}={match[3]}')}"

    text = re.sub(r"columns=\{(['\"])(.*?)\1: '(\w+)'\}", option, text)
    text = re.sub(GIVEN, r"--given \3=\1:", text)
    text = re.sub(r"\bfdr=", "--fdr ", text)
    text = text.replace(*FEW_TO_CALIBRATE)
    if is_quick:
        text = re.sub(r"\btime_limit=[-+.\de]+( .*?: )raise it", r"--quick\1leave it out", text)
    return re.sub(r"\btime_limit=[-+.\de]+", "the time limit", text)


def _show_warning(shown, is_quick, message, category, filename, lineno, file=None, line=None):
    """Print a warning, once however many batches of a table give it."""
    if (text := with_options(one_line(message), is_quick)) not in shown:
        shown.add(text)
        print(f"skflows: warning: {text}", file=sys.stderr)
