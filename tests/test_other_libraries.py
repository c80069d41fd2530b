"""The snippets of the page "With other libraries", each run as a script where its libraries are."""

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "other_libraries.rst"


def snippets():
    """Return the code of each section, by its title."""
    parts = re.split(r"^(.+)\n=+\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    code = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        blocks = re.findall(r"^\.\. code-block:: python\n((?:\n|   .*\n)+)", text, re.MULTILINE)
        code |= {title: re.sub("^   ", "", block, flags=re.MULTILINE) for block in blocks}
    return code


def libraries(code):
    """Return the top level modules that a snippet imports."""
    nodes = [*ast.walk(ast.parse(code))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


SNIPPETS = snippets()


@pytest.mark.parametrize("title", SNIPPETS)
def test_snippet(title, tmp_path):
    missing = [name for name in libraries(SNIPPETS[title]) if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    (tmp_path / "snippet.py").write_text(SNIPPETS[title], encoding="utf-8")
    quiet = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}  # no telemetry from tests
    root = str(PAGE.parents[2])
    run = subprocess.run(
        [sys.executable, "snippet.py"],
        cwd=tmp_path,
        env=os.environ | quiet | {"MPLBACKEND": "Agg", "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
