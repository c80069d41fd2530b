"""The command ``skflows demo``: a flow beside scikit-learn's densities on a real table."""

import time

import numpy as np

from ..density import NSFDensity
from ..persistence.atomic import replace_file
from ..training.threads import few_threads
from ._progress import fit_with_progress
from ._tables import check_writable

N_ANOMALIES = 5
PAIRED_COLUMNS = [1, 5, 6, 9]  # near the middle of the image, where digits differ most

INTRODUCTION = """\
Handwritten digits, the largest table that scikit-learn ships: {n} rows. Blocks of 2 x 2 pixels are
summed into 16 columns of ink, from ink_1_1 (top left) to ink_4_4, between 0 and 64. Uniform noise
fills the space between integers, because the likelihood of discrete values has no bound.
{n_train} rows to fit and tune, {n_test} held out.
"""

# The best setting lies inside each grid, so that the baselines are at their best.
MIXTURES = [
    {"covariance_type": ["diag"], "n_components": [10, 20, 40, 80]},
    {"covariance_type": ["full"], "n_components": [5, 10, 20], "reg_covar": [1e-3, 1e-2]},
]
KERNELS = {"bandwidth": np.geomspace(0.1, 1.0, 12)}


def load_table():
    """Return rows of ink, the digits they show (not used in fits), and the names of the columns."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    ink = images.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4)).reshape(-1, 16)
    noise = np.random.default_rng(0).uniform(size=ink.shape)
    names = [f"ink_{row}_{column}" for row in range(1, 5) for column in range(1, 5)]
    return ink + noise, digits, names


def run_demo(args):
    """Fit a flow and baselines, print how they compare, and draw the flow."""
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KernelDensity

    from ..inspection._common import check_matplotlib

    check_writable(args.output)
    check_matplotlib("skflows demo")
    check_format(args.output)
    start = time.perf_counter()
    X, digits, names = load_table()
    train, test = train_test_split(np.arange(len(X)), test_size=0.2, random_state=0)
    print(INTRODUCTION.format(n=len(X), n_train=len(train), n_test=len(test)))

    flow = NSFDensity(random_state=0)
    if args.max_iter is not None:
        flow.set_params(max_iter=args.max_iter)
    seconds = {}
    clock = time.perf_counter()
    if fit_with_progress(flow, X[train]):
        raise KeyboardInterrupt
    seconds["NSFDensity"] = time.perf_counter() - clock
    scores = {"NSFDensity": flow.score_samples(X[test])}
    settings = {
        "NSFDensity": "its defaults" if args.max_iter is None else f"max_iter={args.max_iter}"
    }

    mixture = GaussianMixture(max_iter=500, random_state=0)
    for baseline, grid in [(mixture, MIXTURES), (KernelDensity(), KERNELS)]:
        name = type(baseline).__name__
        clock = time.perf_counter()
        scores[name], best = tuned_scores(baseline, grid, X[train], X[test])
        seconds[name] = time.perf_counter() - clock
        settings[name] = ", ".join(
            f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in best.items()
        )

    print_comparison(scores, seconds, settings)
    worst = np.argsort(scores["NSFDensity"])[:N_ANOMALIES]
    print_anomalies(flow, X, names, digits, train, test[worst])
    draw(flow, X[train], names, scores, test[worst], digits, args.output)
    print(f"\nwrote {args.output}; {time.perf_counter() - start:.0f} s in all")


def tuned_scores(baseline, grid, X_train, X_test):
    """Return the log-density of the test rows in their own units, and the chosen settings."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(X_train)
    X_train = scaler.transform(X_train)
    with few_threads(X_train):
        search = GridSearchCV(baseline, grid, cv=3).fit(X_train)
    log_density = search.best_estimator_.score_samples(scaler.transform(X_test))
    return log_density - np.log(scaler.scale_).sum(), search.best_params_


def print_comparison(scores, seconds, settings):
    """Print mean held-out log-likelihoods, and the flow's lead."""
    flow, *baselines = scores
    print("held-out log-likelihood in nats per row (± standard error)")
    print(f"{'':16}{'mean':>8}   {'lead of the flow':18}{'fit and tune':>12}   settings")
    verdicts = []
    for name, log_density in scores.items():
        lead = ""
        if name in baselines:
            difference = scores[flow] - log_density
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            lead = f"{difference.mean():+.2f} ± {error:.2f}"
            verdicts.append(f"{verdict(difference.mean(), error)} {name}")
        print(
            f"{name:16}{log_density.mean():8.2f}   {lead:18}{seconds[name]:10.1f} s   "
            f"{settings[name]}"
        )
    print(f"The flow is {' and '.join(verdicts)} here.")


