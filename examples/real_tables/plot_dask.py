"""
=========================
A table on a Dask cluster
=========================

:class:`~skflows.dask.DaskDensity` trains a flow on a Dask collection. Each worker keeps its own
partitions, and the workers add up their gradients in each step. Scores and samples are lazy
collections.
"""

# %%
# Here, two workers are threads of this process. On a real cluster, give `Client` the address of the
# scheduler; nothing else changes.

import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster

cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
client = Client(cluster)

# %%
# The table has trips with a distance, a duration and a number of passengers, in six partitions.
# On a cluster it would come from `dd.read_parquet`.

rng = np.random.default_rng(0)
n = 6000
distance = rng.lognormal(1.0, 0.7, n)
speed = np.where(rng.uniform(size=n) < 0.4, rng.normal(45, 6, n), rng.normal(22, 4, n))
trips = pd.DataFrame(
    {
        "km": distance,
        "minutes": 60 * distance / speed.clip(8) + rng.gamma(2.0, 1.0, n),
        "passengers": 1 + rng.binomial(4, 0.15, n),
    }
)
table = dd.from_pandas(trips, npartitions=6)

# %%
# The parameters belong to the density. Its batch size counts the rows of all workers together.

from skflows import NSFDensity
from skflows.dask import DaskDensity

density = DaskDensity(NSFDensity(n_transforms=3, max_iter=30, random_state=0)).fit(table)
scores = density.score_samples(table)
scores

# %%
# Workers compute the scores partition by partition. The trips with the lowest scores:

table.assign(score=scores).nsmallest(5, "score").compute()

# %%
# `sample` is lazy too. Columns of whole numbers stay whole.

drawn = density.sample(2000, random_state=0)
drawn.describe().compute().round(1)

# %%
# The fitted density is an ordinary estimator, to save or to use without Dask.

import matplotlib.pyplot as plt

local = density.to_local()
print(f"{local.n_iter_} epochs, held-out score {local.best_validation_score_:.3f} nats")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, sharey=True, layout="constrained")
for ax, rows, title in zip(axes, (trips[:2000], drawn.compute()), ("trips", "drawn"), strict=True):
    ax.scatter(rows["km"], rows["minutes"], s=3, alpha=0.4)
    ax.set(title=title, xlabel="km", xlim=(0, 15))
axes[0].set(ylabel="minutes", ylim=(0, 45))
plt.show()

# %%

client.close()
cluster.close()
