"""Texts that stand for numbers, dates, times and durations are read, and written back so."""

import pickle

import numpy as np
import pandas as pd
import pytest
from _tables import two_components  # noqa: F401 - a fixture

from skflows import DensityOutlierDetector, TableDensity, load
from skflows.columns.checks import ColumnWarning
from skflows.columns.encoding import Encoding
from skflows.columns.formats import find_format
from skflows.table._schema import Schema

# Texts of a column, what they are, and the first number.
FORMATS = {
    "dollars": (["$40,000.00", "$1.50", "-$5.25"], "amounts", 40000),
    "euros": (["1.243,56 €", "12,00 €"], "amounts", 1243.56),
    "euros without cents": (["1.243 €", "2.500 €"], "amounts", 1243),
    "cents where there are some": (["$40,000", "$12.50"], "amounts", 40000),
    "brackets": (["(1,120)", "5"], "numbers with separated thousands", -1120),
    "brackets without thousands": (["$(5.00)", "$3.25"], "amounts", -5),
    "sign behind": (["5-", "3"], "numbers", -5),
    "minus sign": (["\u22125 €", "3 €"], "amounts", -5),
    "signs": (["+3.5 %", "-2.1 %", "0.0 %"], "percentages", 3.5),
    "percentages": (["12.5 %", "3 %", "7.25 %"], "percentages", 12.5),
    "decimal commas": (["635,38", "0,05"], "numbers", 635.38),
    "blanks": (["5 123 456,5", "12"], "numbers with separated thousands", 5123456.5),
    "narrow blanks": (["5\u202f123", "12", "0"], "numbers with separated thousands", 5123),
    "apostrophes": (["1'234.50", "12.00"], "numbers with separated thousands", 1234.5),
    "points of thousands": (["1.243.567", "2.500"], "numbers with separated thousands", 1243567),
    "exponents": (["1.5e-05", "2.5e+03"], "numbers in scientific notation", 1.5e-5),
    "large exponents": (["1.50E3", "2.25E-12"], "numbers in scientific notation", 1500),
    "days": (["3 days", "1 day"], "quantities in days", 3),
    "weights": (["12 kg", "3.5 kg"], "quantities in kg", 12),
    "times": (["14:30", "09:05"], "times of day", 52200),
    "halves of the day": (["9:30 AM", "12:05 PM", "12:00 AM"], "times of day", 34200),
    "seconds": (["09:30:05.250", "23:59:59.750"], "times of day", 34205.25),
    "durations": (["1:23:45", "0:09:15"], "durations", 5025),
    "minutes": (["3:45", "72:10"], "durations", 225),
    "differences": (["-0:30", "1:15"], "durations", -30),
    "timedeltas": (["0 days 01:23:45", "12 days 00:00:00"], "durations", 5025),
    "hours and minutes": (["2h 50m", "19h", "5m"], "durations", 10200),
    "minutes of two digits": (["2h 05m", "11h 00m", "0h 20m"], "durations", 7500),
    "minutes without a unit": (["2h34", "0h05"], "durations", 9240),
    "units with blanks": (["1 h 5 min", "20 min", "-3 h"], "durations", 3900),
    "days to seconds": (["1d20s", "2d3h1m", "0s"], "durations", 86420),
    "ISO 8601": (["2024-12-31T18:30", "2024-01-01T00:00"], "dates", 1735669800),
    "fractions": (["2024-12-31 18:30:05.250"], "dates", 1735669805.25),
    "day first": (["31.12.2024", "01.02.2023"], "dates (day first)", 1735603200),
    "month first": (["12/31/2024", "1/2/2024"], "dates (month first)", 1735603200),
    "points": (["05.02.2024", "01.02.2023"], "dates (day first)", 1707091200),
    "either order": (["01/02/2024", "02/03/2024"], "dates (month first)", 1704153600),
    "first of the month": (["01/02/2024", "01/03/2024"], "dates (day first)", 1706745600),
    "short years": (["31/12/24", "01/01/69"], "dates (day first)", 1735603200),
    "names of months": (["31 Dec 2024", "1 May 2023"], "dates", 1735603200),
    "American": (["December 31, 2024", "May 5, 2020"], "dates", 1735603200),
    "without a comma": (["Dec 31 2024", "May 5 2020"], "dates", 1735603200),
    "capitals": (["31-DEC-2024", "01-MAY-2020"], "dates", 1735603200),
    "weekdays": (["Tue, Dec 31, 2024", "Tue, May 5, 2020"], "dates", 1735603200),
    "long weekdays": (["Tuesday 31 December 2024", "Tuesday 5 May 2020"], "dates", 1735603200),
    "slashes": (["31/Dec/2024:18:30", "01/May/2020:00:00"], "dates", 1735669800),
    "months": (["2024-12", "2020-05"], "months", 1733011200),
    "named months": (["Dec 2024", "May 2020"], "months", 1733011200),
    "clock": (["5/16/24 12:00 am", "5/6/24 3:05 pm"], "dates (month first)", 1715817600),
}  # fmt: skip
NO_FORMATS = {
    "codes": ["A1", "A2"],
    "leading zeros": ["007", "012"],
    "digits": ["12", "13"],
    "decimals": ["1.243", "2.500"],
    "addresses": ["192.168.1.1", "10.0.0.1"],
    "versions": ["1.2.3", "1.2.4"],
    "lists": ["3,4", "1,2"],
    "ranges": ["10-20", "20-30"],
    "fractions": ["1/2", "3/4"],
    "another currency": ["$5", "€5"],
    "another spelling": ["$5", "$ 5"],
    "too few zeros": ["$5.00", "$5.5"],
    "a word": ["$5", "none"],
    "no date": ["31.12.2024", "31.02.2024"],
    "different dates": ["2024-12-31", "31.12.2024"],
    "days or months": ["Jan 21", "Feb 22"],
    "another weekday": ["Mon, Dec 31, 2024", "Tue, May 5, 2020"],
    "no month": ["2024-12", "2024-13"],
    "seasons": ["2000-01", "2001-02", "2011-12"],
    "rooms": ["Room 2001", "Room 2002"],
    "no time": ["14:30", "25:61"],
    "seats": ["12d", "3h", "4m"],
    "ascending units": ["5m 2h", "1h 3m"],
    "more than an hour of minutes": ["2h 70m", "1h"],
    "codes with blanks": ["123 456", "234 567"],
}


