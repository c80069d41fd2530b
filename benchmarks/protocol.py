"""The split behind every density figure of this package.

Inliers only, repeated rows and constant columns dropped, discrete columns dequantised, rows
permuted, 70 % to train, 10 % to validate, 20 % to test, all standardised by the training part.
"""

from pathlib import Path

import numpy as np

MAX_ROWS = 12_000


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
