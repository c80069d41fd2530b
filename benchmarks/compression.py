"""Rate and distortion of FlowCompressor beside JPEG and WebP (without loss: `lossless.py`).

    python benchmarks/compression.py mnist --data FILE --out FILE
    python benchmarks/compression.py crops --out FILE
    python benchmarks/compression.py crops --out FILE --qualities --picture PNG
    python benchmarks/compression.py show --out FILE

FILE is an npz with images ``X`` of shape (n, 28, 28): the first 3,000 train, the last 200 are
compressed. Crops are 16 x 16 grey pixels of photographs that scikit-image ships; crops of the lower
half of one photograph, which is not used for training, are compressed. All contestants write all
images as one file: other codecs get them side by side.

The flow is the one that writes images without loss. "same_bytes" says whether the images that come
back give the same bytes.
"""

import argparse
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from protocol import append, limits_of_processor_time, print_table, read
from sklearn.frozen import FrozenEstimator

import skflows
from skflows import FlowCompressor, GlowDensity, NSFDensity
from skflows.training.flow_fit import TRAINING_SHARE

CROP = 16
TRAIN_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "coins", "moon")
TEST_PHOTOGRAPH = "camera"
N_CROPS = 3000
QUALITIES = range(0, 81, 10)
PICTURED = 30  # quality
OTHER_QUALITIES = (5, 10, 20, 40, 60, 80, 95)


def grey(name):
    from skimage import data

    image = np.asarray(getattr(data, name)())
    return image.mean(axis=2).round() if image.ndim == 3 else image.astype(float)


