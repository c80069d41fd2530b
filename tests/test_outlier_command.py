"""The command ``skflows outliers``: flags, explanations and the report."""

import re
import shlex
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from _tables import two_components  # noqa: F401 - a fixture

from skflows import TableDensity
from skflows.cli import main
from skflows.cli._forms import FileForm
from skflows.cli._outliers import QUICK, TABLE_SECONDS, judged_columns
from skflows.cli._parser import make_parser
from skflows.cli._progress import print_status
from skflows.cli._report import amount_text, doubt_about_bulk, text_as, value_text, verdict
from skflows.columns.formats import ClockFormat, DateFormat, NumberFormat

SEED = "--random-state 0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Change to a directory with a clean table and one with outliers."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    clean, odd = (
        pd.DataFrame(rng.standard_normal((n, 3)), columns=["a", "<b>", "c"]) for n in (300, 120)
    )
    odd.loc[[7, 50], "<b>"] = [9.0, -8.0]
    clean.to_csv("clean.csv", index=False)
    odd.to_csv("odd.csv", index=False)
    return tmp_path


def check_page(text):
    """Check that a report names the planted value, escaped, and loads no resource."""
    assert "&lt;b&gt; = 9" in text
    assert "<b>" not in text
    # The planted cell is coloured, and the columns can be sorted by.
    assert re.search("<td class='number odd' data-value='9.0'>9", text)
    assert "<button>&lt;b&gt;</button>" in text and "Most often odd: &lt;b&gt; (" in text
    # Reasons come before the values, which are wider than a screen.
    assert text.index("<td class='why'>") < text.index("<td class='number odd'")
    assert "Scores of all rows; rows below the line are flagged." in text
    # The page is self-contained: it includes every picture.
    assert len(re.findall(r"src='data:image/png;base64,", text)) == text.count("<img ") > 2
    assert "http" not in text


