"""
=======================================
A Bayesian regression, with its verdict
=======================================

The posterior of a linear regression is a function of its parameters, known up to a constant.
:class:`~skflows.VariationalDensity` turns it into a density to draw from, in twelve lines from the
function to the verdict.
"""

# %%
# The parameters of a row are the intercept, the slopes and the standard deviation of the noise.
import torch
from sklearn.datasets import load_diabetes
from torch.distributions import HalfCauchy, Normal

from skflows import VariationalDensity

data = load_diabetes(scaled=False)
X = torch.tensor((data.data - data.data.mean(axis=0)) / data.data.std(axis=0))
y = torch.tensor(data.target)


def log_density(x):
    intercept, slopes, noise = x[:, :1], x[:, 1:-1], x[:, -1:]
    prior = Normal(0, 50).log_prob(slopes).sum(1) + HalfCauchy(50).log_prob(noise)[:, 0]
    return prior + Normal(intercept + slopes @ X.T, noise).log_prob(y).sum(1)


names = ["intercept", *data.feature_names, "noise"]
posterior = VariationalDensity(bounds={"noise": (0, None)}, random_state=0)
posterior.fit(log_density, names=names)
print(f"reliable: {posterior.reliable_}, ESS {posterior.ess_:.3f}, k {posterior.pareto_k_:.2f}")

# %%
# The draws have the names of the parameters.
draws = posterior.sample(4000, random_state=0, as_frame=True)
draws.describe().T[["mean", "std"]].round(1)

# %%
# Two slopes that measure nearly the same blood values depend on each other strongly. The density of
# the fit has a value at every point.
import matplotlib.pyplot as plt

scatter = plt.scatter(
    draws.s1, draws.s2, c=posterior.score_samples(draws), s=6, label="draws of the posterior"
)
plt.colorbar(scatter, label="log-density of all parameters")
plt.xlabel("slope of s1")
plt.ylabel("slope of s2")
plt.show()

# %%
# The evidence compares models: here, with a model that has no slope of ``s4``.
without = [name for name in names if name != "s4"]
rest = [j for j, name in enumerate(names) if name != "s4"]


def log_density_without(x):
    full = x.new_zeros(len(x), len(names)).index_copy(1, torch.tensor(rest), x)
    return log_density(full) - Normal(0, 50).log_prob(torch.tensor(0.0))


smaller = VariationalDensity(bounds={"noise": (0, None)}, random_state=0)
smaller.fit(log_density_without, names=without)
print(f"log Bayes factor for s4: {posterior.log_evidence_ - smaller.log_evidence_:.2f}")
