"""The least time of an operation on this machine, and how far ours is from it.

    python benchmarks/floors.py

What an architecture has to compute is counted: products with weights that no mask hides, and the
exponentials, logarithms and the like of its elementwise maps. So is what it has to move: every
layer reads its input once and writes its output once. How fast the machine does each of the
three, on one thread and at these sizes, is measured in the same run. Products and functions keep
the same core busy, so their times add up; moving may go on beside them. All other arithmetic is
left out: no program is as fast as its floor.
"""

import argparse
import statistics
from functools import partial
from time import process_time
from typing import NamedTuple

import torch
from quality import machine
from timing import LEAST_SECONDS, ours, seconds_per_call

from skflows.nn.linear import ColumnLinear, MaskedLinear
from skflows.nn.incremental import room_apart
from skflows.nn.products import products_of_many
from skflows.nn.tiles import layer_vjp
from skflows.bijections import Coupling, LULinear, MaskedAutoregressive

ARCHITECTURES = ("NSF", "MAF", "RealNVP")
DTYPES = {"step": torch.float32, "score": torch.float64, "sample": torch.float64}
# Forwards; in a step also the gradients of the input and of the weights, as large each, for which
# no function needs to be taken anew.
PASSES = {"step": 3, "score": 1, "sample": 1}
# Reads and writes of a weight in a step: gradient (1 write, 1 read for its norm), AdamW (reads 4,
# writes 3), moving average (reads 2, writes 1).
MOVES_OF_A_WEIGHT = 12


class Work(NamedTuple):
    """What an operation takes: flops in products, values of functions, and values moved."""

    flops: float = 0
    functions: float = 0
    moved: float = 0

    def __add__(self, other):
        return Work(*map(sum, zip(self, other, strict=True)))


def functions_of(univariate):
    """Exponentials and the like for one value of an elementwise map."""
    if hasattr(univariate, "n_bins"):  # a softmax of widths, one of heights, two slopes, a log
        return 2 * univariate.n_bins + 2 + 1
    return univariate.n_params  # rsqrt and exp of a scale; a shift has none to speak of


def work_of(module, n):
    """What one module does for n rows, less what its parts do."""
    if isinstance(module, ColumnLinear):
        n_out, n_in = module.weight.shape
        products = int(module.mask.sum()) if isinstance(module, MaskedLinear) else n_in * n_out
        return Work(2 * n * products, 0, n * (n_in + n_out) + products)
    if isinstance(module, LULinear):
        d = len(module.shift)
        return Work(2 * n * d * d, 0, 2 * n * d)
    if isinstance(module, Coupling | MaskedAutoregressive):
        d = sum(module.sizes) if isinstance(module, Coupling) else module.net.n_features
        # Each column is squashed once, has its parameters read once, and is written.
        functions = d * functions_of(module.univariate) + d
        values = d * (2 + module.univariate.n_params) + 2 * d
        return Work(0, n * functions, n * values)
    return Work()


def work(bijection, n, operation):
    """What an operation on n rows takes, whatever the program."""
    total = Work()
    for module in bijection.modules():
        total += work_of(module, n)
    passes = PASSES[operation]
    total = Work(passes * total.flops, total.functions, passes * total.moved)
    if operation == "step":
        n_weights = sum(p.numel() for p in bijection.parameters())
        total += Work(0, 0, MOVES_OF_A_WEIGHT * n_weights)
    return total


def median_seconds(function, n_rounds):
    function()
    n_calls = max(1, round(LEAST_SECONDS / seconds_per_call(function, 1, process_time)))
    times = [seconds_per_call(function, n_calls, process_time) for _ in range(n_rounds)]
    return statistics.median(times)


class Rates(NamedTuple):
    """What the machine does in a second, at a size."""

    flops: float
    functions: float
    bytes: float


def rates(n, dtype, n_rounds):
    """Of a product of 64 by 64 with n columns, and of exp and copies of as many values."""
    layer, b = ColumnLinear(64, 64).to(dtype), torch.randn(64, n, dtype=dtype)
    out, other = torch.empty_like(b), torch.empty_like(b)
    columns, room = room_apart(64, b).copy_(b), room_apart(64, b)
    functions = [
        partial(torch.exp, b, out=other),
        partial(out.copy_, b),
        partial(torch.mm, layer.weight, columns, out=room),
    ]
    if address := layer.gemm(layer.weight, columns):
        tiled = address, layer.weight, layer.bias, columns, layer.tiles(), room
        functions.append(partial(layer_vjp, *tiled))
    with products_of_many(b.mT):
        exp, copied, *products = (median_seconds(function, n_rounds) for function in functions)
    values, product = 64 * n, min(products)
    return Rates(2 * 64 * values / product, values / exp, 2 * b.nbytes / copied)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--d", nargs="+", type=int, default=[10, 36], help="numbers of columns")
    parser.add_argument("--batch", type=int, default=1024, help="number of rows")
    parser.add_argument("--rounds", type=int, default=11)
    return parser.parse_args()


@torch.no_grad()
def main():
    args = parse()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n = args.batch
    print(f"Machine: {machine()}; one thread; torch {torch.__version__}; {n} rows\n")
    speed = {dtype: rates(n, dtype, args.rounds) for dtype in set(DTYPES.values())}
    for dtype, rate in speed.items():
        print(
            f"{dtype}: {rate.flops / 1e9:.1f} GFLOP/s in products, {rate.functions / 1e9:.2f} "
            f"G exp/s, {rate.bytes / 1e9:.1f} GB/s in copies"
        )
    print(
        "\n| operation | products, ms | functions, ms | moving, ms | floor, ms | measured, ms | "
        "times the floor |"
    )
    print("|---" * 7 + "|")
    for architecture in args.architectures:
        for d in args.d:
            contestant = ours(architecture, d)
            X = torch.randn(n, d)
            for operation, dtype in DTYPES.items():
                least, rate = work(contestant.bijection, n, operation), speed[dtype]
                products, functions = least.flops / rate.flops, least.functions / rate.functions
                moving = least.moved * dtype.itemsize / rate.bytes
                floor = max(products + functions, moving)
                with torch.enable_grad():
                    measured = median_seconds(
                        partial(getattr(contestant, operation), X), args.rounds
                    )
                figures = (products, functions, moving, floor, measured)
                cells = " | ".join(f"{1e3 * seconds:.2f}" for seconds in figures)
                label = f"{architecture}, d = {d}: {operation}"
                print(f"| {label} | {cells} | {measured / floor:.1f} |", flush=True)


if __name__ == "__main__":
    main()
