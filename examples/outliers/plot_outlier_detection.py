"""
=================================
Finding and explaining outliers
=================================

Which rows of a table should you check, and which of their values? In this example, errors are
planted in a table of patients. P-values and a false discovery rate select the rows, and
contributions of the columns explain them.
"""

# %%
# The table has ten measurements of 442 patients. Two thirds of the rows are known to be correct.
# Eight of the other rows get a typical data-entry error: a value is doubled or halved, two values
# are swapped, a unit is wrong, a digit is missing. Most of the wrong values are possible in
# themselves. They are odd in combination with the other values of the row.
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
correct, new = train_test_split(patients, test_size=1 / 3, random_state=0)
new = new.reset_index(drop=True)

new.loc[0, "HDL"] *= 2
new.loc[1, ["LDL", "HDL"]] = new.loc[1, ["HDL", "LDL"]].to_numpy()
new.loc[2, "body mass index"] += 20
new.loc[3, "cholesterol"] //= 2
new.loc[4, "log triglycerides"] = np.exp(new.loc[4, "log triglycerides"])  # no logarithm
new.loc[5, "glucose"] /= 18  # in mmol / l
new.loc[6, "blood pressure"] += 60
new.loc[7, "age"] = 7
is_wrong = np.arange(len(new)) < 8

# %%
# The detector wraps any density or outlier detector, here a Gaussian mixture. P-values are ranks
# among the scores of rows that are held out in five folds.
from sklearn.mixture import GaussianMixture

from skflows import DensityOutlierDetector, TransformedDensity
from skflows.inspection import ExplanationDisplay, OutlierScoreDisplay, PValueDisplay

density = TransformedDensity(
    GaussianMixture(2, random_state=0), preprocessing=("quantile", "whiten"), random_state=0
)
detector = DensityOutlierDetector(density, calibration="conformal", fdr=0.2, random_state=0)
detector.fit(correct)

# %%
# P-values of correct rows are uniform: sorted, they follow the diagonal. P-values of the errors are
# far below it. The scores on the right show by how many nats they differ.
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
PValueDisplay.from_estimator(detector, new, ax=left)
OutlierScoreDisplay.from_estimator(detector, new, np.where(is_wrong, -1, 1), ax=right)

# %%
# With ``fdr=0.2``, at most a fifth of the flags of ``predict`` are false, on average. A threshold
# of 5 % on the p-values would flag about 7 of the 140 correct rows in addition to the errors.
#
# The column with the lowest contribution to the score is the first one to check.
flagged = np.flatnonzero(detector.predict(new) == -1)
contributions = detector.explain(new.iloc[flagged])
oddest = contributions.argmin(axis=1)
pd.DataFrame(
    {
        "row": flagged,
        "p-value": detector.p_values(new.iloc[flagged]).round(4),
        "column": new.columns[oddest],
        "value": new.to_numpy()[flagged, oddest].round(1),
        "is wrong": is_wrong[flagged],
    }
)

# %%
# The bars show how the score changes when a similar correct row takes the values of the odd row,
# column by column. They add up to the score. The HDL value of row 0 is not extreme, but it does not
# fit the cholesterol and the ratio of the same row. Row 6 is one of three errors that are not
# flagged, because several correct rows are as odd. The explanation still finds the wrong column.
fig, axes = plt.subplots(2, 2, figsize=(14, 6), layout="constrained")
for ax, row in zip(axes.flat, (0, 1, 3, 6), strict=True):
    ExplanationDisplay.from_estimator(detector, new, row=row, max_features=5, ax=ax)
    ax.set_title(f"row {row}")

# %%
# Without known correct rows
# --------------------------
# The table can also be judged on its own. The empirical null is fitted to the more normal three
# quarters of the scores, ``trim`` leaves the least likely rows out of the fit, and ``p_values_``
# judges each row by a model that has not seen it. Without correct rows, there are more false flags.
table = pd.concat([new, correct], ignore_index=True)
unsupervised = DensityOutlierDetector(
    density, calibration="empirical_null", trim=0.05, fdr=0.2, random_state=0
).fit(table)
flags = np.flatnonzero(unsupervised.flag(unsupervised.p_values_))
print(f"flagged rows: {flags.tolist()} (rows 0 to 7 are wrong)")
