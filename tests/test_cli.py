"""The ``skflows`` command, run in this process with the arguments of a command line."""

import csv
import gzip
import io
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from _tables import few_components  # noqa: F401 - a fixture

import skflows
from skflows import AutoDensity, DensityOutlierDetector, MAFDensity, NSFDensity, TableDensity
from skflows.cli import (
    _arguments,
    _columns,
    _demo,
    _main,
    _model_files,
    _models,
    _progress,
    _score,
    _tables,
)
from skflows.cli._main import with_options
from skflows.columns.checks import names_rows
from skflows.density import ARCHITECTURES, FlowDensity
from skflows.ensemble import _portfolio
from skflows.table._duration import free_share

NAMES = ["width", "height", "weight, kg"]
COLUMNS = 'width,height,"weight, kg"'  # quoted for --columns


def make_frame(n=40, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)) * [1, 5, 100], columns=NAMES)
    return frame.assign(species=["setosa", "virginica"] * (n // 2))


@pytest.fixture(scope="module")
def stored_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.skflows"
    frame = make_frame()[NAMES]
    NSFDensity(max_iter=2, random_state=0, contamination=0.2).fit(frame).save(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch, stored_model):
    """Change to a working directory with a table and a model."""
    monkeypatch.chdir(tmp_path)
    make_frame().to_csv("data.csv", index=False)
    (tmp_path / "model.skflows").write_bytes(stored_model.read_bytes())
    return tmp_path


def run(line):
    """Run ``skflows`` with these arguments and return the exit code."""
    try:
        return _main.main(shlex.split(line))
    except SystemExit as exit:  # raised by argparse
        return exit.code


def only_error(capsys):
    """Return the error that the command printed; it must be one line, and the only output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("skflows: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


# Commands without errors


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fit_stores_a_fitted_model_of_each_architecture(folder, capsys, name):
    options = f"--columns '{COLUMNS}' --estimator {name} --max-iter 1"
    assert run(f"fit data.csv -o m.skflows {options}") == 0
    model = skflows.load("m.skflows")
    assert type(model) is ARCHITECTURES[name]
    assert model.n_iter_ == 1
    assert list(model.feature_names_in_) == NAMES
    out, err = capsys.readouterr()
    assert f"{type(model).__name__} fitted to 40 rows of 3 columns" in out
    assert "wrote m.skflows" in out
    assert err == ""


def test_fit_score_and_sample_with_the_automatic_density(folder, capsys, monkeypatch):
    complete = _portfolio.portfolio
    monkeypatch.setattr(_portfolio, "portfolio", lambda *args: complete(*args)[:2])
    # A short time limit keeps the fit in this process.
    options = f"--columns '{COLUMNS}' --estimator auto --time-limit 29 --random-state 0"
    assert run(f"fit data.csv -o m.skflows {options}") == 0
    assert "copula" in capsys.readouterr().out
    assert run("score m.skflows data.csv -o scores.csv") == 0
    assert run("sample m.skflows -n 5 -o samples.csv") == 0
    assert skflows.load("m.skflows").time_limit == 29


def test_large_tables_are_announced_and_quick_sets_a_time_limit(folder, capsys, monkeypatch):
    monkeypatch.setattr(_models, "MANY_VALUES", 100)
    limits = []

    def fit(model, X, callbacks):
        limits.append(model.time_limit)

    monkeypatch.setattr(_models, "fit_with_progress", fit)
    monkeypatch.setattr(AutoDensity, "save", lambda model, path: None)
    monkeypatch.setattr(_models, "_summary", lambda model: "")
    line = f"fit data.csv -o m.skflows --columns '{COLUMNS}' --estimator auto"
    for option, seconds in {"--quick": 8, "--time-limit 29": 29}.items():
        assert run(f"{line} {option}") == 0
        assert capsys.readouterr().err == ""
        assert limits.pop() == seconds
    assert run(line) == 0
    assert "40 rows of 3 columns, which may take minutes (--quick" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:time_limit=")
def test_only_limits_of_the_user_are_spoken_of(folder, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "QUICK_SECONDS", 0.2)
    for option, is_said in {"--quick": False, "--time-limit 0.2": True}.items():
        assert run(f"fit data.csv -o m.skflows --max-iter 1 {option}") == 0
        err = capsys.readouterr().err
        assert ("the time limit left no time" in err) == is_said
        assert "time_limit=" not in err


def test_fits_of_tables_say_how_long(capsys, monkeypatch):
    """The first two were measured: 30 and 35 seconds, on a busy machine."""
    assert 0 < free_share() < 1.01
    share = 1.0
    monkeypatch.setattr("skflows.table._duration.free_share", lambda: share)
    for params, shape, message in (
        ({}, (234, 11), "takes about 20 seconds on one core\n"),
        ({}, (3376, 7), "3376 rows of 7 columns, which takes about 40 seconds on one core"),
        ({}, (50_000, 10), "takes about 6 minutes on one core"),
        ({}, (1_000_000, 10), "takes about 6 minutes on one core"),  # of at most 50,000 rows
        ({}, (240, 15), "a model of mixed columns with missing values to 240 rows of 15 columns, "
            "which takes about 25 seconds on one core (--quick"),
        ({"max_iter": 1}, (3376, 7), "takes about 25 seconds"),
        ({"max_iter": 75}, (3376, 7), "takes about 45 seconds"),
        ({"max_iter": 10**6}, (3376, 7), "takes about 65 seconds"),
        ({"time_limit": 30}, (3376, 7), "takes about 30 seconds"),
        ({"time_limit": 8}, (3376, 7), ""),
        ({}, (60, 11), ""),
    ):  # fmt: skip
        density = skflows.TableDensity(**params)
        _progress.announce_tables(density, pd.DataFrame(np.zeros(shape)))
        err = capsys.readouterr().err
        assert message in err and bool(message) == bool(err), (params, shape, err)
    share = 0.25
    for limit, more in (None, "; while other programs run as now, 4 times as long"), (30, ""):
        _progress.announce_tables(
            skflows.TableDensity(time_limit=limit), pd.DataFrame(np.zeros((3376, 7)))
        )
        assert f" seconds on one core{more} (--quick" in capsys.readouterr().err


def test_summaries_name_components_with_their_weights():
    model = skflows.TableDensity()
    names, weights = ["quantile classes of 1", "network"], [0.75, 0.25]
    model.leaderboard_, model.stacked_score_ = {"component": names, "weight": weights}, -1.5
    assert _models._summary(model) == (
        "mixture of quantile classes of 1 (weight 0.75), network (weight 0.25); "
        "held-out log-density -1.5 nats per row"
    )


def test_messages_name_options_that_a_shell_takes():
    text = "use columns={'name': 'categorical'}, or columns={'last name': 'count'}."
    assert with_options(text) == "use --kind name=categorical, or --kind 'last name=count'."
    text = "given has the impossible value 2.5 in column 'age'; its values are whole numbers."
    assert with_options(text) == "--given age=2.5: its values are whole numbers."
    text = "time_limit=2.5 ended training within its first epoch: raise it, or train on fewer rows."
    said = "ended training within its first epoch: {} it, or train on fewer rows."
    assert with_options(text) == "the time limit " + said.format("raise")
    assert with_options(text, is_quick=True) == "--quick " + said.replace("{} it", "leave it out")


@pytest.mark.filterwarnings("default:time_limit=")
@pytest.mark.parametrize(
    ("option", "words"), [("--quick", "--quick ended"), ("--time-limit 8", "the time limit ended")]
)
def test_short_limits_name_the_option_that_sets_them(folder, capsys, monkeypatch, option, words):
    text = "time_limit=8 ended training within its first epoch: raise it, or train on fewer rows."
    monkeypatch.setattr(
        _models, "fit_with_progress", lambda *args, **kwargs: warnings.warn(text, stacklevel=1)
    )
    monkeypatch.setattr(_models, "_finish", lambda *args: False)
    assert run(f"fit data.csv -o m.skflows {option}") == 0
    assert words in capsys.readouterr().err


def test_short_fits_use_one_process():
    assert [_progress.n_jobs_for(seconds) for seconds in (None, 5, 60)] == [-1, None, -1]


def test_option_that_the_estimator_does_not_have_is_an_error(folder, capsys):
    assert run("fit data.csv -o m.skflows --columns width --estimator auto --max-iter 3") == 2
    assert "AutoDensity has no --max-iter" in only_error(capsys)


def test_fit_gives_the_same_model_as_the_estimator(folder):
    options = "--columns width,height --max-iter 2 --contamination 0.1 --random-state 3"
    assert run(f"fit data.csv -o m.skflows {options}") == 0
    X = make_frame()[["width", "height"]]
    expected = NSFDensity(max_iter=2, contamination=0.1, random_state=3).fit(X)
    model = skflows.load("m.skflows")
    assert model.get_params() == expected.get_params()
    np.testing.assert_allclose(model.score_samples(X), expected.score_samples(X))


def test_fit_without_options_uses_the_default_parameters(folder, monkeypatch):
    models = []

    def fit(model, X, callbacks):
        models.append(model)
        raise ValueError("stop before the training")

    monkeypatch.setattr(_models, "fit_with_progress", fit)
    assert run("fit data.csv -o m.skflows --columns width") == 2
    assert type(models[0]) is NSFDensity
    assert models[0].get_params() == NSFDensity().get_params()


def test_fit_continues_from_its_checkpoint(folder, capsys, monkeypatch):
    fit = f"fit data.csv -o m.skflows --columns '{COLUMNS}' --max-iter 3 --random-state 0"
    assert run(f"{fit} --checkpoint state --resume") == 0  # nothing is there yet
    first = Path("m.skflows").read_bytes()
    capsys.readouterr()
    assert run(f"{fit} --checkpoint state") == 2
    assert "state has the checkpoint of a fit: add --resume" in only_error(capsys)
    monkeypatch.setattr("skflows.training.trainer.Trainer._fit_epoch", None)  # nothing is trained
    assert run(f"{fit} --checkpoint state --resume") == 0
    assert Path("m.skflows").read_bytes() == first
    capsys.readouterr()
    assert run(f"{fit} --checkpoint state --resume --exclude height") == 2
    assert "another fit (" in only_error(capsys)
    assert run(f"{fit} --resume") == 2
    assert "--checkpoint DIR" in only_error(capsys)


@pytest.mark.parametrize("n", [4, 400])
def test_fit_reports_the_held_out_score_if_rows_were_held_out(folder, capsys, n):
    make_frame(n)[NAMES].to_csv("other.csv", index=False)
    assert run("fit other.csv -o m.skflows --max-iter 1 --estimator nice") == 0
    best = skflows.load("m.skflows").best_validation_score_
    out = capsys.readouterr().out
    if best is None:
        assert "held-out" not in out
    else:
        assert f"held-out log-density {best:.4g} nats per row" in out


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("start", [0, 1])  # of pandas and of R
def test_fit_ignores_row_numbers_with_a_warning(folder, capsys, start):
    frame = make_frame()[NAMES]
    frame.set_index(frame.index + start).to_csv("numbered.csv", quoting=csv.QUOTE_NONNUMERIC)
    assert run("fit numbered.csv -o m.skflows --max-iter 1") == 0
    assert list(skflows.load("m.skflows").feature_names_in_) == NAMES
    err = capsys.readouterr().err
    assert err == (
        "skflows: warning: the first column has no name and holds row numbers: left out\n"
    )


def test_fit_accepts_numbered_columns_booleans_and_large_integers(folder):
    frame = pd.DataFrame({"0": [True, False, True, False], "1": [2**70, 1, 2, 3]})
    frame.to_csv("odd.csv", index=False)
    assert run("fit odd.csv -o m.skflows --max-iter 1") == 0
    assert skflows.load("m.skflows").n_features_in_ == 2


def test_score_writes_log_densities_and_flags(folder, capsys):
    # The order of the columns and additional columns do not matter.
    new = make_frame(seed=1)[[*reversed(NAMES), "species"]]
    new.loc[0, NAMES] = 1e6
    new.to_csv("new.csv", index=False)
    assert run("score model.skflows new.csv -o scores.csv") == 0
    scores = pd.read_csv("scores.csv")
    assert list(scores) == ["log_density", "outlier"]
    model = skflows.load("model.skflows")
    np.testing.assert_allclose(scores["log_density"], model.score_samples(new[NAMES]), rtol=1e-12)
    np.testing.assert_array_equal(scores["outlier"] == 1, model.predict(new[NAMES]) == -1)
    assert scores["outlier"][0] == 1
    out = capsys.readouterr().out
    assert f"wrote scores.csv: labelled {scores['outlier'].sum()} of 40 rows as outliers" in out


def test_score_without_output_prints_only_the_table(folder, capsys):
    assert run("score model.skflows data.csv") == 0
    out, err = capsys.readouterr()
    assert pd.read_csv(io.StringIO(out)).shape == (40, 2)
    assert err == ""


def test_a_terminal_shows_few_digits_and_a_file_all(folder, capsys, on_terminal):
    table = pd.DataFrame({"x": [1 / 3, 1e-9 / 3, 12345678.9, np.nan, -np.inf], "text": "a"})
    with _tables.writing(Path("-")) as append:
        append(table)
    as_file = capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(as_file)), table)
    on_terminal()
    with _tables.writing(None) as append:
        append(table)
        append(table[["text", "x"]][:0])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["x,text", "0.333333,a", "3.33333e-10,a", "12345679.0,a", ",a", "-inf,a"]


def test_samples_have_the_columns_of_the_training_table(folder, capsys):
    line = "sample model.skflows -n 7 --random-state 5"
    assert run(f"{line} -o new.csv") == 0
    assert "wrote new.csv: 7 rows" in capsys.readouterr().out
    rows = pd.read_csv("new.csv")
    assert list(rows) == NAMES
    expected = skflows.load("model.skflows").sample(7, random_state=5)
    np.testing.assert_allclose(rows, expected, rtol=1e-12)
    assert run(line) == 0
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(capsys.readouterr().out)), rows)


def test_model_fitted_to_an_array_can_score_and_sample(folder, capsys):
    X = make_frame()[NAMES]
    model = MAFDensity(max_iter=1, random_state=0).fit(X.to_numpy())
    model.save("array.skflows")
    X.to_csv("array.csv", index=False)
    assert run("score array.skflows array.csv -o scores.csv") == 0
    np.testing.assert_allclose(
        pd.read_csv("scores.csv")["log_density"], model.score_samples(X.values)
    )
    assert run("sample array.skflows -n 1 -o new.csv") == 0
    assert list(pd.read_csv("new.csv")) == ["x0", "x1", "x2"]
    X.iloc[:, :2].to_csv("narrow.csv", index=False)
    capsys.readouterr()
    assert run("score array.skflows narrow.csv") == 2
    assert "X has 2 features, but MAFDensity is expecting 3" in only_error(capsys)


# Output on a terminal


def test_fit_shows_a_progress_bar_on_a_terminal(folder, capsys, on_terminal):
    on_terminal()
    assert run("fit data.csv -o m.skflows --columns width --max-iter 2") == 0
    out = capsys.readouterr().out
    assert "NSFDensity - fit" in out
    assert "100%" in out
    # The stored model has no callback: it can be loaded without rich.
    assert b"ProgressBar" not in pickle.dumps(skflows.load("m.skflows"))


def test_a_terminal_shows_that_rows_are_drawn(folder, capsys, on_terminal):
    on_terminal()
    assert run("sample model.skflows -n 7 -o new.csv") == 0
    assert capsys.readouterr().out.startswith("drawing 7 rows of 3 columns ...\nwrote new.csv")
    assert run("sample model.skflows -n 7") == 0
    assert capsys.readouterr().out.startswith("width,")


def test_fit_without_rich_shows_no_progress_bar(folder, capsys, monkeypatch, on_terminal):
    on_terminal()
    monkeypatch.setitem(sys.modules, "rich", None)
    assert run("fit data.csv -o m.skflows --columns width --max-iter 1") == 0
    out, err = capsys.readouterr()
    assert "%" not in out
    assert err == ""


def test_long_fits_print_a_few_lines_elsewhere(folder, capsys, monkeypatch):
    now = iter(range(0, 10_000, 7))
    monkeypatch.setattr("skflows.callbacks._progress.monotonic", lambda: next(now))
    assert run("fit data.csv -o m.skflows --columns width --max-iter 9 --random-state 0") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "after" in line]
    assert lines == [
        "skflows: 2 of 9 epochs after 14 s",
        "skflows: 4 of 9 epochs after 28 s",
        "skflows: 8 of 9 epochs after 56 s",
    ]
    assert b"ProgressLines" not in Path("m.skflows").read_bytes()
    assert run("fit data.csv -o m.skflows --target width --max-iter 9 --random-state 0") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "after" in line]
    assert lines[0] == "skflows: 2 of 9 epochs after 14 s"


# Errors that the user can fix


def write(name, text):
    with open(name, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


BAD_TABLES = {
    "missing file": (None, "cannot read bad.csv: No such file or directory"),
    "empty file": ("", "bad.csv is not a CSV file: No columns"),
    "no rows": ("width,height\n", "bad.csv has column names but no rows"),
    "binary": (bytes(range(256)), "bad.csv is not a CSV file"),
    "ragged": ("width\n1\n1,2\n", "bad.csv is not a CSV file: .*Expected 1 fields in line 3"),
    "long rows": ("width,height\n1,2,3\n", "bad.csv is not a CSV file: its rows have more fields"),
    "no header": ("1.5,2\n3,4\n5,6\n", "first line of bad.csv holds numbers, not column names"),
    "text": ("name\nann\nbob\n", "bad.csv has no column of numbers"),
    "one odd entry": ("width\n1\n2\nx\n", "not numbers: 'width' .'width' holds 'x'."),
    "NaN": ("a,b\n1,\n,2\n", "all of 2 rows of bad.csv have missing values .1 in 'a', 1 in 'b'."),
    "infinity": ("a,b\n1,inf\n-inf,4\n5,-inf\n", "has infinite values, 1 in 'a', 2 in 'b'"),
    "one row": ("width,height\n1,2\n", "1 sample"),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_fit_of_an_invalid_table_is_an_error(folder, capsys, text, message):
    if text is not None:
        write("bad.csv", text)
    assert run("fit bad.csv -o m.skflows --estimator nsf") == 2
    assert re.search(message, only_error(capsys))
    assert not os.path.exists("m.skflows")


@pytest.mark.filterwarnings("default")
def test_a_column_with_many_texts_among_numbers_is_for_a_density_of_tables(folder, capsys):
    """With the remedy where one entry is a mistake."""
    rows = [f"{k % 7}.5,{'n/k' if k % 4 == 0 else k}\n" for k in range(40)]
    write("texts.csv", "width,height\n" + "".join(rows))
    assert run("fit texts.csv -o m.skflows --max-iter 1 --time-limit 1") == 0
    assert capsys.readouterr().out.startswith("TableDensity fitted to 40 rows of 2 columns")
    assert run("fit texts.csv -o m.skflows --max-iter 1 --estimator nsf") == 0
    assert "not numbers are left out: 'height'" in capsys.readouterr().err
    write("bad.csv", "width\n1\n2\nx\n")
    assert run("fit bad.csv -o m.skflows") == 2
    assert "missing with --kind width=continuous" in only_error(capsys)


WIDE = ["fit", "fit --target a0", "outliers"]


@pytest.mark.parametrize("command", WIDE)
def test_too_many_columns_are_an_error_before_the_rows_are_read(
    folder, capsys, monkeypatch, command
):
    pd.DataFrame(np.ones((2, 10_010)).round()).add_prefix("a").to_csv("wide.csv", index=False)
    monkeypatch.setattr(pd, "read_csv", lambda *args, **kw: pytest.fail("the rows were read"))
    assert run(f"{command} wide.csv -o out") == 2
    error = only_error(capsys)
    assert re.search("wide.csv has 100(10|09) columns .* at most 10000 .* with --columns", error)


def test_few_of_many_columns_can_be_chosen(folder, capsys, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(4, 2_000))
    pd.DataFrame(rows).add_prefix("a").to_csv("wide.csv", index=False)
    monkeypatch.setattr(_columns, "MAX_COLUMNS", 2)
    assert run("fit wide.csv -o m.skflows --max-iter 1 --columns a0,a1999") == 0
    assert run("fit wide.csv -o m.skflows --max-iter 1 --columns a0,a1,a2") == 2


def test_work_does_not_grow_with_columns_of_numbers(folder, monkeypatch):
    """They are converted, searched for gaps and checked together, not one by one."""
    calls = []

    def counted(self, *args, getitem=pd.DataFrame.__getitem__):
        calls.append(args)
        return getitem(self, *args)

    table = pd.DataFrame(np.random.default_rng(0).normal(size=(4, 500))).add_prefix("a")
    table.to_csv("wide.csv", index=False)
    frame = _tables.read_table(Path("wide.csv"))
    monkeypatch.setattr(pd.DataFrame, "__getitem__", counted)
    monkeypatch.setattr(pd, "to_numeric", lambda *args, **kw: pytest.fail("one column"))
    _tables.restore_integers(frame)
    chosen = _columns.chosen_columns(frame, "wide.csv")
    assert not _columns.needs_table(chosen)
    found = _columns.complete_numbers(chosen, "wide.csv")
    assert len(calls) < 50
    pd.testing.assert_frame_equal(found, table)


def test_errors_list_only_the_first_column_names(folder, capsys):
    write("bad.csv", ",".join(f"c{i}" for i in range(21)) + "\n" + ",".join("x" * 21) + "\n")
    assert run("fit bad.csv -o m.skflows --columns z") == 2
    assert "'c0', 'c1', 'c2', 'c3', 'c4', 'c5' and 15 more" in only_error(capsys)


@pytest.mark.parametrize("option", ["--target", "--columns", "--exclude", "--id"])
def test_unknown_names_are_an_error_before_the_columns_are_described(folder, capsys, option):
    names = [f"c{i}" for i in range(19)]
    write("german.csv", "day;" + ";".join(names) + "\n" + ("31.12.2024" + ";1,5" * 19 + "\n") * 9)
    assert run(f"fit german.csv -o m.skflows {option} km") == 2
    assert f"no column 'km'; it has 'day', {', '.join(map(repr, names))}\n" in only_error(capsys)


FIT = "fit data.csv -o m.skflows"
BAD_ARGUMENTS = {
    "no command": ("", "COMMAND"),
    "no output": ("fit data.csv", "-o/--output"),
    "unknown architecture": (f"{FIT} --estimator gan", "invalid choice: 'gan'.*nsf"),
    "unknown column": (f"{FIT} --columns width,z", "data.csv has no column 'z'; it has 'width', "),
    "no column": (f"{FIT} --columns ''", "no column is given"),
    "no epoch": (f"{FIT} --max-iter 0", "'0' is not a positive whole number"),
    "half an epoch": (f"{FIT} --max-iter 1.5", "'1.5' is not a positive whole number"),
    "too many outliers": (f"{FIT} --contamination 0.7", "'0.7' is neither auto nor a number"),
    "a word for outliers": (f"{FIT} --contamination few", "'few' is neither auto nor a number"),
    "NaN outliers": (f"{FIT} --contamination nan", "'nan' is neither auto nor a number"),
    "negative seed": (f"{FIT} --random-state -1", "'-1' is not a whole number from 0"),
    "large seed": (f"{FIT} --random-state 4294967296", "is not a whole number .* to 4294967295"),
    "no samples": ("sample model.skflows -n 0", "'0' is not a positive whole number"),
}


@pytest.mark.parametrize(("line", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_invalid_arguments_are_an_error(folder, capsys, line, message):
    assert run(line) == 2
    assert re.search(message, only_error(capsys))
    assert not os.path.exists("m.skflows")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/m.skflows", "cannot write no/m.skflows: No such file or directory"),
        (".", "cannot write .: Is a directory"),
        ("data.csv", "data.csv is an input: choose another output"),
    ],
)
def test_output_is_checked_before_the_table_is_read(folder, capsys, monkeypatch, output, message):
    for module in (_models, _score):
        monkeypatch.setattr(
            module, "open_table", lambda *args, **kw: pytest.fail("the table was read")
        )
    before = sorted(os.listdir()), os.path.getsize("data.csv")
    assert run(f"fit data.csv -o {output}") == 2
    assert message in only_error(capsys)
    assert run(f"score model.skflows data.csv -o {output}") == 2
    assert message in only_error(capsys)
    assert (sorted(os.listdir()), os.path.getsize("data.csv")) == before


def test_failed_fit_does_not_overwrite_the_output(folder, capsys):
    before = (folder / "model.skflows").read_bytes()
    make_frame().assign(species="?", width=["1x"] * 5 + [*range(35)]).to_csv("bad.csv", index=False)
    assert run("fit bad.csv -o model.skflows --columns width --estimator nsf") == 2
    assert "'width'" in only_error(capsys)
    assert (folder / "model.skflows").read_bytes() == before


def test_score_without_a_column_of_the_model_is_an_error(folder, capsys):
    make_frame().rename(columns={"width": "Width"}).to_csv("new.csv", index=False)
    assert run("score model.skflows new.csv -o scores.csv") == 2
    message = (
        "new.csv has no column 'width'; did you mean 'Width'? it has 'Width', 'height', "
        "'weight, kg', 'species'"
    )
    assert message in only_error(capsys)
    assert not os.path.exists("scores.csv")


def test_score_of_a_text_is_an_error(folder, capsys):
    write("new.csv", 'width,height,"weight, kg"\n1,2,3\n1,tall,3\n')
    assert run("score model.skflows new.csv") == 2
    assert re.search("'height' holds 'tall'.; the model", only_error(capsys))


@pytest.mark.filterwarnings("default")
def test_only_texts_are_left_is_an_error(folder, capsys):
    write("texts.csv", "a,b,c\n1,x,y\n2,z,w\n")
    assert run("fit texts.csv -o m.skflows --exclude a --estimator nsf") == 2
    assert "texts.csv has no column of numbers" in only_error(capsys)


@pytest.mark.filterwarnings("default")
def test_rows_with_gaps_are_not_scored(folder, capsys):
    write("new.csv", 'width,height,"weight, kg"\n1,2,3\n1,,3\n2,3,4\n')
    assert run("score model.skflows new.csv -o scores.csv") == 0
    scores = pd.read_csv("scores.csv")
    assert scores.isna().any(axis=1).tolist() == [False, True, False]
    assert "1 of 3 rows of new.csv have missing values (1 in 'height')" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_fit_leaves_out_texts_and_rows_with_gaps(folder, capsys):
    table = make_frame()
    table.loc[3, "height"] = np.nan
    table.to_csv("holes.csv", index=False)
    assert run("fit holes.csv -o m.skflows --max-iter 1 --exclude width --estimator nsf") == 0
    out, err = capsys.readouterr()
    assert "fitted to 39 rows of 2 columns" in out
    assert "columns of holes.csv that are not numbers are left out: 'species'" in err
    assert "1 of 40 rows of holes.csv have missing values (1 in 'height')" in err
    assert [*skflows.load("m.skflows").feature_names_in_] == ["height", "weight, kg"]


@pytest.mark.filterwarnings("default")
def test_texts_dates_and_gaps_are_modelled(folder, capsys, one_class):
    """Unless another density is chosen, from the fit to samples and imputed values."""
    table = make_frame().assign(day=pd.date_range("2024-01-01", periods=40).strftime("%Y-%m-%d"))
    table["n"] = pd.array([None, *range(39)], dtype="Int64")
    table["empty"] = np.nan
    table["code"] = ["00", "07", "B1", "B2"] * 10
    table.loc[3, "height"] = np.nan
    table.loc[4, ["species", "day"]] = None
    table.to_csv("holes.csv", index=False)
    assert run("fit holes.csv -o m.skflows --max-iter 1 --random-state 0") == 0
    out, err = capsys.readouterr()
    assert "TableDensity fitted to 40 rows of 7 columns" in out
    assert "without a value are left out: 'empty'" in err
    assert "on one core" not in err
    assert run("score m.skflows holes.csv -o scores.csv") == 0
    scores = pd.read_csv("scores.csv")
    assert scores.notna().all(axis=None)
    table[:2].assign(species="iris").to_csv("digits.csv", index=False)  # codes could be numbers
    assert run("score m.skflows digits.csv -o scores.csv") == 0
    assert np.isfinite(pd.read_csv("scores.csv")["log_density"]).all()
    assert "'species' has 1 value that the fit has not seen" in capsys.readouterr().err
    table[:2].assign(n=2.5).to_csv("halves.csv", index=False)
    assert run("score m.skflows halves.csv -o scores.csv") == 0
    assert (pd.read_csv("scores.csv")["log_density"] < -10).all()
    assert (
        "X has 2.5 in column 'n' in 2 of 2 rows; its values are whole numbers"
        in capsys.readouterr().err
    )
    assert run("sample m.skflows -n 200 -o drawn.csv --random-state 0") == 0
    assert 0 < pd.read_csv("drawn.csv")["species"].isna().mean() < 0.1
    assert run("sample m.skflows -n 20 -o drawn.csv --random-state 0 --complete") == 0
    drawn = pd.read_csv("drawn.csv")
    assert drawn.pop("empty").isna().all() and drawn.notna().all(axis=None)
    assert set(drawn["species"]) == {"setosa", "virginica"}
    assert drawn["day"].str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    assert run("impute m.skflows holes.csv -o full.csv --method median") == 0
    assert "4 missing values filled in" in capsys.readouterr().out
    assert run("impute m.skflows holes.csv -o - --method median") == 0
    out, err = capsys.readouterr()
    assert out == Path("full.csv").read_text()
    assert "wrote standard output: 4 missing values" in err
    full = pd.read_csv("full.csv", dtype={"code": str}).drop(columns="empty")
    assert full.notna().all(axis=None)
    assert full["day"].str.fullmatch(r"20\d\d-\d\d-\d\d").all()
    assert full["n"].dtype == drawn["n"].dropna().dtype == np.int64
    known = table.drop(index=[0, 3, 4], columns="empty").astype({"n": int})
    pd.testing.assert_frame_equal(full.drop(index=[0, 3, 4]), known)
    assert run("impute model.skflows holes.csv -o full.csv") == 2
    assert "--estimator table" in only_error(capsys)


def test_known_values_are_written_as_they_are(folder, one_class):
    """With a model of other dtypes; imputed values have the decimals of the fit."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": rng.gamma(9, 9, 60).round(1), "n": rng.poisson(90, 60)})
    TableDensity(random_state=0).fit(table).save("table.skflows")
    new = "price,n,id,note\n50,80.0,007,1.50\n55,,008,\n,90.0,NA,3\n"
    write("new.csv", new)
    assert run("impute table.skflows new.csv -o full.csv --method mean") == 0
    rows = Path("full.csv").read_text().splitlines()
    assert rows[0] == "price,n,id,note"
    price, n = rows[3].split(",")[0], rows[2].split(",")[1]
    assert re.fullmatch(r"\d+\.\d", price) and re.fullmatch(r"\d+", n)
    assert [row.split(",", 2)[2] for row in rows[1:]] == ["007,1.50", "008,", "NA,3"]
    assert rows[1] == "50,80.0,007,1.50"


