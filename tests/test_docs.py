"""Tests of the extensions of the documentation, and of the commands that README shows."""

import inspect
import re
import runpy
from pathlib import Path

from skflows import GaussianizationDensity, NSFDensity
from skflows.density import ARCHITECTURES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_groups_hold_existing_parameters_once():
    groups = runpy.run_path(str(DOCS / "parameter_groups.py"))["GROUPS"]
    named = [name for _, members in groups.values() for name in members]
    flows = (*ARCHITECTURES.values(), GaussianizationDensity)
    assert len(set(named)) == len(named)
    assert set(named) <= {name for flow in flows for name in inspect.signature(flow).parameters}


def test_grouped_parameters_are_those_of_the_docstring():
    names = list(inspect.signature(NSFDensity).parameters)
    entries = [line for name in names for line in (f"    **{name}** : type", "        Text.", "")]
    lines = ["Summary.", "", ":Parameters:", "", *entries, ":Attributes:", ""]
    group = runpy.run_path(str(DOCS / "parameter_groups.py"))["group_parameters"]
    group(None, "class", "skflows.NSFDensity", NSFDensity, None, lines)
    fields = [line for line in lines if line.startswith(":")]
    assert fields == [
        *(f":{name} parameters:" for name in ("Architecture", "Preprocessing", "Training")),
        *(":Outlier parameters:", ":Attributes:"),
    ]
    kept = [line.strip("* ").partition("**")[0] for line in lines if line.startswith("    **")]
    assert sorted(kept) == sorted(names)
    training = lines[lines.index(fields[2]) : lines.index(fields[3])]
    assert "    **max_iter** : type" in training and "    **contamination** : type" not in training


def test_install_section_shows_the_commands_for_a_fresh_machine_and_ci_runs_the_suite_by_one():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert section.startswith("Install\n")
    assert re.findall(r"^make \S+", section, re.MULTILINE) == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}: $(VENV)/.installed-" in makefile for target in ("demo", "test"))
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
