"""The ``skflows`` command: fit, score, sample and flag CSV files, without writing Python."""

from ._main import main

__all__ = ["main"]
