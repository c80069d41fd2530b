"""Continuous flows: what penalties and columns of noise do to the evaluations that a score takes.

    python benchmarks/evaluations.py penalties --seeds 0 1 2
    python benchmarks/evaluations.py penalties --data DIR --sets 44_Wilt 40_vowels --seeds 0 1 2
    python benchmarks/evaluations.py rings
    python benchmarks/evaluations.py bound

Each prints one JSON line per measurement.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from continuous import report
from protocol import load
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.datasets import make_moons

from skflows import CNFDensity

TOLERATED = 0.05  # nats that a penalty may cost on the validation rows
IN_THE_PLANE = {"preprocessing": "standardize", "hidden_layer_sizes": (48, 48), "dropout": 0.0}


def likelihood_flow(**params):
    defaults = {"objective": "likelihood", "early_stopping": True, "contamination": None}
    return CNFDensity(**defaults | params)


def crescents(seed):
    """Rows to train, to choose the weight of the penalties, and to report."""
    sizes = (3000, 2000, 4000)
    return [make_moons(n, noise=0.07, random_state=3 * seed + i)[0] for i, n in enumerate(sizes)]


def penalties(args):
    """Evaluations and scores with and without penalties, both of one weight.

    The weight is the largest whose score on the validation rows is at most `TOLERATED` below that
    without.
    """
    for name in args.sets:
        for seed in args.seeds:
            if name == "crescents":
                rows, params = crescents(seed), IN_THE_PLANE | {"n_steps": 10, "max_iter": 80}
            else:
                rows = load(Path(args.data) / f"{name}.npz", seed)
                params = {"hidden_layer_sizes": (64, 64), "max_iter": 150}
            train, validation, test = rows
            found = {}
            for weight in sorted({0.0, *args.weights}):
                flow = likelihood_flow(
                    kinetic_penalty=weight, jacobian_penalty=weight, random_state=seed, **params
                ).fit(train)
                found[weight] = {
                    "evaluations": round(flow.n_function_evaluations_, 1),
                    "validation": round(flow.score(validation), 3),
                    "test": round(flow.score(test), 3),
                }
                report(set=name, seed=seed, weight=weight, **found[weight])
            free = found[0.0]
            weight = max(
                w for w, own in found.items() if own["validation"] >= free["validation"] - TOLERATED
            )
            report(
                set=name,
                seed=seed,
                chosen=weight,
                saved=round(1 - found[weight]["evaluations"] / free["evaluations"], 3),
                gain=round(found[weight]["test"] - free["test"], 3),
            )


RADII = (0.0, 0.5), (0.6, 1.0)  # of a disk, and of the annulus around it


def disk_in_annulus(n, seed):
    """Rows of which half are uniform in the disk, and half in the annulus."""
    rng = np.random.default_rng(seed)
    inner, outer = np.array(RADII)[rng.integers(2, size=n)].T
    radius = np.sqrt(rng.uniform(inner**2, outer**2))
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


class Along:
    """A callback that acts on the density as it stands, every so many epochs."""

    def __init__(self, every, act):
        self.every = every
        self.act = act

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        epoch = context.task_id + 1
        if context.task_name == "epoch" and epoch % self.every == 0:
            self.act(epoch, fitted_estimator)


def rings(args):
    """Evaluations and score along a long training on a disk in an annulus."""
    areas = np.pi * np.diff(np.square(RADII)).ravel()
    report(true_score=round(-np.log(2 * areas).mean(), 3))
    for seed in args.seeds:
        X, X_test = disk_in_annulus(2000, 2 * seed), disk_in_annulus(500, 2 * seed + 1)
        for n_augmented in args.augmented:
            line = {"seed": seed, "n_augmented": n_augmented}

            def note(epoch, flow, X_test=X_test, **line):
                score = round(flow.score(X_test), 3)
                evaluations = round(flow.n_function_evaluations_, 1)
                report(epoch=epoch, evaluations=evaluations, score=score, **line)

            flow = likelihood_flow(
                n_augmented=n_augmented,
                tolerance=1e-6,
                n_steps=12,
                max_iter=args.epochs,
                n_iter_no_change=args.epochs,
                random_state=seed,
                **IN_THE_PLANE,
            )
            flow.set_callbacks(Along(10, partial(note, **line))).fit(X)
            note(flow.best_iter_, flow, kept=True, **line)


ANNULI, WIDTH = np.array([0.4, 1.0]), 0.05


def annuli(n, seed):
    """Nested annuli of known density: the radius is normal around one of two, the angle any."""
    rng = np.random.default_rng(seed)
    radius = rng.choice(ANNULI, n) + WIDTH * rng.standard_normal(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def annuli_log_density(X):
    radius = np.hypot(*X.T)
    return np.log(norm.pdf(radius[:, None], ANNULI, WIDTH).mean(1) / (2 * np.pi * radius))


def scores_by_draw(flow, X, noise):
    """``log p(x, e) / q(e)`` of rows for each draw of the noise, of shape (n_draws, n)."""
    scores = []
    for draw in noise:
        flow.flow_.noise = draw[None]
        scores.append(flow.score_samples(X))
    return np.array(scores)


def marginal_score(flow, X, step, farthest=5.5):
    """Mean log-density of rows under a flow with two columns of noise, by a grid of the noise."""
    side = torch.arange(-farthest, farthest + step / 2, step, dtype=torch.float64)
    nodes = torch.cartesian_prod(side, side)
    weights = step**2 * norm.pdf(nodes.numpy()).prod(1)
    return logsumexp(scores_by_draw(flow, X, nodes), axis=0, b=weights[:, None]).mean()


def bound(args):
    """The score with columns of noise for more and more draws, beside the flow's own marginal."""
    X, X_test = annuli(1000, seed=0), annuli(50, seed=1)
    report(true_score=round(float(annuli_log_density(X_test).mean()), 3))
    shared = IN_THE_PLANE | {"n_augmented": 2, "n_importance_samples": 1, "tolerance": 1e-5}
    small_batches = {"coupling": "optimal_transport", "batch_size": 16, "max_iter": 10}
    likelihood = {"objective": "likelihood", "n_steps": 6}
    cases = {
        "likelihood": likelihood | {"max_iter": 60},
        "matching, transport in small batches": small_batches | {"hidden_layer_sizes": (32, 32)},
        "likelihood, rate 0.1": likelihood | {"max_iter": 30, "learning_rate_init": 0.1},
    }
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(100, 2, dtype=torch.float64, generator=generator)
    for name, params in cases.items():
        params = {"objective": "flow_matching", "early_stopping": False} | shared | params
        flow = likelihood_flow(random_state=0, **params).fit(X)
        by_draw = scores_by_draw(flow, X_test, noise)
        found = {}
        for n_draws in (1, 10, 100):
            # All samples of this size that the draws make up, lest a lucky one decide.
            samples = by_draw.reshape(-1, n_draws, len(X_test))
            found[n_draws] = (logsumexp(samples, axis=1) - np.log(n_draws)).mean()
        for step in (0.8, 0.4):
            found[f"grid of {step}"] = marginal_score(flow, X_test, step)
        report(objective=name, **{str(key): round(float(v), 4) for key, v in found.items()})


PARTS = {part.__name__: part for part in (penalties, rings, bound)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", help="folder of npz tables")
    parser.add_argument("--sets", nargs="+", default=["crescents"], help="and tables, of penalties")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--weights", nargs="+", type=float, default=[0.02, 0.04])
    parser.add_argument("--epochs", type=int, default=200, help="of rings")
    parser.add_argument("--augmented", nargs="+", type=int, default=[0, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
