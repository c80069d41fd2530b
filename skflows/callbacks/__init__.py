"""Callbacks: checkpoints to resume a fit after a crash, and what every fit does for callbacks."""

from ._checkpoint import Checkpoint

__all__ = ["Checkpoint"]
