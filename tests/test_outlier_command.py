"""``skflows outliers``: the flags, the reasons and the page."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest

from skflows import _cli


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