def test_names_and_identifiers_are_found(folder, capsys, one_class):
    """Whether the model has the column or not, and where a cell was quoted for spreadsheets."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.integers(20, 90, 60), "@n": rng.normal(size=60)})
    TableDensity(random_state=0).fit(table).save("table.skflows")
    NSFDensity(max_iter=1).fit(table.to_numpy(float)).save("array.skflows")
    table.loc[5, "@n"] = np.nan
    table["code"], table["@id"] = "007", "NA"
    _tables.write_table(table, Path("t.csv"))
    assert Path("t.csv").read_text().startswith("age,'@n,code,'@id\n")
    assert run("impute table.skflows t.csv -o full.csv") == 0
    assert pd.read_csv("full.csv")["'@n"].notna().all()
    for name in ("age", "@n", "code", "@id"):
        assert run(f"score table.skflows t.csv --id {name} -o scores.csv") == 0
        (header, *_), (own, *_) = csv.reader(Path("scores.csv").read_text().splitlines()[:2])
        assert header.lstrip("'") == name and own == str(table[name][0])
    table = table.fillna(0.0).drop(columns="@id")
    _tables.write_table(table, Path("t.csv"))
    assert run("score array.skflows t.csv --id code") == 0
    assert "\n007," in capsys.readouterr().out
    table.assign(outlier=1).to_csv("taken.csv", index=False)
    assert run("score array.skflows taken.csv --id outlier") == 2
    assert "has a column 'outlier', which the output adds" in only_error(capsys)


@pytest.mark.filterwarnings("default:these columns of data.csv seem")
def test_columns_that_name_the_rows_are_pointed_out(folder, capsys):
    table = make_frame().assign(number=range(40), day=pd.date_range("2024-01-01", periods=40))
    table.assign(code=[f"c{i}" for i in range(40)]).to_csv("data.csv", index=False)
    for options in ("--exclude species,day,code", "--target width --exclude species --id code"):
        assert run(f"fit data.csv -o m.skflows --max-iter 1 {options}") == 0
        assert "seem to identify rows: 'number'; exclude" in capsys.readouterr().err
    options = f"--columns '{COLUMNS}' --id code"
    assert run(f"fit data.csv -o m.skflows --max-iter 1 {options}") == 0
    assert capsys.readouterr().err == ""
    assert run("score m.skflows data.csv --id code") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "code,log_density,outlier" and out[40].startswith("c39,")


@pytest.mark.filterwarnings("default")
def test_names_and_addresses_are_left_out(folder, capsys, one_class):
    """With one message; samples have placeholders, and imputed tables the names as they are."""
    table = make_frame().assign(name=[f"Person {i}" for i in range(40)])
    table.loc[3, ["height", "name"]] = None
    table.to_csv("people.csv", index=False)
    assert run("fit people.csv -o m.skflows --max-iter 1 --random-state 0") == 0
    err = capsys.readouterr().err
    assert "'name' seems to name the rows" in err and "identify rows" not in err
    assert "use --kind name=categorical." in err and "columns={" not in err
    assert run("sample m.skflows -n 200 -o drawn.csv --random-state 0 --complete") == 0
    assert pd.read_csv("drawn.csv")["name"].tolist() == [f"Name {i}" for i in range(1, 201)]
    assert run("sample m.skflows -n 2 -o some.csv --given name=Ann") == 0
    assert "--given name=Ann: the model leaves this column out" in capsys.readouterr().err
    assert run("impute m.skflows people.csv -o full.csv") == 0
    assert "full.csv: 1 missing values filled in" in capsys.readouterr().out
    full = pd.read_csv("full.csv")
    pd.testing.assert_series_equal(full["name"], table["name"], check_dtype=False)
    assert full["height"].notna().all()
    assert run("outliers people.csv -o odd.csv --quick") == 0
    assert "that seem to name the rows are left out: 'name'" in capsys.readouterr().err
    odd = pd.read_csv("odd.csv")
    assert odd["name"].notna().sum() == 39 and "name" not in set(odd["oddest_column"])


def test_many_texts_are_pointed_out_once(recwarn):
    """Samples repeat names of persons, unless they name the rows."""
    codes = [f"c{i}" for i in range(500)]
    table = pd.DataFrame({"x": 0.5, "code": codes, "who, when": codes[:201] * 2 + codes[:98]})
    table["city"] = table["who, when"].replace("c200", "c1")
    table["day"] = pd.date_range("2024-01-01", periods=500)
    _columns.warn_of_many_texts(table, "t.csv", [])
    (warning,) = recwarn
    message = "201 in 'who, when', and samples repeat them: if they name persons or rows, add "
    assert f"{message}--kind 'who, when'=identifier, and samples" in str(warning.message)
    _columns.warn_of_many_texts(table, "t.csv", ["who, when"])
    assert len(recwarn) == 1


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ([f"0{1000 + i}" for i in range(40)], True),
        ([f"{1000 + i}" for i in range(40)], False),
        (np.arange(1001, 1041), True),
        (np.arange(1990, 2030), False),  # years
        (np.arange(40) * 1000, False),
        (np.linspace(-(2**63), 2**63 - 1025, 40).astype(np.int64), False),  # hashes
        ([f"c{i}" for i in range(40)], True),
        (["a", "b"] * 20, False),
        ([f"${1000 + i:,}" for i in range(40)], False),
        ([f"555 {1000 + i}" for i in range(40)], True),
        ([f"100 {200 + i}" for i in range(40)], True),
    ],
)
def test_columns_that_seem_to_identify_rows(column, names):
    assert names_rows(pd.Series(column).dropna().to_numpy()) == names


def test_parquet_round_trip(folder, one_class):
    """Categories, dates and gaps keep their dtypes."""
    pytest.importorskip("pyarrow")
    table = make_frame().astype({"species": "category"})
    table["day"] = pd.date_range("2024-01-01", periods=len(table))
    table.loc[3, "height"] = None
    table.to_parquet("table.parquet", index=False)
    assert run("fit table.parquet -o m.skflows --max-iter 1 --random-state 0") == 0
    assert run("sample m.skflows -n 20 -o drawn.parquet --random-state 0") == 0
    assert run("impute m.skflows table.parquet -o full.parquet") == 0
    drawn, full = pd.read_parquet("drawn.parquet"), pd.read_parquet("full.parquet")
    assert drawn.dtypes.to_dict() == full.dtypes.to_dict() == table.dtypes.to_dict()
    assert full["height"].notna().all()
    pd.testing.assert_frame_equal(full.drop(index=3), table.drop(index=3))


FORMATS = {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs and decimal commas": lambda text: text.replace(",", "\t").replace(".", ",").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Windows": lambda text: text.replace("height", "höhe").replace("\n", "\r\n").encode("cp1252"),
    "mark of UTF-8": lambda text: text.encode("utf-8-sig"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_tables_of_other_formats_are_read(folder, name):
    table = make_frame()[["width", "height"]].round(3)
    write("other.csv", FORMATS[name](table.to_csv(index=False)))
    assert run("fit other.csv -o m.skflows --max-iter 1 --random-state 0") == 0
    table.to_csv("plain.csv", index=False)
    assert run("fit plain.csv -o plain.skflows --max-iter 1 --random-state 0") == 0
    models = [skflows.load(path) for path in ("m.skflows", "plain.skflows")]
    for model in models:
        del model.feature_names_in_
    np.testing.assert_array_equal(*[model.score_samples(table.to_numpy()) for model in models])


def test_separator_and_decimal_mark_can_be_given(folder):
    write("odd.csv", "a:b\n1,5:2\n2,5:3\n3,5:4\n")
    assert run("fit odd.csv -o m.skflows --max-iter 1 --sep : --decimal ,") == 0
    assert [*skflows.load("m.skflows").feature_names_in_] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "sep", "likely"),
    [
        ("a;b;c\n1,5;2;x\n2,5;3;y\n", ",", ";"),
        ("a;b\n1;2\n2;3\n", "\t", ";"),
        ("a,b,c\n1,2,x y\n2,3,z\n", " ", ","),
        ("id,tags\n1,a;b;c\n2,a;b;c\n", ",", None),
        ("id,one;two;three\n1,a;b;c\n2,a;b;c\n", ",", None),  # both split all lines
        ("Sales; of; May\nid,n\n1,a;b;c\n2,a;b;c\n", ",", None),
        ("a:b;c\n1:2;3\n4:5;6\n", ":", None),
    ],
)
def test_a_separator_that_splits_no_lines_is_an_error(tmp_path, text, sep, likely):
    (tmp_path / "t.csv").write_text(text)
    if likely is None:
        _tables.open_table(tmp_path / "t.csv", sep)
        return
    with pytest.raises(
        ValueError, match=f"looks separated by {likely!r}, not by {re.escape(repr(sep))}"
    ):
        _tables.open_table(tmp_path / "t.csv", sep)


# What cells mean


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("text", "kinds", "message"),
    [
        ("code,x\n01000,1\n20095,2\n", "on", "'code' is read as texts, since numbers such as '01"),
        ("code;x\n-007;1,5\n;2\n", "on", "'code' is read as texts, since numbers such as '-007'"),
        ("code,x\n0.5,0\n-0.25,10\n0,-0\n", "nn", ""),
        ("day,code\n2024-01-05,a01\n2024-01-06,01\n", "oo", ""),  # are texts anyhow
        ("a;b\n123,456;3\n20,5;4\n", "nn", ""),
        (
            "a;b\n123,456;3\n7;4\n",
            "nn",
            "'a' has the number 123,456, read as 123.456: .* --thousands ,",
        ),
        (
            "a;b\n1;3.125\n7;4\n",
            "nn",
            "'b' has the number 3.125, .* --thousands [.]",
        ),
        ("a;b\n0.125;3.125\n1;2.5\n", "nn", ""),
        ("a\tb\n1\t3.125\n7\t4\n", "nn", ""),
        ("a;b\n4.093,35;0,007\n;1\n12;2\n", "nn", ""),
        ("a;b\n2.146;0,07\n12;1\n", "nn", "'a' .* such as '2.146', read as 2146; since"),
        ("a;b\n31.12.2024;0,07\n1.2.3;1\n", "on", ""),
    ],
)
def test_numbers_are_read_as_they_are_written(tmp_path, text, kinds, message, recwarn):
    path = tmp_path / "t.csv"
    path.write_text(text)
    frame = _tables.read_table(path)
    are_numbers = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    assert "".join("n" if is_number else "o" for is_number in are_numbers) == kinds
    warned = [str(w.message) for w in recwarn]
    assert len(warned) == bool(message) and all(re.search(message, w) for w in warned)


@pytest.mark.filterwarnings("ignore:column 'zip' is read as texts")
def test_leading_zeros_are_found_wherever_they_are(tmp_path, small_blocks):
    small_blocks()
    (tmp_path / "parts").mkdir()
    pd.DataFrame({"zip": range(10_000, 10_100)}).to_csv(tmp_path / "parts/0.csv", index=False)
    (tmp_path / "parts/1.csv").write_text("zip\n" + "20000\n" * 200 + "01000")
    for n_rows in (None, 7):
        batches = list(_tables.open_table(tmp_path / "parts").batches(n_rows))
        found = pd.concat(batches)["zip"]
        assert found.iloc[[0, -1]].tolist() == ["10000", "01000"]
        assert all(batch["zip"].map(type).eq(str).all() for batch in batches)


def test_dots_of_thousands_are_left_out_of_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a;b;c\n4.093,35;1.234.567;x\n;-1.000.000;2.146,5\n12;7;y\n")
    frame = _tables.read_table(path)
    np.testing.assert_array_equal(frame["a"], [4093.35, np.nan, 12])
    assert frame["b"].tolist() == [1234567, -1000000, 7]
    assert frame["c"].tolist() == ["x", "2.146,5", "y"]
    batches = list(_tables.open_table(path, decimal=",", texts=["b"]).batches(1))
    assert [batch["a"].iloc[0] for batch in batches[::2]] == [4093.35, 12]
    assert batches[0]["b"].tolist() == ["1.234.567"]  # as the fit had it


@pytest.mark.filterwarnings("default")
def test_quoted_decimal_commas_are_numbers_as_texts(folder, capsys, one_class):
    numbers = pd.Series(range(60)) + 0.38
    table = make_frame(60).assign(revenue=numbers.map(lambda x: f"{x:.2f}".replace(".", ",")))
    table.to_csv("comma.csv", index=False)
    assert run("fit comma.csv -o m.skflows --quick --max-iter 1 --exclude species") == 0
    assert "identify rows" not in capsys.readouterr().err
    assert [*skflows.load("m.skflows").feature_names_in_][3] == "revenue"
    assert run("sample m.skflows -n 20 -o drawn.csv") == 0
    assert pd.read_csv("drawn.csv")["revenue"].str.fullmatch(r"-?\d+,\d\d").all()
    table = _tables.read_table(Path("comma.csv"), decimal=",")
    np.testing.assert_array_equal(table["revenue"], numbers.round(2))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("text", "n_columns", "message"),
    [
        ("Report\n\na;b;c\n1;2;3\n4;5;6\n7;8;9\n", 3, "first 2 lines of .*, 'Report', are no part"),
        ("Report;;\na;b;c\n1;2;3\n4;5;6\n7;8;9\n", 3, "first line of .*, 'Report', is no part"),
        ("Report, 2024\na;b;;\n1;2;;\n4;5;;\n7;8;;\n", 4, "first line of .*, 'Report, 2024', is"),
        ("a;b\n1;2\n4;5\n7;8\n", 2, ""),
        ("a\n1\n4\n7\n", 1, ""),
        ("a,b\n,2\n4,5\n7,8\n", 2, ""),
    ],
)
def test_titles_are_skipped(tmp_path, text, n_columns, message, recwarn):
    path = tmp_path / "t.csv"
    path.write_text(text)
    source = _tables.open_table(path)
    frame = source.read()
    assert frame.shape == (3, n_columns)
    assert next(iter(frame)) == "a"
    (raw,) = source.raw_batches(None)
    assert [*raw] == [*frame] and len(raw) == 3
    warned = [str(w.message) for w in recwarn]
    assert len(warned) == bool(message) and all(re.search(message, w) for w in warned)


@pytest.mark.filterwarnings("default")
def test_words_that_are_read_as_missing_are_counted(folder, tmp_path, capsys, recwarn):
    path = tmp_path / "t.csv"
    path.write_text(
        "cc,kind,n,day,ok\nNA,None,NA,NA,NA\nDE,big,1,2024-01-01,True\nNA,null,2,NA,False\n\n"
    )
    frame = _tables.read_table(path)
    (warned,) = [str(w.message) for w in recwarn]
    assert warned.startswith(
        "'NA' in 2 of 3 rows of 'cc', 'None' in 1 of 3 rows of 'kind', 'null' in 1 of 3 rows of "
        "'kind': read as missing"
    )
    assert frame["cc"].isna().tolist() == [True, False, True]
    recwarn.clear()
    table = _tables.open_table(path, texts=["cc"])
    (warned,) = [str(w.message) for w in recwarn]
    assert warned.startswith("'NA' in 2 of 3 rows of 'cc': read as missing")
    recwarn.clear()
    _tables.open_table(path, texts=["cc"], form=table.form)  # as in later commands
    path.with_stem("new").write_text("cc,kind,n,day,ok\nnull,big,1,,\n")
    _tables.open_table(path.with_stem("new"), texts=["cc"], form=table.form)
    (warned,) = [str(w.message) for w in recwarn]
    assert warned.startswith("'null' in 1 of 1 rows of 'cc': read as missing")
    recwarn.clear()
    _tables.open_table(path, texts=["cc"], codes=["cc"])
    _tables.read_table(path, used=["n", "day", "ok"])
    assert not recwarn.list


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("cells", "n_missing"),
    [
        (["DE", "NA", "FR", "", "NA"], 1),
        (["DE", "NA", "DE", "N/A"], 2),  # one other code may be a state, such as OK
        (["DE", "NA", "FRA"], 1),
        (["1", "NA", "2"], 1),
    ],
)
def test_a_column_of_two_letter_codes_keeps_namibia(tmp_path, capsys, cells, n_missing, recwarn):
    path = tmp_path / "t.csv"
    path.write_text("x,country\n" + "".join(f"1,{cell}\n" for cell in cells))
    (frame,) = _tables.open_table(path).batches(100)
    assert frame["country"].isna().sum() == n_missing
    warned = [str(w.message) for w in recwarn]
    assert len(warned) == (cells[0] == "DE" or "FRA" in cells)
    expected = "codes of two letters" if n_missing == cells.count("") else "read as missing"
    assert all(expected in w for w in warned)
    used = _tables.read_table(path, used=["x"])
    assert used["country"].tolist()[1] == "NA"  # a column that is not used is as it is written


def test_codes_of_rows_that_have_na_elsewhere_are_missing(tmp_path, recwarn):
    path = tmp_path / "t.csv"
    rows = ["DE,Bonn,1", "FR,Lyon,2", "NA,NA,3", "NA,NA,4", "NA,Walvis Bay,5"]
    path.write_text("\n".join(["country,town,x", *rows]))
    assert _tables.read_table(path)["country"].isna().sum() == 3
    assert not any("codes of two letters" in str(w.message) for w in recwarn)
    path.write_text("\n".join(["country,town,x", *rows[:3], rows[-1], "NA,Windhoek,6"]))
    assert not _tables.read_table(path)["country"].isna().any()


@pytest.mark.filterwarnings("default")
def test_codes_of_the_fit_are_codes_of_later_rows(folder, capsys, one_class):
    table = make_frame(60).assign(country=["NA", "DE", "FR"] * 20, code=["01", "02"] * 30)
    table.to_csv("world.csv", index=False)
    assert run("fit world.csv -o m.skflows --estimator table --random-state 0") == 0
    err = capsys.readouterr().err
    assert "'country' holds codes of two letters" in err and "'code' is read as texts" in err
    assert skflows.load("m.skflows").levels("country") == ["DE", "FR", "NA", "(rare)"]
    assert skflows.load("m.skflows").levels("code") == ["01", "02", "(rare)"]
    table[:1].assign(code="1").to_csv(
        "new.csv", index=False
    )  # one row would be a gap, and a number
    assert run("score m.skflows new.csv -o scores.csv") == 0
    assert "country" not in capsys.readouterr().err
    assert run("fit world.csv -o r.skflows --target width --max-iter 1 --random-state 0") == 0
    assert run("predict r.skflows world.csv -o whole.csv") == 0
    table[:1].to_csv("new.csv", index=False)
    assert run("predict r.skflows new.csv -o first.csv") == 0
    first, whole = pd.read_csv("first.csv"), pd.read_csv("whole.csv")
    pd.testing.assert_frame_equal(first, whole[:1])
    mean = skflows.load("r.skflows").predict(table[:1].drop(columns="width"))
    np.testing.assert_allclose(first["mean"], mean)


def test_columns_that_are_not_used_are_not_spoken_of(folder, capsys):
    make_frame().assign(zip="01000").to_csv("zip.csv", index=False)
    for options in (
        f"--columns '{COLUMNS}'",
        "--exclude zip,species",
        "--id zip --exclude species",
    ):
        assert run(f"fit zip.csv -o m.skflows --max-iter 1 {options}") == 0
        assert capsys.readouterr().err == ""
    assert run("fit zip.csv -o m.skflows --columns width,zip --estimator nsf") == 2


def test_leading_zeros_are_no_numbers_for_a_flow(folder, capsys):
    make_frame().assign(zip="01000").to_parquet("zip.parquet")
    assert run("fit zip.parquet -o m.skflows --columns width,zip --estimator nsf") == 2
    assert "not numbers: 'zip' ('zip' holds '01000': if it" in only_error(capsys)
    frame = pd.DataFrame({"zip": ["12000", "01000"], "name": ["01000", "Bonn"]})
    with pytest.raises(ValueError, match=r"'zip' holds '01000': if it .* remove leading zeros"):
        _columns.numbers(frame, "t.csv")
    with pytest.raises(ValueError, match="'name' holds 'Bonn'"):
        _columns.numbers(frame[["name"]], "t.csv")


@pytest.mark.parametrize("name", ["price", "unit price", "weight, kg", 'the "net" price', "cost's"])
def test_remedies_are_commands_for_all_names(name):
    frame = pd.DataFrame({name: ["1", "2", "x"]})
    with pytest.raises(ValueError, match="'x'") as error:
        _columns.numbers(frame, "t.csv", _columns.REMEDY_OF_FIT)
    text = str(error.value)
    exclude = text.partition("--exclude ")[2].partition(", or read")[0]
    kind = text.partition("--kind ")[2].partition(", by a density")[0]
    assert [_arguments.names(word) for word in shlex.split(exclude)] == [[name]]
    kinds = [_arguments.kind(word) for word in shlex.split(kind)]
    assert kinds == [(name, ("continuous",))]


@pytest.mark.parametrize("content", ["gzip", "UTF-8"])
def test_carriage_returns_end_lines(folder, content):
    table = make_frame()[["width", "height"]]
    text = table.to_csv(index=False, lineterminator="\r").encode()
    write("old.csv", gzip.compress(text) if content == "gzip" else text)
    source = _tables.open_table(Path("old.csv"))
    assert (source.n_rows, source.n_columns) == (40, 2)
    pd.testing.assert_frame_equal(source.read(), table)
    assert run("fit old.csv -o m.skflows --max-iter 1") == 0


NOT_MODELS = {
    "missing": (None, "cannot read bad.skflows: No such file or directory"),
    "text": (lambda: write("bad.skflows", "hello"), "bad.skflows is not a model of skflows"),
    "pickle": (lambda: joblib.dump({}, "bad.skflows"), "not a model .* add --allow-pickle"),
    "dict": (
        lambda: joblib.dump({}, "bad.skflows"),
        "not a fitted model of skflows: .* a dict",
        "--allow-pickle",
    ),
    "no pickle": (lambda: write("bad.skflows", "x"), "not a pickle", "--allow-pickle"),
    "unfitted": (lambda: NSFDensity().save("bad.skflows"), "not a fitted model .*NSFDensity"),
    "detector": (
        lambda: DensityOutlierDetector(NSFDensity(), cv=None).save("bad.skflows"),
        "not a model for this command: it holds a DensityOutlierDetector, which .* in Python",
    ),
}


@pytest.mark.parametrize("command", ["score bad.skflows data.csv", "sample bad.skflows"])
@pytest.mark.parametrize("kind", NOT_MODELS)
def test_file_that_is_not_a_fitted_model_is_an_error(folder, capsys, command, kind):
    make, message, *options = NOT_MODELS[kind]
    if make is not None:
        make()
    assert run(" ".join([command, *options])) == 2
    assert re.search(message, only_error(capsys))


@pytest.mark.parametrize(
    "line", ["fit data.csv -o m.skflows", "score model.skflows data.csv", "sample model.skflows"]
)
def test_missing_pandas_is_an_error(folder, capsys, monkeypatch, line):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run(line) == 2
    assert "needs pandas: pip install pandas" in only_error(capsys)


# Pickles, standard input and output, errors that nobody foresaw


def test_pickles_are_loaded_on_demand(folder, capsys):
    joblib.dump(skflows.load("model.skflows"), "model.joblib")
    assert run("sample model.joblib -n 2 --random-state 0 --allow-pickle") == 0
    from_pickle = capsys.readouterr().out
    assert run("sample model.skflows -n 2 --random-state 0") == 0
    assert capsys.readouterr().out == from_pickle


def test_malicious_pickle_does_not_run(folder, capsys):
    class Payload:
        def __reduce__(self):
            return open, ("ran", "w")

    with open("bad.skflows", "wb") as file:
        pickle.dump(Payload(), file)
    assert run("score bad.skflows data.csv") == 2
    assert not os.path.exists("ran")


def test_dash_is_standard_input_and_output(folder, capsysbinary, monkeypatch):
    def give(name):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(name).read_bytes())))

    give("data.csv")
    assert run(f"fit - -o - --columns '{COLUMNS}' --max-iter 1 --random-state 0") == 0
    out, err = capsysbinary.readouterr()
    assert b"fitted to 40 rows of 3 columns" in err
    Path("piped.skflows").write_bytes(out)
    assert skflows.load("piped.skflows").n_iter_ == 1
    give("data.csv")
    assert run("score piped.skflows - -o -") == 0
    from_pipe, err = capsysbinary.readouterr()
    assert b"of 40 rows as outliers" in err
    assert run("score piped.skflows data.csv") == 0
    assert capsysbinary.readouterr().out == from_pipe
    give("piped.skflows")
    assert run("sample - -n 3 -o -") == 0
    assert capsysbinary.readouterr().out.count(b"\n") == 4
    assert not os.path.exists("-")


def test_unforeseen_error_is_one_line_and_a_traceback_on_demand(folder, capsys, monkeypatch):
    def fail(path):
        raise KeyError("cause")

    monkeypatch.setattr(_model_files, "load", fail)
    assert run("sample model.skflows") == 2
    assert only_error(capsys) == "skflows: error: KeyError: 'cause' (--debug shows where)\n"
    with pytest.raises(KeyError):
        run("sample model.skflows --debug")


def test_whole_numbers_stay_whole(folder, capsys):
    table = pd.DataFrame(np.random.default_rng(0).poisson(3, (60, 2)), columns=["a", "b"])
    table.assign(c=np.linspace(0, 1, 60)).to_csv("counts.csv", index=False)
    assert run("fit counts.csv -o m.skflows --max-iter 1") == 0
    assert run("sample m.skflows -n 5 -o samples.csv") == 0
    assert [*pd.read_csv("samples.csv").dtypes] == ["int64", "int64", "float64"]


def test_written_cells_are_no_formulas(folder):
    columns = {"text": ["=1+1", "@x", "-5", "-a", "ok", "+1e3"], "=name": [-1, 2, 3, 4, 5, 6]}
    _tables.write_table(columns, Path("out.csv"))
    written = pd.read_csv("out.csv", dtype=str)
    assert [*written] == ["text", "'=name"]
    assert [*written["text"]] == ["'=1+1", "'@x", "-5", "'-a", "ok", "+1e3"]
    assert written["'=name"][0] == "-1"


@pytest.mark.parametrize("first", ["\n", "\r", "\t", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_written_cells_do_not_begin_with_what_some_spreadsheet_skips(folder, first):
    _tables.write_table({f"{first}name": [f"{first}=1+1", "ok"]}, Path("out.csv"))
    with open("out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [[f"'{first}name"], [f"'{first}=1+1"], ["ok"]]


def test_a_carriage_return_begins_no_row(folder):
    table = pd.DataFrame({"text": ["a\r=1+1", None], "x": [1.5, 2.5]})
    _tables.write_table(table, Path("out.csv"))
    pd.testing.assert_frame_equal(_tables.read_table(Path("out.csv")), table, check_dtype=False)


@pytest.mark.filterwarnings("error")
def test_categories_of_texts_are_read_as_texts(folder, capsys, mixed_table):
    table = mixed_table.assign(code=pd.Categorical(["01", "02"] * 100))
    TableDensity(max_iter=1, n_orders=1, cv=2, random_state=0).fit(table).save("table.skflows")
    table.to_csv("table.csv", index=False)
    assert run("score table.skflows table.csv -o scores.csv") == 0
    assert "as many rows as the fit" in capsys.readouterr().err
    expected = skflows.load("table.skflows").score_samples(table)
    np.testing.assert_allclose(pd.read_csv("scores.csv")["log_density"], expected, rtol=1e-12)
    table[1:].to_csv("table.csv", index=False)
    assert run("score table.skflows table.csv -o scores.csv") == 0
    assert capsys.readouterr().err == ""


# Ctrl-C


def press_ctrl_c(monkeypatch, epoch):
    """Interrupt the process in this epoch of a fit."""

    def interrupt(self, history, max_iter):
        if len(history.loss) == epoch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(FlowDensity, "_print_progress", interrupt)


@pytest.mark.filterwarnings("default")
def test_ctrl_c_during_training_stores_the_best_model(folder, capsys, monkeypatch):
    press_ctrl_c(monkeypatch, epoch=2)
    handler = signal.getsignal(signal.SIGINT)
    code = run("fit data.csv -o m.skflows --columns width --max-iter 50")
    assert code == 130
    assert skflows.load("m.skflows").n_iter_ == 2
    out, err = capsys.readouterr()
    assert "wrote m.skflows" in out
    assert err.startswith("skflows: warning: Training was interrupted after 2 epochs")
    assert err.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_before_the_training_stores_nothing(folder, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_models, "open_table", interrupt)
    assert run("fit data.csv -o m.skflows") == 130
    assert capsys.readouterr() == ("", "skflows: interrupted\n")
    assert not os.path.exists("m.skflows")


# The arguments of a process that is interrupted by the import of a module.
INTERRUPTED_IMPORT = """
import os, signal, sys
program, module = sys.argv[1:]
sys.argv[0] = program.strip("!")
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from skflows.cli import main
"""


@pytest.mark.parametrize("module", ["sklearn", "skflows.ensemble", "skflows.cli._main"])
def test_ctrl_c_while_importing(module):
    def found(program):
        call = [sys.executable, "-c", f"{INTERRUPTED_IMPORT}main([])", program, module]
        process = subprocess.run(call, capture_output=True, text=True)
        return process.returncode, process.stderr

    assert found("/usr/bin/skflows") == (130, "skflows: interrupted\n")
    if module == "sklearn":  # other programs are left alone, and processes with given arguments
        for program in ("/usr/bin/program", "!/usr/bin/skflows"):
            code, error = found(program)
            assert code != 130 and "KeyboardInterrupt" in error


@pytest.mark.parametrize("n_finished", [0, 1])
@pytest.mark.filterwarnings("default")
def test_ctrl_c_stores_the_finished_components_of_a_table(folder, capsys, monkeypatch, n_finished):
    from skflows.table import _components

    fit_fold, fitted = _components.fit_fold, set()

    def interrupt(fit, *args):
        if fit not in fitted and len(fitted) == n_finished:
            signal.raise_signal(signal.SIGINT)
        fitted.add(fit)
        return fit_fold(fit, *args)

    monkeypatch.setattr(_components, "fit_fold", interrupt)
    # A short time limit keeps the fit in this process.
    assert run("fit data.csv -o m.skflows --time-limit 29 --random-state 0") == 130
    err = capsys.readouterr().err
    if n_finished:
        assert "interrupted after 1 of" in err
        assert len(skflows.load("m.skflows").component_names_) == 1
    else:
        assert err.endswith("interrupted: no part of the model was finished, nothing saved\n")
        assert not os.path.exists("m.skflows")


# The process


def test_version_and_help_do_not_load_torch(tmp_path):
    code = """
