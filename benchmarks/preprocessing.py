"""The default of the parameter `preprocessing`: held-out likelihood of flows with each map.

    python benchmarks/preprocessing.py --data DIR --out preprocessing.jsonl
    python benchmarks/preprocessing.py --table preprocessing.jsonl

Flows are fitted to the training part of each table. The default is chosen by the validation part;
the table also shows the test part, which no choice has seen.
"""

import argparse
import statistics
from collections import Counter
from pathlib import Path

import torch
from protocol import append, load, read
from quality import machine
from threadpoolctl import threadpool_limits

import skflows

CHOICES = {
    "standardize": "standardize",
    "whiten": "whiten",
    "quantile": "quantile",
    "quantile, whiten": ("quantile", "whiten"),
}
FLOWS = "NSF", "MAF", "RealNVP"


def run(args):
    """Yield a line for each table, flow, choice and seed that is not in the file yet."""
    lines = read(args.out) if args.out.exists() else []
    done = {(x["set"], x["flow"], x["preprocessing"], x["seed"]) for x in lines}
    for path in sorted(args.data.rglob("*.npz"), key=lambda path: path.stat().st_size):
        if args.sets and path.stem not in args.sets:
            continue
        for seed in args.seeds:
            train, val, test = load(path, seed)
            for name in args.flows:
                for choice, preprocessing in CHOICES.items():
                    key = path.stem, name, choice, seed
                    if key in done:
                        continue
                    cls = getattr(skflows, f"{name}Density")
                    flow = cls(preprocessing=preprocessing, discrete=None, random_state=seed)
                    flow.fit(train)
                    line = dict(zip(("set", "flow", "preprocessing", "seed"), key, strict=True))
                    line |= {"val": flow.score(val), "test": flow.score(test)}
                    yield line | {"n": len(train), "d": train.shape[1], "machine": machine()}


def print_tables(lines):
    choices = list(CHOICES)
    for flow in dict.fromkeys(line["flow"] for line in lines):
        for part in ("val", "test"):
            means = {}
            for name in sorted({line["set"] for line in lines}):
                found = [
                    [
                        line[part]
                        for line in lines
                        if (line["set"], line["flow"], line["preprocessing"]) == (name, flow, c)
                    ]
                    for c in choices
                ]
                if all(found):
                    means[name] = list(map(statistics.mean, found))
            best = Counter(choices[row.index(max(row))] for row in means.values())
            print(f"\n{flow}, {part}: mean log-density minus the best, in nats\n")
            print("| table | " + " | ".join(choices) + " |")
            print("|---" * (1 + len(choices)) + "|")
            for name, row in means.items():
                cells = [f"{value - max(row):.2f}" for value in row]
                print(f"| {name} | " + " | ".join(cells) + " |")
            for label, of in (("median", statistics.median), ("mean", statistics.mean)):
                columns = zip(*([v - max(row) for v in row] for row in means.values()), strict=True)
                print(
                    f"| {label} | " + " | ".join(f"{of(column):.2f}" for column in columns) + " |"
                )
            print("| best of tables | " + " | ".join(str(best[c]) for c in choices) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of npz tables")
    parser.add_argument("--sets", nargs="*", help="names of tables, without .npz (default: all)")
    parser.add_argument("--flows", nargs="+", default=FLOWS, choices=FLOWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, help="JSON lines file to append to and resume from")
    parser.add_argument("--table", type=Path, help="print the tables of this file and leave")
    args = parser.parse_args()
    if args.table:
        print_tables(read(args.table))
        return
    if args.data is None or args.out is None:
        parser.error("give --data and --out, or --table")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for line in run(args):
            append(args.out, line)
    print_tables(read(args.out))


if __name__ == "__main__":
    main()
