"""``skflows fit --target`` and ``skflows predict``."""

import re
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from _densities import few_trees
from _tables import two_components  # noqa: F401 - a fixture
from scipy import stats
from test_cli import run
from test_conditional import quick

import skflows
from skflows import ConditionalDensity, FlowRegressor, NSFDensity
from skflows.cli import _predict_report
from skflows.cli._forms import FileForm
from skflows.columns.formats import NumberFormat


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Change to a working directory with a table of numbers, texts and gaps."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(60), "x": rng.normal(size=60), "kind": ["a", "b"] * 30})
    frame["price"] = frame["x"] + 3 * (frame["kind"] == "b") + 0.1 * rng.normal(size=60)
    frame["day"] = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    frame.loc[[3, 7], ["x", "price"]] = [[np.nan, 1.0], [0.0, np.nan]]
    frame.to_csv("data.csv", index=False)
    return tmp_path


def test_fit_and_predict(folder, capsys, monkeypatch):
    monkeypatch.setattr(_predict_report, "N_LISTED", 100)
    fit = "fit data.csv --target price --exclude id -o model.skflows --max-iter 8"
    assert run(f"{fit} --random-state 0") == 0
    assert "fitted to 59 rows of 3 columns" in capsys.readouterr().out
    assert run("predict model.skflows data.csv -o predicted.csv --coverage 0.8") == 0
    assert "60 predictions, with intervals of 80% coverage" in capsys.readouterr().out
    assert run("predict model.skflows data.csv -o wide.csv --coverage 0.875") == 0
    assert "intervals of 87.5% coverage" in capsys.readouterr().out
    predicted = pd.read_csv("predicted.csv")
    assert list(predicted) == ["mean", "median", "low", "high"]
    assert len(predicted) == 60
    assert (predicted["low"] <= predicted["median"]).all()
    assert (predicted["median"] <= predicted["high"]).all()
    kind = pd.read_csv("data.csv")["kind"]
    assert predicted["mean"][kind == "b"].mean() > predicted["mean"][kind == "a"].mean() + 1
    (encoder,) = skflows.load("model.skflows").density_.encoder_
    assert encoder.is_date_.tolist() == [False, False, True]
    assert run("predict model.skflows data.csv --id id") == 0
    named = pd.read_csv(StringIO(capsys.readouterr().out))
    pd.read_csv("data.csv").drop(columns="price").to_csv("new.csv", index=False)
    assert run("predict model.skflows new.csv --report r.html") == 2
    assert "has no column 'price', which --report compares" in capsys.readouterr().err
    line = "predict model.skflows data.csv -o predicted.csv --id id --coverage 0.8 --report r.html"
    assert run(line) == 0
    assert "wrote r.html" in capsys.readouterr().out
    check_report_of_numbers((folder / "r.html").read_text(encoding="utf-8"), predicted)
    assert list(named) == ["id", *predicted]
    assert named["id"].tolist() == list(range(60))
    for line in ("score model.skflows data.csv", "sample model.skflows"):
        assert run(line) == 2
        assert "holds a FlowRegressor, which predicts a column: use skflows predict" in (
            capsys.readouterr().err
        )
    NSFDensity(max_iter=1).fit(predicted[["mean"]]).save("density.skflows")
    assert run("predict density.skflows data.csv") == 2
    message = "is a density: use skflows score or sample, or give a model of skflows fit --target"
    assert f"holds a NSFDensity, which {message}" in capsys.readouterr().err


def check_report_of_numbers(page, predicted):
    data = pd.read_csv("data.csv")
    y, known = data["price"], data["price"].notna()
    inside = ((predicted["low"] <= y) & (y <= predicted["high"]))[known].mean()
    assert f"The 80% intervals hold price in {inside:.1%} of 59 rows" in page
    error = (predicted["median"] - y)[known].abs().mean()
    assert float(re.search("are off by ([0-9.]+) on average", page)[1]) == pytest.approx(
        error, 5e-3
    )
    importance = page.partition("Importance of the columns")[2]
    columns = re.findall("<tr><td>(.*?)</td>", importance)
    assert {*columns} == {"x", "kind", "day"} and columns[0] == "kind"
    surprising = page.partition("The most surprising rows")[2].partition("<h2>")[0]
    ids = [*map(int, re.findall("<tr><td>([0-9]+)</td>", surprising))]
    assert sorted(ids) == data["id"][known].to_list()
    assert page.count("<img ") == 1 and "http" not in page


