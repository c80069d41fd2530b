"""Outlier detection by any density: scores, calibrated p-values, explanations."""

from ._choice import agreement, outlier_average_precision
from ._detector import DensityOutlierDetector

__all__ = ["DensityOutlierDetector", "agreement", "outlier_average_precision"]