# The report of a table without a reference is read below.
@pytest.mark.parametrize("more", ["", "--reference clean.csv --report r.html"])
def test_planted_outliers_are_flagged_with_their_abnormal_column(folder, capsys, more):
    line = f"outliers odd.csv -o flagged.csv --fdr 0.3 {SEED} {more}"
    assert main(shlex.split(line)) == 0
    table = pd.read_csv("flagged.csv")
    assert len(table) == 120
    assert table.loc[[7, 50], "outlier"].tolist() == [1, 1]
    assert table.loc[[7, 50], "oddest_column"].tolist() == ["<b>", "<b>"]
    assert table["outlier"].sum() <= 6
    assert set(table["oddest_column"]) == {"a", "<b>", "c"}  # given for every row
    assert f"flagged {table['outlier'].sum()} of 120 rows" in capsys.readouterr().out
    if "--report" in more:
        check_page((folder / "r.html").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:Some rows have the smallest")
def test_a_terminal_shows_a_progress_bar_of_a_table(
    tmp_path, monkeypatch, capsys, on_terminal, one_class
):
    pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skflows.cli._outliers.QUICK", {"time_limit": None, "cv": 2})
    x = np.random.default_rng(0).normal(size=60)
    pd.DataFrame({"x": x, "kind": ["a", "b"] * 30}).to_csv("t.csv", index=False)
    on_terminal()
    assert main(shlex.split(f"outliers t.csv -o f.csv --quick {SEED}")) == 0
    assert "DensityOutlierDetector - fit" in capsys.readouterr().out


@pytest.mark.filterwarnings("default:Some rows have the smallest", "default:columns of prices.csv")
def test_without_flags_the_oddest_rows_are_printed(folder, capsys, monkeypatch, one_class):
    """With their values as they are written, and whatever a column of free text holds."""
    monkeypatch.setattr("skflows.cli._outliers.QUICK", {"time_limit": None, "cv": 2})
    rng = np.random.default_rng(0)
    prices = [f"${x:,.2f}" for x in rng.normal(500, 50, 60)]
    notes = [f"note {i} " + "that goes on and on " * 9 for i in range(50)] + ["ok"] * 10
    table = pd.DataFrame({"price": prices, "kind": ["a", "b"] * 30, "note": notes})
    table.loc[7, "price"] = "$655.00"
    table.to_csv("prices.csv", index=False)
    assert main(shlex.split(f"outliers prices.csv -o f.csv --quick --fdr 1e-9 {SEED}")) == 0
    out, err = capsys.readouterr()
    assert "left out: 'note'; to use their texts, group them, or add --kind COLUMN=cat" in err
    assert "flagged 0 of 60 rows" in out and "--reference" in out
    _, lines = out.split("the oddest rows:\n")
    lines = [line for line in lines.splitlines() if line.startswith("  row ")]
    assert len(lines) == 5
    assert re.match(r"  row 8 \(p [=<] [\d.e-]+\): price = \$655\.00", lines[0])
    assert "note =" not in "".join(lines)
    assert "note" not in pd.read_csv("f.csv")["oddest_column"].tolist()
    line = f"outliers odd.csv --reference clean.csv --fdr 1e-9 {SEED}"
    (folder / "f.csv").unlink()
    assert main(shlex.split(line)) == 0  # and nothing is written
    out, err = capsys.readouterr()
    assert " rows, --fdr 1e-09 needs " in err and ". Give more rows by --reference.\n" in err
    assert not (folder / "f.csv").exists() and out.startswith("odd.csv: flagged 0 of 120 rows")
    assert out.count("  row ") == 5 and "--reference" not in out
    assert "or allow more false flags by a higher --fdr\n" in out


def test_texts_that_the_user_calls_categories_are_judged():
    table = pd.DataFrame({"x": np.arange(60) % 7, "note": [f"note {i}" for i in range(60)]})
    args = make_parser().parse_args(["outliers", "notes.csv", "--kind", "note=categorical"])
    frame, is_table = judged_columns(args, table, None)
    assert [*frame] == ["x", "note"] and is_table


def test_wide_table_has_reasons_by_simpler_densities(folder, capsys, monkeypatch):
    monkeypatch.setattr("skflows.cli._outliers.MAX_EXPLAINED", 0)
    line = f"outliers odd.csv -o flagged.csv --fdr 0.3 {SEED} --report r.html"
    assert main(line.split()) == 0
    table = pd.read_csv("flagged.csv")
    assert table.loc[[7, 50], "oddest_column"].tolist() == ["<b>", "<b>"]
    assert table["odd_only_with"].isna().all()
    n_flags = table["outlier"].sum()
    assert f"for {n_flags} of these rows, the oddest columns are" in capsys.readouterr().out
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert "&lt;b&gt; = 9" in page
    assert "too many columns to compute their contributions" in page


def test_table_with_a_column_of_the_output_is_an_error(folder, capsys):
    pd.read_csv("odd.csv").assign(outlier=1).to_csv("taken.csv", index=False)
    assert main(["outliers", "taken.csv", "-o", "flagged.csv"]) == 2
    assert "has a column 'outlier'" in capsys.readouterr().err


def test_output_that_is_an_input_or_the_report_is_an_error(folder, capsys):
    assert main(["outliers", "odd.csv", "-o", "odd.csv"]) == 2
    assert "odd.csv is an input" in capsys.readouterr().err
    assert main(["outliers", "odd.csv", "-o", "same", "--report", "same"]) == 2
    assert "same is given for both the output and the report" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["", "--quick"])