import runpy, sys
for flag in "--version", "--help":
    sys.argv = ["skflows", flag]
    try:
        runpy.run_module("skflows", run_name="__main__")
    except SystemExit as exit:
        assert exit.code == 0
assert not {"torch", "skflows.conditional", "sklearn.ensemble"} & set(sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"skflows {skflows.__version__}\n")
    assert "skflows fit data.csv -o model.skflows" in result.stdout
    assert "need --allow-pickle" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no BrokenPipeError on Windows")
def test_closed_pipe_ends_the_command_without_an_error_message(folder, capsys, monkeypatch):
    """Like `skflows sample ... | head`, whose reader stops before the last row."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run("sample model.skflows -n 5000") == 1
        # Buffered output is discarded: flushing it, as Python does at exit, raises no error.
        print("more", flush=True)
    assert capsys.readouterr().err == ""


# The demo


@pytest.fixture
def small_grids(monkeypatch):
    monkeypatch.setattr(_demo, "MIXTURES", {"covariance_type": ["diag"], "n_components": [40]})
    monkeypatch.setattr(_demo, "KERNELS", {"bandwidth": [0.4]})


def test_demo_compares_a_flow_with_its_baselines(folder, capsys, small_grids):
    assert run("demo -o picture.png --max-iter 1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "1437 rows to fit and tune, 360 held out" in out
    assert re.search(r"GaussianMixture .* [+-]\d\.\d\d ± 0\.\d\d", out)
    assert re.search(r"The flow is (ahead of|level with|behind) GaussianMixture and ", out)
    assert "n_components=40" in out
    assert "bandwidth=0.4" in out
    assert out.count("\nrow ") == _demo.N_ANOMALIES
    assert "wrote picture.png; " in out
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("lead", "expected"),
    [(1.0, "ahead of"), (0.3, "level with"), (-0.3, "level with"), (-1, "behind")],
)
def test_demo_compares_the_lead_with_its_standard_error(lead, expected):
    assert _demo.verdict(lead, 0.2) == expected


def test_demo_scores_baselines_in_the_units_of_the_table():
    from sklearn.mixture import GaussianMixture

    X = np.random.default_rng(0).normal(size=(200, 2))
    grid = {"n_components": [1]}
    scores, _ = _demo.tuned_scores(GaussianMixture(), grid, X, X)
    wider, _ = _demo.tuned_scores(GaussianMixture(), grid, X * [10, 1], X * [10, 1])
    np.testing.assert_allclose(scores - wider, np.log(10))


@pytest.mark.parametrize(
    ("output", "message"),
    [("no/x.png", "cannot write no/x.png"), ("x.doc", "must end in one of"), ("x", "must end in")],
)
def test_demo_checks_the_output_before_the_table_is_loaded(
    folder, capsys, monkeypatch, output, message
):
    monkeypatch.setattr(_demo, "load_table", lambda: pytest.fail("the table was loaded"))
    assert run(f"demo -o {output}") == 2
    assert message in only_error(capsys)


def test_demo_without_matplotlib_is_an_error(folder, capsys, monkeypatch):
    monkeypatch.setattr("skflows.inspection._common.find_spec", lambda name: None)
    assert run("demo") == 2
    assert "pip install matplotlib" in only_error(capsys)


@pytest.mark.filterwarnings("default")
def test_ctrl_c_ends_the_demo_without_a_picture(folder, capsys, monkeypatch):
    press_ctrl_c(monkeypatch, epoch=1)
    assert run("demo -o picture.png") == 130
    assert capsys.readouterr().err.endswith("\nskflows: interrupted\n")
    assert not os.path.exists("picture.png")
