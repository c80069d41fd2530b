"""
========================
Simple images score high
========================

A density of images can give a high score to images that are simpler than those it has learned
(Nalisnick et al., 2018). This example asks when, in both directions, with a Glow of handwritten
digits and a Glow of patches of a photograph, and compares three other scores.
"""

# %%
# Data
# ----
# Both kinds of images have 8 x 8 pixels with 17 grey levels. Two kinds are simpler: flat images
# of one grey level, and digits whose lower half is missing. None of the densities sees those.
import numpy as np
from sklearn.datasets import load_digits, load_sample_image

rng = np.random.default_rng(0)
digits = load_digits().data[rng.permutation(1797)]
grey = load_sample_image("china.jpg").mean(axis=2)[:424]
patches = grey.reshape(53, 8, 80, 8).swapaxes(1, 2).reshape(-1, 64)
patches = np.round(patches / 255 * 16)[rng.permutation(len(patches))[:1797]]
half = digits[1400:].copy()
half[:, 32:] = 0

train = {"digits": digits[:1000], "patches": patches[:1000]}
calibration = {"digits": digits[1000:1400], "patches": patches[1000:1400]}
test = {
    "digits": digits[1400:],
    "patches": patches[1400:],
    "flat": np.repeat(rng.integers(0, 17, (397, 1)), 64, axis=1).astype(float),
    "half digits": half,
}

# %%
import matplotlib.pyplot as plt

from skflows.inspection import ImageGridDisplay

fig, axes = plt.subplots(1, 4, figsize=(9, 2.5), layout="constrained")
for ax, (name, X) in zip(axes, test.items(), strict=True):
    images = X[:16].reshape(-1, 8, 8, 1)
    ImageGridDisplay(images=images, value_range=(0, 16)).plot(ax=ax)
    ax.set_title(name)

# %%
# Log-density
# -----------
# One flow for each kind. A histogram shows the scores of all test images under it.
from skflows import GlowDensity

flows = {
    name: GlowDensity(
        image_shape=(8, 8, 1),
        n_transforms=2,
        hidden_layer_sizes=(32, 32),
        batch_size=32,
        learning_rate_init=4e-3,
        max_iter=12,
        random_state=0,
    ).fit(X)
    for name, X in train.items()
}
scores = {
    name: {other: flow.score_samples(X) for other, X in test.items()}
    for name, flow in flows.items()
}

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for ax, (name, of_sets) in zip(axes, scores.items(), strict=True):
    for other, own in of_sets.items():
        ax.hist(own.clip(-300), np.linspace(-300, 0, 61), alpha=0.5, label=other)
    ax.set(xlabel="log-density (nats; those below -300 at the left)", title=f"Glow of {name}")
axes[0].legend()

# %%
# Half digits score higher than digits under the Glow of digits, and flat images score higher than
# patches under the Glow of patches: the sky is flat too, but other patches are not. Digits score
# low under the Glow of patches, and patches under the Glow of digits.
#
# Are flat images simple for both? It depends on their grey level.
levels = np.arange(17)
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for (name, flow), color in zip(flows.items(), ("C0", "C1"), strict=True):
    flat = np.repeat(levels[:, None], 64, axis=1).astype(float)
    ax.plot(levels, flow.score_samples(flat), "o-", color=color, label=f"flat, Glow of {name}")
    ax.axhline(np.median(scores[name][name]), color=color, linestyle="--", label=f"median {name}")
ax.set(xlabel="grey level of the flat image", ylabel="log-density (nats)", ylim=(-600, 20))
ax.legend(fontsize="small")

# %%
# Under the Glow of digits, only black scores higher than most digits: it is their background.
# Other flat images score far lower. Under the Glow of patches, all flat images score higher than
# the median patch. So some simple images score higher in both directions, but not all of them do
# under the Glow of digits.
#
# The mean log-density of images of another distribution is minus its entropy, minus its divergence
# from the model (Caterini & Loaiza-Ganem, 2022). Simple images have a low entropy, which raises
# their scores; the divergence lowers them. Which of the two wins depends on both kinds of images.
#
# Other scores
# ------------
# *Typicality* is the distance of a log-density from the mean log-density of other images of the
# same kind (Nalisnick et al., 2019). The *complexity-corrected* score adds the length of the
# compressed image in bits, by zlib, to the log-density in bits: a simple image has to score higher
# to be accepted (Serrà et al., 2020). The area under the ROC curve tells images of the kind of the
# Glow from the others: 1 is perfect, 0.5 is chance, and below 0.5 the others score higher.
import zlib

