"""AUROC of scores that tell other images from images like the rows of the fit.

    python benchmarks/out_of_distribution.py digits --seconds 15 --out FILE
    python benchmarks/out_of_distribution.py mnist --data FILE --seconds 150 --out FILE
    python benchmarks/out_of_distribution.py show --out FILE

The flows and their rows are those of `lossless.py`, which may have kept them: ``--model``. Other
images: "digits" or "mnist", the other set at the same size and range; "inverted", the held-out
images with black and white exchanged; "noise", pixels drawn from all held-out pixels; "uniform",
pixels that are uniform on the range; "flat", images of one grey value each; "blurred", the held-out
images, each pixel the mean of its 3 x 3 neighbours.

"likelihood" is the negative log-likelihood; "typicality" is its distance from the mean of the
training rows (Nalisnick et al., 2019); "complexity" subtracts the bits of the image as PNG (Serra
et al., 2020), and "typical complexity" is the distance of that from its mean.
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from compression import density_of
from lossless import of_set
from PIL import Image
from protocol import append, print_table, read
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import skflows

N_TEST = 200  # images of each kind
N_TRAIN = 500  # images whose scores are typical


def others(name, test, shape, data, rng):
    """Return sets of other images, by name."""
    side, top = shape[0], test.max()
    images = test.reshape(-1, side, side)
    if name == "digits":
        with np.load(data) as file:
            large = file["X"][-N_TEST:].astype(float) * top / 255
        middle = large[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3)  # 24 x 24 pixels make 8 x 8
        other = "mnist", middle.mean(axis=(2, 4)).round()
    else:
        small = load_digits().images[-N_TEST:] * top / 16
        other = "digits", ndimage.zoom(small, (1, side / 8, side / 8), order=1).round()
    sets = {
        other[0]: other[1].clip(0, top),
        "inverted": top - images,
        "noise": rng.choice(test.ravel(), images.shape),
        "uniform": rng.integers(0, int(top) + 1, images.shape),
        "flat": np.broadcast_to(rng.integers(0, int(top) + 1, (len(images), 1, 1)), images.shape),
        "blurred": ndimage.uniform_filter(images, (0, 3, 3)).round(),
    }
    return {key: value.reshape(len(value), -1).astype(float) for key, value in sets.items()}


def bits_of_png(X, shape, top):
    """Return the bits of each image as PNG, whose range of values is stretched to bytes."""
    sizes = []
    for row in X:
        file = io.BytesIO()
        pixels = (row * (255 // top)).reshape(shape[:2]).astype(np.uint8)
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
        sizes.append(8 * file.getbuffer().nbytes)
    return np.array(sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=["digits", "mnist", "show"])
    parser.add_argument("--data", type=Path, help="images of MNIST, which both sets need")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model", type=Path, help="a density that lossless.py kept")
    args = parser.parse_args()
    if args.set == "show":
        lines = pd.DataFrame(read(args.out))
        print_table(lines.set_index(["set", "others"])[SCORES], dict.fromkeys(SCORES, 3))
        return
    torch.set_num_threads(1)
    train, test, shape, _ = of_set(args.set, args.data)
    density = skflows.load(args.model) if args.model else density_of(train, shape, args.seconds)
    rng, top = np.random.default_rng(0), int(train.max())
    train, test = train[rng.permutation(len(train))[:N_TRAIN]], test[:N_TEST]
    log_volume = np.log(list(density.discrete_.values())).sum()

    def scores(X):
        nats = -(density.score_samples(X) + log_volume)
        return nats, nats - np.log(2) * bits_of_png(X, shape, top)

    centres = [np.mean(each) for each in scores(train)]

    def all_scores(X):
        likelihood, complexity = scores(X)
        typical = [abs(s - c) for s, c in zip((likelihood, complexity), centres, strict=True)]
        return dict(zip(SCORES, (likelihood, typical[0], complexity, typical[1]), strict=True))

    known = all_scores(test)
    for name, X in others(args.set, test, shape, args.data, rng).items():
        new, labels = all_scores(X), np.repeat([0, 1], [len(test), len(X)])
        line = {"set": args.set, "others": name, "train_s": args.seconds}
        for score in SCORES:
            values = np.nan_to_num(np.concatenate([known[score], new[score]]))
            line[score] = round(roc_auc_score(labels, values), 4)
        print(json.dumps(line), flush=True)
        append(args.out, line)


SCORES = ["likelihood", "typicality", "complexity", "typical complexity"]

if __name__ == "__main__":
    main()