def test_texts_and_gaps_are_judged_too(folder, capsys, monkeypatch, option):
    made = []

    def small(**params):
        made.append(params)
        return TableDensity(**{**params, "cv": 2, "max_iter": 5, "n_orders": 1})

    monkeypatch.setattr("skflows.cli._outliers.TableDensity", small)
    table = pd.read_csv("odd.csv")
    table.insert(0, "kind", np.where(table["a"] > table["a"].median(), "high", "low"))
    table.loc[3, "a"] = np.nan
    table.loc[[4, 9], "c"] = np.nan
    table.to_csv("mixed.csv", index=False)
    line = f"outliers mixed.csv -o flagged.csv --fdr 0.3 {SEED} --report r.html {option}"
    assert main(line.split()) == 0
    out, err = capsys.readouterr()
    assert "of 120 rows, with at most 0.3 of the flags false" in out
    announced = "120 rows of 4 columns, which takes up to a minute (--quick takes under 20 seconds)"
    assert (announced in err) == (option == "")
    chosen = QUICK if option else {"time_limit": TABLE_SECONDS, "n_jobs": -1}
    assert made[0] == {
        "columns": None,
        "handle_unknown": "rare",
        "missing": "model",
        "random_state": 0,
        **chosen,
    }
    flagged = pd.read_csv("flagged.csv")
    pd.testing.assert_frame_equal(flagged[[*table]], table)
    assert flagged[["score", "p_value", "outlier", "oddest_column"]].notna().all(axis=None)
    assert flagged.loc[[7, 50], "oddest_column"].tolist() == ["<b>", "<b>"]
    assert flagged["p_value"].rank()[[7, 50]].max() <= 6
    page = (folder / "r.html").read_text(encoding="utf-8")
    check_page(page)
    assert "A score is a log-density" in page


@pytest.mark.filterwarnings("default:The column 'day' holds dates")
def test_dates_as_texts_are_pointed_out_once(folder, capsys, monkeypatch, one_class):
    quick = {"time_limit": None, "cv": 2}
    monkeypatch.setattr("skflows.cli._outliers.QUICK", quick)
    table = pd.read_csv("odd.csv")[:60]
    table["day"] = pd.date_range("2024-01-01", periods=60).strftime("%d/%m/%Y")
    table.loc[5, "day"] = "6 Jan 2024"  # of another format
    table.to_csv("dates.csv", index=False)
    assert main(shlex.split(f"outliers dates.csv -o flagged.csv --quick {SEED}")) == 0
    assert capsys.readouterr().err.count("'day' holds dates as texts, such as '01/01/2024'") == 1


@pytest.mark.filterwarnings("default:.*left out:UserWarning", "ignore:Some rows have the smallest")
def test_reference_rows_with_missing_values_are_left_out(folder, capsys):
    clean = pd.read_csv("clean.csv")
    clean.loc[:9, "a"] = np.nan
    clean.to_csv("holes.csv", index=False)
    line = f"outliers odd.csv -o flagged.csv --reference holes.csv {SEED}"
    assert main(line.split()) == 0
    assert "10 of 300 rows of holes.csv have missing values" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:.*has not seen:UserWarning", "ignore:Some rows have the sm")
def test_categories_that_the_reference_lacks(folder, capsys, one_class):
    """They are named; a number in a column of texts is one of them."""
    rng = np.random.default_rng(0)
    known, new = (
        pd.DataFrame({"a": rng.normal(size=n), "kind": rng.choice(["x", "y"], n)}) for n in (90, 30)
    )
    known["code"] = np.where(known["kind"] == "x", "1", "B")
    new["code"] = "1"
    new.loc[3, "kind"] = "zebra"
    known.to_csv("known.csv", index=False)
    new.to_csv("new.csv", index=False)
    line = f"outliers new.csv -o flagged.csv --reference known.csv {SEED}"
    assert main(line.split()) == 0
    assert "'kind' has 1 value that the fit has not seen" in (err := capsys.readouterr().err)
    assert "'zebra'" in err and "'code'" not in err


def test_columns_without_a_known_value_are_an_error(folder, capsys):
    pd.read_csv("odd.csv").assign(a=np.nan, b=np.nan).to_csv("bad.csv", index=False)
    assert main(["outliers", "bad.csv", "-o", "flagged.csv", "--columns", "a,b"]) == 2
    assert "have no known value" in capsys.readouterr().err
    assert not (folder / "flagged.csv").exists()


@pytest.mark.filterwarnings("always")
def test_identifiers_are_pointed_out_once(folder, capsys, one_class):
    """By the columns of the file, not by the detector again."""
    table = pd.DataFrame({"number": np.arange(60), "kind": ["a", "b", "c"] * 20})
    table.to_csv("numbered.csv", index=False)
    assert main(f"outliers numbered.csv -o flagged.csv --quick {SEED}".split()) == 0
    assert capsys.readouterr().err.count("seem to identify rows: 'number'") == 1


