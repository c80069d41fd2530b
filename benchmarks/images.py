"""Bits per dimension of images: GlowDensity beside normflows' Glow and flows of flat pixels.

    python benchmarks/images.py mnist --data FILE --out FILE
    python benchmarks/images.py digits --out FILE
    python benchmarks/images.py memory --out FILE
    python benchmarks/images.py show --out FILE

FILE is an npz with images ``X`` of shape (n, 28, 28): the first 3,000 train, the rest tests.
Contestants have the same processor time, of one thread. A score is the mean negative log-density of
test images with one draw of uniform noise, in bits per pixel: the bound that papers report. All
contestants get the same noise. Each trains on 90 % of the rows; "validation" is its best score on
the others, by which settings are to be chosen. "memory" fits images of 64 x 64 x 3 values in
batches of 32, and reports the peak of the process.
"""

import argparse
import json
import math
import resource
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, limits_of_processor_time, print_table, read
from sklearn.datasets import load_digits

from skflows import GlowDensity, MAFDensity, NSFDensity
from skflows.training.flow_fit import TRAINING_SHARE

MAX_ITER = 1000  # time ends the training
VALIDATION = 0.1
AT_ONCE = 100  # test images
SHORT = {"learning_rate_init": 4e-3, "dropout": 0.0}  # for few epochs

# Per set: the shape of an image, and the settings of the contestants.
SETS = {
    "mnist": {
        "shape": (28, 28, 1),
        "n_values": 256,
        "batch_size": 32,
        "glow": {"n_transforms": 3, "hidden_layer_sizes": (32, 32)} | SHORT,
        "flat": {"hidden_layer_sizes": (256, 256)},
        "normflows": {"n_blocks": 6, "n_hidden": 32},
    },
    "digits": {
        "shape": (8, 8, 1),
        "n_values": 17,
        "batch_size": 64,
        "glow": {"n_transforms": 3, "hidden_layer_sizes": (32, 32)} | SHORT,
        "flat": {"hidden_layer_sizes": (128, 128)},
        "normflows": {"n_blocks": 6, "n_hidden": 32},
    },
}


def ours(cls, own, **params):
    """Return a function that fits one of our estimators within a processor time."""

    def fit(train, seconds, seed):
        density = cls(
            validation_fraction=VALIDATION,
            contamination=None,
            random_state=seed,
            **own,
            **params,
        )
        density.set_params(max_iter=MAX_ITER, time_limit=seconds / TRAINING_SHARE)
        with limits_of_processor_time():
            density.fit(train)
        return density.flow_.log_prob, density.best_validation_score_, density.n_iter_

    return fit


