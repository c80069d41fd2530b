"""Markov chains that use a flow, and their diagnostics."""

import math

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import rankdata

from ..bijections._flow import standard_normal_log_prob
from ._fit import learned_flow

FIRST_STEP, FIRST_LEAPS = 0.5, 6.0  # whitened rows have scales of about 1
MOST_LEAPS, MOST_LATENT_LEAPS = 128, 6  # a flow takes time, and leaves the latent space simple
WANTED_ACCEPTANCE, ADAPTATION, JITTER = 0.8, 0.2, 1.0
WARM_UP_STEPS, WIDE = 50, 2.0
LEARNED_STEPS, MAX_R_HAT = 100, 1.1
ROUNDING = 1e-12  # relative difference of states that are the same


class Hamiltonian:
    """Trajectories of Hamiltonian Monte Carlo, whose step size and length adapt.

    The length is drawn up to the one at which half of the chains turn back: longer trajectories
    return to where they began, and shorter ones move like a random walk.

    Parameters
    ----------
    target : callable
        Log-density and gradient of rows.
    generator : torch.Generator
        Draws everything.
    most_leaps : int, default=128
        Largest number of steps of a trajectory.

    References
    ----------
    Wu, Stoehr & Robert, "Faster Hamiltonian Monte Carlo by Learning Leapfrog Scale", 2018.
    """

    def __init__(self, target, generator, most_leaps=MOST_LEAPS):
        self.target = target
        self.generator = generator
        self.most_leaps = most_leaps
        self.step = FIRST_STEP
        self.n_leaps = FIRST_LEAPS

    def move(self, x, at, adapts):
        """Return where a trajectory from each row ends, or the row if that is rejected.

        Values and gradients there are returned too; ``at`` holds them at the rows. If ``adapts``,
        trajectories go on until half of the chains turn back, end at any step up to there, and tell
        the step size and the length of later ones.
        """
        value, slope = at
        momentum = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        # Some steps are short: a chain in a narrow tail would stand still otherwise.
        step = self.step * torch.exp(-JITTER * uniform(x, self.generator).square()).unsqueeze(-1)
        n_leaps = self.most_leaps if adapts else 1 + int(self._uniform() * self.n_leaps)
        new, moved = x, momentum
        for leap in range(1, n_leaps + 1):
            half = moved + step / 2 * slope
            new = new + step * half
            new_value, slope = self.target(new)
            moved = half + step / 2 * slope
            if (
                not adapts or leap * self._uniform() < 1
            ):  # each step is as likely (reservoir sampling)
                end = new, new_value, slope
                kinetic = (momentum.square() - moved.square()).sum(1) / 2
            goes_on = ((new - x) * moved).sum(1) > 0
            if adapts and goes_on.double().mean() < 0.5:
                break
        is_accepted = uniform(x, self.generator).log() < end[1] - value + kinetic
        if adapts:
            rate = is_accepted.double().mean().item()
            self.step *= math.exp(ADAPTATION * (rate - WANTED_ACCEPTANCE))
            self.n_leaps *= (leap / self.n_leaps) ** ADAPTATION
        return chosen(is_accepted, end, (x, *at))

    def _uniform(self):
        return torch.rand((), generator=self.generator).item()