def test_small_deviations_of_p_values_are_no_doubt():
    p_values = (np.arange(50_000) + 0.5) / 50_000
    assert doubt_about_bulk(p_values**1.05) == ""
    assert "not uniform" in doubt_about_bulk(p_values**3)


@pytest.mark.parametrize(
    ("n_flags", "fdr", "sentence"),
    [
        (1, 0.05, "1 of 100 rows is odd enough to check</strong>. Expect that fewer than 1 of"),
        (30, 0.1, "30 of 100 rows are odd enough to check</strong>. Expect that about 3 or fewer"),
    ],
)
def test_verdict_of_a_report(n_flags, fdr, sentence):
    found = SimpleNamespace(
        outlier=np.arange(100) < n_flags,
        scores=np.zeros(100),
        fdr=fdr,
        reference=None,
        frame=pd.DataFrame({"x": np.zeros(100)}),
        contributions=-np.ones((100, 1)),
    )
    assert sentence in verdict(found)


def test_values_of_a_report():
    """Dates have a clock if the column does, and numbers the decimals of the column."""
    days = pd.Series(pd.to_datetime(["2024-01-05", "2024-01-08", None]))
    day, moment = value_text(days), value_text(days + pd.Timedelta("90min"))
    quantile = days.quantile(0.1)
    assert [day(quantile), moment(quantile)] == ["2024-01-05", "2024-01-05 07:12"]
    money = value_text(pd.Series([1234.5, 7.25, np.nan]))
    assert [money(1234.5678), money(np.nan)] == ["1234.57", "missing"]
    assert value_text(pd.Series([0.5, np.pi]), ",")(np.pi) == "3,14159"
    assert value_text(pd.Series([1, None], dtype="Int64"))(pd.NA) == "missing"


def test_status_is_printed_only_on_a_terminal(on_terminal, capsys):
    print_status("to a file")
    on_terminal()
    print_status("to a terminal")
    assert capsys.readouterr().out == "to a terminal\n"


def test_true_and_false_with_gaps_are_those_of_the_reference(folder, one_class):
    rng = np.random.default_rng(0)
    for name, n in (("known", 60), ("new", 30)):
        table = pd.DataFrame({"x": rng.normal(size=n), "ok": rng.uniform(size=n) < 0.5})
        table["ok"] = table["ok"].astype(object).where(np.arange(n) % 10 > 0)
        table.to_csv(folder / f"{name}.csv", index=False)
    line = f"outliers new.csv -o flagged.csv --reference known.csv --quick --fdr 0.9 {SEED}"
    assert main(line.split()) == 0
    assert len(pd.read_csv(folder / "flagged.csv")) == 30


def test_reference_that_is_the_data_is_an_error(folder, capsys):
    """Rows that the density was fitted to cannot be told from normal ones."""
    (folder / "copy.csv").write_bytes((folder / "odd.csv").read_bytes())
    for reference in ("odd.csv", "copy.csv"):
        line = f"outliers odd.csv -o flagged.csv --reference {reference} {SEED}"
        assert main(shlex.split(line)) == 2
        assert f"{reference} is the data table itself" in capsys.readouterr().err
    assert not (folder / "flagged.csv").exists()


