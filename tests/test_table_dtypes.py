"""Dtypes of tables: dates and their time zones, Arrow's dtypes, and wide integers."""

from decimal import Decimal
from importlib.util import find_spec

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _tables import quick, two_components  # noqa: F401

import skflows
from skflows import DensityOutlierDetector, NSFDensity
from skflows.cli._columns import numbers, with_dates
from skflows.columns.dates import local_seconds, utc_seconds
from skflows.columns.encoding import Encoding
from skflows.columns.frames import read_frame, write_frame
from skflows.inspection import DensityDisplay

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=N)
DAYS = np.datetime64("2024-01-01", "D") + RNG.integers(0, 300, N)
HOURS = pd.Series(pd.date_range("2024-10-20", periods=N, freq="5h", tz="Europe/Berlin"))
WINTER = slice(N - 20, N)
WIDE = 2**60 + np.arange(N)


def fitted(table):
    return quick(max_iter=1, n_orders=1).fit(table)


def as_objects(values):
    found = np.full((N, 2), None, dtype=object)
    found[:, 1] = X
    for i, value in enumerate(values):
        found[i, 0] = value
    return found


@pytest.mark.parametrize("dtype", ["datetime64[D]", "datetime64[s]", "datetime64[ns]"])
def test_arrays_of_dates_stay_dates(dtype):
    table = np.column_stack([DAYS, DAYS + 3]).astype(dtype)
    table[0, 0] = np.datetime64("NaT")
    density = fitted(table)
    samples = density.sample(20, random_state=0)
    assert samples.dtype == dtype
    assert np.isfinite(density.score_samples(samples)).all()
    filled = density.impute(table)
    assert filled.dtype == dtype and not np.isnat(filled).any()
    assert (filled == table).sum() == 2 * N - 1


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (list(DAYS), "datetime64[D]"),
        ([day.item() for day in DAYS], "datetime64[D]"),
        (list(DAYS.astype("datetime64[ns]")), "datetime64[ns]"),
        ([pd.Timestamp(day).to_pydatetime() for day in DAYS], "datetime64[us]"),
    ],
)
def test_dates_in_arrays_of_objects_stay_dates(values, dtype):
    table = as_objects(values)
    table[0, 0] = None
    density = fitted(table)
    samples = density.sample(5, random_state=0)
    assert {value.dtype for value in samples[:, 0]} == {np.dtype(dtype)}
    assert np.isfinite(density.score_samples(samples)).all()
    filled = density.impute(table)
    assert isinstance(filled[0, 0], np.datetime64) and filled[1, 0] == table[1, 0]
    column = read_frame(table).columns[0]
    assert np.isnat(write_frame([column], ["x"], "numpy", "object")[0, 0])


def test_dates_with_a_time_zone_in_arrays_of_objects():
    density = fitted(as_objects([hour.to_pydatetime() for hour in HOURS]))
    samples = density.sample(5, random_state=0)
    assert {str(value.tzinfo) for value in samples[:, 0]} == {"Europe/Berlin"}
    assert np.isfinite(density.score_samples(samples)).all()


ZONED = pd.DataFrame({"at": HOURS, "x": X})


def in_other_forms():
    """The same instants in another time zone, or dtype, or library."""
    utc = HOURS.dt.tz_convert("UTC")
    naive = pl.Series(utc.dt.tz_localize(None).to_numpy()).dt.replace_time_zone("UTC")
    yield "pandas", ZONED.assign(at=utc)
    yield "nanoseconds", ZONED.assign(at=utc.dt.as_unit("ns"))
    yield "objects", ZONED.assign(at=utc.astype(object))
    yield "offset", ZONED.assign(at=utc.dt.tz_convert("-03:30"))
    yield "polars in UTC", pl.DataFrame({"at": naive, "x": X})
    in_tokyo = naive.dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms")
    yield "polars", pl.DataFrame({"at": in_tokyo, "x": X})
    pa = pytest.importorskip("pyarrow")
    stamp = pd.ArrowDtype(pa.timestamp("ns", "UTC"))
    yield "arrow", ZONED.assign(at=utc.astype(stamp))


@pytest.fixture(scope="module")
def zoned():
    return fitted(ZONED)


