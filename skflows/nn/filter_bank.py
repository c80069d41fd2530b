"""A fixed bank of filters: local features of images at several scales."""

import math

import torch
from torch import nn
from torch.nn import functional as F

FIRST, SECOND = 3, 4  # orientations of each order; a fourth energy of first order is redundant
RADIUS = 3  # of the filters, whose Gaussian has a standard deviation of 1
N_SCALES = 3  # each at half the resolution of the one before
MIN_SIZE = 8  # height and width of an image that has a coarser scale
STRIDE = 4  # pixels between neighbouring places
FLOOR = 0.02  # added to energies, in standard deviations of the pixels


def gaussian_derivatives():
    """Return filters ``(8, 1, 7, 7)``: a Gaussian, and its first and second derivatives along
    evenly spaced orientations."""
    t = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    blur = torch.exp(-t.square() / 2)
    blur /= blur.sum()
    slope = -t * blur
    curve = (t.square() - 1) * blur
    curve -= curve.mean()
    x, y = torch.outer(blur, slope), torch.outer(slope, blur)
    xx, xy, yy = torch.outer(blur, curve), torch.outer(slope, slope), torch.outer(curve, blur)
    first = [c * x + s * y for c, s in directions(FIRST)]
    second = [c * c * xx + 2 * c * s * xy + s * s * yy for c, s in directions(SECOND)]
    return torch.stack([torch.outer(blur, blur), *first, *second])[:, None]


def directions(n):
    """Return n unit vectors, evenly spaced over half a turn."""
    angles = [math.pi * i / n for i in range(n)]
    return [(math.cos(a), math.sin(a)) for a in angles]


class FilterBank(nn.Module):
    """Local means, and logarithms of local energies of Gaussian derivatives.

    Parameters
    ----------
    loc, scale : ndarray of shape (n_channels,)
        Mean and standard deviation by which the pixels of each channel are standardised.

    References
    ----------
    Freeman & Adelson, "The Design and Use of Steerable Filters", 1991.
    """

    filters: torch.Tensor

    def __init__(self, loc, scale):
        super().__init__()
        scale = torch.as_tensor(scale)
        self.register_buffer("loc", torch.as_tensor(loc)[:, None, None])
        self.register_buffer("scale", torch.where(scale > 0, scale, 1.0)[:, None, None])
        self.register_buffer("filters", gaussian_derivatives())

    def forward(self, images):
        """Return the features ``(n, k, rows, columns)`` of images ``(n, channels, height,
        width)``, one place every 4 pixels, wherever a window of 8 x 8 pixels fits."""
        images = (images - self.loc) / self.scale
        n, n_channels = images.shape[:2]
        features: list[torch.Tensor] = []
        for scale in range(N_SCALES):
            if scale:
                if min(images.shape[2:]) < MIN_SIZE:
                    break
                images = F.avg_pool2d(images, 2)
            padded = F.pad(images, (RADIUS,) * 4, mode="replicate")
            responses = F.conv2d(padded.flatten(0, 1)[:, None], self.filters)
            energies = torch.cat([responses[:, :1], responses[:, 1:].square()], 1)
            stride = STRIDE >> scale  # windows of all scales cover the same pixels
            sides = [min(2 * stride, side) for side in images.shape[2:]]
            local = F.avg_pool2d(energies, sides, stride)
            local = torch.cat([local[:, :1], (local[:, 1:] + FLOOR**2).log() / 2], 1)
            features.append(local.unflatten(0, (n, n_channels)).flatten(1, 2))
        return torch.cat(features, 1)
