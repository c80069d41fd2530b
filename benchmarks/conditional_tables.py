"""Regression tables with mixed columns, for `conditional.py`: X as a DataFrame, and a target."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

MAX_ROWS = 2_000


def table(data, file, target, dtype=float, **reading):
    """Return X and y of a CSV file, without rows that have no target."""
    frame = pd.read_csv(Path(data, file), skipinitialspace=True, **reading)
    frame = frame.dropna(subset=[target]).reset_index(drop=True)
    return frame.drop(columns=target), frame[target].astype(dtype)


def wine(data):
    """Return the physico-chemical columns of red wines but the last, and that one: alcohol."""
    with np.load(Path(data, "winequality_red.npz")) as arrays:
        *_, alcohol = arrays["X"].T
        return pd.DataFrame(arrays["X"][:, :-1]).add_prefix("x"), pd.Series(alcohol)


def diabetes(data):
    """Return scikit-learn's diabetes table."""
    return load_diabetes(return_X_y=True, as_frame=True)


ADULT = {"file": "adult_12k.csv", "na_values": ["?"]}
TABLES = {
    "diabetes": diabetes,
    "wine alcohol": wine,
    "hdma lvr": partial(table, file="mixed/hdma.csv", target="lvr"),
    "slid wages": partial(table, file="mixed/slid.csv", target="wages"),
    "lwage": partial(table, file="mixed/wages.csv", target="lwage"),
    "abalone rings": partial(table, file="abalone.csv", target="rings"),
    "ofp visits": partial(table, file="mixed/ofp.csv", target="ofp"),
    "adult hours": partial(table, **ADULT, target="hours_per_week"),
}


LABELLED = {
    "digits": lambda data: load_digits(return_X_y=True),
    "wine": lambda data: load_wine(return_X_y=True),
    "breast cancer": lambda data: load_breast_cancer(return_X_y=True),
    "hdma deny": partial(table, file="mixed/hdma.csv", target="deny", dtype=object),
    "adult income": partial(table, **ADULT, target="income", dtype=object),
}


def split(name, data, seed, max_rows=MAX_ROWS):
    """Return training and test parts, 75 and 25 % of at most ``max_rows`` rows."""
    X, y = TABLES[name](data)
    rows = np.random.default_rng(seed).permutation(len(X))[:max_rows]
    n = int(0.75 * len(rows))
    parts = [(X.iloc[own].reset_index(drop=True), y.iloc[own].to_numpy())
             for own in (rows[:n], rows[n:])]  # fmt: skip
    return *parts[0], *parts[1]
