"""Normalizing flows as scikit-learn density estimators."""

from importlib import import_module
from typing import TYPE_CHECKING

from .cli import _interrupt  # noqa: F401 - first, since the others take long
from .density import *  # noqa: F403
from .density import (
    ARCHITECTURES,
    AdaptiveKernelDensity,
    FlowDensity,
    GaussianizationDensity,
    TransformedDensity,
)
from .ensemble import AutoDensity, StackedDensity
from .persistence.model_file import load

if TYPE_CHECKING:
    from .compression import FlowCompressor
    from .conditional import ConditionalDensity, DensityClassifier, FlowRegressor
    from .density._export import export
    from .outlier import DensityOutlierDetector
    from .table import TableDensity, TableImputer
    from .variational import VariationalDensity

__version__ = "0.2.0"

SUBMODULES = (
    "bijections",
    "callbacks",
    "compression",
    "conditional",
    "dask",
    "density",
    "ensemble",
    "graphs",
    "inspection",
    "model_selection",
    "outlier",
    "sets",
    "table",
    "variational",
)
LAZY = {
    "ConditionalDensity": ".conditional",
    "DensityClassifier": ".conditional",
    "DensityOutlierDetector": ".outlier",
    "FlowCompressor": ".compression",
    "FlowRegressor": ".conditional",
    "TableDensity": ".table",
    "TableImputer": ".table",
    "VariationalDensity": ".variational",
    "export": ".density._export",
}
__all__ = [
    "AutoDensity",
    "ConditionalDensity",
    "DensityClassifier",
    "DensityOutlierDetector",
    "FlowCompressor",
    "FlowRegressor",
    "TableDensity",
    "TableImputer",
    "VariationalDensity",
    "export",
    "load",
] + [
    cls.__name__
    for cls in (
        StackedDensity,
        TransformedDensity,
        AdaptiveKernelDensity,
        GaussianizationDensity,
        *ARCHITECTURES.values(),
        FlowDensity,
    )
]


def __getattr__(name):
    """Import what is rarely used when it is first used, to shorten the import of the package."""
    if name in SUBMODULES:
        return import_module(f".{name}", __name__)
    if name in LAZY:
        return getattr(import_module(LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *SUBMODULES, "__version__"])