def test_both_tails_of_whole_numbers_count_alike():
    fair = stats.binom(10, 0.5)
    distribution = SimpleNamespace(is_discrete=True, cdf=fair.cdf, pmf=fair.pmf)
    tails = _predict_report.tails(distribution, np.arange(11))
    assert np.allclose(tails, tails[::-1]) and tails.argmax() == 5


def test_importance_is_of_rows_of_the_whole_file(monkeypatch):
    monkeypatch.setattr(_predict_report, "N_SHUFFLED", 50)
    x = np.repeat([0.0, 1.0], 100)
    model = SimpleNamespace(predict_distribution=lambda X: SimpleNamespace(median=lambda: X[:, 0]))
    page = _predict_report.importance(model, x[:, None], x, np.random.default_rng(0), str)
    assert 0.3 < float(re.search("data-value='(.*?)'", page)[1]) < 0.7


@pytest.mark.filterwarnings("default")
def test_dates_across_summer_time_and_malformed_ones(folder, capsys):
    data = pd.read_csv("data.csv", usecols=["x", "price"])
    data["day"] = [f"2024-{i % 12 + 1:02}-05T01:30:00+0{1 + (i % 12 > 5)}:00" for i in range(60)]
    data.to_csv("times.csv", index=False)
    assert run("fit times.csv --target price -o model.skflows --max-iter 1") == 0
    (encoder,) = skflows.load("model.skflows").density_.encoder_
    assert encoder.is_date_.tolist() == [False, True]
    assert run("predict model.skflows times.csv -o expected.csv") == 0
    assert "read in UTC" in capsys.readouterr().err
    in_utc = pd.to_datetime(data["day"], utc=True).map(pd.Timestamp.isoformat)
    data.assign(day=in_utc).to_csv("utc.csv", index=False)
    assert run("predict model.skflows utc.csv -o predicted.csv") == 0
    assert pd.read_csv("predicted.csv").equals(pd.read_csv("expected.csv"))
    data.assign(day=data["day"].str[:19]).to_csv("local.csv", index=False)
    assert run("predict model.skflows local.csv") == 2
    assert "'day' had UTC offsets in fit; now row 1 holds '2024-01-" in capsys.readouterr().err
    data.loc[6, "day"] = "31/12/2024"
    data.to_csv("times.csv", index=False)
    capsys.readouterr()
    assert run("predict model.skflows times.csv") == 2
    assert "'day' held dates in fit; now row 7 holds '31/12/2024'" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("target", ["price", "kind"])
def test_later_dates_than_all_of_the_fit_are_warned_of(folder, capsys, target):
    fit = f"fit data.csv --target {target} --exclude id -o model.skflows --max-iter 1"
    assert run(f"{fit} --estimator {'maf' if target == 'price' else 'table'} --quick") == 0
    pd.read_csv("data.csv").tail(9).assign(day="2030-01-01").to_csv("late.csv", index=False)
    assert run("predict model.skflows data.csv -o predicted.csv") == 0
    assert "dates" not in capsys.readouterr().err
    assert run("predict model.skflows late.csv -o predicted.csv") == 0
    message = "X has dates after all dates of fit in column 'day' in 9 of 9 rows; they were 2024-01"
    assert capsys.readouterr().err.count(message) == 1


def test_few_rows(folder, capsys):
    pd.read_csv("data.csv").head(30).to_csv("few.csv", index=False)
    assert run("fit few.csv --target price -o model.skflows --max-iter 2 --id id") == 0
    assert run("predict model.skflows few.csv --coverage 0.5") == 0
    predicted = pd.read_csv(StringIO(capsys.readouterr().out.partition("mean,")[2]))
    assert np.isfinite(predicted).all(axis=None)
    assert run("fit few.csv --target id -o model.skflows --max-iter 1") == 0
    assert run("predict model.skflows few.csv -o predicted.csv --coverage 0.5") == 0
    dtypes = pd.read_csv("predicted.csv").dtypes
    assert "".join(dtype.kind for dtype in dtypes) == "fiii"  # an id is a whole number


