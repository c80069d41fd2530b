"""What packages and archives are told: the same version and dependencies everywhere."""

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
