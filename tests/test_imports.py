"""The structure of the package: rooms that import one way, and a light import."""

import ast
import graphlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HAS_CALLBACKS

import skflows
from skflows.persistence.plain_state import ROOMS as STORED_ROOMS
from skflows.preprocessing import sklearn_compat

ROOT = Path(skflows.__file__).parent
# Each room may import from those above it. Rooms of one line do not import from each other.
ROOMS = [
    {"kernels"},
    {"nn"},
    {"bijections"},
    {"columns"},
    {"preprocessing"},
    {"calibration", "distribution"},
    {"persistence"},
    {"callbacks"},
    {"training"},
    {"density"},
    {"ensemble"},
    {"table", "graphs", "sets", "variational"},
    {"conditional"},
    {"compression", "dask", "model_selection", "outlier", "inspection"},
    {"cli"},
]
ALL_ROOMS = set().union(*ROOMS)
# Files outside of these rooms look into DataFrames by themselves. The list may only become shorter.
READERS_OF_TABLES = ("columns", "cli", "dask")
OTHER_READERS = {"table/_density.py"}  # an example, and the table of its columns
# Estimators of which `training/` must know no method and no fitted attribute.
ESTIMATORS = ("density/_base.py", "density/_flow_density.py")
# Underscored names that a room reads from objects of another one: of estimators, except where a
# class inherits them. The list may only become shorter.
PRIVATE_NAMES = {
    "preprocessing": {"_init_callback_context"},  # of scikit-learn's class and of its stand-in
    "cli": {"_encoding", "_fit_chunks", "_of_samples", "_schema"},
    "columns": {"_row_shape"},
    "compression": {"_dequantizer"},
    "conditional": {
        "_central_interval",
        "_central_scores",
        "_density_scores",
        "_fit_classes",
        "_held_out_scores",
        "_phases",
        "_regions",
        "_sample",
        "_score_classes_of",
        "_shape",
        "_share_columns",
        "_start_fit",
        "_store_history",
        "_warn_of_trouble",
    },
    "dask": {"_fit_held_out"},
    "density": {"_encoding", "_fit_rows", "_score_rows_of", "_encoding_for"},
    "inspection": {
        "_check_names",
        "_masses",
        "_read",
        "_scaled_to_simplex",
        "_schema",
        "_some_columns",
    },
    "model_selection": {"_score_rows"},
    "outlier": {
        "_dependence",
        "_encoded",
        "_pool_rows_of",
        "_reconciled",
        "_share_columns",
        "_surprises",
    },
}
# Files and rooms that may import the compiled kernels.
USERS_OF_KERNELS = (
    "skflows.kernels",
    "skflows.nn.incremental",
    "skflows.bijections",
)
COMPAT = "skflows.preprocessing.sklearn_compat"


def level(module):
    """Return the line of ROOMS in which a module is; ``__init__`` and ``__main__`` come last."""
    room = [*module.split("."), ""][1]
    return next((i for i, rooms in enumerate(ROOMS) if room in rooms), len(ROOMS))


def room_of(module):
    return ".".join(module.split(".")[:2])


