"""Normalizing flows as scikit-learn density estimators."""

from .density import *  # noqa: F403
from .density import ARCHITECTURES, FlowDensity

__version__ = "0.1.0"

__all__ = [cls.__name__ for cls in (*ARCHITECTURES.values(), FlowDensity)]
