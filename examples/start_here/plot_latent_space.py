"""
============
Latent space
============

A fitted flow maps rows to coordinates that are close to independent standard normal, and back.
This example uses it to Gaussianise a table, to interpolate between rows, and as a transformer in a
pipeline.
"""

# %%
# Gaussianising
# -------------
# ``PowerTransformer`` makes each column as normal as possible, and whitening removes the
# correlations. Neither removes the shape of the two crescents. The flow does.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

from skflows import NSFDensity

X, crescent = make_moons(2000, noise=0.07, random_state=0)
# Standardised columns, to show what the flow does alone.
flow = NSFDensity(preprocessing="standardize", max_iter=60, random_state=0)
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
# :class:`~skflows.inspection.LatentDisplay` compares each latent coordinate with N(0, 1).
# Deviations show structure that the flow has not learned.
from skflows.inspection import LatentDisplay

LatentDisplay.from_estimator(flow, X)

# %%
# The flow does not know the two classes, and they end up side by side. A latent space does not
# separate groups, and a classifier is rarely more accurate there.
#
# Interpolation
# -------------
# The point halfway between two rows may have a density of nearly 0. The point halfway between their
# latent coordinates has a high density, because a Gaussian has no gaps. ``inverse_transform`` maps
# a straight latent line to a curve along the data. Here the lines join the two tips of each
# crescent.
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
# Pipelines
# ---------
# A flow supports ``set_output`` and pipelines like any transformer. Here the latent coordinates of
# iris flowers give a p-value for each row: the squared norm of a standard normal vector has a
# :math:`\chi^2` distribution. These p-values are for training rows. Calibrate p-values for new rows
# on held-out rows.
from scipy.stats import chi2
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer

from skflows import RealNVPDensity

iris = load_iris(as_frame=True).data
pipeline = make_pipeline(SimpleImputer(), RealNVPDensity(n_transforms=2, random_state=0))
latent = pipeline.set_output(transform="pandas").fit_transform(iris)
latent["p-value"] = chi2.sf((latent**2).sum(axis=1), df=4)
latent.sort_values("p-value").head().round(3)
