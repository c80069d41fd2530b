"""Training losses and validation scores."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..bijections._flow import standard_normal_log_prob

EVALUATION_ROWS = 4096


def weighted_nll(z, log_det, weight):
    """Return the sum over rows of weight times negative log-density, for each member."""
    return -(weight * (standard_normal_log_prob(z) + log_det)).sum(-1)


@dataclass(frozen=True)
class Likelihood:
    """The negative log-likelihood, which most flows are trained for."""

    in_nats: ClassVar[tuple[str, ...]] = ("loss",)  # losses that shift with the units of the rows
    validated_every: ClassVar[int] = 1  # epochs

    def latent(self, bijection, y):
        """Return the latent rows and log-determinants by which epochs are compared."""
        return bijection(y)

    def losses(self, bijection, y, weight):
        """Return sums over rows of weight times each loss, for each member.

        The one called "loss" is minimised.
        """
        z, log_det = self.latent(bijection, y)
        return {"loss": weighted_nll(z, log_det, weight)}

    def gradients(self, bijection, y, weight, n):
        """Return the losses, and the gradients of "loss" over n in the parameters.

        The tensors may be of inference mode: read them, but do not change them in place.
        """
        # Faster than no_grad: torch keeps no record of views and versions.
        with torch.inference_mode():
            (z, log_det), pullback = bijection.vjp(y)
            share = weight / n.unsqueeze(-1)
            # The gradients of the negative log-density are z, and -1 in the log-determinant.
            _, gradients = pullback(share.unsqueeze(-1) * z, -share, to_x=False)
            return {"loss": weighted_nll(z, log_det, weight)}, gradients


LIKELIHOOD = Likelihood()


class LikelihoodByAutograd(Likelihood):
    """A likelihood whose gradients autograd computes, whatever the losses."""

    def gradients(self, bijection, y, weight, n):
        losses = self.losses(bijection, y, weight)
        total = (losses["loss"] / n).sum()
        gradients = torch.autograd.grad(total, list(bijection.parameters()), materialize_grads=True)
        return {name: loss.detach() for name, loss in losses.items()}, gradients


@torch.no_grad()
def mean_log_prob(latent, y, weight):
    """Return the weighted mean log-density of preprocessed rows: a float, or a list of one per
    member.

    Parameters
    ----------
    latent : callable
        ``latent(y)`` returns latent rows and log-determinants, as a bijection does.
    y : Tensor of shape (n, d) or (M, n, d)
        The rows.
    weight : Tensor of shape (n,) or (M, n)
        Weight of each row.
    """
    total = 0.0
    chunks = zip(y.split(EVALUATION_ROWS, -2), weight.split(EVALUATION_ROWS, -1), strict=True)
    for rows, weight_of_rows in chunks:
        z, log_det = latent(rows)
        total = total + weighted_nll(z, log_det, weight_of_rows).cpu().double()
    return (-total / weight.sum(-1).cpu()).tolist()