def test_reasons_come_from_a_model_that_has_not_seen_the_odd_value(
    tmp_path, monkeypatch, capsys, on_terminal
):
    """One that has seen it learns it, and gives the shares of the other columns."""
    monkeypatch.chdir(tmp_path)
    on_terminal()
    rng, n = np.random.default_rng(0), 150
    table = pd.DataFrame({"kind": rng.choice(["dog", "cat"], n), "age": rng.poisson(4, n)})
    table["weight"] = np.where(table["kind"] == "dog", 18, 4) * rng.lognormal(0, 0.2, n)
    table["price"] = 40 * rng.lognormal(0, 0.3, n)
    table.loc[7, "price"] = 0.45
    table.round(2).to_csv("visits.csv", index=False)
    assert main(f"outliers visits.csv -o flagged.csv --quick {SEED}".split()) == 0
    flagged = pd.read_csv("flagged.csv")
    assert flagged["outlier"].tolist() == [i == 7 for i in range(n)]
    assert flagged.loc[7, "oddest_column"] == "price"
    first, _, second = capsys.readouterr().out.partition("finding the odd columns of 150 rows ...")
    assert all("DensityOutlierDetector - fit" in out and "100%" in out for out in (first, second))


def test_rows_have_names_in_the_report(folder):
    table = pd.read_csv("odd.csv")
    # As the command writes a name that a spreadsheet would run.
    table.assign(**{"'@id": [f"<n{i}>" for i in range(120)]}).to_csv("named.csv", index=False)
    line = f"outliers named.csv -o flagged.csv --id @id --report r.html --fdr 0.3 {SEED}"
    assert main(shlex.split(line)) == 0
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert "<td class='number'>&lt;n7&gt;</td>" in page
    assert "Rows have the names of the column @id." in page


def test_report_writes_values_as_the_file_does(folder):
    rng = np.random.default_rng(0)
    price = rng.normal(30, 3, 150).round(2)
    price[7] = 1300.0
    days = pd.date_range("2025-03-01", periods=150).strftime("%d.%m.%Y")
    cells = [f"{x:,.2f} €".translate(str.maketrans(",.", ".,")) for x in price]
    hours = [f"{x:.2f}".replace(".", ",") for x in rng.uniform(0, 9, 150)]
    table = pd.DataFrame({"price": cells, "day": days, "year": [2001, 2002] * 75, "hours": hours})
    table.to_csv("orders.csv", index=False, sep=";")
    assert main(shlex.split(f"outliers orders.csv --report r.html --quick {SEED}")) == 0
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert "price = 1.300,00 €" in page
    assert ">2001</td>" in page and f">{hours[7]}</td>" in page
    numbers = re.findall(r"<td class='number[^>]*>([-\d.,]+)", page)
    assert not [number for number in numbers if "." in number and "," not in number]
    form = FileForm(decimal=",", formats={"day": DateFormat("%d.%m.%Y")})
    dates = pd.Series(pd.to_datetime(["2024-12-31", None]))
    assert text_as(form, "day", dates)(dates[0]) == "31.12.2024"
    assert text_as(form, "day", dates)(dates[1]) == "missing"


def test_more_digits_than_the_first_lines_show_are_written():
    form = FileForm(decimal=",", styles={"x": NumberFormat(decimal=",")})
    for values, shown in ([1.0, 2.0], "2"), ([1.0, 2.5], "2,5"), ([1, np.pi], "3,14159"):
        assert text_as(form, "x", pd.Series(values))(values[1]) == shown
    assert text_as(form, "x", pd.Series([None], dtype=float))(2.5) == "2,5"


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (None, ["54100", "-0,0123", "0,00", "inf"]),
        (NumberFormat(decimal=",", thousands="."), ["54.100", "-0,0123", "0,00", "inf"]),
        (
            NumberFormat("{} €", "-{} €", "{} €", decimal=",", thousands=".", decimals=2),
            ["54.100,00 €", "-0,0123 €", "0,00 €", "inf"],
        ),
        (ClockFormat(is_time=True), ["54100", "-0,0123", "0,00", "inf"]),
    ],
)
def test_amounts_of_a_report(format, expected):
    form = FileForm(decimal=",", formats={} if format is None else {"x": format})
    assert [*map(amount_text(form, "x"), [54100.0, -0.0123, 0.0, np.inf])] == expected


