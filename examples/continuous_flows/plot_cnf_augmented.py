"""
==============================
Continuous flows: augmentation
==============================

Trajectories of a continuous flow never cross, so a ring around another one stays around it. An
additional column of noise gives the trajectories a third dimension. This example trains flows with
and without it on nested rings of known density.
"""

# %%
# Data
# ----
# The radius is normal around one of two values, and the angle is uniform.
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from skflows import CNFDensity

RADII, WIDTH = np.array([0.4, 1.0]), 0.05


def make_rings(n, seed):
    rng = np.random.default_rng(seed)
    radius = rng.choice(RADII, n) + WIDTH * rng.standard_normal(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def true_log_density(X):
    radius = np.hypot(*X.T)
    return np.log(norm.pdf(radius[:, None], RADII, WIDTH).mean(1) / (2 * np.pi * radius))


X, X_test = make_rings(500, seed=0), make_rings(200, seed=1)
flows = {}
for n_augmented in (0, 1):
    flows[n_augmented] = CNFDensity(
        n_augmented=n_augmented,
        n_importance_samples=30,
        objective="likelihood",  # flow matching would not benefit from the noise
        preprocessing="standardize",  # to show what the flow does alone
        hidden_layer_sizes=(32, 32),
        dropout=0.0,
        n_steps=6,
        max_iter=150,
        learning_rate_init=0.02,
        tolerance=1e-5,
        contamination=None,
        random_state=0,
    ).fit(X)

# %%
# Trajectories
# ------------
# In the plane, the trajectories of the outer ring stay around the inner ring's. With a third
# dimension, which the picture does not show, they can pass above or below and cross in the picture.
# Here they hardly do, and the solver needs about as many evaluations.
_, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
rows = make_rings(120, seed=2)
inner = np.hypot(*rows.T) < RADII.mean()
noise = np.random.default_rng(0).standard_normal((len(rows), 1))
for ax, (n_augmented, flow) in zip(axes, flows.items(), strict=True):
    bijection = flow.flow_.bijection
    start, _ = flow.flow_.preprocess(torch.from_numpy(rows))
    start = torch.cat([start, torch.from_numpy(noise[:, :n_augmented])], 1)
    with torch.no_grad():
        paths = np.stack([bijection.solve(start, end=t).x for t in np.linspace(0, 1, 40)])
    for part, color in ((inner, "C0"), (~inner, "C1")):
        ax.plot(*paths[:, part, :2].transpose(2, 0, 1), color=color, lw=0.5, alpha=0.6)
        ax.scatter(*paths[-1, part, :2].T, s=6, color=color)
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    ax.set_title(f"n_augmented={n_augmented}: {flow.n_function_evaluations_:.0f} evaluations")

# %%
# Scores
# ------
# With augmentation, ``score_samples`` is the log of a mean over draws of the noise. It is too low
# on average, less so with more draws. Here each draw is scored separately, and the scores are
# combined to means of 1, 5 and 30 draws. This effect is small. The flow with augmentation has a
# lower score after the same number of epochs, so compare held-out scores before you use
# augmentation.
augmented = flows[1]
by_draw = []
for draw in augmented.flow_.noise.split(1):
    augmented.flow_.noise = draw
    by_draw.append(augmented.score_samples(X_test))
scores = {
    "true density": true_log_density(X_test).mean(),
    "no augmentation": flows[0].score(X_test),
}
for n_draws in (1, 5, 30):
    samples = np.reshape(by_draw, (-1, n_draws, len(X_test)))
    scores[f"n_importance_samples={n_draws}"] = (
        logsumexp(samples, axis=1) - np.log(n_draws)
    ).mean()
_, ax = plt.subplots(figsize=(6.5, 2.8), layout="constrained")
ax.plot(list(scores.values()), list(scores), "o")
ax.set(xlabel="mean log-density (nats)")
ax.invert_yaxis()
