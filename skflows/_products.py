"""Which of its libraries torch multiplies matrices of float32 with on a CPU."""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache

import torch

from ._columns import add_product, weight_gradient

# Multiplications in a product from which on oneDNN, whose calls are dearer, is the faster one.
LARGE = 1_200_000
MANY = 800  # rows from which on it is the faster one whatever the weight
LEVEL_1_OF_ZEN_4 = 2**15  # bytes of a core's first cache, which guests see too; Zen 5 has more
CHOICE = getattr(torch.backends.mkldnn, "matmul", None)  # None in a torch that has none


class LargeProducts:
    """A context in which products of float32 are by oneDNN.

    Torch has one choice for all threads: where contexts of several threads overlap, the last one
    to end restores it. Products of others that are beside one may be rounded otherwise.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.n_inside = 0

    def __enter__(self):
        with self.lock:
            if not self.n_inside:
                self.outside = CHOICE.fp32_precision
            self.n_inside += 1
            # In words it allows rounding to bfloat16, which takes AMX. Without, it means oneDNN
            # and its products of float32.
            CHOICE.fp32_precision = "bf16"

    def __exit__(self, *error):
        with self.lock:
            if self.n_inside == 1:
                CHOICE.fp32_precision = self.outside
            self.n_inside -= 1

    def end(self):
        """Nobody is inside any more: Ctrl-C may have come amid the lines of a context."""
        with self.lock:
            if self.n_inside:
                CHOICE.fp32_precision = self.outside
            self.n_inside = 0


large_products = LargeProducts()
other_products = nullcontext()


@cache
def onednn_is_wider():
    """Whether only oneDNN uses the whole width of the processor, in float32.

    MKL keeps to half of AVX-512 on AMD's processors. Zen 4 is no wider than that, and takes a tenth
    more time by oneDNN. All of Zen 5 is taken to be wide, as it is but in laptops.
    """
    has: Mapping = getattr(torch.cpu, "get_capabilities", dict)()
    if not (
        CHOICE is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and "AMD" in has.get("cpu_name", "")
        and has.get("avx512_f", False)
        and has.get("l1d_cache_size", 0) > LEVEL_1_OF_ZEN_4
    ):
        return False
    finer = torch.full((64, 64), 1 + 2.0**-12, device="cpu", dtype=torch.float32)
    with large_products:
        return bool((finer @ finer > 64 + 2.0**-6).all())  # 64 if rounded to bfloat16


def products_of_many(rows):
    """A context in which products with rows are by oneDNN where they are that many."""
    return large_products if rows.shape[-2] >= MANY and _gains(rows) else other_products


def layer_products(weight, h):
    """Contexts for ``weight @ h``, and for its gradients in h and in the weight.

    They leave many rows to `products_of_many`, for to choose takes time. Members of a stack have
    the bits that they have alone: theirs are by oneDNN if each product is large enough for it
    alone, or if all of them together are and it rounds as MKL does.
    """
    n = h.shape[-1]
    # A compiled step has one choice, by `module_products`.
    if n >= MANY or torch.compiler.is_compiling() or not _gains(weight):
        return other_products, other_products, other_products
    n_out, n_in = weight.shape[-2:]
    size = n_out * n_in * n
    n_members = weight.shape[0] if weight.dim() == 3 else 1
    if size * n_members < LARGE:
        return other_products, other_products, other_products
    if size >= LARGE:
        return large_products, large_products, large_products
    if large_products.n_inside:  # by whatever thread: now nobody could try
        return other_products, other_products, other_products
    return _products_of_members(n_out, n_in, n, torch.get_num_threads())


@cache
def _products_of_members(n_out, n_in, n, n_threads):
    """What `layer_products` returns where only those of all members together are large."""

    def products(bias, weight, h, g):
        return add_product(bias, weight, h), weight.mT @ g, weight_gradient(g, h)

    generator = torch.Generator().manual_seed(0)
    shapes = (n_out, 1), (n_out, n_in), (n_in, n), (n_out, n)
    drawn = [torch.randn(2, *shape, generator=generator, dtype=torch.float32) for shape in shapes]
    apart = [products(*own) for own in zip(*drawn, strict=True)]
    with large_products:
        together = products(*drawn)
    return tuple(
        large_products if torch.equal(both, torch.stack(own)) else other_products
        for both, own in zip(together, zip(*apart, strict=True), strict=True)
    )


def module_products(module, n_rows, n_axes=2):
    """A context in which products are by the library that is faster for most of a module's.

    For held-out scores, and for steps that autograd has in its hands, or a compiler.

    Parameters
    ----------
    module : Module
        What is trained.
    n_rows : int
        That its weights meet at once, in each member of a stack.
    n_axes : int, default=2
        Of a weight: 3 in a stack.
    """
    weights = [p for p in module.parameters() if p.dim() >= n_axes and p.shape[-1] > 1]
    sizes = [p.shape[-2] * p.shape[-1] for p in weights]
    are_large = n_rows * sum(sizes) >= LARGE * max(len(sizes), 1)
    return large_products if are_large and all(map(_gains, weights)) else other_products


def _gains(tensor):
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and onednn_is_wider()
