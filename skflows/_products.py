"""Which of its libraries torch multiplies matrices of float32 with on a CPU."""

import threading
from collections.abc import Mapping
from functools import cache

import torch

# Multiplications in a product from which on oneDNN, whose calls are dearer, is the faster one.
LARGE = 1_600_000
CHOICE = getattr(torch.backends.mkldnn, "matmul", None)  # None in a torch that has none


@cache
def onednn_is_wider():
    """Whether only oneDNN uses the whole width of the processor's instructions.

    MKL keeps to half of it on AMD's processors with AVX-512.
    """
    has: Mapping = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        CHOICE is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and "AMD" in has.get("cpu_name", "")
        and has.get("avx512_f", False)
        # Where there is AMX, "bf16" would mean what it says: products rounded to bfloat16.
        and not any(value for name, value in has.items() if name.startswith("amx"))
    )


class SuitableProducts:
    """A context in which products are by the library that is faster for most of a module's.

    It takes a fifth off large steps of training, alone and in a stack. A member has the same
    products in both, to the bit.

    Parameters
    ----------
    module : Module
        What is trained.
    n_rows : int
        That its weights meet at once, in each member of a stack.
    n_axes : int, default=2
        Of a weight: 3 in a stack.
    """

    # Torch has one choice for all threads: contexts in several of them take turns.
    lock = threading.RLock()

    def __init__(self, module, n_rows, n_axes=2):
        sizes = [p.shape[-2] * p.shape[-1] for p in module.parameters() if p.dim() >= n_axes]
        self.are_large = n_rows * sum(sizes) >= LARGE * max(len(sizes), 1)

    def __enter__(self):
        if onednn_is_wider():
            self.lock.acquire()
            self.before = CHOICE.fp32_precision
            if self.are_large:
                # In words it allows rounding. Here it means oneDNN, and products of float32.
                CHOICE.fp32_precision = "bf16"

    def __exit__(self, *error):
        if onednn_is_wider():
            CHOICE.fp32_precision = self.before
            self.lock.release()
