"""Whether samples of a table break what everyone sees in its rows.

    python benchmarks/fidelity.py --data DIR --out fidelity.jsonl
    python benchmarks/fidelity.py --table fidelity.jsonl

DIR holds CSV files; iris, wine and diabetes are scikit-learn's. Lines already in ``--out`` are not
run again. All rows are fitted; the real rows beside them are a second half that no sampler sees.
"""

import argparse
import time
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, print_table, read
from sklearn.datasets import load_diabetes, load_iris, load_wine
from tables import SAMPLERS, copies, discriminator, distance_ratio, load

from skflows import TableDensity

# The column of categories whose groups are compared.
GROUPS = {
    "iris": "species",
    "wine": "cultivar",
    "penguins": "species",
    "diabetes": "sex",
    "slid": "sex",
    "hdma": "deny",
    "ofp": "region",
    "wages": "sex",
    "abalone": "Sex",
    "adult_12k": "education",
}
BEYOND = 0.1  # of the range of a number, beyond which a value is outside of its group
MAX_ROWS = 4_000


def halves(name, data, seed):
    """Return training and test rows of equal size."""
    loaders = {"iris": load_iris, "wine": load_wine, "diabetes": load_diabetes}
    if name not in loaders:
        frame = pd.concat(load(data, name, seed, MAX_ROWS), ignore_index=True)
    else:
        loaded = loaders[name](as_frame=True, **({"scaled": False} if name == "diabetes" else {}))
        frame = loaded.data.copy()
        if name == "diabetes":
            frame["target"], frame["sex"] = loaded.target, frame["sex"].map({1: "a", 2: "b"})
        else:
            frame[GROUPS[name]] = loaded.target_names[loaded.target]
        frame = frame.sample(frac=1, random_state=seed, ignore_index=True)
    half = len(frame) // 2
    return frame[:half], frame[half : 2 * half].reset_index(drop=True)


def one_normal_a_class(group):
    """Return a sampler: numbers of each group are normal, other categories independent."""

    def rows(train, n, seed):
        rng = np.random.default_rng(seed)
        numbers = train.select_dtypes("number").columns
        drawn = []
        for level, share in train[group].value_counts(normalize=True).items():
            chosen = train[train[group] == level]
            size = round(share * n)
            table = {
                name: chosen[name].sample(size, replace=True, random_state=seed + i).to_numpy()
                for i, name in enumerate(train)
            }
            mean, covariance = chosen[numbers].mean(), chosen[numbers].cov()
            values = rng.multivariate_normal(mean, covariance, size)
            drawn.append(pd.DataFrame(table | dict(zip(numbers, values.T, strict=True))))
        return pd.concat(drawn, ignore_index=True)[list(train)]

    return rows


def outside_of_group(train, rows, group):
    """Return the share of rows with a number far outside of the range of its group."""
    numbers = train.select_dtypes("number").columns
    margin = BEYOND * (train[numbers].max() - train[numbers].min())
    ranges = train.groupby(group)[list(numbers)]
    low, high = (ends.reindex(rows[group]).to_numpy() for ends in (ranges.min(), ranges.max()))
    values, margin = rows[numbers].to_numpy(), margin.to_numpy()
    is_far = (values < low - margin) | (values > high + margin)  # False for missing values
    return float(is_far.any(axis=1)[rows[group].notna()].mean())


def unseen_pairs(train, rows):
    """Return the share of rows with a pair of categories that no training row has."""
    names = train.select_dtypes(exclude="number").columns
    is_unseen = np.zeros(len(rows), dtype=bool)
    for pair in combinations(names, 2):
        seen = set(map(tuple, train[list(pair)].dropna().to_numpy()))
        known = rows[list(pair)].dropna()
        is_unseen[known.index[[tuple(row) not in seen for row in known.to_numpy()]]] = True
    return float(is_unseen.mean())


def broken_orders(train, rows):
    """Return the share of rows in which a number exceeds another that it never exceeds in training.

    Only pairs count that would often be the other way round if they were independent.
    """
    numbers = train.select_dtypes("number").columns
    is_broken = np.zeros(len(rows), dtype=bool)
    for a, b in combinations(numbers, 2):
        for low, high in ((a, b), (b, a)):
            known = train[[low, high]].dropna()
            shuffled = known[high].sample(frac=1, random_state=0).to_numpy()
            if (known[low] <= known[high]).all() and (known[low] > shuffled).mean() > 0.01:
                is_broken |= (rows[low] > rows[high]).to_numpy()
    return float(is_broken.mean())


def measures(train, test, rows, group, seed):
    """Return what a sampler's rows show, beside the training rows and real test rows."""
    known = [each.dropna().reset_index(drop=True) for each in (train, rows)]
    return {
        "outside": outside_of_group(train, rows, group),
        "unseen": unseen_pairs(train, rows),
        "orders": broken_orders(train, rows),
        "copies": copies(train, rows),
        "distance": distance_ratio(train, test, rows),
        "gaps": float((train.isna().mean() - rows.isna().mean()).abs().max()),
        "auc": discriminator(train, rows, seed),
        "complete": len(known[1]) / len(rows),
    }


def run(name, args):
    train, test = halves(name, args.data, args.seed)
    group = GROUPS[name]
    complete = train.dropna().reset_index(drop=True)
    samplers = {
        "real rows": None,
        "TableDensity": lambda _, n, seed: (
            TableDensity(random_state=seed).fit(train).sample(n, random_state=seed)
        ),
        "one normal a class": one_normal_a_class(group),
    } | {key: SAMPLERS[key] for key in ("Gaussian copula (sdv)", "TVAE (sdv)", "arfpy")}
    for method, sampler in samplers.items():
        key = {
            "part": "fidelity",
            "set": name,
            "n": len(train),
            "method": method,
            "seed": args.seed,
        }
        if any(key.items() <= line.items() for line in read(args.out)):
            continue
        torch.manual_seed(args.seed)
        np.random.seed(args.seed)  # noqa: NPY002 - some samplers have no seed of their own
        started = time.process_time()
        try:
            rows = test if sampler is None else sampler(complete, len(train), args.seed)
        except Exception as error:  # whatever a peer raises is its result
            print(key | {"error": repr(error)}, flush=True)
            continue
        seconds = time.process_time() - started
        rows = rows.astype({name: train[name].dtype for name in train if rows[name].notna().all()})
        line = key | measures(train, test, rows, group, args.seed) | {"cpu_s": seconds}
        print(line, flush=True)
        append(args.out, line)


def print_tables(path):
    """Print the mean of each measure, and the share outside of their group by table."""
    frame = pd.DataFrame(read(path))
    names = {
        "outside": "outside of group",
        "unseen": "unseen pairs",
        "orders": "orders broken",
        "gaps": "missing values",
        "copies": "copies of a row",
        "distance": "distance to rows",
        "auc": "discriminator",
        "cpu_s": "seconds",
    }
    names = {name: title for name, title in names.items() if name in frame}  # of older lines
    digits = dict.fromkeys(names.values(), 3) | {"seconds": 1}
    means = frame.groupby("method", sort=False)[[*names]].mean().rename(columns=names)
    print_table(means, digits)
    print()
    by_set = frame.pivot_table("outside", "set", "method", sort=False)
    print_table(by_set, dict.fromkeys(by_set, 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="*", default=[*GROUPS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="only print the tables of a file")
    args = parser.parse_args()
    if args.table:
        print_tables(args.table)
        return
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in args.sets:
            run(name, args)


if __name__ == "__main__":
    main()