def test_instants_score_the_same_in_every_time_zone(zoned):
    expected = zoned.score_samples(ZONED)
    for name, table in in_other_forms():
        np.testing.assert_array_equal(zoned.score_samples(table), expected, err_msg=name)
    naive = fitted(ZONED.assign(at=HOURS.dt.tz_localize(None, ambiguous="raise")))
    np.testing.assert_array_equal(
        zoned.score_samples(ZONED), naive.score_samples(ZONED.assign(at=HOURS.dt.tz_localize(None)))
    )
    given = zoned.condition({"at": HOURS[3].tz_convert("UTC")})
    assert given.score_samples({"x": 0.3}) == zoned.condition({"at": HOURS[3]}).score_samples(
        {"x": 0.3}
    )


def test_samples_keep_the_time_zone(zoned):
    for name, table in [("pandas", ZONED), *in_other_forms()]:
        density = fitted(table)
        samples = density.sample(10, random_state=0)
        dtype = table["at"].dtype
        if name == "objects":
            dtype = "datetime64[us, UTC]"
        assert samples["at"].dtype == dtype, name
        assert np.isfinite(density.score_samples(samples)).all(), name
        missing = samples.clone() if isinstance(samples, pl.DataFrame) else samples.copy()
        known = read_frame(missing).columns[0].values
        assert HOURS[0].timestamp() - 14 * 86400 < known.min(), name
        assert known.max() < HOURS[N - 1].timestamp() + 14 * 86400, name
    filled = zoned.impute(ZONED.assign(at=HOURS.dt.tz_convert("UTC").mask(np.arange(N) == 3)))
    assert filled["at"].dtype == "datetime64[us, UTC]" and filled.notna().all(axis=None)
    local = zoned.sample(50, given={"at": "2024-10-23 05:00"}, random_state=0)["at"]
    assert (local == pd.Timestamp("2024-10-23 05:00", tz="Europe/Berlin")).all()


def test_dates_with_and_without_a_time_zone_do_not_mix(zoned):
    naive = ZONED.assign(at=HOURS.dt.tz_localize(None))
    with pytest.raises(
        ValueError, match=r"'at' had the time zone Europe/Berlin in fit; now .* no t"
    ):
        zoned.score_samples(naive)
    with pytest.raises(ValueError, match=r"'at' had no time zone in fit; now .* Europe/Berlin"):
        fitted(naive).score_samples(ZONED)
    mixed = ZONED.assign(at=[*HOURS[:30], *HOURS[30:].dt.tz_convert("UTC")]).astype({"at": object})
    for density in (quick(), DensityOutlierDetector(quick())):
        with pytest.raises(ValueError, match=r"'at' .*different time zones \(Europe/Berlin, UTC\)"):
            density.fit(mixed)
    partly = ZONED.assign(at=[*HOURS[:30], *naive["at"][30:]]).astype({"at": object})
    with pytest.raises(ValueError, match=r"different time zones \(Europe/Berlin, no time zone\)"):
        zoned.score_samples(partly)
    encoding, _ = Encoding.read(ZONED)
    with pytest.raises(ValueError, match="'at' had the time zone Europe/Berlin in fit"):
        encoding.encode(naive)
    (_, moved), *_ = in_other_forms()
    assert encoding.decode(encoding.encode(moved)).equals(ZONED)


@pytest.mark.filterwarnings("ignore:X has dates before all dates of fit")
def test_the_same_instants_in_files_score_the_same():
    """Texts with one offset or several, in the summer time of one zone or as UTC."""
    texts = HOURS.map(pd.Timestamp.isoformat)
    table = pd.DataFrame({"at": texts, "x": X})
    with pytest.warns(UserWarning, match="offsets of dates change, as by summer time, in 'at'"):
        read = with_dates(table)
    one, several = fitted(with_dates(table[WINTER])), fitted(read)
    assert one._schema.columns[0].zone == "UTC+01:00"
    assert several._schema.columns[0].zone == "UTC"
    for density in (one, several):
        expected = density.score_samples(read)
        for zone in ("UTC", "America/New_York", "Europe/Berlin"):
            moved = table.assign(at=HOURS.dt.tz_convert(zone).map(pd.Timestamp.isoformat))
            for rows in (moved, moved[:3]):
                found = density.score_samples(with_dates(rows, density._schema.encoding))
                # The other rows of a product of matrices change its rounding.
                np.testing.assert_allclose(found, expected[: len(rows)], rtol=1e-13)


