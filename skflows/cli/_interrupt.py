"""Ctrl-C ends the command without a traceback while it is imported, which takes about a second.

Importing this module is enough; a program that imports the package is left alone.
"""

import os
import signal
import sys
from pathlib import Path

INTERRUPTED = 130  # the exit code after Ctrl-C


def is_command():
    """Whether this process runs the command, rather than a program that imports the package.

    Processes that joblib starts for the command get its arguments, but not as original ones.
    """
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        return "skflows" in sys.orig_argv
    return Path(program).stem in ("skflows", "skflows-script") and program in sys.orig_argv


def interrupt_again():
    """Let Ctrl-C raise `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_):
    os.write(2, b"skflows: interrupted\n")
    os._exit(INTERRUPTED)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