class Chains:
    """Chains that mix independent draws of a flow with Hamiltonian steps in two spaces.

    In the latent space the function is nearly normal where the flow fits. In the space of whitened
    rows the chains reach what the flow has missed, whose latent image is far from all draws.

    Parameters
    ----------
    target : TargetDensity
        Log-density and gradient of whitened rows.
    flow : Bijection
        Maps whitened rows to latent ones.
    y : Tensor of shape (n_chains, d)
        Where the chains start.
    generator : torch.Generator
        Draws everything.
    lines : Lines, optional
        Prints how many steps were made.

    References
    ----------
    Hoffman et al., "NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport",
    2019; Gabrié, Rotskoff & Vanden-Eijnden, "Adaptive Monte Carlo Augmented with Normalizing
    Flows", 2022.
    """

    def __init__(self, target, flow, y, generator, lines=None):
        self.target = target
        self.generator = generator
        self.lines, self.n_done = lines, 0
        self.whitened = Hamiltonian(target, generator)
        self.use(flow, y)

    def use(self, flow, y):
        """Continue at these rows with another flow."""
        self.flow = flow
        latent = self.target.mapped_by(flow)
        self.latent = Hamiltonian(latent, self.generator, MOST_LATENT_LEAPS)
        self._place(flow(y)[0])

    def _place(self, z):
        self.z, self.at = z, self.latent.target(z)

    def start(self):
        """Adapt the step sizes, after every second chain was moved to a wide draw.

        The wide draws make some steps without the flow. Chains of both kinds agree only if the flow
        has missed nothing near.
        """
        if len(self.z) > 1:
            self._scatter()
        self.run(WARM_UP_STEPS, adapts=True)

    def _scatter(self):
        y = wide_states(self.whitened, self.z[1::2].shape)[-1]
        z, _ = self.flow(y)
        is_usable = self.latent.target(z)[0].isfinite() & z.isfinite().all(1)
        wide = torch.where(is_usable.unsqueeze(-1), z, self.z[1::2])
        every_second = torch.arange(1, len(self.z), 2)
        self._place(self.z.index_copy(0, every_second, wide))

    def run(self, n_steps, adapts=False):
        """Make steps.

        Parameters
        ----------
        n_steps : int
            Steps of each chain.
        adapts : bool, default=False
            Whether step sizes adapt to the share of accepted trajectories.

        Returns
        -------
        states : Tensor of shape (n_steps, n_chains, d)
            The whitened states.
        acceptance : float
            Share of the independent draws that were accepted.
        """
        states, accepted = [], []
        for number in range(n_steps):
            accepted.append(self._propose())
            if number % 2:
                y, _ = self.flow.inverse(self.z)
                y, *_ = self.whitened.move(y, self.whitened.target(y), adapts)
                self._place(self.flow(y)[0])
            else:
                self.z, *self.at = self.latent.move(self.z, self.at, adapts)
            states.append(self.z)
            self.n_done += 1
            if self.lines is not None:
                self.lines.print(self.n_done, None, "steps of the chains")
        y, _ = self.flow.inverse(torch.cat(states))
        return y.unflatten(0, (n_steps, -1)), float(np.mean(accepted))

    def _propose(self):
        """Replace rows by independent draws; return the share that was accepted."""
        new = torch.randn(self.z.shape, generator=self.generator, dtype=self.z.dtype)
        at = self.latent.target(new)
        ratio = at[0] - standard_normal_log_prob(new)
        ratio = ratio - (self.at[0] - standard_normal_log_prob(self.z))
        is_accepted = uniform(self.z, self.generator).log() < ratio  # False if it is NaN
        self.z, *self.at = chosen(is_accepted, (new, *at), (self.z, *self.at))
        return is_accepted.double().mean().item()


def wide_states(trajectories, shape):
    """Return states of Hamiltonian chains that start at wide draws, (n_steps, n_chains, d).

    Parameters
    ----------
    trajectories : Hamiltonian
        It adapts on the way.
    shape : tuple of int
        Numbers of chains and of columns.
    """
    y = WIDE * torch.randn(shape, generator=trajectories.generator, dtype=torch.float64)
    at = trajectories.target(y)
    states = []
    for _ in range(WARM_UP_STEPS):
        y, *at = trajectories.move(y, at, adapts=True)
        states.append(y)
    return torch.stack(states)


def adapted_chains(target, flow, y, generator, lines=None):
    """Return chains whose step sizes are adapted, whose flow lets them agree, and their first run.

    As long as they disagree, up to three further flows learn their states by likelihood. The second
    one is trained on the target afterwards, which reaches what no chain has reached, but may lose a
    mode. There is nothing to learn if they do not move.

    Parameters
    ----------
    target, flow, y, generator, lines : objects
        See `Chains`.

    Returns
    -------
    chains : Chains
    run : tuple or None
        What `Chains.run` returned when they agreed; None if they never did.
    """
    chains = Chains(target, flow, y, generator, lines)
    for trained_on in (None, target, None):
        chains.start()
        states, acceptance = chains.run(LEARNED_STEPS)
        r_hat, _ = diagnostics(states.numpy())
        if not r_hat.max() > MAX_R_HAT:  # NaN if they do not move
            return chains, (states, acceptance)
        chains.use(learned_flow(states.flatten(0, 1), generator, trained_on), states[-1])
    chains.start()
    return chains, None


def chosen(is_first, first, second):
    """Return the tensors of ``first`` in rows where ``is_first``, and of ``second`` elsewhere."""
    return [
        torch.where(is_first.view(-1, *[1] * (a.dim() - 1)), a, b)
        for a, b in zip(first, second, strict=True)
    ]


def uniform(rows, generator):
    """Return a uniform draw between 0 and 1 for each row."""
    return torch.rand(len(rows), generator=generator, dtype=rows.dtype)


def diagnostics(chains):
    """Return the rank-normalised split R-hat and the effective sample size of each column.

    Both are NaN for a column that does not move.

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
    moves = np.ptp(split, axis=(0, 1)) > ROUNDING * np.abs(split).max(axis=(0, 1))
    split = np.where(moves, split, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):  # of columns that do not move
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