from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score

from skflows import DensityOutlierDetector


def complexity(X):
    """Return the length of each image under zlib, in bits."""
    return np.array([8 * len(zlib.compress(row.tobytes(), 9)) for row in X.astype(np.uint8)])


def areas(name):
    """Return the areas of the three scores for the Glow of one kind, by kind of other images."""
    typical = scores_of_calibration[name].mean()
    statistics = {
        "log-density": lambda own, X: own,
        "typicality": lambda own, X: -np.abs(own - typical),
        "complexity-corrected": lambda own, X: own / np.log(2) + complexity(X),
    }
    found = {}
    for other in test.keys() - {name}:
        labels = np.repeat([1, 0], [len(test[name]), len(test[other])])
        found[other] = [
            roc_auc_score(
                labels,
                np.concatenate([score(scores[name][kind], test[kind]) for kind in (name, other)]),
            )
            for score in statistics.values()
        ]
    return list(statistics), found


scores_of_calibration = {
    name: flow.score_samples(calibration[name]) for name, flow in flows.items()
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, name in zip(axes, flows, strict=True):
    labels, found = areas(name)
    others = [other for other in test if other != name]
    for i, label in enumerate(labels):
        heights = [found[other][i] for other in others]
        bars = ax.bar(np.arange(len(others)) + 0.27 * (i - 1), heights, 0.25, label=label)
        ax.bar_label(bars, fmt="%.2f", fontsize="small")
    ax.axhline(0.5, color="black", linestyle="--", linewidth=1)
    ax.set_xticks(range(len(others)), others)
    ax.set(ylim=(0, 1.15), title=f"Glow of {name}", ylabel="area under the ROC curve")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %%
# Flat images as a whole score low under the Glow of digits: being simple is not enough.
#
# No score wins everywhere. Typicality finds some of the half digits, whose log-density is unusually
# high, and misses flat images among patches, whose log-densities vary widely. The correction by
# complexity finds both, and no longer tells digits from patches under the Glow of patches, because
# digits take more bytes than patches do.
#
# P-values
# --------
# A threshold needs calibration. :class:`~skflows.DensityOutlierDetector` turns scores into p-values
# by images that the flow has not seen: at most 5 % of new images of the same kind are flagged in
# expectation, whatever the score is. Calibration does not repair a score: half digits pass as
# digits by their log-density.
for name, flow in flows.items():
    for statistic in ("log_density", "typicality"):
        detector = DensityOutlierDetector(
            FrozenEstimator(flow), statistic=statistic, calibration="conformal", alpha=0.05
        ).fit(calibration[name])
        flagged = [f"{other} {np.mean(detector.predict(X) == -1):.0%}" for other, X in test.items()]
        print(f"Glow of {name}, {statistic}: {', '.join(flagged)}")

# %%
# Use the log-density for images that are unlike all others, and one of the other scores if images
# may be simpler than the training images. None of them proves that an image is normal: without
# knowing the other images, no score is best, and a score can also be high because the model is
# wrong there (Zhang et al., 2021).
#
# References
# ----------
# Nalisnick, Matsukawa, Teh, Gorur & Lakshminarayanan, "Do Deep Generative Models Know What They
# Don't Know?", 2018.
#
# Nalisnick, Matsukawa, Teh & Lakshminarayanan, "Detecting Out-of-Distribution Inputs to Deep
# Generative Models Using Typicality", 2019.
#
# Serrà, Álvarez, Gómez, Slizovskaia, Núñez & Luque, "Input Complexity and Out-of-Distribution
# Detection with Likelihood-Based Generative Models", 2020.
#
# Zhang, Goldstein & Ranganath, "Understanding Failures in Out-of-Distribution Detection with Deep
# Generative Models", 2021.
#
# Caterini & Loaiza-Ganem, "Entropic Issues in Likelihood-Based OOD Detection", 2022.
