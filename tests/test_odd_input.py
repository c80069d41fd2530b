"""Unusual but valid input, for which all outputs are finite."""

import numpy as np
import pandas as pd
import pytest
from _densities import (
    N_ROWS,
    NAMES,
    SMALL_SAMPLE,
    accurate,
    each_estimator,
    each_kind,
    small,
    standardization,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from skflows import DensityOutlierDetector, StackedDensity

# Some tables have such a column.
pytestmark = pytest.mark.filterwarnings("ignore:.* is an exact linear function:UserWarning")

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


def fast(name, **params):
    """Return an estimator whose fit takes milliseconds, and whose inverse is accurate enough."""
    return accurate(name, tolerance=1e-5, **params)


def check_finite(estimator, X):
    """Fit, and check that all outputs are finite, also for rows far away."""
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
    loc, scale = (
        np.broadcast_to(moment, X.shape[1]) for moment in (standardized.loc, standardized.scale)
    )
    with np.errstate(over="ignore"):
        away = np.stack([loc + 1e6 * scale, loc - 1e6 * scale])
    farthest = np.full((2, len(loc)), [[1e300], [-LARGEST]])
    far = np.vstack([away, farthest]).clip(-LARGEST, LARGEST)
    outputs["far scores"] = far_scores = estimator.score_samples(far)
    outputs["far latent"] = estimator.transform(far)
    assert not [key for key, values in outputs.items() if not np.isfinite(values).all()]
    if np.isfinite(away).all():
        assert (far_scores[:2] < scores.min()).all()
        assert (estimator.predict(far[:2]) == -1).all()


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 50))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    columns = [COLUMNS[kind](rng, n) for kind in kinds]
    if draw(st.booleans()):  # a linear combination of the others
        columns.append(columns[0] / 2 - columns[-1] / 4)
    return np.column_stack(columns)


any_mixture_of_odd_columns = given(
    X=tables(), batch_size=st.sampled_from(["auto", 8]), early_stopping=st.booleans()
)


@any_mixture_of_odd_columns
@settings(max_examples=4)
@each_kind
def test_outputs_are_finite_for_any_mixture_of_odd_columns(name, X, **params):
    check_finite(fast(name, max_iter=2, **params), X)


# Values more than 1e15 times as far from the median as others are clipped.
@pytest.mark.filterwarnings(
    "ignore:The inverse of the fitted flow:sklearn.exceptions.ConvergenceWarning"
)
@any_mixture_of_odd_columns
@settings(max_examples=5)
@pytest.mark.parametrize("name", ["nsf", "cnf"])
def test_outputs_are_finite_for_any_mixture_of_odd_columns_with_quantile(name, X, **params):
    check_finite(fast(name, max_iter=2, preprocessing="quantile", **params), X)


@pytest.mark.parametrize(
    ("name", "batch_size", "preprocessing", "n"),
    [
        ("nsf", "auto", "standardize", N_ROWS),  # one batch, in float64
        ("nsf", 16, "quantile", SMALL_SAMPLE),
    ],
)
@pytest.mark.parametrize("kind", COLUMNS)
def test_outputs_are_finite_for_each_odd_column(name, kind, batch_size, preprocessing, n):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(n), COLUMNS[kind](rng, n)])
    check_finite(fast(name, batch_size=batch_size, preprocessing=preprocessing), X)


@pytest.mark.parametrize("preprocessing", ["standardize", "quantile"])
@each_kind
def test_outputs_are_finite_for_all_odd_columns_together(name, preprocessing):
    rng = np.random.default_rng(0)
    X = np.column_stack([column(rng, SMALL_SAMPLE) for column in COLUMNS.values()])
    check_finite(fast(name, batch_size=16, preprocessing=preprocessing), X)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 2), (3, 40), (10, 11), (50, 1)])
@each_estimator
def test_outputs_are_finite_for_odd_shapes(name, n, d):
    check_finite(fast(name, max_iter=2), np.random.default_rng(0).standard_normal((n, d)))


@each_kind
def test_outputs_are_finite_for_identical_rows(name):
    check_finite(fast(name), np.ones((5, 3)))
    check_finite(fast(name, early_stopping=True), np.zeros((2, 1)))


@given(weight=st.lists(st.sampled_from([0.0, 1e-12, 1.0, 1e12]), min_size=N_ROWS, max_size=N_ROWS))
@settings(max_examples=3)
@each_kind
def test_outputs_are_finite_for_odd_weights(name, weight):
    weight = np.array(weight) + np.eye(N_ROWS)[:2].sum(axis=0)
    X = np.random.default_rng(0).standard_normal((N_ROWS, 2))
    estimator = fast(name, max_iter=2).fit(X, sample_weight=weight)
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nice", kind) for kind in CONTAINERS]
    + [(name, "Fortran order") for name in NAMES if name != "nice"],
)
def test_container_does_not_matter(name, kind, tmp_path):
    X = np.random.default_rng(0).integers(-8, 8, (N_ROWS, 2)).astype(np.float64)
    contained = CONTAINERS[kind](X, tmp_path)
    expected, estimator = (fast(name, max_iter=1).fit(rows) for rows in (X, contained))
    for method in ("score_samples", "transform", "predict", "reconstruction_error"):
        np.testing.assert_array_equal(
            getattr(estimator, method)(contained), getattr(expected, method)(X)
        )
    if hasattr(contained, "flags"):
        np.testing.assert_array_equal(contained, X)


@each_kind
def test_container_of_latent_rows_does_not_matter(name):
    estimator = fast(name).fit(np.random.default_rng(0).standard_normal((N_ROWS, 2)))
    Z = np.random.default_rng(1).standard_normal((10, 2))
    expected = estimator.inverse_transform(Z)
    reverse = Z[::-1].copy()[::-1]
    for contained in (Z.tolist(), np.asfortranarray(Z), reverse, pd.DataFrame(Z)):
        np.testing.assert_array_equal(estimator.inverse_transform(contained), expected)


@each_kind
def test_outputs_are_finite_for_boolean_columns(name):
    X = np.random.default_rng(0).random((N_ROWS, 3)) < 0.5
    check_finite(fast(name), X)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    estimator = fast(name).fit(frame)
    np.testing.assert_array_equal(
        estimator.score_samples(frame), fast(name).fit(X).score_samples(X)
    )


def test_values_that_overflow_are_an_error():
    X = np.array([[1.0, 2.0], [1.7e308, 3.0], [-1.7e308, 4.0]])
    for estimator in (small("nsf"), StackedDensity([("flow", small("nsf"))])):
        with pytest.raises(ValueError, match=r"X\[1, 0\] is 1.7e\+308; values beyond 1e\+305"):
            estimator.fit(X)
    frame = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(ValueError, match=r"X\[1, 'a'\] is"):
        small("nsf").fit(frame)


def test_huge_values_are_explained_without_warnings():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.choice([-1e300, 1e300], 60), rng.standard_normal(60)])
    fitted = DensityOutlierDetector(small("nsf", preprocessing="quantile")).fit(X)
    assert np.isfinite(fitted.explain(X[:3])).all()


@pytest.mark.parametrize("cell", [[1], {}, (1, 2), "text"])
def test_cells_that_are_no_numbers_are_named_with_their_column(cell):
    frame = pd.DataFrame({"a": [1.0, 2.0], "odd": [cell, cell]})
    with pytest.raises(ValueError, match=r"not numbers: \['odd'\] \(the first holds"):
        small("nsf").fit(frame)
