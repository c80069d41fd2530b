"""Searches whose candidates train together."""

from ._search import FlowGridSearchCV

__all__ = ["FlowGridSearchCV"]
