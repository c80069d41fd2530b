"""Preparing a table for a density: validation, dequantisation and fixed maps."""
