"""The files of a release state the same version and dependencies everywhere."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import skflows

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("path", ["CITATION.cff", ".zenodo.json", "conda/recipe.yaml"])
def test_version_is_the_same_everywhere(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(r'^ *"?version"?: "?([^",\n]+)', text, re.MULTILINE)
    assert found[1] == skflows.__version__


def test_archives_have_one_title():
    stated = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))["title"]
    assert f'\ntitle: "{stated}"\n' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_recipe_has_the_dependencies_of_the_package():
    run = RECIPE.split("\n  run:\n")[1].split("\n\n")[0]
    listed = {line.strip(" -").replace(" ", "") for line in run.splitlines()}
    names = {dependency.replace("torch", "pytorch") for dependency in PROJECT["dependencies"]}
    assert listed == names | {"python"}


def test_install_page_lists_every_extra_for_users():
    page = (ROOT / "docs" / "install.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   \* - ``(\w+)``", page, re.MULTILINE)
    for_developers = {"all", "bench", "dist", "docs", "lint", "test"}
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"].keys() - for_developers)


def test_figures_of_the_paper_stand_in_the_benchmarks():
    paper = (ROOT / "paper.md").read_text(encoding="utf-8")
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "benchmarks").glob("*.md"))
    figures = re.findall(r"(?<![\w.])-?\d+\.\d+\b", paper.split("# Results")[1])
    assert len(figures) > 10
    assert not set(figures) - set(re.findall(r"-?\d+\.\d+", pages))


def test_paper_cites_what_its_bibliography_has():
    cited = set(re.findall(r"@(\w+)", (ROOT / "paper.md").read_text(encoding="utf-8")))
    entries = re.findall(r"^@\w+{(\w+),$", (ROOT / "paper.bib").read_text("utf-8"), re.MULTILINE)
    assert cited == set(entries)
