"""
======================================
A classifier that says "I don't know"
======================================

A classifier chooses one of the classes that it knows, also for a row that belongs to none of them.
`DensityClassifier` has a density for each class: where all of them are low, it can reject the row.
"""

# %%
# Images of digits, reduced to 20 components. The classifier does not see the digits 8 and 9 in
# training.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

images, labels = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test, _, shown = train_test_split(
    images, labels, images, test_size=0.4, random_state=0
)
is_known = y_train < 8
pca = PCA(20, random_state=0).fit(X_train[is_known])
X_train, y_train = pca.transform(X_train[is_known]), y_train[is_known]
X_test = pca.transform(X_test)

# %%
# Any density works. A normal suits classes of about 130 rows, of which 30 % are held out for the
# p-values. A row is rejected if, for each class, 95 % of the held-out rows are more likely.

from sklearn.mixture import GaussianMixture

from skflows import DensityClassifier, TransformedDensity

density = TransformedDensity(GaussianMixture(reg_covar=0.1), preprocessing="standardize")
classifier = DensityClassifier(density, reject=0.05, calibration=0.3, random_state=0)
classifier.fit(X_train, y_train)
predicted = classifier.predict(X_test)
is_new = y_test >= 8
is_rejected = predicted == -1
print(f"rejected: {is_rejected[is_new].mean():.0%} of new digits, ", end="")
print(f"{is_rejected[~is_new].mean():.0%} of known ones")
is_answered = ~is_rejected & ~is_new
print(f"accuracy on known digits: {(predicted == y_test)[is_answered].mean():.1%}")

# %%
# How well does the largest p-value tell known digits from new ones? Compared with the largest
# probability of a random forest:

forest = RandomForestClassifier(random_state=0).fit(X_train, y_train)
confidence = {
    "p-value": classifier.p_values(X_test).max(axis=1),
    "forest": forest.predict_proba(X_test).max(axis=1),
}
for name, values in confidence.items():
    print(f"{name}: area under the ROC curve {roc_auc_score(~is_new, values):.3f}")

# %%
# `predict_set` returns all classes that a row may belong to: none for half of the new digits, and
# several where the image is ambiguous.

sets = classifier.predict_set(X_test, coverage=0.95)
print("classes in the set, known digits:", np.bincount(sets[~is_new].sum(axis=1)))
print("classes in the set, new digits:  ", np.bincount(sets[is_new].sum(axis=1)))

_, axes = plt.subplots(2, 6, figsize=(8, 3), layout="constrained")
chosen = [*np.flatnonzero(is_new)[:6], *np.flatnonzero(~is_new)[:6]]
for ax, i in zip(axes.ravel(), chosen, strict=True):
    ax.imshow(shown[i].reshape(8, 8), cmap="gray_r")
    ax.set_title("I don't know" if is_rejected[i] else f"a {predicted[i]}", fontsize=9)
    ax.set_axis_off()
plt.show()
