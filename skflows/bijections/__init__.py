"""Invertible maps with exact log-determinants, in torch alone."""

from ._autoregressive import MaskedAutoregressive
from ._base import Bijection, Chain, Inverse
from ._coupling import Coupling
from ._fixed import Standardize
from ._linear import ActNorm, ElementwiseAffine, LULinear, Permutation
from ._planar import Planar
from ._spline import RationalQuadraticSpline
from ._univariate import Affine, Shift

__all__ = [
    "ActNorm",
    "Affine",
    "Bijection",
    "Chain",
    "Coupling",
    "ElementwiseAffine",
    "Inverse",
    "LULinear",
    "MaskedAutoregressive",
    "Permutation",
    "Planar",
    "RationalQuadraticSpline",
    "Shift",
    "Standardize",
]
