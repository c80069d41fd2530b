"""A bijection of rows whose values wrap around, such as angles."""

from itertools import product

import torch

from ._base import Bijection
from ._normal import normal_log_density

FARTHEST = 2  # periods between a row and its images; in training, one less saves time


class Wrapped(Bijection):
    """Rows with columns that wrap around, under a bijection of the line.

    The density of a row is the sum of the densities of its images, which are whole periods apart,
    so that it is the same at both ends of a period. The latent coordinates belong to the row
    itself, and the log-determinant is chosen such that the density under a standard normal equals
    this sum. The inverse is the bijection's inverse, and may return any of the images.

    Parameters
    ----------
    bijection : Bijection
        The map of the line.
    periods : Tensor of shape (d,)
        The period of each column of the rows, 0 for a column that does not wrap around.

    References
    ----------
    Mardia & Jupp, "Directional Statistics", 1999, section 3.5 (wrapped distributions).
    """

    shifts: torch.Tensor

    def __init__(self, bijection, periods):
        super().__init__()
        self.bijection = bijection
        columns = [range(-FARTHEST, FARTHEST + 1) if period else [0] for period in periods.tolist()]
        turns = sorted(product(*columns), key=lambda own: max(map(abs, own)))
        self.n_near = sum(max(map(abs, turn)) < FARTHEST for turn in turns)
        self.register_buffer("shifts", torch.tensor(turns).to(periods) * periods)

    @property
    def n_images(self):
        """Number of images of each row, itself included."""
        return self.n_near if self.training else self.shifts.shape[-2]

    def _images(self, x):
        shifts = self.shifts[..., : self.n_images, :]
        return (x.unsqueeze(-2) + shifts.unsqueeze(-3)).flatten(-3, -2)

    def _summed(self, z, log_det):
        """Return the latent rows and log-determinants, and the share of each image in a row."""
        density = (normal_log_density(z).sum(-1) + log_det).unflatten(-1, (-1, self.n_images))
        total = density.logsumexp(-1)
        z = z.unflatten(-2, (-1, self.n_images))[..., 0, :]
        log_det = total - normal_log_density(z).sum(-1)
        return z, log_det, (density - total.unsqueeze(-1)).exp()

    def forward(self, x, context=None):
        z, log_det, _ = self._summed(*self.bijection(self._images(x)))
        return z, log_det

    def inverse(self, z, context=None):
        return self.bijection.inverse(z)

    def vjp(self, x, context=None):
        (z, log_det), through = self.bijection.vjp(self._images(x))
        latent, total, share = self._summed(z, log_det)

        def pullback(g, g_log_det, to_x=True):
            of_images = (g_log_det.unsqueeze(-1) * share).flatten(-2)
            g_z = (-of_images.unsqueeze(-1) * z).unflatten(-2, (-1, self.n_images))
            g_z[..., 0, :] += g + g_log_det.unsqueeze(-1) * latent
            g_x, gradients = through(g_z.flatten(-3, -2), of_images, to_x=to_x)
            if to_x:
                g_x = g_x.unflatten(-2, (-1, self.n_images)).sum(-2)
            return g_x, gradients

        return (latent, total), pullback

    def is_sequential(self, inverse=False):
        return self.bijection.is_sequential(inverse)
