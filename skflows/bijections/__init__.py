"""Invertible maps with exact log-determinants, as PyTorch modules."""

from ._autoregressive import GridAutoregressive, MaskedAutoregressive
from ._base import Bijection, Chain, Inverse
from ._continuous import Continuous
from ._coupling import Coupling
from ._elementwise import ActNorm, Asinh, Bounded, ElementwiseAffine
from ._grid import FrameAutoregressive, GridCoupling, Pointwise, Squeeze
from ._linear import LULinear, Permutation, Rotation
from ._marginal_quantile import MarginalQuantile
from ._planar import Planar
from ._residual import Residual
from ._spline import RationalQuadraticSpline
from ._standardize import Standardize, Whiten
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
    "FrameAutoregressive",
    "GridAutoregressive",
    "GridCoupling",
    "Inverse",
    "LULinear",
    "MarginalQuantile",
    "MaskedAutoregressive",
    "Permutation",
    "Planar",
    "Pointwise",
    "RationalQuadraticSpline",
    "Residual",
    "Rotation",
    "Shift",
    "Squeeze",
    "Standardize",
    "Univariate",
    "Whiten",
]