@pytest.mark.parametrize("name", FORMATS)
def test_texts_are_read_and_written_back(name):
    texts, what, first = FORMATS[name]
    for some in (texts, texts[::-1]):
        found = find_format(some)
        assert found.what == what
        numbers = found.parse(some)
        assert found.write(numbers) == some
        assert numbers[some.index(texts[0])] == first
        assert np.isnan(found.parse(["x", "", "$5 €"])).all()
    assert vars(pickle.loads(pickle.dumps(found))) == vars(found)


@pytest.mark.parametrize("name", NO_FORMATS)
def test_other_texts_have_no_format(name):
    assert find_format(NO_FORMATS[name]) is None


@pytest.mark.parametrize("name", FORMATS)
def test_any_number_is_written_in_the_format(name):
    """What is written is read as a number that is written so: samples keep the form of the data."""
    texts = FORMATS[name][0]
    found = find_format(texts)
    rng = np.random.default_rng(0)
    values = np.concatenate([found.parse(texts), rng.normal(0, 1e4, 50), rng.normal(0, 1, 20), [0]])
    if found.role == "datetime":
        values = values * 1e4
    if found.what == "times of day":
        values = values % 86400
    written = found.write(values)
    again = found.parse(written)
    assert not np.isnan(again).any()
    assert found.write(again) == written


def test_what_the_texts_leave_open_can_be_stated():
    texts = ["01/02/2024", "02/03/2024"]
    assert find_format(texts).is_ambiguous
    assert find_format(texts, dayfirst=True).what == "dates (day first)"
    assert not find_format(["13/02/2024", "02/03/2024"], dayfirst=False).is_ambiguous
    assert find_format(["1.243", "2.500"], decimal=",").parse(["1.243"]) == [1243]
    assert find_format(["1,243 €", "2,500 €"]).parse(["1,243 €"]) == [1243]
    assert find_format(["1,243 €", "2,500 €"], decimal=",").parse(["1,243 €"]) == [1.243]
    assert find_format(["1.5", "2"], is_plain=True).write([3.25]) == ["3.2"]


def test_negative_zeros_are_read_as_zero():
    """-0.04 is rounded so by Python; samples write 0.0 %."""
    found = find_format(["-0.0%", "12.5%", "-3.1%"])
    assert found.what == "percentages"
    assert found.write(found.parse(["-0.0%", "-3.1%"])) == ["0.0%", "-3.1%"]
    assert find_format(["(0.00)", "(5.10)", "3.20"]).parse(["(0.00)"]) == [0]
    assert find_format(["-0.0%", "12.5 €"]) is None
    assert find_format(["-0.0%"]) is None


