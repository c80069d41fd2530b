"""Export of fitted flows to files that run without skflows."""

import copy
import math
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..bijections import Continuous, MarginalQuantile, Residual
from ._modules import module_of

N_EXAMPLE_ROWS = 3  # from which the operations are recorded


def export(
    estimator: BaseEstimator, path: str | os.PathLike[str], method: str = "score_samples"
) -> None:
    """Export a method of a fitted density to a file that runs without skflows.

    The file has the preprocessing, the density and the mean over cells of discrete columns, in
    float64: it takes a tensor of any number of rows, and returns what the method returns, up to
    rounding (``.pt2``) or to eight digits (``.onnx``). It doesn't check the rows.

    Parameters
    ----------
    estimator : estimator
        A fitted flow, a `TransformedDensity` of scikit-learn's `GaussianMixture`, an
        `AdaptiveKernelDensity`, or a mixture of these: `AutoDensity` or `StackedDensity`.
    path : str or path-like
        The file. ``.pt2`` is a program for `torch.export.load`, ``.onnx`` a model for an ONNX
        runtime, with an input "X" and an output named after the method. The latter needs the
        packages `onnx` and `onnxscript`.
    method : {"score_samples", "transform", "inverse_transform"}, default="score_samples"
        The method; the last two for flows only. Samples are the "inverse_transform" of standard
        normal rows; it does not round discrete columns, which `sample` does.

    Raises
    ------
    TypeError
        If the estimator, or a member of a mixture, is none of these densities, or has no such
        method.
    ValueError
        If the flow is a `CNFDensity`, which solves a differential equation, if log-determinants of
        a `ResidualDensity` are a series, or if the inverse takes more than one pass: of a
        `MAFDensity`, an autoregressive `NSFDensity`, a `PlanarDensity` or a `ResidualDensity`.
    ImportError
        If a package is missing.

    Examples
    --------
    >>> import os, tempfile
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> import skflows
    >>> X = load_iris().data
    >>> density = skflows.RealNVPDensity(n_transforms=1, preprocessing="standardize", max_iter=2)
    >>> density = density.fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "iris.pt2")
    ...     skflows.export(density, path)
    ...     program = torch.export.load(path).module()
    >>> program(torch.tensor(X)).shape
    torch.Size([150])
    """
    suffix = Path(path).suffix
    if suffix not in WRITERS:
        raise ValueError(f"path={str(path)!r} ends in {suffix!r}; it must end in {list(WRITERS)}.")
    if method not in METHODS:
        raise ValueError(f"method={method!r}; choose one of {list(METHODS)}.")
    check_is_fitted(estimator)
    if method != "score_samples" and not hasattr(estimator, method):
        raise TypeError(f"{type(estimator).__name__} has no {method}: export its score_samples.")
    rows = copy.deepcopy(module_of(estimator)).cpu()
    if reason := _obstacle(rows, method):
        raise ValueError(
            f"{method} of this {type(estimator).__name__} cannot be exported: {reason}"
        )
    missing = [name for name in WRITERS[suffix].packages if find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise ImportError(f"{suffix} needs other packages: pip install {names}, or export to .pt2.")
    for module in rows.modules():
        if isinstance(module, MarginalQuantile):
            module.kinds = module.tail.unique().tolist()
    module = Method(rows, METHODS[method])
    example = torch.zeros(N_EXAMPLE_ROWS, estimator.n_features_in_, dtype=torch.float64)
    shapes = {0: torch.export.Dim("n_samples", min=1)}
    with torch.no_grad():
        program = torch.export.export(module.eval(), (example,), dynamic_shapes=(shapes,))
        WRITERS[suffix].write(program, path, method)


def _obstacle(rows, method):
    """Return why a method of a density cannot be exported, or None."""
    if any(isinstance(module, Continuous) for module in rows.modules()):
        return (
            "it solves a differential equation. The default solver chooses its steps by the values "
            'of a row, and solver="rk4" is not supported.'
        )
    if any(isinstance(module, Residual) and not module.is_exact for module in rows.modules()):
        return (
            "its log-determinants are series, whose number of terms depends on the row. Fit it "
            'with log_det="exact".'
        )
    if method == "inverse_transform" and rows.flow.is_sequential(inverse=True):
        return "it takes more than one pass, such as one for each column."
    return None


METHODS = {
    "score_samples": lambda rows, x: rows(x),
    "transform": lambda rows, x: rows.flow(x)[0],
    "inverse_transform": lambda rows, z: rows.flow.inverse(z)[0],
}


class Method(nn.Module):
    """A function of a `RowDensity` as a module."""

    def __init__(self, rows, function):
        super().__init__()
        self.rows = rows
        self.function = function

    def forward(self, x):
        return self.function(self.rows, x)


def _write_program(program, path, method):
    torch.export.save(program, path)


def _write_onnx(program, path, method):
    with warnings.catch_warnings():  # torch and onnxscript warn of their own code
        warnings.simplefilter("ignore")
        program = program.run_decompositions(_plain_operations())
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["X"], output_names=[method]
        )
        exported.save(path)


