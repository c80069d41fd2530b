"""What is drawn: noise and signs, in training or for each row, and what dropout leaves out."""

from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import cycle

import torch
from torch.nn import functional as F

# Of the generator that `uniforms_of_rows` follows, as integers with a sign.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
MIXERS = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
# What the networks of the members that train in this thread draw from.
_DRAWS: ContextVar[list[torch.Generator] | None] = ContextVar("generators", default=None)


@contextmanager
def drawing_from(generators):
    """Training draws from these generators in this context, one for each member."""
    before = _DRAWS.set(generators)
    try:
        yield
    finally:
        _DRAWS.reset(before)


def normal_draws(like):
    """Standard normal numbers in the shape of a tensor, by the generator of each member."""
    return _drawn(like, torch.Tensor.normal_)


def uniform_draws(like):
    """Numbers between 0 and 1 in the shape of a tensor, by the generator of each member."""
    return _drawn(like, torch.Tensor.uniform_)


def sign_draws(like):
    """Signs, 1 or -1, in the shape of a tensor, by the generator of each member."""
    return _signs(uniform_draws(like), like.dtype)


def uniforms_of_rows(columns, seeds, n_draws):
    """Numbers between 0 and 1 that depend on the values of a row and on seeds alone.

    Whatever rows stand beside it, and whenever it comes, a row gets the same ones.

    Parameters
    ----------
    columns : Tensor of shape (..., k, n)
        The rows.
    seeds : Tensor of shape (..., d)
        Any numbers, of which there are as many as columns or more.
    n_draws : int
        Numbers for each seed.

    Returns
    -------
    draws : Tensor of shape (..., d, n_draws, n)
        In float64.

    References
    ----------
    Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", 2014 (how bits are
    mixed).
    """
    seeds = _bits_of(seeds).unsqueeze(-1)
    row = _mixed(_bits_of(columns) ^ seeds[..., : columns.shape[-2], :]).sum(-2, keepdim=True)
    places = seeds + GOLDEN * torch.arange(n_draws, device=seeds.device)
    mixed = _mixed(row.unsqueeze(-2) ^ _mixed(places).unsqueeze(-1))
    return (_shifted(mixed, 11).double() + 0.5) / 2**53


def signs_of_rows(columns, seeds, n_draws):
    """Signs, 1 or -1, in float64, as `uniforms_of_rows`."""
    return _signs(uniforms_of_rows(columns, seeds, n_draws), torch.float64)


def normals_of_rows(columns, seeds, n_draws):
    """Standard normal numbers in float64, as `uniforms_of_rows`."""
    return torch.special.ndtri(uniforms_of_rows(columns, seeds, n_draws))


def _signs(uniform, dtype):
    return (uniform < 0.5).to(dtype) * 2 - 1


def _bits_of(numbers):
    return (numbers.detach().double() + 0.0).contiguous().view(torch.int64)  # -0 counts as 0


def _mixed(bits):
    """Integers of 64 bits of which each bit depends on all bits of the given one."""
    bits = (bits ^ _shifted(bits, 30)) * MIXERS[0]
    bits = (bits ^ _shifted(bits, 27)) * MIXERS[1]
    return bits ^ _shifted(bits, 31)


def _shifted(bits, n):
    """Shifted to the right, zeros coming in from the left."""
    return (bits >> n) & (2 ** (64 - n) - 1)


def _drawn(like, fill):
    if torch.compiler.is_compiling():  # which draws in its own way
        return fill(torch.empty_like(like))
    generators = _DRAWS.get() or [torch.default_generator]
    # On the CPU wherever the tensor is: the generators are, and draws do not depend on the device.
    n = like.numel() // len(generators)

    def draw(generator):
        return fill(torch.empty(n, dtype=like.dtype, device="cpu"), generator=generator)

    return torch.stack(drawn_once(generators, draw)).view(like.shape).to(like.device)


def drawn_once(generators, draw):
    """``draw(generator)`` for each member, called once for a generator that several share."""
    drawn = {generator: draw(generator) for generator in dict.fromkeys(generators)}
    return [drawn[generator] for generator in generators]


def dropout(h, p):
    """Set each unit to zero with probability p, to 8 bits, and make up for it in the others.

    A list has one probability for each member of a stack.
    """
    return h * dropout_factors(h, p)[0]


def dropout_factors(h, p):
    """The factor of each unit, and that of the units that are not dropped.

    Members that share both a generator and the probability share the former: it has a single
    member then.
    """
    if h.device.type != "cpu" or torch.compiler.is_compiling():  # which draws in its own way
        rates, h = _rates(p), torch.ones_like(h)
        if len(rates) == 1:
            return F.dropout(h, p=rates[0]), 1 / (1 - rates[0])
        factors = torch.stack([F.dropout(*own) for own in zip(h, rates, strict=True)])
        return factors, _of_members(tuple(1 / (1 - rate) for rate in rates), h.dtype, h.device)
    bits, least, factor = dropout_bits(h, p)
    # In place, what a comparison returns has 8 bits too: floats are made of those at once.
    return bits.ge_(least).to(h.dtype).mul_(factor), factor


def dropout_bits(h, p):
    """8 bits for each unit on a CPU, the least ones with which it stays, and its factor then."""
    rates = _rates(p)
    generators = _DRAWS.get() or [torch.default_generator] * len(rates)
    first, *others = generators
    are_one = others.count(first) == len(others)  # told sooner than by their hashes
    distinct = [first] if are_one else list(dict.fromkeys(generators))
    # Torch's generator draws 64 bits at once, and spends as many on each unit in F.dropout: that
    # would be a fourth of a training step.
    n = h.numel() // len(generators)
    bits = torch.empty(len(distinct), -(-n // 8), device="cpu", dtype=torch.int64)
    drawing = distinct
    if not all(rates):  # a member without dropout draws nothing when it is alone
        drawing = [generator for generator, rate in zip(generators, cycle(rates)) if rate]
    for row, generator in zip(bits if len(distinct) > 1 else [bits], distinct, strict=True):
        if generator in drawing:
            row.random_(-(2**63), None, generator=generator)
    shape = h.shape
    if len(distinct) < len(generators):
        if len(distinct) == len(rates) == 1:
            shape = 1, *shape[1:]
        else:
            bits = bits[[distinct.index(generator) for generator in generators]]
    of_units = bits.view(torch.int8)
    of_units = (of_units[:, :n] if n % 8 else of_units).reshape(shape)
    return of_units, *_in_8_bits(rates, h.dtype)


def _rates(p):
    return tuple(p) if isinstance(p, list) else (p,)


@lru_cache
def _in_8_bits(rates, dtype):
    """The least bits with which a unit stays, and its factor then, for units on a CPU."""
    # No rate but 0 is rounded to it, and none to 1.
    dropped = [min(max(round(rate * 2**8), rate > 0), 2**8 - 1) for rate in rates]
    least = tuple(k - 2**7 for k in dropped)
    factors = tuple(2**8 / (2**8 - k) for k in dropped)
    return _of_members(least, torch.int8, "cpu"), _of_members(factors, dtype, "cpu")


@lru_cache
@torch.inference_mode(False)
def _of_members(numbers, dtype, device):
    """A tensor of shape (M, 1, 1), or () for a single member: tensors are quicker than numbers."""
    shape = (-1, 1, 1) if len(numbers) > 1 else ()
    return torch.tensor(numbers, dtype=dtype, device=device).view(shape)
