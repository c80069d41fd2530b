"""
===================================
The latent space as a transformer
===================================

A fitted flow maps rows to coordinates that are close to independent standard normals, and back.
That makes it a transformer: here it Gaussianises a table, and turns straight lines into paths
through the data.
"""

# %%
# Gaussianising
# -------------
# Two crescents again. `PowerTransformer` makes each column as normal as it can, one at a time,
# and whitening removes correlations. Neither sees the shape. The flow does.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

from skflows import NSFDensity

X, crescent = make_moons(2000, noise=0.07, random_state=0)
flow = NSFDensity(max_iter=60, random_state=0)
views = {
    "data": X,
    "power transform and whitening": make_pipeline(
        PowerTransformer(), PCA(whiten=True)
    ).fit_transform(X),
    "flow": flow.fit_transform(X),
}

fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for ax, (name, rows) in zip(axes, views.items(), strict=True):
    ax.scatter(*rows.T, c=crescent, s=3, cmap="coolwarm")
    ax.set_title(name)
for ax in axes[1:]:
    ax.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal")

# %%
# :class:`~skflows.inspection.LatentDisplay` looks for what was not learned: each coordinate
# should be N(0, 1).
from skflows.inspection import LatentDisplay

LatentDisplay.from_estimator(flow, X)

# %%
# The colours above were unknown to the flow. They end up side by side: a Gaussian is one blob, so
# a latent space does not separate groups, and a classifier is rarely better off there.
#
# Straight lines
# --------------
# Halfway between two rows there may be nothing. Halfway between their latent coordinates there
# is, because a Gaussian has no gaps: ``inverse_transform`` bends a straight latent line so that
# it runs where the data are. Here the lines join the two tips of each crescent.
fraction = np.linspace(0, 1, 100)[:, None]
fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, rows, title in zip(axes, (X, flow.transform(X)), ("data", "latent"), strict=True):
    ax.scatter(*rows.T, s=3, color="lightgrey")
    ax.set_title(title)

for label, color in enumerate(("tab:blue", "tab:red")):
    rows = X[crescent == label]
    tips = rows[[rows[:, 0].argmin(), rows[:, 0].argmax()]]
    z = flow.transform(tips)
    line = z[0] + fraction * (z[1] - z[0])
    axes[0].plot(*tips.T, "o", color=color)
    axes[0].plot(*tips.T, ":", color=color)
    axes[0].plot(*flow.inverse_transform(line).T, color=color)
    axes[1].plot(*line.T, color=color)
axes[0].plot([], [], "k:", label="straight in the data")
axes[0].plot([], [], "k-", label="straight in the latent space")
axes[0].legend(loc="lower left")

# %%
# In a pipeline
# -------------
# ``set_output`` and the names of columns work as for any transformer, and so does a pipeline.
# Here the latent coordinates of four measurements of irises lead to a test for a whole row: the
# squared length of a standard normal vector follows a :math:`\chi^2` distribution, which turns a
# distance into a p-value. (These are rows that the flow was fitted on; to rows it has not seen it
# is less kind, so calibrate p-values for new rows on a held-out part.)
from scipy.stats import chi2
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer

from skflows import RealNVPDensity

iris = load_iris(as_frame=True).data
pipeline = make_pipeline(SimpleImputer(), RealNVPDensity(n_transforms=2, random_state=0))
latent = pipeline.set_output(transform="pandas").fit_transform(iris)
latent["p-value"] = chi2.sf((latent**2).sum(axis=1), df=4)
latent.sort_values("p-value").head().round(3)
