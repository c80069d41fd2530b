"""
==========
Quickstart
==========

Fit a normalizing flow to a table and use it as a density, a sampler, an outlier detector and a
transformer.
"""

# %%
# The data are two crescents, stretched to different units. Don't scale the columns beforehand: the
# flow does this itself and includes it in its densities.
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split

X, _ = make_moons(3000, noise=0.07, random_state=0)
X = X * [100, 1] + [500, 0]
X_train, X_test = train_test_split(X, random_state=0)

# %%
# Fit a flow. ``random_state`` makes the fit reproducible.
from skflows import NSFDensity

flow = NSFDensity(max_iter=60, random_state=0).fit(X_train)
flow

# %%
# The loss curve shows the negative log-likelihood of the training rows and of the held-out rows in
# each epoch, and the epoch whose weights were kept.
from skflows.inspection import LossCurveDisplay

LossCurveDisplay.from_estimator(flow)
# sphinx_gallery_thumbnail_number = 2

# %%
# Density
# -------
# ``score_samples`` returns log-densities in nats and in the units of ``X``. ``score`` returns their
# mean.
print("three rows:", flow.score_samples(X_test[:3]).round(2))
print("mean over the test rows:", round(flow.score(X_test), 2))

# %%
from skflows.inspection import DensityDisplay

DensityDisplay.from_estimator(flow, X_test)

# %%
# Samples
# -------
# Compare samples with rows that the flow has not seen.
from skflows.inspection import SamplesDisplay

SamplesDisplay.from_estimator(flow, X_test, random_state=0)

# %%
# Outliers
# --------
# ``predict`` labels a row an outlier (-1) if its log-density is below ``offset_``.
print(flow.predict([[500, 1.0], [550, 0.4], [750, 2.0]]))

# %%
# Latent coordinates
# ------------------
# The latent coordinates are close to independent standard normal, and the map is invertible.
Z = flow.transform(X_test)
print("mean", Z.mean(axis=0).round(2), "standard deviation", Z.std(axis=0).round(2))
print("largest error of the inverse:", abs(flow.inverse_transform(Z) - X_test).max())

# %%
from skflows.inspection import LatentDisplay

LatentDisplay.from_estimator(flow, X_test)
