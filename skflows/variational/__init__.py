"""Densities that approximate a function: variational inference by flows."""

from ._density import RefinedSample, VariationalDensity

__all__ = ["RefinedSample", "VariationalDensity"]
