"""
======================================
Regression with the whole distribution
======================================

A regression that predicts a mean says nothing about how far from it y may be. Here the spread of y
changes along x, and y has two modes where x is large. `FlowRegressor` learns the density of y given
x: it yields the mean, quantiles, and regions of a given coverage.
"""

# %%
# The data: noise grows with x, and beyond 0 the curve splits into two branches.

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(0)


def draw(n):
    """Return rows of x, and y."""
    x = rng.uniform(-2, 2, n)
    branch = rng.choice([-1, 1], n)
    y = np.sin(2 * x) + branch * np.maximum(x, 0) + (0.1 + 0.1 * np.abs(x)) * rng.standard_normal(n)
    return x[:, None], y


X, y = draw(1500)
X_test, y_test = draw(1000)

# %%
# The defaults fit an ensemble of five small spline flows, one for each fold.

from skflows import FlowRegressor
from skflows.inspection import (
    ConditionalDensityDisplay,
    PredictiveBandsDisplay,
    PredictiveCalibrationDisplay,
)

regressor = FlowRegressor(random_state=0).fit(X, y)
PredictiveBandsDisplay.from_estimator(regressor, X_test, y=y_test)

# %%
# A band is one interval, and has to cover the gap between the branches. The density at single rows
# shows the gap.

rows = np.array([[-1.5], [0.5], [1.8]])
ConditionalDensityDisplay.from_estimator(regressor, rows)

# %%
# A highest-density region may be a union of intervals. Both are calibrated on rows that the flows
# have not seen, and have the requested coverage; the regions are narrower.

intervals = regressor.predict_interval(X_test, coverage=0.9)
regions = regressor.predict_region(X_test, coverage=0.9)
inside = [((r[:, 0] <= v) & (v <= r[:, 1])).any() for r, v in zip(regions, y_test, strict=True)]
print("intervals: coverage", np.mean((intervals[:, 0] <= y_test) & (y_test <= intervals[:, 1])))
print("           mean width", np.diff(intervals, axis=1).mean().round(2))
print("regions:   coverage", np.mean(inside))
print("           mean width", np.mean([np.diff(r, axis=1).sum() for r in regions]).round(2))

_, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for x, region in zip(X_test[:, 0], regions, strict=True):
    ax.vlines(np.full(len(region), x), *region.T, color="#e76300", alpha=0.3, linewidth=1)
ax.scatter(X_test, y_test, s=6, color="#3f90da")
ax.set(xlabel="x", ylabel="y", title="regions of 90 % coverage")

# %%
# The distributions have the methods of `scipy.stats` distributions, with an entry for each row.

distribution = regressor.predict_distribution(rows)
print("mean              ", distribution.mean().round(2))
print("standard deviation", distribution.std().round(2))
print("P(y > 1)          ", distribution.sf(1.0).round(2))

# %%
# Are the distributions right? For new rows, the probability of values below y should be uniform.

PredictiveCalibrationDisplay.from_estimator(regressor, X_test, y_test)
plt.show()