def crops():
    """Return random crops to train on, and those that tile half of the test photograph."""
    rng = np.random.default_rng(0)
    photographs = [grey(name) for name in TRAIN_PHOTOGRAPHS]
    train = []
    for i in range(N_CROPS):
        image = photographs[i % len(photographs)]
        top, left = (rng.integers(size - CROP) for size in image.shape)
        train.append(image[top : top + CROP, left : left + CROP].ravel())
    image = grey(TEST_PHOTOGRAPH)
    image = image[len(image) // 2 :]  # the sky is above
    n_down, n_across = (size // CROP for size in image.shape)
    blocks = image[: n_down * CROP, : n_across * CROP].reshape(n_down, CROP, n_across, CROP)
    return np.array(train), blocks.swapaxes(1, 2).reshape(-1, CROP**2), (CROP, CROP, 1), n_across


def mnist(path):
    with np.load(path) as file:
        X = file["X"].reshape(len(file["X"]), -1).astype(float)
    return X[:3000], X[-200:], (28, 28, 1), 20


def side_by_side(rows, shape, n_across):
    height, width, _ = shape
    cells = rows.reshape(-1, n_across, height, width).swapaxes(1, 2)
    return cells.reshape(-1, n_across * width)


def psnr(rows, others):
    return 10 * math.log10(255**2 / max(((rows - others) ** 2).mean(), 1e-12))


def density_of(train, shape, seconds):
    """Return a fitted density of images, or of rows if there is no shape."""
    settings = {
        "dropout": 0.0,
        "learning_rate_init": 4e-3,
        "max_iter": 1000,
        "time_limit": seconds / TRAINING_SHARE,
        "contamination": None,
        "random_state": 0,
    }
    if shape is not None:
        density = GlowDensity(
            image_shape=shape,
            n_transforms=3,
            hidden_layer_sizes=(32, 32),
            batch_size=32,
            **settings,
        )
    else:
        density = NSFDensity(discrete=list(range(train.shape[1])), **settings)
    with limits_of_processor_time():
        return density.fit(train)


def stored_density(path, train, shape, seconds):
    """Return the density of a file, or fit it, and store it if there is a path."""
    if path and path.exists():
        return skflows.load(path)
    density = density_of(train, shape, seconds)
    if path:
        density.save(path)
    return density


SHOWN = {"mnist": "MNIST", "crops": "Crops of photographs"}


def show(lines):
    """Print tables of `compression.md`: ours, and other codecs.

    The bits of other codecs are interpolated at the PSNR of ours.
    """
    columns = {
        "bits": ("bits per pixel", 2),
        "JPEG": ("times JPEG", 2),
        "WebP": ("times WebP", 2),
        "psnr": ("PSNR", 1),
        "same_bytes": ("same bytes", 0),
    }
    frame = pd.DataFrame(lines)
    given = [line.get("settings") or line for line in lines]
    frame["quality"] = [own.get("quality") for own in given]
    for name, title in SHOWN.items():
        own = frame[frame["set"] == name]
        has_loss = own["psnr"].notna() & (own["psnr"] < np.inf)
        ours = own["method"].str.startswith("FlowCompressor")
        found = own[ours & has_loss].set_index("quality")
        found.index = found.index.astype(int)
        others = own[~ours & has_loss].assign(quality=lambda x: x["quality"].astype(int))
        for codec, of in others.groupby("method"):
            bits = np.interp(found["psnr"], of["psnr"], of["bits"], left=np.nan, right=np.nan)
            found[codec] = found["bits"] / bits
        found["same_bytes"] = np.where(found["same_bytes"].astype(bool), "yes", "no")
        print(f"\n{title}\n")
        found = found[[*columns]].rename(columns=lambda key: columns[key][0])
        print_table(found, dict(columns.values()))
        others["both"] = [
            f"{x:.2f}, {y:.1f}" for x, y in zip(others["bits"], others["psnr"], strict=True)
        ]
        print("\nBits per pixel and PSNR of other codecs, by their quality\n")
        print_table(others.pivot(index="method", columns="quality", values="both"), {})


def codec(pixels, kind, quality):
    """Return the size of grey pixels in a file of JPEG or WebP, and the pixels that come back."""
    file, settings = io.BytesIO(), {"method": 6} if kind == "WebP" else {}
    Image.fromarray(pixels).save(file, kind, quality=quality, **settings)
    return file.tell(), np.asarray(Image.open(file).convert("L"), dtype=float)


def draw(path, whole, size, pixels):
    """Store a picture of a part of the images, beside the largest files that are no larger."""
    import matplotlib.pyplot as plt

    pictures = {"original": (whole.size, whole), "FlowCompressor": (size, pixels)}
    for kind in ("JPEG", "WebP"):
        files = [codec(whole, kind, quality) for quality in range(1, 101)]
        smaller = [each for each in files if each[0] <= size]
        pictures[kind] = max(smaller or files[:1], key=lambda each: each[0])
    fig, axes = plt.subplots(2, 2, figsize=(8, 8.6), layout="constrained")
    for ax, (name, (n_bytes, image)) in zip(axes.flat, pictures.items(), strict=True):
        loss = "" if image is whole else f", {psnr(image, whole.astype(float)):.1f} dB"
        ax.imshow(image[:160, 160:320], cmap="gray", vmin=0, vmax=255)
        ax.set(title=f"{name}, {n_bytes:,} bytes{loss}", xticks=[], yticks=[])
    fig.savefig(path, dpi=80)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=[*SHOWN, "show"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="where the density is kept")
    parser.add_argument("--qualities", type=int, nargs="*", default=QUALITIES)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--picture", type=Path, help="a picture at quality 30, beside other codecs")
    args = parser.parse_args()
    if args.set == "show":
        show(read(args.out))
        return

    torch.set_num_threads(1)
    train, test, shape, n_across = crops() if args.set == "crops" else mnist(args.data)

    def report(method, size, rows=None, **others):
        line = {"set": args.set, "method": method, "bits": round(8 * size / test.size, 4)}
        if rows is not None:
            line["psnr"] = round(psnr(rows, test), 2)
        line |= others
        print(json.dumps(line), flush=True)
        append(args.out, line)

    whole = side_by_side(test, shape, n_across).astype(np.uint8)
    for kind in ("JPEG", "WebP") if args.qualities else ():
        for quality in OTHER_QUALITIES:
            size, back = codec(whole, kind, quality)
            report(kind, size, settings={"quality": quality}, psnr=round(psnr(back, whole), 2))

    density = stored_density(args.model, train, shape, args.seconds)
    compressor = FlowCompressor(FrozenEstimator(density)).fit(train)
    for quality in args.qualities:
        data = compressor.compress(test, quality)
        rows = compressor.decompress(data)
        same = compressor.compress(rows, quality) == data
        report("FlowCompressor", len(data), rows, quality=quality, same_bytes=same)
    if args.picture:
        data = compressor.compress(test, PICTURED)
        pixels = side_by_side(compressor.decompress(data), shape, n_across)
        draw(args.picture, whole, len(data), pixels)


if __name__ == "__main__":
    main()
