"""Densities of some columns given others, and the estimators built on them."""

from ._density import ConditionalDensity
