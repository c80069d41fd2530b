"""``skflows outliers``: the flags, the reasons and the page."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest

from skflows.cli import _main as _cli
from skflows.cli._progress import processes, tell


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two tables, one with planted outliers, and a portfolio that takes no time."""
    import skflows._portfolio as module

    whole = module.portfolio
    monkeypatch.setattr(module, "portfolio", lambda *args: whole(*args)[:2])
    monkeypatch.setattr("skflows._mixture.effective_n_jobs", lambda n: 1)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    clean, odd = (
        pd.DataFrame(rng.standard_normal((n, 3)), columns=["a", "<b>", "c"]) for n in (400, 120)
    )
    odd.loc[[7, 50], "<b>"] = [9.0, -8.0]
    clean.to_csv("clean.csv", index=False)
    odd.to_csv("odd.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("reference", ["", "--reference clean.csv"])
def test_planted_outliers_are_flagged_with_their_column(folder, capsys, reference):
    line = f"outliers odd.csv -o flagged.csv --fdr 0.3 --random-state 0 {reference} --report r.html"
    assert _cli.main(shlex.split(line)) == 0
    table = pd.read_csv("flagged.csv")
    assert len(table) == 120
    assert table.loc[[7, 50], "outlier"].tolist() == [1, 1]
    assert table.loc[[7, 50], "oddest_column"].tolist() == ["<b>", "<b>"]
    assert table["outlier"].sum() <= 6
    assert set(table["oddest_column"]) == {"a", "<b>", "c"}  # of every row
    assert f"{table['outlier'].sum()} of 120 rows are flagged" in capsys.readouterr().out
    text = (folder / "r.html").read_text(encoding="utf-8")
    assert "&lt;b&gt; = 9" in text
    assert "<b>" not in text
    # Self-contained: every picture is inside, and nothing is fetched.
    assert len(re.findall(r"src='data:image/png;base64,", text)) == text.count("<img ") > 2
    assert "http" not in text


def test_columns_of_the_output_are_not_overwritten(folder, capsys):
    pd.read_csv("odd.csv").assign(outlier=1).to_csv("taken.csv", index=False)
    assert _cli.main(["outliers", "taken.csv", "-o", "flagged.csv"]) == 2
    assert "has a column 'outlier'" in capsys.readouterr().err


def test_outputs_are_no_inputs(folder, capsys):
    assert _cli.main(["outliers", "odd.csv", "-o", "odd.csv"]) == 2
    assert "odd.csv is an input" in capsys.readouterr().err
    assert _cli.main(["outliers", "odd.csv", "-o", "same", "--report", "same"]) == 2
    assert "same is given for the table and for the page" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:.*left out:UserWarning")
def test_texts_and_rows_with_missing_values_are_left_out_and_told(folder, capsys):
    table = pd.read_csv("odd.csv")
    table.insert(0, "name", [f"row {i}" for i in range(len(table))])
    table.loc[3, "a"] = np.nan
    table.loc[[4, 9], "c"] = np.nan
    table.to_csv("mixed.csv", index=False)
    line = "outliers mixed.csv -o flagged.csv --fdr 0.3 --random-state 0 --report r.html"
    assert _cli.main(line.split()) == 0
    said = capsys.readouterr()
    assert "columns of mixed.csv that are not numbers are left out: 'name'" in said.err
    assert (
        "3 of 120 rows of mixed.csv have missing values (1 in 'a', 2 in 'c'): left out" in said.err
    )
    assert "of 117 rows are flagged" in said.out
    flagged = pd.read_csv("flagged.csv")
    pd.testing.assert_frame_equal(flagged[[*table]], table)
    for name in ("score", "p_value", "outlier", "oddest_column"):
        np.testing.assert_array_equal(np.flatnonzero(flagged[name].isna()), [3, 4, 9])
    # Numbers of rows are those of the file, not of the rows that were judged.
    assert flagged.loc[[7, 50], "outlier"].tolist() == [1, 1]
    assert flagged.loc[[7, 50], "oddest_column"].tolist() == ["<b>", "<b>"]
    text = (folder / "r.html").read_text(encoding="utf-8")
    assert {"8", "51"} <= set(re.findall(r"flagged'><td class='number'>(\d+)", text))
    assert "which were not judged: 3." in text


@pytest.mark.filterwarnings("default:.*left out:UserWarning", "ignore:Some rows are as odd")
def test_reference_with_missing_values(folder, capsys):
    clean = pd.read_csv("clean.csv")
    clean.loc[:9, "a"] = np.nan
    clean.to_csv("holes.csv", index=False)
    line = "outliers odd.csv -o flagged.csv --reference holes.csv --random-state 0"
    assert _cli.main(line.split()) == 0
    assert "10 of 400 rows of holes.csv have missing values" in capsys.readouterr().err


UNUSABLE = {
    "all of 120 rows": lambda table: table.assign(a=np.nan, b=1.0),
    "has no column of numbers": lambda table: table.astype(str).add(" m"),
    "holds 'about 9'": lambda table: table.astype(object).where(table < 8, "about 9"),
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_tables_that_cannot_be_judged(folder, capsys, message):
    UNUSABLE[message](pd.read_csv("odd.csv")).to_csv("bad.csv", index=False)
    columns = ["--columns", "a,b"] if "all" in message else []
    assert _cli.main(["outliers", "bad.csv", "-o", "flagged.csv", *columns]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "flagged.csv").exists()


def test_short_fits_stay_in_one_process():
    assert [processes(limit) for limit in (None, 5, 60)] == [-1, None, -1]


def test_what_the_wait_is_for_is_told_on_a_terminal_alone(monkeypatch, capsys):
    tell("to a file")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tell("to a person")
    assert capsys.readouterr().out == "to a person\n"
