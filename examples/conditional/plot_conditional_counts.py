"""
==================
Predicting a count
==================

The age of an abalone is the number of rings in its shell. Counting them takes a microscope; sizes
and weights take a minute. A `FlowRegressor` detects that the number of rings is discrete: its
probabilities are exact, and quantiles and intervals end at whole numbers.
"""

# %%
# ``abalone.csv`` has 1,500 of the 4,177 rows of the table `Abalone
# <https://doi.org/10.24432/C55C7W>`_ in the UCI Machine Learning Repository (Nash, Sellers, Talbot,
# Cawthorn & Ford, 1994; licence CC BY 4.0). One of its columns is a category.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

X = pd.read_csv("abalone.csv")
y = X.pop("rings")
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_train.head()

# %%
# The columns of X need no preparation: the category becomes one-hot columns, and numbers are
# standardised.

from skflows import FlowRegressor
from skflows.inspection import (
    ConditionalDensityDisplay,
    PredictiveBandsDisplay,
    PredictiveCalibrationDisplay,
)

regressor = FlowRegressor(random_state=0).fit(X_train, y_train)
few = X_test.iloc[:3]
print("intervals of 80 % coverage:", regressor.predict_interval(few, coverage=0.8).tolist())
print("P(rings <= 9):", regressor.predict_distribution(few).cdf(9).round(2))
ConditionalDensityDisplay.from_estimator(regressor, few, y=y_test.iloc[:3])

# %%
# From the weight of the shell alone, the number of rings is less certain the heavier the shell is,
# and more so upwards than downwards.

shell = FlowRegressor(random_state=0).fit(X_train[["shell_weight"]], y_train)
PredictiveBandsDisplay.from_estimator(shell, X_test[["shell_weight"]], y=y_test)

# %%
# On the test rows, the distributions are compared with a Poisson regression, the usual model of
# counts. Its variance equals its mean, but the variance of the rings is mostly lower. The log-score
# is the mean log-probability of the true number; larger is better.

from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.linear_model import PoissonRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

encoder = make_column_transformer((OneHotEncoder(), ["sex"]), remainder=StandardScaler())
linear = make_pipeline(encoder, PoissonRegressor(alpha=1e-3, max_iter=1000)).fit(X_train, y_train)
poisson = stats.poisson(linear.predict(X_test))
log_probability = regressor.density_.log_prob(X_test, y_test)
predictions = {
    "FlowRegressor": (log_probability, regressor.predict_interval(X_test)),
    "PoissonRegressor": (poisson.logpmf(y_test), np.transpose(poisson.interval(0.9))),
}
for name, (log_probability, interval) in predictions.items():
    low, high = interval.T
    print(
        f"{name:16}  log-score {log_probability.mean():.2f}, intervals of 90 %: mean width "
        f"{np.mean(high - low):.1f}, coverage {np.mean((low <= y_test) & (y_test <= high)):.2f}"
    )

# %%
# The calibration on the test rows, as well as 375 rows can show it:

PredictiveCalibrationDisplay.from_estimator(regressor, X_test, y_test)
plt.show()
