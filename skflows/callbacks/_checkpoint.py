"""Checkpoints: trainings that continue where a crash ended them."""

import json
import math
import secrets
import sys
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..columns.arrays import checked_number
from ..persistence.atomic import replace_file
from ..persistence.model_file import read, write
from ..persistence.plain_state import Flattener, Restorer, package_version
from ._fingerprint import description, differences, fingerprint

if TYPE_CHECKING:
    from sklearn.callback import CallbackContext

MANIFEST, SUFFIX = "fit.json", ".checkpoint"

# The folder of the fit that runs in this thread.
FOLDER: ContextVar["Folder | None"] = ContextVar("folder", default=None)


class Checkpoint:
    """Callback that stores the state of a training, from which `fit` continues after a crash.

    Call `fit` again with the same parameters and data: it continues from the last checkpoint, and
    ends with the same weights, bit for bit, as an uninterrupted fit. The preparation of the
    columns is repeated, and so are components without a training loop, such as Gaussian mixtures.

    An ensemble, a search or a detector passes the callback on: each training inside has its own
    file, in any process, and finished trainings are not repeated.

    Parameters
    ----------
    path : str or path-like
        Folder that stores the checkpoint. Created if it does not exist. It belongs to a single fit:
        one with other data, or with other parameters than ``n_jobs``, ``verbose`` and
        ``time_limit``, is refused.

    every : float, default=10.0
        Minimum number of seconds between two writes. 0 writes after each epoch. The end of a
        training is always written.

    See Also
    --------
    skflows.load : Load a fitted estimator that `save` has stored.

    Notes
    -----
    Callbacks need scikit-learn 1.9 or newer.

    Files are replaced as a whole, and loading them runs no code. With ``random_state=None``, the
    folder keeps the seed. The time that earlier runs spent on a training counts towards
    ``time_limit``. `partial_fit` stores nothing: save the estimator between two calls.

    Bits are the same on the same machine, with the same installation and number of threads.
    Estimators of other libraries inside an ensemble need a ``random_state`` of their own.

    A ``RandomState`` instance changes in each fit, so a second `fit` of the same object is refused:
    give an integer. Functions among the parameters are identified by name only.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from skflows import NSFDensity
    >>> from skflows.callbacks import Checkpoint
    >>> X = load_iris().data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     density = NSFDensity(max_iter=5, random_state=0).set_callbacks(Checkpoint(folder))
    ...     score = density.fit(X).score(X)
    ...     again = density.fit(X).score(X)  # continues at the end: nothing is trained
    >>> score == again
    True
    """

    max_propagation_depth = None  # scikit-learn passes the callback on to all estimators inside

    def __init__(self, path, *, every=10.0):
        self.path = Path(path)
        self.every = checked_number("every", every)

    def setup(self, estimator: object, context: "CallbackContext") -> None:
        """Use the folder in the fit that begins."""
        FOLDER.set(Folder(self.path, self.every, outer=FOLDER.get()))

    def teardown(self, estimator: object, context: "CallbackContext") -> None:
        """Stop using the folder."""
        if folder := FOLDER.get():
            FOLDER.set(folder.outer)

    def on_fit_task_begin(
        self,
        estimator: object,
        context: "CallbackContext",
        *,
        X: object = None,
        y: object = None,
        metadata: dict | None = None,
    ) -> None:
        """Refuse a folder of another fit."""
        folder = FOLDER.get()
        if folder and context.parent is None and context.task_name != "partial_fit":
            folder.claim(estimator, {"X": X, "y": y, **(metadata or {})})

    def on_fit_task_end(self, estimator: object, context: "CallbackContext") -> None:
        """Do nothing: trainings store their states themselves."""


