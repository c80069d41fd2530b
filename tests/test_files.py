"""Messy files, in tests/files, go through all commands and keep their form."""

import csv
import io
import re
import shlex
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _tables import two_components  # noqa: F401 - a fixture

import skflows
from skflows import TableDensity
from skflows.cli import main
from skflows.cli._cells import likely_decimal
from skflows.cli._forms import common_offset, form_of_file
from skflows.cli._score import given_values
from skflows.cli._tables import CsvAppender

FOLDER = Path(__file__).parent / "files"
PRICE, DATE = r"-?\d{1,3}(\.\d{3})*,\d\d €", r"[0-3]\d\.[01]\d\.\d{4}"
US_DATE = r"1?\d/[1-3]?\d/\d{4}"
# Of each file: its encoding, a target, and how the cells of columns are written.
FILES = {
    "blanks_of_thousands": ("utf-8-sig", "Coût", {
        "Région": "Nord|Sud|Île", "Ventes": "-?\\d{1,3}(\u202f\\d{3})*",
        "Coût": "-?\\d{1,3}(\u202f\\d{3})*,\\d\\d",
    }),
    "brackets": ("utf-8", "balance", {
        "account": "rent|wages|sales", "balance": r"\d{1,3}(,\d{3})*|\(\d{1,3}(,\d{3})*\)",
        "budget": r"-?\d{1,3}(,\d{3})*|\(\d{1,3}(,\d{3})*\)",
    }),
    "codes": ("utf-8", "visits", {
        "zip": "01234|01250|20095|80331|.*rare.*", "country": "NA|DE|ZA", "visits": r"\d+",
    }),
    "decimals": ("utf-8", "fixed", {
        "fixed": r"-?\d+\.\d\d", "short": r"-?\d+(\.\d?[1-9])?", "bare": r"-?[1-9]*\.\d\d",
    }),
    "dollars": ("utf-8", "price", {
        "item": "sofa|desk, oak|bed", "price": r"-?\$\d{1,3}(,\d{3})*\.\d\d",
        "profit": r"-?\$\d{1,3}(,\d{3})*\.\d\d", "sold": r"[01]\d/[0-3]\d/\d{4}", "paid": "yes|no",
    }),
    "durations": ("utf-8", "run", {
        "run": r"\d+:\d\d:\d\d", "lap": r"-?\d+:\d\d", "rest": r"1 day|(0|[2-9]|\d\d) days",
        "flight": r"-?(\d+h|(\d+h )?[1-9]\d?m|0m)",
    }),
    "either_order": ("utf-8", "points", {"start": US_DATE, "end": US_DATE, "points": r"\d+"}),
    "empty_rows": ("utf-8", "a", {"a": r"-?\d+\.\d", "b": r"\d+", "kind": "x|y"}),
    "euros": ("cp1252", "Preis", {
        "Kunde": "Müller|Özil|Weiß", "Preis": PRICE, "Rabatt": r"-?\d+,\d %", "Datum": DATE,
        "Uhrzeit": r"[0-2]\d:[0-5]\d", "PLZ": "01005|01000|20095", "bezahlt": "ja|nein",
    }),
    "exponents": ("utf-8", "field", {
        "charge": r"-?\d\.\d{3}e[-+]\d\d", "field": r"-?\d\.\d\dE[-+]\d\d", "gas": "He|Ne|Ar",
    }),
    "iso": ("utf-8", "load", {
        "at": r"\d{4}-\d\d-\d\dT\d\d:\d\d", "day": r"\d{4}-\d\d-\d\d", "load": r"-?\d+\.\d",
    }),
    "latin_1": ("latin-1", "Größe", {
        "Größe": r"\d+,\d", "Straße": "Süd|Öst", "Alter": r"\d+",
    }),
    "months": ("utf-8", "wage", {
        "born": r"[1-3]?\d [A-Z][a-z]{2} \d{4}", "wage": r"-?CHF \d{1,3}('\d{3})*\.\d\d",
        "job": "cook|nurse",
    }),
    "percentages": ("utf-8", "return", {
        "fund": "A|B|C", "return": r"[-+]\d+\.\d %|0\.0 %", "share": r"-?\d+(\.[1-9])?%",
        "fee": r"-?\d+\.\d\d",
    }),
    "placeholders": ("utf-8", "income", {
        "income": r"-?\d+", "rate": r"-?\d+\.\d%", "kind": "old|new",
    }),
    "quoted": ("utf-8", "length", {
        "name": '5" pipe|hose, long|two\nlines', "length": r"-?\d+\.\d\d", "n": r"\d+",
    }),
    "r": ("utf-8", "z", {"kind": "a|b|c", "z": r"-?\d+\.\d{3}", "ok": "TRUE|FALSE", "n": r"\d+"}),
    "times": ("utf-8", None, {
        "opens": r"(1[0-2]|[1-9]):[0-5]\d [AP]M", "leaves": r"[0-2]\d:[0-5]\d:[0-5]\d",
        "shop": "north|south",
    }),
    "units": ("utf-8", "weight", {
        "weight": r"\d+\.\d kg", "height": r"\d+ cm", "outside": r"-?\d+\.\d °C", "sex": "f|m",
    }),
    "utf_16": ("utf-16", "цена", {
        "город": "Киев|Рига", "цена": PRICE, "число": r"\d+",
    }),
}  # fmt: skip
GAPS = ("", "NA", "-")
SEED = "--random-state 0"


