"""Which of its libraries torch multiplies matrices of float32 with on a CPU."""

import threading
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from functools import cache

import torch

# Multiplications in a product from which on oneDNN, whose calls are dearer, is the faster one.
LARGE = 1_600_000
CHOICE = getattr(torch.backends.mkldnn, "matmul", None)  # None in a torch that has none


class LargeProducts:
    """Products of float32 are by oneDNN in contexts of this.

    Torch has one choice for all threads: where contexts of several threads overlap, the last one
    to end restores it. Products of others that are beside one may be rounded otherwise.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.n_inside = 0

    @contextmanager
    def __call__(self):
        with self.lock:
            if not self.n_inside:
                self.outside = CHOICE.fp32_precision
                # In words it allows rounding to bfloat16, which takes AMX. Without, it means
                # oneDNN and its products of float32.
                CHOICE.fp32_precision = "bf16"
            self.n_inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.n_inside -= 1
                if not self.n_inside:
                    CHOICE.fp32_precision = self.outside


large_products = LargeProducts()


@cache
def onednn_is_wider():
    """Whether only oneDNN uses the whole width of the processor's instructions, in float32.

    MKL keeps to half of it on AMD's processors with AVX-512.
    """
    has: Mapping = getattr(torch.cpu, "get_capabilities", dict)()
    if not (
        CHOICE is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and "AMD" in has.get("cpu_name", "")
        and has.get("avx512_f", False)
    ):
        return False
    finer = torch.full((64, 64), 1 + 2.0**-12, device="cpu", dtype=torch.float32)
    with large_products():
        return bool((finer @ finer > 64 + 2.0**-6).all())  # 64 if rounded to bfloat16


def suitable_products(module, n_rows, n_axes=2):
    """Contexts in which products are by the library that is faster for most of a module's.

    They take a fifth off large steps of training, alone and in a stack. What is large is so in
    both, where large products of a member have the same bits.

    Parameters
    ----------
    module : Module
        What is trained.
    n_rows : int
        That its weights meet at once, in each member of a stack.
    n_axes : int, default=2
        Of a weight: 3 in a stack.

    Returns
    -------
    products : callable
        Returns such a context.
    """
    weights = [p for p in module.parameters() if p.dim() >= n_axes and p.shape[-1] > 1]
    sizes = [p.shape[-2] * p.shape[-1] for p in weights]
    are_large = n_rows * sum(sizes) >= LARGE * max(len(sizes), 1)
    are_float32 = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in weights)
    return large_products if are_large and are_float32 and onednn_is_wider() else nullcontext
