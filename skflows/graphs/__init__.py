"""Densities of graphs: molecules."""

from ._density import MoleculeDensity

__all__ = ["MoleculeDensity"]
