"""Libraries that skflows needs for some tasks only, and does not install."""

from importlib import import_module


def optional(name, needed, package):
    """Return a module, or raise an error: what needs it, as a text, and how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{needed}: pip install {package}") from error
