"""Densities of some columns given others, and the estimators built on them."""

from ..distribution.distribution import ConditionalDistribution
from ._classifier import DensityClassifier
from ._density import ConditionalDensity
from ._regressor import FlowRegressor

__all__ = ["ConditionalDensity", "ConditionalDistribution", "DensityClassifier", "FlowRegressor"]