def test_models_of_arrays(folder, capsys):
    table = pd.read_csv("data.csv")[["id", "x"]].fillna(0.0)
    regressor = FlowRegressor(ConditionalDensity(quick(1), cv=2), random_state=0)
    regressor.fit(table.to_numpy(), table["x"]).save("model.skflows")
    table.to_csv("numbers.csv", index=False)
    assert run("predict model.skflows numbers.csv -o predicted.csv") == 0
    assert run("predict model.skflows numbers.csv -o predicted.csv --report r.html") == 2
    assert "does not know the name of its target" in capsys.readouterr().err
    expected = regressor.predict_interval(table.to_numpy())
    assert np.allclose(pd.read_csv("predicted.csv")[["low", "high"]], expected)
    table.assign(code="007", median=1).to_csv("named.csv", index=False)
    assert run("predict model.skflows named.csv --id median") == 2
    assert "has a column 'median', which the output adds" in capsys.readouterr().err
    table.assign(code="007").to_csv("named.csv", index=False)
    assert run("predict model.skflows named.csv --id code -o named_predictions.csv") == 0
    named = pd.read_csv("named_predictions.csv", dtype={"code": str})
    assert set(named["code"]) == {"007"}
    assert named.drop(columns="code").equals(pd.read_csv("predicted.csv"))
    regressor.fit(table.to_numpy(), table.to_numpy()).save("model.skflows")
    assert run("predict model.skflows numbers.csv") == 2
    assert "predicts 2 columns" in capsys.readouterr().err


def test_classes_are_predicted_with_probabilities(folder, capsys, one_class, monkeypatch):
    """Also those of other columns than texts, if the user says so; the file needs no skops."""
    few_trees(monkeypatch)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    table = pd.read_csv("data.csv")
    table["n"] = (table["kind"] == "b") + 1
    table.loc[5, ["kind", "n"]] = None
    table.astype({"n": "Int64"}).to_csv("data.csv", index=False)
    fit = "fit data.csv --exclude id -o model.skflows --max-iter 2 --random-state 0"
    for target, options in (
        ("kind", "--exclude id,n"),
        ("n", "--exclude id,kind --kind n=categorical"),
    ):
        assert run(f"{fit} {options} --target {target}") == 0
        out = capsys.readouterr().out
        assert f"1 of 60 rows of data.csv without '{target}': left out" in out
        assert "DensityClassifier fitted to 59 rows of 3 columns" in out
        line = "predict model.skflows data.csv --id id -o predicted.csv --report r.html"
        assert run(line) == 0
        assert "60 predictions, with probabilities" in capsys.readouterr().out
        predicted = pd.read_csv("predicted.csv")
        model = skflows.load("model.skflows")
        assert len(model.weights_) > 1  # pooled, as by default in Python
        classes = [str(each) for each in model.classes_]
        names = [f"probability_{each}" for each in classes]
        assert [*predicted] == ["id", "predicted", *names]
        assert np.allclose(predicted[names].sum(axis=1), 1)
        known = table[target].notna()
        right = (predicted["predicted"] == table[target])[known].mean()
        assert right > 0.8
        page = (folder / "r.html").read_text(encoding="utf-8")
        assert f"{right:.1%} of 59 classes are predicted rightly" in page
        for label in classes:
            n = (table[target].astype(str).str.removesuffix(".0") == label).sum()
            counts = re.search(f"<tr><td>{label}</td>(.*?)</tr>", page)[1]
            assert sum(map(int, re.findall(">([0-9]+)<", counts))) == n
    assert run("predict model.skflows data.csv --coverage 0.8") == 2
    assert "--coverage is for regressors; model.skflows predicts classes" in capsys.readouterr().err
    assert run("score model.skflows data.csv") == 2
    assert "a DensityClassifier, which predicts a column: use skflows predict" in (
        capsys.readouterr().err
    )
    complete = table.dropna()[["x", "price", "kind"]].replace({"a": "true", "b": "false"})
    complete.to_csv("complete.csv", index=False)
    assert run("fit complete.csv --target kind -o flow.skflows --max-iter 2 --random-state 0") == 0
    capsys.readouterr()
    assert run("predict flow.skflows complete.csv --report r.html") == 0
    out, err = capsys.readouterr()
    assert "wrote r.html" in err  # not among the predictions
    right = pd.read_csv(StringIO(out))["predicted"].eq(complete["kind"].eq("true").array).mean()
    assert right > 0.8
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert f"{right:.1%} of {len(complete)} classes are predicted rightly" in page
    complete.assign(kind="yes").to_csv("yes.csv", index=False)
    assert run("predict flow.skflows yes.csv -o predicted.csv --report r.html") == 2
    message = "yes.csv has 'yes' in column 'kind', but flow.skflows predicts 'False', 'True'"
    assert message in capsys.readouterr().err
    assert isinstance(skflows.load("flow.skflows").estimator, NSFDensity)
    complete.assign(x=np.nan).to_csv("gaps.csv", index=False)
    assert run("predict flow.skflows gaps.csv") == 2
    assert "or fit the classifier with --estimator table" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("target", ["price", "kind"])
