"""Outlier detection by any density: scores, calibrated p-values, explanations."""

from ._detector import DensityOutlierDetector
from ._scores import SCORES

__all__ = ["SCORES", "DensityOutlierDetector"]
