"""The benchmarks' pages: generated from stored lines, short, and without other figures."""

import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

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


def test_entries_of_what_was_tried_are_short():
    faults = runpy.run_path(str(FOLDER / "pages.py"))["faults"]
    assert not faults("tried", f"# Tried\n\n- {'word ' * 50}\n- {'word ' * 50}\n")
    (found,) = faults("tried", f"# Tried\n\n- Short.\n- {'word ' * 70}\n")
    assert "more than 60 words" in found
