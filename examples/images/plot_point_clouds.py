"""
===========================
Lines between point clouds
===========================

:class:`~skflows.sets.PointCloudDensity` gives each cloud of points a code, from which it draws new
points. This example turns handwritten digits into clouds of points, draws new ones, and moves along
the line between the codes of two of them.
"""

# %%
# A cloud has a point for each grey level of a pixel, at a random place in the pixel: clouds have
# between 185 and 433 points.
import numpy as np
from sklearn.datasets import load_digits

from skflows.inspection import PointCloudDisplay
from skflows.sets import PointCloudDensity

images, digits = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
clouds = []
for image in images.astype(int):
    row, column = np.divmod(np.repeat(np.arange(64), image), 8)
    corner = np.column_stack([column, 7 - row])
    clouds.append(corner + rng.random(corner.shape))

density = PointCloudDensity(max_iter=30, random_state=0).fit(clouds)
PointCloudDisplay.from_estimator(density, clouds[:20], n_columns=10, s=1)

# %%
# New digits
# ----------
# A sample is a code from the prior, and points from the flow given the code. They may be as many
# as you like.
PointCloudDisplay.from_estimator(
    density, n_samples=20, n_points=1000, random_state=0, n_columns=10, s=1
)

# %%
# Lines between digits
# --------------------
# Each row moves in nine steps from one digit to another, along the line between their latent codes.
fraction = np.linspace(0, 1, 9)[:, None]
lines = []
for first, last in [(0, 6), (1, 7)]:
    ends = [clouds[np.flatnonzero(digits == digit)[0]] for digit in (first, last)]
    codes = density.transform(ends)
    between = (1 - fraction) * codes[0] + fraction * codes[1]
    lines.extend(density.inverse_transform(between, n_points=1000, random_state=0))
PointCloudDisplay.from_estimator(density, lines, n_columns=9, s=1)

# %%
# Odd digits
# ----------
# The threshold of ``predict`` is on the score per point. These are the oddest of all.
order = density.decision_function(clouds).argsort()
PointCloudDisplay.from_estimator(density, [clouds[i] for i in order[:20]], n_columns=10, s=1)
