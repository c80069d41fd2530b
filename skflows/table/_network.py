"""An order-agnostic autoregressive network: any conditional distribution of a table's variables.

References
----------
Uria, Murray & Larochelle, "A Deep and Tractable Density Estimator", 2014.
"""

import copy
import math
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..bijections._normal import normal_log_density
from ..distribution.normal import log_normal_mass
from ..nn.activations import squash, squash_vjp
from ..nn.residual_mlp import FARTHEST_SEEN, ResidualMLP
from ..training.torch_state import one_thread
from ._classes import log_sum_exp
from ._view import ALL, Normals, Predictive

LOG_SCALE_BOUND = 5.0
ROWS_AT_ONCE = 4096
ROWS_OF_ORDERS = 1024  # scored at once
VALIDATED_EVERY = 3  # epochs
TRUST = 1.0  # logit of the share of the Gaussian's conditionals at the start
SCALE, SCALE_OF_SEASONS = 0.6, 0.2  # of the normals of a mixture at the start
LEAST_VARIANCE = 1e-6
LEAST_OF_GROUP, LEAST_SHARE = 10, 0.02  # rows that know the same variables
SHARE_OF_GROUPS = 0.5  # of the rows, from which on values are not missing at random
KNOWN_BY_ALL = 0.5  # chance that a part is of variables that all groups know
LEAST = 0.5  # rows that a level counts for at the start, at least


class Layout:
    """Where the inputs and outputs of each variable are.

    Parameters
    ----------
    variables : list
        The variables.
    n_components : int
        Normals of the mixture for each number.
    has_normal : bool
        Whether a Gaussian's conditionals are the units of the mixtures.
    """

    def __init__(self, variables, n_components, has_normal):
        self.n_variables = len(variables)
        self.n_components = n_components
        self.has_normal = has_normal
        self.feature_of = np.repeat(
            np.arange(len(variables)), [variable.n_features for variable in variables]
        )
        self.n_levels = [variable.n_levels for variable in variables]
        self.numbers = [j for j, variable in enumerate(variables) if variable.has_number]
        # Variables with equally many levels are neighbours, so that one operation serves all.
        self.leveled = sorted(
            (j for j, k in enumerate(self.n_levels) if k), key=self.n_levels.__getitem__
        )
        sizes = [self.n_levels[j] for j in self.leveled]
        self.groups = [(k, sizes.count(k)) for k in dict.fromkeys(sizes)]
        self.n_logits = sum(sizes)
        self.first = [0] * len(variables)  # of its logits
        for j, end in zip(self.leveled, np.cumsum(sizes).tolist(), strict=True):
            self.first[j] = end - self.n_levels[j]
        # The places of the logits in the order of the variables.
        starts = np.cumsum(self.n_levels) - self.n_levels
        self.logit_order = [
            int(starts[j]) + i for j in self.leveled for i in range(self.n_levels[j])
        ]
        self.size = 3 * n_components + has_normal  # of the outputs for a number
        self.n_outputs = self.n_logits + self.size * len(self.numbers)
        self.n_features = [variable.n_features for variable in variables]

    def inputs_of(self, j):
        """Return the inputs of a variable: its features, and whether it is given."""
        return [*np.flatnonzero(self.feature_of == j), len(self.feature_of) + j]

    def slice_of(self, j):
        """Return the outputs of a variable: its logits, then its mixture."""
        outputs = list(range(self.first[j], self.first[j] + self.n_levels[j]))
        if j in self.numbers:
            start = self.n_logits + self.numbers.index(j) * self.size
            outputs += range(start, start + self.size)
        return outputs


