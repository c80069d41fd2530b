"""Fits that show how far they are, and that Ctrl-C ends early but not in vain."""

import signal
import sys

SHORT = 30  # seconds: processes take some to start, so a shorter fit is better spent in one


def processes(time_limit):
    """``n_jobs`` of a fit that may take so many seconds, or None."""
    return None if time_limit is not None and time_limit < SHORT else -1


def show_progress(model):
    """Let the fits of ``model`` and of its clones show a bar on a terminal."""
    if sys.stdout.isatty():
        from sklearn.callback import ProgressBar

        try:
            model.set_callbacks(ProgressBar())
        except ImportError:
            pass  # the bar needs rich, the fit does not


def tell(text):
    """Say on a terminal what the wait is for."""
    if sys.stdout.isatty():
        print(text)


def fit_with_progress(model, X):
    """Fit ``model``, with a progress bar on a terminal; say whether Ctrl-C ended it early."""
    show_progress(model)
    interrupted = []

    def on_interrupt(signum, frame):
        interrupted.append(signum)
        raise KeyboardInterrupt  # which ends the training and keeps the best weights

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        model.fit(X)
    finally:
        signal.signal(signal.SIGINT, previous)
    model.set_callbacks()  # the bar is no part of the model
    return bool(interrupted)