def test_report_names_combinations_and_leaves_identifiers_alone(folder):
    rng = np.random.default_rng(0)
    ram = rng.choice([2, 4, 8, 16], 400) * 1.0
    disk = np.round(100 * ram * np.exp(0.3 * rng.standard_normal(400)))
    table = pd.DataFrame({"ram": ram, "disk": disk, "serial": 70_001 + rng.permutation(400)})
    table.loc[7, ["ram", "disk"]] = [2, 2100]
    table.loc[9, "serial"] = 93_000
    table.to_csv("disks.csv", index=False)
    line = f"outliers disks.csv -o flagged.csv --report r.html --fdr 0.3 {SEED}"
    assert main(shlex.split(line)) == 0
    flagged = pd.read_csv("flagged.csv")
    pair = {flagged.at[7, "oddest_column"], flagged.at[7, "odd_only_with"]}
    assert pair == {"ram", "disk"}
    assert flagged.loc[flagged["outlier"] == 0, "odd_only_with"].isna().all()
    page = (folder / "r.html").read_text(encoding="utf-8")
    page = re.sub(" <span class='usual'>.*?</span>", "", page)
    assert re.search(
        r"disk = 2100\.0 <em>with</em> ram = 2\.0, odd|ram = 2\.0 <em>with</em> disk = 2", page
    )
    assert "serial = 93000<" in page
    assert "known to be normal with <code>--reference</code>" in page
    # The caution stands before the first section.
    assert page.index("<strong>Caution.</strong>") < page.index("<h2>")


@pytest.mark.filterwarnings("default:these columns of numbered.csv seem")
def test_running_numbers_are_pointed_out(folder, capsys):
    table = pd.read_csv("odd.csv")
    table.insert(0, "number", range(1001, 1121))
    table.to_csv("numbered.csv", index=False)
    assert main(shlex.split(f"outliers numbered.csv -o flagged.csv {SEED}")) == 0
    assert "seem to identify rows: 'number'; exclude" in capsys.readouterr().err
    assert main(shlex.split(f"outliers numbered.csv -o flagged.csv --id number {SEED}")) == 0
    assert "the rows" not in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_rows_that_break_a_rule_are_named(tmp_path, monkeypatch, capsys, one_class):
    """Even if nothing else in them is odd: in the messages, by name, and in the report."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    hours, price = rng.integers(1, 40, 300), rng.integers(10, 90, 300)
    table = pd.DataFrame(
        {
            "order": [f"A&{i}" for i in range(300)],
            "hours": hours,
            "price": price,
            "kind": rng.choice(["a", "b"], 300),
            "total": hours * price,
        }
    )
    table.loc[[7, 44], "total"] = table.loc[[44, 7], "total"].to_numpy()
    table.to_csv("orders.csv", index=False)
    rule = "the rule total = hours * price, which nearly all others follow"
    run = "outliers orders.csv -o flagged.csv --quick --report r.html " + SEED
    assert main(run.split()) == 0
    assert f"rows 8, 45 break {rule}" in capsys.readouterr().out
    assert "<td>total = hours * price</td><td>rows 8, 45</td>" in (tmp_path / "r.html").read_text(
        "utf-8"
    )
    broken = pd.read_csv("flagged.csv")["broken_rule"].dropna()
    assert list(broken.index) == [7, 44] and set(broken) == {"total = hours * price"}
    assert main(f"{run} --id order".split()) == 0
    assert f"\nA&7, A&44 break {rule}" in capsys.readouterr().out
    assert "<td>A&amp;7, A&amp;44</td>" in (tmp_path / "r.html").read_text("utf-8")
    # A rule of clean rows counts however many of the others break it.
    table.drop([7, 44]).to_csv("clean.csv", index=False)
    table.loc[[7, 44, 50]].to_csv("new.csv", index=False)
    assert main("outliers new.csv --reference clean.csv -o new_flagged.csv --quick".split()) == 0
    said = capsys.readouterr().out
    assert "the rule total" not in said  # most rows break it
    table.loc[[7, 44, *range(50, 60)]].to_csv("new.csv", index=False)
    assert main("outliers new.csv --reference clean.csv -o new_flagged.csv --quick".split()) == 0
    rule = rule.replace("others", "rows of the reference")
    assert f"rows 1, 2 break {rule}" in capsys.readouterr().out
