"""
========================================
A flow in a pipeline under a grid search
========================================

The score of a flow is the mean held-out log-density. Searches therefore tune it without a
``scoring`` argument, alone or as the last step of a pipeline. One trap deserves a picture: a
scaler in front of a density changes what its scores mean.
"""

# %%
# Ten measurements of 569 tumours, and a pipeline whose first step scales them.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from skflows import MAFDensity

X = load_breast_cancer(as_frame=True).data.filter(like="mean")
X_train, X_test = train_test_split(X, random_state=0)

flow = MAFDensity(learning_rate_init=0.01, max_iter=60, random_state=0)
pipeline = Pipeline([("scale", StandardScaler()), ("flow", flow)])

# %%
# A search
# --------
# All candidates sit behind the same scaler, so their scores can be compared with each other. The
# folds are shuffled: without that, scikit-learn cuts a table into consecutive blocks, and many
# tables are sorted by something.
cv = KFold(3, shuffle=True, random_state=0)
search = GridSearchCV(
    pipeline,
    {"flow__n_transforms": [1, 2, 4], "flow__dropout": [0.0, 0.2]},
    cv=cv,
)
search.fit(X_train)
print("best:", search.best_params_)

table = pd.DataFrame(search.cv_results_).pivot(
    index="param_flow__dropout", columns="param_flow__n_transforms", values="mean_test_score"
)
fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
image = ax.imshow(table, cmap="Blues")
for (i, j), score in np.ndenumerate(table.to_numpy()):
    dark = score > table.to_numpy().mean()
    ax.text(j, i, f"{score:.2f}", ha="center", va="center", color="white" if dark else "black")
ax.set_xticks(range(table.shape[1]), table.columns)
ax.set_yticks(range(table.shape[0]), table.index)
ax.set(xlabel="n_transforms", ylabel="dropout", title="Held-out log-density (scaled columns)")

# %%
# The trap
# --------
# Now vary the scaler. The flow standardises its input anyway, so all four choices lead to the
# same density of the measurements. Their scores differ widely all the same, because each is the
# density of other columns.
scalers = {
    "no scaler": "passthrough",
    "StandardScaler": StandardScaler(),
    "RobustScaler": RobustScaler(),
    "MinMaxScaler": MinMaxScaler(),
}
scores = pd.DataFrame(index=scalers, columns=["as reported", "in the units of X"], dtype=float)
for name, scaler in scalers.items():
    candidate = pipeline.set_params(scale=scaler).fit(X_train)
    scores.loc[name, "as reported"] = candidate.score(X_test)
    # What the scaler divided each column by; the density of X is that of the scaled columns over
    # their product.
    scales = X_test.std() / pd.DataFrame(candidate[:-1].transform(X_test), columns=X.columns).std()
    scores.loc[name, "in the units of X"] = candidate.score(X_test) - np.log(scales).sum()
print(scores.round(2))

# %%
# A search over the scaler would pick `MinMaxScaler`, for no better reason than that it shrinks
# the columns most.
ax = scores.plot.barh(figsize=(7.5, 3.5), grid=True)
ax.set(xlabel="held-out log-density (nats per row)")
ax.invert_yaxis()
ax.figure.set_layout_engine("constrained")

# %%
# So leave the scaler out. The flow standardises the columns itself and counts the
# log-determinant, and then everything compares: with another preprocessing, another architecture,
# or a mixture model on the same rows.
from sklearn.mixture import GaussianMixture

from skflows import NSFDensity, RealNVPDensity

small = {"n_transforms": 2, "learning_rate_init": 0.01, "max_iter": 60, "random_state": 0}
models = Pipeline([("model", MAFDensity())])
search = GridSearchCV(
    models,
    {
        "model": [
            MAFDensity(**small),
            RealNVPDensity(**small),
            NSFDensity(**small),
            GaussianMixture(3, reg_covar=1e-6, random_state=0),
        ]
    },
    cv=cv,
)
search.fit(X_train)
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    print(f"{type(params['model']).__name__:16} {score:6.2f}")

# %%
# Searches that train together
# ----------------------------
# A flow without a pipeline around it can be searched faster: `FlowGridSearchCV` has the parameters,
# the results and the scores of `GridSearchCV`, but all folds, and all candidates of the same
# shapes, train at once. These are 18 flows in one training.
from skflows.model_selection import FlowGridSearchCV

grid = {"learning_rate_init": [0.003, 0.01, 0.03], "dropout": [0.0, 0.2]}
search = FlowGridSearchCV(MAFDensity(**small), grid, cv=cv).fit(X_train)
results = pd.DataFrame(search.cv_results_)
results[["param_dropout", "param_learning_rate_init", "mean_test_score", "rank_test_score"]]
