"""
===========================
Simulation-based inference
===========================

A simulator turns parameters into observations, but has no likelihood that could be computed. The
density of parameters given observations is then learned from simulations: neural posterior
estimation. It is a `ConditionalDensity` whose y are the parameters.
"""

# %%
# The two-moons simulator is a benchmark of simulation-based inference: for a single observation,
# the posterior of its two parameters has two crescents.

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(0)


def simulate(parameters):
    """Return an observation for each row of parameters."""
    n = len(parameters)
    angle = rng.uniform(-np.pi / 2, np.pi / 2, n)
    radius = rng.normal(0.1, 0.01, n)
    crescent = np.column_stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)])
    a, b = parameters.T
    return crescent + np.column_stack([-np.abs(a + b), b - a]) / np.sqrt(2)


parameters = rng.uniform(-1, 1, (6000, 2))  # from the prior
observations = simulate(parameters)

# %%
# The observations are the conditions. The prior is 0 beyond -1 and 1, which `bounds` state.

from skflows import ConditionalDensity, NSFDensity

flow = NSFDensity(n_transforms=4, max_iter=60, dropout=0.0, bounds=[(-1, 1), (-1, 1)])
posterior = ConditionalDensity(flow, random_state=0).fit(observations, parameters)

# %%
# Samples from the posterior at an observation, beside rejection sampling, which keeps parameters
# from the prior whose observation happens to be close, about one in a thousand.

observed = np.zeros((1, 2))
samples = posterior.sample(observed, n_samples=2000, random_state=0)[0]

prior = rng.uniform(-1, 1, (1_000_000, 2))
is_close = np.abs(simulate(prior) - observed).max(axis=1) < 0.02
accepted = prior[is_close]

_, panels = plt.subplots(1, 2, figsize=(7.6, 3.8), sharex=True, sharey=True, layout="constrained")
for ax, rows, title in zip(
    panels, [accepted, samples], ["rejection sampling", "ConditionalDensity"], strict=True
):
    ax.scatter(*rows[:2000].T, s=3)
    ax.set(title=f"{title}: {len(rows)} samples", xlim=(-1, 1), ylim=(-1, 1))
    ax.set_xlabel("first parameter")
panels[0].set_ylabel("second parameter")

# %%
# Once it is trained, the density answers for any observation, without new simulations:

others = np.array([[0.2, 0.3], [-0.5, 0.0], [-0.5, 0.6]])
_, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharex=True, sharey=True, layout="constrained")
for ax, row, draws in zip(
    panels, others, posterior.sample(others, n_samples=1000, random_state=0), strict=True
):
    ax.scatter(*draws.T, s=3)
    ax.set(title=f"observation {row}", xlim=(-1, 1), ylim=(-1, 1))
plt.show()
