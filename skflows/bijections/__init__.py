"""Invertible maps with exact log-determinants, in torch alone."""

from ._autoregressive import MaskedAutoregressive
from ._base import Bijection, Chain, Inverse
from ._continuous import Continuous
from ._coupling import Coupling
from ._fixed import Asinh, Bounded, Rotation, Standardize, Whiten
from ._linear import ActNorm, ElementwiseAffine, LULinear, Permutation
from ._marginal import MarginalQuantile
from ._planar import Planar
from ._spline import RationalQuadraticSpline
from ._univariate import Affine, Shift, Univariate

__all__ = [
    "ActNorm",
    "Affine",
    "Asinh",
    "Bijection",
    "Bounded",
    "Chain",
    "Continuous",
    "Coupling",
    "ElementwiseAffine",
    "Inverse",
    "LULinear",
    "MarginalQuantile",
    "MaskedAutoregressive",
    "Permutation",
    "Planar",
    "RationalQuadraticSpline",
    "Rotation",
    "Shift",
    "Standardize",
    "Univariate",
    "Whiten",
]
