"""
=====================================
A funnel, with and without refinement
=====================================

Neal's funnel is a normal distribution whose scale is the exponential of another variable, as in
hierarchical models. Samplers get stuck in its neck, and a flow that is trained for a short time
misses it. `refine` corrects the draws by Markov chains that use the flow.
"""

# %%
# A short training shows what the correction does.
import math

from skflows import VariationalDensity


def log_density(x):
    log_scale, others = x[:, 0] / 2, x[:, 1:]
    total = -((x[:, 0] / 3) ** 2) / 2 - math.log(3)
    total = total - (others * (-log_scale).exp()[:, None]).square().sum(1) / 2
    return total - others.shape[1] * log_scale - x.shape[1] / 2 * math.log(2 * math.pi)


short = VariationalDensity(max_iter=8, random_state=0).fit(log_density, n_features=3)
print(f"reliable: {short.reliable_}, ESS {short.ess_:.2f}, k {short.pareto_k_:.2f}")
sample = short.refine(3000, random_state=0)
print(f"R-hat {sample.r_hat.max():.3f}, ESS {sample.ess.min():.0f}")

# %%
# The standard deviation of the first variable is 3.
import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(0)
log_scale = rng.normal(0, 3, 3000)
exact = np.column_stack([log_scale, rng.normal(size=3000) * np.exp(log_scale / 2)])
panels = {
    "exact": exact,
    "flow": short.sample(3000, random_state=0),
    "flow, refined": sample.X,
}
_, axes = plt.subplots(1, 3, figsize=(9, 3.4), sharex=True, sharey=True, layout="constrained")
for ax, (title, rows) in zip(axes, panels.items(), strict=True):
    ax.scatter(rows[:, 1], rows[:, 0], s=2)
    ax.set(title=f"{title}: sd {rows[:, 0].std():.2f}", xlim=(-20, 20), ylim=(-9, 9))
    ax.set_xlabel("second variable")
axes[0].set_ylabel("first variable")
plt.show()
