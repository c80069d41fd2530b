"""Moving digits: VideoFlowDensity beside Glows of single frames and of frames given others.

    python benchmarks/video.py --data FILE --out FILE
    python benchmarks/video.py --table FILE

The data FILE is an npz with images ``X`` of shape (n, 28, 28): the first half makes training
windows, the rest test windows. Contestants have the same processor time, of one thread. Predictions
are measured with scikit-image.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, limits_of_processor_time, print_table, read

from skflows import ConditionalDensity, GlowDensity, VideoFlowDensity
from skflows.training.flow_fit import TRAINING_SHARE

SIDE = 16
DIGIT = 10
N_FRAMES = 5
N_SEEN = 2  # frames before it on which a frame depends
SIZE = SIDE * SIDE
N_TRAIN, N_TEST = 1_000, 200
N_PREDICTED = 50  # test windows
N_DRAWS = 10  # of which the best counts
AT_ONCE = 50
SETTINGS = {
    "n_transforms": 3,
    "n_bins": 6,
    "hidden_layer_sizes": (32, 32),
    "learning_rate_init": 8e-3,
    "dropout": 0.0,
    "batch_size": 32,
    "max_iter": 1000,  # time ends the training
    "validation_fraction": 0.1,
    "contamination": None,
}


def windows(images, n, seed):
    """Return videos of a digit of half size that moves diagonally, a pixel a frame, and bounces."""
    rng = np.random.default_rng(seed)
    inner = images[:, 4:-4, 4:-4]  # the margin of MNIST is empty
    digits = inner.reshape(-1, DIGIT, 2, DIGIT, 2).mean(axis=(2, 4))
    videos = np.zeros((n, N_FRAMES, SIDE, SIDE))
    room = SIDE - DIGIT
    for video, digit in zip(videos, rng.integers(len(digits), size=n), strict=True):
        place = rng.integers(room + 1, size=2)
        step = rng.choice([-1, 1], size=2)
        for t in range(N_FRAMES):
            folded = (place + t * step) % (2 * room)
            row, column = np.minimum(folded, 2 * room - folded)
            video[t, row : row + DIGIT, column : column + DIGIT] = np.rint(digits[digit])
    return videos.reshape(n, -1)


def triples(rows):
    """Return all stretches of frames of which the last one is given the others."""
    n = N_FRAMES - N_SEEN
    parts = [rows[:, i * SIZE : (i + N_SEEN + 1) * SIZE] for i in range(n)]
    return np.stack(parts, axis=1).reshape(-1, (N_SEEN + 1) * SIZE)


def log_density(flow, rows):
    rows = torch.from_numpy(np.ascontiguousarray(rows))
    with torch.no_grad():
        return torch.cat([flow.log_prob(some) for some in rows.split(AT_ONCE)]).numpy()


class VideoFlow:
    """All frames of a window; those after the first ones by the difference of two densities."""

    def __init__(self, **params):
        params |= {"batch_size": 8}  # windows, of about as many frames as the batches of others
        self.density = VideoFlowDensity(
            frame_shape=(SIDE, SIDE, 1), n_context_frames=N_SEEN, **params
        )

    def fit(self, rows):
        self.n_iter = self.density.fit(rows).n_iter_

    def score(self, rows):
        whole = log_density(self.density.flow_, rows)
        first = log_density(self.density.flow_, rows[:, : N_SEEN * SIZE])
        return whole, whole - first

    def predict(self, frames, seed, temperature):
        n_steps = N_FRAMES - N_SEEN
        return self.density.predict_next(frames, n_steps, temperature, random_state=seed)


class FrameGlow:
    """Each frame on its own."""

    def __init__(self, **params):
        self.density = GlowDensity(image_shape=(SIDE, SIDE, 1), **params)

    def fit(self, rows):
        self.n_iter = self.density.fit(rows.reshape(-1, SIZE)).n_iter_

    def score(self, rows):
        scores = log_density(self.density.flow_, rows.reshape(-1, SIZE)).reshape(-1, N_FRAMES)
        return scores.sum(axis=1), scores[:, N_SEEN:].sum(axis=1)


class GlowGivenFrames:
    """A frame given those before it, which are columns of a context."""

    def __init__(self, **params):
        flow = GlowDensity(image_shape=(SIDE, SIDE, 1), **params)
        self.density = ConditionalDensity(flow, cv=None, random_state=params["random_state"])

    def fit(self, rows):
        rows = triples(rows)
        self.density.fit(rows[:, :-SIZE], rows[:, -SIZE:])
        self.n_iter = len(self.density.histories_[0]["loss"])

    def score(self, rows):
        rows = triples(rows)
        context = self.density._encoded(np.rint(rows[:, :-SIZE]))
        scores = log_density(self.density.flows_[0], np.hstack([rows[:, -SIZE:], context]))
        return None, scores.reshape(-1, N_FRAMES - N_SEEN).sum(axis=1)

    def predict(self, frames, seed, temperature):
        rng = np.random.RandomState(seed)
        for _ in range(N_FRAMES - N_SEEN):
            context = self.density._encoded(frames[:, -N_SEEN * SIZE :])
            noise = temperature * rng.standard_normal((len(frames), SIZE))
            new = self.density._inverse(self.density.flows_[0], noise, context)
            frames = np.hstack([frames, self.density._dequantizer.round(new)])
        return frames[:, N_SEEN * SIZE :]


class LastFrame:
    """The prediction that nothing moves."""

    def predict(self, frames, seed, temperature):
        return np.tile(frames[:, -SIZE:], N_FRAMES - N_SEEN)


CONTESTANTS = {
    "VideoFlow": VideoFlow,
    "Glow of single frames": FrameGlow,
    "Glow given frames as columns": GlowGivenFrames,
    "last frame": LastFrame,
}


def best_of_draws(model, rows, temperature):
    """Return the mean PSNR and SSIM, over frames, of the best draw for each window."""
    from skimage.metrics import structural_similarity

    rows = rows[:N_PREDICTED]
    truth = rows[:, N_SEEN * SIZE :].reshape(len(rows), -1, SIDE, SIDE)
    found = np.empty((2, N_DRAWS, *truth.shape[:2]))
    for draw in range(N_DRAWS):
        frames = model.predict(rows[:, : N_SEEN * SIZE], draw, temperature).reshape(truth.shape)
        for i, t in np.ndindex(truth.shape[:2]):
            pair = truth[i, t], frames[i, t]
            # Equal frames have an infinite PSNR: an error of 1 in one pixel bounds it.
            error = max(np.mean((pair[0] - pair[1]) ** 2), 1 / SIZE)
            found[0, draw, i, t] = 10 * math.log10(255**2 / error)
            found[1, draw, i, t] = structural_similarity(*pair, data_range=255)
    return found.mean(axis=3).max(axis=1).mean(axis=1).tolist()


def show(lines):
    """Print the table of `video.md`."""
    columns = {
        "bits": ("all frames", 3),
        "bits_se": ("standard error", 3),
        "bits_given_frames": ("given frames", 3),
        "psnr_0.5": ("PSNR", 1),
        "ssim_0.5": ("SSIM", 3),
        "epochs": ("epochs", 0),
        "seconds": ("seconds", 0),
    }
    frame = pd.DataFrame(lines).set_index("method")[[*columns]]
    print_table(frame.rename(columns=lambda key: columns[key][0]), dict(columns.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of this file and leave")
    parser.add_argument("--methods", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.table:
        show(read(args.table))
        return
    if args.data is None or args.out is None:
        parser.error("give --data and --out, or --table")

    torch.set_num_threads(1)
    with np.load(args.data) as file:
        images = file["X"].astype(float)
    half = len(images) // 2
    train = windows(images[:half], N_TRAIN, seed=0)
    test = windows(images[half:], N_TEST, seed=1)
    noisy = test + np.random.default_rng(args.seed).uniform(-0.5, 0.5, test.shape)

    for method in args.methods:
        line = {"method": method, "seed": args.seed}
        limit = args.seconds / TRAINING_SHARE
        started = time.process_time()
        if method == "last frame":
            model = LastFrame()
        else:
            model = CONTESTANTS[method](random_state=args.seed, time_limit=limit, **SETTINGS)
            with limits_of_processor_time():
                model.fit(train)
            line["seconds"] = round(time.process_time() - started, 1)
            line["epochs"] = model.n_iter
            for name, scores, n in zip(
                ("bits", "bits_given_frames"),
                model.score(noisy),
                (N_FRAMES, N_FRAMES - N_SEEN),
                strict=True,
            ):
                if scores is not None:
                    bits = -scores / (n * SIZE * math.log(2))
                    line[name] = round(float(bits.mean()), 4)
                    line[f"{name}_se"] = round(float(bits.std() / len(bits) ** 0.5), 4)
        if hasattr(model, "predict"):
            for temperature in (1.0, 0.5):
                psnr, ssim = best_of_draws(model, test, temperature)
                line[f"psnr_{temperature}"] = round(psnr, 2)
                line[f"ssim_{temperature}"] = round(ssim, 4)
        print(json.dumps(line), flush=True)
        append(args.out, line)


if __name__ == "__main__":
    main()
