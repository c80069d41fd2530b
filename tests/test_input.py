"""Validation of the input, before any training."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from _densities import NAMES, banana, each_kind, small
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.utils.validation import validate_data

from skflows.columns import arrays
from skflows.training.trainer import Trainer

X = banana(20)
FRAME = pd.DataFrame(X, columns=["height", "width"])
DATES = pd.date_range("2020-01-01", periods=len(X))
SCORING = [
    "score_samples",
    "score",
    "decision_function",
    "predict",
    "transform",
    "reconstruction_error",
    "partial_fit",
]


def for_one_estimator(values, other_estimators):
    """Parametrize by all values for one estimator, and by a single value for the others."""
    cases = [("nice", value) for value in values]
    cases += [(name, other_estimators) for name in NAMES if name != "nice"]
    return pytest.mark.parametrize(("name", "what"), cases)


def with_entry(value):
    changed = X.copy()
    changed[3, 1] = value
    return changed


# Invalid tables, with the error that they raise in fit and in scoring, and its message.
INVALID = {
    "nan": (with_entry(np.nan), ValueError, r"contains NaN\. \w+ needs complete rows: impute"),
    "missing": (
        FRAME.mask(FRAME > 1),
        ValueError,
        r"contains NaN\. \w+ needs complete rows: impute",
    ),
    "names": (FRAME.set_axis(["a", "a"], axis=1), ValueError, "more than one column 'a'; rename"),
    "inf": (with_entry(np.inf), ValueError, "Input X contains infinity"),
    "-inf": (with_entry(-np.inf), ValueError, "Input X contains infinity"),
    "strings": ([["a", "b"], ["c", "d"]], ValueError, "'a'.*OrdinalEncoder"),
    "a text column": (FRAME.assign(width="wide"), ValueError, "'wide'.*OrdinalEncoder"),
    "categories": (
        FRAME.assign(width=pd.Categorical(["s", "l"] * 10)),
        ValueError,
        "'s'.*OrdinalEncoder",
    ),
    **{
        f"a column of {what}": (
            FRAME.assign(width=column),
            ValueError,
            rf"not numbers: \['width'\] \(the first holds '{value}.*dates as days since",
        )
        for what, column, value in (
            ("dates", DATES, "2020-01-01"),
            ("dates with a time zone", DATES.tz_localize("UTC"), "2020-01-01"),
            ("days", [date.date() for date in DATES], "2020-01-01"),
            ("periods", DATES.to_period("D"), "2020-01-01"),
            ("times", DATES - DATES[0], "0 "),
        )
    },
    "sparse matrix": (sparse.csr_matrix(X), TypeError, r"Sparse data.*Use '\.toarray\(\)'"),
    "sparse array": (sparse.coo_array(X), TypeError, r"Sparse data.*Use '\.toarray\(\)'"),
    "complex": (X * 1j, ValueError, "Complex data not supported"),
    "dict": ({"height": [1.0], "width": [2.0]}, ValueError, "X is a dict; give a table"),
    "path": ("rows.csv", ValueError, r"read the file first.*pandas\.read_csv\('rows\.csv'\)"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar array instead(.|\n)*Reshape"),
    "1-D": (X[0], ValueError, "Expected 2D array, got 1D array instead(.|\n)*Reshape your data"),
    "3-D": (X[None], ValueError, "Found array with dim 3, while dim <= 2 is required"),
    "no rows": (X[:0], ValueError, r"Found array with 0 sample\(s\)"),
    "no columns": (X[:, :0], ValueError, "[Ff]ound array with 0 feature|X has 0 features"),
    "object": ([[object(), 1.0], [1.0, 2.0]], TypeError, "must be a string or a.* number"),
}
INVALID_WEIGHTS = {
    "negative": ([-1.0] + [1.0] * 19, r"sample_weight is negative for 1 rows \(the least is -1\)"),
    "all zero": ([0.0] * 20, "at least one non-zero number|positive for 0 of 20 rows"),
    "one positive": ([2.0] + [0.0] * 19, "positive for 1 of 20 rows; at least 2 are needed"),
    "nan": ([np.nan] + [1.0] * 19, "Input sample_weight contains NaN"),
    "inf": ([np.inf] + [1.0] * 19, "Input sample_weight contains infinity"),
    "too few": ([1.0] * 19, r"sample_weight\.shape == \(19,\), expected \(20,\)"),
    "2-D": (np.ones((20, 2)), "Sample weights must be 1D array or scalar"),
    "strings": (["heavy"] * 20, "could not convert string to float: 'heavy'"),
}


@contextmanager
def raises_before_training(error, match):
    """Check that the block raises this error, and does not train before."""
    began = mock.patch.object(Trainer, "fit", side_effect=AssertionError("training began"))
    with began, pytest.raises(error, match=match):
        yield


def test_raises_before_training_detects_training():
    with raises_before_training(AssertionError, "training began"):
        small("nice").fit(X)


@for_one_estimator(INVALID, other_estimators="nan")
def test_invalid_rows_raise_in_fit(name, what):
    invalid, error, message = INVALID[what]
    for method in ("fit", "partial_fit", "fit_predict", "fit_transform"):
        with raises_before_training(error, message):
            getattr(small(name), method)(invalid)


@pytest.fixture(scope="module")
def fitted():
    return small("nice").fit(X)


@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
@pytest.mark.parametrize("method", SCORING)
@pytest.mark.parametrize("what", INVALID)
def test_invalid_rows_raise_in_scoring(fitted, what, method):
    """And the model does not change."""
    invalid, error, message = INVALID[what]
    before = fitted.score_samples(X)
    with raises_before_training(error, message):
        getattr(fitted, method)(invalid)
    np.testing.assert_array_equal(fitted.score_samples(X), before)


RETURNED_AS_GIVEN = {
    "float64": X,
    "float32": X.astype(np.float32),
    "one row": X[:1],
    "huge": X * 1e300,
}
CONVERTED = {
    "list": X.tolist(),
    "integers": X.astype(int),
    "order": np.asfortranarray(X),
    "strides": X[::-1],
    "byte order": X.astype(X.dtype.newbyteorder()),
    "subclass": X.view(type("Rows", (np.ndarray,), {})),
    "overflow": np.full_like(X, 1e308),
}


@pytest.mark.parametrize("what", [*RETURNED_AS_GIVEN, *CONVERTED])
def test_validated_rows_are_those_of_scikit_learn(fitted, what):
    """A plain array is returned as it is, without a call of scikit-learn, which takes longer."""
    rows = {**RETURNED_AS_GIVEN, **CONVERTED}[what]
    slow = validate_data(fitted, rows, reset=False, dtype=[np.float64, np.float32], order="C")
    with mock.patch.object(arrays, "validate_data", wraps=validate_data) as mocked:
        fast = arrays.validate_rows(fitted, rows, reset=False)
    np.testing.assert_array_equal(fast, slow)
    assert fast.dtype == slow.dtype and fast.flags.c_contiguous
    assert mocked.called == (what in CONVERTED)
    assert fast is rows or what in CONVERTED


@each_kind
def test_single_row_raises(name):
    for method in ("fit", "partial_fit"):
        with raises_before_training(
            ValueError, r"Found array with 1 sample\(s\).* a minimum of 2 is required"
        ):
            getattr(small(name), method)(X[:1])
    warm = small(name, warm_start=True, early_stopping=True).fit(X)
    with raises_before_training(ValueError, "a minimum of 2 is required"):
        warm.fit(X[:1])


@for_one_estimator(INVALID_WEIGHTS, other_estimators="negative")
def test_invalid_weights_raise(name, what):
    invalid, message = INVALID_WEIGHTS[what]
    for method in ("fit", "partial_fit"):
        with raises_before_training(ValueError, message):
            getattr(small(name), method)(X, sample_weight=invalid)


@for_one_estimator(SCORING, other_estimators="score_samples")
def test_other_columns_than_in_fit_raise_in_scoring(name, what):
    score = getattr(small(name).fit(FRAME), what)
    with raises_before_training(
        ValueError, "should match those that were passed during fit(.|\n)*depth"
    ):
        score(FRAME.rename(columns={"width": "depth"}))
    with raises_before_training(ValueError, "must be in the same order"):
        score(FRAME[["width", "height"]])
    with raises_before_training(ValueError, "seen at fit time, yet now missing(.|\n)*width"):
        score(FRAME[["height"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        with raises_before_training(
            ValueError, "X has 3 features, but .*Density is expecting 2 features"
        ):
            score(np.ones((4, 3)))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        score(X)


@each_kind
def test_invalid_latent_rows_raise(name):
    estimator = small(name).fit(X)
    for columns in (1, 3):
        message = f"X has {columns} features, but .*Density was fitted on 2; pass the output"
        with pytest.raises(ValueError, match=message):
            estimator.inverse_transform(np.zeros((4, columns)))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        estimator.inverse_transform([0.0, 0.0])
    for value, message in ((np.nan, "Input X contains NaN"), (np.inf, "Input X contains infinity")):
        with pytest.raises(ValueError, match=message):
            estimator.inverse_transform([[0.0, value]])


@for_one_estimator(["gpu", "meta", "cuda:99", ""], other_estimators="gpu")
def test_invalid_device_raises(name, what):
    message = f"device='{what}' (cannot be used here|is not a device of torch).*\"cpu\""
    with raises_before_training(ValueError, message):
        small(name, device=what).fit(X)


@pytest.mark.parametrize("sizes", [(), (0,), (8, -1), (2.5,), 0, [[8, 8]], ("8",)])
@pytest.mark.parametrize("name", ["nice", "maf"])
def test_invalid_hidden_layer_sizes_raise(name, sizes):
    with raises_before_training(ValueError, "hidden_layer_sizes"):
        small(name, hidden_layer_sizes=sizes).fit(X)


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "3", None])
def test_invalid_n_samples_raise(fitted, n_samples):
    with pytest.raises(ValueError, match=f"n_samples={n_samples!r}; it must be an integer"):
        fitted.sample(n_samples)


@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    n=st.integers(2, 30),
    d=st.integers(1, 6),
    data=st.data(),
)
def test_invalid_entry_anywhere_raises(value, n, d, data):
    rows = np.random.default_rng(n).standard_normal((n, d))
    rows[data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, d - 1))] = value
    with raises_before_training(ValueError, "Input X contains"):
        small("nice").fit(rows)
