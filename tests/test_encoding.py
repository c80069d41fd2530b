"""Tables as rows of numbers: exact round trips, and a single reading in each public call."""

from contextlib import contextmanager

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _tables import (
    schema_of,
    two_components,  # noqa: F401
)
from test_outside import quick

from skflows import (
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowRegressor,
    NSFDensity,
    TableImputer,
)
from skflows.columns import dates, frames
from skflows.columns.encoding import UNSEEN_CATEGORY, Encoding

N = 60
RNG = np.random.default_rng(0)
SIZE = RNG.normal(size=N)
TABLE = pd.DataFrame(
    {
        "word": RNG.choice(["b", "a", None], N),
        "size": np.where(RNG.uniform(size=N) < 0.2, np.nan, SIZE),
        "count": RNG.poisson(3, N),
        "nullable": pd.array([None, *range(N - 1)], dtype="Int64"),
        "member": RNG.uniform(size=N) < 0.5,
        "grade": pd.Categorical(RNG.choice(["low", "high"], N), ["low", "mid", "high"], True),
        "code": pd.Categorical(RNG.choice([10, 2], N)),
        "at": pd.date_range("2024-03-31", periods=N, freq="h", tz="Europe/Berlin"),
        "day": [pd.NaT, *pd.date_range("2024-01-01", periods=N - 1)],
        "single": SIZE.astype(np.float32),
    }
)


def test_rows_hold_numbers_and_places():
    encoding, rows = Encoding.read(TABLE)
    assert rows.dtype == np.float64 and rows.shape == TABLE.shape
    np.testing.assert_array_equal(rows[:, 1], TABLE["size"])
    places = {"a": 0.0, "b": 1.0}  # in the order of their texts
    np.testing.assert_array_equal(rows[:, 0], TABLE["word"].map(places))
    np.testing.assert_array_equal(rows[:, 4], TABLE["member"])
    assert np.isnan(rows[0, 8]) and rows[1, 8] == pd.Timestamp("2024-01-01").timestamp()
    assert encoding.keys == list(TABLE)


@pytest.mark.parametrize("table", [TABLE, TABLE[::-1]])
def test_round_trips_of_pandas_are_exact(table):
    encoding, rows = Encoding.read(table)
    pd.testing.assert_frame_equal(encoding.decode(rows), table.reset_index(drop=True))
    part = RNG.permutation(N)[:20]
    expected = table.iloc[part].reset_index(drop=True)
    pd.testing.assert_frame_equal(encoding.decode(rows[part]), expected)


def test_round_trips_of_polars_and_arrays_are_exact():
    table = pl.from_pandas(TABLE.drop(columns="code"))
    encoding, rows = Encoding.read(table)
    assert encoding.decode(rows).equals(table)
    for X in (SIZE.reshape(-1, 3), TABLE[["word", "size"]].to_numpy(object)):
        encoding, rows = Encoding.read(X)
        found = encoding.decode(rows)
        assert found.dtype == X.dtype
        np.testing.assert_array_equal(pd.isna(found), pd.isna(X))
        np.testing.assert_array_equal(found[~pd.isna(X)], X[~pd.isna(X)])


def test_unseen_categories_share_the_last_place():
    encoding, _ = Encoding.read(TABLE)
    new = TABLE[:3].assign(word=["new", "a", "other"])
    rows = encoding.encode(new)
    assert rows[:, 0].tolist() == [2, 0, 2]
    expected = [UNSEEN_CATEGORY, "a", UNSEEN_CATEGORY]
    assert encoding.frame(rows).columns[0].values.tolist() == expected
    assert encoding.decode(rows)["word"].isna().tolist() == [True, False, True]
    strict, _ = Encoding.read(TABLE, handle_unknown="error")
    with pytest.raises(ValueError, match=r"'word' has categories .*: \['new', 'other'\]"):
        strict.encode(new)
    warning, _ = Encoding.read(TABLE, handle_unknown="warn")
    with pytest.warns(UserWarning, match=r"'new' in column 'word' \(2 of 3 rows\)"):
        warning.encode(new)