def run(line):
    assert main(shlex.split(line)) == 0


def lines_of(path, encoding):
    """Return the header, and the lines of rows: a cell may contain a line break."""
    text = Path(path).read_bytes().decode(encoding)
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("two\nlines", "two\x00lines").split(end)
    assert lines[-1] == ""
    lines = [line.replace("\x00", "\n") for line in lines if line]
    return lines[0], lines[1:]


def cells_of(lines, encoding):
    sep = max(";\t|,", key=lines[0].count)
    return list(csv.reader(lines, delimiter=sep))


def test_each_file_is_tested():
    assert {path.stem for path in FOLDER.glob("*.csv")} == FILES.keys()


def test_what_cells_leave_open_is_stated(tmp_path, monkeypatch, capsys, one_class):
    monkeypatch.chdir(tmp_path)
    shutil.copy(FOLDER / "either_order.csv", "data.csv")
    fit = f"fit data.csv -o m.skflows --max-iter 1 {SEED}"
    for options, first, is_warned in (
        ("", "month", True),
        ("--dayfirst", "day", False),
        ("--monthfirst", "month", False),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            run(f"{fit} {options}")
        err = capsys.readouterr().err
        assert err.count(f"dates ({first} first), such as '") == 2
        assert ("warning: column 'start'" in err) == is_warned
        assert ("add --dayfirst if it does" in err) == is_warned
        (moment,) = skflows.load("m.skflows")._encoding.encode(pd.DataFrame(
            {"start": [pd.Timestamp(2024, 10, 5)], "end": [None], "points": [None]}
        ))[:, 0]  # fmt: skip
        assert moment == pd.Timestamp(2024, 10, 5).timestamp()
        run("impute m.skflows data.csv -o full.csv")
    numbers = ["1.500", "22.250", "310.000"] * 20
    pd.DataFrame({"n": numbers, "x": range(60)}).to_csv("n.csv", sep=";", index=False)
    means = []
    for option in ("", "--decimal ,", "--thousands ."):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(
                f"fit n.csv -o m.skflows --max-iter 1 --estimator table --exclude x {option} {SEED}"
            )
            run("sample m.skflows -n 30 -o drawn.csv")
        drawn = Path("drawn.csv").read_text().splitlines()[1:]
        assert all(re.fullmatch(r"-?\d{1,3}(\.\d{3})+|\d+", cell) for cell in drawn)
        means.append(max(skflows.load("m.skflows").sample(30, random_state=0)["n"]))
    assert means[0] < 1_000 < 100_000 < means[1] == means[2]
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        run("score m.skflows n.csv -o scores.csv")
    assert "separates thousands" not in capsys.readouterr().err
    assert main(shlex.split("fit n.csv -o m.skflows --thousands . --decimal .")) == 2
    assert "'.' cannot be both the decimal mark and" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(shlex.split("fit n.csv -o m.skflows --thousands x"))
    message = "'x' is no mark of thousands: give '.', ',', \"'\", '\u2019' or a blank"
    assert message in capsys.readouterr().err


def test_kinds_are_stated(tmp_path, monkeypatch, capsys, one_class):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"zip": [1000, 2000, 3000] * 20, "share": [0.1, 0.2, 0.7] * 20})
    table.to_csv("t.csv", index=False)
    run(f"fit t.csv -o m.skflows --max-iter 1 --kind share=atoms,0.1,0,1 {SEED}")
    assert skflows.load("m.skflows").columns_["kind"][1] == "atoms"
    kinds = "--kind zip=categorical --kind share=bounded,0,1"
    run(f"fit t.csv -o m.skflows --max-iter 1 {kinds} {SEED}")
    density = skflows.load("m.skflows")
    assert density.columns_["kind"].tolist() == ["categorical", "bounded"]
    assert density.levels("zip")[:3] == ["1000", "2000", "3000"]
    run("sample m.skflows -n 9 -o drawn.csv")
    assert set(pd.read_csv("drawn.csv")["zip"]) <= {1000, 2000, 3000}
    for line in ("impute m.skflows t.csv --kind zip=count", "score m.skflows t.csv --dayfirst"):
        with pytest.raises(SystemExit):
            main(shlex.split(line))
        assert "give this option to skflows fit" in capsys.readouterr().err
    monkeypatch.setattr("skflows.cli._outliers.QUICK", {"time_limit": None, "cv": 2})
    run(f"outliers t.csv -o flagged.csv --quick {kinds} {SEED}")
    capsys.readouterr()
    for option, message in (
        ("--kind zip=list", "'zip=list' is not COLUMN=KIND, where KIND is one of continuous, "),
        ("--kind zip", "'zip' is not COLUMN=KIND"),
        ("--kind zip=count --estimator nsf", "--kind is for --estimator table, not for nsf"),
        ("--kind zip=count --memory-limit 1kB", "--kind is for --estimator table, not for nsf"),
        ("--kind sal=count", "--kind sal=...: t.csv has no such column; it has 'zip', 'share'"),
        ("--target zip --kind sal=categorical", "--kind sal=...: t.csv has no such column"),
        ("--target zip --exclude zip", "--target zip is left out by --exclude or --id"),
    ):
        with pytest.raises(SystemExit) if "COLUMN=KIND" in message else nullcontext():
            assert main(shlex.split(f"fit t.csv -o m.skflows {option}")) == 2
        assert message in capsys.readouterr().err