def verdict(lead, error):
    """Return what a lead and its standard error mean."""
    if abs(lead) < 2 * error:
        return "level with"
    return "ahead of" if lead > 0 else "behind"


def print_anomalies(flow, X, names, digits, train, rows):
    """Print the least likely held-out rows, and their most unusual columns."""
    print(
        f"\nmost anomalous held-out rows (outliers score below {flow.offset_:.1f} nats), with the "
        "columns farthest\nfrom their mean and, in brackets, the 5th to 95th percentile"
    )
    distance = np.abs(X[rows] - X[train].mean(axis=0)) / X[train].std(axis=0)
    low, high = np.floor(np.percentile(X[train], [5, 95], axis=0)).astype(int)
    for row, log_density, far in zip(rows, flow.score_samples(X[rows]), distance, strict=True):
        columns = np.argsort(-far)[:3]
        ink = ", ".join(f"{names[j]} {int(X[row, j])} ({low[j]}-{high[j]})" for j in columns)
        flag = "outlier" if log_density < flow.offset_ else "inlier"
        print(f"row {row:4}, a {digits[row]} {log_density:8.1f}  {flag:7}  {ink}")


def check_format(output):
    """Raise an error, before the work starts, if matplotlib cannot write such a file."""
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if output.suffix[1:].lower() not in known:
        raise ValueError(
            f"cannot draw {output}: its name must end in one of "
            f"{', '.join(f'.{name}' for name in known)}"
        )


def draw(flow, X_train, names, scores, rows, digits, output):
    """Draw data beside samples, learning curve, held-out scores, the most anomalous rows."""
    import matplotlib.pyplot as plt
    from sklearn.datasets import load_digits

    from ..inspection import LossCurveDisplay, SamplesDisplay

    figure, axes = plt.subplot_mosaic(
        [["samples", "loss"], ["samples", "scores"], ["samples", "rows"]],
        figsize=(14, 9),
        width_ratios=[1.4, 1],
        height_ratios=[1, 1, 0.5],
        layout="constrained",
    )
    figure.suptitle(f"Handwritten digits as {X_train.shape[1]} columns of ink: data and flow")
    SamplesDisplay(
        X=X_train[:, PAIRED_COLUMNS],
        samples=flow.sample(len(X_train), random_state=0)[:, PAIRED_COLUMNS],
        feature_names=[names[j] for j in PAIRED_COLUMNS],
        estimator_name=type(flow).__name__,
    ).plot(ax=axes["samples"])
    LossCurveDisplay.from_estimator(flow, ax=axes["loss"])
    draw_scores(axes["scores"], scores, flow.offset_)
    images = load_digits().images[rows]
    axes["rows"].imshow(np.hstack([np.pad(image, 1) for image in images]), cmap="gray_r")
    labels = [f"row {row}: {digits[row]}" for row in rows]
    axes["rows"].set_xticks(10 * np.arange(len(rows)) + 4.5, labels)
    axes["rows"].set(title="most anomalous held-out rows", yticks=[])
    axes["rows"].tick_params(length=0)
    axes["rows"].spines[:].set_visible(False)
    with replace_file(output) as file:
        figure.savefig(file, format=output.suffix[1:].lower(), dpi=110)
    plt.close(figure)


def draw_scores(ax, scores, threshold):
    """Draw histograms of held-out log-densities of each model, and the flow's threshold."""
    from ..inspection._common import DATA_COLOR, MODEL_COLOR

    # A few outliers would squeeze all other rows into one bin: they count in the first bin.
    low = min(np.percentile(log_density, 1) for log_density in scores.values())
    high = max(log_density.max() for log_density in scores.values())
    colors = [MODEL_COLOR, DATA_COLOR, "#717581"]
    for (name, log_density), color in zip(scores.items(), colors, strict=True):
        heights, edges = np.histogram(log_density.clip(low), 30, (low, high))
        label = f"{name}, mean {log_density.mean():.1f}"
        ax.stairs(heights, edges, color=color, linewidth=2, label=label)
    ax.axvline(threshold, color="black", linestyle=":", label="outlier threshold of the flow")
    ax.set(xlabel="log-density of held-out rows (nats)", ylabel="rows")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
