"""Moving digits: VideoFlowDensity beside Glows of single frames and of frames given others.

    python benchmarks/video.py --data FILE --out FILE
    python benchmarks/video.py --data FILE --out FILE --task half --seconds 600
    python benchmarks/video.py --table FILE

The data FILE is an npz with images ``X`` of shape (n, 28, 28): the first half makes training
windows, the rest test windows. Contestants have the same processor time, of one thread. Predictions
are measured with scikit-image.

"small" is a digit of half size that moves diagonally through five frames of 16 x 16 pixels. "full"
is as Moving MNIST (Srivastava et al., 2015): two digits that move by 3.6 pixels in any direction
through 16 frames of 64 x 64 pixels, the larger value where they overlap. "half" is the same at
half the resolution. All digits bounce.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from protocol import append, limits_of_processor_time, print_table, read

from skflows import ConditionalDensity, GlowDensity, VideoFlowDensity
from skflows.training.flow_fit import TRAINING_SHARE

N_SEEN = 2  # frames before it on which a frame depends
N_TRAIN = 1_000
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


def halved(images):
    n, side, _ = images.shape
    return np.rint(images.reshape(n, side // 2, 2, side // 2, 2).mean(axis=(2, 4)))


def small_digits(images):
    return halved(images[:, 4:-4, 4:-4])  # the margin of MNIST is empty


def diagonal_step(rng, side):
    return rng.choice([-1, 1], size=2)


def any_step(rng, side):
    angle = rng.uniform(0, 2 * np.pi)
    return 3.6 / 64 * side * np.array([np.sin(angle), np.cos(angle)])


class Task(NamedTuple):
    """Digits that move and bounce."""

    side: int  # of a frame
    n_frames: int
    n_test: int  # windows
    n_digits: int
    digits_of: Callable  # of images of MNIST
    step: Callable  # in pixels

    @property
    def size(self):
        return self.side**2

    def windows(self, images, n, seed):
        """Return videos as rows."""
        rng = np.random.default_rng(seed)
        digits = self.digits_of(images)
        height = digits.shape[1]
        room = self.side - height
        videos = np.zeros((n, self.n_frames, self.side, self.side))
        chosen = rng.integers(len(digits), size=(n, self.n_digits))
        for video, digit in ((v, d) for v, own in zip(videos, chosen, strict=True) for d in own):
            place, step = rng.integers(room + 1, size=2), self.step(rng, self.side)
            for t, frame in enumerate(video):
                folded = (place + t * step) % (2 * room)
                row, column = np.rint(np.minimum(folded, 2 * room - folded)).astype(int)
                part = frame[row : row + height, column : column + height]
                np.maximum(part, digits[digit], out=part)
        return videos.reshape(n, -1)

    def triples(self, rows):
        """Return all stretches of frames of which the last one is given the others."""
        n, size = self.n_frames - N_SEEN, self.size
        parts = [rows[:, i * size : (i + N_SEEN + 1) * size] for i in range(n)]
        return np.stack(parts, axis=1).reshape(-1, (N_SEEN + 1) * size)


TASKS = {
    "small": Task(16, 5, 200, 1, small_digits, diagonal_step),
    "half": Task(32, 16, 100, 2, halved, any_step),
    "full": Task(64, 16, 100, 2, lambda images: images, any_step),
}


def log_density(flow, rows):
    rows = torch.from_numpy(np.ascontiguousarray(rows))
    with torch.no_grad():
        return torch.cat([flow.log_prob(some) for some in rows.split(AT_ONCE)]).numpy()


class VideoFlow:
    """All frames of a window; those after the first ones by the difference of two densities."""

    def __init__(self, task, **params):
        self.n_seen = N_SEEN * task.size
        self.n_steps = task.n_frames - N_SEEN
        # Windows, of about as many frames as the batches of others.
        params |= {"batch_size": 40 // task.n_frames}
        self.density = VideoFlowDensity(
            frame_shape=(task.side, task.side, 1), n_context_frames=N_SEEN, **params
        )

    def fit(self, rows):
        self.n_iter = self.density.fit(rows).n_iter_

    def score(self, rows):
        whole = log_density(self.density.flow_, rows)
        first = log_density(self.density.flow_, rows[:, : self.n_seen])
        return whole, whole - first

    def predict(self, frames, seed, temperature):
        return self.density.predict_next(frames, self.n_steps, temperature, random_state=seed)


class FrameGlow:
    """Each frame on its own."""

    def __init__(self, task, **params):
        self.task = task
        self.density = GlowDensity(image_shape=(task.side, task.side, 1), **params)

    def fit(self, rows):
        self.n_iter = self.density.fit(rows.reshape(-1, self.task.size)).n_iter_

    def score(self, rows):
        scores = log_density(self.density.flow_, rows.reshape(-1, self.task.size))
        scores = scores.reshape(-1, self.task.n_frames)
        return scores.sum(axis=1), scores[:, N_SEEN:].sum(axis=1)


class GlowGivenFrames:
    """A frame given those before it, which are columns of a context."""

    def __init__(self, task, **params):
        self.task = task
        flow = GlowDensity(image_shape=(task.side, task.side, 1), **params)
        self.density = ConditionalDensity(flow, cv=None, random_state=params["random_state"])

    def fit(self, rows):
        context, frames = np.split(self.task.triples(rows), [N_SEEN * self.task.size], axis=1)
        self.density.fit(context, frames)
        self.n_iter = len(self.density.histories_[0]["loss"])

    def score(self, rows):
        context, frames = np.split(self.task.triples(rows), [N_SEEN * self.task.size], axis=1)
        context = self.density._encoded(np.rint(context))
        scores = log_density(self.density.flows_[0], np.hstack([frames, context]))
        return None, scores.reshape(len(rows), -1).sum(axis=1)

    def predict(self, frames, seed, temperature):
        rng = np.random.RandomState(seed)
        n_seen = N_SEEN * self.task.size
        for _ in range(self.task.n_frames - N_SEEN):
            context = self.density._encoded(frames[:, -n_seen:])
            noise = temperature * rng.standard_normal((len(frames), self.task.size))
            new = self.density._inverse(self.density.flows_[0], noise, context)
            frames = np.hstack([frames, self.density._dequantizer.round(new)])
        return frames[:, n_seen:]


class LastFrame:
    """The prediction that nothing moves."""

    def __init__(self, task, **params):
        self.task = task

    def predict(self, frames, seed, temperature):
        return np.tile(frames[:, -self.task.size :], self.task.n_frames - N_SEEN)


CONTESTANTS = {
    "VideoFlow": VideoFlow,
    "Glow of single frames": FrameGlow,
    "Glow given frames as columns": GlowGivenFrames,
    "last frame": LastFrame,
}


def best_of_draws(task, model, rows, temperature):
    """Return the mean PSNR and SSIM, over frames, of the best draw for each window."""
    from skimage.metrics import structural_similarity

    seen, truth = np.split(rows[:N_PREDICTED], [N_SEEN * task.size], axis=1)
    truth = truth.reshape(len(seen), -1, task.side, task.side)
    found = np.empty((2, N_DRAWS, *truth.shape[:2]))
    for draw in range(N_DRAWS):
        frames = model.predict(seen, draw, temperature).reshape(truth.shape)
        for i, t in np.ndindex(truth.shape[:2]):
            pair = truth[i, t], frames[i, t]
            # Equal frames have an infinite PSNR: an error of 1 in one pixel bounds it.
            error = max(np.mean((pair[0] - pair[1]) ** 2), 1 / task.size)
            found[0, draw, i, t] = 10 * math.log10(255**2 / error)
            found[1, draw, i, t] = structural_similarity(*pair, data_range=255)
    return found.mean(axis=3).max(axis=1).mean(axis=1).tolist()


def show(lines):
    """Print the table of `video.md`."""
    columns = {
        "bits": ("all frames", 3),
        "bits_se": ("standard error", 3),
        "bits_given_frames": ("given frames", 3),
        "psnr_0.5": ("PSNR, 0.5", 1),
        "ssim_0.5": ("SSIM, 0.5", 3),
        "psnr_1.0": ("PSNR, 1", 1),
        "ssim_1.0": ("SSIM, 1", 3),
        "epochs": ("epochs", 0),
        "seconds": ("seconds", 0),
    }
    frame = pd.DataFrame(lines).set_index(["task", "method"])[[*columns]]
    print_table(frame.rename(columns=lambda key: columns[key][0]), dict(columns.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of this file and leave")
    parser.add_argument("--task", choices=TASKS, default="small")
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
    half, task = len(images) // 2, TASKS[args.task]
    train = task.windows(images[:half], N_TRAIN, seed=0)
    test = task.windows(images[half:], task.n_test, seed=1)
    noisy = test + np.random.default_rng(args.seed).uniform(-0.5, 0.5, test.shape)

    for method in args.methods:
        line = {"task": args.task, "method": method, "seed": args.seed}
        limit = args.seconds / TRAINING_SHARE
        started = time.process_time()
        model = CONTESTANTS[method](task, random_state=args.seed, time_limit=limit, **SETTINGS)
        if hasattr(model, "fit"):
            with limits_of_processor_time():
                model.fit(train)
            line["seconds"] = round(time.process_time() - started, 1)
            line["epochs"] = model.n_iter
            for name, scores, n in zip(
                ("bits", "bits_given_frames"),
                model.score(noisy),
                (task.n_frames, task.n_frames - N_SEEN),
                strict=True,
            ):
                if scores is not None:
                    bits = -scores / (n * task.size * math.log(2))
                    line[name] = round(float(bits.mean()), 4)
                    line[f"{name}_se"] = round(float(bits.std() / len(bits) ** 0.5), 4)
        if hasattr(model, "predict"):
            for temperature in (1.0, 0.5):
                psnr, ssim = best_of_draws(task, model, test, temperature)
                line[f"psnr_{temperature}"] = round(psnr, 2)
                line[f"ssim_{temperature}"] = round(ssim, 4)
        print(json.dumps(line), flush=True)
        append(args.out, line)


if __name__ == "__main__":
    main()