def test_offsets_in_files_that_fit_had_not_or_only_it_had():
    """They would change the instants."""
    texts = HOURS.map(pd.Timestamp.isoformat)
    table = pd.DataFrame({"at": texts, "x": X})[WINTER]
    local = table.assign(at=table["at"].str[:19])
    with_offset, without = (fitted(with_dates(rows))._schema.encoding for rows in (table, local))
    row = table.index[1]
    partly = local.assign(at=[local["at"].iloc[0], *table["at"].iloc[1:]])
    with pytest.raises(ValueError, match=f"'at' holds dates with and without .* row {row + 1}:"):
        with_dates(partly)
    with pytest.raises(ValueError, match=rf"no UTC offsets in fit; now row {row + 1} .*\+01:00'"):
        with_dates(partly, without)
    with pytest.raises(ValueError, match=r"had UTC offsets in fit; now row .* with its offset"):
        with_dates(partly, with_offset)
    assert with_dates(local, without)["at"].tolist() == pd.to_datetime(local["at"]).tolist()


def test_files_of_wide_integers_are_refused():
    with pytest.raises(ValueError, match=r"column 'id' of t\.csv holds 1152921504606846977"):
        numbers(pd.DataFrame({"id": WIDE}), "t.csv")


def test_a_model_file_keeps_the_time_zone(zoned, tmp_path):
    zoned.save(tmp_path / "model")
    loaded = skflows.load(tmp_path / "model")
    (_, moved), *_ = in_other_forms()
    np.testing.assert_array_equal(loaded.score_samples(moved), zoned.score_samples(ZONED))
    assert loaded.sample(3, random_state=0).equals(zoned.sample(3, random_state=0))


def test_local_time():
    """Also in the hours that occur twice, or not at all."""
    zone = "Europe/Berlin"
    instants = pd.date_range("2024-03-31", "2024-11-01", freq="30min", tz="UTC")
    seconds = instants.as_unit("us").asi8 / 1e6
    local = local_seconds(seconds, zone, "at")
    expected = instants.tz_convert(zone).tz_localize(None).as_unit("us").asi8 / 1e6
    np.testing.assert_array_equal(local, expected)
    back = utc_seconds(local, zone, "at")
    assert set(seconds - back) == {0.0, 3600.0}  # the second of the same two hours is the first
    assert (seconds != back).sum() == 2
    (gap,) = utc_seconds(np.array([pd.Timestamp("2024-03-31 02:30").timestamp()]), zone, "at")
    assert gap == pd.Timestamp("2024-03-31 01:30", tz="UTC").timestamp()
    with pytest.raises(ValueError, match=r"'at' has the time zone 'Mars/Base', .*Europe/Berlin"):
        local_seconds(seconds, "Mars/Base", "at")


