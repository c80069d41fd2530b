"""Densities of sets: clouds of points."""

from ._density import PointCloudDensity

__all__ = ["PointCloudDensity"]