class OrderAgnosticNetwork(nn.Module):
    """A residual network from known variables to the distributions of all others.

    Parameters
    ----------
    variables : list
        The variables.
    code : ndarray of shape (n, n_parts)
        Levels in the training rows: the network starts at their frequencies.
    weight : ndarray of shape (n,)
        Weights of these rows.
    hidden_layer_sizes : tuple of int
        Width of each hidden layer.
    n_components : int
        Normals of the mixture for each number.
    dropout : float
        Probability that a hidden unit is dropped in training.
    gaussian : tuple of ndarray, optional
        Mean and covariance of the numbers. Mixtures then start as this Gaussian's conditional
        distributions, and the network says how far to trust them.
    forest : ChowLiuForest, optional
        Levels then start as its conditional distributions.
    """

    def __init__(
        self,
        variables,
        code,
        weight,
        hidden_layer_sizes,
        n_components,
        *,
        dropout=0.0,
        gaussian=None,
        forest=None,
    ):
        super().__init__()
        self.layout = layout = Layout(variables, n_components, gaussian is not None)
        n_inputs = len(layout.feature_of) + layout.n_variables
        self.mlp = ResidualMLP(
            n_inputs, layout.n_outputs, hidden_layer_sizes, activation="silu", dropout=dropout
        )
        self.forest = forest
        start = torch.zeros(layout.n_outputs)
        for j in layout.leveled if forest is None else ():
            has = code[:, j] >= 0
            counts = np.bincount(code[has, j], weight[has], layout.n_levels[j])
            logits = np.log(counts[: layout.n_levels[j]] + LEAST)
            start[layout.slice_of(j)[: len(logits)]] = torch.from_numpy(
                logits - logits.mean()
            ).float()
        centres = torch.linspace(-2, 2, n_components) if n_components > 1 else torch.zeros(1)
        starts = []
        for j in layout.numbers:  # the dates of a season are several, far apart
            scale = SCALE_OF_SEASONS if variables[j].season is not None else SCALE
            log_scale = math.log(scale) if n_components > 1 else 0.0
            mixture = [-0.7 * centres**2, centres, torch.full_like(centres, log_scale)]
            trust = [] if gaussian is None else [torch.tensor([TRUST])]
            starts.append(torch.cat([*mixture, *trust]))
        if gaussian is not None:
            mean, covariance = map(torch.from_numpy, gaussian)
            self.register_buffer("mean", mean.float())
            self.register_buffer("covariance", covariance.float())
        if starts:
            start[layout.n_logits :] = torch.cat(starts)
        with torch.no_grad():
            self.mlp.output.bias.copy_(start[:, None])
        self.register_buffer("feature_of", torch.from_numpy(layout.feature_of))

    def inputs(self, features, given):
        """Return the columns that the network sees, from features and a mask ``(n, n_parts)``."""
        given = given.to(features.dtype)
        return torch.cat([features * given[:, self.feature_of], given], 1).T

    def values_of(self, features):
        """Return what the forest and the Gaussian see of rows, from features before masking.

        Returns
        -------
        categories : Tensor of shape (n, n_variables) or None
            What `Categories` returns, None without a forest.
        scores : Tensor of shape (n, n_numbers)
            Normal scores of numbers, NaN for atoms.
        """
        layout, n, categories = self.layout, len(features), None
        if self.forest is not None:
            categories = torch.empty(n, layout.n_variables, dtype=torch.long)
        values = categories, features.new_empty(n, len(layout.numbers))
        for j, part in enumerate(features.split(layout.n_features, 1)):
            self.set_values(values, slice(None), j, part)
        return values

    def set_values(self, values, rows, j, features):
        """Set what `values_of` returned in some rows of a variable, from its own features."""
        (categories, scores), layout = values, self.layout
        if categories is not None:
            categories[rows, j] = self.forest.categories.of_variable(j, features)
        if j in layout.numbers:
            score, n_levels = features[:, 0], layout.n_levels[j]
            if n_levels:  # the first one is the number
                score = torch.where(features[:, -n_levels] == 0, torch.nan, score)
            scores[rows, layout.numbers.index(j)] = score

    def backbone(self, values, given):
        """Return what `normals_of` and `logits_of` do, from what `values_of` returned."""
        categories, scores = values
        return self.normals_of(scores, given), self.logits_of(categories, given)

    def unpacked(self, packed):
        """Return the columns of rows that `Packing.draw` returned.

        Returns
        -------
        inputs : Tensor of shape (n_inputs, n)
            Inputs of the network.
        offset : Tensor of shape (n,)
            Terms of the log-probability that the network has no part in.
        levels : tuple of Tensor of shape (n_leveled, n)
            Weights of the log-probabilities of levels, and the levels.
        numbers : tuple of Tensor of shape (n_numbers, n)
            Weights of the log-densities of scores, and the scores.
        backbone : tuple
            What `backbone` returned.
        """
        layout = self.layout
        k, d = len(layout.leveled), len(layout.numbers)
        n_inputs, n_normals = len(layout.feature_of) + layout.n_variables, layout.has_normal * d
        n_logits = 0 if self.forest is None else layout.n_logits
        sizes = [n_inputs, 1, k, k, d, d, n_normals, n_normals, n_logits]
        inputs, offset, *rest, mean, log_scale, logits = packed.T.split(sizes)
        normals = (mean, log_scale) if layout.has_normal else None
        backbone = normals, None if self.forest is None else logits
        return inputs, offset[0], rest[:2], rest[2:], backbone

    def logits_of(self, categories, given, only=None):
        """Return the logits ``(n_logits, n)`` of the forest's conditionals, or None.

        ``only`` is the variable of which to return them.
        """
        return None if self.forest is None else self.forest(categories, given, only)

    def normals_of(self, scores, given, numbers=None):
        """Return mean and log-scale ``(n_numbers, n)`` of the Gaussian's conditionals, or None.

        ``numbers`` selects some of the numbers.
        """
        if not hasattr(self, "mean"):
            return None
        layout, S = self.layout, self.covariance
        numbers = list(range(len(layout.numbers))) if numbers is None else numbers
        with torch.no_grad():
            has = given[:, layout.numbers] & ~scores.isnan()
            y = torch.where(has, scores - self.mean, 0.0)
            has = has.to(S.dtype)
            # Rows with the same known numbers share the slopes.
            bits = has.double() @ 2.0 ** torch.arange(has.shape[1], dtype=torch.float64)
            unique, pattern = bits.unique(return_inverse=True)
            some = torch.empty(len(unique), dtype=torch.long)
            some[pattern] = torch.arange(len(has))
            has = has[some]
            # Rows and columns of unknown numbers are as in the identity.
            known = has[:, :, None] * S * has[:, None] + torch.diag_embed(1 - has)
            factor, cross = torch.linalg.cholesky(known), has[:, :, None] * S[:, numbers]
            unit = torch.linalg.solve_triangular(factor, cross, upper=False)
            slopes = torch.linalg.solve_triangular(factor.mT, unit, upper=True)
            variance = S.diagonal()[numbers] - unit.square().sum(1)
            log_scale = 0.5 * variance.clamp(min=LEAST_VARIANCE).log()
            mean = self.mean[numbers] + (y[:, None] @ slopes[pattern])[:, 0]
            return mean.T, log_scale[pattern].T

    def mixtures(self, outputs, normals=None):
        """Return log-weights, means and log-scales ``(n_numbers, n_components, n)``.

        Parameters
        ----------
        outputs : Tensor of shape (n_numbers * size, n)
            Of the network, for numbers.
        normals : tuple of Tensor of shape (n_numbers, n), optional
            What `normals_of` returned.
        """
        return self.mixtures_vjp(outputs, normals)[0]

    def mixtures_vjp(self, outputs, normals=None):
        """Return what `mixtures` does, and its pullback (see `skflows.nn.vjp`)."""
        layout = self.layout
        outputs = outputs.view(-1, layout.size, outputs.shape[-1])
        mixture = outputs[:, : 3 * layout.n_components]
        logits, means, raw = mixture.unflatten(1, (3, -1)).unbind(1)
        log_weights = F.log_softmax(logits, 1)
        log_scales, through_squash = squash_vjp(raw, LOG_SCALE_BOUND)
        if normals is not None:
            trust = torch.sigmoid(outputs[:, -1])
            mean, log_scale = (trust * each for each in normals)
            scale = log_scale.exp()[:, None]
            scaled = scale * means
            means, log_scales = mean[:, None] + scaled, log_scales + log_scale[:, None]

        def pullback(in_log_weights, in_means, in_log_scales):
            gradient = torch.empty_like(outputs)
            in_logits, in_units, in_raw = (
                gradient[:, : 3 * layout.n_components].unflatten(1, (3, -1)).unbind(1)
            )
            total = in_log_weights.sum(1, keepdim=True)
            torch.addcmul(in_log_weights, log_weights.exp(), total, value=-1, out=in_logits)
            in_raw.copy_(through_squash(in_log_scales))
            if normals is None:
                in_units.copy_(in_means)
            else:
                torch.mul(in_means, scale, out=in_units)
                in_log_scale = (in_means * scaled + in_log_scales).sum(1)
                in_trust = in_means.sum(1) * normals[0] + in_log_scale * normals[1]
                torch.mul(in_trust, trust * (1 - trust), out=gradient[:, -1])
            return gradient.flatten(0, 1)

        return (log_weights, means, log_scales), pullback

    def log_prob_vjp(self, outputs, levels, numbers, backbone):
        """Return the weighted log-probability of each row, and its pullback.

        Parameters
        ----------
        outputs : Tensor of shape (n_outputs, n)
            Of the network.
        levels, numbers, backbone : tuple
            What `unpacked` returned.
        """
        n_logits = self.layout.n_logits
        normals, logits = backbone
        (weight, code), (weight_of_number, y) = levels, numbers
        logits = outputs[:n_logits] if logits is None else outputs[:n_logits] + logits
        n_variables = [m for _, m in self.layout.groups]
        blocks = logits.split([k * m for k, m in self.layout.groups])
        blocks = [
            block.unflatten(0, (m, -1)).log_softmax(1)
            for block, m in zip(blocks, n_variables, strict=True)
        ]
        codes = code.long()[:, None].split(n_variables)
        total = outputs.new_zeros(outputs.shape[1])
        for block, of_block, w in zip(blocks, codes, weight.split(n_variables), strict=True):
            total += (w * block.gather(1, of_block)[:, 0]).sum(0)
        (log_weights, means, log_scales), through_mixtures = self.mixtures_vjp(
            outputs[n_logits:], normals
        )
        precision = torch.exp(-log_scales)
        unit = (y[:, None] - means) * precision
        of_components = normal_log_density(unit) - log_scales + log_weights
        log_density = of_components.logsumexp(1)
        total += (weight_of_number * log_density).sum(0)

        def pullback(g):
            gradient = torch.empty_like(outputs)
            in_blocks = gradient[:n_logits].split([k * m for k, m in self.layout.groups])
            weights = (g * weight)[:, None].split(n_variables)
            for block, of_block, w, in_block in zip(blocks, codes, weights, in_blocks, strict=True):
                in_block = in_block.unflatten(0, (len(w), -1))
                torch.mul(block.exp(), -w, out=in_block).scatter_add_(1, of_block, w)
            share = torch.exp(of_components - log_density[:, None])
            share *= (g * weight_of_number)[:, None]
            in_means = share * unit * precision
            in_log_scales = share * (unit.square() - 1)
            gradient[n_logits:] = through_mixtures(share, in_means, in_log_scales)
            return gradient

        return total, pullback

    def is_sequential(self):
        return False


