"""
==========================================
A table with categories and missing values
==========================================

`TableDensity` models a DataFrame as it is. One fit answers questions about any columns given any
others. Here: the wine table of scikit-learn with its cultivars as texts, and a tenth of the cells
removed.
"""

# %%
import numpy as np
from sklearn.datasets import load_wine

from skflows import TableDensity

data = load_wine(as_frame=True)
table = data.data[["alcohol", "flavanoids", "color_intensity", "proline"]]
complete = table.assign(cultivar=data.target_names[data.target])
gaps = np.random.default_rng(0).uniform(size=complete.shape) < 0.1
table = complete.mask(gaps)

density = TableDensity(random_state=0).fit(table)
density.columns_

# %%
# The conditional distribution of a number, as quantiles, for each cultivar and colour.

import matplotlib.pyplot as plt
import pandas as pd

colour = np.linspace(1.5, 12, 60)
levels = [0.1, 0.5, 0.9]
for i, cultivar in enumerate(density.levels("cultivar")):
    given = pd.DataFrame({"color_intensity": colour.round(2)}).assign(cultivar=cultivar)
    low, median, high = density.quantile("alcohol", given, levels).T
    plt.fill_between(colour, low, high, color=f"C{i}", alpha=0.2)
    plt.plot(colour, median, color=f"C{i}", label=cultivar)
    own = table["cultivar"] == cultivar
    plt.scatter(table["color_intensity"][own], table["alcohol"][own], s=8, color=f"C{i}")
plt.xlabel("colour intensity")
plt.ylabel("alcohol")
plt.legend()
plt.title("Median and central 80 % given colour and cultivar")
plt.show()

# %%
# How well are missing values filled in? For numbers, the error in standard deviations, beside the
# error of the column mean; for the cultivar, the fraction that is right.

filled = density.impute(table, random_state=0)
for j, name in enumerate(complete):
    own, truth = gaps[:, j], complete[name]
    if name == "cultivar":
        print(f"{name}: {(filled[name] == truth)[own].mean():.0%} right")
        continue
    error = (filled[name].astype(float) - truth)[own].std() / truth.std()
    baseline = (table[name].mean() - truth)[own].std() / truth.std()
    print(f"{name}: error {error:.2f}, of the mean {baseline:.2f}")
