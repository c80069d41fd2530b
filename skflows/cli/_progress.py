"""Progress bars and graceful interruption."""

import signal
import sys

from ..callbacks import Checkpoint
from ..callbacks._checkpoint import has_checkpoint
from ._tables import is_standard

QUICK_SECONDS = 8  # to fit in; to start, to explain and to write takes some more
SHORT_LIMIT = 30  # seconds: a shorter fit runs in one process, because processes take time to start


def n_jobs_for(time_limit):
    """Return ``n_jobs`` for a fit with a time limit in seconds, or None."""
    return None if time_limit is not None and time_limit < SHORT_LIMIT else -1


def progress_bars():
    """Return a callback that shows the progress of fits on a terminal, in a list."""
    if not sys.stdout.isatty():
        return []
    try:
        from sklearn.callback import ProgressBar

        return [ProgressBar()]
    except ImportError:
        return []  # the bar needs rich and scikit-learn>=1.9, the fit does not


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


def announce(frame, density, duration):
    """Print before a fit that it takes long."""
    n, d = frame.shape
    print(
        f"skflows: fitting {density} to {n} rows of {d} columns, which {duration} (--quick takes "
        "under 20 seconds)",
        file=sys.stderr,
    )


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
    model.set_callbacks(*progress_bars(), *callbacks)
    interrupted = []

    def on_interrupt(signum, frame):
        interrupted.append(signum)
        raise KeyboardInterrupt  # which ends the training and keeps the best weights

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        getattr(model, method)(*data)
    except KeyboardInterrupt:  # which a fit ends with only if nothing of it is finished
        raise KeyboardInterrupt("no part of the model was finished, nothing saved") from None
    finally:
        signal.signal(signal.SIGINT, previous)
    model.set_callbacks()  # they are not part of the model
    return bool(interrupted)