class Packing:
    """The rows of a training, which `draw` returns as one tensor.

    Parameters
    ----------
    view : TableView
        The rows.
    network : OrderAgnosticNetwork
        The network, whose backbone is computed for many rows at once.
    """

    def __init__(self, view, network):
        self.network, layout, cells = network, network.layout, view.cells("quantile")
        low, middle, width, log_scale = (
            np.where(np.isfinite(values), values, 0.0)
            for values in (
                cells.middle - cells.width / 2,
                cells.middle,
                cells.width,
                cells.log_scale,
            )
        )
        has_number = np.isfinite(cells.middle)
        log_width = np.log(np.where(width > 0, width, 1.0)) * has_number
        code = cells.code[:, layout.leveled]
        n_levels = np.array(layout.n_levels, dtype=int)[layout.leveled]
        has_level = (code >= 0) & (code < n_levels)
        self.known, self.has_level, self.has_number = (
            torch.from_numpy(each) for each in (cells.known, has_level, has_number)
        )
        self.features, self.code, self.low, self.middle, self.width, self.log_width = (
            torch.from_numpy(each).float()
            for each in (view.features, np.where(has_level, code, 0), low, middle, width, log_width)
        )
        self.values = network.values_of(self.features)
        self.patterns = common_patterns(self.known)
        self.offset = float((log_scale * cells.known).sum()) / max(1, len(log_scale))

    def draw(self, generator):
        """Return the rows, with scores drawn from their cells and random variables as given.

        `OrderAgnosticNetwork.unpacked` splits them.
        """
        starts = range(0, len(self.known), ROWS_AT_ONCE)
        return torch.cat([self._draw(slice(i, i + ROWS_AT_ONCE), generator) for i in starts])

    @torch.no_grad()
    def _draw(self, rows, generator):
        layout, features, known = self.network.layout, self.features[rows], self.known[rows]
        uniform = torch.rand(len(known), known.shape[1] + 1, generator=generator)
        given, weight = random_given(known, uniform, generator, self.patterns)
        weights = weight[:, None] * (known & ~given)
        # Middles of cells would prefer a network with peaks there.
        noise = torch.rand(known.shape, generator=generator)
        width = self.width[rows]
        y = torch.where(width > 0, self.low[rows] + noise * width, self.middle[rows])
        normals, logits = self.network.backbone(taken(self.values, rows), given)
        columns = [
            self.network.inputs(features, given).T,
            (weights * self.log_width[rows]).sum(1, keepdim=True),
            weights[:, layout.leveled] * self.has_level[rows],
            self.code[rows],
            (weights * self.has_number[rows])[:, layout.numbers],
            y[:, layout.numbers],
            *(each.T for each in normals or ()),
        ]
        if logits is not None:
            columns.append(logits[layout.logit_order].T)
        return torch.cat(columns, 1)


