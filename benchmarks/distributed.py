"""Time and traffic of training on several workers, and what to expect of more of them.

    python benchmarks/distributed.py

The same table and the same global batches are trained on 1, 2 and 4 worker processes of a
LocalCluster with one thread each. Efficiency is the time of one worker over k times the time of k
workers: by the clock, which needs k idle cores, and by the processor time of the first worker,
which leaves out waiting. The projection to more workers takes the measured time of a step with a
k-th of its rows, and the measured bytes through a ring over a network.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

# Dask's package has the name of this file, and must be found first.
HERE = str(Path(__file__).parent.absolute())
sys.path = [*(path for path in sys.path if path != HERE), HERE]

import dask.array as da
import distributed
import numpy as np
import torch
from quality import machine
from scale import D

from skflows import NSFDensity
from skflows.dask import DaskDensity

HELD_OUT = 20_000


def table(rng, n):
    """Rows of dependent columns that are not normal."""
    mixing = np.random.default_rng(0).normal(size=(D, D))
    return np.tanh(rng.normal(size=(n, D))) @ mixing + 0.3 * rng.normal(size=(n, D))


class EpochTimes:
    """A callback that notes both clocks, and what was sent, at the end of each epoch."""

    def setup(self, estimator, context):
        self.times = []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            from skflows.training import data_parallel

            sent = getattr(data_parallel, "sent", (0, 0))
            self.times.append((time.perf_counter(), time.process_time(), *sent))


def count_traffic():
    """Count the sums over all processes, and their bytes, in this process from now on."""
    from skflows.training import data_parallel

    data_parallel.sent = 0, 0
    communicate = data_parallel.Group._communicate

    def counted(group, collective, tensor):
        communicate(group, collective, tensor)
        if collective == "allreduce" and tensor.numel() > D:  # the gradients of a step
            n_sums, n_bytes = data_parallel.sent
            data_parallel.sent = n_sums + 1, n_bytes + tensor.nbytes

    data_parallel.Group._communicate = counted


def measured(n_workers, X, held_out, args):
    """Fit on a cluster; return the figures of an epoch and the held-out score."""
    settings = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    density = NSFDensity(
        batch_size=args.batch, max_iter=args.epochs, n_iter_no_change=args.epochs, random_state=0
    )
    density.set_callbacks(EpochTimes())
    cluster = distributed.LocalCluster(n_workers=n_workers, **settings)
    with cluster, distributed.Client(cluster) as client:
        client.run(count_traffic)
        chunk = math.ceil(len(X) / args.partitions)
        found = DaskDensity(density).fit(da.from_array(X, chunks=(chunk, D))).to_local()
    (callback,) = found._skl_callbacks
    clock, processor, sums, sent = np.median(np.diff(callback.times, axis=0), axis=0)
    return {
        "workers": n_workers,
        "clock_s": clock,
        "processor_s": processor,
        "bytes_per_step": sent / sums,
        "score": found.score(held_out),
        "parameters": sum(p.numel() for p in found.flow_.bijection.parameters()),
    }


def seconds_of_step(rows, n_steps=200):
    """Processor seconds of a step of one process with so many rows."""
    density = NSFDensity(batch_size=rows, max_iter=3, early_stopping=False, random_state=0)
    density.set_callbacks(EpochTimes())
    n = rows * n_steps + (rows == 1)
    density.fit(table(np.random.default_rng(1), n))
    (callback,) = density._skl_callbacks
    return min(np.diff(callback.times, axis=0)[:, 1]) / n_steps


def ring_seconds(n_workers, n_bytes, args):
    """Seconds of a sum by a ring: each worker sends 2 (k - 1) parts of a k-th of the vector."""
    n_messages = 2 * (n_workers - 1)
    return n_messages * (n_bytes / n_workers / (args.gigabits * 1e9 / 8) + args.latency)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=1024, help="rows of a step, of all workers")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--projected", type=int, nargs="*", default=[2, 16, 64])
    parser.add_argument("--gigabits", type=float, default=10.0, help="of the network, per second")
    parser.add_argument("--latency", type=float, default=50e-6, help="seconds of a message")
    parser.add_argument("--json", help="file to write the figures to")
    return parser.parse_args()


def main():
    args = parse()
    torch.set_num_threads(1)
    X = table(np.random.default_rng(1), args.rows)
    held_out = table(np.random.default_rng(2), HELD_OUT)
    print("| workers | epoch, s | efficiency | processor s of an epoch | efficiency | ", end="")
    print("bytes per step | held-out score |\n" + "|---" * 7 + "|")
    rows = []
    for n_workers in args.workers:
        rows.append(own := measured(n_workers, X, held_out, args))
        own |= {
            f"{clock}_efficiency": rows[0][f"{clock}_s"] / n_workers / own[f"{clock}_s"]
            for clock in ("clock", "processor")
        }
        print(
            f"| {n_workers} | {own['clock_s']:.2f} | {own['clock_efficiency']:.0%} | "
            f"{own['processor_s']:.2f} | {own['processor_efficiency']:.0%} | "
            f"{own['bytes_per_step']:,.0f} | {own['score']:.4f} |",
            flush=True,
        )
    print(f"\n{args.rows:,} rows of {D} columns; {rows[0]['parameters']:,} weights.")
    print(f"Projection: {args.gigabits:g} Gbit/s, {1e6 * args.latency:g} us for a message.\n")
    print("| global batch | workers | rows each | compute, ms | sum, ms | efficiency |")
    print("|---" * 6 + "|")
    projected = []
    for batch in (args.batch, 16 * args.batch):
        alone = seconds_of_step(batch, 200 * 1024 // batch)
        for k in args.projected:
            compute = seconds_of_step(batch // k, min(200, 200 * 1024 // (batch // k)))
            summing = ring_seconds(k, rows[0]["bytes_per_step"], args)
            efficiency = alone / k / (compute + summing)
            projected.append([batch, k, compute, summing, efficiency])
            print(
                f"| {batch:,} | {k} | {batch // k:,} | {1e3 * compute:.2f} | {1e3 * summing:.2f} | "
                f"{efficiency:.0%} |",
                flush=True,
            )
    print(f"\nMachine: {machine()}; torch {torch.__version__}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"machine": machine(), "rows": rows, "projected": projected}, out, indent=1)


if __name__ == "__main__":
    main()
