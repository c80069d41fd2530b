"""The fixed maps of a density's preprocessing, set from its rows."""

import copy
import hashlib
import threading

import numpy as np
import torch

from ..bijections import (
    Bijection,
    Bounded,
    Chain,
    MarginalQuantile,
    Pointwise,
    Standardize,
    Whiten,
)
from ..columns.arrays import some_rows

PREPROCESSING = {"standardize": Standardize, "whiten": Whiten, "quantile": MarginalQuantile}
# The components of an ensemble need the same maps of the same folds many times.
N_RECENT_MAPS = 32
MAX_ROWS = 2**17  # that maps are set from: moments and quantiles of more would be the same
_RECENT_MAPS: dict = {}
_LOCK = threading.Lock()


@torch.no_grad()
def fitted_preprocessor(names, bounds, x, weight, n_channels=None):
    """Return the fixed maps with the given names, as one bijection, set from weighted rows.

    With ``n_channels``, rows are grids: a map is the same at each position.
    """
    names = [names] if isinstance(names, str) else list(names)
    if unknown := [name for name in names if name not in list(PREPROCESSING)]:
        raise ValueError(f"preprocessing={unknown[0]!r}; choose among {list(PREPROCESSING)}.")
    n_channels = n_channels or x.shape[1]
    n_positions = x.shape[1] // n_channels
    most = max(MAX_ROWS // n_positions, 1)
    if len(x) > most:
        few = torch.from_numpy(some_rows(len(x), most))
        x, weight = x[few], weight[few]
    steps: list[Bijection] = [] if bounds is None else [Bounded(bounds)]
    for name in names:
        if steps:
            x, _ = steps[-1](x)
        positions, share = x.reshape(-1, n_channels), weight.repeat_interleave(n_positions)
        step = _fitted_map(name, positions, share)
        steps.append(step if n_positions == 1 else Pointwise(step, n_channels))
    return steps[0] if len(steps) == 1 else Chain(steps)


def _fitted_map(name, y, weight):
    """Return a map of `PREPROCESSING`, set from rows or cached for them."""
    bijection = PREPROCESSING[name](y.shape[1])
    if name != "quantile":  # the others take no time
        bijection.initialize(y, weight)
        return bijection
    content = hashlib.sha1(np.ascontiguousarray(y).data, usedforsecurity=False)
    content.update(np.ascontiguousarray(weight).data)
    key = y.shape, content.digest()
    known = _RECENT_MAPS.get(key)
    if known is not None:
        return copy.deepcopy(known)
    bijection.initialize(y, weight)
    with _LOCK:
        while len(_RECENT_MAPS) >= N_RECENT_MAPS:
            _RECENT_MAPS.pop(next(iter(_RECENT_MAPS)))
        _RECENT_MAPS[key] = copy.deepcopy(bijection)
    return bijection
