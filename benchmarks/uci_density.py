"""Test log-likelihoods on the five tables of the literature on flows, in its splits.

    python benchmarks/uci_density.py --data DIR --out FILE

DIR is the folder ``data`` of https://zenodo.org/records/1161203, by Papamakarios, Pavlakou & Murray
("Masked Autoregressive Flow for Density Estimation", 2017). POWER, GAS, HEPMASS, MINIBOONE and
BSDS300 are prepared and split as there; BSDS300 needs h5py. Lines already in ``--out`` are not run
again. GAS is a pickle: unpickling can run code, so take it from a source that you trust.
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from protocol import append, read

import skflows

SHARE = 0.1  # of the rows that are tested, and of the others that are validated
MOST_CORRELATED = 0.98
MOST_COPIES = 5  # of the least value of a column


def parts(X):
    """Return all but the last rows, and the last tenth."""
    n = int(SHARE * len(X))
    return X[:-n], X[-n:]


def standardized(train, val, test):
    """Return the parts in units of the training and validation rows."""
    known = np.concatenate([train, val])
    mean, scale = known.mean(axis=0), known.std(axis=0)
    return [(rows - mean) / scale for rows in (train, val, test)]


def power(folder):
    """Return the parts of POWER, six columns with noise as wide as their rounding."""
    random_state = np.random.RandomState(42)
    X = np.load(folder / "power" / "data.npy")
    random_state.shuffle(X)
    X = np.delete(X, [1, 3], axis=1)
    n = len(X)
    voltage = 0.01 * random_state.rand(n, 1)
    gap = 0.001 * random_state.rand(n, 1)
    meters = random_state.rand(n, 3)
    X = X + np.hstack([gap, voltage, meters, np.zeros((n, 1))])
    rest, test = parts(X)
    return standardized(*parts(rest), test)


def gas(folder):
    """Return the parts of GAS: eight sensors, none of which repeats another."""
    frame = pd.read_pickle(folder / "gas" / "ethylene_CO.pickle")
    frame = frame.drop(columns=["Meth", "Eth", "Time"])
    while True:
        n_alike = (frame.corr() > MOST_CORRELATED).sum(axis=1).to_numpy()
        if (n_alike <= 1).all():
            break
        frame = frame.drop(columns=frame.columns[np.argmax(n_alike > 1)])
    rest, test = parts(((frame - frame.mean()) / frame.std()).to_numpy())
    return [*parts(rest), test]


def hepmass(folder):
    """Return the parts of HEPMASS: the 21 continuous columns of the signal."""
    train, test = (
        pd.read_csv(folder / "hepmass" / f"1000_{part}.csv", index_col=False)
        for part in ("train", "test")
    )
    train, test = (frame[frame.iloc[:, 0] == 1].iloc[:, 1:] for frame in (train, test))
    test = test.iloc[:, :-1]  # which the training rows do not have
    train, test = train.to_numpy(), test.to_numpy()
    mean, scale = train.mean(axis=0), train.std(axis=0)
    kept = (train == train.min(axis=0)).sum(axis=0) <= MOST_COPIES
    train, test = (((rows - mean) / scale)[:, kept] for rows in (train, test))
    return [*parts(train), test]


def miniboone(folder):
    """Return the parts of MINIBOONE, 43 columns."""
    rest, test = parts(np.load(folder / "miniboone" / "data.npy"))
    return standardized(*parts(rest), test)


def bsds300(folder):
    """Return the parts of BSDS300, patches of 63 pixels."""
    import h5py

    with h5py.File(folder / "BSDS300" / "BSDS300.hdf5") as file:
        return [file[part][()] for part in ("train", "validation", "test")]


SETS = {
    "POWER": (power, 6),
    "GAS": (gas, 8),
    "HEPMASS": (hepmass, 21),
    "MINIBOONE": (miniboone, 43),
    "BSDS300": (bsds300, 63),
}
ESTIMATORS = {"NSFDensity": skflows.NSFDensity, "AutoDensity": skflows.AutoDensity}


def load(name, folder):
    """Return training, validation and test rows, or raise an error if they have other columns."""
    prepare, d = SETS[name]
    found = prepare(Path(folder))
    if any(rows.shape[1] != d for rows in found):
        shapes = ", ".join(str(rows.shape) for rows in found)
        raise ValueError(f"{name} has parts of the shapes {shapes}, but {d} columns are published.")
    return found


def run(name, method, folder, max_rows=None, **params):
    """Return the mean log-density of the test rows in nats, and its standard error."""
    train, val, test = load(name, folder)
    train, val = train[:max_rows], val[:max_rows]
    estimator = ESTIMATORS[method](random_state=0, **params)
    start = time.process_time()
    if method == "NSFDensity":
        estimator.fit(train, X_val=val)
    else:  # which holds rows out itself
        estimator.fit(np.concatenate([train, val]))
    seconds = time.process_time() - start
    scores = estimator.score_samples(test)
    return {
        "n": len(train),
        "d": train.shape[1],
        "ll": float(scores.mean()),
        "se": float(scores.std() / len(scores) ** 0.5),
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the tables")
    parser.add_argument("--out", required=True, help="JSON lines of results")
    parser.add_argument("--sets", nargs="*", default=[*SETS], choices=[*SETS])
    parser.add_argument("--methods", nargs="*", default=[*ESTIMATORS], choices=[*ESTIMATORS])
    parser.add_argument("--max-rows", type=int, help="of the training and validation rows")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    lines = read(args.out)
    for name, method in product(args.sets, args.methods):
        key = {"set": name, "method": method, "max_rows": args.max_rows}
        if any(key.items() <= line.items() for line in lines):
            continue
        line = key | run(name, method, args.data, args.max_rows)
        print(line, flush=True)
        append(args.out, line)


if __name__ == "__main__":
    main()
