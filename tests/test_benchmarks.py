"""The benchmarks' pages: generated from stored lines, short, and without other figures."""

import importlib.util
import runpy
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from _tables import FEW_COMPONENTS, keep_components
from sklearn.mixture import GaussianMixture

from skflows import TableDensity

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_pages_are_as_the_stored_lines_have_them():
    command = [sys.executable, "pages.py", "--check"]
    found = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


COMMITS = "<!-- commits of: results/x.jsonl -->\n\nStored lines: 3.\n"
LONG = "<!-- table 1 of: x.py -->\n\n" + "| 1 |\n" * 50 + "\n"
TABLE = "<!-- table 1 of: x.py -->\n\n| a |\n|---|\n| 0.938 |\n\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"Scores of 0.94 or 93.8 % by `p=0.5`.\n\n{TABLE}{COMMITS}", None),
        (f"Scores of 0.93.\n\n{TABLE}{COMMITS}", "figures that none of its tables has: 0.93"),
        (f"| a |\n|---|\n| 1 |\n\n{COMMITS}", "a table without a command that prints it"),
        (TABLE, "does not say at which commits"),
        (f"{'word ' * 1080}\n\n{COMMITS}", "3.1 screens instead of 3"),
        (f"{'word ' * 700}\n\n{LONG}{COMMITS}", "3.1 screens instead of 3"),
    ],
)
def test_faults_of_a_page_are_found(text, fault):
    found = runpy.run_path(str(FOLDER / "pages.py"))["faults"]("page", text)
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]


