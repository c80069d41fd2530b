"""Mixtures of densities, weighted by the likelihood of held-out rows."""

from ._auto import AutoDensity
from ._stacked import StackedDensity

__all__ = ["AutoDensity", "StackedDensity"]
