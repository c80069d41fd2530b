"""Imports point one way, and importing the package loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skflows

ROOT = Path(skflows.__file__).parent
# Each room may import from itself and from those before it; a name not listed comes last.
ROOMS = [
    "_passes",
    "_fused",
    "_draws",
    "_columns",
    "_products",
    "_pullbacks",
    "_tiles",
    "_affine",
    "_nn",
]
ROOMS += ["_masked", "_ode"]
ROOMS += ["bijections", "_flow", "_members", "_optimizer", "_history", "_objective", "_training"]
ROOMS += ["_matching"]
ROOMS += ["density"]
DENSITY = ROOMS.index("density")


def rank(module):
    """Place of ``skflows.room.file`` in the order."""
    room = [*module.split("."), ""][1]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def imports(tree, package):
    """Absolute name and depth in functions of every import of a syntax tree."""

    def visit(node, depth):
        if isinstance(node, ast.Import):
            yield from ((alias.name, depth) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            start = ".".join(above) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            # What is imported from the package itself is one of its rooms.
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from ((name, depth) for name in (names if base == "skflows" else [base]))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, depth + inside)

    return visit(tree, 0)


def violations(source, module, package):
    """The imports of a module that the house rules forbid."""
    found = []
    for name, depth in imports(ast.parse(source), package):
        library = name.split(".")[0]
        if library == "skflows" and rank(name) > rank(module):
            found.append(f"{module} imports {name}, which builds on it")
        if library == "sklearn" and rank(module) < DENSITY:
            found.append(f"{module} imports {name}: scikit-learn appears from density up")
        if library == "matplotlib" and (rank(module) <= DENSITY or not depth):
            found.append(f"{module} imports {name}: matplotlib appears where a display plots")
    return found


def module_and_package(path):
    parts = ["skflows", *path.relative_to(ROOT).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), ".".join(parts[:-1])


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_imports_point_one_way(path):
    assert not violations(path.read_text(encoding="utf-8"), *module_and_package(path))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_nn", "from .bijections import Chain"),
        ("_nn", "from . import _flow"),
        ("_flow", "def f():\n    from ._training import fit_flow"),
        ("_training", "import skflows.density"),
        ("_training", "from sklearn.utils import check_random_state"),
        ("bijections._base", "from .._flow import Flow"),
        ("bijections._base", "from ..inspection import DensityDisplay"),
        ("density._base", "from ..inspection._common import draw"),
        ("density._base", "def plot():\n    import matplotlib.pyplot"),
        ("inspection._density", "import matplotlib.pyplot as plt"),
        ("inspection._density", "class Display:\n    from matplotlib import cm"),
    ],
)
def test_the_rule_finds_a_wrong_import(module, source):
    module = f"skflows.{module}"
    assert len(violations(source, module, module.rpartition(".")[0])) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_flow", "import torch\nfrom .bijections import Chain\nfrom . import _nn"),
        ("bijections._base", "from .._nn import ResidualMLP\nfrom ._fixed import Standardize"),
        ("density._maf", "from sklearn.base import clone\nfrom ..bijections import Chain"),
        ("inspection._density", "def plot():\n    import matplotlib\n    from .. import density"),
    ],
)
def test_the_rule_lets_a_right_import_pass(module, source):
    module = f"skflows.{module}"
    assert not violations(source, module, module.rpartition(".")[0])


def printed(code):
    run = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_no_torch_matplotlib_or_pandas():
    # scikit-learn itself imports pandas where it is installed: count what comes on top.
    code = """
import sys, sklearn.base
before = set(sys.modules)
import skflows, skflows.density, skflows.inspection, skflows.model_selection
print({"torch", "matplotlib", "pandas"} & set(sys.modules) - before)
"""
    assert printed(code) == "set()"


def test_import_of_the_estimators_loads_little_of_scikit_learn():
    """Half of what the import takes is what scikit-learn's callbacks need, and no more."""
    code = """
import sys, sklearn.base, sklearn.callback
before = set(sys.modules)
import skflows
rooms = {".".join(name.split(".")[:2]) for name in set(sys.modules) - before}
print(sorted(room for room in rooms if room.startswith(("scipy.", "sklearn."))))
"""
    assert printed(code) == "['sklearn.frozen', 'sklearn.utils']"


def test_fit_loads_no_compiler():
    """Torch's own optimisers import it when they are made, which takes a second."""
    code = """
import sys, numpy as np
from skflows import NSFDensity
NSFDensity(max_iter=1).fit(np.random.default_rng(0).normal(size=(50, 2)))
print("torch._dynamo" in sys.modules)
"""
    assert printed(code) == "False"


def test_detectors_are_imported_when_first_used():
    code = """
import sys
import skflows
print("skflows.outlier" in sys.modules, {"outlier", *skflows.__all__} <= {*dir(skflows)})
from skflows import DensityOutlierDetector
print(skflows.outlier.DensityOutlierDetector is DensityOutlierDetector)
print(hasattr(skflows, "nothing"))
"""
    assert printed(code).split() == ["False", "True", "True", "False"]
