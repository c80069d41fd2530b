"""Draw ``docs/_static/readme.png``: data, the fitted density of a flow, and its samples.

Usage: ``python docs/make_readme_picture.py``. It takes less than a minute.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skflows import NSFDensity


def make_spirals(n_samples, random_state):
    """Return rows from two interleaved spirals."""
    rng = np.random.default_rng(random_state)
    angle = 3 * np.pi * np.sqrt(rng.random(n_samples))
    arm = rng.choice([-1, 1], n_samples)
    curve = np.column_stack([np.cos(angle), np.sin(angle)]) * (arm * angle)[:, None]
    return curve + 0.35 * rng.normal(size=(n_samples, 2))


def main():
    X = make_spirals(5000, random_state=0)
    flow = NSFDensity(
        preprocessing="standardize",  # smoother between the arms than quantile maps
        n_transforms=8,
        dropout=0.0,
        learning_rate_init=5e-3,
        batch_size=500,
        max_iter=100,
        early_stopping=False,
        random_state=0,
    ).fit(X)

    edge = 1.05 * abs(X).max()
    axis = np.linspace(-edge, edge, 300)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(flow.score_samples(grid)).reshape(300, 300)

    fig, axes = plt.subplots(1, 3, figsize=(9, 3.25), layout="constrained")
    style = {"s": 3, "alpha": 0.6, "linewidths": 0}
    axes[0].scatter(*X[:2500].T, color="#3f90da", **style)
    top = np.quantile(density, 0.99)  # clip narrow peaks
    axes[1].imshow(
        density, origin="lower", extent=(-edge, edge, -edge, edge), cmap="magma", vmax=top
    )
    axes[2].scatter(*flow.sample(2500, random_state=0).T, color="#e76300", **style)
    for ax, title in zip(axes, ("data", "density", "samples"), strict=True):
        ax.set(title=title, xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[])
        ax.set_aspect("equal")
    fig.savefig(Path(__file__).parent / "_static" / "readme.png", dpi=110)


if __name__ == "__main__":
    main()
