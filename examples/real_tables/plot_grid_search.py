"""
===========================
Grid search and pipelines
===========================

The score of a flow is the mean held-out log-density, so searches tune it without a ``scoring``
argument, alone or as the last step of a pipeline. Beware of scalers in front of a density: they
change the meaning of its scores.
"""

# %%
# The table has ten measurements of 569 tumours. The first step of the pipeline scales them.
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
# All candidates have the same scaler, so their scores are comparable. The folds are shuffled,
# because scikit-learn takes consecutive blocks otherwise, and many tables are sorted.
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
# Scalers change the scores
# -------------------------
# The flow scales its input itself, so all four scalers lead to the same density of the
# measurements. The reported scores differ widely, because each is a density of other columns.
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
    # The scaler divides each column by its scale. The density of X is the density of the scaled
    # columns divided by the product of the scales.
    scales = X_test.std() / pd.DataFrame(candidate[:-1].transform(X_test), columns=X.columns).std()
    scores.loc[name, "in the units of X"] = candidate.score(X_test) - np.log(scales).sum()
print(scores.round(2))

# %%
# A search over the scaler would choose the one that shrinks the columns most.
ax = scores.plot.barh(figsize=(7.5, 3.5), grid=True)
ax.set(xlabel="held-out log-density (nats per row)")
ax.invert_yaxis()
ax.figure.set_layout_engine("constrained")

# %%
# A search over models
# --------------------
# Without a scaler, all scores are in the units of X. You can then compare architectures, other
# densities and other values of ``preprocessing``.
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
# Joint training
# --------------
# ``FlowGridSearchCV`` has the parameters, results and scores of ``GridSearchCV``, but trains all
# folds, and all candidates of the same shapes, together. This search trains 18 flows at once. It
# needs a flow without a pipeline.
from skflows.model_selection import FlowGridSearchCV

grid = {"learning_rate_init": [0.003, 0.01, 0.03], "dropout": [0.0, 0.2]}
search = FlowGridSearchCV(MAFDensity(**small), grid, cv=cv).fit(X_train)
results = pd.DataFrame(search.cv_results_)
results[["param_dropout", "param_learning_rate_init", "mean_test_score", "rank_test_score"]]
