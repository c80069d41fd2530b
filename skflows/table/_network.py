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
from ..nn.activations import squash
from ..nn.random_draws import uniform_draws
from ..nn.residual_mlp import ResidualMLP
from ..training.torch_state import one_thread
from ._variables import first_features
from ._view import Normals, Predictive

LOG_SCALE_BOUND = 5.0
ROWS_AT_ONCE = 4096
N_VALIDATION_MASKS = 12
VALIDATED_EVERY = 3  # epochs
TRUST = 1.0  # logit of the share of the Gaussian's conditionals at the start
LEAST_VARIANCE = 1e-6
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
        self.feature_of = np.repeat(
            np.arange(len(variables)), [variable.n_features for variable in variables]
        )
        self.n_levels = [variable.n_levels for variable in variables]
        self.first = np.concatenate([[0], np.cumsum(self.n_levels)]).tolist()  # of its logits
        self.numbers = [j for j, variable in enumerate(variables) if variable.has_number]
        self.leveled = [j for j, k in enumerate(self.n_levels) if k]
        self.n_logits = self.first[-1]
        self.size = 3 * n_components + has_normal  # of the outputs for a number
        self.n_outputs = self.n_logits + self.size * len(self.numbers)
        first = first_features(variables)
        self.scores = [int(first[j]) for j in self.numbers]  # inputs that are scores of numbers
        # Inputs that say whether a variable with atoms has a number.
        self.flags = [int(first[j + 1]) - self.n_levels[j] for j in self.numbers]

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
            start[layout.first[j] : layout.first[j + 1]] = torch.from_numpy(logits - logits.mean())
        centres = torch.linspace(-2, 2, n_components) if n_components > 1 else torch.zeros(1)
        scale = math.log(0.6) if n_components > 1 else 0.0
        mixture = torch.stack([-0.7 * centres**2, centres, torch.full_like(centres, scale)])
        of_number = mixture.flatten()
        if gaussian is not None:
            of_number = torch.cat([of_number, torch.tensor([TRUST])])
            mean, covariance = map(torch.from_numpy, gaussian)
            self.register_buffer("mean", mean.float())
            self.register_buffer("covariance", covariance.float())
        start[layout.n_logits :] = of_number.repeat(len(layout.numbers))
        with torch.no_grad():
            self.mlp.output.bias.copy_(start[:, None])
        # Logits of each leveled variable, padded by one of -inf.
        widest = max((layout.n_levels[j] for j in layout.leveled), default=0)
        index = torch.full((len(layout.leveled), widest), layout.n_logits)
        for row, j in zip(index, layout.leveled, strict=True):
            row[: layout.n_levels[j]] = torch.arange(layout.first[j], layout.first[j + 1])
        self.register_buffer("logit_index", index)
        self.register_buffer("feature_of", torch.from_numpy(layout.feature_of))

    def inputs(self, features, given):
        """Return the columns that the network sees, from features and a mask ``(n, n_parts)``."""
        given = given.to(features.dtype)
        return torch.cat([features * given[:, self.feature_of], given], 1).T

    def backbone(self, features, given):
        """Return what `normals_of` and `logits_of` do, from features before masking."""
        return self.normals_of(features, given), self.logits_of(features, given)

    def logits_of(self, features, given, only=None):
        """Return the logits ``(n_logits, n)`` of the forest's conditionals, or None.

        The features are those before masking; ``only`` is the variable of which to return them.
        """
        return None if self.forest is None else self.forest(features, given, only)

    def normals_of(self, features, given, numbers=None):
        """Return mean and log-scale ``(n_numbers, n)`` of the Gaussian's conditionals, or None.

        The features are those before masking; ``numbers`` selects some of the numbers.
        """
        if not hasattr(self, "mean"):
            return None
        layout, S = self.layout, self.covariance
        numbers = list(range(len(layout.numbers))) if numbers is None else numbers
        with torch.no_grad():
            has = given[:, layout.numbers].to(S.dtype)
            for i, j in enumerate(layout.numbers):
                if layout.n_levels[j]:
                    has[:, i] *= features[:, layout.flags[i]]
            y = has * (features[:, layout.scores] - self.mean)
            # Rows and columns of unknown numbers are as in the identity.
            known = has[:, :, None] * S * has[:, None] + torch.diag_embed(1 - has)
            cross = has[:, :, None] * S[:, numbers]
            unit = torch.linalg.solve_triangular(
                torch.linalg.cholesky(known), torch.cat([cross, y[:, :, None]], 2), upper=False
            )
            mean = self.mean[numbers] + (unit[:, :, :-1] * unit[:, :, -1:]).sum(1)
            variance = S.diagonal()[numbers] - unit[:, :, :-1].square().sum(1)
            return mean.T, 0.5 * variance.clamp(min=LEAST_VARIANCE).log().T

    def mixtures(self, outputs, normals=None):
        """Return log-weights, means and log-scales ``(n_numbers, n_components, n)``.

        Parameters
        ----------
        outputs : Tensor of shape (n_numbers * size, n)
            Of the network, for numbers.
        normals : tuple of Tensor of shape (n_numbers, n), optional
            What `normals_of` returned.
        """
        layout = self.layout
        outputs = outputs.view(-1, layout.size, outputs.shape[-1])
        mixture = outputs[:, : 3 * layout.n_components]
        logits, means, raw = mixture.unflatten(1, (3, -1)).unbind(1)
        log_scales = squash(raw, LOG_SCALE_BOUND)
        if normals is not None:
            trust = torch.sigmoid(outputs[:, -1])
            mean, log_scale = trust * normals[0], trust * normals[1]
            means = mean[:, None] + log_scale.exp()[:, None] * means
            log_scales = log_scales + log_scale[:, None]
        return F.log_softmax(logits, 1), means, log_scales

    def log_probs(self, outputs, code, y, log_width, backbone):
        """Return the log-probability ``(n_parts, n)`` of levels and of numbers as densities.

        Parameters
        ----------
        outputs : Tensor of shape (n_outputs, n)
            Of the network.
        code : Tensor of shape (n_parts, n)
            Levels.
        y : Tensor of shape (n_parts, n)
            Scores of numbers, NaN where there is none.
        log_width : Tensor of shape (n_parts, n)
            Log-width of the cells from which scores are drawn.
        backbone : tuple
            What `backbone` returned.
        """
        normals, logits = backbone
        n_logits = self.layout.n_logits
        log_probs = [outputs.new_zeros(code.shape)]
        if self.layout.leveled:
            levels = outputs[:n_logits] if logits is None else outputs[:n_logits] + logits
            padded = F.pad(levels, (0, 0, 0, 1), value=-math.inf)[self.logit_index]
            codes = code[self.layout.leveled]
            n_levels = codes.new_tensor([self.layout.n_levels[j] for j in self.layout.leveled])
            has = (codes >= 0) & (codes < n_levels[:, None])
            picked = padded.gather(1, torch.where(has, codes, 0)[:, None])[:, 0]
            log_prob = torch.where(has, picked - padded.logsumexp(1), 0.0)
            log_probs.append(
                torch.zeros_like(log_probs[0]).index_copy(0, self.leveled_index, log_prob)
            )
        if self.layout.numbers:
            scores, log_prob = y[self.layout.numbers], 0.0
            has = scores.isfinite()
            log_weights, means, log_scales = self.mixtures(outputs[n_logits:], normals)
            unit = (torch.where(has, scores, 0.0)[:, None] - means) * torch.exp(-log_scales)
            log_prob = (normal_log_density(unit) - log_scales + log_weights).logsumexp(1)
            log_prob = torch.where(has, log_prob + log_width[self.layout.numbers], 0.0)
            log_probs.append(
                torch.zeros_like(log_probs[0]).index_copy(0, self.number_index, log_prob)
            )
        return sum(log_probs)

    @property
    def leveled_index(self):
        return torch.tensor(self.layout.leveled)

    @property
    def number_index(self):
        return torch.tensor(self.layout.numbers)

    def is_sequential(self):
        return False