def test_words_are_accepted_on_demand():
    texts = ["$5.50", "$12.00"] * 10 + ["call us"]
    assert find_format(texts) is None
    found = find_format(texts, accepts_words=True)
    assert found.write(found.parse(texts[:2])) == texts[:2]
    assert found.are_words(texts).tolist() == [False] * 20 + [True]
    assert not find_format(texts[:-1]).are_words(["call us"]).any()
    assert find_format([*texts, "call us", "none"], accepts_words=True) is None


def messy_table(n=60):
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 366, n), "D")
    return pd.DataFrame(
        {
            "price": [f"${x:,.2f}" for x in rng.gamma(2, 20_000, n)],
            "day": days.strftime("%d/%m/%Y"),
            "at": [f"{h:02d}:{m:02d}" for h, m in rng.integers(0, 24, (n, 2))],
            "paid": rng.choice(["yes", "no"], n),
        }
    )


PATTERNS = {
    "price": r"-?\$(\d{1,3})(,\d{3})*\.\d\d",
    "day": r"[0-3]\d/[01]\d/\d{4}",
    "at": r"[0-2]\d:[0-5]\d",
    "paid": "yes|no",
}


@pytest.mark.parametrize("library", ["pandas", "polars", "numpy"])
def test_tables_keep_the_format_of_their_texts(one_class, tmp_path, library):
    table = messy_table()
    table.loc[3, ["price", "at"]] = None
    X = table
    if library == "polars":
        known = table.astype(object).where(table.notna(), None)
        X = pytest.importorskip("polars").DataFrame(known.to_dict("list"))
    elif library == "numpy":
        X = table.to_numpy(dtype=object)
    density = TableDensity(random_state=0).fit(X)
    kinds = [column["kind"] for column in density.columns_.to_dict("records")]
    assert kinds == ["bounded", "datetime", "circular", "categorical"]
    assert "amounts as texts, such as '$" in density.columns_["reason"][0]
    density.save(tmp_path / "m.skflows")
    density = load(tmp_path / "m.skflows")

    def as_pandas(X):
        frame = pd.DataFrame(X) if library == "numpy" else pd.DataFrame(X.to_dict())
        if library == "polars":
            frame = pd.DataFrame(X.to_dict(as_series=False))
        return frame.set_axis([*table], axis=1)

    drawn = as_pandas(density.sample(50, random_state=0)).dropna()  # missing as in the data
    full = as_pandas(density.impute(X))
    for name, pattern in PATTERNS.items():
        assert drawn[name].str.fullmatch(pattern).all()
        assert full[name].str.fullmatch(pattern).all()
    pd.testing.assert_frame_equal(full.drop(index=3), table.drop(index=3), check_dtype=False)
    scores = density.score_samples(X)
    assert np.isfinite(scores).all()


def test_numbers_may_come_in_place_of_texts(one_class):
    table = messy_table()
    density = TableDensity(random_state=0).fit(table)
    numbers = table.assign(
        price=table["price"].str.replace("[$,]", "", regex=True).astype(float),
        day=pd.to_datetime(table["day"], dayfirst=True),
    )
    np.testing.assert_array_equal(density.score_samples(numbers), density.score_samples(table))
    drawn = density.sample(5, given={"price": "$40,000.00", "day": "24/12/2024"}, random_state=0)
    assert (drawn["price"] == "$40,000.00").all() and (drawn["day"] == "24/12/2024").all()
    same = density.sample(5, given={"price": 40_000.0, "day": "24/12/2024"}, random_state=0)
    pd.testing.assert_frame_equal(same, drawn)
    numbers.loc[0, "price"] = np.nan
    filled = density.impute(numbers)
    assert filled["price"].dtype == float and filled["price"].notna().all()
    with pytest.raises(ValueError, match=r"held amounts such as '.0.00' in fit; now .* '40.000 €'"):
        density.score_samples(table.assign(price="40.000 €"))


@pytest.mark.parametrize(
    ("texts", "large"),
    [
        (["29.90 EUR", "114.50 EUR"], {"9,999.00 EUR": 9_999, "1 234.50 EUR": 1_234.5}),
        (["29,90 €", "114,50 €"], {"1.239.999,00 €": 1_239_999, "9'999,00 €": 9_999}),
        (["$50", "$985"], {"$1,204": 1_204}),
    ],
)
def test_thousands_may_be_separated_where_no_text_of_fit_had_any(texts, large):
    format = find_format(texts)
    assert format.parse([*large]).tolist() == [*large.values()]
    wrong = texts[0].replace(texts[0].strip("$ €EUR"), "9,99.00" if "." in texts[0] else "99.99,00")
    assert np.isnan(format.parse([wrong])).all()