@pytest.mark.parametrize(
    "values",
    [[7, 8, 9], [7.0, 8.0, 9.0], ["7", "8", "9"], np.array([7, 8, 9], object)],
    ids=["ints", "floats", "texts", "objects"],
)
@pytest.mark.parametrize("fitted", [[8, 7, None], ["8", "7", None], [8.0, 7.0, None]])
def test_categories_are_found_by_value_or_text(fitted, values):
    encoding, _ = Encoding.read(pd.DataFrame({"code": pd.Categorical(fitted)}))
    rows, unseen = encoding.encode_and_unseen(pd.DataFrame({"code": values}))
    assert rows[:, 0].tolist() == [0, 1, 2]
    assert {name: [str(float(v)) for v in found] for name, found in unseen.items()} == {
        "code": ["9.0"]
    }


def test_a_value_comes_before_a_text():
    encoding, _ = Encoding.read(pd.DataFrame({"code": pd.Categorical(["1", 1])}))
    assert encoding.encode(pd.DataFrame({"code": [1, 1]}))[0, 0] == encoding.categories[0].index(1)


def test_texts_in_iso_8601_are_dates():
    texts = ["1970-01-02", "1970-01-01 00:01", "1970-01-01T00:00:00.25", "1970-01-01T01:00+01:00"]
    texts += ["0001-01-01T00:00+02:00", "1970-01-01T00:00Z", "1970-02-30", "1/2/1970", "19700101"]
    seconds, offsets = dates.parsed(texts)
    year_1 = -719162 * 86_400 - 7200
    np.testing.assert_array_equal(seconds, [86_400, 60, 0.25, 0, year_1, 0] + 3 * [np.nan])
    np.testing.assert_array_equal(offsets, 3 * [np.nan] + [3600, 7200, 0] + 3 * [np.nan])


def test_numbers_beyond_a_dtype_become_its_largest():
    """Samples may lie beyond the rows of the fit."""
    pa = pytest.importorskip("pyarrow")
    dtypes = ["float16", "float32", "Float32", pd.ArrowDtype(pa.float32()), "float64"]
    table = pd.DataFrame({str(dtype): pd.Series([1, 2], dtype=dtype) for dtype in dtypes})
    encoding, rows = Encoding.read(table)
    found = encoding.decode(np.full_like(rows, -1e300))
    assert list(found.dtypes) == list(table.dtypes)
    single = float(np.finfo(np.float32).max)
    assert (-found).to_numpy(float)[0].tolist() == [65504.0, single, single, single, 1e300]
    encoding, rows = Encoding.read(pl.DataFrame({"x": [1.0]}, schema={"x": pl.Float32}))
    assert encoding.decode(-1e300 * rows)["x"].to_list() == [-single]


@pytest.mark.parametrize("models_missing", [False, True])
@pytest.mark.parametrize("handle_unknown", ["error", "rare"])
@pytest.mark.parametrize(
    "columns", [None, {"code": "ordinal", "count": "categorical", "size": ("circular", 9.0)}]
)
def test_variables_stand_for_the_values_of_rows(columns, handle_unknown, models_missing):
    """Also rare categories, which share a level, and numbers as categories."""
    table = TABLE.assign(word=TABLE["word"].where(TABLE.index > 1, "rare"))
    table["size"] = table["size"].abs()
    settings = {"handle_unknown": handle_unknown, "models_missing": models_missing}
    schema = schema_of(table, columns, random_state=np.random.RandomState(0), **settings)
    rows = schema.encoding.encode(table)
    variables = schema.split(rows)
    assert variables.dtype == np.float64 and len(variables) == N
    np.testing.assert_allclose(schema.joined(variables), rows, atol=1e-12)
    # Of some columns, the variables of others are unknown.
    some = schema.split(rows, ["word", "at"])
    known = schema.mask_of(["word", "at"])
    np.testing.assert_array_equal(some[:, known], variables[:, known])
    assert np.isnan(some[:, ~known]).all()


