"""Tables that the command reads in batches and trains on in parts, as CSV and as Parquet."""

import io
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _densities import banana, small
from _tables import two_components  # noqa: F401 - a fixture

import skflows
from skflows import TableDensity
from skflows.cli import _arguments, _main, _progress, _stored_rows, _tables

pyarrow = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.filterwarnings("default")  # the command shows them
N = 10_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Change to a folder with a table as CSV, as Parquet and as folders of both, and a model."""
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame(banana(300), columns=["a", "b"]).assign(text="x")
    table.loc[[3, 150], "a"] = np.nan
    table.to_csv("t.csv", index=False)
    table.to_parquet("t.parquet", row_group_size=70)
    Path("parts", "deeper").mkdir(parents=True)
    Path("texts").mkdir()
    for i, name in enumerate(["0", "1", "deeper/2"]):
        part = table[100 * i : 100 * (i + 1)]
        part.to_parquet(f"parts/{name}.parquet")
        part.to_csv(f"texts/{i}.csv", index=False)
    Path("parts", "_SUCCESS").touch()
    small("nsf").fit(table[["a", "b"]].dropna()).save("m.skflows")
    return tmp_path


def run(line):
    return _main.main(line.split())


SOURCES = ["t.csv", "t.parquet", "parts", "texts", "-"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("output", ["s.csv", "s.parquet"])
def test_scores_do_not_depend_on_format_and_batches(
    source, output, folder, small_blocks, monkeypatch, capsys
):
    small_blocks()
    content = io.TextIOWrapper(io.BytesIO(Path("t.csv").read_bytes()))
    monkeypatch.setattr(sys, "stdin", content)
    assert run(f"score m.skflows {source} -o {output}") == 0
    assert f"2 of 300 rows of {source} have missing values (2 in 'a')" in capsys.readouterr().err
    scored = pd.read_csv(output) if output == "s.csv" else pd.read_parquet(output)
    table = pd.read_csv("t.csv")[["a", "b"]]
    expected = skflows.load("m.skflows").score_samples(table.dropna())
    assert scored["log_density"].isna().to_numpy().nonzero()[0].tolist() == [3, 150]
    np.testing.assert_allclose(scored["log_density"].dropna(), expected, rtol=1e-13)
    assert scored["outlier"].notna().sum() == 298


@pytest.mark.parametrize("source", SOURCES[:4])
def test_fit_does_not_depend_on_the_format(source, folder):
    for path, name in (("t.csv", "plain"), (source, "other")):
        line = f"fit {path} -o {name} --estimator realnvp --max-iter 1 --random-state 0"
        assert run(line) == 0
    rows = pd.read_csv("t.csv")[["a", "b"]].dropna()
    scores = [skflows.load(name).score_samples(rows) for name in ("plain", "other")]
    np.testing.assert_allclose(*scores, rtol=1e-12)


def test_tables_of_texts_are_scored_in_batches(folder, small_blocks, capsys, one_class):
    table = pd.DataFrame({"kind": ["u", "v", "w"] * 20, "x": np.arange(60.0)})
    TableDensity(handle_unknown="rare", random_state=0).fit(table).save("table.skflows")
    new = pd.DataFrame({"kind": ["u", "z", None, "y"] * 10, "x": np.arange(40.0)})
    new.to_csv("new.csv", index=False)
    assert run("score table.skflows new.csv -o whole.csv") == 0
    capsys.readouterr()
    small_blocks()
    assert run("score table.skflows new.csv -o batches.csv") == 0
    assert "column 'kind' has 2 values that the fit has not seen" in capsys.readouterr().err
    pd.testing.assert_frame_equal(pd.read_csv("batches.csv"), pd.read_csv("whole.csv"))


@pytest.mark.parametrize("method", ["mean", "draw"])
def test_gaps_are_filled_in_batches(method, folder, small_blocks, capsys, one_class):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=60), "n": pd.array(range(60), dtype="Int64")})
    table["code"] = ["00", "07", "B1"] * 20
    table["day"] = pd.date_range("2024-01-01", periods=60)
    TableDensity(random_state=0).fit(table).save("table.skflows")
    table["x"] = [*np.arange(20.0), *rng.normal(size=40)]  # the first batch has whole numbers
    for name, gaps in {"x": [1, 30], "n": [2, 25, 50], "code": [41], "day": [3, 55]}.items():
        table.loc[gaps, name] = None
    table.astype({"n": float}).to_csv("gaps.csv", index=False)
    impute = f"impute table.skflows gaps.csv --method {method} --random-state 0 -o"
    assert run(f"{impute} whole.csv") == 0
    small_blocks()
    assert run(f"{impute} batches.csv") == 0
    assert "wrote batches.csv: 8 missing values filled in" in capsys.readouterr().out
    texts = {"code": str, "n": str}
    whole, batches = (pd.read_csv(f"{name}.csv", dtype=texts) for name in ("whole", "batches"))
    assert batches.notna().all(axis=None)
    known = table.notna() if method == "draw" else whole.notna()
    pd.testing.assert_frame_equal(batches.where(known), whole.where(known), rtol=1e-9)


def test_whole_numbers_of_some_rows_do_not_make_a_column_whole(folder, small_blocks, one_class):
    rng = np.random.default_rng(0)
    Path("mixed").mkdir()
    table = pd.DataFrame({"a": [1, 2, None, 4, 3] * 4, "b": rng.normal(size=20)})
    table.to_csv("mixed/1.csv", index=False)
    rows = pd.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"])
    rows.to_csv("mixed/2.csv", index=False)
    assert run("fit mixed -o m.skflows --estimator table --random-state 0") == 0
    for data in ("mixed/1.csv", "mixed"):
        assert run(f"impute m.skflows {data} -o full.csv --method mean") == 0
        assert pd.read_csv("full.csv")["a"][2] % 1 != 0
    rows["code"], rows["n"] = ["000", "NA"] * 20, [*table["a"], *rng.normal(size=20)]
    rows.to_csv("rows.csv", index=False)
    rows.assign(a=rng.normal(size=40)).to_csv("known.csv", index=False)
    small_blocks()
    judge = "outliers rows.csv --columns a,b --reference known.csv --memory-limit 1kB"
    assert run(f"{judge} -o flagged.parquet") == 0
    found = pd.read_parquet("flagged.parquet")
    assert found["code"].tolist() == rows["code"].tolist()
    assert np.allclose(found["n"].astype(float), rows["n"], equal_nan=True)


def test_predictions_are_made_in_batches(folder, small_blocks, capsys):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"code": np.repeat(["00", "07", "B1"], 20), "x": rng.normal(size=60)})
    table["flag"], table["size"] = ["TRUE", "FALSE"] * 30, [1.0, 2.0] * 30
    table["y"] = table["x"] + rng.normal(size=60)
    table.loc[3, "x"] = np.nan
    table.to_csv("train.csv", index=False)
    table = pd.read_csv("train.csv", dtype={"code": str}).astype({"size": "category"})
    table.to_parquet("train.parquet")
    assert run("fit train.parquet --target y -o y.skflows --max-iter 1 --random-state 0") == 0
    assert run("predict y.skflows train.csv -o whole.csv") == 0
    small_blocks()  # in two batches, all codes could be numbers
    assert run("predict y.skflows train.csv -o parts/predicted/") == 0
    whole, batches = pd.read_csv("whole.csv"), _tables.read_table(Path("parts/predicted"))
    pd.testing.assert_frame_equal(batches, whole, rtol=1e-9)
    expected = skflows.load("y.skflows").predict(table.drop(columns="y"))
    np.testing.assert_allclose(whole["mean"], expected, rtol=1e-9)
    assert "warning" not in capsys.readouterr().err
    pd.read_csv("train.csv").assign(code="C").to_csv("other.csv", index=False)
    assert run("predict y.skflows other.csv -o other/") == 0
    err = capsys.readouterr().err
    assert err.count("20 of 20 values of column 'code'") == 1
    assert (
        err.count("column 'code' has 1 value that the fit has not seen, treated as rare: 'C'") == 1
    )


def test_folder_is_written_in_parts(folder, small_blocks, monkeypatch, capsys):
    small_blocks()
    assert run("score m.skflows t.csv -o whole.parquet") == 0
    for exists in (False, True):  # an empty folder is replaced
        if exists:
            Path("scores").mkdir()
        assert run("score m.skflows t.csv -o scores/") == 0
        assert {path.name for path in Path("scores").iterdir()} == {
            f"part.{i}.parquet" for i in range(15)
        }
        found = _tables.read_table(Path("scores"))
        pd.testing.assert_frame_equal(found, pd.read_parquet("whole.parquet"))
        assert run("score m.skflows t.csv -o scores/") == 2
        assert "scores is not an empty folder: delete it, or choose" in capsys.readouterr().err
        shutil.rmtree("scores")
    monkeypatch.setattr(_tables, "import_parquet", missing_parquet)
    assert run("score m.skflows t.csv -o scores/") == 2
    assert not any(path.name.startswith((".", "scores")) for path in Path().iterdir())


def missing_parquet():
    raise ImportError("no pyarrow")


def test_samples_are_written_as_parquet(folder):
    assert run("sample m.skflows -n 5 -o drawn.parquet --random-state 0") == 0
    drawn = skflows.load("m.skflows").sample(5, random_state=0)
    np.testing.assert_array_equal(pd.read_parquet("drawn.parquet"), drawn)


def test_reading_parquet_keeps_no_more_than_a_batch_in_memory(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(200_000, 4)), columns=[*"abcd"])
    table.to_parquet(tmp_path / "t.parquet", row_group_size=5_000)
    before, most, n_rows = pyarrow.total_allocated_bytes(), 0, 0
    source = _tables.open_table(tmp_path / "t.parquet")
    for frame in source.batches(5_000):
        most = max(most, pyarrow.total_allocated_bytes() - before)
        n_rows += len(frame)
    assert n_rows == len(table)
    assert source.fraction == 1
    assert most < table.size * 8 / 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must have CSV files or Parquet files, and no others"),
        ({"a.csv": "x,y\n1,2\n", "b.parquet": ""}, "must have CSV files or Parquet files"),
        ({"a.csv": "x,y\n1,2\n", "b.csv": "x,z\n1,2\n"}, "b.csv has other columns than .*a.csv"),
        ({"a.parquet": "PAR1"}, "a.parquet is not a Parquet file: "),
        ({"year=1/a.csv": "x,y\n1,2\n"}, "tables has Hive partitions, such as 'year=1'"),
        ({"a.csv": "x,y\n"}, "tables has column names but no rows"),
        ({"a.csv": "x,y,x\n1,2,3\n"}, "a.csv has more than one column 'x'; rename them"),
        ({"a.csv": "x,x.1\n1,2\n", "b.csv": "x,x\n1,2\n"}, "b.csv has more than one column 'x'"),
    ],
)
def test_folder_that_is_no_table_is_an_error(files, message, folder, capsys):
    Path("tables").mkdir()
    for name, text in files.items():
        Path("tables", name).parent.mkdir(exist_ok=True)
        Path("tables", name).write_text(text)
    assert run("fit tables -o m --estimator nsf") == 2
    assert re.search(message, capsys.readouterr().err)


def test_files_of_a_folder_are_read_in_natural_order(folder):
    Path("many").mkdir()
    for i in range(12):
        pd.DataFrame({"a": [i]}).to_parquet(f"many/part.{i}.parquet")
    assert _tables.read_table(Path("many"))["a"].tolist() == [*range(12)]


def test_index_with_a_name_is_a_column(folder):
    table = pd.DataFrame({"id": ["u", "v", "w"], "a": [1.0, 2.0, 3.0]})
    table.set_index("id").to_parquet("id.parquet")
    table.set_index("a").rename_axis(None).to_parquet("no name.parquet")
    pd.testing.assert_frame_equal(_tables.read_table(Path("id.parquet")), table)
    assert [*_tables.read_table(Path("no name.parquet"))] == ["id"]
    (batch,) = _tables.open_table(Path("id.parquet")).batches(9, columns=["a"])
    assert [*batch] == ["a"]


def test_texts_that_are_dates_in_one_batch_stay_texts(folder, small_blocks, one_class):
    days = [f"2024-01-0{i % 3 + 1}" for i in range(30)]
    table = pd.DataFrame({"kind": [*days, *["none"] * 30], "day": days * 2, "x": np.arange(60.0)})
    dates = table.assign(day=pd.to_datetime(table["day"]))
    with pytest.warns(UserWarning, match="'kind' holds dates as texts, such as .* and 'none'"):
        TableDensity(handle_unknown="rare", random_state=0).fit(dates).save("dates.skflows")
    table.to_csv("dates.csv", index=False)
    expected = skflows.load("dates.skflows").score_samples(dates)
    small_blocks()
    assert run("score dates.skflows dates.csv -o scores.csv") == 0
    np.testing.assert_allclose(pd.read_csv("scores.csv")["log_density"], expected, rtol=1e-9)


def test_missing_pyarrow_is_an_error(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for line in ("score m.skflows t.parquet", "sample m.skflows -o drawn.parquet"):
        assert run(line) == 2
        assert "Parquet files needs pyarrow: pip install pyarrow" in capsys.readouterr().err


def test_encoding_is_that_of_the_whole_file(folder, small_blocks):
    small_blocks()
    rows = "".join(f"{i},w{i}\n" for i in range(100))
    Path("old.csv").write_bytes(f"x,y\n{rows}1,é\n".encode("cp1252"))
    assert _tables.read_table(Path("old.csv"))["y"].iloc[-1] == "é"


def test_reading_shows_a_progress_bar_on_a_terminal(folder, capsys, on_terminal):
    on_terminal()
    assert run("score m.skflows t.csv -o s.csv") == 0
    assert "100%" in capsys.readouterr().out
    assert run("score m.skflows t.csv -o -") == 0
    assert "100%" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_size_decides_what_is_read_at_once(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"t.{suffix}"
    table = pd.DataFrame(np.ones((100, 50), dtype=int))
    table.columns = [f"c, {i}" for i in range(50)]
    getattr(table, f"to_{suffix}")(path, index=False)
    source = _tables.open_table(path)
    assert (source.n_rows, source.n_columns) == (100, 50)
    assert source.exceeds(100 * (50 * 40 + 64) - 1)
    assert not source.exceeds(100 * (50 * 40 + 64))
    monkeypatch.setattr(_tables, "BATCH_VALUES", 1000)
    assert [len(batch) for batch in source.batches(source.batch_rows)] == [20] * 5


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("5000", 5e3), ("1KB", 1e3), ("2gb", 2e9), ("1024KiB", 2**20), ("1.5 MiB", 1.5 * 2**20)],
)
def test_memory_sizes(text, n_bytes):
    assert _arguments.memory(text) == n_bytes


@pytest.mark.parametrize("output", ["t.parquet", "parts/"])
def test_types_that_change_are_an_error_in_parquet(output, tmp_path):
    path = _arguments.table(f"{tmp_path}/{output}")
    message = r"types of the first ones \(.*\): write CSV in place of Parquet"
    with pytest.raises(ValueError, match=message), _tables.writing(path) as append:
        append(pd.DataFrame({"id": [1, 2]}))
        append(pd.DataFrame({"id": ["x", "y"]}))
    assert not any(tmp_path.iterdir())


def test_parts_are_spread_over_the_table_and_cover_it(tmp_path):
    with open(tmp_path / "rows", "w+b") as file:
        file.write(np.arange(12_000, dtype=float).tobytes())
        rows = _stored_rows.StoredRows(file, ["a", "b"], np.empty((0, 2)), 1400, seed=0)
        assert (rows.n_parts, rows.size, rows.shape) == (5, 1200, (6000, 2))
        parts = [rows.chunk(i)[:, 0] / 2 for i in range(10)]
    for number in range(2):  # passes
        assert np.unique(np.concatenate(parts[5 * number : 5 * number + 5])).size == 6000
    assert not np.array_equal(parts[0], parts[5])
    assert max(np.diff(part).max() for part in parts) < 50  # no stretch is left out


@pytest.fixture
def sorted_table(tmp_path, monkeypatch):
    """Change to a folder with a sorted table."""
    monkeypatch.chdir(tmp_path)
    X = banana(N)
    table = pd.DataFrame(X[np.argsort(X[:, 0])], columns=["a", "b"])
    table.assign(text="x").to_parquet("t.parquet", row_group_size=1000)
    return table


FIT = "fit t.parquet --estimator nice --memory-limit 200kB --random-state 0 --max-iter"


def test_fit_in_parts_is_about_as_good_as_of_the_whole_table(sorted_table, capsys):
    whole = "fit t.parquet --estimator nice --max-iter 1 --random-state 0 -o whole.skflows"
    assert run(whole) == 0
    assert run(f"{FIT} 8 -o parts.skflows") == 0
    out, err = capsys.readouterr()
    assert f"NICEDensity fitted to {N} rows of 2 columns" in out
    assert (
        f"columns of the first {N} rows of t.parquet that are not numbers are left out: 'text'"
        in err
    )
    scores = [skflows.load(f"{name}.skflows").score(sorted_table) for name in ("whole", "parts")]
    assert scores[1] > scores[0] - 0.1
    assert sorted(path.name for path in Path().iterdir()) == [
        "parts.skflows", "t.parquet", "whole.skflows"
    ]  # fmt: skip


def test_fit_in_parts_continues_from_its_checkpoint(sorted_table, crash_after, monkeypatch):
    monkeypatch.setattr(
        _progress, "Checkpoint", lambda path: skflows.callbacks.Checkpoint(path, every=0)
    )
    assert run(f"{FIT} 4 -o whole.skflows --checkpoint whole") == 0
    crash_after(2)
    assert run(f"{FIT} 4 -o parts.skflows --checkpoint parts") == 2
    crash_after(-1)
    assert run(f"{FIT} 4 -o parts.skflows --checkpoint parts --resume") == 0
    scores = [
        skflows.load(f"{name}.skflows").score_samples(sorted_table) for name in ("whole", "parts")
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--memory-limit 50kB --estimator auto", "AutoDensity needs all rows at once"),
        ("--memory-limit 50kB --estimator gaussianization", "choose --estimator among cnf, glow"),
        ("--memory-limit 50kB", "leaves 347 rows of 2 columns at once; at least 1000"),
        ("--memory-limit lots", "'lots' is not a memory size, such as 500MB or 2GiB"),
    ],
)
def test_memory_limits_that_cannot_be_kept_are_an_error(options, message, sorted_table, capsys):
    try:
        assert run(f"fit t.parquet -o m.skflows {options}") == 2
    except SystemExit as exit:
        assert exit.code == 2
    assert message in capsys.readouterr().err


def test_table_within_the_memory_limit_is_read_whole(sorted_table, monkeypatch):
    monkeypatch.setattr(_stored_rows, "StoredRows", None)
    assert run("fit t.parquet -o m.skflows --estimator nice --max-iter 1 --memory-limit 1GiB") == 0


@pytest.fixture
def many_rows(folder, small_blocks):
    """Write a table with outliers, of a few batches, one of them without complete rows."""
    small_blocks()
    rng = np.random.default_rng(0)
    clean, odd = (pd.DataFrame(rng.standard_normal((n, 3)), columns=[*"abc"]) for n in (300, 190))
    odd.loc[[7, 170], "b"] = [9.0, -8.0]
    odd.loc[100:149, "c"] = np.nan
    odd.insert(0, "name", np.arange(190).astype(str))
    clean.to_csv("clean.csv", index=False)
    odd.to_parquet("odd.parquet")
    odd.dropna().to_csv("complete.csv", index=False)


JUDGE = "--reference clean.csv --fdr 0.3 --id name --random-state 0"


def test_outliers_are_flagged_in_batches(many_rows, capsys):
    assert run(f"outliers complete.csv -o whole.csv {JUDGE}") == 0
    assert run(f"outliers odd.parquet -o batches.parquet {JUDGE} --memory-limit 1kB") == 0
    out, err = capsys.readouterr()
    whole, batches = (line for line in out.splitlines() if line.startswith("wrote"))
    assert batches == whole.replace("whole.csv", "batches.parquet")
    assert "50 of 190 rows of odd.parquet have missing values (50 in 'c'): left out" in err
    found, expected = pd.read_parquet("batches.parquet"), pd.read_csv("whole.csv")
    assert found.loc[[7, 170], "outlier"].tolist() == [1, 1]
    assert found.loc[100:149, "outlier"].isna().all()
    found = found[found["c"].notna()].reset_index(drop=True)
    names = ["score", "p_value", "outlier"]
    pd.testing.assert_frame_equal(found[names], expected[names], check_dtype=False)
    is_flagged = expected["outlier"] == 1
    assert (found["oddest_column"] == expected["oddest_column"])[is_flagged].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-o f.csv", "or give a --reference"),
        ("-o f.csv --reference clean.csv --report r.html", "or leave --report out"),
        ("--report r.html", "or give a --reference and leave --report out and add -o FILE"),
    ],
)
def test_outliers_in_batches_need_a_reference_and_an_output_and_no_report(
    options, message, many_rows, capsys
):
    assert run(f"outliers odd.parquet --memory-limit 1kB {options}") == 2
    assert message in capsys.readouterr().err
