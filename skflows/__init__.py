"""Normalizing flows as scikit-learn density estimators."""

from .density import *  # noqa: F403
from .density import ARCHITECTURES

__version__ = "0.1.0"

__all__ = [estimator.__name__ for estimator in ARCHITECTURES.values()]
