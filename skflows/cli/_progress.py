"""Progress bars and graceful interruption."""

import signal
import sys
import warnings
from contextlib import contextmanager

from ..callbacks import Checkpoint
from ..callbacks._checkpoint import has_checkpoint
from ..callbacks._progress import FIRST_LINE, with_lines
from ..table._duration import expected_duration, said
from ._tables import is_standard

QUICK_SECONDS = 8  # to fit in; to start, to explain and to write takes some more
QUICK_IN_ALL = 20  # seconds
SHORT = 30  # seconds: a shorter fit runs in one process, because processes take time to start


def n_jobs_for(seconds):
    """Return ``n_jobs`` for a fit of about so many seconds of one core, None if that is unknown."""
    return None if seconds is not None and seconds < SHORT else -1


def progress_bars():
    """Return a callback that shows a bar in a list, on a terminal if it is available.

    Without one, fits print lines.
    """
    try:
        from sklearn.callback import ProgressBar

        return [ProgressBar()] if sys.stdout.isatty() else []
    except ImportError:
        return []  # before scikit-learn 1.9, which the fit does not need, or without rich


def checkpoints(args):
    """Return the callback of ``--checkpoint`` in a list; a used one needs ``--resume``."""
    if args.checkpoint is None:
        if args.resume:
            raise ValueError("--resume needs the folder of the fit: --checkpoint DIR")
        return []
    if has_checkpoint(args.checkpoint) and not args.resume:
        raise ValueError(
            f"{args.checkpoint} has the checkpoint of a fit: add --resume to continue it, or "
            "choose another folder, or delete this one"
        )
    return [Checkpoint(args.checkpoint)]


def time_limit_of(args):
    """Return the time limit in seconds that the arguments set, or None."""
    return QUICK_SECONDS if args.quick and args.time_limit is None else args.time_limit


@contextmanager
def limit_of_user(args):
    """Ignore warnings that a time limit left no time for components, if the user set none."""
    with warnings.catch_warnings():
        if getattr(args, "time_limit", None) is None:  # some commands have no such option
            warnings.filterwarnings("ignore", "time_limit=.* left no time")
        yield


def announce_tables(density, frame):
    """Print how long a long fit of a density of tables takes on one core."""
    seconds = expected_duration(density, *frame.shape)
    if seconds <= FIRST_LINE:
        return
    is_long = seconds > QUICK_IN_ALL
    duration = f"takes {said(seconds, density.time_limit)}"
    announce(frame, "a model of mixed columns with missing values", duration, is_long)


def announce(frame, density, duration, is_long=True):
    """Print before a fit how long it takes, and how it takes less if it is long."""
    n, d = frame.shape
    quick = f" (--quick takes under {QUICK_IN_ALL} seconds)" if is_long else ""
    text = f"fitting {density} to {n} rows of {d} columns, which {duration}{quick}"
    print(f"skflows: {text}", file=sys.stderr)


def print_status(text):
    """Print on a terminal what the command is doing."""
    if sys.stdout.isatty():
        print(text)


def with_progress(table, output, columns=None):
    """Yield the batches of a table, with a progress bar on a terminal that is not the output."""
    batches = table.batches(table.batch_rows, columns)
    try:
        from rich.progress import Progress
    except ImportError:
        Progress = None
    is_printed = output is None or is_standard(output)
    if Progress is None or is_printed or not sys.stdout.isatty():
        yield from batches
        return
    with Progress() as bar:
        task = bar.add_task(str(table.path), total=1.0)
        for batch in batches:
            yield batch
            bar.update(task, completed=table.fraction)


def fit_with_progress(model, *data, callbacks=(), method="fit"):
    """Fit ``model``, with a progress bar on a terminal; return whether Ctrl-C ended it early."""
    bars = progress_bars()
    model.set_callbacks(*bars, *callbacks)
    interrupted = []

    def on_interrupt(signum, frame):
        interrupted.append(signum)
        raise KeyboardInterrupt  # which ends the training and keeps the best weights

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with with_lines(not bars):
            getattr(model, method)(*data)
    except KeyboardInterrupt:  # which a fit ends with only if nothing of it is finished
        raise KeyboardInterrupt("no part of the model was finished, nothing saved") from None
    finally:
        signal.signal(signal.SIGINT, previous)
    model.set_callbacks()  # they are not part of the model
    return bool(interrupted)