class Epochs:
    """The rows of each epoch of a training: all of them, or as many as fit into memory, in turn.

    A part has rows as often as their weights say, so that its own are equal.

    Parameters
    ----------
    view : TableView
        The rows.
    network : OrderAgnosticNetwork
        The network.
    n_rows : int
        Largest number of rows of an epoch.
    random_state : RandomState
        Draws the order of rows, if there are more.

    Attributes
    ----------
    weight : Tensor of shape (n_rows,)
        Weights of the rows of an epoch.
    offset : float
        What `Packing.offset` is in the first epoch.
    """

    def __init__(self, view, network, n_rows, random_state):
        self.view, self.network, weight = view, network, view.weight
        self.order = None
        if len(view) > n_rows:
            self.order = random_state.permutation(len(view))
            self.ends = np.cumsum(weight[self.order])
            weight = np.ones(n_rows)
        self.weight = torch.from_numpy(weight).float()
        self.packing = self._packing(1)
        self.offset = self.packing.offset

    def draw(self, epoch, generator):
        """Return the rows of an epoch, from 1, as `Packing.draw` does."""
        packing = self.packing if self.order is None or epoch == 1 else self._packing(epoch)
        return packing.draw(generator)

    def _packing(self, epoch):
        if self.order is None:
            return Packing(self.view, self.network)
        n, n_rows = len(self.view), len(self.weight)
        place = ((epoch - 1) * n_rows + np.arange(n_rows) + 0.5) % n / n * self.ends[-1]
        return Packing(self.view.take(self.order[np.searchsorted(self.ends, place)]), self.network)


