"""Markov chains in the latent space of a flow, and their diagnostics."""

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import rankdata

from ..bijections._flow import standard_normal_log_prob

FIRST_STEP, TRAJECTORY, MOST_LEAPS = 0.5, 1.5, 4  # latent rows are nearly standard normal
WANTED_ACCEPTANCE, ADAPTATION, JITTER = 0.8, 0.1, 1.0


def run_chains(target, z, n_steps, generator, step=FIRST_STEP, adapts=False):
    """Run chains that mix Hamiltonian steps with independent proposals of a standard normal.

    Parameters
    ----------
    target : callable
        Log-density and gradient of latent rows.
    z : Tensor of shape (n_chains, d)
        Where the chains start.
    n_steps : int
        Steps of each chain.
    generator : torch.Generator
        Draws everything.
    step : float
        Step size of the trajectories.
    adapts : bool, default=False
        Whether the step size adapts to the share of accepted trajectories.

    Returns
    -------
    chains : Tensor of shape (n_steps, n_chains, d)
        The states.
    acceptance : float
        Share of the independent proposals that were accepted.
    step : float
        The latest step size.

    References
    ----------
    Hoffman et al., "NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport",
    2019; Gabrié, Rotskoff & Vanden-Eijnden, "Adaptive Monte Carlo Augmented with Normalizing
    Flows", 2022.
    """

    def uniform():
        return torch.rand(len(z), generator=generator, dtype=z.dtype)

    def normal():
        return torch.randn(z.shape, generator=generator, dtype=z.dtype)

    def accept(new, log_ratio):
        is_accepted = uniform().log() < log_ratio  # False if it is NaN
        new = [
            torch.where(is_accepted.view(-1, *[1] * (b.dim() - 1)), a, b)
            for a, b in zip(new, (z, value, slope), strict=True)
        ]
        return *new, is_accepted.double().mean().item()

    value, slope = target(z)
    chains, accepted = [], []
    for _ in range(n_steps):
        proposal = normal()
        new = proposal, *target(proposal)
        log_ratio = new[1] - standard_normal_log_prob(proposal)
        log_ratio = log_ratio - (value - standard_normal_log_prob(z))
        z, value, slope, rate = accept(new, log_ratio)
        # Some steps are short: a chain in a narrow tail would stand still otherwise.
        jittered = step * torch.exp(-JITTER * uniform().square()).unsqueeze(-1)
        momentum = normal()
        n_leaps = int(np.clip(round(TRAJECTORY / step), 1, MOST_LEAPS))
        new, moved = leapfrog(target, z, slope, momentum, jittered, n_leaps)
        kinetic = (momentum.square() - moved.square()).sum(1) / 2
        z, value, slope, hamiltonian_rate = accept(new, new[1] - value + kinetic)
        if adapts:
            step *= float(np.exp(ADAPTATION * (hamiltonian_rate - WANTED_ACCEPTANCE)))
        chains.append(z)
        accepted.append(rate)
    return torch.stack(chains), float(np.mean(accepted)), step


def leapfrog(target, z, slope, momentum, step, n_leaps):
    """Return rows, their values and slopes, and momenta at the end of a trajectory."""
    momentum = momentum + step / 2 * slope
    for leap in range(n_leaps):
        z = z + step * momentum
        value, slope = target(z)
        momentum = momentum + (step if leap < n_leaps - 1 else step / 2) * slope
    return (z, value, slope), momentum


def diagnostics(chains):
    """Return the rank-normalised split R-hat and the effective sample size of each column.

    Parameters
    ----------
    chains : ndarray of shape (n_steps, n_chains, n_features)
        The states.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter & Bürkner, "Rank-Normalization, Folding, and Localization",
    2021.
    """
    half = len(chains) // 2
    split = np.concatenate([chains[:half], chains[-half:]], axis=1)
    r_hat, ess = _of_scores(split)
    # Distances from the median show tails that some chains have not reached.
    of_tails, _ = _of_scores(np.abs(split - np.median(split, axis=(0, 1))))
    return np.maximum(r_hat, of_tails), ess


def _of_scores(values):
    """Return the R-hat and the effective sample size of the normal scores of values."""
    n, m, d = values.shape
    ranks = rankdata(values.reshape(-1, d), axis=0)
    scores = ndtri((ranks - 0.375) / (n * m + 0.25)).reshape(n, m, d)
    within = scores.var(axis=0, ddof=1).mean(axis=0)
    total = (n - 1) / n * within + scores.mean(axis=0).var(axis=0, ddof=1)
    centred = scores - scores.mean(axis=0)
    spectrum = np.abs(np.fft.rfft(centred, n=2 * n, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, axis=0)[:n].mean(axis=1) / (n - 1)
    correlation = 1 - (within - covariance) / total
    # Geyer: sums of neighbours are positive and decrease.
    pairs = correlation[: n - n % 2].reshape(-1, 2, d).sum(axis=1)
    pairs = np.minimum.accumulate(np.maximum(pairs, 0), axis=0)
    time = np.maximum(2 * pairs.sum(axis=0) - 1, 1 / np.log10(n * m))
    return np.sqrt(total / within), n * m / time
