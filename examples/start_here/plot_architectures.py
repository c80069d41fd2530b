"""
============================
Comparison of architectures
============================

Eight architectures with the same training schedule on three data sets in the plane: two crescents,
two rings and a checkerboard. The pictures show what each transform fits easily and where it fails.
They don't rank the architectures on tables with many columns. For these, compare held-out scores.
"""

# %%
# The crescents are curved, but each is connected. The rings enclose holes. The checkerboard has
# sharp corners and gaps that no single column shows.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_circles, make_moons


def make_checkerboard(n_samples, random_state):
    rng = np.random.default_rng(random_state)
    column = rng.integers(0, 4, n_samples)
    row = 2 * rng.integers(0, 2, n_samples) + column % 2
    return np.column_stack([column, row]) + rng.random((n_samples, 2))


def make_shapes(random_state, n=1200):
    return {
        "crescents": make_moons(n, noise=0.07, random_state=random_state)[0],
        "rings": make_circles(n, noise=0.05, factor=0.5, random_state=random_state)[0],
        "checkerboard": make_checkerboard(n, random_state),
    }


train, test = make_shapes(0), make_shapes(1)

_, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for ax, (name, X) in zip(axes, train.items(), strict=True):
    ax.scatter(*X.T, s=2)
    ax.set(title=name, xticks=[], yticks=[])

# %%
# All architectures have the same schedule, and no dropout, because there are many rows for two
# columns. The titles give the mean log-density of new rows, in nats (higher is better). If a score
# is much worse than its picture, a few test rows beyond the training data cause most of the
# difference.
effort = {
    "preprocessing": "standardize",  # to show what the flow does alone
    "max_iter": 40,
    "batch_size": 300,
    "learning_rate_init": 1e-2,
    "early_stopping": False,
    "random_state": 0,
}
network_effort = effort | {"dropout": 0.0}


def fit_and_draw(flow):
    """Fit the flow to each data set and draw its density."""
    _, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for ax, (name, X) in zip(axes, train.items(), strict=True):
        flow.fit(X)
        low, high = X.min(axis=0), X.max(axis=0)
        margin = 0.1 * (high - low)
        x, y = np.linspace(low - margin, high + margin, 120).T
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        density = np.exp(flow.score_samples(grid)).reshape(len(y), len(x))
        # Clip narrow peaks, which would leave the rest of the picture dark.
        ax.pcolormesh(x, y, density, vmax=np.quantile(density, 0.99), cmap="magma", rasterized=True)
        ax.set(title=f"{name}: {flow.score(test[name]):.2f}", xticks=[], yticks=[])


# %%
# Planar
# ------
# Each layer moves rows along a single direction, so a shape takes many layers and sharp features
# stay blurred. This is the smoothest of the flows, with the fewest parameters.
from skflows import PlanarDensity

fit_and_draw(PlanarDensity(**effort))

# %%
# NICE
# ----
# Additive couplings preserve volume: they can shear and bend a Gaussian but not thin it out. They
# fit the crescents, but not the rings, which have a hole.
from skflows import NICEDensity

fit_and_draw(NICEDensity(**network_effort))

# %%
# RealNVP
# -------
# With a scale and a shift, the volume can change from place to place. The crescents are cleaner,
# and the rings become a disc with a bright rim, but their holes are filled.
from skflows import RealNVPDensity

fit_and_draw(RealNVPDensity(**network_effort))

# %%
# Glow
# ----
# Trained linear maps between the couplings let each step split the plane in another direction. In
# two dimensions this matters little. With many columns it mixes those that a fixed split separates.
from skflows import GlowDensity

fit_and_draw(GlowDensity(**network_effort))

# %%
# MAF
# ---
# In two dimensions, an autoregressive step maps one column given the other, like half of a pair of
# couplings. Its strength shows with more columns.
from skflows import MAFDensity

fit_and_draw(MAFDensity(**network_effort))

# %%
# IAF
# ---
# The inverse of the same map: the fast direction is sampling instead of scoring.
from skflows import IAFDensity

fit_and_draw(IAFDensity(**network_effort))

# %%
# Neural spline flow
# ------------------
# A spline can be flat in one place and steep in another, so one step can open a gap or form an
# edge. The entropy of the checkerboard limits the expected score to :math:`-\log 8 = -2.08`. The
# splines come closest.
from skflows import NSFDensity

# sphinx_gallery_thumbnail_number = 8
fit_and_draw(NSFDensity(**network_effort))

# %%
# Residual flow
# -------------
# Each block adds a network of both columns to a row, without an order or a split. The Lipschitz
# constant below 1 limits how far one block can stretch or squeeze the plane.
from skflows import ResidualDensity

fit_and_draw(ResidualDensity(**effort))
