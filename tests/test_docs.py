"""Tests of the extensions of the documentation."""

import inspect
import runpy
from pathlib import Path

from skflows import GaussianizationDensity, NSFDensity
from skflows.density import ARCHITECTURES

DOCS = Path(__file__).parents[1] / "docs"


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