def test_other_roles_than_in_fit():
    encoding, _ = Encoding.read(TABLE)
    texts = TABLE[:3].assign(
        day=["2024-05-01", None, "2024-05-02T12:00"], at=3 * ["2024-07-01T02:00"]
    )
    found = encoding.decode(encoding.encode(texts))
    assert found["day"].tolist()[::2] == [
        pd.Timestamp("2024-05-01"),
        pd.Timestamp("2024-05-02 12:00"),
    ]
    assert (found["at"] == pd.Timestamp("2024-07-01 02:00", tz="Europe/Berlin")).all()
    for values, message in [
        ({"word": [1234, 5, 6]}, r"'word' held texts in fit; now it holds 1234.*'01234'"),
        ({"size": ["a", "b", None]}, r"'size' held numbers in fit; now it holds 'a'.*to_numeric"),
        ({"day": [1.5, 2.5, None]}, r"'day' held dates in fit; now it holds 1.5.*to_datetime"),
        ({"member": 3 * ["perhaps"]}, "'member' has categories .*perhaps"),
    ]:
        with pytest.raises(ValueError, match=message):
            encoding.encode(TABLE[:3].assign(**values))


@pytest.mark.parametrize("values", [[True] * 3, [False] * 3])
def test_both_booleans_are_known(values):
    encoding, _ = Encoding.read(pd.DataFrame({"member": values}))
    assert encoding.encode(pd.DataFrame({"member": [False, True]})).tolist() == [[0.0], [1.0]]


@contextmanager
def counted_columns(monkeypatch):
    """Count how often columns of DataFrames are read."""
    read, names = frames._pandas_column, []

    def count(series, name):
        names.append(name)
        return read(series, name)

    with monkeypatch.context() as patch:
        patch.setattr(frames, "_pandas_column", count)
        yield names


Y = np.arange(N) % 2
SOME = TABLE[["word", "size", "count", "at"]]
FLOW = NSFDensity(n_transforms=1, hidden_layer_sizes=(4,), max_iter=1)
DETECTOR = DensityOutlierDetector(quick(), calibration="conformal", cv=3, random_state=0)


@pytest.mark.parametrize(
    ("estimator", "methods"),
    [
        (quick(), ["score_samples", "predict", "impute"]),
        (DETECTOR, ["score_samples", "predict", "p_values", "explain"]),
        (DensityOutlierDetector(quick(), trim=0.1), ["score_samples"]),
        (DensityClassifier(quick()), ["predict_proba", "predict", "score_samples"]),
        (TableImputer(quick()), ["transform"]),
        (FlowRegressor(ConditionalDensity(FLOW, cv=2)), ["predict", "predict_interval"]),
        (FlowRegressor(ConditionalDensity(FLOW), calibration=0.2), ["predict"]),
    ],
    ids=["density", "conformal", "trimmed", "classifier", "imputer", "folds", "held-out"],
)
def test_a_public_call_reads_a_table_once(monkeypatch, estimator, methods):
    with counted_columns(monkeypatch) as names:
        estimator.fit(SOME, Y)
    assert names == list(SOME)
    for method in methods:
        with counted_columns(monkeypatch) as names:
            getattr(estimator, method)(SOME[:5])
        assert names == list(SOME), method


def test_a_text_among_numbers_of_an_object_column_is_named():
    table = pd.DataFrame({"rent": np.array([500.0, 650.5, "a lot"], dtype=object)})
    message = "'rent' holds numbers and texts such as 'a lot': convert it by pandas.to_numeric"
    with pytest.raises(ValueError, match=message):
        Encoding(frames.read_frame(table), "rare")