class Writer(NamedTuple):
    """How to write a file, and the packages it takes."""

    write: Callable
    packages: tuple = ()


WRITERS = {
    ".pt2": Writer(_write_program),
    ".onnx": Writer(_write_onnx, ("onnx", "onnxscript")),
}


def _plain_operations():
    """Return functions for the operations that ONNX or its runtime lacks in float64.

    Written out here, because `torch.export.default_decompositions` has none of them but softplus.
    """
    aten = torch.ops.aten
    return {
        aten.softplus.default: lambda x: torch.where(x > 20, x, (1 + x.exp()).log()),
        aten.special_ndtri.default: _normal_quantile,
        aten.special_erfcx.default: _erfcx,
        aten.atan.default: _atan,
        aten.tan.default: lambda x: x.sin() / x.cos(),
        aten.acos.default: lambda x: 2 * _atan(((1 - x) / (1 + x)).sqrt()),
        aten.hypot.default: _hypot,
        aten.linalg_solve_triangular.default: _solve_triangular,
        aten.nextafter.default: _nextafter,
    }


# Numerators and denominators in the centre, in the tails and far in the tails: Wichura, "The
# Percentage Points of the Normal Distribution", 1988.
CENTRE = (
    (
        3.3871328727963666080,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
NEAR = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
FAR = (
    (
        6.65790464350110377720,
        5.46378491116411436990,
        1.78482653991729133580,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def _polynomial(coefficients, x):
    *rest, value = coefficients
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value


def _ratio(coefficients, x):
    top, bottom = coefficients
    return _polynomial(top, x) / _polynomial(bottom, x)


def _normal_quantile(p):
    q = p - 0.5
    r = (-torch.minimum(p, 1 - p).log()).sqrt()
    tail = torch.where(r <= 5, _ratio(NEAR, r - 1.6), _ratio(FAR, r - 5))
    centre = q * _ratio(CENTRE, 0.180625 - q * q)
    return torch.where(q.abs() <= 0.425, centre, q.sign() * tail)


def _erfcx(x, step=0.5, n_terms=13):
    """Return exp(x^2) erfc(x) for x of 0.5 or more: Hunter & Regan, "A Note on the Evaluation of
    the Complementary Error Function", 1972."""
    square = x * x
    total = 1 / square
    for k in range(1, n_terms + 1):
        node = (k * step) ** 2
        total = total + 2 * math.exp(-node) / (square + node)
    pole = torch.where(x < 6, 2 * square.exp() / (1 - (2 * math.pi / step * x).exp()), 0.0)
    return step / math.pi * x * total + pole


def _atan(x):
    far = x.abs() > 1
    t = torch.where(far, 1 / x, x)
    for _ in range(3):  # halve the angle
        t = t / (1 + (1 + t * t).sqrt())
    angle = 8 * t * _polynomial([(-1) ** k / (2 * k + 1) for k in range(9)], t * t)
    return torch.where(far, x.sign() * math.pi / 2 - angle, angle)


def _hypot(x, y):
    x, y = x.abs(), y.abs()
    longer = torch.maximum(x, y)
    return longer * (1 + (torch.minimum(x, y) / longer).square()).sqrt()


def _solve_triangular(matrix, y, *, upper, left=True, unitriangular=False):
    """Return the solution row by row; flows have the matrix on the left."""
    n = len(matrix)
    x: dict[int, torch.Tensor] = {}
    for i in reversed(range(n)) if upper else range(n):
        row = y[i]
        for j in range(i + 1, n) if upper else range(i):
            row = row - matrix[i, j] * x[j]
        x[i] = row if unitriangular else row / matrix[i, i]
    return torch.stack([x[i] for i in range(n)])


def _nextafter(x, other):
    largest, least = torch.finfo(x.dtype).max, 5e-324
    step = (0.6 * torch.finfo(x.dtype).eps * x.abs()).clamp(min=least)  # it rounds to one unit
    moved = torch.where(other > x, x + step, x - step)
    return torch.where(x.isinf(), x.sign() * largest, moved)
