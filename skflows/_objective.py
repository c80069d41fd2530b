"""What training minimises, the likelihood by default, and how rows that are held out are scored."""

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch

from . import _fused
from ._flow import standard_normal_log_prob
from ._products import products_of_many

EVALUATION_ROWS = 4096


def weighted_nll(mapped, weight):
    """Sum over rows, mapped by a bijection, of weight times negative log-density, by member."""
    z, log_det = mapped
    return -(weight * (standard_normal_log_prob(z) + log_det)).sum(-1)


@dataclass(frozen=True)
class Likelihood:
    """What a bijection is trained for, unless its architecture has an objective of its own."""

    in_nats: ClassVar[tuple[str, ...]] = ("loss",)  # losses that move with the units of the rows
    scored_every: ClassVar[int] = 1  # epochs, on held-out rows

    def latent(self, bijection, y):
        """The map of preprocessed rows by whose density epochs are compared."""
        return bijection(y)

    def losses(self, bijection, y, weight):
        """Sums over rows of weight times each loss, for each member; "loss" is minimised."""
        return {"loss": weighted_nll(self.latent(bijection, y), weight)}

    def gradients(self, bijection, y, weight, n, products):
        """The losses, and the gradients of "loss" over n in the parameters of the bijection.

        Products of matrices are in a context if autograd has them in its hands, or a compiler.
        The tensors returned may be of inference mode: to be read, not to be changed in place.
        """
        # Quicker than no_grad: torch keeps no record of views and versions.
        with products_of_many(y), torch.inference_mode(), _fused.unwatched(y):
            return gradients_by_vjp(bijection, y, weight, n)

    def gains_by_compiler(self, bijection):
        """Whether `compiled_gradients` may take less time than `gradients`."""
        like = next(bijection.parameters(), None)
        maps = [part.univariate for part in bijection.modules() if hasattr(part, "univariate")]
        return like is None or not any(each.is_one_pass(like) for each in maps)

    def compiled_gradients(self, bijection):
        """A function that does what `gradients` does, as machine code for the shapes it meets."""
        if any(getattr(module, "vjp_by_autograd", False) for module in bijection.modules()):
            return partial(gradients_by_autograd, compiled_losses(self))

        def gradients(bijection, y, weight, n, products):
            with products, torch.no_grad():  # machine code keeps no records anyway
                return compiled_vjp()(bijection, y, weight, n)

        return gradients


LIKELIHOOD = Likelihood()


def gradients_by_vjp(bijection, y, weight, n):
    """What `Likelihood.gradients` returns, under `torch.no_grad` or in inference mode."""
    (z, log_det), pullback = bijection.vjp(y)
    loss, g, g_log_det = weighted_nll_vjp(z, log_det, weight, n)
    _, gradients = pullback(g, g_log_det, to_x=False)
    return {"loss": loss}, gradients


def weighted_nll_vjp(z, log_det, weight, n):
    """`weighted_nll`, and the gradients of that over n in z and in the log-determinants."""
    columns = z.mT
    are_rows = z.shape[:-1] == log_det.shape == weight.shape and n.shape == weight.shape[:-1]
    are_counts = n.dtype == torch.int64 and n.is_cpu
    if are_rows and are_counts and columns.is_contiguous() and _fused.serves(z, log_det, weight):
        return _weighted_nll_fused(columns, log_det, weight, n)
    share = weight / n.unsqueeze(-1)
    # Those of the negative log-density are z, and -1.
    return weighted_nll((z, log_det), weight), share.unsqueeze(-1) * z, -share


def _weighted_nll_fused(columns, log_det, weight, n):
    loss = log_det.new_empty(log_det.shape[:-1])
    grad_z, grad_log_det = torch.empty_like(columns), log_det.new_empty(log_det.shape)
    given = columns, *(tensor.contiguous() for tensor in (log_det, weight, n))
    settings, sizes = (math.log(2 * math.pi),), (n.numel(), *columns.shape[-2:])
    _fused.run("likelihood", settings, sizes, *given, loss, grad_z, grad_log_det)
    return loss, grad_z.mT, grad_log_det


def gradients_by_autograd(losses_of, bijection, y, weight, n, products):
    """What `Likelihood.gradients` returns, of any function of losses."""
    with products:
        losses = losses_of(bijection, y, weight)
        total = (losses["loss"] / n).sum()
        parameters = list(bijection.parameters())
        gradients = torch.autograd.grad(total, parameters, materialize_grads=True)
    return {name: loss.detach() for name, loss in losses.items()}, gradients


@cache
def compiled_losses(objective):
    """Losses of an objective as machine code for the shapes they meet."""
    return _compiled(objective.losses)


@cache
def compiled_vjp():
    """`gradients_by_vjp` as machine code for the shapes it meets."""
    return _compiled(gradients_by_vjp)


def _compiled(function):
    # Else torch 2.13 reuses the memory of a stack while a part of it is still to be read, and
    # gradients are wrong.
    safe = {"inplace_buffers": False}
    machine_code = torch.compile(function, dynamic=False, options=safe)

    def compiled(bijection, y, *others):
        try:
            # Each loop over columns would else transpose the rows anew.
            return machine_code(bijection, y.mT.contiguous().mT, *others)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = str(error).split("\n\n")[0].replace("\n", " ")
            raise RuntimeError(
                f"compile=True: torch could not compile the step ({reason}). It needs a C++ "
                "compiler: install g++ or clang++, or name one in the environment variable CXX. "
                "compile=False needs none."
            ) from error

    return compiled


@torch.no_grad()
def mean_log_prob(bijection, y, weight):
    """Weighted mean log-density of preprocessed rows: a float, or a list of one per member."""
    chunks = zip(y.split(EVALUATION_ROWS, -2), weight.split(EVALUATION_ROWS, -1), strict=True)
    total = sum(weighted_nll(bijection(rows), w).cpu().double() for rows, w in chunks)
    return (-total / weight.sum(-1).cpu()).tolist()