class Folder:
    """The folder of a fit: a file that says which fit it is, and one for each training.

    Attributes
    ----------
    replayed : float
        Seconds that earlier runs spent on the trainings that have continued so far.
    """

    def __init__(self, path, every, outer=None):
        self.path, self.every, self.outer = path, every, outer
        self.replayed = 0.0

    def claim(self, estimator, data):
        """Claim the folder for a fit, or raise an error if it belongs to another one."""
        if not is_first_process():
            return
        manifest = self._manifest()
        now = {"skflows": [package_version()] * 2, **description(estimator, data)}
        if "fit" not in manifest:
            self._write_manifest({"seed": new_seed()} | manifest | {"fit": now})
        elif different := differences(manifest["fit"], now):
            raise ValueError(
                f"{self.path} has the checkpoint of another fit ({different}): give the parameters "
                "and the data of that fit, or another folder, or delete this one."
            )
        for name in (MANIFEST, f"*{SUFFIX}"):
            for left_over in self.path.glob(f".{name}.*.tmp"):  # of a process that was killed
                with suppress(OSError):
                    left_over.unlink()

    def random_state(self, estimator):
        """Return the random state of an estimator without a seed, from a seed of the folder.

        It depends on the estimator's parameters only, not on the order of fits, thread or process.
        """
        manifest = self._manifest()
        if "seed" not in manifest:
            manifest["seed"] = new_seed()
            self._write_manifest(manifest)
        return np.random.RandomState([manifest["seed"], int(fingerprint(estimator)[:8], 16)])

    def _manifest(self):
        try:
            manifest = json.loads((self.path / MANIFEST).read_bytes())
            if not is_manifest(manifest):
                raise ValueError("it does not have the form of one")
            return manifest
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{self.path / MANIFEST} is damaged ({error}): delete {self.path} to fit anew."
            ) from error

    def _write_manifest(self, manifest):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot make the folder {self.path} of the checkpoint: {error}"
            ) from error
        with replace_file(self.path / MANIFEST, "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)


class TrainingFile:
    """The file of a training: its state after an epoch, and the seconds that it has taken.

    Parameters
    ----------
    folder : Folder
        The folder.
    *identity : objects
        What determines the training: another one has another file.
    """

    def __init__(self, folder, *identity):
        self.folder = folder
        self.path = folder.path / f"{fingerprint(*identity)}{SUFFIX}"
        self.seconds = 0.0  # of earlier runs
        self.started = self.written = time.monotonic()

    def load(self):
        """Return what `save` has stored, or None."""
        try:
            with continuing(self.path):
                content = Restorer({})(read(self.path, "checkpoint", dict))
                if content["training"] != self.path.stem:
                    raise ValueError("it is of another training")
                is_phase = type(content["phase"]) is int and content["phase"] >= 0
                is_over = type(content["is_over"]) is bool
                if not (is_phase and is_over and 0 <= content["seconds"] < math.inf):
                    raise ValueError("it does not have the form of a checkpoint")
        except FileNotFoundError:
            return None
        self.seconds = content["seconds"]
        self.folder.replayed += self.seconds
        return content | {"path": self.path}

    def save(self, phase, state, is_over):
        """Store the result of ``state()``, unless the last write was a short time ago."""
        now = time.monotonic()
        if not is_over and now - self.written < self.folder.every:
            return
        seconds = self.seconds + now - self.started
        content = {"training": self.path.stem, "seconds": seconds}
        content |= {"phase": phase, "is_over": is_over, "state": state()}
        write(Flattener()(content), "checkpoint", self.path)
        self.written = time.monotonic()


@contextmanager
def continuing(path):
    """Raise a ValueError that names a file if a training cannot continue from its content."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # what a file that was tampered with raises
        raise ValueError(
            f"cannot continue from {path}: {error}. Delete it to repeat this training."
        ) from error


def check_like(found, expected, where="its state"):
    """Raise an error unless a stored state is built like another one.

    Lists of numbers may have any length. A dict that is empty in the other one holds such lists.
    """
    if isinstance(expected, dict):
        parts = expected or {name: [] for name in found}
        is_like = type(found) is dict and found.keys() == parts.keys()
        pairs = [(found[name], parts[name], name) for name in parts] if is_like else []
    elif isinstance(expected, list):
        numbers_only = all(isinstance(each, Number) for each in expected)
        is_like = type(found) is list and (numbers_only or len(found) == len(expected))
        others = [0] * len(found) if numbers_only and is_like else expected
        pairs = [(*pair, "") for pair in zip(found, others, strict=True)] if is_like else []
    else:
        pairs = []
        is_like = found is None if expected is None else isinstance(found, Number)
        if hasattr(expected, "shape"):
            is_like = getattr(found, "shape", None) == expected.shape
    if not is_like:
        raise ValueError(f"{where} is not one of this training")
    for one, other, name in pairs:
        check_like(one, other, f"{where} {name}".strip())


def is_manifest(found):
    """Return whether an object has the form of a folder's manifest."""
    if type(found) is not dict or not found.keys() <= {"seed", "fit"}:
        return False
    seed, fit = found.get("seed", 0), found.get("fit", {})
    return (
        type(seed) is int
        and 0 <= seed < 2**32
        and type(fit) is dict
        and all(type(part) is list and [*map(type, part)] == [str, str] for part in fit.values())
    )


def new_seed():
    """Return a seed that the operating system draws."""
    return secrets.randbits(32)


def has_checkpoint(path):
    """Return whether a folder has the checkpoint of a fit."""
    return (Path(path) / MANIFEST).exists()


def is_first_process():
    """Return whether no other process of `torch.distributed` writes the checkpoint."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available():
        return True
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def folder_of(estimator):
    """Return the folder of the fit that runs, or that an estimator is about to begin."""
    if not is_first_process():
        return None
    if (folder := FOLDER.get()) is not None:
        return folder
    # The fit has not begun, or runs in another process than the estimator that began it.
    for callback in getattr(estimator, "_skl_callbacks", ()):
        if isinstance(callback, Checkpoint):
            return Folder(callback.path, callback.every)
    return None
