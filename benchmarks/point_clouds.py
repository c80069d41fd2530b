"""Samples of PointCloudDensity beside simpler densities of clouds and training clouds.

    python benchmarks/point_clouds.py PART --out FILE
    python benchmarks/point_clouds.py --table FILE

PART is "samples" or "odd", of shapes that are made of primitives, which needs trimesh, or "digits"
or "odd digits", of the bright pixels of images in ``--data FILE``. Each fit has ``--seconds`` of
processor time.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, limits_of_processor_time, print_table, read
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import nn

from skflows import CNFDensity
from skflows.sets import PointCloudDensity

N_POINTS, N_TRAINING_POINTS = 256, 512
N_TRAIN, N_TEST = 500, 25  # shapes of each class
N_IMAGES = 3000  # to fit; the others are held out
N_TEST_IMAGES, N_ODD_IMAGES = 10, 50  # of each digit, beside samples and to be scored
BRIGHT = 128  # least grey level of a point
N_ASSIGNED = 128  # points of a cloud that are assigned to points of another one
N_CELLS = 28  # of the grid of the Jensen-Shannon divergence, along each axis
CODE_SIZE = 32
HEAVY = {"max_iter": 10_000, "n_iter_no_change": 10_000}  # time ends the training
MATCHING = CNFDensity(dropout=0.0, n_steps=4, tolerance=1e-4)


def box(size, centre):
    """Return a box."""
    from trimesh import creation, transformations

    return creation.box(size, transformations.translation_matrix(centre))


def rod(radius, low, high, at=(0.0, 0.0)):
    """Return a vertical cylinder between two heights."""
    from trimesh import creation, transformations

    centre = transformations.translation_matrix((*at, (low + high) / 2))
    return creation.cylinder(radius, high - low, sections=16, transform=centre)


def legs(rng, width, depth, height):
    """Return four legs under a plate."""
    thick = rng.uniform(0.04, 0.1)
    corners = [(x, y) for x in (-1, 1) for y in (-1, 1)]
    places = [(x * (width - thick) / 2, y * (depth - thick) / 2) for x, y in corners]
    if rng.random() < 0.5:
        return [box((thick, thick, height), (*place, height / 2)) for place in places]
    return [rod(thick / 2, 0, height, place) for place in places]


def chair(rng):
    """Return the parts of a chair: legs, seat, back, and arms or none."""
    width, depth = rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.1)
    height, back = rng.uniform(0.7, 1.1), rng.uniform(0.6, 1.3)
    thick = rng.uniform(0.06, 0.15)
    top = height + thick
    parts = [*legs(rng, width, depth, height), box((width, depth, thick), (0, 0, top - thick / 2))]
    y = (depth - thick) / 2
    if rng.random() < 0.5:
        parts.append(box((width, thick, back), (0, y, top + back / 2)))
    else:
        n = rng.integers(3, 6)
        for x in np.linspace(-0.45, 0.45, n) * width:
            parts.append(box((0.08, thick, back), (x, y, top + back / 2)))
        parts.append(box((width, thick, 0.15), (0, y, top + back)))
    if rng.random() < 0.4:
        arm = rng.uniform(0.25, 0.45)
        for x in (-width / 2, width / 2):
            parts.append(box((0.08, depth, 0.06), (x, 0, top + arm)))
            parts.append(box((0.08, 0.08, arm), (x, -y, top + arm / 2)))
    return parts


def table(rng):
    """Return the parts of a table: a plate, round or not, on four legs or on one."""
    width, depth = rng.uniform(1.0, 2.0), rng.uniform(0.8, 1.2)
    height, thick = rng.uniform(0.5, 1.1), rng.uniform(0.04, 0.12)
    is_round = rng.random() < 0.4
    if is_round:
        plate = rod(depth / 2, height, height + thick)
        width = depth = depth * 0.7
    else:
        plate = box((width, depth, thick), (0, 0, height + thick / 2))
    if rng.random() < 0.6:
        return [plate, *legs(rng, width, depth, height)]
    foot = rng.uniform(0.2, 0.4)
    return [plate, rod(rng.uniform(0.05, 0.1), 0, height), rod(foot, 0, 0.06)]


def lamp(rng):
    """Return the parts of a lamp: a foot, a pole and a shade."""
    from trimesh import creation

    height, foot = rng.uniform(1.0, 1.8), rng.uniform(0.2, 0.4)
    low, high = rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.3)
    tall = rng.uniform(0.3, 0.6)
    shade = creation.revolve([(low, height - tall), (high, height)], sections=24)
    pole = rod(rng.uniform(0.02, 0.05), 0, height - tall * 0.2)
    return [rod(foot, 0, rng.uniform(0.04, 0.12)), pole, shade]


def mug(rng):
    """Return the parts of a mug: a wall, a bottom and a handle."""
    from trimesh import creation, transformations

    low, high = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.55)
    height = rng.uniform(0.7, 1.2)
    wall = creation.revolve([(0, 0), (low, 0), (high, height)], sections=24)
    ring = creation.torus(rng.uniform(0.2, 0.3) * height, rng.uniform(0.03, 0.06))
    ring.apply_transform(transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    middle = (low + high) / 2
    ring.apply_translation((middle, 0, height / 2))
    ring.update_faces(ring.triangles_center[:, 0] > middle)
    return [wall, ring]


CLASSES = {"chairs": chair, "tables": table, "lamps": lamp, "mugs": mug}


def shapes(args, name, is_test=False, draw=0):
    """Return clouds of a class (n, n_points, 3) on the surfaces of shapes.

    Shapes are centred, and their farthest corner is at 1. Another draw has other points.
    """
    from trimesh import util

    n, n_points = (N_TEST, N_POINTS) if is_test else (N_TRAIN, N_TRAINING_POINTS)
    rng = np.random.default_rng([args.seed + is_test, list(CLASSES).index(name)])
    clouds = []
    for _ in range(n):
        mesh = util.concatenate(CLASSES[name](rng))
        mesh.apply_translation(-mesh.bounds.mean(axis=0))
        points = mesh.sample(n_points, seed=int(rng.integers(2**31)) + draw)
        clouds.append(points / np.linalg.norm(mesh.vertices, axis=1).max())
    return np.array(clouds)


def digits(args, name, is_test=False, draw=0):
    """Return clouds of a digit (n, n_points, 2): random places in bright pixels.

    Images are as wide as from -1 to 1. Another draw has other points.
    """
    with np.load(args.data) as file:
        images, labels = file["X"], file["y"]
    part = slice(N_IMAGES, None) if is_test else slice(N_IMAGES)
    images = images[part][labels[part] == int(name)]
    n_points = N_TRAINING_POINTS
    if is_test:
        n_points = N_POINTS
        images = images[: N_ODD_IMAGES if args.part == "odd digits" else N_TEST_IMAGES]
    rng = np.random.default_rng([args.seed, is_test, int(name), draw])
    clouds = []
    for image in images:
        row, column = np.nonzero(image >= BRIGHT)
        corners = np.column_stack([column, image.shape[0] - 1 - row])
        points = corners[rng.integers(len(corners), size=n_points)] + rng.random((n_points, 2))
        clouds.append(2 * points / len(image) - 1)
    return np.array(clouds)


def classes_of(args):
    """Return a function of clouds of a class, and the names of the classes."""
    return (digits, [*"0123456789"]) if "digits" in args.part else (shapes, [*CLASSES])


def chamfer(x, y):
    """Return the Chamfer distances of each cloud of x to each of y."""
    trees = [cKDTree(cloud) for cloud in y]
    own = [cKDTree(cloud) for cloud in x]
    return np.array(
        [
            [
                np.mean(tree.query(cloud)[0] ** 2) + np.mean(mine.query(other)[0] ** 2)
                for tree, other in zip(trees, y, strict=True)
            ]
            for mine, cloud in zip(own, x, strict=True)
        ]
    )


def earth_mover(x, y):
    """Return the mean distances of the best assignments of each cloud of x to each of y.

    Points are in random order, and the first ones are compared.
    """
    x, y = x[:, :N_ASSIGNED], y[:, :N_ASSIGNED]
    distances = np.empty((len(x), len(y)))
    for i, cloud in enumerate(x):
        for j, other in enumerate(y):
            cost = np.linalg.norm(cloud[:, None] - other[None], axis=2)
            distances[i, j] = cost[linear_sum_assignment(cost)].mean()
    return distances


def symmetric(distance, x):
    """Return the distances of all pairs of x, infinite to itself."""
    distances = np.full((len(x), len(x)), np.inf)
    for i in range(len(x) - 1):
        distances[i, i + 1 :] = distances[i + 1 :, i] = distance(x[i : i + 1], x[i + 1 :])[0]
    return distances


def compared(x, y, of_y, distance):
    """Return figures of samples x beside test clouds y, by one distance.

    ``of_y`` are the distances of the test clouds to each other.
    """
    across = distance(x, y)
    whole = np.block([[symmetric(distance, x), across], [across.T, of_y]])
    is_sample = np.arange(len(whole)) < len(x)
    return {
        "nn": float(np.mean(is_sample[whole.argmin(axis=1)] == is_sample)),
        "coverage": len({*across.argmin(axis=1).tolist()}) / len(y),
        "mmd": float(across.min(axis=0).mean()),
    }


def jensen_shannon(x, y):
    """Return the divergence of the shares of all points in the cells of a grid, in nats."""
    d = x.shape[2]
    edges = [np.linspace(-1, 1, N_CELLS + 1)] * d
    p, q = (np.histogramdd(np.clip(z.reshape(-1, d), -1, 1), edges)[0].ravel() for z in (x, y))
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float(sum(np.sum(s[s > 0] * np.log(s[s > 0] / middle[s > 0])) for s in (p, q)) / 2)


class Ours:
    """PointCloudDensity; the time limit ends its training."""

    def __init__(self, flow, rate):
        self.flow, self.rate = flow, rate

    def fit(self, X, seconds, seed):
        settings = {"time_limit": seconds, "random_state": seed, "contamination": None}
        settings["learning_rate_init"] = self.rate
        with limits_of_processor_time():
            self.density = PointCloudDensity(self.flow, **settings, **HEAVY).fit(X)
        self.n_iter = self.density.n_iter_
        return self

    def sample(self, n, seed):
        return self.density.sample(n, seed, n_points=N_POINTS)

    def reconstruct(self, X, seed):
        return self.density.reconstruct(X, N_POINTS, seed)


class GaussianOfCodes:
    """The codes of a fitted PointCloudDensity, with a normal as their prior."""

    def __init__(self, density, X):
        self.density = density
        with torch.inference_mode():
            latent = torch.from_numpy(density.transform(X))
            self.codes = density.network_.prior.inverse(latent)[0].numpy()

    def sample(self, n, seed):
        rng = np.random.default_rng(seed)
        codes = rng.multivariate_normal(self.codes.mean(axis=0), np.cov(self.codes.T), n)
        with torch.inference_mode():
            latent = self.density.network_.prior(torch.from_numpy(codes))[0].numpy()
        return self.density.inverse_transform(latent, N_POINTS, seed)


class Autoencoder(nn.Module):
    """An autoencoder trained by the Chamfer distance, with a Gaussian mixture of its codes."""

    def __init__(self, n_features=3):
        super().__init__()
        self.n_features = n_features
        self.of_point = nn.Sequential(
            nn.Linear(n_features, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 256),
        )
        self.of_cloud = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, CODE_SIZE))
        self.decoder = nn.Sequential(
            nn.Linear(CODE_SIZE, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU(),
            nn.Linear(512, n_features * N_POINTS),
        )  # fmt: skip

    def encode(self, x):
        return self.of_cloud(self.of_point(x).amax(1))

    def decode(self, codes):
        return self.decoder(codes).unflatten(-1, (N_POINTS, self.n_features))

    def decoded(self, codes):
        """Return clouds as an array, with their points in random order."""
        order = np.random.default_rng(0).permutation(N_POINTS)
        return self.decode(codes).double().numpy()[:, order]

    def fit(self, X, seconds, seed):
        started = time.process_time()
        torch.manual_seed(seed)
        self.__init__(X.shape[2])
        X = torch.tensor(X, dtype=torch.float32)
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        self.n_iter = 0
        while (left := 1 - (time.process_time() - started) / seconds) > 0:
            optimizer.param_groups[0]["lr"] = 1e-3 * left
            for rows in torch.randperm(len(X)).split(32):
                x = X[rows][:, torch.randperm(X.shape[1])[:N_POINTS]]
                distance = torch.cdist(x, self.decode(self.encode(x))).square()
                loss = distance.amin(1).mean() + distance.amin(2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            self.n_iter += 1
        with torch.inference_mode():
            codes = self.encode(X[:, :N_POINTS]).numpy()
        self.mixture = GaussianMixture(32, reg_covar=1e-4, random_state=seed).fit(codes)
        return self

    @torch.inference_mode()
    def sample(self, n, seed):
        self.mixture.random_state = seed
        codes = self.mixture.sample(n)[0]
        return self.decoded(torch.tensor(codes, dtype=torch.float32))

    @torch.inference_mode()
    def reconstruct(self, X, seed):
        return self.decoded(self.encode(torch.tensor(X, dtype=torch.float32)))


class TrainingClouds:
    """Training clouds, drawn again."""

    n_iter = 0

    def fit(self, X, seconds, seed):
        self.X = X
        return self

    def sample(self, n, seed):
        return np.random.default_rng(seed).permutation(self.X)[:n, :N_POINTS]


CONTESTANTS = {
    "flow matching": lambda: Ours(MATCHING, 1e-2),
    "splines": lambda: Ours(None, 5e-3),
    "autoencoder, GMM": Autoencoder,
    "training clouds": TrainingClouds,
}
DISTANCES = {"cd": chamfer, "emd": earth_mover}


def pairwise(distance, x, y):
    """Return the mean distance of each cloud of x to the same of y."""
    pairs = zip(x[:, None], y[:, None], strict=True)
    return float(np.mean([distance(*pair)[0, 0] for pair in pairs]))


def samples(args):
    """Measure samples and reconstructions of each method."""
    clouds_of, names = classes_of(args)
    train, test, again = (
        np.concatenate([clouds_of(args, name, *part) for name in names])
        for part in ((), (True, 0), (True, 1))
    )
    of_test = {name: symmetric(distance, test) for name, distance in DISTANCES.items()}

    def measure(method, model, seconds):
        started = time.process_time()
        drawn = model.sample(len(test), args.seed)
        line = {"part": args.part, "method": method, "seed": args.seed, "fit_seconds": seconds}
        line |= {"epochs": getattr(model, "n_iter", 0)}
        line |= {"sample_seconds": time.process_time() - started}
        for name, distance in DISTANCES.items():
            found = compared(drawn, test, of_test[name], distance)
            line |= {f"{key}_{name}": value for key, value in found.items()}
        line["jsd"] = jensen_shannon(drawn, test)
        if hasattr(model, "reconstruct"):
            rebuilt = model.reconstruct(test, args.seed)
            for name, distance in DISTANCES.items():
                line[f"rebuilt_{name}"] = pairwise(distance, rebuilt, again)
        if method == "training clouds":  # the oracle: other points of the same surfaces
            for name, distance in DISTANCES.items():
                line[f"rebuilt_{name}"] = pairwise(distance, test, again)
        store(args, line)

    for method in args.methods:
        started = time.process_time()
        model = CONTESTANTS[method]().fit(train, args.seconds, args.seed)
        seconds = time.process_time() - started
        if isinstance(model, Ours) and args.models:
            model.density.save(args.models / f"{method}.skflows")
        measure(method, model, seconds)
        if isinstance(model, Ours):
            measure(f"{method}, normal codes", GaussianOfCodes(model.density, train), seconds)


def odd(args):
    """Measure how well scores tell a class that was left out of the fit."""
    clouds_of, names = classes_of(args)
    for left_out in args.left_out or names:
        others = [name for name in names if name != left_out]
        train = np.concatenate([clouds_of(args, name) for name in others])
        tests = {name: clouds_of(args, name, True) for name in names}
        for method in args.methods:
            started = time.process_time()
            model = CONTESTANTS[method]().fit(train, args.seconds, args.seed)
            fitted = time.process_time() - started
            scores = {name: model.density.score_samples(X) for name, X in tests.items()}
            seconds = time.process_time() - started - fitted
            known = np.concatenate([scores[name] for name in others])
            line = {"part": args.part, "method": method, "left_out": left_out, "seed": args.seed}
            line["auroc"] = roc_auc_score(
                np.repeat([0, 1], [len(known), len(tests[left_out])]),
                -np.append(known, scores[left_out]),
            )
            line |= {"fit_seconds": fitted, "score_seconds": seconds}
            store(args, line)


def store(args, line):
    """Print a line of results, and append it to the file."""
    line = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
    print(json.dumps(line), flush=True)
    append(args.out, line)


HEADS = {
    "nn_cd": ("1-NN, CD", 3),
    "nn_emd": ("1-NN, EMD", 3),
    "coverage_cd": ("coverage, CD", 2),
    "coverage_emd": ("coverage, EMD", 2),
    "mmd_cd": ("MMD, CD", 4),
    "mmd_emd": ("MMD, EMD", 3),
    "jsd": ("JSD", 3),
    "rebuilt_cd": ("rebuilt, CD", 4),
    "rebuilt_emd": ("rebuilt, EMD", 3),
    "fit_seconds": ("fit, s", 0),
    "sample_seconds": ("100 samples, s", 1),
}


def show(lines):
    """Print the tables of `point_clouds.md`."""
    frame = pd.DataFrame(lines)
    for part in "samples", "digits":
        drawn = frame[frame["part"] == part].set_index("method")[[*HEADS]]
        print_table(
            drawn.rename(columns={key: head for key, (head, _) in HEADS.items()}),
            dict(HEADS.values()),
        )
        print()
    told = frame[frame["part"].str.startswith("odd")]
    heads = {"auroc": "AUROC", "fit_seconds": "fit, s", "score_seconds": "scores, s"}
    told = told.set_index(["method", "left_out"])[[*heads]]
    told.index.names = ["method", "left out"]
    print_table(told.rename(columns=heads), dict(zip(heads.values(), (4, 0, 0), strict=True)))


PARTS = {"samples": samples, "odd": odd, "digits": samples, "odd digits": odd}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=list(PARTS))
    parser.add_argument("--data", type=Path, help="npz file of images X and labels y")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the tables of this file and leave")
    parser.add_argument("--methods", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--left-out", nargs="*", help="classes; all by default")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--models", type=Path, help="folder for fitted densities")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.table:
        show(read(args.table))
        return
    if args.part is None or args.out is None:
        parser.error("give PART and --out, or --table")
    if "digits" in args.part and args.data is None:
        parser.error("give --data")
    torch.set_num_threads(1)
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
