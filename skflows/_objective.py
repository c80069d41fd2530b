"""What training minimises, the likelihood by default, and how rows that are held out are scored."""

from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch

from ._flow import standard_normal_log_prob

EVALUATION_ROWS = 4096


def weighted_nll(bijection, y, weight):
    """Sum over rows of weight times negative log-density, for each member."""
    z, log_det = bijection(y)
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
        return {"loss": weighted_nll(partial(self.latent, bijection), y, weight)}


LIKELIHOOD = Likelihood()


@cache
def compiled_losses(objective):
    """Losses of an objective as machine code for the shapes they meet."""
    losses = torch.compile(objective.losses, dynamic=False)

    def compiled(bijection, y, weight):
        try:
            # Each loop over columns would else transpose the rows anew.
            return losses(bijection, y.mT.contiguous().mT, weight)
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
    total = sum(weighted_nll(bijection, rows, w).cpu().double() for rows, w in chunks)
    return (-total / weight.sum(-1).cpu()).tolist()