def random_given(known, uniform, generator, patterns=None):
    """Return a random part of the known variables of each row, and the weight of the others.

    All sizes of the part are equally likely, and so are all parts of a size. The weight turns the
    sum over the others into an unbiased estimate of the log-probability of a complete row.

    Rows that know few variables would have some parts more often than the others do: the network
    would take what is not given for what a group of rows lacks. So half of the parts are drawn from
    the variables that a row of some such group knows too, and the weight makes rows have a part
    equally often, whatever they know, if rows of a group can have it. Many of these parts are of
    variables that all groups know: samples begin with them.

    Parameters
    ----------
    known : Tensor of bool, of shape (n, n_parts)
        Which variables are known.
    uniform : Tensor of shape (n, n_parts + 1)
        Uniform numbers.
    generator : Generator
        Draws a group for each row.
    patterns : tuple of Tensor, optional
        What `common_patterns` returned.
    """
    possible = known
    if patterns is not None:
        others, _, chances = patterns
        place = chances.multinomial(len(known), replacement=True, generator=generator)
        is_common = torch.rand(len(known), 1, generator=generator) < 0.5
        possible = torch.where(is_common, known & others[place], known)
    n_known = known.sum(1)
    n_sizes = numbers_of_sizes(possible.sum(1), n_known)
    order = torch.where(possible, uniform[:, :-1], 2.0).argsort(1).argsort(1)
    size = torch.minimum((uniform[:, -1] * n_sizes).long(), n_sizes - 1)
    given = possible & (order < size[:, None])
    weight = weights_of_others(size, n_known, known.shape[1])
    if patterns is not None:
        typical = typical_weights(given, known, *patterns)
        weight = torch.where(typical > 0, typical, weight).float()
    return given, weight


def weights_of_others(size, n_known, n):
    """Return the weight of the variables that are not given, for as much of all as is known."""
    return n_known.square() / (n * (n_known - size).clamp(min=1))


def common_patterns(known):
    """Return which variables groups of rows know, or None, with two numbers for each group.

    These are the share of its rows, and the chance that a part is drawn from what it knows. The
    last group has no rows: it knows what all others do. Where few rows are in groups, values are
    missing at random, for all that can be seen.
    """
    if known.all():
        return None
    patterns, counts = torch.unique(known, dim=0, return_counts=True)
    is_common = counts >= max(LEAST_OF_GROUP, LEAST_SHARE * len(known))
    patterns, counts = patterns[is_common], counts[is_common]
    if counts.sum() < SHARE_OF_GROUPS * len(known):
        return None
    shares = counts / counts.sum()
    patterns = torch.cat([patterns, patterns.all(0, keepdim=True)])
    chances = torch.cat([(1 - KNOWN_BY_ALL) * shares, torch.tensor([KNOWN_BY_ALL])])
    return patterns, torch.cat([shares, torch.zeros(1)]), chances


def numbers_of_sizes(n_possible, n_known):
    """Return how many sizes a part can have: a row does not give all that it knows."""
    return (n_possible + (n_possible < n_known)).clamp(min=1)


def typical_weights(given, known, patterns, shares, chances):
    """Return the weights of others by which rows have a part equally often, 0 for unknown parts.

    This is the mean, over the patterns that have the part, of its probability times the weight of
    the others, divided by its probability in the row.
    """
    size, known = given.sum(1), known.double()
    patterns, shares, chances = (each.double() for each in (patterns, shares, chances))
    is_within = ((given.double() @ (1 - patterns).T) == 0).double()
    n_patterns, n_known = patterns.sum(1), known.sum(1)
    of_row = torch.empty(len(given), dtype=torch.float64)
    of_patterns = torch.empty(is_within.shape, dtype=torch.float64)
    common, common_of_patterns = known @ patterns.T, patterns @ patterns.T
    for k in size.unique().tolist():
        shift = log_probability(k, n_known.max(), n_known.max())  # which cancels below

        def probability(n_possible, n_known, k=k, shift=shift):
            return (log_probability(k, n_possible, n_known) - shift).exp()

        rows = torch.where(size == k)[0]
        within, own = is_within[rows] * chances, n_known[rows]
        of_common = within * probability(common[rows], own[:, None])
        of_row[rows] = probability(own, own) + of_common.sum(1)
        of_common = within @ probability(common_of_patterns, n_patterns[:, None]).T
        of_patterns[rows] = probability(n_patterns, n_patterns) + of_common
    of_patterns *= weights_of_others(size[:, None], n_patterns, known.shape[1])
    typical = (is_within * of_patterns) @ shares / (is_within @ shares).clamp(min=1e-9)
    return typical / of_row


