"""Densities that approximate a function: variational inference by flows."""

from typing import TYPE_CHECKING

from ._density import VariationalDensity

if TYPE_CHECKING:
    from ._chains import RefinedSample

__all__ = ["RefinedSample", "VariationalDensity"]


def __getattr__(name):
    """Import what needs torch when it is first used."""
    if name == "RefinedSample":
        from ._chains import RefinedSample

        return RefinedSample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
