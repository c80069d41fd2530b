"""Draw the pictures of the user guide that no example of the gallery has.

Usage: ``python docs/make_guide_pictures.py``; a build of the documentation draws those that are
missing. All are of real tables, by small fits, except the times, which are stored.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from warnings import catch_warnings, filterwarnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import LearningCurveDisplay, ShuffleSplit, train_test_split

from skflows import (
    AdaptiveKernelDensity,
    CNFDensity,
    DensityOutlierDetector,
    MAFDensity,
    NSFDensity,
    RealNVPDensity,
    TableDensity,
    TransformedDensity,
)
from skflows.inspection import DensityDisplay, LossCurveDisplay, SamplesDisplay

FOLDER = Path(__file__).parent / "_static" / "guide"
TIMES = Path(__file__).parents[1] / "benchmarks" / "results" / "step_times_avx512.json"
PETALS = ["petal length (cm)", "petal width (cm)"]


def draw_densities():
    """A density over the petals of iris."""
    petals = load_iris(as_frame=True).data[PETALS]
    flow = NSFDensity(preprocessing="standardize", max_iter=60, random_state=0).fit(petals)
    return DensityDisplay.from_estimator(flow, petals).figure_


def draw_latent_space():
    """The petals of iris, and their latent coordinates."""
    iris = load_iris(as_frame=True)
    flow = RealNVPDensity(max_iter=50, random_state=0).fit(iris.data)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    Z = flow.transform(iris.data)
    for ax, rows, names in (
        (axes[0], iris.data[PETALS].to_numpy(), PETALS),
        (axes[1], Z[:, 2:], ["latent coordinate 2", "latent coordinate 3"]),
    ):
        for place, species in enumerate(iris.target_names):
            ax.scatter(*rows[iris.target == place].T, s=10, label=species)
        ax.set(xlabel=names[0], ylabel=names[1])
    axes[0].legend(frameon=False)
    return figure


def draw_preparation():
    """A skewed column, and its density by two kinds of preprocessing."""
    area = load_breast_cancer(as_frame=True).data[["area error"]]
    area = area[area["area error"] < 200]  # the tail would hide the rest
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for ax, preprocessing in zip(axes, ("standardize", "quantile"), strict=True):
        flow = NSFDensity(preprocessing=preprocessing, max_iter=5, random_state=0).fit(area)
        DensityDisplay.from_estimator(flow, area, ax=ax, grid_resolution=400)
        ax.set_title(f'preprocessing="{preprocessing}", five epochs', fontsize="medium")
    return figure


def draw_training():
    """Training and validation loss by epoch."""
    X = load_breast_cancer(as_frame=True).data.filter(like="mean")
    flow = NSFDensity(random_state=0).fit(X)
    return LossCurveDisplay.from_estimator(flow).figure_


def draw_pictures():
    """Pairs of columns of iris and of samples."""
    X = load_iris(as_frame=True).data
    flow = NSFDensity(max_iter=50, random_state=0).fit(X)
    return SamplesDisplay.from_estimator(flow, X, features=[0, 2, 3]).figure_


def draw_continuous():
    """A continuous flow of the petals of iris."""
    petals = load_iris(as_frame=True).data[PETALS]
    flow = CNFDensity(max_iter=30, random_state=0).fit(petals)
    return DensityDisplay.from_estimator(flow, petals, grid_resolution=60).figure_


def draw_index():
    """Four questions about iris, answered by one density."""
    iris = load_iris(as_frame=True)
    table = iris.data[PETALS].assign(species=iris.target_names[iris.target])
    density = TableDensity(random_state=0).fit(table)
    figure, axes = plt.subplots(1, 4, figsize=(10, 3), sharey=True, layout="constrained")
    lengths, widths = table[PETALS[0]], table[PETALS[1]]
    scores = density.score_samples(table)
    axes[0].scatter(lengths, widths, c=scores, s=12)
    axes[0].set_title("how likely a row is")
    rows = density.sample(len(table), random_state=0)
    axes[1].scatter(rows[PETALS[0]], rows[PETALS[1]], color="C1", s=12)
    axes[1].set_title("new rows")
    grid = table[[PETALS[0]]].drop_duplicates().sort_values(PETALS[0])
    low, high = density.predict_distribution(PETALS[1], grid).interval(0.8)
    axes[2].fill_between(grid[PETALS[0]], low, high, color="C0", alpha=0.3)
    axes[2].scatter(lengths, widths, color="0.3", s=6)
    axes[2].set_title("width given length")
    is_odd = scores <= np.sort(scores)[4]
    axes[3].scatter(lengths, widths, color="0.7", s=12)
    axes[3].scatter(lengths[is_odd], widths[is_odd], color="C3", s=30)
    axes[3].set_title("odd rows")
    axes[0].set_ylabel(PETALS[1])
    for ax in axes:
        ax.set_xlabel(PETALS[0])
    return figure


def draw_limits():
    """Held-out loss with and without a column that is a function of two others."""
    X = load_breast_cancer(as_frame=True).data[["mean radius", "worst radius"]]
    tables = {
        "two columns": X,
        "and their difference": X.assign(difference=X["worst radius"] - X["mean radius"]),
    }
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for label, table in tables.items():
        flow = MAFDensity(max_iter=40, n_iter_no_change=40, random_state=0)
        with catch_warnings():
            filterwarnings("ignore", "The column 'worst radius' is an exact linear function")
            flow.fit(table)
        ax.plot(flow.validation_scores_, label=label)
    ax.set(xlabel="epoch", ylabel="held-out log-density (nats)")
    ax.legend(frameon=False)
    return figure


def draw_other_libraries():
    """Learning curves, by scikit-learn, of a mixture with and without preprocessing."""
    X = load_breast_cancer(as_frame=True).data.filter(like="mean")
    mixture = GaussianMixture(4, random_state=0)
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for density in (mixture, TransformedDensity(mixture)):
        display = LearningCurveDisplay.from_estimator(
            density,
            X,
            None,
            train_sizes=[100, 200, 300, 400, 500],
            cv=ShuffleSplit(5, random_state=0),
            score_type="test",
            score_name="held-out log-density (nats)",
            ax=ax,
        )
        display.lines_[0].set_label(type(density).__name__)
    ax.set_xlabel("rows of the fit")
    ax.legend(frameon=False, loc="lower right")
    return figure


def draw_promises():
    """Fraction of rows with at most a p-value, over splits of the benign rows."""
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :10]
    alphas = np.linspace(0, 1, 201)
    fractions = {"new benign rows": [], "malignant rows": []}
    for seed in range(40):
        known, new = train_test_split(X[y == 1], random_state=seed)
        mixture = GaussianMixture(2, random_state=0)
        detector = DensityOutlierDetector(mixture, calibration="conformal", random_state=seed)
        detector.fit(known)
        for found, rows in zip(fractions.values(), (new, X[y == 0]), strict=True):
            found.append((detector.p_values(rows)[:, None] <= alphas).mean(0))
    figure, ax = plt.subplots(figsize=(5, 3.8), layout="constrained")
    for label, found in fractions.items():
        ax.plot(alphas, np.mean(found, axis=0), label=label)
    ax.plot([0, 1], [0, 1], color="0.4", linestyle="--", label="promised limit for benign rows")
    ax.set(xlabel="alpha", ylabel="fraction of rows with p-value <= alpha")
    ax.legend(frameon=False)
    return figure


def draw_pytorch():
    """Gradients of the log-density in the rows, over the petals of iris."""
    petals = load_iris(as_frame=True).data[PETALS]
    flow = MAFDensity(discrete=None, preprocessing="standardize", max_iter=60, random_state=0)
    display = DensityDisplay.from_estimator(flow.fit(petals), petals)
    grid = torch.cartesian_prod(
        *(
            torch.linspace(*limits, 18, dtype=torch.float64)
            for limits in (display.ax_.get_xlim(), display.ax_.get_ylim())
        )
    ).requires_grad_()
    flow.distribution().log_prob(grid).sum().backward()
    # In units of a standard deviation, and of equal length: only the direction is shown.
    scale = torch.tensor(petals.std().to_numpy())
    steps = torch.nn.functional.normalize(grid.grad * scale) * scale
    display.ax_.quiver(*grid.detach().T, *steps.T, color="0.15", angles="xy", width=0.003)
    return display.figure_


def draw_saving():
    """Sizes of the files of models that were fitted to half and to all rows."""
    X = load_breast_cancer(as_frame=True).data.filter(like="mean")
    densities = {
        "TransformedDensity(\nGaussianMixture(4))": TransformedDensity(
            GaussianMixture(4, random_state=0)
        ),
        "AdaptiveKernelDensity": AdaptiveKernelDensity(),
        "RealNVPDensity": RealNVPDensity(max_iter=1, random_state=0),
        "MAFDensity": MAFDensity(max_iter=1, random_state=0),
        "NSFDensity": NSFDensity(max_iter=1, random_state=0),
    }
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for place, n in enumerate((len(X) // 2, len(X))):
        sizes = []
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.skflows"
            for density in densities.values():
                density.fit(X[:n]).save(path)
                sizes.append(path.stat().st_size / 1000)
        bars = ax.barh(
            np.arange(len(sizes)) + 0.4 * place, sizes, height=0.4, label=f"{n} rows of 10 columns"
        )
        ax.bar_label(bars, fmt="{:.0f}", padding=3, fontsize="small")
    ax.set_yticks(np.arange(len(densities)) + 0.2, densities)
    ax.set(xlabel="size of the file (kB)")
    ax.margins(x=0.12)
    ax.legend(frameon=False)
    return figure


def draw_speed():
    """Times of a training step and of scores, from the stored lines of the benchmarks."""
    times = dict(json.loads(TIMES.read_text("utf-8"))["times"])
    flows = ["NSF", "MAF", "RealNVP"]
    libraries = ["skflows", "without kernels", "zuko", "nflows", "normflows"]
    colours = dict(zip(libraries, ["C0", "lightsteelblue", "C1", "C2", "C3"], strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for ax, what in zip(axes, ("training step, 256 rows", "score 100,000 rows"), strict=True):
        lines = [times[f"{flow}, d = 10: {what}"] for flow in flows]
        for place, library in enumerate(lines[0]):
            seconds = [line.get(library, np.nan) for line in lines]
            places = np.arange(len(flows)) + 0.16 * place
            ax.bar(places, seconds, width=0.16, color=colours[library], label=library)
        ax.set_xticks(np.arange(len(flows)) + 0.08 * (len(lines[0]) - 1), flows)
        ax.set(title=what, ylabel="seconds")
    axes[0].legend(frameon=False)
    return figure


def draw_troubleshooting():
    """Loss by epoch of a flow that overfits, and of one that does so less."""
    X = load_wine(as_frame=True).data
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for ax, settings in zip(axes, ({}, {"dropout": 0.2, "input_noise": "auto"}), strict=True):
        flow = NSFDensity(max_iter=60, n_iter_no_change=60, random_state=0, **settings).fit(X)
        LossCurveDisplay.from_estimator(flow, ax=ax)
        names = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        ax.set_title(f"NSFDensity({names})", fontsize="medium")
    axes[1].set_ylabel("")
    return figure


def main(redraws=True):
    """Draw all pictures, or those that are missing."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in [*globals().items()]:
        path = FOLDER / f"{name.removeprefix('draw_')}.png"
        if name.startswith("draw_") and (redraws or not path.exists()):
            figure = draw()
            figure.savefig(path, dpi=80)
            plt.close(figure)


if __name__ == "__main__":
    main()
