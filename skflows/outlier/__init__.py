"""Outlier detection by any density: scores, calibrated p-values, explanations."""

from ._choice import agreement, outlier_average_precision
from ._detector import DensityOutlierDetector
from ._scores import SCORES

__all__ = ["SCORES", "DensityOutlierDetector", "agreement", "outlier_average_precision"]
