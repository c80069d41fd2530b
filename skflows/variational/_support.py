"""Maps from constrained parameters to the real line: ordered columns and simplexes."""

import math

import torch

from ..bijections import Bijection, Bounded, Chain
from ..columns.arrays import column_index
from ..preprocessing.validation import resolve_bounds

ON_SIMPLEX = 1e-6  # largest distance of a row's sum from 1


class Ordered(Bijection):
    """Map increasing columns to the first one and the logarithms of their differences.

    Parameters
    ----------
    columns : list of int
        The columns, from the least to the largest.
    """

    def __init__(self, columns):
        super().__init__()
        self.columns = list(columns)

    def forward(self, x, context=None):
        differences = x[:, self.columns].diff(dim=1)
        is_outside = (differences <= 0).any(1)
        logs = differences.clamp(min=torch.finfo(x.dtype).tiny).log()
        log_det = (-logs.sum(1)).masked_fill(is_outside, -math.inf)
        return self._replaced(x, torch.cat([x[:, self.columns[:1]], logs], 1)), log_det

    def inverse(self, z, context=None):
        first, logs = z[:, self.columns[:1]], z[:, self.columns[1:]]
        # The sum of larger differences would overflow.
        logs = logs.clamp(max=math.log(torch.finfo(z.dtype).max / (2 * len(self.columns))))
        x = torch.cat([first, logs.exp()], 1).cumsum(1)
        return self._replaced(z, x), logs.sum(1)

    def _replaced(self, rows, values):
        return rows.index_copy(1, torch.tensor(self.columns), values)


class Simplex(Bijection):
    """Map columns that sum to 1 to their log-ratios to the last one, which is left out.

    Log-determinants are of the map without the last column.

    Parameters
    ----------
    columns : list of int
        The columns of the simplex.
    n_features : int
        Number of all columns before the map.
    """

    def __init__(self, columns, n_features):
        super().__init__()
        self.columns = list(columns)
        self.n_features = n_features
        self.kept = [j for j in range(n_features) if j != self.columns[-1]]

    def forward(self, x, context=None):
        parts = x[:, self.columns]
        is_outside = (parts <= 0).any(1) | ((parts.sum(1) - 1).abs() > ON_SIMPLEX)
        logs = parts.clamp(min=torch.finfo(x.dtype).tiny).log()
        z = x.index_copy(1, torch.tensor(self.columns), logs - logs[:, -1:])
        return z[:, self.kept], (-logs.sum(1)).masked_fill(is_outside, -math.inf)

    def inverse(self, z, context=None):
        full = z.new_zeros(len(z), self.n_features).index_copy(1, torch.tensor(self.kept), z)
        logs = full[:, self.columns].log_softmax(1)
        return full.index_copy(1, torch.tensor(self.columns), logs.exp()), logs.sum(1)


def support_map(n_features, bounds=None, ordered=None, simplex=None, names=None):
    """Return the map from rows within their constraints to unconstrained ones, and their number.

    Parameters
    ----------
    n_features : int
        Number of columns.
    bounds, ordered, simplex : object
        Parameters of `VariationalDensity`.
    names : list of str, default=None
        Names of the columns.

    Returns
    -------
    support : Chain
        Its inverse maps unconstrained rows to rows within their constraints.
    n_free : int
        Number of unconstrained columns.
    """
    pairs = resolve_bounds(bounds, n_features, names, "the density")
    ordered = _groups(ordered, "ordered", n_features, names)
    simplex = _groups(simplex, "simplex", n_features, names)
    used = [j for group in [*ordered, *simplex] for j in group]
    if len(used) > len(set(used)):
        raise ValueError(f"{ordered=} and {simplex=} share columns; a column has one constraint.")
    steps: list[Bijection] = []
    if pairs is not None:
        for group in ordered:
            if len(different := {pairs[j] for j in group}) > 1:
                raise ValueError(
                    f"bounds has {sorted(map(str, different))} for the ordered columns {group}; "
                    "give all of them the same bounds."
                )
        if bounded := [j for group in simplex for j in group if pairs[j] != (None, None)]:
            raise ValueError(
                f"bounds[{bounded[0]}]={pairs[bounded[0]]}, but the column is part of a simplex, "
                "whose columns are between 0 and 1: leave its bounds out."
            )
        steps.append(Bounded(pairs))
    steps += [Ordered(group) for group in ordered]
    # The last column first, so that the columns of the others stay in their places.
    for group in sorted(map(sorted, simplex), key=max, reverse=True):
        steps.append(Simplex(group, n_features))
        n_features -= 1
    return Chain(steps), n_features


def _groups(groups, parameter, n_features, names):
    """Return groups of columns as lists of indices."""
    if groups is None:
        return []
    try:
        are_lists = not any(isinstance(each, str) for each in [groups, *groups])
        are_groups = are_lists and all(len(group) >= 2 for group in groups)
    except TypeError:
        are_groups = False
    if not are_groups:
        raise ValueError(
            f"{parameter}={groups!r}; give a list of groups, each of them a list of two columns or "
            "more."
        )
    what = "the density"
    return [
        [column_index(key, n_features, names, parameter, what) for key in group] for group in groups
    ]