class Packing:
    """Training rows as one tensor: features, known variables, levels, scores and log-widths."""

    def __init__(self, view):
        cells = view.cells("quantile")
        self.n_variables = cells.known.shape[1]
        self.low, self.width = (
            torch.from_numpy(np.where(np.isfinite(values), values, 0.0)).float()
            for values in (cells.middle - cells.width / 2, cells.width)
        )
        has_number = np.isfinite(cells.middle)
        y = torch.from_numpy(cells.middle).float()
        log_width = np.log(np.where(cells.width > 0, cells.width, 1.0)) * has_number
        blocks = [view.features, cells.known, cells.code, y, log_width]
        self.packed = torch.cat([torch.as_tensor(block).float() for block in blocks], 1)
        self.is_cell = bool((cells.width > 0).any())
        fixed = cells.log_scale * cells.known
        self.offset = float(np.where(np.isfinite(fixed), fixed, 0.0).sum()) / max(1, len(fixed))

    def redraw(self, generator):
        """Return the rows with scores drawn anew from their cells."""
        packed, p = self.packed.clone(), self.n_variables
        noise = torch.rand(self.low.shape, generator=generator)
        y = packed[:, -2 * p : -p]
        packed[:, -2 * p : -p] = torch.where(self.width > 0, self.low + noise * self.width, y)
        return packed


