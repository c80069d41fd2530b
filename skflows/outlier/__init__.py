"""Outlier detection by any density: scores, calibrated p-values, explanations."""

from ._choice import agreement, outlier_average_precision
from ._detector import DensityOutlierDetector
from ._ensemble import OutlierEnsemble
from ._pyod import PyODDetector

__all__ = [
    "DensityOutlierDetector",
    "OutlierEnsemble",
    "PyODDetector",
    "agreement",
    "outlier_average_precision",
]
