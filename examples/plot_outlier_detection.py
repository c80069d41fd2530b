"""
=============================
Outliers that one can act on
=============================

A score alone leaves two questions open: which rows to look at, and what to look at in them. Here
mistakes are planted in a table of patients; p-values and a false discovery rate answer the first
question, parts of the score the second.
"""

# %%
# Ten measurements of 442 patients. Two thirds are known to be sound. In eight of the other rows
# something goes wrong that could happen to anybody who types: a value is doubled or halved, two
# are swapped, a unit is mistaken, a digit is lost. Most of these values are possible, and some are
# even common; it is beside the rest of their row that they cannot be.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

patients = load_diabetes(as_frame=True, scaled=False).data
patients.columns = [
    *("age", "sex", "body mass index", "blood pressure", "cholesterol", "LDL", "HDL"),
    *("cholesterol / HDL", "log triglycerides", "glucose"),
]
sound, new = train_test_split(patients, test_size=1 / 3, random_state=0)
new = new.reset_index(drop=True)

new.loc[0, "HDL"] *= 2
new.loc[1, ["LDL", "HDL"]] = new.loc[1, ["HDL", "LDL"]].to_numpy()
new.loc[2, "body mass index"] += 20
new.loc[3, "cholesterol"] //= 2
new.loc[4, "log triglycerides"] = np.exp(new.loc[4, "log triglycerides"])  # no logarithm
new.loc[5, "glucose"] /= 18  # in mmol / l
new.loc[6, "blood pressure"] += 60
new.loc[7, "age"] = 7
wrong = np.arange(len(new)) < 8

# %%
# The detector wraps any density. This mixture, on columns that are first taken through their
# quantiles and whitened, fits in a second. (The default, ``AutoDensity``, is the better density,
# and takes about half a minute.) Five folds hold out the rows against which p-values are ranks.
from sklearn.mixture import GaussianMixture

from skflows import DensityOutlierDetector, TransformedDensity
from skflows.inspection import ExplanationDisplay, OutlierScoreDisplay, PValueDisplay

density = TransformedDensity(
    GaussianMixture(2, random_state=0), preprocessing=("quantile", "whiten"), random_state=0
)
detector = DensityOutlierDetector(density, calibration="conformal", fdr=0.2, random_state=0)
detector.fit(sound)

# %%
# P-values of sound rows are spread evenly: sorted, they follow the diagonal. Those of the mistakes
# lie far below it. The scores beside them show how far, in nats.
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
PValueDisplay.from_estimator(detector, new, ax=left)
OutlierScoreDisplay.from_estimator(detector, new, np.where(wrong, -1, 1), ax=right)

# %%
# ``predict`` flags rows so that, on average, at most a fifth of the flags is false. A threshold of
# 5 % on each row would flag about 7 sound ones of 140 besides the mistakes, however few these are.
#
# For each flagged row, the parts of its score tell which column to look at first.
flagged = np.flatnonzero(detector.predict(new) == -1)
parts = detector.explain(new.iloc[flagged])
oddest = parts.argmin(axis=1)
pd.DataFrame(
    {
        "row": flagged,
        "p-value": detector.p_values(new.iloc[flagged]).round(4),
        "look at": new.columns[oddest],
        "value": new.to_numpy()[flagged, oddest].round(1),
        "a mistake": wrong[flagged],
    }
)

# %%
# The bars are what each column adds to the score when a similar sound row takes the values of the
# odd one, column by column. They add up to the score. Not all of these values are extreme: the HDL
# of row 0 would be fine for somebody else, but not with this cholesterol and this ratio. Row 6 is
# one of the three mistakes that are not flagged. It is as odd as one sound row in fifteen, and so
# it stays below the line; yet whoever asks is told the right column.
fig, axes = plt.subplots(2, 2, figsize=(12, 6), layout="constrained")
for ax, row in zip(axes.flat, (0, 1, 3, 6), strict=True):
    ExplanationDisplay.from_estimator(detector, new, row=row, max_features=5, ax=ax)
    ax.set_title(f"row {row}")

# %%
# Without rows that are known to be sound, the table itself has to serve. An empirical null takes
# the more normal three quarters of the scores for what is normal, ``trim`` keeps the least likely
# rows out of the fit, and ``p_values_`` judges each row by a model that had not seen it.
whole = pd.concat([new, sound], ignore_index=True)
itself = DensityOutlierDetector(
    density, calibration="empirical_null", trim=0.05, fdr=0.2, random_state=0
).fit(whole)
flags = np.flatnonzero(itself.flag(itself.p_values_))
print(f"flagged: {flags.tolist()}; the mistakes are 0 to 7")
