"""Random noise, random signs and dropout masks."""

from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import compress, cycle

import torch
from torch.nn import functional as F

# Constants of SplitMix64, as signed integers.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
MULTIPLIERS = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64

# The generators of the members that train in this thread.
_GENERATORS: ContextVar[list[torch.Generator] | None] = ContextVar("generators", default=None)


@contextmanager
def drawing_from(generators):
    """Draw from these generators in this context, one for each member of a stack."""
    token = _GENERATORS.set(generators)
    try:
        yield
    finally:
        _GENERATORS.reset(token)


def normal_draws(like):
    """Return standard normal numbers in the shape of a tensor, from the generator of each
    member."""
    return _draw_like(like, torch.Tensor.normal_)


def uniform_draws(like):
    """Return numbers between 0 and 1 in the shape of a tensor, from the generator of each
    member."""
    return _draw_like(like, torch.Tensor.uniform_)


def sign_draws(like):
    """Return random signs, 1 or -1, in the shape of a tensor, from the generator of each member."""
    return _signs(uniform_draws(like), like.dtype)


def _draw_like(like, fill):
    generators = _GENERATORS.get() or [torch.default_generator]
    # Generators are on the CPU, so that draws do not depend on the device.
    n = like.numel() // len(generators)

    def draw(generator):
        return fill(torch.empty(n, dtype=like.dtype, device="cpu"), generator=generator)

    return torch.stack(draw_once(generators, draw)).view(like.shape).to(like.device)


def draw_once(generators, draw):
    """Return ``draw(generator)`` for each member; members that share a generator share the draw."""
    drawn = {generator: draw(generator) for generator in dict.fromkeys(generators)}
    return [drawn[generator] for generator in generators]


def hashed_uniforms(columns, seeds, n_draws):
    """Return numbers between 0 and 1 that depend on the values of a row and on seeds alone.

    A row gets the same numbers in every call, whatever other rows are there.

    Parameters
    ----------
    columns : Tensor of shape (..., k, n)
        The rows, as columns.
    seeds : Tensor of shape (..., d)
        Any numbers, at least k.
    n_draws : int
        Numbers for each seed.

    Returns
    -------
    draws : Tensor of shape (..., d, n_draws, n)
        In float64.

    References
    ----------
    Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
    """
    seeds = _bits(seeds).unsqueeze(-1)
    row = _hash(_bits(columns) ^ seeds[..., : columns.shape[-2], :]).sum(-2, keepdim=True)
    counters = seeds + GOLDEN_GAMMA * torch.arange(n_draws, device=seeds.device)
    mixed = _hash(row.unsqueeze(-2) ^ _hash(counters).unsqueeze(-1))
    return (_shift_right(mixed, 11).double() + 0.5) / 2**53


def hashed_signs(columns, seeds, n_draws):
    """Return signs, 1 or -1, in float64, by the hash of `hashed_uniforms`."""
    return _signs(hashed_uniforms(columns, seeds, n_draws), torch.float64)


def _signs(uniform, dtype):
    return (uniform < 0.5).to(dtype) * 2 - 1


def _bits(numbers):
    # Adding 0 turns -0 into 0, which has other bits.
    return (numbers.detach().double() + 0.0).contiguous().view(torch.int64)


def _hash(bits):
    """Return 64-bit integers each bit of which depends on all bits of the given one."""
    bits = (bits ^ _shift_right(bits, 30)) * MULTIPLIERS[0]
    bits = (bits ^ _shift_right(bits, 27)) * MULTIPLIERS[1]
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits, n):
    """Shift to the right and fill with zeros, which signed integers do not do."""
    return (bits >> n) & (2 ** (64 - n) - 1)


def dropout(h, p):
    """Set each unit to 0 with probability p, and scale the others up to the same mean.

    On a CPU, p is rounded to 8 bits. A list has one probability for each member of a stack.
    """
    return h * dropout_factors(h, p)


def dropout_factors(h, p):
    """Return what `dropout` multiplies each unit by.

    Members that share both a generator and the probability share the factors: their axis has
    length 1 then.
    """
    rates = tuple(p) if isinstance(p, list) else (p,)
    if not h.is_cpu:
        ones = torch.ones_like(h)
        if len(rates) == 1:
            return F.dropout(ones, p=rates[0])
        return torch.stack([F.dropout(*member) for member in zip(ones, rates, strict=True)])
    generators = _GENERATORS.get() or [torch.default_generator] * len(rates)
    bits = _byte_draws(h.shape, rates, generators)
    thresholds, scales = _thresholds_and_scales(rates, h.dtype)
    return bits.ge_(thresholds).to(h.dtype).mul_(scales)


def _byte_draws(shape, rates, generators):
    """Return a random byte for each unit, from the generator of each member.

    Torch's generator draws 64 bits at once, and `torch.nn.functional.dropout` spends them on one
    unit: that would take a fourth of a training step.
    """
    distinct = list(dict.fromkeys(generators))
    n = shape.numel() // len(generators)
    bits = torch.empty(len(distinct), -(-n // 8), device="cpu", dtype=torch.int64)
    # A member without dropout draws nothing, as when it trains alone.
    active = set(compress(generators, cycle(rates)))
    for row, generator in zip(bits.unbind(), distinct, strict=True):
        if generator in active:
            row.random_(-(2**63), None, generator=generator)
    if len(distinct) < len(generators):
        if len(distinct) == len(rates) == 1:
            shape = 1, *shape[1:]
        else:
            bits = bits[[distinct.index(generator) for generator in generators]]
    of_units = bits.view(torch.int8)
    return (of_units[:, :n] if n % 8 else of_units).reshape(shape)


@lru_cache
@torch.inference_mode(False)
def _thresholds_and_scales(rates, dtype):
    """Return the least byte with which a unit stays, and the factor of the units that stay.

    Both have the shape (M, 1, 1), or () for a single rate.
    """
    # No rate but 0 is rounded to 0, and none to 1.
    n_dropped = [min(max(round(rate * 2**8), rate > 0), 2**8 - 1) for rate in rates]
    shape = (-1, 1, 1) if len(rates) > 1 else ()
    thresholds = torch.tensor([k - 2**7 for k in n_dropped], dtype=torch.int8).view(shape)
    scales = torch.tensor([2**8 / (2**8 - k) for k in n_dropped], dtype=dtype).view(shape)
    return thresholds, scales
