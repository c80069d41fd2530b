"""Odd tables x estimators x operations: what the user guide promises holds for all of them.

A short, seeded part runs with the suite; ``make fuzz`` runs for ten minutes with new tables.
"""

import io
import os
import pickle
import time
import warnings

import numpy as np
import pytest
from _densities import NAMES, small
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_random_state

import skflows
from skflows import (
    DensityOutlierDetector,
    GaussianizationDensity,
    StackedDensity,
    TransformedDensity,
)

# Some tables have such a column.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* is an exact linear function:UserWarning",
    "ignore:The value .* repeats:UserWarning",
    "ignore:contamination=.* flags that fraction of the training rows:UserWarning",
)

SECONDS = float(os.environ.get("SKFLOWS_FUZZ_SECONDS", 0))

COLUMNS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "constant": lambda rng, n: np.full(n, rng.normal()),
    "counts": lambda rng, n: rng.poisson(rng.uniform(0.1, 30), n),
    "two values": lambda rng, n: rng.integers(2, size=n),
    "cents": lambda rng, n: rng.normal(20, 5, n).round(2),
    "heavy tails": lambda rng, n: rng.standard_cauchy(n),
    "skewed": lambda rng, n: rng.lognormal(0, 2, n),
    "bounded": lambda rng, n: rng.beta(0.5, 0.5, n),
    "tiny": lambda rng, n: 1e-200 * rng.standard_normal(n),
    "huge": lambda rng, n: 1e200 * rng.standard_normal(n),
    "far from 0": lambda rng, n: 1e9 + rng.standard_normal(n),
    "atom": lambda rng, n: np.where(rng.uniform(size=n) < 0.5, 0.0, rng.exponential(size=n)),
    "outlier": lambda rng, n: np.append(rng.standard_normal(n - 1), 1e6),
    "increasing": lambda rng, n: np.arange(n),
}


@st.composite
def tables(draw):
    """A table of odd columns, some of which depend on each other."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([4, 7, 39, 40, 90]))
    kinds = draw(st.lists(st.sampled_from([*COLUMNS]), min_size=1, max_size=5))
    columns = [COLUMNS[kind](rng, n).astype(float) for kind in kinds]
    if draw(st.booleans()):
        columns.append(columns[0].copy())
    X = np.column_stack(columns)
    if draw(st.booleans()):
        X = X[rng.integers(n, size=n)]  # repeated rows
    return X.astype(draw(st.sampled_from([np.float64, np.float32]))) if abs(X).max() < 1e30 else X


@st.composite
def estimators(draw):
    preprocessing = draw(st.sampled_from(["quantile", "standardize", "whiten"]))
    flow = small(draw(st.sampled_from(NAMES)), preprocessing=preprocessing, max_iter=2)
    kind = draw(st.sampled_from(["flow", "flow", "layers", "mixture", "stacked", "detector"]))
    if kind == "layers":
        return GaussianizationDensity(max_iter=2, random_state=0)
    if kind == "mixture":
        mixture = GaussianMixture(1, random_state=0)
        return TransformedDensity(mixture, preprocessing=preprocessing, random_state=0)
    if kind == "stacked":
        return StackedDensity([("flow", flow)], cv=2, random_state=0)
    if kind == "detector":
        return DensityOutlierDetector(flow, calibration="conformal", cv=2, random_state=0)
    contamination = draw(st.sampled_from(["auto", 0.1, None]))
    return flow.set_params(contamination=contamination)


def check_scores(model, X, scores):
    assert scores.shape == (len(X),)
    assert np.isfinite(scores).all()
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(model.score_samples(X[order]), scores[order], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.score_samples(X[:1]), scores[:1], rtol=1e-9, atol=1e-9)
    labels = model.predict(X)
    assert set(labels) <= {-1, 1}
    np.testing.assert_array_equal(labels, np.where(scores >= model.offset_, 1, -1))
    if hasattr(model, "p_values"):
        p_values = model.p_values(X)
        assert ((p_values > 0) & (p_values <= 1)).all()
        np.testing.assert_array_equal(model.p_values(X[:1]), p_values[:1])


def check_samples(model, X):
    samples = model.sample(20, random_state=0)
    assert samples.shape == (20, X.shape[1])
    assert np.isfinite(samples).all()
    np.testing.assert_array_equal(model.sample(20, random_state=0), samples)


def check_promises(X, estimator):
    before = check_random_state(None).get_state()[1].copy()  # NumPy's global state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "alpha=")  # flags no row: there are too few
        model = estimator.fit(X)
        other = clone(estimator).fit(X)
    np.testing.assert_array_equal(check_random_state(None).get_state()[1], before)
    scores = model.score_samples(X)
    check_scores(model, X, scores)
    np.testing.assert_array_equal(other.score_samples(X), scores)
    if hasattr(model, "sample"):
        check_samples(model, X)
    if hasattr(model, "transform"):
        assert np.isfinite(model.transform(X)).all()
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    for loaded in (pickle.loads(pickle.dumps(model)), skflows.load(file)):
        np.testing.assert_array_equal(loaded.score_samples(X), scores)


def check_examples(n_examples, **params):
    """Check drawn examples, and shrink one that fails."""
    over_examples = given(X=tables(), estimator=estimators())(check_promises)
    settings(max_examples=n_examples, **params)(over_examples)()


def test_promises_hold_for_odd_tables():
    check_examples(10)


@pytest.mark.skipif(not SECONDS, reason="make fuzz sets SKFLOWS_FUZZ_SECONDS")
def test_promises_hold_for_new_odd_tables():
    end = time.monotonic() + SECONDS
    n_examples = 0
    while time.monotonic() < end:
        check_examples(10, derandomize=False, database=None)
        n_examples += 10
        print(f"\r{n_examples} examples", end="", flush=True)
