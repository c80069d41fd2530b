"""
=========================================
Out-of-distribution rows of high density
=========================================

A row that is unlike all others has a low density. The converse is false: rows with less variation
than the data can lie where the density is highest. This example makes such rows from handwritten
digits, and shows what typicality and batch tests detect.
"""

# %%
# The digits have 8 x 8 pixels with 17 grey levels. One part trains a flow, one part calibrates
# p-values, and one part is for testing. Two other kinds of rows are made from the test digits:
# upside down, and faded halfway to the mean digit.
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
# Log-density
# -----------
# Fit a flow and score the rows. Digits upside down score low, as expected. The faded digits score
# *higher* than the others.
from skflows import RealNVPDensity

settings = {"n_transforms": 4, "dropout": 0.2, "max_iter": 30, "random_state": 0}
flow = RealNVPDensity(preprocessing="whiten", **settings).fit(X_train)

fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name, some in rows.items():
    ax.hist(flow.score_samples(some), np.linspace(-250, -70, 61), alpha=0.6, label=name)
ax.set(xlabel="log-density (nats)", ylabel="rows")
ax.legend()

# %%
# Typicality
# ----------
# This is not a failure of the flow. The samples of a Gaussian in 64 dimensions never come near its
# mode: most of the mass is in a shell around it. Fading moves a row from the shell towards the
# mode.
#
# Typicality is :math:`-|\log p(x) - E \log p|`, where the expectation is the mean over rows that
# the flow has not seen. Here both scores are calibrated in the same way, and rows with a p-value of
# at most 0.05 are flagged. The area under the ROC curve needs no threshold.
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
# With typicality, the faded digits rank as outliers. Few are flagged at 5 %, because the
# log-densities of the digits themselves have a long lower tail, so large distances from the mean
# are common. Typicality finds fewer of the digits upside down, whose density is low.
#
# Batches
# -------
# Many rows together give more evidence. ``batch_p_value`` compares the mean rank of a batch with
# the mean ranks of random batches of calibration rows, two-sided. The picture shows the fraction of
# random batches with a p-value of at most 0.05.
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
# Other coordinates
# -----------------
# All these tests use one number, the log-density. Rows with a usual log-density pass them, whatever
# they look like. And the log-density depends on the coordinates in which the model is smooth: with
# another preprocessing, the faded digits can be as likely as the digits, or less likely.
for preprocessing in ("whiten", "standardize", "quantile"):
    other = RealNVPDensity(preprocessing=preprocessing, **settings).fit(X_train)
    means = [f"{name} {other.score_samples(some).mean():.0f}" for name, some in rows.items()]
    print(f"{preprocessing:12} mean log-density: {', '.join(means)}")

# %%
# Use the log-density for outliers that are far from the data, and typicality or batches for rows
# with too little variation. None of them proves that a row is normal.
