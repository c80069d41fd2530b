"""Compression of rows by the latent coordinates of a flow."""

from ._compressor import FlowCompressor

__all__ = ["FlowCompressor"]
