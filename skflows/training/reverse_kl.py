"""Objectives of flows that approximate a density known up to a constant."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..bijections._flow import standard_normal_log_prob
from .losses import Likelihood


def evidence_bound(log_weight):
    """Return the lower bound of the evidence by the draws of finite log-weight.

    They are draws of a density that is 0 elsewhere, and higher by the inverse of their share here.
    """
    is_finite = log_weight.isfinite()
    share = is_finite.double().mean()
    mean = torch.where(is_finite, log_weight, 0.0).mean() / share
    return (mean + share.log()).nan_to_num(-torch.inf, neginf=-torch.inf)


@dataclass(frozen=True)
class ReverseKL(Likelihood):
    """The divergence ``E[log q(y) - log p(y)]`` over draws y of a flow, up to a constant.

    The rows of the training are latent draws, which the bijection maps to y by ``forward``. Draws
    where the target or its gradient is not finite are left out of a step.

    The loss is in nats; "log_weight_variance" is the variance of ``log p(y) - log q(y)``, which is
    0 for a perfect flow.

    Parameters
    ----------
    target : callable
        ``target(y)`` returns log p for each row, up to a constant, and its gradient, in float64.
    by_path : bool, default=True
        Whether gradients follow the draws only, which leaves out the score of q in the parameters:
        its mean is 0, and without it the gradient has no variance where q equals p.

    References
    ----------
    Roeder, Wu & Duvenaud, "Sticking the Landing", 2017; Vaitl, Nicoli, Nakajima & Kessel,
    "Gradients Should Stay on Path", 2022.
    """

    target: Callable
    by_path: bool = True

    def latent(self, bijection, y):
        """Return draws with log-determinants that make the score of each the bound of all."""
        moved, log_det = bijection(y)
        value, _ = self.target(moved)
        log_normal = standard_normal_log_prob(y)
        return y, (evidence_bound(value + log_det - log_normal) - log_normal).to(y.dtype)

    def gradients(self, bijection, y, weight, n):
        with torch.inference_mode():
            (moved, log_det), score, pullback = self._forward(bijection, y)
            value, slope = self.target(moved)
            log_weight = value + log_det - standard_normal_log_prob(y)
            is_finite = log_weight.isfinite() & slope.isfinite().all(-1)
            share = torch.where(is_finite, weight, 0.0) / n
            slope = torch.where(is_finite.unsqueeze(-1), slope, 0.0).to(y.dtype)
            _, gradients = pullback(*self._cotangents(share, log_weight, score, slope), to_x=False)
            # The means over the draws that are left, times the number of all; NaN if none is left.
            mean = (share * log_weight.nan_to_num(0.0, 0.0, 0.0)).sum() / share.sum()
            squares = (log_weight - mean).nan_to_num(0.0, 0.0, 0.0).square()
            variance = (share * squares).sum() / share.sum()
            return {"loss": -mean * n, "log_weight_variance": variance * n}, gradients

    def _forward(self, bijection, y):
        """Return the mapped draws, the score of the flow there, and the pullback."""
        if self.by_path:
            return bijection.vjp_with_score(y, -y)
        mapped, pullback = bijection.vjp(y)
        return mapped, torch.zeros_like(y), pullback

    def _cotangents(self, share, log_weight, score, slope):
        """Return the gradients of the objective in the mapped draws and in log-determinants.

        ``share`` is 0 where a draw is left out.
        """
        through_log_det = torch.zeros_like(share) if self.by_path else -share
        return share.unsqueeze(-1) * (score - slope), through_log_det


class ForwardKL(ReverseKL):
    """The divergence ``E[log p(y) - log q(y)]`` over the target, by weighted draws y of a flow.

    Weights are normalised within a mini-batch. The flow covers all of the target, where `ReverseKL`
    may leave out a part, but it needs draws there to begin with. It records what `ReverseKL` does.

    References
    ----------
    Bornschein & Bengio, "Reweighted Wake-Sleep", 2015.
    """

    def _cotangents(self, share, log_weight, score, slope):
        weight = torch.where(share > 0, log_weight, -torch.inf).softmax(-1)
        weight = (weight * share.sum()).nan_to_num(0.0).to(score.dtype)
        # The gradient of -log q in the parameters where y is fixed.
        return weight.unsqueeze(-1) * score, weight
