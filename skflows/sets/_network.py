"""A variational autoencoder of clouds: an encoder, a prior of codes, and a flow of points."""

import numpy as np
import torch
from torch import nn

from ..bijections._conditional import Conditional, FirstColumns
from ..bijections._flow import Flow, standard_normal_log_prob
from ..density._evaluation import map_rows
from ..nn.mlp import means_and_log_scales, mlp
from ..nn.random_draws import normal_draws, uniform_draws
from ..training.losses import LikelihoodByAutograd

SCALE_BOUND = 5.0  # of the log-scales of codes
SHARE_IN_FLOW = 4  # one in so many of the drawn points trains the flow; the encoder sees all
# Of squared errors of velocities beside nats: about the mean of (1 - t) / t over times from 0.01.
MATCHING_WEIGHT = 4.0
SEEN_AT_ONCE = 2**14  # points, in scores of held-out clouds


class Encoder(nn.Module):
    """A normal distribution of the code of each cloud, whatever the order of its points.

    See Zaheer et al., "Deep Sets", 2017.
    """

    def __init__(self, n_features, code_size, width):
        super().__init__()
        self.code_size = code_size
        self.of_point = mlp(n_features, width, width, width)
        self.of_cloud = mlp(2 * width, width, 2 * code_size)

    def forward(self, points):
        """Return the means and log-scales of codes from points ``(n, n_points, n_features)``."""
        h = self.of_point(points)
        outputs = self.of_cloud(torch.cat([h.mean(1), h.amax(1)], -1))
        return means_and_log_scales(outputs, SCALE_BOUND)


class CloudNetwork(nn.Module):
    """All that is trained: an encoder, a prior of codes, and a flow of points with their codes.

    The prior maps codes to a standard normal, the bijection preprocessed points given their code.
    """

    def __init__(self, encoder, prior, preprocess, bijection, n_features):
        super().__init__()
        self.encoder, self.prior = encoder, prior
        preprocess = FirstColumns(preprocess, n_features)
        self.points = Flow(preprocess, Conditional(bijection, n_features))

    def is_sequential(self, inverse=False):
        """Whether a direction takes many small operations (see `Bijection.is_sequential`)."""
        return self.points.is_sequential(inverse)

    def draw_codes(self, points, noise):
        """Return codes and their divergences, log q(code | cloud) - log p(code).

        Points ``(n, n_points, n_features)`` are preprocessed; noise is ``(n, code_size)``.
        """
        mean, log_scale = self.encoder(points)
        code = mean + log_scale.exp() * noise
        latent, log_det = self.prior(code)
        log_q = standard_normal_log_prob(noise) - log_scale.sum(-1)
        return code, log_q - standard_normal_log_prob(latent) - log_det

    @torch.inference_mode()
    def codes(self, cloud, noise):
        """Return what `draw_codes` does, from arrays: a cloud, and several draws of noise."""
        points, noise = torch.from_numpy(cloud), torch.from_numpy(noise)
        points, _ = self.points.preprocess.bijection(points)
        return [tensor.numpy() for tensor in self.draw_codes(points[None], noise)]

    def log_weights(self, cloud, noise):
        """Return log-weights of codes, whose exponentials sum to the bound of a cloud."""
        codes, divergence = self.codes(cloud, noise)
        n = len(codes)
        rows = np.column_stack([np.tile(cloud, (n, 1)), np.repeat(codes, len(cloud), axis=0)])
        log_prob = map_rows(self.points, "log_prob", rows)[0]
        return log_prob.reshape(n, -1).sum(axis=1) - divergence - np.log(n)

    def encoded(self, clouds):
        """Return where the prior maps the mean code of each cloud."""
        no_noise = np.zeros((1, self.encoder.code_size))
        means = np.vstack([self.codes(cloud, no_noise)[0] for cloud in clouds])
        return map_rows(self.prior, "forward", means)[0]

    def decoded(self, latent, counts, noise):
        """Return as many points as ``counts`` says for each latent code, from noise for all."""
        codes = map_rows(self.prior, "inverse", latent)[0]
        rows = np.column_stack([noise, np.repeat(codes, counts, axis=0)])
        points = map_rows(self.points, "inverse", rows)[0]
        return np.split(points, np.cumsum(counts)[:-1])


class CloudBound(LikelihoodByAutograd):
    """The variational bound; a row is the number of a cloud.

    Points are preprocessed, with log-determinants, and all in one array: ``counts`` of each cloud.
    A step draws ``n_points`` of a cloud, with replacement. The objective trains the flow of points.
    Flow matching replaces their likelihood by the squared error of the velocities, summed over the
    coordinates, times `MATCHING_WEIGHT`.
    """

    def __init__(self, objective, points, log_det, counts, code_size, n_points):
        self.objective, self.points, self.n_points = objective, points.float(), n_points
        self.validated_every = objective.validated_every  # type: ignore[misc]
        self.count = torch.from_numpy(counts)
        self.start = self.count.cumsum(0) - self.count
        self.log_det = torch.stack([part.sum() for part in log_det.split(counts.tolist())])
        generator = torch.Generator().manual_seed(0)
        self.noise = torch.randn(len(counts), code_size, generator=generator)
        self.factor = 1.0 if objective.in_nats else MATCHING_WEIGHT * points.shape[1]

    def _rows(self, network, cloud, places, noise):
        """Return rows of the flow of points, and the divergences of the codes in them.

        Places ``(n, n_points)`` between 0 and 1 choose the points of each cloud.
        """
        count = self.count[cloud, None]
        place = (places * count).long().clamp(max=count - 1)
        points = self.points[self.start[cloud, None] + place]
        code, divergence = network.draw_codes(points, noise)
        points = points[:, ::SHARE_IN_FLOW]
        codes = code[:, None].expand(-1, points.shape[1], -1)
        return torch.cat([points, codes], -1).flatten(0, 1), divergence

    def latent(self, network, y):
        """Return the bound by the same places and the same noise in every call."""
        places = (torch.arange(self.n_points) + 0.5) / self.n_points
        bounds = []
        for cloud in y[:, 0].long().split(max(1, SEEN_AT_ONCE // self.n_points)):
            rows, divergence = self._rows(network, cloud, places, self.noise[cloud])
            z, log_det = self.objective.latent(network.points.bijection, rows)
            log_prob = (standard_normal_log_prob(z) + log_det).unflatten(0, (len(cloud), -1))
            bounds.append(self.count[cloud] * log_prob.mean(1) - divergence)
        return y[:, :0], torch.cat(bounds) + self.log_det[y[:, 0].long()]

    def losses(self, network, y, weight):
        cloud = y[:, 0].long()
        places = uniform_draws(self.noise.new_empty(len(cloud), self.n_points))
        noise = normal_draws(self.noise[cloud])
        rows, divergence = self._rows(network, cloud, places, noise)
        n_each = len(rows) // len(cloud)
        weight = weight.to(rows)
        share = weight * self.count[cloud] * (self.factor / n_each)
        flow = network.points.bijection
        of_points = self.objective.losses(flow, rows, share.repeat_interleave(n_each))["loss"]
        divergence = (weight * divergence).sum()
        of_preprocessing = (weight * self.log_det[cloud]).sum()
        return {"loss": of_points + divergence - of_preprocessing, "divergence": divergence}