def arrow_columns():
    pa = pytest.importorskip("pyarrow")
    texts = pd.Series(RNG.choice(["a", "b"], N)).astype(pd.ArrowDtype(pa.string()))
    moments = HOURS.dt.tz_localize(None)
    stamp, zoned = (pa.timestamp("ms", zone) for zone in (None, "Europe/Berlin"))
    columns = {
        "date32": pd.Series(list(DAYS.astype(object)), dtype=pd.ArrowDtype(pa.date32())),
        "date64": pd.Series(list(DAYS.astype(object)), dtype=pd.ArrowDtype(pa.date64())),
        "decimal": pd.Series(
            [Decimal(int(k)) / 100 for k in RNG.integers(0, 9999, N)],
            dtype=pd.ArrowDtype(pa.decimal128(4, 2)),
        ),
        "dictionary": texts.astype(pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
        "timestamp": moments.astype(pd.ArrowDtype(stamp)),
        "zoned": HOURS.astype(pd.ArrowDtype(zoned)),
        "string": texts,
        "large_string": texts.astype(pd.ArrowDtype(pa.large_string())),
        "bool": (texts == "a").astype(pd.ArrowDtype(pa.bool_())),
        "int8": pd.Series(RNG.integers(0, 90, N)).astype(pd.ArrowDtype(pa.int8())),
        "float": pd.Series(X).astype(pd.ArrowDtype(pa.float32())),
    }
    return pd.DataFrame(columns)


def test_dtypes_of_arrow_are_read_and_written():
    table = arrow_columns()
    with_gaps = table.mask(np.arange(N)[:, None] == np.arange(table.shape[1]))
    assert with_gaps.isna().sum().eq(1).all()
    frame = read_frame(with_gaps)
    assert all(column.known.sum() == N - 1 for column in frame.columns)
    back = write_frame(frame.columns, frame.names, "pandas")
    pd.testing.assert_frame_equal(back, with_gaps)


def test_samples_have_dtypes_of_arrow(tmp_path):
    table = arrow_columns()
    for names in (["date32", "decimal", "dictionary", "zoned"], ["string", "int8", "date64"]):
        some = table[names]
        density = fitted(some)
        samples = density.sample(20, random_state=0)
        assert samples.dtypes.equals(some.dtypes)
        assert np.isfinite(density.score_samples(samples)).all()
        filled = density.impute(some.mask(np.tile(np.arange(N)[:, None] < 5, len(names))))
        assert filled.dtypes.equals(some.dtypes) and filled.notna().all(axis=None)
        density.save(tmp_path / "model")
        assert skflows.load(tmp_path / "model").sample(20, random_state=0).equals(samples)


def test_decimals_stay_within_their_digits():
    pa = pytest.importorskip("pyarrow")
    column = read_frame(pd.DataFrame({"x": [1e9, -1e9, 0.126]})).columns[0]
    named = column._replace(dtype="decimal128(4, 2)[pyarrow]")
    ends = [Decimal("99.99"), Decimal("-99.99"), Decimal("0.13")]
    series = write_frame([named], ["x"], "pandas")["x"]
    assert series.dtype == pd.ArrowDtype(pa.decimal128(4, 2)) and series.tolist() == ends
    named = column._replace(dtype=str(pl.Decimal(4, 2)))
    series = write_frame([named], ["x"], "polars")["x"]
    assert series.dtype == pl.Decimal(4, 2) and series.to_list() == ends


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.period_range("2020-01", periods=N, freq="M"), r"types Period; .*dt\.to_timestamp"),
        (pd.to_timedelta(np.arange(N), "h"), r"types Timedelta; .*dt\.total_seconds"),
        (pd.interval_range(0, N), r"types Interval; .*astype\(str\)"),
        (pd.cut(X, 3), r"'p' has categories of the type Interval, .*rename_categories\(str\)"),
        (pd.Categorical(DAYS), r"categories of the type Timestamp, .*rename_categories\(str\)"),
    ],
)
def test_unusable_dtypes_are_an_error_in_fit(column, message):
    with pytest.raises((TypeError, ValueError), match=message):
        quick().fit(pd.DataFrame({"p": pd.Series(column), "x": X}))


def test_time_differences_in_arrays_are_an_error():
    with pytest.raises(TypeError, match=r"types timedelta64; .*np\.timedelta64\(1, 's'\)"):
        quick().fit((DAYS - DAYS.min()).astype("timedelta64[ns]")[:, None])


@pytest.mark.parametrize(
    "times", [DAYS[:, None], (DAYS - DAYS.min())[:, None], pd.DataFrame({"d": DAYS}), ZONED[["at"]]]
)
def test_dates_are_no_numbers(times):
    """NumPy would take them for integers."""
    with pytest.raises(ValueError, match="NSFDensity models numbers: use TableDensity"):
        NSFDensity().fit(times)


def wide_tables():
    """Integers of which float64 would make one number."""
    yield "int64", WIDE[:, None], 0
    yield "uint64", (WIDE.astype(np.uint64) * 8 + 1)[:, None], 0
    yield "objects", np.array([[int(i)] for i in WIDE], dtype=object), 0
    yield "list", [[int(i)] for i in WIDE], 0
    yield "pandas", pd.DataFrame({"id": WIDE}), "'id'"
    yield "Int64", pd.DataFrame({"id": pd.array([*WIDE[1:], None], dtype="Int64")}), "'id'"
    yield "pandas objects", pd.DataFrame({"id": pd.Series(WIDE, dtype=object)}), "'id'"
    yield "polars", pl.DataFrame({"id": [*WIDE[1:].tolist(), None]}), "'id'"
    yield "Int128", pl.DataFrame({"id": pl.Series([2**100 + 1] * N, dtype=pl.Int128)}), "'id'"
    if find_spec("pyarrow") is None:
        return
    import pyarrow as pa

    arrow = pd.Series(WIDE).astype(pd.ArrowDtype(pa.int64()))
    yield "arrow", pd.DataFrame({"id": arrow}), "'id'"
    decimals = [Decimal(int(i)) for i in WIDE]
    decimals = pd.Series(decimals, dtype=pd.ArrowDtype(pa.decimal128(38, 0)))
    yield "decimals", pd.DataFrame({"id": decimals}), "'id'"


WIDE_TABLES = [pytest.param(table, name, id=kind) for kind, table, name in wide_tables()]


