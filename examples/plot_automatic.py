"""
=====================
The automatic density
=====================

:class:`~skflows.AutoDensity` has nothing to choose: it fits mixtures, kernels, a copula and flows,
and weights them by what they say of rows they have not seen. Here it is fitted to a real table,
looked into, compared with a tuned Gaussian mixture and with a single flow, and asked for outliers.
"""

# %%
# Ten measurements of 569 tumours; a quarter of the rows is kept for the comparison. There is
# nothing to scale or to tune.
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import KFold, train_test_split

from skflows import AutoDensity

X = load_breast_cancer(as_frame=True).data.filter(like="mean")
X_train, X_test = train_test_split(X, random_state=0)

density = AutoDensity(random_state=0).fit(X_train)
print(f"log-density of new rows: {density.score(X_test):.2f} nats")
print(f"what the held-out rows had promised: {density.stacked_score_:.2f} nats")

# %%
# What it is made of
# ------------------
# Each bar is the weight of a component in the mixture, and the number at it the mean log-density
# of held-out rows under that component alone. The two need not agree: weight goes to what the
# others do not know.
from skflows.inspection import LeaderboardDisplay

LeaderboardDisplay.from_estimator(density)

# %%
# ``leaderboard_`` holds the same as a table, with the seconds that each component took.
import pandas as pd

board = pd.DataFrame(density.leaderboard_)
print(f"{len(board)} components tried, {(board['weight'] > 0).sum()} kept")
board.sort_values("score", ascending=False).head().round(3)

# %%
# Beside a tuned mixture and a flow
# ---------------------------------
# A Gaussian mixture with its size and its regularisation chosen by cross-validation, and a neural
# spline flow at its defaults. `TransformedDensity` standardises the columns for the mixture, and
# keeps its scores in the units of the table, so that all of them compare. The table shows the mean
# log-density of the test rows, how far it lies below that of `AutoDensity`, and the standard error
# of this difference.
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
# ``predict`` flags rows whose log-density is below a threshold, the lower Tukey fence of held-out
# scores. These are the new rows below it, in two of their ten columns, and by how many nats.
outliers = X_test[density.predict(X_test) == -1]
print(f"{len(outliers)} of {len(X_test)} test rows flagged")
columns = ["mean radius", "mean fractal dimension"]
outliers[columns].assign(nats_below=-density.decision_function(outliers)).round(3)

# %%
# In a picture of the two columns, a row at the rim of the cloud is easy to call odd; one
# within it is odd in its other values, or in their company.
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
