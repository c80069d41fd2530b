"""Ranks, p-values and thresholds, from scores of rows that a model has not seen."""