def normflows_glow(own, shape, n_values):
    """Return a function that fits normflows' multi-scale Glow, as its example builds it."""

    def fit(train, seconds, seed):
        import normflows as nf

        torch.manual_seed(seed)
        height, width, n_channels = shape
        n_levels = 2
        bases, merges, flows = [], [], []
        for i in range(n_levels):  # from the deepest one up
            scale = 2 ** (n_levels - i)
            n = n_channels * 2 ** (n_levels + 1 - i)
            blocks = [
                nf.flows.GlowBlock(n, own["n_hidden"], split_mode="channel", scale=True)
                for _ in range(own["n_blocks"])
            ]
            flows.append([*blocks, nf.flows.Squeeze()])
            if i:
                merges.append(nf.flows.Merge())
            half = n if i == 0 else n // 2
            bases.append(nf.distributions.DiagGaussian((half, height // scale, width // scale)))
        model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

        def scaled(rows):
            images = rows.view(-1, height, width, n_channels).movedim(-1, 1)
            return (images + 0.5) / n_values - 0.5

        def log_prob(rows):
            log_scale = math.prod(shape) * math.log(n_values)
            return model.log_prob(scaled(rows.float()), None).double() - log_scale

        rows = torch.from_numpy(train)
        order = torch.randperm(len(rows))
        n_held_out = int(VALIDATION * len(rows))
        held_out, rows = rows[order[:n_held_out]], rows[order[n_held_out:]]
        held_out = held_out + torch.rand(held_out.shape) - 0.5
        rate = own.get("learning_rate", 1e-3)
        make = torch.optim.Adam if "learning_rate" in own else torch.optim.Adamax
        optimizer = make(model.parameters(), lr=rate)
        started, epochs, best, weights = time.process_time(), 0, -math.inf, None

        while (share := (time.process_time() - started) / seconds) < 1:
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * share)) / 2
            for batch in rows[torch.randperm(len(rows))].split(own["batch_size"]):
                loss = -log_prob(batch + torch.rand(batch.shape) - 0.5).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            epochs += 1
            with torch.no_grad():
                score = log_prob(held_out).mean().item()
            if score > best:
                best = score
                weights = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(weights)
        return log_prob, best, epochs

    return fit


def contestants(name):
    own = SETS[name]
    batch = {"batch_size": own["batch_size"]}
    glow = own["glow"] | batch | {"image_shape": own["shape"]}
    theirs = own["normflows"] | batch
    # Flat flows get the gap of all pixels by `discrete`, and some its ends by `bounds`.
    n_pixels = math.prod(own["shape"])
    flat = own["flat"] | batch | {"discrete": dict.fromkeys(range(n_pixels), 1.0)}
    bounded = {"bounds": [(0, own["n_values"] - 1)] * n_pixels, "preprocessing": "standardize"}
    return {
        "GlowDensity(n_bins=6)": ours(GlowDensity, glow, n_bins=6),
        "GlowDensity": ours(GlowDensity, glow),
        "normflows Glow": normflows_glow(theirs, own["shape"], own["n_values"]),
        "normflows Glow, Adam at our rate": normflows_glow(
            theirs | {"learning_rate": SHORT["learning_rate_init"]}, own["shape"], own["n_values"]
        ),
        "MAFDensity, flat": ours(MAFDensity, flat),
        "NSFDensity, flat": ours(NSFDensity, flat),
        "MAFDensity, flat, bounds": ours(MAFDensity, flat, **bounded),
        "NSFDensity, flat, bounds": ours(NSFDensity, flat, **bounded),
    }


def images(name, data):
    if name == "digits":
        X = load_digits().data
        X = X[np.random.default_rng(0).permutation(len(X))]
        return X[:1400], X[1400:]
    with np.load(data) as file:
        X = file["X"].reshape(len(file["X"]), -1).astype(float)
    return X[:3000], X[3000:]


def memory():
    """Return the peak memory of a process before and after a fit to large images, in MB."""
    rows = np.random.default_rng(0).integers(0, 256, (96, 64 * 64 * 3)).astype(float)
    density = GlowDensity(image_shape=(64, 64, 3), n_levels=3, n_transforms=3, n_bins=6)
    density.set_params(batch_size=32, max_iter=1, contamination=None, random_state=0)
    before = peak_megabytes()
    density.fit(rows)
    return {"before": before, "after": peak_megabytes()}


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def show(lines):
    """Print the tables of `images.md`: of each set and limit, by seed 0, and by all seeds."""
    frame = pd.DataFrame(lines).rename(columns={"bits": "bits per pixel", "se": "standard error"})
    digits = {"bits per pixel": 3, "standard error": 3, "median": 3, "validation": 3}
    digits |= {"epochs": 0, "seconds": 0}
    for name in SETS:
        own = frame[frame["set"] == name].astype({"seed": int})
        own["limit"] = own["limit"].fillna(120.0)  # the earliest lines have the default, unnamed
        for limit, first in own[own["seed"] == 0].groupby("limit"):
            print(f"\n{name}, {limit:.0f} seconds, seed 0\n")
            print_table(first.sort_values("bits per pixel").set_index("method")[[*digits]], digits)
        by_seed = own.pivot(index=["method", "limit"], columns="seed", values="bits per pixel")
        by_seed = by_seed.dropna().add_prefix("seed ").assign(mean=lambda own: own.mean(axis=1))
        if own["seed"].nunique() > 1:
            print(f"\n{name}, bits per pixel by seed\n")
            print_table(by_seed.sort_values(["limit", "mean"]), defaultdict(lambda: 3))
    memory = frame.loc[frame["set"] == "memory", ["before", "after"]]
    print("\npeak memory of a process in MB, before and after a fit\n")
    print_table(memory.set_axis(["MB"] * len(memory)).rename_axis("unit"), defaultdict(int))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=[*SETS, "memory", "show"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.set == "show":
        show(read(args.out))
        return

    torch.set_num_threads(1)

    def report(**line):
        print(json.dumps(line), flush=True)
        append(args.out, line)

    if args.set == "memory":
        report(set="memory", **memory())
        return
    train, test = images(args.set, args.data)
    noise = np.random.default_rng(args.seed).uniform(-0.5, 0.5, test.shape)
    rows = torch.from_numpy(test + noise)
    known = contestants(args.set)
    for method in args.methods or known:
        started = time.process_time()
        log_prob, validation, epochs = known[method](train, args.seconds, args.seed)
        fitted = time.process_time() - started
        with torch.no_grad():
            scores = torch.cat([log_prob(some) for some in rows.split(AT_ONCE)]).numpy()
        nats = test.shape[1] * math.log(2)
        bits = -scores / nats
        report(
            set=args.set,
            method=method,
            seed=args.seed,
            limit=args.seconds,
            bits=round(float(bits.mean()), 4),
            se=round(float(bits.std() / len(bits) ** 0.5), 4),
            median=round(float(np.median(bits)), 4),
            validation=round(-validation / nats, 4),
            epochs=epochs,
            seconds=round(fitted, 1),
        )


if __name__ == "__main__":
    main()
