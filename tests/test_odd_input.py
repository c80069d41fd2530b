"""What is odd but legal works, and every number that comes out is finite."""

import numpy as np
import pandas as pd
import pytest
from _densities import N_ROWS, each_estimator, small, standardization, whole_and_in_batches
from hypothesis import given
from hypothesis import strategies as st

LARGEST = np.finfo(np.float64).max
COLUMNS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "zero": lambda rng, n: np.zeros(n),
    "constant": lambda rng, n: np.full(n, 0.1),
    "large constant": lambda rng, n: np.full(n, -1e300),
    "integers": lambda rng, n: rng.integers(-3, 3, n),
    "booleans": lambda rng, n: rng.random(n) < 0.2,
    "repeated": lambda rng, n: np.resize(rng.standard_normal(2), n),
    "float16": lambda rng, n: rng.standard_normal(n).astype(np.float16),
    "1e-300": lambda rng, n: rng.standard_normal(n) * 1e-300,
    "1e-12": lambda rng, n: rng.standard_normal(n) * 1e-12,
    "1e12": lambda rng, n: rng.standard_normal(n) * 1e12,
    "1e300": lambda rng, n: rng.standard_normal(n) * 1e300,
    "far from 0": lambda rng, n: 1e9 + 1e-6 * rng.standard_normal(n),
    "Cauchy": lambda rng, n: rng.standard_cauchy(n),
    "skewed": lambda rng, n: np.exp(20 * rng.standard_normal(n)),
    "one spike": lambda rng, n: np.where(np.arange(n) == n // 2, 1e200, 0.0),
}


def check_finite(estimator, X):
    """Fit, and look at everything that the model says of its rows and of rows far away."""
    estimator.fit(X)
    scores = estimator.score_samples(X)
    outputs = {
        "score_samples": scores,
        "decision_function": estimator.decision_function(X),
        "transform": estimator.transform(X),
        "reconstruction_error": estimator.reconstruction_error(X),
        "sample": estimator.sample(50, random_state=0),
        "loss_curve_": estimator.loss_curve_,
        "offset_": estimator.offset_,
    }
    standardized = standardization(estimator.flow_)
    loc, scale = standardized.loc.numpy(), standardized.scale.numpy()
    with np.errstate(over="ignore"):
        away = np.stack([loc + 1e6 * scale, loc - 1e6 * scale])
    farthest = np.full((2, len(loc)), [[1e300], [-LARGEST]])
    far = np.vstack([away, farthest]).clip(-LARGEST, LARGEST)
    outputs["far scores"] = far_scores = estimator.score_samples(far)
    outputs["far latent"] = estimator.transform(far)
    wrong = [key for key, values in outputs.items() if not np.isfinite(values).all()]
    assert not wrong
    if np.isfinite(away).all():
        assert (far_scores[:2] < scores.min()).all()
        assert (estimator.predict(far[:2]) == -1).all()


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 40))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    columns = [COLUMNS[kind](rng, n) for kind in kinds]
    if draw(st.booleans()):  # collinear with the others
        columns.append(columns[0] / 2 - columns[-1] / 4)
    return np.column_stack(columns)


@given(X=tables(), batch_size=st.sampled_from(["auto", 8]), early_stopping=st.booleans())
@each_estimator
def test_any_mixture_of_odd_columns(name, X, batch_size, early_stopping):
    params = {"batch_size": batch_size, "early_stopping": early_stopping, "max_iter": 2}
    check_finite(small(name, **params), X)


@whole_and_in_batches
@pytest.mark.parametrize("kind", COLUMNS)
@each_estimator
def test_each_odd_column(name, kind, batch_size):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(N_ROWS), COLUMNS[kind](rng, N_ROWS)])
    check_finite(small(name, batch_size=batch_size), X)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 2), (3, 40), (10, 11), (50, 1)])
@each_estimator
def test_odd_shapes(name, n, d):
    check_finite(small(name), np.random.default_rng(0).standard_normal((n, d)))


@each_estimator
def test_all_rows_alike(name):
    check_finite(small(name), np.ones((5, 3)))
    check_finite(small(name, early_stopping=True), np.zeros((2, 1)))


@given(weight=st.lists(st.sampled_from([0.0, 1e-12, 1.0, 1e12]), min_size=N_ROWS, max_size=N_ROWS))
@each_estimator
def test_odd_weights(name, weight):
    weight = np.array(weight) + np.eye(N_ROWS)[:2].sum(axis=0)
    X = np.random.default_rng(0).standard_normal((N_ROWS, 2))
    estimator = small(name, max_iter=2).fit(X, sample_weight=weight)
    for values in (estimator.score_samples(X), estimator.sample(20, random_state=0)):
        assert np.isfinite(values).all()
    assert np.isfinite(estimator.offset_)


def as_memmap(X, path):
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


CONTAINERS = {
    "lists": lambda X, path: X.tolist(),
    "tuples": lambda X, path: tuple(map(tuple, X.tolist())),
    "integers": lambda X, path: X.astype(np.int8),
    "objects": lambda X, path: X.astype(object),
    "float16": lambda X, path: X.astype(np.float16),
    "float32": lambda X, path: X.astype(np.float32),
    "longdouble": lambda X, path: X.astype(np.longdouble),
    "big-endian": lambda X, path: X.astype(">f8"),
    "Fortran order": lambda X, path: np.asfortranarray(X),
    "negative strides": lambda X, path: X[::-1, ::-1].copy()[::-1, ::-1],
    "strided": lambda X, path: np.repeat(X, 2, axis=1)[:, ::2],
    "read-only memmap": as_memmap,
    "DataFrame": lambda X, path: pd.DataFrame(X, columns=["a", "b"]),
    "DataFrame of Int64": lambda X, path: pd.DataFrame(X, columns=["a", "b"]).astype("Int64"),
    "unnamed DataFrame": lambda X, path: pd.DataFrame(X),
}


@pytest.mark.parametrize("kind", CONTAINERS)
@each_estimator
def test_container_does_not_matter(name, kind, tmp_path):
    X = np.random.default_rng(0).integers(-8, 8, (N_ROWS, 2)).astype(np.float64)
    contained = CONTAINERS[kind](X, tmp_path)
    expected, estimator = small(name).fit(X), small(name).fit(contained)
    for method in ("score_samples", "transform", "predict", "reconstruction_error"):
        np.testing.assert_array_equal(
            getattr(estimator, method)(contained), getattr(expected, method)(X)
        )
    if hasattr(contained, "flags"):
        np.testing.assert_array_equal(contained, X)


@each_estimator
def test_latent_container_does_not_matter(name):
    estimator = small(name).fit(np.random.default_rng(0).standard_normal((N_ROWS, 2)))
    Z = np.random.default_rng(1).standard_normal((10, 2))
    expected = estimator.inverse_transform(Z)
    reverse = Z[::-1].copy()[::-1]
    for contained in (Z.tolist(), np.asfortranarray(Z), reverse, pd.DataFrame(Z)):
        np.testing.assert_array_equal(estimator.inverse_transform(contained), expected)


@each_estimator
def test_booleans(name):
    X = np.random.default_rng(0).random((N_ROWS, 3)) < 0.5
    check_finite(small(name), X)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    estimator = small(name).fit(frame)
    np.testing.assert_array_equal(
        estimator.score_samples(frame), small(name).fit(X).score_samples(X)
    )
