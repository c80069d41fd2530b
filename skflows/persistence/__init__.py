"""Saving fitted estimators: plain state, a safe file format, atomic writes."""
