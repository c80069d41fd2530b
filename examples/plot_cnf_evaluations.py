"""
=============================================
Continuous flows: evaluations along training
=============================================

A continuous flow pays for a score by the evaluation of its velocity, as often as the solver needs
it for its tolerance. How often that is depends on what the velocity was trained for, and grows
as it learns.
"""

# %%
# A callback that counts
# ----------------------
# At the end of an epoch, a callback may look at the flow as it stands, as if it had been fitted.
import matplotlib.pyplot as plt
from sklearn.datasets import make_moons

from skflows import CNFDensity

X = make_moons(500, noise=0.07, random_state=0)[0]
X_test = make_moons(2000, noise=0.07, random_state=1)[0]


class Evaluations:
    """Notes how many evaluations the score of a row takes, at so many times in a training."""

    def __init__(self, n_times):
        self.n_times = n_times

    def setup(self, estimator, context):
        self.every = estimator.max_iter // self.n_times
        self.shares, self.counts = [], []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        epoch = context.task_id + 1
        if context.task_name == "epoch" and epoch % self.every == 0:
            self.shares.append(epoch / estimator.max_iter)
            self.counts.append(fitted_estimator.n_function_evaluations_)


# %%
# Four trainings
# --------------
# Matching has many cheap epochs, the likelihood few dear ones: the axis is the part of the
# training that is done. Penalties on speed and derivatives (RNODE) hold the likelihood back from
# fields that are hard to solve, and after so short a training from some of the score as well; in
# matching, noise that is assigned by optimal transport does the same for nothing.
likelihood = {"training": "likelihood", "max_iter": 60, "n_steps": 6, "learning_rate_init": 0.02}
trainings = {
    "likelihood": likelihood,
    "likelihood, penalised": likelihood | {"kinetic_penalty": 0.05, "jacobian_penalty": 0.05},
    "matching": {"max_iter": 100},
    "matching by optimal transport": {"max_iter": 100, "coupling": "optimal_transport"},
}
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, params in trainings.items():
    counted = Evaluations(n_times=10)
    flow = CNFDensity(
        preprocessing="standardize",
        tolerance=1e-5,
        hidden_layer_sizes=(32, 32),
        dropout=0.0,
        contamination=None,
        random_state=0,
        **params,
    )
    flow.set_callbacks(counted).fit(X)
    ax.plot(counted.shares, counted.counts, label=f"{name}: score {flow.score(X_test):.2f}")
ax.set(xlabel="part of the training", ylabel="evaluations for a row", ylim=(0, None))
ax.legend()
