"""Tails of a distribution beyond a quantile, as increasing maps of the excess to a normal score.

A tail begins at a knot that the distribution exceeds as often as a standard normal exceeds
``edge``. It maps the excess ``y >= 0`` over that knot to the score ``z >= edge`` that a standard
normal exceeds as often as the distribution exceeds the knot by ``y``. A lower tail is a mirrored
upper one.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ._normal import log_normal_survival, normal_log_density, normal_survival, upper_score


class Exceedances(NamedTuple):
    """The rows of each column beyond the knot of one side, and the spline at the knot."""

    edge: Tensor  # (d,), normal score of the knot
    distance: Tensor  # (d,), from the median to the knot
    slope: Tensor  # (d,), of the score, in the last bin before the knot
    excess: Tensor  # (d, m), of rows over the knot; 0 for those that do not exceed it
    share: Tensor  # (d, m), weight of these rows among all; 0 for those that do not exceed it

    def select(self, columns):
        return Exceedances(*(value[columns] for value in self))

    def expected(self):
        """Return the expected share of rows beyond the knot."""
        return normal_survival(self.edge)

    def density_scale(self):
        """Return survival over density, with the density of the last bin before the knot."""
        return (log_normal_survival(self.edge) - normal_log_density(self.edge)).exp() / self.slope


class Tail(ABC):
    """A family of tails with one scale and one shape for each column."""

    # Weight of prior rows in line with the last bin before the knot, as a share of the expected
    # rows beyond it: a handful of rows, or none, must not decide.
    PRIOR = 0.1

    @abstractmethod
    def fit(self, outside):
        """Return the scale and shape of each column from its `Exceedances`."""

    @abstractmethod
    def forward(self, excess, edge, scale, shape):
        """Return the score at an excess, and its log-slope."""

    @abstractmethod
    def inverse(self, score, edge, scale, shape):
        """Return the excess at a score."""


class Gaussian(Tail):
    """A score linear in the excess: the tail of a Gaussian with the mean excess of the data."""

    def fit(self, outside):
        edge = outside.edge
        of_unit_normal = (normal_log_density(edge) - log_normal_survival(edge)).exp() - edge
        prior = self.PRIOR * outside.expected()
        total = (outside.share * outside.excess).sum(1) + prior * of_unit_normal / outside.slope
        scale = total / (outside.share.sum(1) + prior) / of_unit_normal
        return scale, torch.zeros_like(scale)

    def forward(self, excess, edge, scale, shape):
        return edge + excess / scale, -scale.log()

    def inverse(self, score, edge, scale, shape):
        return (score - edge) * scale


class StudentT(Tail):
    """The tail of a Student t around the median, whose scale follows from the place of the knot."""

    def __init__(self, nu):
        self.nu = nu
        self.survival, self.quantile = STUDENT_T[nu]
        log_gammas = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)
        self.log_constant = log_gammas - 0.5 * math.log(nu * math.pi)

    def fit(self, outside):
        scale = outside.distance / self.quantile(normal_survival(outside.edge))
        return scale, torch.zeros_like(scale)

    def forward(self, excess, edge, scale, shape):
        t = self.quantile(normal_survival(edge)) + excess / scale
        score = upper_score(self.survival(t))
        # By hypot, because the square of a far excess overflows in float32.
        log_term = torch.hypot(t / self.nu**0.5, torch.ones_like(t)).log()
        log_density = self.log_constant - (self.nu + 1) * log_term - scale.log()
        return score, log_density - normal_log_density(score)

    def inverse(self, score, edge, scale, shape):
        t = self.quantile(normal_survival(score))
        return (t - self.quantile(normal_survival(edge))) * scale


def _survival_1(t):
    return (1 / t).atan() / math.pi


def _quantile_1(survival):
    return 1 / (math.pi * survival).tan()


def _survival_2(t):
    root = (2 + t**2).sqrt()
    return 1 / (root * (root + t))


def _quantile_2(survival):
    return (1 - 2 * survival) / (2 * survival * (1 - survival)).sqrt()


def _survival_4(t):
    square = 4 + t**2
    a = t / square.sqrt()
    return (4 / square / (1 + a)) ** 2 * (2 + a) / 4


def _quantile_4(survival):
    root = 2 * (survival * (1 - survival)).sqrt()
    return 2 * ((root.acos() / 3).cos() / root - 1).sqrt()


# Survival function for t > 0 and its inverse, both in closed form and without cancellation.
STUDENT_T = {
    1: (_survival_1, _quantile_1),
    2: (_survival_2, _quantile_2),
    4: (_survival_4, _quantile_4),
}


class Pareto(Tail):
    """The generalised Pareto distribution of the excess, by (almost) maximum likelihood."""

    PRIOR_SHAPE = 0.5
    MIN_SHAPE, MAX_SHAPE = 0.1, 10.0
    N_ITER = 25  # after which the held-out likelihood changes in the fifth digit
    MAX_EXPONENT = 80.0  # exp of it is finite in float32

    def fit(self, outside):
        excess, share = outside.excess, outside.share
        prior = self.PRIOR * outside.expected()
        total = share.sum(1) + prior
        first = scale = outside.density_scale()
        shape = torch.ones_like(scale)
        # The two equations of maximum likelihood, solved alternately.
        for _ in range(self.N_ITER):
            stretch = ((shape / scale)[:, None] * excess).log1p()
            shape = ((share * stretch).sum(1) + prior * self.PRIOR_SHAPE) / total
            shape = shape.clamp(self.MIN_SHAPE, self.MAX_SHAPE)
            pull = excess / (scale[:, None] + shape[:, None] * excess)
            scale = ((share * pull).sum(1) * (1 + shape) * scale + prior * first) / total
        return scale, shape

    def forward(self, excess, edge, scale, shape):
        stretch = (shape * excess / scale).log1p()
        log_survival = log_normal_survival(edge) - stretch / shape
        score = upper_score(log_survival.exp())
        return score, log_survival - stretch - scale.log() - normal_log_density(score)

    def inverse(self, score, edge, scale, shape):
        stretch = (log_normal_survival(edge) - log_normal_survival(score)) * shape
        return stretch.clamp(max=self.MAX_EXPONENT).expm1() * scale / shape


# If two tails are equally likely, the later one is the safer guess.
TAILS: dict[str, list[Tail]] = {
    "gaussian": [Gaussian()],
    "student_t": [StudentT(4), StudentT(2), StudentT(1)],
    "pareto": [Pareto()],
}
ALL_TAILS = [tail for tails in TAILS.values() for tail in tails]
