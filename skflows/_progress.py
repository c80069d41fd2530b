"""Fits that show how far they are, and that Ctrl-C ends early but not in vain."""

import signal
import sys


def fit_with_progress(model, X):
    """Fit ``model``, with a progress bar on a terminal; say whether Ctrl-C ended it early."""
    if sys.stdout.isatty():
        from sklearn.callback import ProgressBar

        try:
            model.set_callbacks(ProgressBar())
        except ImportError:
            pass  # the bar needs rich, the fit does not
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
