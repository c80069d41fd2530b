"""Writing a file as a whole or not at all."""

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_file(path, mode="wb", **kwargs):
    """Open a temporary file that replaces ``path`` at the end of the context, unless it fails.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder must exist.
    mode : {"wb", "w"}, default="wb"
        Mode of the file.
    **kwargs : dict
        Further arguments of `open`, such as the encoding.

    Raises
    ------
    OSError
        If the file cannot be written, for example on a full disk. It names the path, whose old
        content is kept.
    """
    path = Path(os.path.realpath(path))  # a link goes on pointing to the new file
    if path.exists() and not path.is_file():  # a terminal or a pipe
        with open(path, mode, **kwargs) as file:
            yield file
        return
    # In the same folder, because a file cannot be moved to another disk in one step.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, mode.replace("w", "x"), **kwargs) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error
