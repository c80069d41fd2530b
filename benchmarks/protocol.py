"""The split behind every density figure of this package, and the lines of results.

Inliers only, repeated rows and constant columns dropped, discrete columns dequantised, rows
permuted, 70 % to train, 10 % to validate, 20 % to test, all standardised by the training part.
"""

import json
import statistics
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

MAX_ROWS = 12_000


def limits_of_processor_time():
    """Return a context in which time limits of fits in this process count processor time."""
    return patch("skflows.callbacks._run.time", SimpleNamespace(time=process_time))


def load(path, seed=0, max_rows=MAX_ROWS):
    """Read an npz table (``X``, optionally ``y`` with 1 for anomalies) and split it.

    Parameters
    ----------
    path : str or Path
        The npz file.
    seed : int, default=0
        Decides the dequantising noise and the permutation, hence the split.
    max_rows : int or None, default=12000
        Rows kept, after the permutation.

    Returns
    -------
    train, val, test : float32 arrays of shape (n, d)
        In units of the training part's standard deviations.
    """
    rng = np.random.default_rng(seed)
    with np.load(Path(path)) as table:
        X = np.asarray(table["X"], dtype=float)
        if "y" in table:
            X = X[table["y"].ravel() == 0]

    X = np.unique(X, axis=0)  # a repeated row would be a spike of unbounded density
    X = X[:, X.std(axis=0) > 1e-9]
    for column in X.T:
        values = np.unique(column)
        if len(values) < 0.5 * len(X):
            gap = np.median(np.diff(values)) if len(values) > 1 else 1.0
            column += rng.uniform(0, 1, len(X)) * gap

    X = X[rng.permutation(len(X))][:max_rows]
    n_train, n_fit = int(0.7 * len(X)), int(0.8 * len(X))
    mean, scale = X[:n_train].mean(axis=0), X[:n_train].std(axis=0) + 1e-12
    X = ((X - mean) / scale).astype(np.float32)
    return X[:n_train], X[n_train:n_fit], X[n_fit:]


@cache
def commit():
    """Return the commit of the code that is measured, with ``+`` if files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name, changes = (
            subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout
            for command in (
                ["rev-parse", "--short=10", "HEAD"],
                ["status", "--porcelain", "-uno", "--", "..", ":!results", ":!*.md"],
            )
        )
    except (OSError, subprocess.CalledProcessError):  # not a clone
        return None
    return name.strip() + ("+" if changes.strip() else "")


def append(path, line):
    """Append a line of results to a file of JSON lines, with the commit that was measured."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"commit": commit()}) + "\n")


def read(path):
    """Return the lines of results in a file; none if there is no file."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def print_table(frame, digits):
    """Print a DataFrame in Markdown, the numbers of each column with its number of digits."""
    names = ", ".join("rows" if name == "n" else name for name in frame.index.names)
    print("| " + " | ".join([names, *map(str, frame)]) + " |")
    print("|---" * (1 + len(frame.columns)) + "|")
    for key, row in frame.iterrows():
        key = key if isinstance(key, tuple) else (key,)
        name = ", ".join(part if isinstance(part, str) else f"{part:g}" for part in key)
        cells = [
            value if isinstance(value, str) else "" if value != value else f"{value:.{digits[k]}f}"
            for k, value in row.items()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def leads(lines, peers):
    """Yield `AutoDensity` against the best peer of each set, on the seeds that both have.

    The best peer has the best mean over the seeds that all peers of the set have.

    Yields
    ------
    lead : dict
        With ``set``, ``n``, ``d``, ``seeds`` (a number), ``ours``, ``best`` (a name), ``theirs``,
        ``peers`` (a number), ``lead`` and ``error``, its standard error.
    """
    found = defaultdict(dict)
    for line in lines:
        if "ll" in line:
            found[line["set"], line["method"]][line["seed"]] = line
    for name in sorted({line["set"] for line in lines}):
        ours = found[name, "AutoDensity"]
        run = {peer: found[name, peer] for peer in peers if found[name, peer]}
        common = set(ours).intersection(*run.values())
        if not run or not common:
            continue
        # The best peer is run on seeds that the others were not run on: there it stands for all.
        best = max(run, key=lambda peer: statistics.mean(run[peer][s]["ll"] for s in common))
        theirs = run[best]
        seeds = sorted(set(ours) & set(theirs))
        differences = [ours[seed]["ll"] - theirs[seed]["ll"] for seed in seeds]
        # Over test rows, as if the two densities erred independently, where there is one seed.
        error = np.hypot(ours[seeds[0]]["se"], theirs[seeds[0]]["se"])
        if len(seeds) > 1:
            error = statistics.stdev(differences) / len(differences) ** 0.5
        mean, lead = (
            statistics.mean(ours[seed]["ll"] for seed in seeds),
            statistics.mean(differences),
        )
        first = ours[seeds[0]]
        yield {
            "set": name,
            "n": first["n"],
            "d": first["d"],
            "seeds": len(seeds),
            "ours": mean,
            "best": best,
            "theirs": mean - lead,
            "peers": len(run),
            "lead": lead,
            "error": float(error),
        }
