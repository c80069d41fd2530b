"""
====================
Defects in a texture
====================

A detector sees 40 images of a woven texture without defects. It then finds scratches, spots and
smears in new images, with p-values, and shows where they are.
"""

# %%
# Data
# ----
# Each image has its own shift, so no two are alike.
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter1d

rng = np.random.default_rng(0)
size = 48
y, x = np.mgrid[:size, :size]


def weave(n):
    shift = rng.uniform(0, 9, (2, n, 1, 1))
    threads = np.sin(2 * np.pi * (x + shift[0]) / 9) * np.sin(2 * np.pi * (y + shift[1]) / 9)
    return threads + 0.4 * gaussian_filter(rng.normal(size=(n, size, size)), (0, 1, 1))


def scratch(image, top, left):
    line = np.abs((y - top) - 0.5 * (x - left)) < 0.8
    return image + 0.7 * (line & (np.abs(x - left) < 9))


def spot(image, top, left):
    return image - 0.7 / (1 + np.exp(np.hypot(y - top, x - left) - 4))


def smear(image, top, left):
    inside = 1 / (1 + np.exp(np.hypot((y - top) / 2, x - left) - 6))
    return image + inside * (uniform_filter1d(image, 15, axis=0) - image)


X_train, X_good, X_bad = weave(40), weave(60), weave(60)
kinds = [scratch, spot, smear]
for i in range(60):
    X_bad[i] = kinds[i % 3](X_bad[i], *rng.uniform(14, size - 14, 2))

# %%
# Fit
# ---
# The detector computes features of the images at many places by a fixed bank of filters, and fits a
# RealNVP to the features of the images and of their rotations by 90, 180 and 270 degrees, given the
# mean features of the surroundings of each place. Two folds calibrate p-values: each image gets a
# score from a flow that has not seen it. The default is five.
from skflows.outlier import DefectDetector

detector = DefectDetector(cv=2, random_state=0).fit(X_train)
for name, images in {
    "good": X_good,
    **{f.__name__: X_bad[i::3] for i, f in enumerate(kinds)},
}.items():
    print(f"{name:8} flagged: {(detector.predict(images) == -1).mean():.0%}")

# %%
# About ``alpha``, 5 %, of the good images should be flagged; among 60 of them, chance allows 0 to
# 12 %.
#
# Where the defects are
# ---------------------
# `defect_map` is the gradient of the score in the pixels, for fixed surroundings, smoothed: it is
# large where a change of the pixels would make the image more ordinary. Each map has its own scale:
# on the last two images, which are good, it shows their least ordinary places, often at the border,
# where filters reach beyond the image.
shown = np.concatenate([X_bad[:6], X_good[:2]])
p_values = detector.p_values(shown)
maps = detector.defect_map(shown)
fig, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for i, column in enumerate(axes.T):
    column[0].imshow(shown[i], cmap="gray", vmin=-2.5, vmax=2.5)
    column[0].set_title(f"p = {p_values[i]:.2f}", fontsize=9)
    column[1].imshow(maps[i], cmap="magma", vmin=0)
    for ax in column:
        ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("image")
axes[1, 0].set_ylabel("defect map")

# %%
# Any other density can replace the flow, here a single Gaussian. It has no gradient for a map, but
# it is a simple baseline for the scores.
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture

gaussian = DefectDetector(estimator=GaussianMixture(), calibration=None, random_state=0)
gaussian.fit(X_train)
X_test, is_bad = np.concatenate([X_good, X_bad]), np.repeat([0, 1], 60)
for name, model in {"flow": detector, "Gaussian": gaussian}.items():
    print(f"AUROC of the {name}: {roc_auc_score(is_bad, -model.score_samples(X_test)):.3f}")