def log_probability(size, n_possible, n_known):
    """Return the log-probability of a part of a size, of the variables that are possible."""
    n_sizes, rest = numbers_of_sizes(n_possible, n_known), n_possible - size
    log_parts = (
        torch.lgamma(n_possible + 1) - math.lgamma(size + 1) - torch.lgamma(rest.clamp(0) + 1)
    )
    return torch.where(size < n_sizes, -log_parts - n_sizes.log(), -torch.inf)


class MaskedLikelihood:
    """The negative log-likelihood of variables given a random part of the others."""

    in_nats: ClassVar[tuple[str, ...]] = ("loss",)
    validated_every: ClassVar[int] = VALIDATED_EVERY

    def latent(self, network, packed):
        """Return no latent rows, and weighted sums of log-probabilities."""
        inputs, offset, *rest = network.unpacked(packed)
        log_prob, _ = network.log_prob_vjp(network.mlp(inputs), *rest)
        return packed[:, :0], log_prob + offset

    def gradients(self, network, packed, weight, n):
        """Return the loss, and the gradients of its mean in the parameters."""
        with torch.inference_mode():
            inputs, offset, *rest = network.unpacked(packed)
            outputs, through_mlp = network.mlp.vjp(inputs)
            log_prob, through_log_prob = network.log_prob_vjp(outputs, *rest)
            _, gradients = through_mlp(through_log_prob(-weight / n), to_x=False)
            return {"loss": -(weight * (log_prob + offset)).sum()}, gradients


