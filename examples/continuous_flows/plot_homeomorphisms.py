"""
================================================
What one flow cannot do, and one more column can
================================================

A flow is a homeomorphism: it is continuous, and so is its inverse. It can bend a ring, but the
image of the ring still encloses whatever the ring enclosed. So no residual flow and no differential
equation in the plane makes a straight line separate a disc from a ring around it. With one more
column, which is zero at the start, the disc can be lifted out of the plane.
"""

# %%
# A disc in a ring
# ----------------
# The rows of the disc have the label 0, those of the ring 1.
import matplotlib.pyplot as plt
import numpy as np
import torch


def make_disc_in_ring(n, random_state):
    rng = np.random.default_rng(random_state)
    y = np.arange(n) % 2
    low, high = np.array([0.0, 1.0])[y], np.array([0.6, 1.4])[y]
    radius, angle = np.sqrt(rng.uniform(low**2, high**2)), rng.uniform(0, 2 * np.pi, n)
    X = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return torch.tensor(X, dtype=torch.float32), torch.tensor(y)


X, y = make_disc_in_ring(800, 0)
X_test, y_test = make_disc_in_ring(20_000, 1)


# %%
# Flow and line
# -------------
# A flow is followed by a linear classifier, and both are trained together. The bijections are
# PyTorch modules, and no density is needed here.
from torch.nn import functional as F

from skflows.bijections import Chain, Residual


def train(flow, n_columns, n_steps=200):
    """Return a function that gives images of rows in the plane, and logits of the label 1."""
    line = torch.nn.Linear(n_columns, 1)
    optimizer = torch.optim.Adam([*flow.parameters(), *line.parameters()], lr=0.02)

    def predict(rows):
        z = flow(F.pad(rows, (0, n_columns - 2)))[0]  # more columns are zero
        return z, line(z).squeeze(-1)

    for _ in range(n_steps):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(predict(X)[1], y.float()).backward()
        optimizer.step()
    return torch.no_grad()(predict)


def residual_flow(n_columns):
    return Chain([Residual(n_columns, (32,)) for _ in range(8)])


torch.manual_seed(0)
predictors = {
    "two columns": train(residual_flow(2), 2),
    "three columns": train(residual_flow(3), 3),
}

# %%
# Two columns and three
# ---------------------
# The upper row shows the training rows on the predicted probability of the ring. In two columns,
# the flow leads the disc out through a gap between training rows of the ring. New rows in that
# channel are wrong, and more training makes it narrower but never closes it. The lower row shows
# the images of new rows. In two columns, the ring is stretched wide where the channel is; in three,
# the disc leaves it at another height.
colors = np.array(["tab:blue", "tab:orange"])[y_test]
side = torch.linspace(-1.6, 1.6, 150)
grid = torch.cartesian_prod(side, side)

figure = plt.figure(figsize=(7, 7), layout="constrained")
for i, (name, predict) in enumerate(predictors.items()):
    z, logit = predict(X_test)
    wrong = ((logit > 0) != y_test).sum()
    ax = figure.add_subplot(2, 2, i + 1)
    probability = torch.sigmoid(predict(grid)[1]).view(150, 150).T
    ax.pcolormesh(side, side, probability, cmap="coolwarm", vmin=0, vmax=1, rasterized=True)
    ax.scatter(*X.T, s=2, color="black")
    ax.set(title=f"{name}:\n{wrong} of {len(y_test)} new rows wrong", xticks=[], yticks=[])
    is_flat = z.shape[1] == 2
    ax = figure.add_subplot(2, 2, i + 3, projection=None if is_flat else "3d")
    ax.scatter(*z[:2000].T, s=2, color=colors[:2000])
    if is_flat:
        ax.set(aspect="equal", xticks=[], yticks=[])

# %%
# A differential equation has the same limit (Dupont et al., "Augmented Neural ODEs", 2019), and so
# has the map from x to -x on a line, which takes a rotation in the plane (Zhang et al.,
# "Approximation Capabilities of Neural ODEs and Invertible Residual Networks", 2020). For a density
# it means that separate pieces of the data stay connected by thin bridges, since the image is one
# normal distribution: a :class:`~skflows.StackedDensity` of several flows has no such limit.
