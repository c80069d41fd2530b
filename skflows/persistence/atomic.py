"""Writing a file as a whole or not at all."""

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

# Why a write fails; other errors while a file is open may have nothing to do with it.
FULL = (errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))


@contextmanager
def replace_file(path, mode="wb", **kwargs):
    """Open a temporary file that replaces ``path`` at the end of the context, unless it fails.

    Parameters
    ----------
    path : str or path-like
        The file to write. Its folder must exist. Other hard links to it keep the old content.
        Temporary files of processes that were killed while writing it are removed.
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
    if is_stream(path):
        with open(path, mode, **kwargs) as file:
            yield file
        return
    temporary, target = temporary_file(path)
    remove_left_overs(target)
    with naming(path):
        file = open(temporary, mode.replace("w", "x"), opener=private_if(target.exists()), **kwargs)
    try:
        with file:
            with naming(path, FULL):
                yield file
            with naming(path):
                file.flush()
                os.fsync(file.fileno())
        with naming(path):
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_replaceable(path):
    """Raise an OSError if `replace_file` could not write a file, which is left as it is."""
    if not is_stream(path):
        temporary, _ = temporary_file(path)
        with naming(path):
            temporary.touch(exist_ok=False)
            temporary.unlink()


def is_stream(path):
    """Return whether a path is a terminal, a pipe or a device, which nothing can replace."""
    is_redirected = str(path).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    return is_redirected or (Path(path).exists() and not Path(path).is_file())


def temporary_file(path):
    """Return a new path in the folder of a file, and the file that a link to it stands for."""
    # In the same folder, because a file cannot be moved to another disk in one step.
    target = Path(os.path.realpath(path))
    # Threads have other tokens; names may have 255 bytes.
    name = f"{name_of_owner(target, os.getpid())}-{secrets.token_hex(4)}.tmp"
    return target.with_name(name), target


def name_of_owner(target, process):
    """Return how the names of temporary files of a process begin."""
    try:  # a process id is unique within one boot of one machine, and one container
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
        space = boot + os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        space = platform.node()
    space = hashlib.sha256(space.encode()).hexdigest()[:8]
    return f".{target.name[-50:]}.{space}-{process}"


def remove_left_overs(target):
    """Remove temporary files of processes that were killed while they wrote a file.

    Files of other machines and containers, whose processes may live, are left alone.
    """
    if os.name == "nt":  # a signal that ends no process is not known there
        return
    pattern = re.compile(re.escape(name_of_owner(target, "")) + r"(\d{1,9})-[0-9a-f]{8}\.tmp")
    with suppress(OSError):
        for name in os.listdir(target.parent):
            if (match := pattern.fullmatch(name)) and not is_alive(int(match[1])):
                target.with_name(name).unlink(missing_ok=True)


def is_alive(process):
    """Return whether a process lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def private_if(is_private):
    """Return an opener of files that only their owner can read until they have their mode."""
    mode = 0o600 if is_private else 0o666
    return lambda path, flags: os.open(path, flags, mode)


@contextmanager
def naming(path, reasons=None):
    """Add a path to the message of an OSError, of any reason or of some."""
    try:
        yield
    except OSError as error:
        if reasons is not None and error.errno not in reasons:
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write {path}: {reason}") from error
