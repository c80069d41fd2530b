"""Tests of the extensions of the documentation, and of the commands that README shows."""

import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
from pathlib import Path

import skflows
from skflows import GaussianizationDensity, NSFDensity
from skflows.cli._parser import make_parser
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


def test_reference_lists_each_public_name_once():
    groups = runpy.run_path(str(DOCS / "api_groups.py"))["GROUPS"]
    listed = [
        getattr(importlib.import_module(module), name)
        for _, _, modules in groups.values()
        for module, names in modules.items()
        for name in names
    ]
    assert len(set(listed)) == len(listed)
    rooms = (room.name for room in pkgutil.iter_modules(skflows.__path__, "skflows."))
    modules = [skflows, *(importlib.import_module(room) for room in rooms if "._" not in room)]
    modules.remove(importlib.import_module("skflows.cli"))  # a command, with a page of its own
    public = {getattr(m, name) for m in modules for name in getattr(m, "__all__", ())}
    assert public == set(listed)


def test_install_section_shows_the_commands_for_a_fresh_machine_and_ci_runs_the_suite_by_one():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert section.startswith("Install\n")
    assert re.findall(r"^make \S+", section, re.MULTILINE) == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}: $(VENV)/.installed-" in makefile for target in ("demo", "test"))
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_commands_that_are_shown_are_understood():
    pages = [ROOT / "README.md", *DOCS.glob("[gi]*.rst"), *DOCS.glob("user_guide/*.rst")]
    shown = "\n".join(page.read_text("utf-8") for page in pages)
    lines = re.findall(r"^ *\$ (.+)$", shown, re.MULTILINE)
    parts = [part.strip() for line in lines for part in re.split("&&|[|]", line)]
    calls = [part for part in parts if part.startswith("skflows ") and "COMMAND" not in part]
    assert len(calls) > 20
    parser = make_parser()
    for call in calls:
        parser.parse_args(shlex.split(call, comments=True)[1:])


def test_first_page_is_short_and_names_what_exists():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130
    commands = {"demo", "fit", "sample", "impute", "outliers", "predict"}
    assert commands == set(
        re.findall(r"(?:[$]|&&) skflows ([a-z]+)", text.split("```console")[1].split("```")[0])
    )
    names = set(
        re.findall(r"`(?:(\w+)\.)?(\w+(?:Density|Imputer|Regressor|Classifier|Detector))", text)
    )
    assert len(names) > 15
    for room, name in names - {("", "KernelDensity")}:  # scikit-learn's
        module = importlib.import_module(f"skflows.{room}") if room else skflows
        assert hasattr(module, name)


def test_user_guide_describes_each_page_and_pages_begin_with_a_picture_and_an_example():
    index = (DOCS / "user_guide" / "index.rst").read_text("utf-8")
    described = re.findall(r"^:doc:`(\w+)`\n   \S", index, re.MULTILINE)
    pages = {path.stem: path.read_text("utf-8") for path in DOCS.glob("user_guide/*.rst")}
    assert sorted(described) == sorted(pages.keys() - {"index"})
    drawn = runpy.run_path(str(DOCS / "make_guide_pictures.py"))
    for name, text in pages.items():
        first_screen = "\n".join(text.splitlines()[:25])
        image = re.search(r"^\.\. (?:image|figure):: (\S+)", first_screen, re.MULTILINE)
        assert image, name
        path = Path(image[1])
        if path.parts[1] == "auto_examples":
            example = path.stem.removeprefix("sphx_glr_")[:-4]
            assert (ROOT / "examples" / path.parts[2] / f"{example}.py").exists()
        else:
            assert f"draw_{path.stem}" in drawn or path.stem == "readme"
        before_tables = re.split(r"^(?:\.\. (?:list|csv)-table|=+  =)", text, flags=re.MULTILINE)[0]
        assert name == "index" or "code-block::" in before_tables, name
