"""
=============================================
Continuous flows: evaluations during training
=============================================

The time of a score is proportional to the number of evaluations of the velocity field that the
solver needs for its tolerance. This number depends on the training objective and grows during
training.
"""

# %%
# A callback
# ----------
# At the end of an epoch, a callback can use the flow as if it were fitted. This one records the
# mean number of evaluations for the score of a row.
import matplotlib.pyplot as plt
from sklearn.datasets import make_moons

from skflows import CNFDensity

X = make_moons(500, noise=0.07, random_state=0)[0]
X_test = make_moons(2000, noise=0.07, random_state=1)[0]


class EvaluationCounter:
    """Record the evaluations for the score of a row ``n_times`` during training."""

    def __init__(self, n_times):
        self.n_times = n_times

    def setup(self, estimator, context):
        self.every = estimator.max_iter // self.n_times
        self.fractions, self.counts = [], []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        epoch = context.task_id + 1
        if context.task_name == "epoch" and epoch % self.every == 0:
            self.fractions.append(epoch / estimator.max_iter)
            self.counts.append(fitted_estimator.n_function_evaluations_)


# %%
# Four objectives
# ---------------
# Flow matching has many cheap epochs, and training by likelihood few expensive ones, so the x axis
# is the fraction of the training. Penalties on the velocity and its derivatives (RNODE) prevent
# fields that are hard to solve, and optimal transport does so in flow matching. After such a short
# training, both also reduce the score. A curve that ends before 1 is a training that stopped early.
likelihood = {"objective": "likelihood", "max_iter": 40, "n_steps": 6, "learning_rate_init": 0.02}
trainings = {
    "likelihood": likelihood,
    "likelihood, penalties": likelihood | {"kinetic_penalty": 0.05, "jacobian_penalty": 0.05},
    "flow matching": {"max_iter": 150},
    "flow matching, optimal transport": {"max_iter": 150, "coupling": "optimal_transport"},
}
_, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, params in trainings.items():
    counter = EvaluationCounter(n_times=10)
    flow = CNFDensity(
        preprocessing="standardize",  # to show what the flow does alone
        tolerance=1e-5,
        hidden_layer_sizes=(32, 32),
        dropout=0.0,
        contamination=None,
        random_state=0,
        **params,
    )
    flow.set_callbacks(counter).fit(X)
    ax.plot(counter.fractions, counter.counts, label=f"{name}: score {flow.score(X_test):.2f}")
ax.set(xlabel="fraction of the training", ylabel="evaluations per row", ylim=(0, None))
ax.legend()
