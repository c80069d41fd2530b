"""
======================
Latent space of images
======================

:class:`~skflows.GlowDensity` with an ``image_shape`` learns a density of images. This example draws
images at several temperatures, walks between two of them, and moves one along the direction that
tells one digit from another.
"""

# %%
# Rows are flattened images of 8 x 8 pixels with 17 grey levels. With an ``image_shape``, the flow
# has convolutional couplings in two stages, and takes arrays of shape ``(n, 8, 8, 1)`` too.
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skflows import GlowDensity

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=300, random_state=0)

flow = GlowDensity(
    image_shape=(8, 8, 1),
    n_transforms=3,
    hidden_layer_sizes=(32, 32),
    batch_size=32,
    learning_rate_init=4e-3,
    max_iter=20,
    random_state=0,
).fit(X_train)
print(f"{flow.bits_per_dim(X_test).mean():.2f} bits per pixel of new images")

# %%
# Temperature
# -----------
# A sample is the inverse image of a standard normal row. At a lower temperature, the standard
# deviation of that row is smaller: images are more typical and less diverse.
import matplotlib.pyplot as plt

from skflows.inspection import ImageGridDisplay

fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, temperature in zip(axes, (0.5, 0.7, 1.0), strict=True):
    samples = flow.sample(36, random_state=0, temperature=temperature)
    ImageGridDisplay.from_estimator(flow, samples, value_range=(0, 16), ax=ax)
    ax.set_title(f"temperature {temperature}")

# %%
# Interpolation
# -------------
# Each line joins two test images of different digits: above by a mean of their pixels, which shows
# both digits at once, below by a mean of their latent coordinates.
fraction = np.linspace(0, 1, 9)[:, None]
lines = []
for first, last in [(0, 1), (4, 9), (3, 5)]:
    ends = np.stack([X_test[y_test == digit][1] for digit in (first, last)])
    z = flow.transform(ends)
    lines += [
        (1 - fraction) * ends[0] + fraction * ends[1],
        flow.inverse_transform((1 - fraction) * z[0] + fraction * z[1]),
    ]
ImageGridDisplay.from_estimator(flow, np.concatenate(lines), n_columns=9, value_range=(0, 16))

# %%
# Attribute directions
# --------------------
# The mean latent row of one class minus the mean of a second class is a direction in which an image
# becomes less like the second class and more like the first. Here ones move towards sevens. The
# flow never saw the labels.
Z_train = flow.transform(X_train)
means = {digit: Z_train[y_train == digit].mean(axis=0) for digit in (1, 7)}
z = flow.transform(X_test[y_test == 1][:4])
moved = z[:, None] + fraction[::2] * 1.5 * (means[7] - means[1])
images = flow.inverse_transform(moved.reshape(-1, 64))
ImageGridDisplay.from_estimator(flow, images, n_columns=5, value_range=(0, 16))

# %%
# How far must an image move to change its class? A classifier that was trained on the images
# themselves answers for all test images of ones.
from sklearn.svm import SVC

classifier = SVC().fit(X_train, y_train)
z = flow.transform(X_test[y_test == 1])
for step in (0, 0.5, 1, 1.5):
    images = flow.inverse_transform(z + step * (means[7] - means[1]))
    share = np.mean(classifier.predict(images) == 7)
    print(f"{step} of the way: {share:.0%} are sevens")
