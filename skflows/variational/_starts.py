"""Where a variational fit starts: modes, normal approximations there, and their best one."""

import math
from typing import NamedTuple

import torch

from ..bijections import Bijection, Chain, Rotation, Whiten
from ..bijections._flow import standard_normal_log_prob
from ..training.reverse_kl import evidence_bound

N_ITER, N_HALVINGS, SUFFICIENT = 200, 30, 1e-4
CONVERGED = 1e-8  # squared length of the next step, in standard deviations
N_POLISH, LEAST_EIGENVALUE = 10, 1e-8
STEP = 1e-3  # of the differences that give a Hessian, in standard deviations
SAME_MODE = 1.0  # distance, in standard deviations of either
LEAST_SHARE = 1e-3  # of a mode in the mass of all
DOMINANT = 0.9
N_DRAWS = 256


class Mode(NamedTuple):
    """A local maximum of a target, with the normal distribution of the same curvature."""

    loc: torch.Tensor
    covariance: torch.Tensor
    log_mass: float


class Start(NamedTuple):
    """The affine map from which a flow starts, with the modes of the target.

    Attributes
    ----------
    preprocess : Bijection
        Maps unconstrained rows to nearly standard normal ones.
    modes : list of Mode
        The modes, by decreasing mass.
    shares : list of float
        Their shares of the mass of all, by their curvature.
    """

    preprocess: Bijection
    modes: list
    shares: list

    @property
    def is_multimodal(self):
        """Whether no mode has nearly all of the mass."""
        return len(self.shares) > 1 and self.shares[0] < DOMINANT


def find_start(target, points, generator):
    """Return the `Start` of a fit.

    Parameters
    ----------
    target : TargetDensity
        Log-density and gradient of unconstrained rows.
    points : Tensor of shape (n, d)
        Where the search for modes begins.
    generator : torch.Generator
        Draws what compares the normal approximations.
    """
    modes = find_modes(target, *maximize(target, points))
    mass = torch.tensor([mode.log_mass for mode in modes], dtype=torch.float64)
    shares = mass.softmax(0)
    kept = [i for i, share in enumerate(shares.tolist()) if share >= LEAST_SHARE]
    modes, shares = [modes[i] for i in kept], shares[kept] / shares[kept].sum()
    d = points.shape[1]
    identity = torch.eye(d, dtype=points.dtype)
    candidates = [(points.new_zeros(d), identity)]
    if modes:
        best = modes[0]
        candidates += [(best.loc, best.covariance), (best.loc, 2 * best.covariance)]
    start = Start(affine_map(*candidates[0]), modes, shares.tolist())
    if start.is_multimodal:
        locs = torch.stack([mode.loc for mode in modes])
        within = torch.stack([mode.covariance for mode in modes])
        loc = shares @ locs
        between = (shares[:, None] * (locs - loc)).T @ (locs - loc)
        covariance = (shares[:, None, None] * within).sum(0) + between
        return start._replace(preprocess=affine_map(loc, covariance, principal=True))
    z = torch.randn(N_DRAWS, d, generator=generator, dtype=points.dtype)
    maps = [affine_map(*candidate) for candidate in candidates]
    bounds = [bound_at(target, preprocess, z) for preprocess in maps]
    return start._replace(preprocess=maps[bounds.index(max(bounds))])


def bound_at(target, preprocess, z):
    """Return the bound of the evidence by the draws that an affine map makes of latent ones."""
    value, _ = target.mapped_by(preprocess)(z)
    return evidence_bound(value - standard_normal_log_prob(z)).item()


def affine_map(loc, covariance, principal=False):
    """Return the map from rows with these moments to uncorrelated ones.

    By default the i-th coordinate depends on the first i columns. Principal axes put modes far
    apart into different halves of few coordinates.
    """
    whiten = Whiten(len(loc))
    scale = covariance.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(covariance / scale / scale[:, None])
    root = vectors * values.clamp(min=LEAST_EIGENVALUE).sqrt()
    factor = torch.linalg.cholesky(root @ root.T)
    whiten.loc.copy_(loc)
    whiten.scale.copy_(scale)
    whiten.factor.copy_(factor)
    if not principal:
        return whiten
    axes = torch.linalg.solve_triangular(factor, root, upper=False)
    return Chain([whiten, Rotation(axes.T.contiguous())])


def composed(preprocess, affine):
    """Return an affine map and the inverse of another one, which acts on its outcome, as one."""
    with torch.no_grad():
        d = len(preprocess.loc)
        corners, _ = preprocess.inverse(affine(torch.eye(d + 1, d, dtype=torch.float64))[0])
        matrix = corners[:-1] - corners[-1]
        return affine_map(corners[-1], matrix.T @ matrix)


