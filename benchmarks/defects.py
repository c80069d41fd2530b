"""Planted defects in textures: AUROC of images and of pixels, beside peers on the same features.

    python benchmarks/defects.py --out benchmarks/results/defects.jsonl
    python benchmarks/defects.py --table benchmarks/results/defects.jsonl

Needs scikit-image, for its textures. Lines already in ``--out`` are not run again.

"auroc" is the AUROC of images by the mean anomaly score of the worst tenth of their places, which
is the score of DefectDetector; "max" is that by the worst place. "pixels" is the AUROC of the
pixels of images with a defect, by the gradient of the score for flows, and by the scores of places
for the others. Scores and maps average four rotations. "scratch" to "patch" are parts of "auroc",
by kind of defect.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
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
N_PLACES = 20_000  # of the images of fit, as many as DefectDetector takes
KINDS = "scratch", "spot", "smear", "patch"
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
    elif kind == "patch":  # without texture
        strength = 1 / (1 + np.exp((np.hypot(along, across) - rng.uniform(5, 9)) / 0.7))
        change = image.mean() - image
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
    planted = [plant(one, KINDS[i % len(KINDS)], rng) for i, one in enumerate(bad)]
    bad, masks = map(np.stack, zip(*planted, strict=True))
    return train, np.concatenate([good, bad]), np.repeat([0, 1], N_TEST), masks


def gaussian(rows):
    """Return the Mahalanobis distance by a shrunk covariance, of all places alike (as PaDiM)."""
    return LedoitWolf().fit(rows).mahalanobis


def neighbour(rows):
    """Return the distance to the nearest of the places of the images of fit (as PatchCore)."""
    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows)
    return lambda others: model.kneighbors(others)[0][:, 0]


class Pooled:
    """One row of features for an image, as in DifferNet: means and maxima over its places."""

    def __init__(self, bank):
        self.bank = bank

    def __call__(self, images):
        found = self.bank(images.double()).flatten(2)
        return torch.cat([found.mean(2), found.amax(2)], 1)


FLOWS = {"flow": lambda bank: {}, "flow, pooled features": lambda bank: {"features": Pooled(bank)}}
PEERS = {"Gaussian": gaussian, "nearest neighbour": neighbour}
CONTESTANTS = [*FLOWS, *PEERS]


def features(bank, images):
    """Return the features of all places of images and of their quarter turns."""
    images = torch.from_numpy(images)[:, None]
    turned = [bank(torch.rot90(images, i, (2, 3))).flatten(2).mT for i in range(4)]
    return torch.stack(turned, 1).numpy()  # (n, 4, places, k)


def map_of_places(scores):
    """Return maps of the pixels from the scores of places, the centres of windows of 8 x 8."""
    side = round(scores.shape[1] ** 0.5)
    at = (np.arange(SIZE) - 3.5) / 4
    at = [np.arange(len(scores))[:, None, None], at[:, None], at]
    grids = scores.reshape(-1, side, side)
    zoomed = ndimage.map_coordinates(grids, np.broadcast_arrays(*at), order=1, mode="nearest")
    return ndimage.gaussian_filter(zoomed, (0, 2, 2))


def run(name, n, seed, contestant):
    train, images, labels, masks = task(name, n, seed)
    bank = FilterBank(np.array([train.mean()]), np.array([train.std()]))
    started, line = time.process_time(), {}
    if contestant in FLOWS:
        detector = DefectDetector(calibration=None, random_state=seed, **FLOWS[contestant](bank))
        detector.fit(train)
        line["fit_seconds"] = time.process_time() - started
        scores = -detector.score_samples(images)
        maps = detector.defect_map(images[labels == 1])
    else:
        rows = features(bank, train).reshape(-1, bank(torch.zeros(1, 1, SIZE, SIZE)).shape[1])
        order = np.random.default_rng(seed).permutation(len(rows))
        scaler = StandardScaler().fit(rows)
        score = PEERS[contestant](scaler.transform(rows[order[:N_PLACES]]))
        line["fit_seconds"] = time.process_time() - started
        found = features(bank, images)
        places = score(scaler.transform(found.reshape(-1, found.shape[-1])))
        places = places.reshape(found.shape[:3])
        turned = [map_of_places(places[labels == 1, i]) for i in range(4)]
        maps = np.mean([np.rot90(each, -i, (1, 2)) for i, each in enumerate(turned)], axis=0)
        places.sort(axis=2)
        line["max"] = roc_auc_score(labels, places[..., -1].mean(axis=1))
        scores = places[..., -round(places.shape[2] / 10) :].mean(axis=(1, 2))
    line["seconds"] = time.process_time() - started
    line["auroc"] = roc_auc_score(labels, scores)
    line["pixels"] = roc_auc_score(masks.ravel(), maps.ravel())
    kinds = np.append(np.full(N_TEST, "none"), np.resize(KINDS, N_TEST))
    for kind in KINDS:
        own = (kinds == "none") | (kinds == kind)
        line[kind] = roc_auc_score(labels[own], scores[own])
    return {key: round(value, 4) for key, value in line.items()}


def table(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    columns = [(c, key) for c in CONTESTANTS for key in ("auroc", "max", "pixels")]
    columns = [(c, key) for c, key in columns if key != "max" or c in PEERS]

    def row(*head, own):
        found = [[x[key] for x in own if x["contestant"] == c] for c, key in columns]
        cells = [f"{np.mean(values):.3f}" for values in found]
        print("| " + " | ".join([*map(str, head), *cells]) + " |")

    print("| texture | images | " + " | ".join(f"{c}: {key}" for c, key in columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for name, n in product(DEVELOPMENT + TEST, (16, 50, 200)):
        if own := [line for line in lines if (line["texture"], line["n"]) == (name, n)]:
            row(name, n, own=own)
    print("\n| kind of defect | " + " | ".join(CONTESTANTS) + " |")
    print("|---|" + "---|" * len(CONTESTANTS))
    for kind in KINDS:
        found = [[x[kind] for x in lines if x["contestant"] == c] for c in CONTESTANTS]
        print(f"| {kind} | " + " | ".join(f"{np.mean(values):.3f}" for values in found) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="defects.jsonl")
    parser.add_argument("--table", metavar="FILE", help="print the results of a file")
    parser.add_argument("--textures", nargs="+", default=TEST)
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
