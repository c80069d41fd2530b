"""
==========
Quickstart
==========

Fit a normalizing flow to a table, then use it as a density, a sampler, an outlier detector and a
transformer.
"""

# %%
# The data: two crescents, stretched to unequal units. A flow needs no scaler; it standardises the
# columns itself and accounts for that in its densities.
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split

X, _ = make_moons(3000, noise=0.07, random_state=0)
X = X * [100, 1] + [500, 0]
X_train, X_test = train_test_split(X, random_state=0)

# %%
# Fitting is one line. ``random_state`` makes it repeatable to the bit.
from skflows import NSFDensity

flow = NSFDensity(max_iter=60, random_state=0).fit(X_train)
flow

# %%
# The loss curve shows the negative log-likelihood per row on the training rows and on the rows
# that were held out, and which epoch was kept.
from skflows.inspection import LossCurveDisplay

LossCurveDisplay.from_estimator(flow)
# sphinx_gallery_thumbnail_number = 2

# %%
# As a density
# ------------
# ``score_samples`` returns log-densities in nats and in the units of ``X``, ``score`` their mean.
print("three rows:", flow.score_samples(X_test[:3]).round(2))
print("mean over the test rows:", round(flow.score(X_test), 2))

# %%
from skflows.inspection import DensityDisplay

DensityDisplay.from_estimator(flow, X_test)

# %%
# As a sampler
# ------------
# New rows, beside rows that the flow has not seen.
from skflows.inspection import SamplesDisplay

SamplesDisplay.from_estimator(flow, X_test, random_state=0)

# %%
# As an outlier detector
# ----------------------
# ``predict`` calls a row an outlier (-1) when its density is below ``offset_``.
print(flow.predict([[500, 1.0], [550, 0.4], [750, 2.0]]))

# %%
# As a transformer
# ----------------
# The latent coordinates are close to two independent standard normals, and the map has an
# inverse.
Z = flow.transform(X_test)
print("mean", Z.mean(axis=0).round(2), "standard deviation", Z.std(axis=0).round(2))
print("largest error of the round trip:", abs(flow.inverse_transform(Z) - X_test).max())

# %%
from skflows.inspection import LatentDisplay

LatentDisplay.from_estimator(flow, X_test)
