"""What a fitted estimator pickles, and its method `save`."""

import warnings
from os import PathLike
from typing import BinaryIO

from sklearn.exceptions import InconsistentVersionWarning

from .model_file import save
from .plain_state import FORMAT, PACKAGE, Flattener, Restorer, check_format, package_version

STAMP = "_skflows"


class PersistenceMixin:
    """Plain data as the state of an estimator, stamped with a format, and a safe file."""

    _state_is_plain = True

    def __getstate__(self):
        flattener = Flattener()
        state = flattener(dict(super().__getstate__()))  # type: ignore[call-overload]
        stamp = {"format": FORMAT, "version": package_version()}
        if flattener.foreign_classes:
            stamp["classes"] = flattener.foreign_classes
        return state | {STAMP: stamp}

    def __setstate__(self, state):
        stamp = state.get(STAMP, {"format": 0, "version": "before 0.1"})
        check_format(stamp, type(self).__name__)
        if stamp["version"] != package_version():
            # scikit-learn warns like this for its own estimators only. The versions are skflows'.
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=f"{PACKAGE}.{type(self).__name__}",
                    current_sklearn_version=package_version(),
                    original_sklearn_version=stamp["version"],
                ),
                stacklevel=2,
            )
        restore = Restorer(stamp.get("classes", {}))
        restored = {name: restore(value) for name, value in state.items() if name != STAMP}
        super().__setstate__(restored)  # type: ignore[misc]

    def save(self, path: str | PathLike[str] | BinaryIO) -> None:
        """Write the fitted estimator to a file that can be loaded without running code.

        Parameters
        ----------
        path : str, path-like or binary file
            The file, usually with the suffix ``.skflows``. It is replaced as a whole, or left
            unchanged.

        See Also
        --------
        skflows.load : Load the file.
        """
        save(self, path)
