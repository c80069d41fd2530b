"""
==================================
Continuous flows: columns of noise
==================================

The ways of a continuous flow never cross, so a ring around another one stays around it. With a
column of noise beside the two of the rows there is a third dimension to go round by. Whether a
flow takes it, and what its score then is, can be seen on nested annuli whose density is known.
"""

# %%
# Rows of known density
# ---------------------
# The radius is normal around one of two values, the angle uniform.
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import logsumexp
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


X, X_test = annuli(500, seed=0), annuli(200, seed=1)
flows = {}
for n_augmented in (0, 1):
    flows[n_augmented] = CNFDensity(
        n_augmented=n_augmented,
        n_importance_samples=30,
        training="likelihood",  # which alone makes use of the noise
        preprocessing="standardize",
        hidden_layer_sizes=(32, 32),
        dropout=0.0,
        n_steps=6,
        max_iter=60,
        learning_rate_init=0.02,
        tolerance=1e-5,
        contamination=None,
        random_state=0,
    ).fit(X)

# %%
# Ways
# ----
# In the plane, the ways from the outer annulus stay around those from the inner one. With a third
# dimension, which this picture leaves out, they may pass them above or below, and would cross here.
# After a training as short as this one they hardly do: the map in the plane is good enough, and
# the solver has as much to do with the noise as without it. Columns of noise are worth a trial
# by held-out scores, no more.
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
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    ax.set_title(f"{n_augmented} columns of noise: {flow.n_function_evaluations_:.0f} evaluations")

# %%
# What the score is
# -----------------
# With noise, `score_samples` is the log of a mean over draws: too low on average, the less so the
# more of them there are. Here draws are scored one by one, and joined to samples of each size.
augmented = flows[1]
by_draw = []
for draw in augmented.flow_.noise.split(1):
    augmented.flow_.noise = draw
    by_draw.append(augmented.score_samples(X_test))
scores = {"true": true_log_density(X_test).mean(), "no noise": flows[0].score(X_test)}
for n_draws in (1, 5, 30):
    samples = np.reshape(by_draw, (-1, n_draws, len(X_test)))
    scores[f"draws: {n_draws}"] = (logsumexp(samples, axis=1) - np.log(n_draws)).mean()
_, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.plot(list(scores.values()), list(scores), "o")
ax.set(xlabel="mean log-density, nats")
ax.invert_yaxis()
