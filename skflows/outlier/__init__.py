"""Outlier detection by any density: scores, calibrated p-values, explanations."""

from ._choice import agreement, outlier_average_precision
from ._defects import DefectDetector
from ._detector import DensityOutlierDetector
from ._ensemble import OutlierEnsemble
from ._pyod import PyODDetector

__all__ = [
    "DefectDetector",
    "DensityOutlierDetector",
    "OutlierEnsemble",
    "PyODDetector",
    "agreement",
    "outlier_average_precision",
]
