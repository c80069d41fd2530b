"""Progress bars and graceful interruption."""

import signal
import sys

QUICK_SECONDS = 8  # to fit in; to start, to explain and to write takes some more
SHORT_LIMIT = 30  # seconds: a shorter fit runs in one process, because processes take time to start


def n_jobs_for(time_limit):
    """Return ``n_jobs`` for a fit with a time limit in seconds, or None."""
    return None if time_limit is not None and time_limit < SHORT_LIMIT else -1


def show_progress(model):
    """Let the fits of ``model`` and of its clones show a progress bar on a terminal."""
    if sys.stdout.isatty():
        from sklearn.callback import ProgressBar

        try:
            model.set_callbacks(ProgressBar())
        except ImportError:
            pass  # the bar needs rich, the fit does not


def time_limit_of(args):
    """Return the time limit in seconds that the arguments set, or None."""
    return QUICK_SECONDS if args.quick and args.time_limit is None else args.time_limit


def announce(frame, density, duration):
    """Say before a fit that it takes long."""
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


def fit_with_progress(model, X, y=None):
    """Fit ``model``, with a progress bar on a terminal; return whether Ctrl-C ended it early."""
    trained = getattr(model, "density", model)  # a regressor's is trained in its place
    show_progress(trained)
    interrupted = []

    def on_interrupt(signum, frame):
        interrupted.append(signum)
        raise KeyboardInterrupt  # which ends the training and keeps the best weights

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        model.fit(X, y)
    finally:
        signal.signal(signal.SIGINT, previous)
    trained.set_callbacks()  # the bar is not part of the model
    return bool(interrupted)
