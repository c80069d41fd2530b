"""Callbacks: checkpoints, with which a fit continues after a crash."""

from ._checkpoint import Checkpoint

__all__ = ["Checkpoint"]