class NetworkMember:
    """A trained network as a member of a table's density.

    The density of a row is the mean over several fixed random orders of the variables, of the
    product of conditional probabilities along each.

    Parameters
    ----------
    network : OrderAgnosticNetwork
        The trained network.
    orders : ndarray of shape (n_orders, n_parts)
        The orders.
    n_iter : int
        Epochs of the training.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    space = "quantile"

    def __init__(self, network, orders, n_iter, interrupted=False):
        self.n_iter, self.interrupted = n_iter, interrupted
        self.network = copy.deepcopy(network).double().eval().requires_grad_(False)
        self.rank = np.argsort(orders, axis=1)  # place of each variable in each order

    @one_thread()
    def log_prob(self, view, given=None):
        """Return the log-probability of the known variables, given some of them.

        In double precision: scores of equal rows would differ by 1e-6 from batch to batch.
        """
        return self._log_prob(self.network.mlp, view, given)

    def _log_prob(self, mlp, view, given=None):
        by_order = self._log_probs_by_order(mlp, view, given)
        return np.logaddexp.reduce(by_order) - np.log(len(self.rank))

    def _log_probs_by_order(self, mlp, view, given):
        """Return the log-probability of the known variables in each order, ``(n_orders, n)``."""
        given = np.zeros_like(view.known) if given is None else given & view.known
        target = view.known & ~given
        log_probs = np.zeros((len(self.rank), len(view)))
        rows = np.lexsort(target.T)  # rows with the same variables come together
        for start in range(0, len(rows), ROWS_OF_ORDERS):
            some = rows[start : start + ROWS_OF_ORDERS]
            log_probs[:, some] = self._log_probs(mlp, view, some, given[some], target[some])
        return log_probs

    def _log_probs(self, mlp, view, rows, given, target):
        """Return the log-probability of target variables of some rows in each order.

        Rows that agree on what is known have the same distributions: near the start of an order
        these are many. The first layer is a sum of terms of each variable, cumulated along it.
        """
        cells, informative = view.cells(self.space), view.informative[rows]
        variables = np.flatnonzero(target.any(axis=0))
        features, given, seen = view.features[rows], given & informative, target & informative
        values = self._values(features)
        log_probs = np.zeros((len(self.rank), len(rows)))
        log_probs += np.where(target, cells.log_scale[rows], 0.0).sum(axis=1)
        features = np.split(features, np.cumsum(self.network.layout.n_features)[:-1], axis=1)
        places, terms = {}, {}
        for j in np.flatnonzero((given | seen).any(axis=0)):
            _, first, places[j] = np.unique(
                view.values[rows, j], return_index=True, return_inverse=True
            )
            terms[j] = self._terms(mlp, features[j][first], j)
        start = np.zeros(len(rows), dtype=int), mlp.input.bias.T.numpy()
        for j in np.flatnonzero(given.any(axis=0)):
            start = split(*start, places[j], given[:, j], terms[j])
        for i, rank in enumerate(self.rank):
            (group, sums), known = start, given.copy()
            for j in variables[np.argsort(rank[variables])]:
                some = np.unique(group, return_index=True)[1]
                of_groups = sums, taken(values, some), known[some]
                levels, *mixture = self._distribution(mlp, *of_groups, j)
                if levels is not None:
                    code = cells.code[rows, j]
                    has = np.flatnonzero(target[:, j] & (code >= 0) & (code < levels.shape[1]))
                    log_probs[i, has] += levels[group[has], code[has]]
                if mixture:
                    has = np.flatnonzero(target[:, j] & np.isfinite(cells.middle[rows, j]))
                    ends = (
                        each[rows[has], j, None] for each in (cells.low, cells.middle, cells.high)
                    )
                    log_weights, means, scales = (each[group[has]] for each in mixture)
                    log_mass = log_normal_mass(*ends, means, scales)
                    log_probs[i, has] += log_sum_exp(log_weights + log_mass)
                if j in terms:
                    group, sums = split(group, sums, places[j], seen[:, j], terms[j])
                    known[:, j] |= seen[:, j]
        return log_probs

    def _values(self, features):
        """Return what `OrderAgnosticNetwork.values_of` does."""
        return self.network.values_of(torch.from_numpy(features))

    def _distribution(self, mlp, sums, values, masks, j):
        """Return log-probabilities of levels or None, and the mixture of a number if it is one.

        Parameters
        ----------
        mlp : ResidualMLP
            The layers, of any precision.
        sums : ndarray of shape (n, width)
            What `_sums` returns for rows.
        values : tuple
            What `_values` returned for them.
        masks : ndarray of bool, of shape (n, n_variables)
            What is known.
        j : int
            The variable.

        Returns
        -------
        levels : ndarray of shape (n, n_levels) or None
            Their log-probabilities.
        log_weights, means, scales : ndarray of shape (n, n_components)
            The mixture of a number.
        """
        network, layout, (categories, scores) = self.network, self.network.layout, values
        n_levels, head, levels = layout.n_levels[j], layout.slice_of(j), None
        with torch.inference_mode():
            units, masks = mlp.units_after(torch.from_numpy(sums)).T, torch.from_numpy(masks)
            outputs = (mlp.output.weight[head] @ units + mlp.output.bias[head]).double()
            if n_levels:
                logits, levels = network.logits_of(categories, masks, j), outputs[:n_levels]
                levels = levels if logits is None else levels + logits
                levels = F.log_softmax(levels, 0).T.numpy()
            if j not in layout.numbers:
                return (levels,)
            normals = network.normals_of(scores, masks, [layout.numbers.index(j)])
            log_weights, means, log_scales = network.mixtures(outputs[n_levels:], normals)
            mixture = log_weights, means, log_scales.exp()
            return levels, *(each[0].T.numpy() for each in mixture)

    def _sums(self, mlp, features, masks):
        """Return the outputs of the first layer ``(n, width)``, given what is known.

        The layers may be in single precision.
        """
        with torch.inference_mode():
            inputs = self.network.inputs(*map(torch.from_numpy, (features, masks)))
            inputs = squash(inputs.to(mlp.input.weight.dtype), FARTHEST_SEEN)
            return mlp.input.of_rows(inputs.T).numpy()

    def _terms(self, mlp, features, j):
        """Return what a variable adds to `_sums`: nothing if unknown, first, and with features."""
        with torch.inference_mode():
            weight = mlp.input.weight[:, self.network.layout.inputs_of(j)]
            inputs = np.zeros((1 + len(features), weight.shape[1]))
            inputs[1:, :-1], inputs[1:, -1] = features, 1.0
            inputs = torch.from_numpy(inputs).to(weight.dtype)
            return (squash(inputs, FARTHEST_SEEN) @ weight.T).numpy()

    def _quick_mlp(self):
        """Return the layers in single precision, as they were trained."""
        return copy.deepcopy(self.network.mlp).float()

    @one_thread()
    def evidence(self, view):
        """Return `log_prob` to six digits, by which members are weighed in answers."""
        return self._log_prob(self._quick_mlp(), view)

    @one_thread()
    def predictive(self, view, j, rows=ALL):
        """Return the distribution of a variable in some rows given the other known ones."""
        masks = view.informative[rows].copy()
        masks[:, j] = False
        features, mlp = view.features[rows], self.network.mlp
        sums = self._sums(mlp, features, masks)
        levels, *mixture = self._distribution(mlp, sums, self._values(features), masks, j)
        levels = None if levels is None else np.exp(levels)
        if not mixture:
            return Predictive(levels, None, None)
        log_weights, means, scales = mixture
        map_ = view.schema.variables[j].maps[self.space]
        return Predictive(levels, Normals.of_rows(np.exp(log_weights), means, scales), map_)

    @one_thread()
    def sample(self, view, rows, random_state):
        """Return variables of rows, which may repeat, the unknown ones drawn one by one."""
        schema, completed = view.schema, view.values[rows]
        n, n_variables = completed.shape
        order = np.argsort(self.rank, axis=1)[random_state.randint(len(self.rank), size=n)]
        missing = np.isnan(completed)
        # The unknown variables of a row come first, in its order; but variables that the fit knew
        # more often before others: rows in which a value is known may be unlike the rest. Then
        # levels come before numbers, as they often say what is missing.
        n_unknown = schema.n_missing
        if n_unknown.any():
            n_unknown = n_unknown + 0.5 * np.array([v.has_number for v in schema.variables])
            n_unknown[schema.come_first] = -1
        last = np.where(missing, n_unknown, np.inf)
        order = np.take_along_axis(
            order, np.argsort(np.take_along_axis(last, order, 1), axis=1, kind="stable"), 1
        )
        n_missing = missing.sum(axis=1)
        mlp = self._quick_mlp()
        # Rows that agree on what is known are a group.
        distinct, group = np.unique(rows, return_inverse=True)
        features, given = view.features[distinct], view.informative[distinct]
        sums = self._sums(mlp, features, given)
        values, given = taken(self._values(features), group), given[group]
        for step in range(n_missing.max(initial=0)):
            at_step = np.where(step < n_missing, order[:, step], -1)
            # Rows in which a value is missing stay as they are for a step.
            for j, column in schema.flag_of.items():
                at_step[(at_step == j) & (completed[:, column] != 0)] = n_variables
            sums_after, n_groups = [], 0
            for j in np.unique(at_step[at_step >= 0]):
                rows = np.flatnonzero(at_step == j)
                groups, first, place = np.unique(
                    group[rows], return_index=True, return_inverse=True
                )
                sums_of_groups = sums[groups]
                if j < n_variables:
                    variable, some = schema.variables[j], rows[first]
                    of_groups = sums_of_groups, taken(values, some), given[some]
                    drawn = draw(self._distribution(mlp, *of_groups, j), place, random_state)
                    completed[rows, j] = x = variable.decode(*drawn, self.space, random_state)
                    given[rows, j] = True
                    x, place_of_x = np.unique(x, return_inverse=True)
                    code = variable.code(x)
                    _, middle, *_ = variable.cells(x, code, self.space)
                    features = variable.features(x, code, middle)
                    features_of_rows = torch.from_numpy(features[place_of_x])
                    self.network.set_values(values, rows, j, features_of_rows)
                    terms = self._terms(mlp, features, j)
                    place, sums_of_groups = split(place, sums_of_groups, place_of_x, True, terms)
                group[rows] = n_groups + place
                n_groups += len(sums_of_groups)
                sums_after.append(sums_of_groups)
            sums = np.concatenate(sums_after)
        return completed


def taken(values, rows):
    """Return some rows of what `OrderAgnosticNetwork.values_of` returned."""
    return tuple(None if each is None else each[rows] for each in values)


def draw(distribution, rows, random_state):
    """Return drawn levels, -1 if there are none, and scores, 0 if there are none.

    The distribution is what `NetworkMember._distribution` returned; rows may repeat.
    """
    levels, *mixture = distribution
    code, y = np.full(len(rows), -1), np.zeros(len(rows))
    if levels is not None:
        code = choose(np.exp(levels), random_state, rows)
    if mixture:
        log_weights, means, scales = mixture
        k = choose(np.exp(log_weights), random_state, rows)
        y = means[rows, k] + scales[rows, k] * random_state.standard_normal(len(rows))
    return code, y


def split(group, sums, place, known, terms):
    """Split groups of rows by the values of one more variable, where it is known.

    Parameters
    ----------
    group : ndarray of shape (n,)
        The group of each row.
    sums : ndarray of shape (n_groups, width)
        What the rows of a group share.
    place : ndarray of shape (n,)
        The place of each row's value among distinct ones.
    known : ndarray of bool, of shape (n,), or True
        Whether the value counts.
    terms : ndarray of shape (1 + n_values, width)
        What is added for a value that doesn't count, and for each distinct one.

    Returns
    -------
    group, sums : ndarray
        Of the new groups.
    """
    n = len(terms)
    pairs, group = np.unique(group * n + np.where(known, place + 1, 0), return_inverse=True)
    return group, sums[pairs // n] + terms[pairs % n]


def choose(probabilities, random_state, rows=None):
    """Return the index that each row of probabilities draws, or each of rows that may repeat."""
    if rows is None:
        total = np.cumsum(probabilities, axis=1)
        uniform = random_state.uniform(size=(len(total), 1)) * total[:, -1:]
        return (total < uniform).sum(axis=1).clip(max=total.shape[1] - 1)
    is_used = np.bincount(rows, minlength=len(probabilities)) > 0
    total = np.cumsum(probabilities[is_used], axis=1)
    rows = (np.cumsum(is_used) - 1)[rows]
    total /= total[:, -1:]
    total += np.arange(len(total))[:, None]
    n, uniform = total.shape[1], random_state.uniform(size=len(rows))
    return (np.searchsorted(total.ravel(), rows + uniform) - rows * n).clip(0, n - 1)
