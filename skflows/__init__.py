"""Normalizing flows as scikit-learn density estimators."""

from importlib import import_module
from typing import TYPE_CHECKING

from .density import *  # noqa: F403
from .density import ARCHITECTURES, FlowDensity, GaussianizationDensity, TransformedDensity
from .ensemble import AutoDensity, StackedDensity

if TYPE_CHECKING:
    from .outlier import DensityOutlierDetector

__version__ = "0.1.0"

__all__ = ["AutoDensity", "DensityOutlierDetector"] + [
    cls.__name__
    for cls in (
        StackedDensity,
        TransformedDensity,
        GaussianizationDensity,
        *ARCHITECTURES.values(),
        FlowDensity,
    )
]


def __getattr__(name):
    """Import detectors when they are first used, to shorten the import of the package."""
    if name in ("outlier", "DensityOutlierDetector"):
        outlier = import_module(".outlier", __name__)
        return outlier if name == "outlier" else outlier.DensityOutlierDetector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, "outlier"})
