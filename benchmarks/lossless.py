"""Bytes of files without loss, by FlowCompressor and by other codecs.

    python benchmarks/lossless.py mnist --data FILE --seconds S --out FILE
    python benchmarks/lossless.py digits --seconds S --out FILE
    python benchmarks/lossless.py crops --seconds S --out FILE
    python benchmarks/lossless.py NAME --data CSV --seconds S --out FILE
    python benchmarks/lossless.py show --out FILE

MNIST: the first 3,000 images of FILE train and the last 1,000 are compressed. Digits: the first
1,400 train. Crops: those of `compression.py`. Of a CSV, the columns of whole numbers are taken;
of its rows in random order, the last 1,000 are compressed. All write one file: image codecs
get the images side by side, general ones one after another, in the fewest bytes a value.

"more" are the bits per value of the second half of the rows: the size of all of them minus the size
of the first half. "ideal" is the negative log-likelihood by `score_samples`. Milliseconds are
processor time for a row.
"""

import argparse
import io
import json
import lzma
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from compression import crops, mnist, side_by_side, stored_density
from PIL import Image
from protocol import append, print_table, read
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator

from skflows import FlowCompressor

N_TEST = 1000


def of_set(name, path):
    """Return rows to train on and to compress, the shape of images, and how many stand in a row."""
    if name == "crops":
        return crops()
    if name == "digits":
        X = load_digits().data
        return X[:1400], X[1400:1780], (8, 8, 1), 20
    if name == "mnist":
        train, _, shape, n_across = mnist(path)
        with np.load(path) as file:
            return train, file["X"][-N_TEST:].reshape(N_TEST, -1).astype(float), shape, n_across
    frame = pd.read_csv(path).select_dtypes("number").dropna()
    X = frame.loc[:, (frame % 1 == 0).all() & (frame.nunique() > 1)].to_numpy(float)
    X = X[np.random.default_rng(0).permutation(len(X))]
    return X[:-N_TEST], X[-N_TEST:], None, None


def sizes_of_others(test, shape, n_across):
    """Return the bytes that other codecs take."""
    least = test.min(axis=0)
    kinds = [np.min_scalar_type(int(x)) for x in (test - least).max(axis=0)]
    columns = [(test - least)[:, j].astype(kind) for j, kind in enumerate(kinds)]
    if shape is None:
        by_row = b"".join(x.tobytes() for row in zip(*columns, strict=True) for x in row)
        contents = [by_row, b"".join(column.tobytes() for column in columns)]
    else:
        contents = [test.astype(np.uint8).tobytes()]
    sizes = {
        "xz": min(len(lzma.compress(each, preset=9 | lzma.PRESET_EXTREME)) for each in contents)
    }
    try:
        import zstandard

        codec = zstandard.ZstdCompressor(level=22)
        sizes["zstd"] = min(len(codec.compress(each)) for each in contents)
    except ImportError:
        pass
    if shape is None:
        return sizes
    image = Image.fromarray(side_by_side(test, shape, n_across).astype(np.uint8))
    webp = [{}, {"method": 6}, {"quality": 100}, {"quality": 100, "method": 6}]
    settings = {"PNG": [{"optimize": True}], "WebP": webp}
    try:
        import pillow_jxl  # noqa: F401 - it registers the format

        settings["JXL"] = [{"effort": 9}]
    except ImportError:
        pass
    for kind, each in settings.items():
        files = [io.BytesIO() for _ in each]
        for file, options in zip(files, each, strict=True):
            image.save(file, kind, lossless=True, **options)
        sizes[kind] = min(file.getbuffer().nbytes for file in files)
    return sizes


def show(lines):
    """Print the tables of `compression.md`: bits per value, and times."""
    frame = pd.DataFrame(lines).set_index("set")
    codecs = [name for name in ("PNG", "WebP", "JXL", "xz", "zstd") if name in frame]
    bits = ["FlowCompressor", "more", "ideal", *codecs]
    print_table(frame[["values", *bits]], dict.fromkeys(bits, 2) | {"values": 0})
    print()
    print_table(
        frame[["train_s", "encode_ms", "decode_ms"]],
        {"train_s": 0} | dict.fromkeys(["encode_ms", "decode_ms"], 1),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model", type=Path, help="where the density is kept")
    args = parser.parse_args()
    if args.set == "show":
        show(read(args.out))
        return
    torch.set_num_threads(1)
    train, test, shape, n_across = of_set(args.set, args.data)
    density = stored_density(args.model, train, shape, args.seconds)
    compressor = FlowCompressor(FrozenEstimator(density), lossless=True).fit(train[:500])
    start = time.process_time()
    data = compressor.compress(test)
    encoded = time.process_time()
    if not (compressor.decompress(data) == test).all():
        raise AssertionError("not without loss")
    decoded = time.process_time()
    n = len(test) // 2
    log_volume = np.log(list(density.discrete_.values())).sum()
    nats = -(density.score_samples(test).mean() + log_volume) / test.shape[1]
    sizes = {"FlowCompressor": len(data)} | sizes_of_others(test, shape, n_across)
    line = {"set": args.set, "values": test.shape[1]}
    line |= {name: round(8 * size / test.size, 4) for name, size in sizes.items()}
    more = len(data) - len(compressor.compress(test[:n]))
    line |= {
        "more": round(8 * more / test[n:].size, 4),
        "ideal": round(float(nats / np.log(2)), 4),
        "train_s": args.seconds,
        "encode_ms": round(1000 * (encoded - start) / len(test), 2),
        "decode_ms": round(1000 * (decoded - encoded) / len(test), 2),
    }
    print(json.dumps(line), flush=True)
    append(args.out, line)


if __name__ == "__main__":
    main()
