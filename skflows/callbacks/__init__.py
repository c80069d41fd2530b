"""Callbacks: checkpoints to resume a fit after a crash."""

from ._checkpoint import Checkpoint

__all__ = ["Checkpoint"]