def test_times_of_files_are_decided_as_times_of_tables(tmp_path, monkeypatch, one_class):
    """No reader of `columns_` has stated them."""
    monkeypatch.chdir(tmp_path)
    times = [f"{i % 12 + 1}:{i:02d} {'AP'[i % 2]}M" for i in range(60)]
    table = pd.DataFrame({"at": times, "x": [i**2 % 61 / 7 for i in range(60)]})
    table.to_csv("t.csv", index=False)
    run(f"fit t.csv -o m.skflows --max-iter 1 --estimator table {SEED}")
    expected = skflows.TableDensity(handle_unknown="rare", max_iter=1, random_state=0).fit(table)
    decided = skflows.load("m.skflows").columns_
    assert decided["reason"][0].startswith("times of day as texts, such as '1:00 AM'")
    pd.testing.assert_frame_equal(decided, expected.columns_)


def test_rows_are_drawn_given_values_as_they_are_written(tmp_path, monkeypatch, capsys, one_class):
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=60)
    table = pd.DataFrame({"dept": ["IT", "Ops", "HR"] * 20, "hired": days.strftime("%Y-%m-%d")})
    table["left"] = (days + pd.to_timedelta([i * i % 7 for i in range(60)], "D")).strftime(
        "%d.%m.%Y"
    )
    table["pay"] = [f"{3 + i % 7}.{i:03d},50 €" for i in range(60)]
    table["share"] = [f"{i / 7:.3f}".replace(".", ",") for i in range(60)]
    table["code"] = [10, 20, 30] * 20
    table.to_csv("t.csv", sep=";", index=False)
    run(f"fit t.csv -o m.skflows --max-iter 1 --kind code=categorical {SEED}")
    capsys.readouterr()
    given = "dept=Ops", "hired=2024-01-05", "left=06.01.2024", "pay=5.000,50 €", "share=0,125"
    given = *given, "code=20"
    run(f"sample m.skflows -n 5 -o drawn.csv {' '.join(f'--given {each!r}' for each in given)}")
    _, rows = lines_of("drawn.csv", "utf-8")
    assert rows == [";".join(each.partition("=")[2] for each in given)] * 5
    run(f"sample m.skflows -n 20 -o some.csv --given dept=HR {SEED}")
    drawn = pd.read_csv("some.csv", sep=";")
    assert set(drawn["dept"]) == {"HR"} and drawn["share"].nunique() > 9
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        run(
            f"sample m.skflows -n 2 -o some.csv --given dept=ops --given pay=9e9 {SEED}"
        )  # as in Python
    assert set(pd.read_csv("some.csv", sep=";")["dept"]) == {"ops"}
    err = capsys.readouterr().err
    message = "given dept=ops: the fit has not seen this value, which says little or nothing about"
    assert message in err and "other columns; did you mean 'Ops'? it has seen 'HR', " in err
    assert "--given pay=9000000000: far from its values in fit: " in err
    table.loc[1, "pay"] = "3.0oo,50 €"
    table.to_csv("t.csv", sep=";", index=False)
    assert main(shlex.split("score m.skflows t.csv")) == 2
    message = "'3.0oo,50 €' in column 'pay', row 2, which held amounts such as '3.000,50 €' in fit"
    assert message in capsys.readouterr().err
    table["pay"] = table.loc[0, "pay"]
    table.to_csv("t.csv", sep=";", index=False)
    for option, message in (
        ("dep=Ops", "--given dep=Ops: the model has no such column; it has 'dept', 'hired', "),
        ("pay=much", "the column held amounts such as '5.9"),
        ("share=much", "the column held numbers such as '4,"),
        ("left=soon", "the column held dates (day first) such as '2"),
        ("pay='5.000,505 €'", "in fit, and this would be written as 5.000,51 €: give such a value"),
        (
            "hired=soon",
            "hired=soon: the column held dates in fit: write it as in 2024-12-31",
        ),
        ("share=", "'share=' is not COLUMN=VALUE"),
    ):
        with pytest.raises(SystemExit) if "COLUMN" in message else nullcontext():
            assert main(shlex.split(f"sample m.skflows -o none.csv --given {option}")) == 2
        assert message in capsys.readouterr().err
        assert not Path("none.csv").exists()
    run(f"fit t.csv -o m.skflows --max-iter 1 --estimator nsf --columns share {SEED}")
    assert main(shlex.split("sample m.skflows --given share=1")) == 2
    assert "--given needs a model by --estimator table" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_samples_write_missing_cells_as_the_file(tmp_path, monkeypatch, one_class):
    """Columns without a value are in samples too, without a value."""
    monkeypatch.chdir(tmp_path)
    is_missing = [i % 3 == 0 for i in range(90)]
    columns = {
        "none": ["NA"] * 90,
        "n": ["NA" if gap else i % 7 for i, gap in enumerate(is_missing)],
        "pay": ["-" if gap else f"${1000 + 37 * i:,}" for i, gap in enumerate(is_missing)],
        "due": ["open" if i % 12 == 1 else f"{i % 28 + 1}.5.2024" for i in range(90)],
        "kind": ["" if gap else "abc"[i % 3] for i, gap in enumerate(is_missing)],
        "": [""] * 90,
    }
    lines = [
        ",".join(columns),
        *(",".join(map(str, each)) for each in zip(*columns.values(), strict=True)),
    ]
    Path("t.csv").write_text(re.sub(r"(\$\d,\d+)", r'"\1"', "\n".join(lines)))
    run(f"fit t.csv -o m.skflows --max-iter 1 {SEED}")
    run(f"sample m.skflows -n 60 -o drawn.csv {SEED}")
    header, rows = lines_of("drawn.csv", "utf-8")
    assert header == "none,n,pay,due,kind,"
    texts = [set(each) for each in zip(*cells_of([header, *rows], "utf-8")[1:], strict=True)]
    assert texts[0] == {"NA"} and texts[-1] == {""}
    missing = [{cell for cell in each if not re.search(r"[\dabc]", cell)} for each in texts[1:-1]]
    assert missing == [{"NA"}, {"-"}, {"open"}, {""}]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_messy_files_keep_their_form(tmp_path, monkeypatch, one_class, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skflows.cli._outliers.QUICK", {"time_limit": None, "cv": 2})
    encoding, target, patterns = FILES[name]
    shutil.copy(FOLDER / f"{name}.csv", "data.csv")
    header, rows = lines_of("data.csv", encoding)
    names = cells_of([header], encoding)[0]
    id = "--id id" if "id" in names else ""

    run(f"fit data.csv -o m.skflows --max-iter 1 --estimator table {id} {SEED}")
    run(f"sample m.skflows -n 40 -o drawn.csv {SEED}")
    drawn_header, drawn = lines_of("drawn.csv", encoding)
    assert id or drawn_header == header
    assert len(drawn) == 40
    drawn_names, *cells = cells_of([drawn_header, *drawn], encoding)
    columns = dict(zip(drawn_names, zip(*cells, strict=True), strict=True))
    cells = cells_of([header, *rows], encoding)[1:]
    of_file = dict(zip(names, zip(*cells, strict=True), strict=True))
    for column, pattern in patterns.items():
        others = {cell for cell in columns[column] if not re.fullmatch(pattern, cell)}
        assert others <= {*GAPS} & {*of_file[column]}, (column, others)

    run(f"impute m.skflows data.csv -o full.csv {SEED}")
    full_header, full = lines_of("full.csv", encoding)
    assert full_header == header and len(full) == len(rows)
    n_filled = 0
    for before, after in zip(rows, full, strict=True):
        old, new = cells_of([before, after], encoding)
        for column, was, now in zip(names, old, new, strict=True):
            is_filled = (
                was in GAPS and column in patterns and not (column, was) == ("country", "NA")
            )
            assert now == was if not is_filled else re.fullmatch(patterns[column], now)
            n_filled += is_filled
        assert after == before or old != new
    assert n_filled

    run("score m.skflows data.csv -o scores.csv")
    assert len(lines_of("scores.csv", encoding)[1]) == len(rows)

    run(f"outliers data.csv -o flagged.csv --quick {id} {SEED}")
    flagged_header, flagged = lines_of("flagged.csv", encoding)
    for before, after in zip([header, *rows], [flagged_header, *flagged], strict=True):
        assert after.startswith(before)

    if target is not None:
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        run(f"fit data.csv -o p.skflows --target {target} --max-iter 1 {id} {SEED}")
        run("predict p.skflows data.csv -o predicted.csv")
        predicted = cells_of(lines_of("predicted.csv", encoding)[1], encoding)
        assert len(predicted) == len(rows)
        if target in skflows.load("p.skflows")._file_form["formats"]:
            pattern = f"(?:{patterns[target]})|-?inf"
            assert [c for row in predicted for c in row if not re.fullmatch(pattern, c)] == []


@pytest.mark.filterwarnings("default")
def test_words_among_numbers_of_later_files_are_missing(tmp_path, monkeypatch, capsys, one_class):
    """With a warning, unless the fit has said so; digits may be a mistyped number."""
    monkeypatch.chdir(tmp_path)
    rows = [[f"{20 + i % 41}.5", f"${100 + 7 * i}"] for i in range(60)]
    rows[3][1] = "k.A."
    days = pd.date_range("2024-01-01", periods=60).strftime("%d.%m.%Y")
    paid = ["yes", "no"] * 30
    rows = [[*row, day, each] for row, day, each in zip(rows, days, paid, strict=True)]

    def write(path, rows):
        lines = ["age,fee,day,paid", *(",".join(row) for row in rows)]
        Path(path).write_text("\n".join(lines) + "\n")

    write("t.csv", rows)
    run(f"fit t.csv -o m.skflows --max-iter 1 --estimator table {SEED}")
    assert "'k.A.' in 1 row: read as missing" in capsys.readouterr().err
    rest = ["05.01.2024", "yes"]
    words = [["k.A.", "$107", *rest], ["21.5", "unknown", "k.A.", "no"], ["-", "$114", *rest]]
    write("words.csv", words)
    run("impute m.skflows words.csv -o filled.csv")
    messages = capsys.readouterr().err
    assert "column 'age' of words.csv holds 'k.A.' among numbers: read as missing" in messages
    assert "column 'fee' of words.csv holds 'unknown' among amounts: read as missing" in messages
    assert "column 'day' of words.csv holds 'k.A.' among dates (day first)" in messages
    filled = pd.read_csv("filled.csv")
    assert filled["paid"].tolist() == ["yes", "no", "yes"]
    assert filled["age"].between(20, 61).all() and filled["fee"].str.match(r"\$\d+").all()
    write("gaps.csv", [["", "$107", *rest], ["21.5", "", "", "no"], ["", "$114", *rest]])
    for name in ("words", "gaps"):
        run(f"score m.skflows {name}.csv -o scores_of_{name}.csv")
    assert Path("scores_of_words.csv").read_text() == Path("scores_of_gaps.csv").read_text()
    write("typo.csv", [["2o.5", "$107", *rest]])
    assert main(["score", "m.skflows", "typo.csv"]) == 2
    assert "typo.csv holds '2o.5' in column 'age', row 1" in capsys.readouterr().err
    write("names.csv", [["abcdefg"[i % 7] * 3, "$107", *rest] for i in range(20)])
    assert main(["score", "m.skflows", "names.csv"]) == 2
    assert "and 2 more in column 'age', which held numbers in fit" in capsys.readouterr().err


def test_offsets_from_utc_and_empty_columns_keep_their_form():
    when = ["2025-03-01T06:00:00+01:00", "2025-03-02T06:30:05+01:00"]
    head = f"when;x;note\n{when[0]};1,5;\n{when[1]};NA;\n"
    form = form_of_file(head, ";", ",", "utf-8")
    dates = pd.Series(pd.to_datetime(when))
    frame = pd.DataFrame({"when": dates, "x": [1.5, np.nan], "note": [np.nan, np.nan]})
    text = io.StringIO()
    CsvAppender(text, form)(frame)
    assert text.getvalue() == head
    text = io.StringIO()
    CsvAppender(text, form)(frame.assign(when=pd.to_datetime(["2025-07-01T06:00+02:00"] * 2)))
    assert text.getvalue().splitlines()[1].startswith("2025-07-01T05:00:00+01:00")
    assert common_offset(["12:30", "2025-03-01T06:00:00+01:00"]) is None


def test_a_given_date_is_asked_for_as_in_the_table():
    when = pd.Timestamp("2025-03-01", tz="Europe/Berlin") + pd.to_timedelta(np.arange(60), "D")
    density = TableDensity(max_iter=1, cv=2, random_state=0).fit(pd.DataFrame({"when": when}))
    with pytest.raises(ValueError, match=r"write it as in 2024-12-31T18:30\+01:00$"):
        given_values(density, {"when": "soon"})


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["60,21 €"], ","),
        (["€ 1.060,2"], ","),
        (["5,5%", "a"], ","),
        (["60,21 €", "3.5"], "."),
        (["Room 5,2", "60 €"], "."),
        (["$ 60.50", "5,5 %"], "."),
    ],
)
def test_amounts_tell_the_decimal_mark_where_no_number_does(cells, mark):
    assert likely_decimal([["x"], *([cell] for cell in cells)], ";") == mark
