"""
===============================
Where the log-likelihood fails
===============================

A row that is unlike all others has a low density. The reverse does not hold: rows of less variety
than the data can lie where the density is highest, and no row of the data ever does. This page
makes such rows of handwritten digits, and shows what typicality repairs, and what it does not.
"""

# %%
# The digits are 8 x 8 pixels with 17 shades. One part of them trains a flow, one part is kept to
# calibrate p-values, and one is the test. Two other kinds of rows are made of the test digits: they
# are turned upside down, or faded halfway to the mean digit.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X_train, rest = train_test_split(load_digits().data, train_size=900, random_state=0)
X_calibrate, X_test = train_test_split(rest, test_size=400, random_state=0)
mean = X_train.mean(axis=0)

rows = {
    "digits": X_test,
    "upside down": X_test.reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64),
    "faded": np.round(mean + 0.5 * (X_test - mean)),
}

fig, axes = plt.subplots(3, 8, figsize=(7, 3), layout="constrained")
for line, (name, some) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(line, some[:8].reshape(-1, 8, 8), strict=True):
        ax.imshow(image, cmap="Greys", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")

# %%
# A flow, and the log-density that it gives each row. Digits that are upside down score low, as
# they should. The faded ones score *higher* than the digits that the flow was fitted to.
from skflows import RealNVPDensity

flow = RealNVPDensity(
    n_transforms=4, preprocessing="whiten", dropout=0.2, max_iter=30, random_state=0
)
flow.fit(X_train)

fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name, some in rows.items():
    ax.hist(flow.score_samples(some), np.linspace(-250, -70, 61), alpha=0.6, label=name)
ax.set(xlabel="log-density (nats)", ylabel="rows")
ax.legend()

# %%
# This is no failure of the flow: a mixture or a single normal density says the same. In 64
# columns the peak of a density is its least populated place. The rows of the data lie in a shell
# around it, since so little of the space is near the peak, and fading moves a row inwards.
#
# Typicality asks for the shell instead: :math:`-|\log p(x) - E \log p|`, where the expectation is
# the mean over rows that the flow has not seen. Both scores go through the same calibration, and
# flag what has a p-value of at most 0.05. The area under the ROC curve needs no such threshold: it
# is the chance that a row of the other kind scores lower than a digit does.
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score

from skflows import DensityOutlierDetector

detectors = {
    statistic: DensityOutlierDetector(
        FrozenEstimator(flow), statistic=statistic, calibration="conformal", alpha=0.05
    ).fit(X_calibrate)
    for statistic in ("log_density", "typicality")
}
others = ["upside down", "faded"]

fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for shift, (statistic, detector) in zip((-0.2, 0.2), detectors.items(), strict=True):
    digits = detector.score_samples(X_test)
    scores = [detector.score_samples(rows[name]) for name in others]
    areas = [roc_auc_score(np.repeat([1, 0], 400), np.append(digits, some)) for some in scores]
    flagged = [100 * np.mean(detector.predict(some) == -1) for some in rows.values()]
    for ax, heights, fmt in zip(axes, (areas, flagged), ("%.2f", "%.0f %%"), strict=True):
        bars = ax.bar(np.arange(len(heights)) + shift, heights, 0.4, label=statistic)
        ax.bar_label(bars, fmt=fmt)
for ax, names, level in zip(axes, (others, list(rows)), (0.5, 5), strict=True):
    ax.axhline(level, color="black", linestyle="--", linewidth=1)
    ax.set_xticks(range(len(names)), names)
axes[0].set(ylabel="area under the ROC curve", ylim=(0, 1.1))
axes[1].set(ylabel="rows flagged (%)", ylim=(0, 100))
axes[1].legend()

# %%
# Typicality turns the ranking of the faded digits round, from the wrong side of one half to the
# right one. Yet at 5 % it flags hardly any: the log-densities of the digits themselves spread far
# to the low side, so that a distance that would be odd on the high side is common. And it is no
# free lunch: of what is merely unlikely, such as digits upside down, it finds less.
#
# Many rows together say much more. ``batch_p_value`` compares the mean log-density of a batch with
# those of as many calibration rows, on both sides. Here is the fraction of random batches with a
# p-value of at most 0.05.
sizes = [1, 2, 4, 8, 16]
rng = np.random.default_rng(0)
detector = detectors["log_density"]

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, some in rows.items():
    found = [
        np.mean(
            [
                detector.batch_p_value(rng.choice(some, size), n_resamples=100) <= 0.05
                for _ in range(40)
            ]
        )
        for size in sizes
    ]
    ax.plot(sizes, 100 * np.array(found), "o-", label=name)
ax.axhline(5, color="black", linestyle="--", linewidth=1)
ax.set_xscale("log", base=2)
ax.set_xticks(sizes, sizes)
ax.set(xlabel="rows in a batch", ylabel="batches flagged (%)")
ax.legend()

# %%
# What remains
# ------------
# All this looks at one number, the log-density. Rows that happen to have the usual one pass every
# such test, single or in batches, whatever they look like. Another flow, on standardised rather
# than whitened columns, shows it: for that one the faded digits are about as likely as the digits.
other = RealNVPDensity(n_transforms=4, dropout=0.2, max_iter=30, random_state=0).fit(X_train)
for name, some in rows.items():
    scores = other.score_samples(some)
    print(
        f"{name:12} mean log-density {scores.mean():7.1f}, standard deviation {scores.std():5.1f}"
    )

# %%
# So use the log-density where outliers are far from everything, typicality or batches where they
# may be too ordinary, and neither as a proof that a row is normal.
