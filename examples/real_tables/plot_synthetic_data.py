"""
==============
Synthetic data
==============

How close are samples to real rows? A classifier is trained to tell them apart. If it does no better
than chance (an area under the ROC curve of 0.5), it has found no difference.
"""

# %%
# The diabetes table has 442 rows. Six of its ten columns are whole numbers, and one has two values.
# Half of the rows train the models, and samples are compared with the other half.

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

X = load_diabetes(scaled=False, as_frame=True).data
X_train, X_test = train_test_split(X, test_size=0.5, random_state=0)
X_train.head()

# %%
# Four models of the same rows: the automatic density, a single flow, a Gaussian mixture whose
# number of components is chosen by cross-validation, and a Gaussian copula. The first two detect
# the discrete columns themselves.

from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from skflows import AutoDensity, NSFDensity

n = len(X_test)
samples = {
    "AutoDensity": AutoDensity(random_state=0).fit(X_train).sample(n, random_state=0),
    "NSFDensity": NSFDensity(random_state=0).fit(X_train).sample(n, random_state=0),
}

scaler = StandardScaler().fit(X_train)
search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 2, 4, 8]})
mixture = search.fit(scaler.transform(X_train)).best_estimator_
samples["GaussianMixture"] = scaler.inverse_transform(mixture.sample(n)[0])

margins = QuantileTransformer(n_quantiles=100, output_distribution="normal", random_state=0)
latent = margins.fit_transform(X_train)
normal = np.random.default_rng(0).multivariate_normal(latent.mean(0), np.cov(latent.T), n)
samples["Gaussian copula"] = margins.inverse_transform(normal)

# %%
# The classifier is a gradient boosting of trees, scored by cross-validation. Other real rows
# instead of samples show what chance looks like.

from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score


def distinguishability(rows):
    """Return the area under the ROC curve of a classifier of rows against the test rows."""
    both = np.vstack([X_test, rows])
    is_real = np.repeat([1, 0], [n, len(rows)])
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    classifier = HistGradientBoostingClassifier(random_state=0)
    return cross_val_score(classifier, both, is_real, scoring="roc_auc", cv=cv).mean()


scores = {name: distinguishability(rows) for name, rows in samples.items()}
scores["other real rows"] = distinguishability(X_train)
for name, score in scores.items():
    print(f"{name:16} {score:.2f}")

# %%
# Its values give the mixture away: it draws ages with many decimals and a sex of 1.37. The copula
# keeps the margins, but models linear dependence only. Here are samples of the automatic density
# beside the test rows:

import matplotlib.pyplot as plt

from skflows.inspection import SamplesDisplay

columns = ["age", "bmi", "s1", "s2"]
indices = [X.columns.get_loc(column) for column in columns]
display = SamplesDisplay(
    X=X_test[columns].to_numpy(),
    samples=samples["AutoDensity"][:, indices],
    feature_names=columns,
    estimator_name="AutoDensity",
).plot()
plt.show()