@pytest.mark.parametrize("density", [quick(), NSFDensity(), skflows.AutoDensity()])
@pytest.mark.parametrize(("table", "name"), WIDE_TABLES)
def test_integers_that_float64_would_round_are_refused(density, table, name):
    message = rf"^column {name} holds \d+, but float64 .* 2\*\*53\. .*texts; .*subtract an offset"
    with pytest.raises(ValueError, match=message):
        density.fit(table)


def test_wide_integers_that_float64_holds_are_numbers():
    low = np.uint64(2**63)
    steps = RNG.integers(0, 9, N).astype(np.uint64)
    table = np.stack([low + steps * np.uint64(2048), steps], axis=1)
    density = fitted(table)
    samples = density.sample(20, random_state=0)
    assert samples.dtype == np.uint64 and (np.abs(samples[:, 0] - float(low)) < 2**20).all()
    assert density.score_samples(samples).min() > -30
    NSFDensity(max_iter=1).fit(WIDE[:, None].astype(float) + 2**20 * X[:, None])
    with pytest.raises(ValueError, match="column 0 holds an integer of more than 40 digits"):
        NSFDensity().fit([[10**5000], [1], [2]])


@pytest.fixture(scope="module")
def mixed():
    table = pd.DataFrame(
        {
            "kind": RNG.choice(["cat", "dog"], N),
            "mass": X,
            "age": RNG.integers(0, 90, N),
            "size": RNG.normal(size=N),
        }
    )
    table.loc[3, "mass"] = np.nan
    return fitted(table), table


def test_empty_questions(mixed):
    density, table = mixed
    for own in (density, density.condition({"kind": "cat"})):
        with pytest.raises(ValueError, match=r"columns is empty; give at least one of \['"):
            own.marginal([])
    with pytest.raises(ValueError, match="q is empty; give at least one probability"):
        density.quantile("mass", table, q=[])


def test_arguments_in_the_wrong_order(mixed):
    density, table = mixed
    calls = [("mass", [0.1], table), (table, "mass"), ("mass", "kind"), ("mass", [0.1], X[:, None])]
    for arguments in calls:
        with pytest.raises(ValueError, match=r"wrong order; the call is quantile\(column, X, q\)"):
            density.quantile(*arguments)
    with pytest.raises(ValueError, match=r"the call is predict_proba\(column, X\)"):
        density.predict_proba(table, "kind")


def test_descriptions_of_questions(mixed):
    density, table = mixed
    given = density.condition({"kind": "cat", "age": 3})
    assert repr(given) == "<ConditionalTable of 'mass', 'size', given kind='cat', age=3>"
    assert repr(given.marginal("mass")) == "<ConditionalTable of 'mass', given kind='cat', age=3>"
    rows = density.condition(table[["kind", "age", "size"]])
    assert repr(rows) == "<ConditionalTable of 'mass', given 'kind', 'age', 'size' in 60 rows>"
    assert repr(density.marginal("kind")) == "<ConditionalTable of 'kind'>"


def test_density_display_of_a_table(mixed):
    pytest.importorskip("matplotlib")
    density, table = mixed
    display = DensityDisplay.from_estimator(density, table, grid_resolution=5)
    assert display.feature_names == ["mass", "size"] and len(display.X) == N - 1
    grid = pd.DataFrame({"mass": display.xx0.ravel(), "size": display.xx1.ravel()})
    expected = density.marginal(["mass", "size"]).score_samples(grid)
    np.testing.assert_array_equal(display.log_density.ravel(), expected)
    curve = DensityDisplay.from_estimator(density, table, ["size"], grid_resolution=5)
    assert curve.xx1 is None and np.isfinite(curve.log_density).all()
    message = r"'kind' is categorical, 'age' is count; .*choose one or two of \['mass', 'size'\]"
    message = message.replace(r"\['mass', 'size'\]", "'mass', 'size'")
    with pytest.raises(ValueError, match=message):
        DensityDisplay.from_estimator(density, table, ["kind", "age"])
    texts = pd.DataFrame({"kind": table["kind"]})
    with pytest.raises(ValueError, match="X has no column of numbers that are not rounded"):
        DensityDisplay.from_estimator(fitted(texts), texts)


def test_a_word_among_numbers_is_named():
    own = quick().fit(pd.DataFrame({"age": np.arange(60) % 37, "kind": ["a", "b"] * 30}))
    rows = pd.DataFrame({"age": ["65", "unknown", "3"], "kind": "a"})
    with pytest.raises(ValueError, match=r"'age' .* 'unknown', which is no number: correct it"):
        own.score_samples(rows)
