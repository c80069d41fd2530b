"""Normalizing flows as scikit-learn density estimators."""

from ._auto import AutoDensity
from ._ensemble import StackedDensity
from .density import *  # noqa: F403
from .density import ARCHITECTURES, FlowDensity, GaussianizationDensity, TransformedDensity
from .outlier import DensityOutlierDetector

__version__ = "0.1.0"

__all__ = [
    cls.__name__
    for cls in (
        AutoDensity,
        DensityOutlierDetector,
        StackedDensity,
        TransformedDensity,
        GaussianizationDensity,
        *ARCHITECTURES.values(),
        FlowDensity,
    )
]