def test_copies_of_rows_that_occur_once(monkeypatch):
    """Whole numbers may come as floats, and missing values are values."""
    monkeypatch.syspath_prepend(str(FOLDER))
    copies = runpy.run_path(str(FOLDER / "tables.py"))["copies"]
    train = pd.DataFrame({"n": [1, 1, 2, 3], "kind": ["a", "a", None, "b"]})
    rows = pd.DataFrame({"n": [1.0, 2.0, 2.0, 3.0], "kind": ["a", None, "b", "b"]})
    assert copies(train, rows) == 0.5


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_incomplete_rows(monkeypatch, tmp_path):
    """Beside `AutoDensity`, whose place a mixture takes, of filled rows."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("tables_benchmark", FOLDER / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    quick = partial(TableDensity, max_iter=1, n_orders=1, cv=2)
    keep_components(monkeypatch, lambda each: each.name in FEW_COMPONENTS)
    monkeypatch.setattr(tables, "TableDensity", quick)
    monkeypatch.setattr(tables, "AutoDensity", partial(GaussianMixture, 1))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", X=rng.normal(size=(100, 1)) + 0.5 * rng.normal(size=(100, 3)))
    out = tmp_path / "out.jsonl"
    command = f"tables.py incomplete --data {tmp_path} --sets x --seeds 0 --out {out}"
    monkeypatch.setattr(sys, "argv", command.split())
    tables.main()
    lines = pd.read_json(out, lines=True)
    assert len(lines) == 9 and np.isfinite(lines[["complete", "observed"]]).all(axis=None)
    observed = lines.pivot(index="share", columns="method", values="observed")
    draws = observed["IterativeImputer's draws, AutoDensity"]
    assert draws.to_numpy() == pytest.approx(observed["TableDensity"].to_numpy(), abs=0.3)


def test_entries_of_what_was_tried_are_short():
    faults = runpy.run_path(str(FOLDER / "pages.py"))["faults"]
    assert not faults("tried", f"# Tried\n\n- {'word ' * 50}\n- {'word ' * 50}\n")
    (found,) = faults("tried", f"# Tried\n\n- Short.\n- {'word ' * 70}\n")
    assert "more than 60 words" in found


@pytest.fixture
def uci_density(monkeypatch, tmp_path):
    """Return the names of a script, and write stand-ins of its tables, with as many columns."""
    rng = np.random.default_rng(0)
    for name in ("power", "gas", "hepmass", "miniboone"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "power" / "data.npy", np.round(rng.standard_normal((200, 8)), 2))
    np.save(tmp_path / "miniboone" / "data.npy", 3 + rng.standard_normal((200, 43)))
    sensors = np.repeat(rng.standard_normal((200, 8)), 2, axis=1)  # in pairs that are alike
    sensors += 0.01 * rng.standard_normal(sensors.shape)
    gas = pd.DataFrame(np.hstack([rng.random((200, 3)), sensors]))
    gas.columns = ["Time", "Meth", "Eth", *map(str, range(16))]
    gas.to_pickle(tmp_path / "gas" / "ethylene_CO.pickle")
    rows = np.hstack([rng.standard_normal((400, 21)), rng.integers(0, 2, (400, 7))])
    hepmass = pd.DataFrame(rows).add_prefix("f")
    hepmass.insert(0, "label", np.arange(400) % 2)
    hepmass.to_csv(tmp_path / "hepmass" / "1000_train.csv", index=False)
    hepmass.assign(mass=0).to_csv(tmp_path / "hepmass" / "1000_test.csv", index=False)
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "uci_density.py"))


def test_parts_of_bsds300_are_those_of_the_file(uci_density, tmp_path, monkeypatch):
    """h5py is not installed for the tests: a stand-in of it opens an npz file."""
    sizes = {"train": 30, "validation": 5, "test": 10}
    (tmp_path / "BSDS300").mkdir()
    with open(tmp_path / "BSDS300" / "BSDS300.hdf5", "wb") as file:
        np.savez(file, **{part: np.full((n, 63), n, dtype=float) for part, n in sizes.items()})

    @contextmanager
    def open_file(path):
        yield {name: {(): array} for name, array in np.load(path).items()}

    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=open_file))
    found = uci_density["load"]("BSDS300", tmp_path)
    assert [rows.shape for rows in found] == [(30, 63), (5, 63), (10, 63)]
    assert [rows[0, 0] for rows in found] == [30, 5, 10]
    with open(tmp_path / "BSDS300" / "BSDS300.hdf5", "wb") as file:
        np.savez(file, **dict.fromkeys(sizes, np.ones((3, 64))))
    with pytest.raises(ValueError, match="but 63 columns are published"):
        uci_density["load"]("BSDS300", tmp_path)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("POWER", [(162, 6), (18, 6), (20, 6)]),
        ("GAS", [(162, 8), (18, 8), (20, 8)]),
        ("HEPMASS", [(180, 21), (20, 21), (200, 21)]),
        ("MINIBOONE", [(162, 43), (18, 43), (20, 43)]),
    ],
)
def test_splits_of_the_tables_of_the_literature(uci_density, tmp_path, name, shapes):
    found = uci_density["load"](name, tmp_path)
    assert [rows.shape for rows in found] == shapes
    known = np.concatenate(found if name == "GAS" else found[:2])
    assert np.allclose(known.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(known.std(axis=0), 1, atol=0.01)


def test_densities_of_the_tables_of_the_literature(uci_density, tmp_path):
    line = uci_density["run"]("POWER", "NSFDensity", tmp_path, 100, max_iter=1, n_transforms=1)
    assert (line["n"], line["d"]) == (100, 6) and np.isfinite(line["ll"])
    np.save(tmp_path / "miniboone" / "data.npy", np.ones((20, 50)))
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match="43 columns are published"),
    ):
        uci_density["load"]("MINIBOONE", tmp_path)


def test_linear_prediction_of_waveforms(monkeypatch):
    """Errors are a linear map of windows, whose determinant the deviations give."""
    monkeypatch.syspath_prepend(str(FOLDER))
    waveforms = SimpleNamespace(**runpy.run_path(str(FOLDER / "waveforms.py")))
    mel = waveforms.MelFrames(8_000)
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(1, mel.length)), axis=1) / 20
    frames, prediction = mel.log_mel(x), waveforms.LinearPrediction(mel)
    errors, deviations = prediction.errors(x, frames)
    assert prediction.windows(errors, frames) == pytest.approx(x, abs=1e-10)
    assert errors.std() < 1.5  # nearly white
    ones = np.eye(mel.length)
    map_, _ = prediction.errors(ones, np.repeat(frames, mel.length, axis=0))
    assert np.linalg.slogdet(map_)[1] == pytest.approx(-deviations.sum())