def test_kinds_decide_on_texts(one_class):
    table = messy_table()
    stated = {"at": "categorical", "price": "continuous", "day": ("datetime", "dayfirst")}
    density = TableDensity(stated, handle_unknown="rare", random_state=0).fit(table)
    kinds = ["continuous", "datetime", "categorical", "categorical"]
    assert density.columns_["kind"].tolist() == kinds
    assert set(density.levels("at")) - {"(rare)"} <= set(table["at"])


def test_marks_of_thousands_are_stated(one_class):
    """As by --thousands in the command."""
    table = pd.DataFrame({"n": [f"{i}.{500 + i}" for i in range(1, 61)], "x": [0.5, 1.5] * 30})
    read = TableDensity(columns={"n": ("count", "thousands", ".")}, max_iter=1, random_state=0)
    read.fit(table)
    assert read._encoding.encode(table)[:2, 0].tolist() == [1501, 2502]
    assert read.sample(20, random_state=0)["n"].str.fullmatch(r"\d+\.\d{3}|\d{1,3}").all()
    for kind in (("count", "thousands"), ("count", "thousands", 3)):
        with pytest.raises(ValueError, match="mark that separates them is missing, as in"):
            TableDensity(columns={"n": kind}).fit(table)


def test_dates_in_either_order_are_pointed_out(one_class):
    table = messy_table().assign(day=["01/02/2024", "02/03/2024", "05/03/2024"] * 20)
    with pytest.warns(UserWarning, match="'day', such as '01/02/2024', .* month first, but may"):
        months = TableDensity(random_state=0).fit(table)
    days = TableDensity({"day": ("datetime", "dayfirst")}, random_state=0).fit(table)
    first = [density._encoding.encode(table)[0, 1] for density in (months, days)]
    assert first == [1704153600, 1706745600]


def test_detectors_take_texts_with_formats(one_class):
    table = messy_table()[["price", "at"]]
    detector = DensityOutlierDetector(random_state=0).fit(table)
    assert np.isfinite(detector.score_samples(table)).all()


def test_encoded_texts_are_of_the_same_encoding():
    table = messy_table()
    encoding, rows = Encoding.read(table)
    frame = Encoding.read(table.iloc[:5])[0]
    assert encoding.reads_like(frame) == (encoding.categories == frame.categories)
    pd.testing.assert_frame_equal(encoding.decode(rows), table, check_dtype=False)


def numbers_and_others(n_others):
    """Numbers as texts, of which some are written in other ways."""
    texts = [f"{60 + k / 4:g}" for k in range(100)]
    others = ["about 70", "70?", "<50", "~70", "unknown"]
    texts[50 : 50 + n_others] = (others * n_others)[:n_others]
    return texts


def test_a_few_other_texts_among_numbers_are_missing():
    texts = numbers_and_others(10)
    assert find_format(texts) is None
    found = find_format(texts, accepts_words=True)
    assert found.are_words([*texts, "about 71", "72.5"]).sum() == 11
    assert found.parse(["72.5"]) == [72.5]
    for others in (
        numbers_and_others(11),
        [*texts, "007"],  # a code
        [*texts[:20], "about 70"],  # few differ
    ):
        assert find_format(others, accepts_words=True) is None
    assert find_format(numbers_and_others(50), accepts_words=True, is_number=True) is not None


def test_other_texts_among_numbers_are_missing_in_tables_or_named():
    frame = pd.DataFrame({"weight": numbers_and_others(5), "x": np.arange(100.0)})
    text = "'about 70', '70\\?', '<50' and 2 more in 5 of 100 rows"
    with pytest.warns(ColumnWarning, match=text):
        encoding, rows = Encoding.read(frame)
    assert encoding.roles == ["number", "number"] and np.isnan(rows[:, 0]).sum() == 5
    frame["weight"] = numbers_and_others(30)
    encoding, rows = Encoding.read(frame)
    with pytest.warns(ColumnWarning, match="categories, since 'about 70' is not a number"):
        Schema(encoding, rows, random_state=np.random.RandomState(0))
    with pytest.warns(ColumnWarning, match="in 30 of 100 rows: read as missing"):
        _, rows = Encoding.read(frame, kinds={"weight": "continuous"})
    assert np.isnan(rows[:, 0]).sum() == 30
