"""
=========================================
What each architecture can and cannot fit
=========================================

Seven architectures, at the same effort, on three shapes in two dimensions: two crescents, two
rings and a checkerboard. The pictures show what each transform finds easy and where it gives up.
They do not rank the architectures on tables with many columns: for those, compare held-out
scores.
"""

# %%
# The crescents are bent, but each is one piece. The rings enclose holes. The checkerboard has
# sharp corners, gaps, and no shape that a single column would show.
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
# Every architecture gets the same schedule, with no dropout, since rows are plenty for two
# columns. Each picture shows the density, and above it the mean log-density of rows the flow has
# not seen, in nats (higher is better). A score much worse than its picture comes from a few test
# rows beyond the training data, which an affine flow can find next to impossible.
effort = {
    "max_iter": 40,
    "batch_size": 300,
    "learning_rate_init": 1e-2,
    "early_stopping": False,
    "random_state": 0,
}
network_effort = effort | {"dropout": 0.0}


def fit_and_draw(flow):
    """Fit the flow to each shape in turn and draw its density."""
    _, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for ax, (name, X) in zip(axes, train.items(), strict=True):
        flow.fit(X)
        low, high = X.min(axis=0), X.max(axis=0)
        margin = 0.1 * (high - low)
        x, y = np.linspace(low - margin, high + margin, 120).T
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        density = np.exp(flow.score_samples(grid)).reshape(len(y), len(x))
        # A few narrow peaks must not leave the rest of the picture dark.
        ax.pcolormesh(x, y, density, vmax=np.quantile(density, 0.99), cmap="magma", rasterized=True)
        ax.set(title=f"{name}: {flow.score(test[name]):.2f}", xticks=[], yticks=[])


# %%
# Planar
# ------
# Each step moves rows along a single direction, so a shape takes many steps, and sharp ones stay
# blurred. It is the smoothest of the seven and has the fewest parameters.
from skflows import PlanarDensity

fit_and_draw(PlanarDensity(**effort))

# %%
# NICE
# ----
# Additive couplings preserve volume: they can shear and bend a Gaussian, but not thin it out in
# one place and thicken it in another. Bent shapes come out well. The rings, which are symmetric
# and need a hole, do not come out at all.
from skflows import NICEDensity

fit_and_draw(NICEDensity(**network_effort))

# %%
# RealNVP
# -------
# With a scale besides the shift, volume can change from place to place. The crescents are
# cleaner, and the rings become a disc with a bright rim, but their holes are still filled in.
from skflows import RealNVPDensity

fit_and_draw(RealNVPDensity(**network_effort))

# %%
# Glow
# ----
# The learned linear maps between the couplings let each step cut the plane in another direction.
# In two dimensions that matters little; with many columns it mixes those that a fixed split would
# keep apart.
from skflows import GlowDensity

fit_and_draw(GlowDensity(**network_effort))

# %%
# MAF
# ---
# In two dimensions an autoregressive step changes one column at a time given the other, like half
# a RealNVP coupling pair. Its strength shows with more columns.
from skflows import MAFDensity

fit_and_draw(MAFDensity(**network_effort))

# %%
# IAF
# ---
# The same map run backwards, with the same family of shapes and the cheap direction exchanged.
from skflows import IAFDensity

fit_and_draw(IAFDensity(**network_effort))

# %%
# Neural spline flow
# ------------------
# A spline can be flat in one place and steep in the next, so one step can open a gap or pile up
# an edge that an affine map cannot. The checkerboard's own entropy allows no score above
# :math:`-\log 8 = -2.08` on average; the splines come closest.
from skflows import NSFDensity

# sphinx_gallery_thumbnail_number = 8
fit_and_draw(NSFDensity(**network_effort))
