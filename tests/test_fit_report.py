"""The report of ``skflows fit --report``."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _tables import keep_components, quick

from skflows.cli import _fit_report as fit_report
from skflows.cli._forms import FileForm
from skflows.cli._main import main
from skflows.columns.formats import find_format

N = 300


@pytest.fixture(scope="module")
def tables():
    """Two random samples of one distribution, with missing values."""
    rng = np.random.default_rng(0)

    def sample():
        number = rng.standard_normal(N)
        return pd.DataFrame(
            {
                "number": np.where(rng.uniform(size=N) < 0.2, np.nan, number),
                "like": number + 0.1 * rng.standard_normal(N),
                "kind": rng.choice(["<a>", "b", "c"], N),
            }
        )

    return sample(), sample()


def difference(real, other, names, n_bins, rng):
    return fit_report.difference(fit_report.codes_of(real, other, n_bins), names, n_bins, rng)


def test_differences_are_the_shares_of_rows_to_change(tables):
    real, other = tables
    rng = np.random.default_rng(0)
    for names in ["number"], ["kind"], ["number", "like"]:
        value, chance = difference(real, other, names, 6, rng)
        assert 0 < value <= chance < 0.35
        assert difference(real, real, names, 6, rng)[0] == 0
    changed = real.assign(kind="new", number=real["number"].fillna(0.0))
    assert difference(real, changed, ["kind"], 6, rng)[0] == pytest.approx(1)
    missing = real["number"].isna().mean()
    assert difference(real, changed, ["number"], 6, rng)[0] == pytest.approx(missing)
    # Fewer known values than bins.
    few = pd.DataFrame({"number": [1.0, 2, 3, 4, 5, *[np.nan] * 5]})
    assert difference(few, few.replace(5, 3), ["number"], 20, rng)[0] == 0.1
    # Single columns do not show that a dependence is lost.
    lost = real.assign(like=np.roll(real["like"], 1))
    assert difference(real, lost, ["like"], 6, rng)[0] == 0
    value, chance = difference(real, lost, ["number", "like"], 6, rng)
    assert value > 2 * chance


def test_copies_are_too_near(tables):
    real, other = tables
    rng = np.random.default_rng(0)
    assert not fit_report.nearness(real, other, rng).is_suspicious
    copied = pd.concat([other[N // 10 :], real[: N // 10]], ignore_index=True)
    near = fit_report.nearness(real, copied, rng)
    assert near.is_suspicious and (near.synthetic == 0).sum() == N // 10
    assert "too near to rows" in fit_report.lead(0.5, near, [], {}, N)


def test_of_many_rows_some_are_searched_for_copies(tables, monkeypatch):
    monkeypatch.setattr(fit_report, "MOST_NEIGHBOURS", N // 2)
    real, other = tables
    copied = pd.concat([real[N // 2 :]] * 2)
    near = fit_report.nearness(real, copied, np.random.default_rng(0))
    assert 0.4 < (near.synthetic == 0).mean() < 0.6  # not the first rows only
    near = fit_report.nearness(real, other, np.random.default_rng(0))
    text = fit_report.lead(0.5, near, [], {}, N)
    assert "Only 150 of the 300 rows of the fit were searched for copies" in text
    assert "are as near to" not in text


def test_the_lead_names_a_pair_that_does_not_go_together():
    near = fit_report.Nearness(np.ones(N), np.ones(N))
    of_pairs = {("<a>", "b"): (0.5, 0.2), ("a", "c"): (0.25, 0.2)}
    assert "&lt;a&gt; and b do not go together" in fit_report.lead(0.5, near, [], of_pairs, N)
    assert "go together" not in fit_report.lead(0.5, near, [], {("a", "c"): (0.25, 0.2)}, N)


def test_values_are_written_as_in_the_file():
    times, format = ["07:52", "14:31", "09:00"], find_format(["07:52", "14:31", "09:00"])
    seconds = pd.Series(format.parse(times))
    form = FileForm(formats={"time": format})
    text = fit_report.usual_values(seconds, fit_report.text_as(form, "time", seconds))
    assert text == "07:52 to 14:31"


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_dates_may_be_one_or_missing(tables, zone):
    real, other = (table[["like"]] for table in tables)
    day = pd.Timestamp("2024-01-01", tz=zone)
    for days in pd.Series([day] * N), pd.Series([pd.NaT] * N, dtype=pd.Series([day]).dtype):
        near = fit_report.nearness(
            *(each.assign(day=days) for each in (real, other)), np.random.default_rng(0)
        )
        assert np.array_equal(near, fit_report.nearness(real, other, np.random.default_rng(0)))


def test_a_classifier_tells_different_rows_apart(tables):
    real, other = tables
    assert abs(fit_report.discriminator(real, other, 0) - 0.5) < 0.1
    lost = other.assign(like=np.roll(other["like"], 1))
    assert fit_report.discriminator(real, lost, 0) > 0.8


def test_report_of_a_table(tables, monkeypatch):
    keep_components(monkeypatch, lambda each: each.name == "quantile classes of 4")
    table = tables[0][: N // 2].assign(twice=lambda frame: 2 * frame["like"])
    model = quick(max_iter=1, n_orders=1).fit(table)
    page = fit_report.report(Path("data.csv"), model, table, 1.0, 0)
    assert "twice = 2 * like" in page and "They break none of 1 rule clearly more often" in page
    assert "&lt;a&gt; (" in page and "<a>" not in page and "http" not in page
    columns = re.findall("<tr><td>(.*?)</td>", page.partition("Pairs")[0])
    assert columns == ["number", "like", "kind", "twice"]
    missing = f"data-value='{float(table['number'].isna().mean())!r}'"
    assert missing in page
    assert len(re.findall("src='data:image/png;base64,", page)) == page.count("<img ") == 1


def test_report_of_a_flow(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tables[0][["like"]].to_csv("data.csv", index=False)
    line = "fit data.csv -o model --max-iter 1 --random-state 0 --report r.html"
    assert main(shlex.split(line)) == 0
    assert "wrote r.html" in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No rules between" in page and "There is one column" in page
    assert "missing in the table" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--target number", "give it to skflows predict"),
        ("--memory-limit 1", "--report needs all rows"),
        ("-o r.html", "r.html is given for both the output and the report"),
    ],
)
def test_reports_that_cannot_be_written(tables, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    tables[0].to_csv("data.csv", index=False)
    assert main(shlex.split(f"fit data.csv -o model --report r.html {options}")) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["data.csv"]
