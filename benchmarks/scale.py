"""Time and memory of large tables: epochs of training, scoring, increments.

    python benchmarks/scale.py --figure epochs.png

Tables are float32 files that are mapped into memory, as `numpy.load(path, mmap_mode="r")` gives
them. Each line is measured in a process of its own: processor time, and the largest anonymous
memory (what is neither the file nor a library) above what the process had before.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from quality import machine

import skflows

D = 10
PART = 100_000  # rows written, or trained on, at once
SAMPLING_SECONDS = 0.005


def table_file(folder, n):
    """A file of n rows of dependent columns that are not normal."""
    path = Path(folder, f"{n}.npy")
    if path.exists():
        return path
    X = np.lib.format.open_memmap(path, "w+", np.float32, (n, D))
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(D, D))
    for start in range(0, n, PART):
        part = X[start : start + PART]
        part[:] = np.tanh(rng.normal(size=part.shape)) @ mixing
        part += 0.3 * rng.normal(size=part.shape)
    return path


def anonymous_megabytes():
    with open("/proc/self/status", encoding="utf-8") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["RssAnon"].split()[0]) / 1024


@contextmanager
def peak_memory(found):
    """Enter in ``found`` by how many megabytes the memory rose at most in this context."""
    before = peak = anonymous_megabytes()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(SAMPLING_SECONDS):
            peak = max(peak, anonymous_megabytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        found["peak_megabytes"] = peak - before


class EpochTimes:
    """A callback that notes the processor time at the end of each epoch."""

    def setup(self, estimator, context):
        self.times = []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.times.append(time.process_time())


def warmed_up(name):
    """An estimator whose class has been fitted once, so that imports do not count."""
    cls = getattr(skflows, f"{name}Density")
    cls(max_iter=1).fit(np.random.default_rng(0).normal(size=(500, D)))
    return cls


def fit(path, name):
    """Two epochs of a fit, of which the second is timed."""
    X, found = np.load(path, mmap_mode="r"), {}
    estimator = warmed_up(name)(max_iter=2, batch_size=1024, random_state=0)
    epochs = EpochTimes()
    estimator.set_callbacks(epochs)
    with peak_memory(found):
        estimator.fit(X)
    first, second = epochs.times
    return found | {"seconds": second - first}


def score(path, name):
    """`score_samples` of the whole table."""
    X, found = np.load(path, mmap_mode="r"), {}
    estimator = warmed_up(name)(max_iter=1, random_state=0).fit(X[:2000])
    with peak_memory(found):
        started = time.process_time()
        estimator.score_samples(X)
        found["seconds"] = time.process_time() - started
    return found


def increments(path, name):
    """`partial_fit` on one part of the table after another."""
    X, found = np.load(path, mmap_mode="r"), {}
    estimator = warmed_up(name)(batch_size=1024, random_state=0)
    with peak_memory(found):
        started = time.process_time()
        for start in range(0, len(X), PART):
            estimator.partial_fit(X[start : start + PART])
        found["seconds"] = time.process_time() - started
    return found


CASES = {"fit": fit, "score": score, "increments": increments}


def one_thread():
    torch.set_num_threads(1)


def measured(case, path, name):
    """What a case gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, one_thread) as pool:
        return pool.apply(CASES[case], (path, name))


def draw(rows, path):
    """Seconds of an epoch against the number of rows, and a line through the last point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fits = [row for row in rows if row["case"] == "fit"]
    n = np.array([row["n"] for row in fits])
    seconds = np.array([row["seconds"] for row in fits])
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.loglog(n, seconds, "o-", label="measured")
    axes.loglog(n, seconds[-1] * n / n[-1], "--", color="gray", label="proportional to the rows")
    axes.set(xlabel="rows", ylabel="seconds per epoch")
    axes.legend()
    figure.savefig(path, dpi=150)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="MAF", help="NSF, MAF, RealNVP, ...")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    numbers = {"nargs": "+", "type": int, "metavar": "ROWS"}
    fits = [10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000]
    parser.add_argument("--fit", **numbers, default=fits)
    parser.add_argument("--score", **numbers, default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--increments", **numbers, default=[200_000, 2_000_000])
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--figure", help="file to draw the cost of an epoch to")
    return parser.parse_args()


def main():
    args = parse()
    print("| | rows | table, MB | seconds | per row, us | memory above before, MB |")
    print("|---" * 6 + "|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases:
            for n in getattr(args, case):
                path = table_file(folder, n)
                found = measured(case, path, args.architecture)
                rows.append({"case": case, "n": n, **found})
                seconds, megabytes = found["seconds"], found["peak_megabytes"]
                print(
                    f"| {case} | {n:,} | {path.stat().st_size / 2**20:.0f} | {seconds:.2f} | "
                    f"{1e6 * seconds / n:.2f} | {megabytes:.0f} |",
                    flush=True,
                )
    print(f"\nMachine: {machine()}; one thread; torch {torch.__version__}; {args.architecture}")
    if args.figure:
        draw(rows, args.figure)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"machine": machine(), "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
