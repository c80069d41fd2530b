"""
=======================================
Continuous flows: columns of noise
=======================================

The ways of a continuous flow never cross, so a ring around a disc stays around it. With a column
of noise beside the two of the rows there is a third dimension to go round by. How much that
helps, and what the score then is, can be seen on nested annuli whose density is known.
"""

# %%
# Rows of known density
# ---------------------
# The radius is normal around one of two values, the angle uniform.
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import norm

from skflows import CNFDensity

RADII, WIDTH = np.array([0.4, 1.0]), 0.05


def annuli(n, seed):
    rng = np.random.default_rng(seed)
    radius = rng.choice(RADII, n) + WIDTH * rng.standard_normal(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def true_log_density(X):
    radius = np.hypot(*X.T)
    return np.log(norm.pdf(radius[:, None], RADII, WIDTH).mean(1) / (2 * np.pi * radius))


X, X_test = annuli(1000, seed=0), annuli(300, seed=1)
flows = {}
for n_augmented in (0, 1):
    flows[n_augmented] = CNFDensity(
        n_augmented=n_augmented,
        n_importance_samples=100,
        preprocessing="standardize",
        hidden_layer_sizes=(64, 64),
        dropout=0.0,
        max_iter=150,
        tolerance=1e-5,
        contamination=None,
        random_state=0,
    ).fit(X)

# %%
# Ways
# ----
# In the plane, the ways from the outer annulus stay around those from the inner one. With a third
# dimension, they may pass them above or below: on this picture, which leaves it out, they cross.
_, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
rows = annuli(120, seed=2)
inner = np.hypot(*rows.T) < RADII.mean()
noise = np.random.default_rng(0).standard_normal((len(rows), 1))
for ax, (n_augmented, flow) in zip(axes, flows.items(), strict=True):
    bijection = flow.flow_.bijection
    start, _ = flow.flow_.preprocess(torch.from_numpy(rows))
    start = torch.cat([start, torch.from_numpy(noise[:, :n_augmented])], 1)
    with torch.no_grad():
        ways = np.stack([bijection.solve(start, end=t).x for t in np.linspace(0, 1, 40)])
    for part, color in ((inner, "C0"), (~inner, "C1")):
        ax.plot(*ways[:, part, :2].transpose(2, 0, 1), color=color, lw=0.5, alpha=0.6)
        ax.scatter(*ways[-1, part, :2].T, s=6, color=color)
    # For one draw of the noise: a score takes as many of them as there are draws.
    evaluations = flow.n_function_evaluations_ / len(flow.flow_.noise)
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    ax.set_title(f"{n_augmented} columns of noise: {evaluations:.0f} evaluations")
