"""
=================
Anomaly detection
=================

Fit a density to normal rows only, then find abnormal rows. Here benign tumours are normal, and
malignant tumours are to be found. The labels are used for evaluation only.
"""

# %%
# The table has 30 measurements of cell nuclei for 569 tumours. 70 % of the benign rows are for
# training. The other benign rows and all malignant rows are for testing.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

data = load_breast_cancer(as_frame=True)
benign = data.data[data.target == 1]
malignant = data.data[data.target == 0]
X_train, normal = train_test_split(benign, test_size=0.3, random_state=0)

# %%
# 249 training rows are few for 30 columns. A small flow with much dropout and early stopping
# overfits less. ``contamination=0.05`` sets the threshold at the 5 % quantile of the training
# scores. More than 5 % of new normal rows are below it, because the flow has not seen them. `fit`
# warns about this if it shows on the held-out rows, as it does here.
from skflows import RealNVPDensity

flow = RealNVPDensity(
    n_transforms=2,
    dropout=0.3,
    validation_fraction=0.2,
    contamination=0.05,
    random_state=0,
)
flow.fit(X_train)

for name, rows in {"benign": normal, "malignant": malignant}.items():
    print(f"{name:10} {len(rows)} rows, {np.mean(flow.predict(rows) == -1):.0%} flagged")

# %%
# The decision function is the log-density minus the threshold. The axis is linear between -50 and
# 50 nats and logarithmic beyond.
fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
bins = np.concatenate([-np.geomspace(1e4, 50, 25), np.linspace(-50, 50, 25)[1:]])
for name, rows in {"benign": normal, "malignant": malignant}.items():
    ax.hist(flow.decision_function(rows), bins, alpha=0.6, label=name)
ax.axvline(0, color="black", linestyle="--", label="threshold")
ax.set_xscale("symlog", linthresh=50)
ax.set_xticks([-1e4, -1e3, -1e2, 0])
ax.set(xlim=(-1e4, 60), xlabel="decision function (nats)", ylabel="rows")
ax.legend()

# %%
# A ranking needs no threshold. The area under the ROC curve is the probability that a malignant row
# scores lower than a benign row. The peers are three detectors of scikit-learn, with a scaler for
# detectors that depend on distances.
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

detectors = {
    "RealNVPDensity": flow,
    "IsolationForest": IsolationForest(random_state=0),
    "LocalOutlierFactor": make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True)),
    "GaussianMixture": make_pipeline(
        StandardScaler(), GaussianMixture(3, reg_covar=0.01, random_state=0)
    ),
}
rows = np.vstack([normal, malignant])
is_malignant = np.repeat([0, 1], [len(normal), len(malignant)])

fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
for name, detector in detectors.items():
    detector.fit(X_train.to_numpy())
    RocCurveDisplay.from_predictions(
        is_malignant, -detector.score_samples(rows), name=name, ax=ax, plot_chance_level=False
    )
ax.set(xlabel="benign rows flagged", ylabel="malignant rows found")

# %%
# The four are close on this table, and a difference of 0.01 is not significant on 320 rows. The
# advantage of a density is the scale of its scores: a row that scores 10 nats lower than another is
# :math:`e^{10}`, about 22,000, times less likely.
#
# Explanation
# -----------
# Which measurements make a row abnormal? Replace each of its values in turn by the median of the
# normal rows, and compute the increase of the log-density. Here is the malignant row with the
# median score. (:class:`~skflows.DensityOutlierDetector` has a better method, ``explain``.)
scores = flow.score_samples(malignant.to_numpy())
row = malignant.to_numpy()[np.argsort(scores)[len(scores) // 2]]
repaired = np.where(np.eye(len(row), dtype=bool), X_train.median().to_numpy(), row)
recovery = flow.score_samples(repaired) - flow.score_samples([row])

top = np.argsort(recovery)[-6:]
fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.barh(malignant.columns[top], recovery[top])
ax.set(xlabel="increase of the log-density (nats)")