def test_texts_that_name_the_rows_are_left_out(folder, capsys, one_class, target, monkeypatch):
    few_trees(monkeypatch)
    table = pd.read_csv("data.csv", usecols=["x", "kind", "price"]).fillna({"price": 0})
    names = [f"{i + 1:05d}" for i in range(60)]
    table.insert(0, "code", names)
    table.to_csv("named.csv", index=False)
    fit = f"fit named.csv --target {target} -o model.skflows --max-iter 1 --random-state 0"
    assert run(fit) == 0
    out, err = capsys.readouterr()
    assert err.count("rows are left out: 'code'; to use") == 1
    assert "--exclude" not in err and "name the rows, since" not in err
    assert "of 2 columns in" in out and f"{target} given x, " in out and "code" not in out
    assert run("predict model.skflows data.csv -o predicted.csv") == 0
    assert run(f"{fit} --kind code=categorical") == 0
    out, err = capsys.readouterr()
    assert f"{target} given code, x, " in out and "left out" not in err
    assert run("predict model.skflows data.csv") == 2
    assert "data.csv has no column 'code'" in capsys.readouterr().err


def test_targets_are_numbers_with_a_few_other_texts_or_named_in_errors(folder, capsys):
    """An error names the cell that is not accepted, rather than a word that may be missing."""
    table = pd.DataFrame({"x": range(60), "y": [f"{k / 2:g}" for k in range(60)], "notes": None})
    table.loc[[3, 4], "y"] = "unknown", "about 70"
    table.to_csv("t.csv", index=False)
    fit = "fit t.csv -o model.skflows --max-iter 1 --columns x --target"
    assert run(f"{fit} y") == 0
    out, err = capsys.readouterr()
    assert "has 'about 70', 'unknown' in 2 rows: read as missing" in err and "58 rows" in out
    assert run(f"{fit} notes") == 2
    assert "column 'notes' has no values: choose another --target" in capsys.readouterr().err
    table.loc[10:20, "y"] = "about 70"
    table.to_csv("t.csv", index=False)
    assert run(f"{fit} y") == 2
    assert "'y' holds 'about 70'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("--target prize", "has no column 'prize'"),
        ("--target day", "'day' holds dates, which are no target. Fit without --target"),
        ("--target price --kind x=count", "--kind x: with --target, only categorical is possible"),
        ("--target price --columns price", "no column of data.csv is left"),
        ("--target price --contamination 0.1", "with --target there are no outliers"),
        ("--target price --estimator auto", "takes no --target"),
    ],
)
@pytest.mark.filterwarnings("default:these columns of data.csv seem")
def test_errors(folder, capsys, arguments, error):
    assert run(f"fit data.csv -o model.skflows {arguments}") == 2
    assert error in capsys.readouterr().err


def test_report_writes_numbers_as_the_file_does(monkeypatch):
    y = 1000.0 * np.arange(1, 31)
    form = FileForm(decimal=",", formats={"km": NumberFormat(decimal=",", thousands=".")})
    known = SimpleNamespace(
        target="km",
        args=SimpleNamespace(data=Path("cars.csv")),
        some=lambda rng: (pd.DataFrame({"x": y}), y, np.arange(30)),
    )
    predicted = SimpleNamespace(
        is_discrete=False, median=lambda: y + 1500, cdf=lambda y: stats.norm.cdf(y, 15000, 9000)
    )
    model = SimpleNamespace(
        predict_distribution=lambda X: predicted,
        predict_interval=lambda X, coverage: np.column_stack([y - 9000, y + 9000.25]),
    )
    monkeypatch.setattr(
        _predict_report.PredictiveCalibrationDisplay, "from_estimator", lambda *args: None
    )
    monkeypatch.setattr(_predict_report, "picture", lambda *args: "")
    page = _predict_report.report(model, known, 0.9, form)
    assert "off by 1.500 on average" in page
    assert "<td>narrowest third</td><td class='number'>18.000</td>" in page
    assert ">30.000</td>" in page and ">39.000</td>" in page and ">0,00</td>" in page


@pytest.mark.parametrize("n_right", [4, 7, 9])
def test_the_report_of_classes_says_if_one_is_right_as_often(n_right):
    y = np.array(["a"] * 7 + ["b"] * 3)
    predicted = np.where(np.arange(10) < n_right, y, np.where(y == "a", "b", "a"))
    proba = 0.2 + 0.6 * (predicted[:, None] == ["a", "b"])
    model = SimpleNamespace(classes_=np.array(["a", "b"]), predict_proba=lambda X: proba)
    lead, *_ = _predict_report.of_classes(model, pd.DataFrame({"x": np.arange(10)}), y, "kind")
    assert ("Always predicting that one is right at least as often" in lead) == (n_right <= 7)