def maximize(target, points):
    """Return local maxima by BFGS from all points at once, with scales of the columns there.

    Parameters
    ----------
    target : callable
        Log-density and gradient of rows.
    points : Tensor of shape (m, d)
        Where to start.

    Returns
    -------
    points : Tensor of shape (m, d)
        The highest points found.
    scales : Tensor of shape (m, d)
        Standard deviations of the columns by BFGS's estimate of the curvature.

    References
    ----------
    Nocedal & Wright, "Numerical Optimization", 2006, chapter 6.
    """
    x = points.clone()
    value, slope = target(x)
    m, d = x.shape
    inverse = torch.eye(d, dtype=x.dtype).repeat(m, 1, 1)
    running = torch.arange(m)[value.isfinite() & slope.isfinite().all(1)]
    for iteration in range(N_ITER):
        if not len(running):
            break
        step = (inverse[running] @ slope[running, :, None]).squeeze(-1)
        rise = (step * slope[running]).sum(1)
        if iteration == 0:
            step = step / step.norm(dim=1, keepdim=True).clamp(min=1)
            rise = (step * slope[running]).sum(1)
        new, new_value, new_slope, moved = _searched(target, x[running], value[running], step, rise)
        difference, change = new - x[running], slope[running] - new_slope
        curvature = (difference * change).sum(1)
        if iteration == 0:
            scale = curvature / change.square().sum(1).clamp(min=1e-300)
            inverse[running] *= torch.where(curvature > 0, scale, 1.0)[:, None, None]
        is_convex = moved & (curvature > 1e-12 * difference.norm(dim=1) * change.norm(dim=1))
        rows = running[is_convex]
        s, y = difference[is_convex], change[is_convex]
        rho = 1 / curvature[is_convex]
        left = torch.eye(d, dtype=x.dtype) - rho[:, None, None] * s[:, :, None] * y[:, None]
        update = rho[:, None, None] * s[:, :, None] * s[:, None]
        inverse[rows] = left @ inverse[rows] @ left.mT + update
        x[running], value[running], slope[running] = new, new_value, new_slope
        running = running[moved & (rise > CONVERGED)]
    return x, inverse.diagonal(dim1=1, dim2=2).clamp(min=1e-300).sqrt()


def _searched(target, x, value, step, rise):
    """Return points along steps where the value has risen enough, by halving the steps."""
    new, new_value, new_slope = x + step, value.clone(), torch.zeros_like(x)
    moved = torch.zeros(len(x), dtype=torch.bool)
    left, factor = torch.arange(len(x)), 1.0
    for _ in range(N_HALVINGS):
        tried = x[left] + factor * step[left]
        tried_value, tried_slope = target(tried)
        is_good = tried_value >= value[left] + SUFFICIENT * factor * rise[left]
        is_good &= tried_value.isfinite() & tried_slope.isfinite().all(1)
        rows = left[is_good]
        new[rows], new_value[rows] = tried[is_good], tried_value[is_good]
        new_slope[rows], moved[rows] = tried_slope[is_good], True
        left, factor = left[~is_good], factor / 2
        if not len(left):
            break
    new[~moved] = x[~moved]
    return new, new_value, new_slope, moved


def find_modes(target, points, scales):
    """Return the different modes among points near maxima, by decreasing mass.

    Points from which Newton's method reaches no maximum are left out.
    """
    value, _ = target(points)
    modes: list[Mode] = []
    for i in value.nan_to_num(-math.inf).argsort(descending=True).tolist():
        if not value[i].isfinite() or _near(modes, points[i]):
            continue
        mode = _polished(target, points[i], scales[i])
        if mode is not None and not _near(modes, mode.loc):
            modes.append(mode)
    return sorted(modes, key=lambda mode: -mode.log_mass)


def _near(modes, point):
    distances = [
        (point - mode.loc) @ torch.linalg.solve(mode.covariance, point - mode.loc) for mode in modes
    ]
    return any(distance < SAME_MODE**2 for distance in distances)


def _polished(target, point, scale):
    """Return the mode that damped Newton steps reach from a point, or None."""
    for _ in range(N_POLISH):
        value, slope = (part[0] for part in target(point[None]))
        covariance, is_maximum = _inverse_curvature(target, point, scale)
        step = covariance @ slope
        rise = (step @ slope).item()
        scale = covariance.diagonal().sqrt()
        if not math.isfinite(rise):
            return None
        if rise < CONVERGED:
            break
        new, _, _, moved = _searched(
            target, point[None], value[None], step[None], torch.tensor([rise])
        )
        if not moved:
            break
        point = new[0]
    if not is_maximum or rise > 1e-2:
        return None
    log_det = torch.linalg.slogdet(covariance)[1]
    log_mass = value + 0.5 * (log_det + len(point) * math.log(2 * math.pi))
    return Mode(point, covariance, log_mass.item())


def _inverse_curvature(target, point, scale):
    """Return the inverse of the negative Hessian, made positive, and whether it was positive."""
    d = len(point)
    steps = (STEP * scale).diag()
    _, slopes = target(torch.cat([point + steps, point - steps]))
    curvature = -(slopes[:d] - slopes[d:]) / (2 * STEP * scale[:, None])
    curvature = (curvature + curvature.T) / 2
    # Columns of different units are comparable at a unit diagonal only.
    unit = curvature.diagonal().abs().clamp(min=1e-300).sqrt()
    scaled = curvature / unit / unit[:, None]
    if not scaled.isfinite().all():
        return torch.full_like(curvature, math.nan), False
    values, vectors = torch.linalg.eigh(scaled)
    inverse = (vectors / values.abs().clamp(min=LEAST_EIGENVALUE)) @ vectors.T
    return inverse / unit / unit[:, None], bool(values[0] > LEAST_EIGENVALUE)
