"""A network that grows molecules: the next atom, then its bond to each atom that may have one."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..nn.mlp import mlp
from ..training.losses import LikelihoodByAutograd
from ._growth import LARGEST_RING, MOST_USED, N_RELATIONS, START, Growth, history
from ._molecules import N_ORDERS_OF_BONDS

N_HEADS = 8
FARTHEST = 40  # place of an atom, or later
AT_ONCE = 256  # molecules
END, PADDING = -1, -2  # in place of atoms' types


class Molecules(NamedTuple):
    """Molecules as a network sees them; see `skflows.graphs._growth.history`."""

    types: torch.Tensor  # (n, size + 1): numbers of the types of the atoms, END, PADDING
    bonds: torch.Tensor  # (n, size, size): orders, in the lower triangles
    relations: torch.Tensor
    rings: torch.Tensor

    def rows(self, rows):
        """Return some of the molecules, without the padding that all have, as integers."""
        types = self.types[rows]
        size = int((types != PADDING).sum(1).max()) - 1
        squares = [tensor[rows, :size, :size] for tensor in self[1:]]
        return Molecules(*(part.long() for part in (types[:, : size + 1], *squares)))


def arranged(graphs, atom_types):
    """Return graphs as `Molecules`."""
    size = max(len(atoms) for atoms, _ in graphs)
    types = np.full((len(graphs), size + 1), PADDING, dtype=np.int16)
    bonds = np.zeros((len(graphs), size, size), dtype=np.uint8)
    number = {atom: i for i, atom in enumerate(atom_types)}
    for row, (atoms, of_atoms) in enumerate(graphs):
        n = len(atoms)
        types[row, : n + 1] = [*map(number.__getitem__, atoms), END]
        bonds[row, :n, :n] = np.tril(of_atoms)
    return Molecules(*map(torch.from_numpy, (types, bonds, *history(bonds))))


class Layer(nn.Module):
    """Attention to the atoms so far, by their relation to the latest, then a small network.

    See Ying et al., "Do Transformers Really Perform Bad for Graph Representation?", 2021.
    """

    def __init__(self, width):
        super().__init__()
        self.attended, self.mixed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp = mlp(width, 2 * width, width)

    def forward(self, x, bias, past=None):
        """Return the new states of tokens x ``(n, t, width)``, and keys and values of all.

        The bias ``(n, N_HEADS, t, t_all)`` is added to the logits of the attention. The past has
        the keys and values of the tokens before these.
        """
        parts = self.query_key_value(self.attended(x)).unflatten(-1, (3, N_HEADS, -1))
        query, *new = parts.permute(2, 0, 3, 1, 4)
        known = torch.stack(new) if past is None else torch.cat([past, torch.stack(new)], 3)
        seen = F.scaled_dot_product_attention(query, known[0], known[1], attn_mask=bias)
        x = x + self.output(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mixed(x)), known


class GrowthNetwork(nn.Module):
    """The conditional distributions of atoms and bonds, given the atoms and bonds so far.

    Their family is a ``head`` of `skflows.graphs._heads`.
    """

    def __init__(self, head, n_types, width, n_layers):
        super().__init__()
        self.n_types, self.head = n_types, head
        self.atom = nn.Embedding(n_types + 1, width)  # the last one starts a molecule
        self.used = nn.Embedding(MOST_USED + 1, width)
        self.place = nn.Embedding(FARTHEST + 1, width)
        self.relation = nn.Embedding(N_RELATIONS, N_HEADS)
        self.layers = nn.ModuleList(Layer(width) for _ in range(n_layers))
        self.last = nn.LayerNorm(width)
        self.to_type = mlp(width, width, head.outputs_of_value * (n_types + 1))
        # Of a bond between the next atom and an earlier one.
        self.new, self.old = nn.Linear(width, width), nn.Linear(width, width)
        self.of_type = nn.Embedding(n_types, width)
        self.of_relation = nn.Embedding(N_RELATIONS, width)
        self.of_ring = nn.Embedding(LARGEST_RING + 1, width)
        self.of_used = nn.Embedding(MOST_USED + 1, width)
        self.of_bonded = nn.Linear(width, width, bias=False)
        self.by_order = nn.Embedding(N_ORDERS_OF_BONDS, width, padding_idx=0)
        n_outputs = head.outputs_of_value * N_ORDERS_OF_BONDS
        self.to_bond = nn.Sequential(nn.SiLU(), *mlp(width, width, n_outputs))

    def states(self, types, relations, past=None):
        """Return the states of tokens, the start and each atom, which know all up to them.

        Types are of shape ``(n, t)``, relations to earlier tokens ``(n, t, t_all)``. The past of
        each layer is a list that is updated.
        """
        _, n_new, n_all = relations.shape
        n_before = n_all - n_new
        used = relations.diagonal(n_before, 1, 2) // 2 % (MOST_USED + 1)  # see `Growth.add`
        place = torch.arange(n_before, n_all).clamp(max=FARTHEST)
        x = self.atom(types) + self.used(used) + self.place(place)
        later = torch.ones_like(relations[0], dtype=torch.bool).triu(n_before + 1)
        bias = self.relation(relations).permute(0, 3, 1, 2).masked_fill(later, -torch.inf)
        past = past or [None] * len(self.layers)
        for i, layer in enumerate(self.layers):
            x, past[i] = layer(x, bias, past[i])
        return self.last(x)

    def states_of(self, molecules):
        """Return the states of all tokens of whole molecules."""
        types = F.pad(molecules.types[:, :-1].clamp(min=0), (1, 0), value=self.n_types)
        return self.states(types, F.pad(molecules.relations, (1, 0, 1, 0), value=START))

    def bond_outputs(self, new, old, types, relation, ring, used, bonded):
        """Return the outputs for bonds between next atoms and earlier ones.

        ``new`` and ``old`` are what these layers make of the states before the next atom and of
        the earlier one, ``relation`` the relation of the earlier one to the latest, ``used`` the
        sum of the orders of the bonds so far, and ``bonded`` the sum of `bonded_to` over them.
        """
        x = new + old + self.of_type(types) + self.of_relation(relation) + self.of_ring(ring)
        return self.to_bond(x + self.of_used(used.clamp(max=MOST_USED)) + bonded)

    def bonded_to(self, states, orders):
        """Return what bonds to atoms with these states give to later bonds: zero for order 0."""
        return self.of_bonded(states) * self.by_order(orders)

    def outputs(self, molecules):
        """Return the outputs for all steps of whole molecules, in one pass.

        They are a tuple for types and one for bonds: outputs, values, masks of the values that are
        allowed, and rows of the steps.
        """
        types, bonds = molecules.types, molecules.bonds
        states = self.states_of(molecules)
        row, place = (types != PADDING).nonzero(as_tuple=True)
        values = types[row, place]
        values = values.where(values >= 0, self.n_types)
        allowed = torch.ones(len(row), self.n_types + 1, dtype=torch.bool)
        allowed[place == 0, self.n_types] = False  # a molecule has an atom
        of_types = self.to_type(states[row, place]), values, allowed, row

        exists = types[:, 1:-1] >= 0
        may = (molecules.relations[:, :-1] % 2 == 1) & exists[..., None]  # see `Growth.add`
        row, latest, j = may.nonzero(as_tuple=True)
        i = latest + 1
        order = bonds[row, i, j]
        # Each bond is an input of the later steps of its atom: `reach` of them.
        bond = order.nonzero().squeeze(1)
        reach = (i - j - 1)[bond]
        source = bond.repeat_interleave(reach)
        first = (reach.cumsum(0) - reach).repeat_interleave(reach)
        target = source + 1 + torch.arange(len(source)) - first
        message = self.bonded_to(states[row[source], j[source] + 1], order[source])
        bonded = states.new_zeros(len(row), states.shape[2]).index_add(0, target, message)
        used = (bonds.cumsum(-1) - bonds)[row, i, j]
        outputs = self.bond_outputs(
            self.new(states)[row, i],
            self.old(states)[row, j + 1],
            types[row, i],
            molecules.relations[row, latest, j],
            molecules.rings[row, i, j],
            used,
            bonded,
        )
        allowed = torch.ones(len(row), N_ORDERS_OF_BONDS, dtype=torch.bool)
        allowed[(used == 0) & (j == latest), 0] = False  # a molecule is in one piece
        return of_types, (outputs, order, allowed, row)

    def log_probs(self, molecules):
        """Return the log-probability of growing each molecule."""
        total = 0.0
        for outputs, values, allowed, row in self.outputs(molecules):
            of_values = self.head.log_probs(outputs, values, allowed)
            zeros = of_values.new_zeros(len(molecules.types))
            total = total + zeros.index_add(0, row, of_values)
        return total

    def mean_states(self, molecules):
        """Return the mean state of the atoms of each molecule."""
        states = self.states_of(molecules)[:, 1:]
        exists = (molecules.types[:, :-1] >= 0).to(states.dtype)[..., None]
        return (states * exists).sum(1) / exists.sum(1)

    @torch.inference_mode()
    def of_graphs(self, method, graphs, atom_types):
        """Return what a method returns for graphs, as an array."""
        chunks = (graphs[i : i + AT_ONCE] for i in range(0, len(graphs), AT_ONCE))
        molecules = (arranged(chunk, atom_types).rows(slice(None)) for chunk in chunks)
        return np.concatenate([getattr(self, method)(some).numpy() for some in molecules])

    @torch.inference_mode()
    def grow(self, n, size, temperature, valences, generator):
        """Draw types of atoms ``(n, size)``, then END, and orders of bonds ``(n, size, size)``.

        ``valences`` are the largest sums of orders of the bonds of each type of atom, or None. The
        bonds are lower triangles.
        """
        head, n_types = self.head, self.n_types
        growth = Growth(n, size)
        limit = np.full(n_types + 1, N_RELATIONS) if valences is None else np.append(valences, 0)
        types = np.full((n, size), END)
        bonds = np.zeros((n, size, size), dtype=np.int64)
        past = [None] * len(self.layers)
        token = torch.full((n, 1), n_types)
        relation = torch.full((n, 1, 1), START)  # of the start, then of the atoms, to the latest
        states, olds = [], []  # of the start and the atoms
        growing = np.ones(n, dtype=bool)
        for i in range(size):
            states.append(self.states(token, relation, past)[:, 0])
            olds.append(self.old(states[-1]))
            free = np.maximum(limit[types[:, :i]] - growth.used[:, :i], 0)  # of each atom
            open_ = (np.arange(i) >= growth.front[:, None]) & (free > 0)
            can_grow = open_.any(axis=1, keepdims=True) & (limit[:-1] > 0) | (i == 0)
            allowed = torch.from_numpy(np.column_stack([can_grow, np.full(n, i > 0)]))
            new = head.draw(self.to_type(states[-1]), allowed, temperature, generator)
            growing &= new.numpy() < n_types
            if not growing.any():
                break
            types[growing, i] = new[growing]
            new_types = new.clamp(max=n_types - 1)
            of_new = self.new(states[-1])
            bonded = torch.zeros_like(of_new)
            for k in range(growth.front[growing].min(), i):
                rows = np.flatnonzero(growing & (k >= growth.front))
                used = bonds[rows, i, :k].sum(axis=1)
                left = np.minimum(limit[types[rows, i]] - used, free[rows, k])
                may = torch.arange(N_ORDERS_OF_BONDS) <= torch.from_numpy(left)[:, None]
                # Without a bond so far, the last atom that can have one gets it.
                may[(used == 0) & open_[rows, k] & ~open_[rows, k + 1 :].any(axis=1), 0] = False
                outputs = self.bond_outputs(
                    of_new[rows],
                    olds[k + 1][rows],
                    new_types[rows],
                    relation[rows, 0, k + 1],
                    torch.from_numpy(growth.ring(bonds[:, i, :k])[rows].astype(np.int64)),
                    torch.from_numpy(used),
                    bonded[rows],
                )
                orders = head.draw(outputs, may, temperature, generator)
                bonds[rows, i, k] = orders
                bonded[rows] += self.bonded_to(states[k + 1][rows], orders)
            relation = torch.from_numpy(growth.add(bonds[:, i, :i]))[:, None]
            relation, token = F.pad(relation, (1, 0), value=START), new_types[:, None]
        return types, bonds


class GrowthLikelihood(LikelihoodByAutograd):
    """The likelihood of growing molecules; a row is the number of a molecule."""

    def __init__(self, molecules):
        self.molecules = molecules

    def latent(self, bijection, y):
        scores = [
            bijection.log_probs(self.molecules.rows(rows)) for rows in y[:, 0].long().split(AT_ONCE)
        ]
        return y[:, :0], torch.cat(scores).to(y.dtype)
