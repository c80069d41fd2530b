"""The run of a fit: its tasks for callbacks, its random state, its clock and its checkpoint."""

import time
from contextlib import contextmanager, nullcontext
from functools import partial

from sklearn.utils import check_random_state

from ._checkpoint import FOLDER, TrainingFile, folder_of
from ._progress import Lines, is_watched
from ._support import CallbackSupportMixin


class FitTask:
    """A fit that runs, as the callbacks of its estimator see it.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        The context of the fit.
    data : dict
        The estimator, X, y and metadata that the callbacks are given.
    what : str
        What the subtasks are, such as epochs.
    """

    def __init__(self, context, data, what):
        self.context, self.data, self.what = context, data, what
        self.n_ended = 0
        self.lines = Lines() if is_watched(data["estimator"], context) else None

    def begin(self, name):
        """Begin the next subtask, such as an epoch."""
        self.subtask = self.context.subcontext(task_name=name)
        self.subtask.call_on_fit_task_begin(**self.data)

    def end(self, attributes):
        """End the subtask; return whether a callback asks to stop the fit.

        A callback that wants the fitted estimator gets one with the result of ``attributes()``.
        """
        self._print_line()
        return self.subtask.call_on_fit_task_end(**self.data, reconstruction_attributes=attributes)

    def _print_line(self):
        """Print how many subtasks have ended, when a line is due; a single one prints its own."""
        self.n_ended += 1
        if self.lines is not None and self.context.max_subtasks != 1:
            self.lines.print(self.n_ended, self.context.max_subtasks, self.what)

    @contextmanager
    def inside(self, estimator, **data):
        """Let the fit of another estimator, in this context, be a subtask.

        The callbacks are given the data of this fit, except for what ``data`` replaces.
        """
        has_callbacks = isinstance(estimator, CallbackSupportMixin)
        # Progress bars add the name of an estimator with callbacks, and have little room.
        name = "fit" if has_callbacks else f"fit-{type(estimator).__name__}"
        subtask = self.context.subcontext(task_name=name)
        with subtask.propagate_callback_context(estimator) if has_callbacks else nullcontext():
            subtask.call_on_fit_task_begin(**self.data | data)
            yield
            self._print_line()
            subtask.call_on_fit_task_end(**self.data | data)


@contextmanager
def fit_task(estimator, X, y=None, *, max_subtasks=0, what="epochs", name="fit", **metadata):
    """Let the fit of an estimator, in this context, be a task of its callbacks.

    Parameters
    ----------
    estimator : estimator
        It must be fitted when the context ends.
    X, y : array-like
        What is given to its `fit`.
    max_subtasks : int or None, default=0
        Largest number of subtasks; None if it is not known.
    what : str, default="epochs"
        What the subtasks are.
    name : str, default="fit"
        Name of the task.
    **metadata : objects
        What else is given to `fit`; None is left out.

    Yields
    ------
    task : FitTask
        Takes the subtasks of the fit.
    """
    context = estimator._init_callback_context(task_name=name, max_subtasks=max_subtasks)
    metadata = {key: value for key, value in metadata.items() if value is not None}
    data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    context.call_on_fit_task_begin(**data)
    yield FitTask(context, data, what)
    context.call_on_fit_task_end(**data, reconstruction_attributes=dict)


def random_state_of(estimator):
    """Return the random state of an estimator; a checkpoint keeps the seed if it has none."""
    if estimator.random_state is None and (folder := folder_of(estimator)) is not None:
        return folder.random_state(estimator)
    return check_random_state(estimator.random_state)


def training_file(estimator, *identity):
    """Return the file of a training if its fit has a checkpoint, otherwise None."""
    folder = folder_of(estimator)
    return None if folder is None else TrainingFile(folder, estimator, *identity)


def clock():
    """Return the time in seconds, as if this run had done what earlier ones did.

    Processes on several machines can compare it.
    """
    folder = FOLDER.get()
    return time.time() + (0.0 if folder is None else folder.replayed)


def in_folder(function):
    """Return a function that uses the folder of this fit in any process or thread.

    Call it before a generator of tasks: joblib runs generators in threads without the folder.
    """
    return partial(_call, FOLDER.get(), function)


def _call(folder, function, *args, **kwargs):
    token = FOLDER.set(folder)
    try:
        return function(*args, **kwargs)
    finally:
        FOLDER.reset(token)
