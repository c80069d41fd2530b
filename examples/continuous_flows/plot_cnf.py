"""
===============================
Continuous flows: trajectories
===============================

A continuous flow moves each row along a velocity field, from the data at time 0 to a standard
normal at time 1. This example draws the field and the trajectories of some rows.
"""

# %%
# Trained by likelihood alone, a field may move rows along any path to the latent space. Penalties
# on the velocity and on its derivatives (RNODE) make trajectories straight, at constant speed. The
# solver then needs fewer evaluations of the field for a row; the titles give their mean number.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_moons

from skflows import CNFDensity

X = make_moons(500, noise=0.07, random_state=0)[0]
X_test = make_moons(2000, noise=0.07, random_state=1)[0]

flows = {}
for name, penalty in {"no penalties": 0.0, "penalties": 0.05}.items():
    flows[name] = CNFDensity(
        objective="likelihood",
        preprocessing="standardize",  # to show what the flow does alone
        kinetic_penalty=penalty,
        jacobian_penalty=penalty,
        n_steps=8,
        tolerance=1e-5,
        hidden_layer_sizes=(48, 48),
        dropout=0.0,
        max_iter=60,
        learning_rate_init=1e-2,
        contamination=None,
        random_state=0,
    ).fit(X)


def draw_trajectories(ax, flow, rows, n_times=40):
    """Draw the trajectories of rows, and the field at time 0.5, in standardised columns."""
    bijection = flow.flow_.bijection
    start, _ = flow.flow_.preprocess(torch.from_numpy(rows))
    times = np.linspace(0, 1, n_times)
    paths = np.stack([bijection.solve(start, end=t).x for t in times])
    x, y = np.meshgrid(np.linspace(-2.5, 2.5, 18), np.linspace(-2.5, 2.5, 18))
    columns = torch.tensor(np.stack([x.ravel(), y.ravel()]))
    velocity, _ = bijection.velocity(torch.tensor([0.5], dtype=torch.float64), columns)
    ax.quiver(x, y, *velocity, color="0.75", angles="xy")
    ax.plot(*paths.transpose(2, 0, 1), color="C0", lw=0.6, alpha=0.6)
    ax.scatter(*paths[0].T, s=6, color="C1", label="data", zorder=3)
    ax.scatter(*paths[-1].T, s=6, color="C3", label="latent", zorder=3)
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-3, 3), ylim=(-3, 3))


_, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for ax, (name, flow) in zip(axes, flows.items(), strict=True):
    with torch.no_grad():
        draw_trajectories(ax, flow, X[:60])
    evaluations = flow.n_function_evaluations_
    ax.set_title(f"{name}: {evaluations:.0f} evaluations, score {flow.score(X_test):.2f}")
axes[0].legend(loc="lower left")