def imported_names(source, package):
    """Yield the absolute name of each import, and whether it is inside a function."""

    def visit(node, depth):
        if isinstance(node, ast.Import):
            yield from ((alias.name, depth > 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from ((f"{base}.{alias.name}", depth > 0) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside |= isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, depth + inside)

    return visit(ast.parse(source), 0)


def violations(source, module, package):
    """Return the imports of a module that the structure forbids."""
    found = []
    for name, is_lazy in imported_names(source, package):
        library, *parts = name.split(".")
        if name == "skflows.__version__":
            continue
        if library == "skflows" and room_of(name) != room_of(module):
            if level(name) >= level(module):
                found.append(f"{module} imports {name}, which is not below it")
            if room_of(name) == "skflows.kernels" and not module.startswith(USERS_OF_KERNELS):
                found.append(f"{module} imports {name}: only bijections and the optimizer may")
        if library == "sklearn":
            if level(module) < level("skflows.columns"):
                found.append(f"{module} imports {name}: scikit-learn is used from columns up")
            if any(part.startswith("_") for part in parts) and module != COMPAT:
                found.append(f"{module} imports the private {name}: import it from {COMPAT}")
        if library == "matplotlib" and (level(module) <= level("skflows.ensemble") or not is_lazy):
            found.append(f"{module} imports {name}: matplotlib is imported where a display draws")
    return found


def module_and_package(path):
    parts = ["skflows", *path.relative_to(ROOT).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), ".".join(parts[:-1])


MODULES = {module_and_package(path): path for path in sorted(ROOT.rglob("*.py"))}


def test_only_rooms_are_at_the_root():
    files = {path.name for path in ROOT.glob("*.py")}
    folders = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")}
    assert files == {"__init__.py", "__main__.py"}
    assert folders == ALL_ROOMS


@pytest.mark.parametrize(("module", "package"), MODULES, ids=[module for module, _ in MODULES])
def test_imports_follow_the_structure(module, package):
    path = MODULES[module, package]
    assert not violations(path.read_text(encoding="utf-8"), module, package)


def test_few_files_look_into_tables():
    looks = re.compile(r"\.iloc\b|\.dtypes\b|import (pandas|polars)\b")
    found = set()
    for path in MODULES.values():
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(READERS_OF_TABLES) and looks.search(path.read_text("utf-8")):
            found.add(name)
    assert found == OTHER_READERS


def names_read(source):
    """Return names of attributes that are read, by a dot or by their name in quotes.

    Not counted are attributes of ``self``, ``cls`` and ``super()``.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            if getattr(owner, "id", None) not in ("self", "cls", "super"):
                found.add(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def names_defined(source):
    """Return names of functions, classes and attributes, but not of parameters.

    Attributes that `setattr` sets are keys of dicts, with an underscore at either end.
    """
    found, parameters = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            parameters |= {each.arg for each in [*node.args.args, *node.args.kwonlyargs]}
        if isinstance(node, ast.ClassDef):
            found |= {name.id for each in node.body for name in assigned(each)}
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if getattr(node.value, "id", None) == "self":
                found.add(node.attr)
        if isinstance(node, ast.Dict):
            keys = {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
            found |= {key for key in keys if "_" in (key[:1], key[-1:])}
    return found - parameters


def assigned(statement):
    """Return the names to which an assignment gives a value."""
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [target for target in targets if isinstance(target, ast.Name)]


def sources(pattern="*/*.py"):
    """Return pairs of a room and the source of a file in it."""
    paths = sorted(ROOT.glob(pattern))
    return [(path.relative_to(ROOT).parts[0], path.read_text("utf-8")) for path in paths]


def names_of_estimators(sources_of_training):
    """Return names that only estimators have."""
    names = set().union(*(names_defined((ROOT / file).read_text("utf-8")) for file in ESTIMATORS))
    return names - set().union(*map(names_defined, sources_of_training))


def test_training_names_nothing_of_estimators():
    own = [source for _, source in sources("training/*.py")]
    forbidden = names_of_estimators(own)
    assert {"_build_flow", "_phases", "_recipe", "flow_", "n_iter_", "loss_curve_"} <= forbidden
    assert [names_read(source) & forbidden for source in own] == [set()] * len(own)


def test_few_private_names_cross_rooms():
    defined: dict = {}
    for room, source in sources():
        defined.setdefault(room, set()).update(names_defined(source))
    found: dict = {}
    for room, source in sources():
        others = set().union(*(names for other, names in defined.items() if other != room))
        read = {name for name in names_read(source) if name[:1] == "_" and name[:2] != "__"}
        if read := read & others - defined[room]:
            found.setdefault(room, set()).update(read)
    assert found == PRIVATE_NAMES


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f(estimator): return estimator._phases(3)", "_phases"),
        ("flow = self.estimator._build_flow()", "_build_flow"),
        ("n = getattr(recipe.owner, 'n_iter_', 0)", "n_iter_"),
        ("call = fit_jointly(x).member._end", "_end"),
    ],
)
def test_attributes_of_others_are_found(source, name):
    assert name in names_read(source)


@pytest.mark.parametrize("source", ["self._phases", "super()._phases()", "estimator._phases = 3"])
def test_own_attributes_are_not_found(source):
    assert "_phases" not in names_read(source)


def test_names_of_classes_are_unique():
    """Files of models name classes without their modules."""
    names = []
    for path in MODULES.values():
        if path.relative_to(ROOT).parts[0] in STORED_ROOMS:
            tree = ast.parse(path.read_text("utf-8"))
            names += [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(names) == len(set(names))


def test_no_modules_import_each_other():
    names = {module for module, _ in MODULES}
    graph = {}
    for (module, package), path in MODULES.items():
        imported = set()
        for name, _ in imported_names(path.read_text(encoding="utf-8"), package):
            # Either a module, or a name in one.
            imported |= {name, name.rpartition(".")[0]} & names
        graph[module] = imported - {module, package, "skflows"}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nn.made", "from ..bijections import Chain"),
        ("nn.made", "from .. import bijections"),
        ("nn.made", "from .. import kernels"),
        ("training.optimizer", "from .. import kernels"),
        ("density._base", "from ..kernels import usable"),
        ("bijections._flow", "def f():\n    from ..training.trainer import Trainer"),
        ("training.trainer", "import skflows.density"),
        ("bijections._flow", "from sklearn.utils import check_random_state"),
        ("density._base", "from sklearn.utils._param_validation import Interval"),
        ("outlier._detector", "from ..inspection import DensityDisplay"),
        ("ensemble._auto", "def plot():\n    import matplotlib.pyplot"),
        ("inspection._density", "import matplotlib.pyplot as plt"),
        ("inspection._density", "class Display:\n    from matplotlib import cm"),
    ],
)
def test_forbidden_imports_are_found(module, source):
    module = f"skflows.{module}"
    assert len(violations(source, module, module.rpartition(".")[0])) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bijections._spline", "import torch\nfrom .. import kernels\nfrom ..nn import vjp"),
        ("bijections._base", "from ..nn.vjp import by_autograd\nfrom ._flow import Flow"),
        ("density._maf", "from sklearn.base import clone\nfrom ..bijections import Chain"),
        ("inspection._density", "def plot():\n    import matplotlib\n    from .. import density"),
        ("preprocessing.sklearn_compat", "from sklearn.utils._param_validation import Interval"),
    ],
)
def test_allowed_imports_pass(module, source):
    module = f"skflows.{module}"
    assert not violations(source, module, module.rpartition(".")[0])


@pytest.mark.parametrize("name", sklearn_compat.PRIVATE_NAMES)
def test_private_names_of_scikit_learn_exist(name):
    """A release that renames one of them fails here, and is mended in one file."""
    module, private_name = sklearn_compat.PRIVATE_NAMES[name]
    assert getattr(sklearn_compat, name) is getattr(importlib.import_module(module), private_name)


@pytest.mark.parametrize("cls", sklearn_compat.PRIVATE_ATTRIBUTES)
def test_private_attributes_exist(cls):
    module, _, name = cls.rpartition(".")
    model = getattr(importlib.import_module(module), name)(max_iter=1).fit([[0.0], [1.0]], [0, 1])
    for attribute in sklearn_compat.PRIVATE_ATTRIBUTES[cls]:
        assert hasattr(model, attribute)


@pytest.mark.parametrize("cls", sklearn_compat.PRIVATE_METHODS)
def test_private_methods_of_scikit_learn_exist(cls):
    module, _, name = cls.rpartition(".")
    if module == "sklearn.callback" and not HAS_CALLBACKS:
        pytest.skip("scikit-learn has callbacks from 1.9 on")
    methods = sklearn_compat.PRIVATE_METHODS[cls]
    assert [
        m for m in methods if not hasattr(getattr(importlib.import_module(module), name), m)
    ] == []


def test_unknown_names_are_not_in_the_compatibility_module():
    with pytest.raises(AttributeError, match="nothing"):
        sklearn_compat.nothing  # noqa: B018


# A process takes seconds to start: all tests share one, which goes from the lightest import on.
IN_A_NEW_PROCESS = """
import json, sys, sklearn.base
before = set(sys.modules)
import skflows
found = {name: f"skflows.{name}" in sys.modules for name in ("outlier", "conditional")}
found["listed"] = {"outlier", *skflows.__all__} <= {*dir(skflows)}
import skflows.density, skflows.inspection, skflows.model_selection
found["heavy"] = sorted({"torch", "matplotlib", "pandas"} & set(sys.modules) - before)
from skflows import DensityOutlierDetector, NSFDensity
found["same"] = skflows.outlier.DensityOutlierDetector is DensityOutlierDetector
found["nothing"] = hasattr(skflows, "nothing")
import numpy as np
NSFDensity(max_iter=1).fit(np.random.default_rng(0).normal(size=(50, 2)))
found["compiler"] = "torch._dynamo" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    """What is found in a new process."""
    run = [sys.executable, "-W", "error", "-c", IN_A_NEW_PROCESS]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def test_import_loads_no_torch_matplotlib_or_pandas(found):
    # scikit-learn itself imports pandas where it is installed: counted is what comes on top.
    assert found["heavy"] == []


def test_fit_loads_no_compiler(found):
    """The optimizers of torch import its compiler, which takes a second."""
    assert found["compiler"] is False


def test_detectors_and_regressors_are_imported_on_first_use(found):
    assert found["outlier"] is found["conditional"] is False
    assert found["listed"] is True
    assert found["same"] is True
    assert found["nothing"] is False
