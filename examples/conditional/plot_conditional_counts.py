"""
=========================
Predicting a whole number
=========================

The progression of diabetes in 442 patients is a whole number from 25 to 346. A `FlowRegressor`
finds that y is discrete: its probabilities are exact, and quantiles and intervals end at whole
numbers.
"""

# %%
# The table has ten columns, one of which is a category.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
X["sex"] = X["sex"].map({1: "a", 2: "b"})
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_train.head()

# %%
# `bounds` keeps the flow from putting probability on values that cannot occur. The columns of X
# need no preparation: the category becomes one-hot columns, and numbers are standardised.
# No value is above the largest one seen, 346, whose probability is that of all from there on.

from skflows import ConditionalDensity, FlowRegressor, NSFDensity
from skflows.inspection import (
    ConditionalDensityDisplay,
    PredictiveBandsDisplay,
    PredictiveCalibrationDisplay,
)

flow = NSFDensity(n_transforms=2, dropout=0.2, bounds=[(0, None)])
regressor = FlowRegressor(ConditionalDensity(flow), random_state=0).fit(X_train, y_train)
few = X_test.iloc[:3]
print("intervals of 80 % coverage:", regressor.predict_interval(few, coverage=0.8).tolist())
print("P(y <= 100):", regressor.predict_distribution(few).cdf(100).round(2))
ConditionalDensityDisplay.from_estimator(regressor, few, y=y_test.iloc[:3])

# %%
# Along the body-mass index, with the other columns at their medians, the prediction rises, and so
# do its bounds. The dots are all patients, whose other columns differ.

PredictiveBandsDisplay.from_estimator(regressor, X_train, "bmi", y=y_train)

# %%
# On the test rows, the distributions are compared with those of a linear regression, which has one
# normal for all rows. The continuous ranked probability score is twice the mean pinball loss over
# all quantiles; smaller is better.

from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

levels = np.linspace(0.05, 0.95, 19)


def crps(quantiles):
    """Return the mean score of rows of quantiles."""
    error = y_test.to_numpy()[:, None] - quantiles
    return 2 * np.maximum(levels * error, (levels - 1) * error).mean()


encoder = make_column_transformer((OneHotEncoder(), ["sex"]), remainder="passthrough")
linear = make_pipeline(encoder, LinearRegression()).fit(X_train, y_train)
spread = np.std(y_train - linear.predict(X_train))
normal = linear.predict(X_test)[:, None] + spread * stats.norm.ppf(levels)
print("FlowRegressor:   ", crps(regressor.predict_quantiles(X_test, levels)).round(1))
print("LinearRegression:", crps(normal).round(1))

# %%
# The calibration on the test rows, within what 111 rows can tell:

PredictiveCalibrationDisplay.from_estimator(regressor, X_test, y_test)
plt.show()
