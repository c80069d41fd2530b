"""Planted defects in textures: AUROC of images and of pixels, beside peers on the same features.

    python benchmarks/defects.py --out benchmarks/results/defects.jsonl
    python benchmarks/defects.py --table benchmarks/results/defects.jsonl

Needs scikit-image, for its textures. Lines already in ``--out`` are not run again.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from skflows.nn.filter_bank import FilterBank
from skflows.outlier import DefectDetector

SIZE = 64  # height and width of a crop
STRIP = 128  # height of the strips of a texture that belong to fit and to test in turn
N_TEST = 60  # crops without a defect, and as many with one
CONTRAST = 2.5  # standard deviations of the pixels
KINDS = "scratch", "spot", "smear"
DEVELOPMENT = "tiles", "weave", "grain", "hubble"
TEST = "brick", "grass", "gravel"


def tiles(rng, y, x):
    x = x + 60 * ndimage.gaussian_filter(rng.standard_normal(y.shape), 20)
    row, shifted = np.floor(y / 23).astype(int), x + np.floor(y / 23) * 17
    tone = rng.uniform(0.35, 0.65, (40, 40))[row % 40, np.floor(shifted / 41).astype(int) % 40]
    to_edge = np.minimum(11.5 - np.abs(y % 23 - 11.5), 20.5 - np.abs(shifted % 41 - 20.5))
    noise = ndimage.gaussian_filter(rng.standard_normal(y.shape), 0.7)
    return np.where(to_edge < 1.5, 0.85, tone) + 0.08 * noise


def weave(rng, y, x):
    threads = np.sin(2 * np.pi * (x + 2 * np.sin(y / 40)) / 9)
    threads = threads * np.sin(2 * np.pi * (y + 2 * np.sin(x / 53)) / 9)
    return threads + ndimage.gaussian_filter(rng.standard_normal(y.shape), 1)


def grain(rng, y, x):
    noise = rng.standard_normal(y.shape)
    return 4 * ndimage.gaussian_filter(noise, (1, 5)) + 3 * ndimage.gaussian_filter(noise, (3, 1))


MADE = {"tiles": tiles, "weave": weave, "grain": grain}


def texture(name):
    """Return a grey image of a texture, made or of scikit-image."""
    if name in MADE:
        return MADE[name](np.random.default_rng(0), *np.mgrid[:512, :512].astype(float))
    from skimage import data

    image = getattr(data, {"hubble": "hubble_deep_field"}.get(name, name))() / 255
    return image if image.ndim == 2 else image.mean(axis=2)


def crops(image, n, rng, side):
    """Return random crops from the even (0) or odd (1) strips of an image."""
    height, width = image.shape
    strip = 2 * rng.integers(0, height // (2 * STRIP), n) + side
    top = strip * STRIP + rng.integers(0, STRIP - SIZE + 1, n)
    left = rng.integers(0, width - SIZE + 1, n)
    return np.stack([image[y : y + SIZE, x : x + SIZE] for y, x in zip(top, left, strict=True)])


def plant(image, kind, rng):
    """Return an image with a defect, and the mask of the defect."""
    y, x = np.mgrid[:SIZE, :SIZE]
    angle, centre = rng.uniform(0, np.pi), rng.uniform(SIZE / 4, 3 * SIZE / 4, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    along = (x - centre[0]) * cos + (y - centre[1]) * sin
    across = (y - centre[1]) * cos - (x - centre[0]) * sin
    change = CONTRAST * image.std() * rng.choice([-1, 1])
    if kind == "scratch":
        bent = across - rng.uniform(-0.01, 0.01) * along**2
        strength = np.exp(-0.5 * (bent / 0.8) ** 2) * (np.abs(along) < rng.uniform(8, 16))
    elif kind == "spot":
        strength = 1 / (1 + np.exp((np.hypot(along, across) - rng.uniform(3, 7)) / 0.7))
    else:  # blurred along a line
        axes = rng.uniform(9, 16), rng.uniform(5, 9)
        strength = 1 / (1 + np.exp(6 * (np.hypot(along / axes[0], across / axes[1]) - 1)))
        steps = np.linspace(-8, 8, 65)
        moved = [ndimage.shift(image, (t * sin, t * cos), order=1, mode="reflect") for t in steps]
        change = np.mean(moved, axis=0) - image
    return image + strength * change, strength > 0.5


def task(name, n, seed):
    """Return images to fit, images to score, their labels, and masks of those with a defect."""
    rng, image = np.random.default_rng(seed), texture(name)
    train = crops(image, n, rng, 0)
    good, bad = (crops(image, N_TEST, rng, 1) for _ in range(2))
    planted = [plant(one, KINDS[i % 3], rng) for i, one in enumerate(bad)]
    bad, masks = map(np.stack, zip(*planted, strict=True))
    return train, np.concatenate([good, bad]), np.repeat([0, 1], N_TEST), masks


class Gaussian(BaseEstimator):
    """Minus the Mahalanobis distance, by a shrunk covariance (as PaDiM, at all places alike)."""

    def fit(self, X):
        self.scaler_ = StandardScaler().fit(X)
        self.model_ = LedoitWolf().fit(self.scaler_.transform(X))
        return self

    def score_samples(self, X):
        return -self.model_.mahalanobis(self.scaler_.transform(X))


class Neighbors(BaseEstimator):
    """Minus the distance to the nearest of 5,000 places of the training images (as PatchCore)."""

    def fit(self, X):
        self.scaler_ = StandardScaler().fit(X)
        few = np.random.default_rng(0).permutation(len(X))[:5_000]
        self.model_ = NearestNeighbors(n_neighbors=1).fit(self.scaler_.transform(X[few]))
        return self

    def score_samples(self, X):
        return -self.model_.kneighbors(self.scaler_.transform(X))[0][:, 0]


class Pooled:
    """One row of features for an image, as in DifferNet: means and maxima over its places."""

    def __init__(self, images):
        self.bank = FilterBank(np.array([images.mean()]), np.array([images.std()]))

    def __call__(self, images):
        found = self.bank(images.double()).flatten(2)
        return torch.cat([found.mean(2), found.amax(2)], 1)


CONTESTANTS = {
    "flow": lambda images: {},
    "flow, pooled features": lambda images: {"features": Pooled(images)},
    "Gaussian": lambda images: {"estimator": Gaussian()},
    "nearest neighbour": lambda images: {"estimator": Neighbors()},
}


def scores_of_places(detector, images):
    """Return the score of each place of the images, for each rotation."""
    density = detector.detector_.models_[0].density
    rows = images.reshape(len(images), -1)
    found = []
    for batch in density._batches(rows):
        copies = [places.detach().numpy() for places in density._copies(batch)]
        found.append([density.density_.score_samples(p.reshape(-1, p.shape[-1])) for p in copies])
    return np.concatenate([np.reshape(f, (len(f), -1, copies[0].shape[1])) for f in found], 1)


def map_of_places(scores):
    """Return maps of the pixels from minus the scores of places."""
    side = round(scores.shape[1] ** 0.5)
    places = torch.from_numpy(-scores).view(-1, 1, side, side)
    zoomed = torch.nn.functional.interpolate(places, (SIZE, SIZE), mode="bilinear")[:, 0]
    return ndimage.gaussian_filter(zoomed.numpy(), (0, 2, 2))


def pixel_auroc(masks, maps):
    return roc_auc_score(masks.ravel(), maps.ravel())


def run(name, n, seed, contestant):
    train, images, labels, masks = task(name, n, seed)
    params = CONTESTANTS[contestant](train)
    detector = DefectDetector(calibration=None, random_state=seed, **params)
    started = time.process_time()
    detector.fit(train)
    line = {"fit_seconds": time.process_time() - started}
    scores = scores_of_places(detector, images)
    line["mean"] = roc_auc_score(labels, -scores.mean(axis=(0, 2)))
    bad = images[labels == 1]
    if scores.shape[2] > 1:
        line["max"] = roc_auc_score(labels, -scores.min(axis=2).mean(axis=0))
        line["pixels"] = pixel_auroc(masks, map_of_places(scores[0][labels == 1]))
    kinds = np.append(np.full(N_TEST, "none"), np.resize(KINDS, N_TEST))
    for kind in KINDS:
        own = (kinds == "none") | (kinds == kind)
        line[kind] = roc_auc_score(labels[own], -scores.mean(axis=(0, 2))[own])
    if "flow" in contestant:
        started = time.process_time()
        line["gradient_pixels"] = pixel_auroc(masks, detector.defect_map(bad))
        line["map_seconds"] = time.process_time() - started
    return line


def table(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for key in ("mean", "max", "gradient_pixels", "pixels"):
        print(f"\n{key}\n| texture | images | {' | '.join(CONTESTANTS)} |")
        print("|---|---|" + "---|" * len(CONTESTANTS))
        for name, n in product(DEVELOPMENT + TEST, (16, 50, 200)):
            own = [line for line in lines if (line["texture"], line["n"]) == (name, n)]
            if not own:
                continue
            values = [
                [line[key] for line in own if line["contestant"] == c and key in line]
                for c in CONTESTANTS
            ]
            cells = [f"{100 * np.mean(v):.1f}" if v else "" for v in values]
            print(f"| {name} | {n} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="defects.jsonl")
    parser.add_argument("--table", metavar="FILE", help="print the results of a file")
    parser.add_argument("--textures", nargs="+", default=[*TEST, *DEVELOPMENT])
    parser.add_argument("--images", nargs="+", type=int, default=[16, 50, 200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    if options.table:
        return table(options.table)
    out = Path(options.out)
    keys = ("seed", "n", "texture", "contestant")
    done = set()
    if out.exists():
        lines = map(json.loads, out.read_text().splitlines())
        done = {tuple(line[key] for key in keys) for line in lines}
    for key in product(options.seeds, options.images, options.textures, CONTESTANTS):
        if key not in done:
            seed, n, name, contestant = key
            line = dict(zip(keys, key, strict=True)) | run(name, n, seed, contestant)
            with out.open("a") as file:
                print(json.dumps(line), file=file)
            print(line, flush=True)


if __name__ == "__main__":
    main()
