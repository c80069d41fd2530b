"""Densities of Dask collections, trained by the workers of a cluster."""

from ._density import DaskDensity

__all__ = ["DaskDensity"]
