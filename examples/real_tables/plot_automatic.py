"""
=================
Automatic density
=================

:class:`~skflows.AutoDensity` fits Gaussian mixtures, kernel densities, a copula and flows, and
weights them by their held-out likelihood. This example fits it to a real table, inspects its
components, compares it with a tuned Gaussian mixture and a single flow, and finds outliers.
"""

# %%
# The table has ten measurements of 569 tumours. A quarter of the rows is held out for the
# comparison. There is nothing to scale or to tune.
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import KFold, train_test_split

from skflows import AutoDensity

X = load_breast_cancer(as_frame=True).data.filter(like="mean")
X_train, X_test = train_test_split(X, random_state=0)

density = AutoDensity(random_state=0).fit(X_train)
print(f"log-density of the test rows: {density.score(X_test):.2f} nats")
print(f"estimate from cross-validation: {density.stacked_score_:.2f} nats")

# %%
# Components
# ----------
# The bars are the weights of the components in the mixture. The numbers are the mean held-out
# log-densities of the components alone. A component with a low score can have a weight if it is
# good on rows on which the others are poor.
from skflows.inspection import LeaderboardDisplay

LeaderboardDisplay.from_estimator(density)

# %%
# ``leaderboard_`` has the same as a table, with the fit time of each component.
import pandas as pd

board = pd.DataFrame(density.leaderboard_)
print(f"{len(board)} components tried, {(board['weight'] > 0).sum()} kept")
board.sort_values("score", ascending=False).head().round(3)

# %%
# Comparison
# ----------
# The peers are a Gaussian mixture whose size and regularisation are chosen by cross-validation, and
# a neural spline flow at its defaults. ``TransformedDensity`` maps the columns of the mixture
# through their quantiles and keeps its scores in the units of the table, so all scores are
# comparable. The table shows the mean log-density of the test rows, the difference from
# ``AutoDensity``, and the standard error of this difference.
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV

from skflows import NSFDensity, TransformedDensity

mixture = GridSearchCV(
    TransformedDensity(GaussianMixture(random_state=0)),
    {"estimator__n_components": [1, 2, 3, 4, 6, 8], "estimator__reg_covar": [1e-4, 1e-2]},
    cv=KFold(5, shuffle=True, random_state=0),
).fit(X_train)
print("mixture:", mixture.best_params_)
models = {
    "AutoDensity": density,
    "NSFDensity": NSFDensity(random_state=0).fit(X_train),
    "tuned GaussianMixture": mixture,
}
scores = pd.DataFrame({name: model.score_samples(X_test) for name, model in models.items()})
behind = scores.rsub(scores["AutoDensity"], axis=0)
pd.DataFrame({"score": scores.mean(), "behind": behind.mean(), "error": behind.sem()}).round(2)

# %%
# Outliers
# --------
# ``predict`` flags rows below a threshold, the lower Tukey fence of the held-out scores. The table
# shows two of the ten columns of each flagged row, and by how many nats it is below the threshold.
outliers = X_test[density.predict(X_test) == -1]
print(f"{len(outliers)} of {len(X_test)} test rows flagged")
columns = ["mean radius", "mean fractal dimension"]
outliers[columns].assign(nats_below=-density.decision_function(outliers)).round(3)

# %%
# Some outliers are at the edge of the cloud in these two columns. The others are unusual in other
# columns, or in the combination of several.
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
dots = ax.scatter(
    *X_test[columns].to_numpy().T, c=density.decision_function(X_test).clip(-10, None), s=15
)
ax.scatter(
    *outliers[columns].to_numpy().T, s=90, facecolor="none", edgecolor="red", label="outlier"
)
ax.set(xlabel=columns[0], ylabel=columns[1])
fig.colorbar(dots, label="log-density above the threshold (nats)")
ax.legend()
