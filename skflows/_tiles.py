"""Layers by compiled code: products in tiles, which leave out what a mask hides, and what follows.

Each tile is multiplied by the BLAS that scipy has. With AVX-512 its OpenBLAS takes small matrices
as they lie in memory, where torch's library copies them first: it takes a tenth to a third less
time for a layer of 64 units, and half of it for a masked one.
"""

import math
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_info

from . import _fused

ROWS, COLUMNS, SEEN = 64, 64, 256  # of a tile, and of the inputs that it sees, at most
MOST_MULTIPLICATIONS = 2**18  # in a tile: OpenBLAS would share more among its threads
LEAST_ROWS, TILES_OF_A_MASK = 8, 10
# Of OpenBLAS's kernels, those of AVX-512. By others tiles take up to two thirds longer than torch.
TAKE_SMALL_MATRICES = {"SkylakeX", "Cooperlake", "SapphireRapids"}


class Tiles(NamedTuple):
    """Tiles of a weight and of its transpose, and how many.

    Of each tile ``(n, 5)`` has the first row, the end of the rows, first and end of what these see,
    and whether another tile, of other inputs, has begun them.
    """

    forth: torch.Tensor
    back: torch.Tensor
    n_forth: int
    n_back: int


def gemm(tensor):
    """The address of a product of matrices like this one if tiles pay now, else 0.

    Torch may share products among several threads.
    """
    return address(tensor.dtype) if torch.get_num_threads() == 1 and pay(tensor.dtype) else 0


def pay(dtype):
    """Whether tiles do on one thread."""
    is_served = _fused._passes is not None and dtype in _fused.DTYPES
    return is_served and address(dtype) != 0 and takes_small_matrices()


@cache
def takes_small_matrices():
    """Whether all BLAS that is loaded, scipy's among them, is OpenBLAS with such kernels."""
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return all(info.get("architecture") in TAKE_SMALL_MATRICES for info in found) and bool(found)


@cache
def address(dtype):
    """That of scipy's product of two matrices; 0 if its whole numbers are longer than is usual."""
    from scipy.linalg import cython_blas

    name = "dgemm" if dtype == torch.float64 else "sgemm"
    try:
        return _fused._passes.gemm_of(cython_blas.__pyx_capi__[name])
    except (AttributeError, KeyError, ValueError):
        return 0


@cache
def dense_tiles(n_out, n_in):
    """What `tiles_of` returns of a weight without a mask."""
    return tiles_of(torch.ones(n_out, n_in, device="cpu"))


def tiles_of(mask):
    """Tiles of a weight of shape (n_out, n_in) that is 0 where its mask is.

    If members of a stack differ in theirs, these hold what any of them has.
    """
    is_seen = (mask != 0).cpu()
    is_seen = is_seen.any(0) if is_seen.dim() == 3 else is_seen
    return _tiles_of(tuple(is_seen.shape), is_seen.numpy().tobytes())


@lru_cache(256)  # copies of a flow have the same masks
def _tiles_of(shape, bits):
    is_seen = torch.tensor(bytearray(bits), dtype=torch.bool, device="cpu").view(shape)
    forth, back = _tiles(is_seen), _tiles(is_seen.mT)
    return Tiles(forth, back, len(forth), len(back))


def _tiles(is_seen):
    n_rows, n_seen = is_seen.shape
    most = min(ROWS, MOST_MULTIPLICATIONS // (COLUMNS * max(1, min(n_seen, SEEN))))
    size = min(most, max(LEAST_ROWS, math.ceil(n_rows / TILES_OF_A_MASK)))
    runs: list[tuple[slice, tuple[int, int]]] = []
    for start in range(0, n_rows, size):
        rows = slice(start, min(start + size, n_rows))
        places = is_seen[rows].any(0).nonzero().flatten().tolist()
        seen = (places[0], places[-1] + 1) if places else (0, 0)
        if runs and runs[-1][1] == seen and rows.stop - runs[-1][0].start <= most:
            rows = slice(runs.pop()[0].start, rows.stop)
        runs.append((rows, seen))
    tiles = [
        (rows.start, rows.stop, start, min(start + SEEN, end), start > first)
        for rows, (first, end) in runs
        for start in range(first, max(end, first + 1), SEEN)
    ]
    return torch.tensor(tiles, dtype=torch.int64, device="cpu").view(-1, 5)


def layer_vjp(address, weight, bias, seen, tiles, product, *, residual=None, drop=None, units=None):
    """A layer before and behind its activation, in the room that is given, and its pullback.

    Parameters
    ----------
    address : int
        What `gemm` returned. If it is 0, the product is given.
    weight, bias, seen : Tensor
        What is ``weight @ seen + bias``.
    tiles : Tiles
        Of the weight.
    product : Tensor
        Room for what comes before the activation.
    residual : Tensor, optional
        What is added to that.
    drop : tuple of Tensor, optional
        What `dropout_bits` returns.
    units : Tensor, optional
        Room for what comes behind the activation, if there is one.

    Returns
    -------
    pullback : callable
        Takes the gradient in the units, whose memory it may use, or in the product if there are
        none, and that in the product by way of what comes later, or None. It returns those in what
        is seen, in the weight, in the bias, and in the product: the first two are None if the
        product was given.
    """
    *members, n_units, n = product.shape
    n_members, n_in, places = math.prod(members), seen.shape[-2], product.stride()
    forth, back, n_forth, n_back = tiles
    bits, least, factor = drop or (None, None, None)
    if weight.stride()[-2:] != (n_in, 1):
        weight = weight.contiguous()
    if members or seen.stride(-1) != 1 or seen.stride(-2) < n:
        seen = seen.contiguous()
    residual = None if residual is None else _placed(residual, product)
    bias, of_bias = _fused.by_member(bias, 2)
    of_weight = of_seen = of_bits = of_factor = 0
    if members:
        of_weight, of_seen = weight.stride(0), seen.stride(0)
        bits, of_bits = _fused.by_member(bits, 2)
        factor, of_factor = _fused.by_member(factor, 0)
    rows = max(seen.stride(-2), n), max(places[-2], n)  # of a single one it may be any

    sizes = address, n_members, n_forth, n_units, n_in, n
    strides = of_weight, of_bias, of_seen, of_bits, of_factor, *rows
    tensors = weight, bias, seen, forth, residual, bits, least, factor, product, units
    _fused.run("layer", (), (*sizes, *strides), *tensors)

    def pullback(g, g_after=None, to_x=True):
        g = _placed(g, product)
        g_bias = g.new_empty((*members, n_units, 1))
        g_seen = g_weight = None
        if address:
            g_weight = g.new_empty((*members, n_units, n_in))
            g_seen = g.new_empty_strided(seen.shape, seen.stride()) if to_x else None
        sizes = address, n_members, n_forth, n_back, n_units, n_in, n
        strides = of_weight, of_seen, of_factor, *rows
        tensors = g, units, factor, g_after, weight, seen, forth, back, g_seen, g_weight, g_bias
        _fused.run("layer_backward", (), (*sizes, *strides), *tensors)
        return g_seen, g_weight, g_bias, g

    return pullback


def _placed(tensor, like):
    """A tensor, or a copy of it, whose values lie as those of another one."""
    if tensor.shape != like.shape or tensor.dtype is not like.dtype:
        tensor = tensor.to(like).expand_as(like)
    if tensor.stride() == like.stride():
        return tensor
    return tensor.new_empty_strided(like.shape, like.stride()).copy_(tensor)