def unpacked(packed, n_variables):
    """Return features, known variables, levels, scores and log-widths."""
    p = n_variables
    features, rest = packed[:, : -4 * p], packed[:, -4 * p :]
    known, code, y, log_width = rest.split(p, 1)
    return features, known > 0, code.T.long(), y.T, log_width.T


def random_given(known, uniform):
    """Return a random part of the known variables of each row, and the weight of the others.

    All sizes of the part are equally likely, and so are all parts of a size. The weight turns the
    sum over the others into an unbiased estimate of the log-probability of the row.

    Parameters
    ----------
    known : Tensor of bool, of shape (n, n_parts)
        Which variables are known.
    uniform : Tensor of shape (n, n_parts + 1)
        Uniform numbers.
    """
    n_known = known.sum(1)
    order = torch.where(known, uniform[:, :-1], 2.0).argsort(1).argsort(1)
    size = (uniform[:, -1] * n_known).long().clamp(max=(n_known - 1).clamp(min=0))
    given = known & (order < size[:, None])
    weight = n_known / (n_known - size).clamp(min=1)
    return given, weight


class MaskedLikelihood:
    """The negative log-likelihood of variables given a random part of the others."""

    in_nats: ClassVar[tuple[str, ...]] = ("loss",)
    validated_every: ClassVar[int] = VALIDATED_EVERY

    def latent(self, network, packed):
        """Return no latent rows, and log-probabilities given the same masks in each call."""
        features, known, code, y, log_width = unpacked(packed, network.layout.n_variables)
        generator = torch.Generator().manual_seed(0)
        total = 0.0
        for _ in range(N_VALIDATION_MASKS):
            uniform = torch.rand(len(known), known.shape[1] + 1, generator=generator)
            given, weight = random_given(known, uniform)
            outputs = network.mlp(network.inputs(features, given))
            backbone = network.backbone(features, given)
            log_probs = network.log_probs(outputs, code, y, log_width, backbone)
            total = total + weight * (log_probs * (known & ~given).T).sum(0)
        return packed[:, :0], total / N_VALIDATION_MASKS

    def gradients(self, network, packed, weight, n):
        """Return the loss, and the gradients of its mean in the parameters."""
        features, known, code, y, log_width = unpacked(packed, network.layout.n_variables)
        uniform = uniform_draws(features.new_empty(len(known), known.shape[1] + 1))
        given, share = random_given(known, uniform)
        with torch.no_grad():
            outputs, pullback = network.mlp.vjp(network.inputs(features, given))
            leaf = outputs.detach().requires_grad_()
            backbone = network.backbone(features, given)
        with torch.enable_grad():
            log_probs = network.log_probs(leaf, code, y, log_width, backbone)
            loss = -(share * weight * (log_probs * (known & ~given).T).sum(0)).sum()
        (gradient,) = torch.autograd.grad(loss / n, leaf)
        with torch.no_grad():
            _, gradients = pullback(gradient, to_x=False)
        return {"loss": loss.detach()}, gradients


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

    def log_prob(self, view, given=None):
        """Return the log-probability of the known variables, given some of them."""
        return np.logaddexp.reduce(self.log_probs_by_order(view, given)) - np.log(len(self.rank))

    def log_probs_by_order(self, view, given=None):
        """Return the log-probability of the known variables in each order, ``(n_orders, n)``."""
        cells = view.cells(self.space)
        given = np.zeros_like(cells.known) if given is None else given & cells.known
        target = cells.known & ~given
        total = np.zeros((len(self.rank), len(view)))
        for j in range(target.shape[1]):
            rows = np.flatnonzero(target[:, j])
            if not len(rows):
                continue
            before = (self.rank < self.rank[:, j : j + 1]) & target.any(axis=0)
            before, order = distinct_rows(before)  # few if much is given
            known = given[rows] | (target[rows] & before[:, None])
            masks = (known & view.informative[rows]).reshape(-1, target.shape[1])
            log_probs = self._conditional(view, j, np.tile(rows, len(before)), masks)
            total[:, rows] += log_probs.reshape(len(before), -1)[order]
        return total

    def _conditional(self, view, j, rows, masks):
        """Return the log-probability of a variable in rows given the values of masks."""
        cells = view.cells(self.space)
        log_probs = np.empty(len(rows))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            chunk = slice(start, start + ROWS_AT_ONCE)
            chunk_rows = rows[chunk]
            levels, *mixture = self._heads(view.features[chunk_rows], masks[chunk], j)
            code = cells.code[chunk_rows, j]
            log_prob = cells.log_scale[chunk_rows, j].copy()
            if levels is not None:
                has = (code >= 0) & (code < levels.shape[1])
                log_prob[has] += levels[has, code[has]]
            if mixture:
                log_weights, means, scales = mixture
                low, middle, high = (
                    values[chunk_rows, j, None] for values in (cells.low, cells.middle, cells.high)
                )
                has = np.isfinite(middle[:, 0])
                low, middle, high = low[has], middle[has], high[has]
                mass = log_normal_mass(low, middle, high, means[has], scales[has])
                log_prob[has] += np.logaddexp.reduce(log_weights[has] + mass, axis=1)
            log_probs[chunk] = log_prob
        return log_probs

    @one_thread()
    def _heads(self, features, masks, j):
        """Return log-probabilities of levels or None, and the mixture of a number if it is one."""
        network, layout = self.network, self.network.layout
        with torch.inference_mode():
            features, masks = torch.from_numpy(features), torch.from_numpy(masks)
            columns = network.inputs(features, masks)
            units = network.mlp.units(columns)
            outputs = layout.slice_of(j)
            last = network.mlp.output
            head = last.weight[outputs] @ units + last.bias[outputs]
            levels, n_levels = None, layout.n_levels[j]
            if n_levels:
                logits = network.logits_of(features, masks, j)
                levels = head[:n_levels] if logits is None else head[:n_levels] + logits
                levels = F.log_softmax(levels.T, 1).numpy()
            if j not in layout.numbers:
                return (levels,)
            normals = network.normals_of(features, masks, [layout.numbers.index(j)])
            log_weights, means, log_scales = network.mixtures(head[n_levels:], normals)
            return levels, *(each[0].T.numpy() for each in (log_weights, means, log_scales.exp()))

    def predictive(self, view, j):
        """Return the distribution of a variable given the other known ones, as a `Predictive`."""
        masks = view.informative.copy()
        masks[:, j] = False
        levels, *mixture = self._heads(view.features, masks, j)
        levels = None if levels is None else np.exp(levels)
        if not mixture:
            return Predictive(levels, None, None)
        log_weights, means, scales = mixture
        map_ = view.schema.variables[j].maps[self.space]
        return Predictive(levels, Normals(np.exp(log_weights), means, scales), map_)

    def sample(self, schema, values, random_state):
        """Return variables, the unknown ones drawn given the known ones, one by one."""
        from ._view import TableView

        completed = values.copy()
        n, n_variables = completed.shape
        order = np.argsort(self.rank, axis=1)[random_state.randint(len(self.rank), size=n)]
        missing = np.isnan(completed)
        # The unknown variables of a row come first, in its order.
        order = np.take_along_axis(
            order, np.argsort(~np.take_along_axis(missing, order, 1), axis=1, kind="stable"), 1
        )
        n_missing = missing.sum(axis=1)
        view = TableView(schema, values)
        features, given = view.features, view.informative.copy()
        first = first_features(schema.variables)
        for step in range(n_missing.max(initial=0)):
            for j in range(n_variables):
                rows = np.flatnonzero((step < n_missing) & (order[:, step] == j))
                if j in schema.flag_of:  # a missing value has none
                    rows = rows[completed[rows, schema.flag_of[j]] == 0]
                if not len(rows):
                    continue
                variable = schema.variables[j]
                levels, *mixture = self._heads(features[rows], given[rows], j)
                drawn = draw(levels, mixture, random_state)
                completed[rows, j] = x = variable.decode(*drawn, self.space)
                given[rows, j] = True
                code = variable.code(x)
                _, middle, *_ = variable.cells(x, code, self.space)
                features[rows, first[j] : first[j + 1]] = variable.features(x, code, middle)
        return completed


def distinct_rows(masks):
    """Return the distinct rows of masks in order, and where each row is among them.

    As `np.unique`, which takes long if there are many columns.
    """
    keys = [mask.tobytes() for mask in masks]
    places = {key: i for i, key in enumerate(sorted({*keys}))}
    first = [keys.index(key) for key in places]
    return masks[first], [places[key] for key in keys]


def draw(levels, mixture, random_state):
    """Return drawn levels, -1 if there are none, and scores, 0 if there are none."""
    n = len(levels) if levels is not None else len(mixture[0])
    code, y = np.full(n, -1), np.zeros(n)
    if levels is not None:
        code = choose(np.exp(levels), random_state)
    if mixture:
        log_weights, means, scales = mixture
        k = choose(np.exp(log_weights), random_state)
        y = means[np.arange(n), k] + scales[np.arange(n), k] * random_state.standard_normal(n)
    return code, y


def choose(probabilities, random_state):
    """Return the index that each row of probabilities draws."""
    total = np.cumsum(probabilities, axis=1)
    uniform = random_state.uniform(size=(len(total), 1)) * total[:, -1:]
    return (total < uniform).sum(axis=1).clip(max=total.shape[1] - 1)
