"""Bad input is refused before any training; odd input works, and all that comes out is finite."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from _densities import banana, each_estimator, small
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.utils.validation import validate_data

from skflows.training import trainer as _training
from skflows.preprocessing import validation as _validation

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


def with_entry(value):
    changed = X.copy()
    changed[3, 1] = value
    return changed


# What is wrong with X, in fit and in scoring: the error and what its message says.
BAD = {
    "nan": (with_entry(np.nan), ValueError, r"Input X contains NaN(.|\n)*impute"),
    "missing": (FRAME.mask(FRAME > 1), ValueError, r"Input X contains NaN(.|\n)*impute"),
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
            ("dates of a zone", DATES.tz_localize("UTC"), "2020-01-01"),
            ("days", [date.date() for date in DATES], "2020-01-01"),
            ("periods", DATES.to_period("D"), "2020-01-01"),
            ("times", DATES - DATES[0], "0 "),
        )
    },
    "sparse matrix": (sparse.csr_matrix(X), TypeError, r"Sparse data.*Use '\.toarray\(\)'"),
    "sparse array": (sparse.coo_array(X), TypeError, r"Sparse data.*Use '\.toarray\(\)'"),
    "complex": (X * 1j, ValueError, "Complex data not supported"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar array instead(.|\n)*Reshape"),
    "1-D": (X[0], ValueError, "Expected 2D array, got 1D array instead(.|\n)*Reshape your data"),
    "3-D": (X[None], ValueError, "Found array with dim 3, while dim <= 2 is required"),
    "no rows": (X[:0], ValueError, r"Found array with 0 sample\(s\)"),
    "no columns": (X[:, :0], ValueError, "[Ff]ound array with 0 feature|X has 0 features"),
    "object": ([[object(), 1.0], [1.0, 2.0]], TypeError, "must be a string or a.* number"),
}
BAD_WEIGHTS = {
    "negative": ([-1.0] + [1.0] * 19, r"sample_weight is negative for 1 rows \(the least is -1\)"),
    "all zero": ([0.0] * 20, "at least one non-zero number"),
    "one positive": ([2.0] + [0.0] * 19, "positive for 1 of 20 rows; 2 are needed"),
    "nan": ([np.nan] + [1.0] * 19, "Input sample_weight contains NaN"),
    "inf": ([np.inf] + [1.0] * 19, "Input sample_weight contains infinity"),
    "too few": ([1.0] * 19, r"sample_weight\.shape == \(19,\), expected \(20,\)"),
    "2-D": (np.ones((20, 2)), "Sample weights must be 1D array or scalar, got 2D array"),
    "strings": (["heavy"] * 20, "could not convert string to float: 'heavy'"),
}


@contextmanager
def refused(error, message):
    """The block raises this error, and no training begins before it does."""
    began = mock.patch.object(_training, "fit_flow", side_effect=AssertionError("training began"))
    with began, pytest.raises(error, match=message):
        yield


def test_refused_notices_training():
    with refused(AssertionError, "training began"):
        small("nice").fit(X)


@pytest.mark.parametrize("what", BAD)
@each_estimator
def test_bad_rows(name, what):
    bad, error, message = BAD[what]
    for method in ("fit", "partial_fit", "fit_predict", "fit_transform"):
        with refused(error, message):
            getattr(small(name), method)(bad)


@pytest.fixture(scope="module")
def fitted():
    return small("nice").fit(X)


@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
@pytest.mark.parametrize("method", SCORING)
@pytest.mark.parametrize("what", BAD)
def test_bad_rows_in_scoring(fitted, what, method):
    """All but the number of rows matters; and the model is left as it was."""
    bad, error, message = BAD[what]
    before = fitted.score_samples(X)
    with refused(error, message):
        getattr(fitted, method)(bad)
    np.testing.assert_array_equal(fitted.score_samples(X), before)


AS_THEY_ARE = {"float64": X, "float32": X.astype(np.float32), "one row": X[:1], "huge": X * 1e300}
TO_BE_CONVERTED = {
    "list": X.tolist(),
    "integers": X.astype(int),
    "order": np.asfortranarray(X),
    "strides": X[::-1],
    "byte order": X.astype(X.dtype.newbyteorder()),
    "subclass": X.view(type("Rows", (np.ndarray,), {})),
    "overflow": np.full_like(X, 1e308),
}


@pytest.mark.parametrize("what", [*AS_THEY_ARE, *TO_BE_CONVERTED])
def test_valid_rows_are_what_scikit_learn_makes_of_them(fitted, what):
    """A plain array is returned as it is, without the time that scikit-learn takes to say so."""
    rows = {**AS_THEY_ARE, **TO_BE_CONVERTED}[what]
    slow = validate_data(fitted, rows, reset=False, dtype=[np.float64, np.float32], order="C")
    with mock.patch.object(_validation, "validate_data", wraps=validate_data) as asked:
        fast = _validation.validate_rows(fitted, rows, reset=False)
    np.testing.assert_array_equal(fast, slow)
    assert fast.dtype == slow.dtype and fast.flags.c_contiguous
    assert asked.called == (what in TO_BE_CONVERTED)
    assert fast is rows or what in TO_BE_CONVERTED


@each_estimator
def test_single_row(name):
    for method in ("fit", "partial_fit"):
        with refused(ValueError, r"Found array with 1 sample\(s\).* a minimum of 2 is required"):
            getattr(small(name), method)(X[:1])
    warm = small(name, warm_start=True, early_stopping=True).fit(X)
    with refused(ValueError, "a minimum of 2 is required"):
        warm.fit(X[:1])


@pytest.mark.parametrize("what", BAD_WEIGHTS)
@each_estimator
def test_bad_weights(name, what):
    bad, message = BAD_WEIGHTS[what]
    for method in ("fit", "partial_fit"):
        with refused(ValueError, message):
            getattr(small(name), method)(X, sample_weight=bad)


@pytest.mark.parametrize("method", SCORING)
@each_estimator
def test_wrong_columns_in_scoring(name, method):
    estimator = small(name).fit(FRAME)
    score = getattr(estimator, method)
    with refused(ValueError, "should match those that were passed during fit(.|\n)*depth"):
        score(FRAME.rename(columns={"width": "depth"}))
    with refused(ValueError, "must be in the same order"):
        score(FRAME[["width", "height"]])
    with refused(ValueError, "seen at fit time, yet now missing(.|\n)*width"):
        score(FRAME[["height"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        with refused(ValueError, "X has 3 features, but .*Density is expecting 2 features"):
            score(np.ones((4, 3)))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        score(X)


@each_estimator
def test_bad_latent_rows(name):
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


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", ""])
@each_estimator
def test_bad_device(name, device):
    with refused(ValueError, f"device='{device}' cannot be used here.*\"cpu\" always work"):
        small(name, device=device).fit(X)


@pytest.mark.parametrize("sizes", [(), (0,), (8, -1), (2.5,), 0, [[8, 8]], ("8",)])
@pytest.mark.parametrize("name", ["nice", "maf"])
def test_bad_hidden_layer_sizes(name, sizes):
    with refused(ValueError, "hidden_layer_sizes"):
        small(name, hidden_layer_sizes=sizes).fit(X)


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "3", None])
def test_bad_n_samples(fitted, n_samples):
    with pytest.raises(ValueError, match=f"n_samples={n_samples!r}; it must be an integer"):
        fitted.sample(n_samples)


@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    n=st.integers(2, 30),
    d=st.integers(1, 6),
    data=st.data(),
)
@each_estimator
def test_one_bad_entry_anywhere_is_refused(name, value, n, d, data):
    rows = np.random.default_rng(n).standard_normal((n, d))
    rows[data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, d - 1))] = value
    with refused(ValueError, "Input X contains"):
        small(name).fit(rows)
