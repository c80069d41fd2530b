"""Saved models: exact, safe, whole, and refused if they are not."""

import copy
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from _densities import NAMES, banana, small
from _mutants import mutated_files, rewrite
from _tables import few_components  # noqa: F401 - a fixture
from scipy import sparse
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import KFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline

import skflows
from skflows import (
    AdaptiveKernelDensity,
    AutoDensity,
    ConditionalDensity,
    DensityClassifier,
    DensityOutlierDetector,
    FlowCompressor,
    FlowRegressor,
    GaussianizationDensity,
    NSFDensity,
    StackedDensity,
    TableDensity,
    TableImputer,
    TransformedDensity,
    VariationalDensity,
)
from skflows.bijections import Bijection
from skflows.cli import main
from skflows.density import FlowDensity
from skflows.model_selection import FlowGridSearchCV
from skflows.outlier import PyODDetector
from skflows.persistence import atomic, plain_state
from skflows.persistence.atomic import replace_file
from skflows.persistence.model_file import pack, unpack

X = np.column_stack([banana(60), np.random.default_rng(1).poisson(2, 60)])


class Double(Bijection):
    """A bijection of a user."""

    def __init__(self, n_features):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.ones(n_features))

    def forward(self, x, context=None):
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, z, context=None):
        return z / self.log_scale.exp(), -self.log_scale.sum().expand(len(z))


class OwnDensity(FlowDensity):
    """A density of a user."""

    def _build_bijection(self, n_features, n_context=0):
        return Double(n_features)


ESTIMATORS = {name: small(name) for name in NAMES} | {
    "gaussianization": GaussianizationDensity(max_iter=2, random_state=0),
    "transformed": TransformedDensity(GaussianMixture(2, random_state=0)),
    "kernels": AdaptiveKernelDensity(random_state=0),
    "outliers": DensityOutlierDetector(calibration="empirical_null", random_state=0),
    "stacked": StackedDensity(
        [("flow", small("nsf")), ("mixture", GaussianMixture(random_state=0))], cv=2
    ),
    "detector": DensityOutlierDetector(
        small("maf"), calibration="conformal", cv=2, random_state=np.random.RandomState(0)
    ),
    "typicality": DensityOutlierDetector(
        GaussianMixture(random_state=0), statistic="typicality", calibration="empirical_null"
    ),
}
each_estimator = pytest.mark.parametrize("name", ESTIMATORS)


@pytest.fixture(scope="module")
def models():
    return {name: copy.deepcopy(estimator).fit(X) for name, estimator in ESTIMATORS.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skflows"


def assert_equal(model, loaded):
    assert type(loaded) is type(model)
    addresses = re.compile("0x[0-9A-F]+")  # of random states
    assert addresses.sub("", repr(loaded)) == addresses.sub("", repr(model))
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    if hasattr(model, "sample"):
        drawn = [each.sample(5, random_state=0) for each in (loaded, model)]
        np.testing.assert_array_equal(*drawn)
    if hasattr(model, "explain"):
        np.testing.assert_array_equal(loaded.explain(X[:2]), model.explain(X[:2]))


@each_estimator
def test_loaded_model_is_the_saved_one(name, models, path):
    models[name].save(path)
    assert_equal(models[name], skflows.load(path))
    content = path.read_bytes()
    skflows.load(path).save(path)
    assert path.read_bytes() == content  # nothing is lost or added on the way


@each_estimator
def test_state_is_plain_data(name, models):
    """No tensor, module or private class: other formats, such as that of skops, can hold it."""

    def visit(value):
        if isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        if isinstance(value, list | tuple | set):
            assert type(value) in (list, tuple, set)
            for item in value:
                visit(item)
        elif hasattr(value, "get_params"):
            visit(value.__getstate__())
        else:
            plain = (str, int, float, type(None), np.ndarray, np.generic, np.random.RandomState)
            assert isinstance(value, plain), type(value)

    visit(models[name].__getstate__())


def test_fit_continues_after_loading(path):
    model = small("nsf", warm_start=True).fit(X)
    model.save(path)
    loaded = skflows.load(path)
    np.testing.assert_array_equal(loaded.fit(X).score_samples(X), model.fit(X).score_samples(X))


def test_own_classes_must_be_trusted(path):
    model = OwnDensity(max_iter=2, random_state=0).fit(X)
    assert_equal(model, pickle.loads(pickle.dumps(model)))
    model.save(path)
    with pytest.raises(ValueError, match=r"class 'test_persistence:OwnDensity'.*trusted="):
        skflows.load(path)
    assert_equal(model, skflows.load(path, trusted=[OwnDensity, Double]))


def test_estimators_of_other_libraries_need_skops_and_trust(path, monkeypatch):
    pytest.importorskip("skops")
    model = TransformedDensity(KernelDensity()).fit(X)
    model.save(path)
    with pytest.raises(ValueError, match=r"not trusted: .*KDTree.*trusted=") as error:
        skflows.load(path)
    types = eval(str(error.value).partition("trusted: ")[2].partition("]")[0] + "]")
    assert_equal(model, skflows.load(path, trusted=types))
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r"KernelDensity.*pip install skops"):
        model.save(path)
    with pytest.raises(ImportError, match="pip install skops"):
        skflows.load(path)


def test_loading_runs_no_code(path, tmp_path):
    """A file may name any class: those outside the package are refused, not imported."""
    small("maf").fit(X).save(path)
    payload = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return open, (str(payload), "w")

    for name, content in {
        "pickle": pickle.dumps(Payload()),
        "object array": _npy(np.array([Payload()], dtype=object)),
    }.items():
        if name == "pickle":
            path.write_bytes(content)
        else:
            rewrite(path, lambda files, content=content: files | {"0.npy": content})
        with pytest.raises(ValueError, match=r"model\.skflows"):
            skflows.load(path)
        small("maf").fit(X).save(path)
    for cls in ("os:system", "subprocess:Popen", "ModuleList", "Bijection:", "torch.nn.Linear"):
        rewrite(path, lambda files, cls=cls: _with_class(files, cls))
        with pytest.raises(ValueError, match=r"model\.skflows"):
            skflows.load(path)
        small("maf").fit(X).save(path)
    assert not payload.exists()


def _npy(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def _npy_that_claims(dtype, shape, values=b""):
    content = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue() + values


def _with_model(files, model):
    stamp = json.loads(files["model.json"]) | {"model": model}
    return files | {"model.json": json.dumps(stamp).encode()}


def _with_class(files, cls):
    stamp = json.loads(files["model.json"])
    stamp["model"]["@estimator"] = cls
    return files | {"model.json": json.dumps(stamp).encode()}


def test_damage_is_found(path):
    small("maf").fit(X).save(path)
    content = bytearray(path.read_bytes())
    model = skflows.load(path)
    rng = np.random.default_rng(0)
    n_refused = 0
    for place in rng.integers(len(content), size=100):
        damaged = content.copy()
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            loaded = skflows.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            n_refused += 1
        else:  # a bit that means nothing, such as one of a date
            np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    assert n_refused > 80
    for end in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"model\.skflows"):
            skflows.load(path)


@pytest.mark.parametrize("name", ["nsf", "stacked", "detector"])
def test_other_formats_are_refused(name, models, path, monkeypatch):
    models[name].save(path)
    pickled = pickle.dumps(models[name])
    before = plain_state.FORMAT
    monkeypatch.setattr(plain_state, "FORMAT", before + 1)
    message = rf"in format {before}; .*reads format {before + 1}: fit it again"
    for load in (lambda: skflows.load(path), lambda: pickle.loads(pickled)):
        with pytest.raises(ValueError, match=f"{message}$"):  # the same version does not help
            load()
        with monkeypatch.context() as later:
            later.setattr(skflows, "__version__", "99.0")
            with pytest.raises(ValueError, match=f"{message}, or load it with the version that"):
                load()


@pytest.mark.parametrize("name", ["nsf", "stacked", "detector"])
def test_other_versions_of_the_same_format_warn(name, models, path, monkeypatch):
    model, here = models[name], skflows.__version__
    with monkeypatch.context() as earlier:
        earlier.setattr(skflows, "__version__", "0.0.9")
        model.save(path)
        pickled = pickle.dumps(model)
    for load in (lambda: skflows.load(path), lambda: pickle.loads(pickled)):
        with pytest.warns(InconsistentVersionWarning) as warned:
            loaded = load()
        cls = type(model).__name__
        message = f"estimator skflows.{cls} from version 0.0.9 when using version {here}"
        assert any(message in str(warning.message) for warning in warned)
        np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
        # In tests, warnings are raised as errors.
        with pytest.raises(InconsistentVersionWarning, match=r"version 0\.0\.9"):
            load()


def test_pickles_without_a_format_are_refused():
    state = {"n_transforms": 5, "flow_": None}
    with pytest.raises(ValueError, match=r"stored by skflows before 0\.1 in format 0"):
        NSFDensity().__setstate__(state)


def test_names_of_classes_are_unique():
    """A class is found by its short name in any room."""
    names = []
    for room in plain_state.ROOMS:
        parent = plain_state.importlib.import_module(f"skflows.{room}")
        for info in plain_state.pkgutil.iter_modules(parent.__path__, f"skflows.{room}."):
            module = plain_state.importlib.import_module(info.name)
            names += [
                n
                for n, c in vars(module).items()
                if getattr(c, "__module__", 0) == info.name and isinstance(c, type)
            ]
    assert sorted(names) == sorted(set(names))


# skops, whose format mlflow takes by default

OTHERS = {
    "auto": AutoDensity(time_limit=0.2, random_state=0),
    "compressor": FlowCompressor(small("realnvp", max_iter=1)),
    "search": FlowGridSearchCV(small("maf", max_iter=1), {"dropout": [0.0]}, cv=2),
    "pyod": PyODDetector(small("maf", max_iter=1)),
    "table": TableDensity(max_iter=1, cv=2, random_state=0),
    "imputer": TableImputer(TableDensity(max_iter=1, cv=2, random_state=0), random_state=0),
}
# They take a y, here whether the last column is above its median.
CONDITIONAL = {
    "conditional": ConditionalDensity(small("maf", max_iter=1), cv=2, random_state=0),
    "regressor": FlowRegressor(ConditionalDensity(small("maf", max_iter=1), cv=2), random_state=0),
    "classifier": DensityClassifier(small("maf", max_iter=1), random_state=0),
}
OWN_SCORE = {
    "pyod": "decision_function",
    "imputer": "transform",
    "compressor": "compress",
    "conditional": "sample",
    "regressor": "predict",
}


def log_normal(x):
    return -x.square().sum(1)


@pytest.mark.filterwarnings("ignore:time_limit")
def test_skops_needs_only_our_public_classes_to_be_trusted(models):
    """And those that they consist of: not one is a helper, a tensor or a module of torch."""
    skops_io = pytest.importorskip("skops.io")
    fitted = models | {name: copy.deepcopy(each).fit(X) for name, each in OTHERS.items()}
    y = (X[:, 2] > np.median(X[:, 2])).astype(int)
    fitted |= {name: copy.deepcopy(each).fit(X, y) for name, each in CONDITIONAL.items()}
    variational = VariationalDensity(small("realnvp"), max_iter=1, random_state=0)
    fitted["variational"] = variational.fit(log_normal, X.shape[1])
    tested = {type(model).__name__ for model in fitted.values()}
    assert tested >= {*skflows.__all__} - {"FlowDensity", "export", "load"}
    for name, model in fitted.items():
        content = skops_io.dumps(model)
        types = skops_io.get_untrusted_types(data=content)
        assert len(types) <= 7, (name, types)
        loaded = skops_io.loads(content, trusted=types)
        score = OWN_SCORE.get(name, "score_samples")
        arguments = (X, 1, 0) if score == "sample" else (X,)
        expected = getattr(model, score)(*arguments)
        np.testing.assert_array_equal(getattr(loaded, score)(*arguments), expected)


# Atomic writes


def test_failed_write_keeps_the_old_file(path, monkeypatch):
    path.write_bytes(b"old")
    path.chmod(0o640)
    full = OSError(28, "No space left on device")
    with pytest.raises(OSError, match=r"cannot write .*model\.skflows: No space left"):
        with replace_file(path) as file:
            file.write(b"new")
            raise full
    with pytest.raises(KeyboardInterrupt):
        with replace_file(path) as file:
            raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [*path.parent.iterdir()] == [path]
    with replace_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_link_goes_on_pointing_to_the_file(path, tmp_path):
    path.write_bytes(b"old")
    link = tmp_path / "link"
    try:
        link.symlink_to(path)
    except OSError:
        pytest.skip("links are not permitted here")
    with replace_file(link, "w", encoding="utf-8") as file:
        file.write("new")
    assert link.is_symlink()
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.skipif(sys.platform == "win32", reason="the process is killed by a signal")
def test_killed_write_leaves_the_old_file_or_the_new_one(path):
    """At a random moment of writing the same model again and again.

    The process has imported nothing else, and scores as this one does. Its children are killed.
    """
    model = small("nsf").fit(X)
    model.save(path)
    content = path.read_bytes()
    np.save(path.with_suffix(".npy"), X)
    script = (
        f"import numpy, os, signal, skflows, sys; model = skflows.load({str(path)!r})\n"
        f"X = numpy.load({str(path.with_suffix('.npy'))!r})\n"
        "print(model.score_samples(X).sum().hex(), flush=True)\n"
        "for _ in sys.stdin:\n"
        "    child = os.fork()\n"
        "    if child == 0: signal.alarm(60)  # if this test fails\n"
        f"    while child == 0: model.save({str(path)!r})\n"
        "    print(child, flush=True)\n"
        "    print(os.waitpid(child, 0)[1], flush=True)"
    )
    rng = np.random.default_rng(0)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as run:
        assert float.fromhex(run.stdout.readline()) == model.score_samples(X).sum()
        for _ in range(2):
            print(file=run.stdin, flush=True)
            child = int(run.stdout.readline())
            time.sleep(rng.uniform(0.05, 0.3))
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(int(run.stdout.readline())) == signal.SIGKILL
            assert path.read_bytes() == content


WRITER = """
import runpy, sys, time

# The file alone: its package takes seconds to import.
replace_file = runpy.run_path(sys.argv[3])["replace_file"]
with replace_file(sys.argv[1], "w") as file:
    print("writes", flush=True)
    if sys.argv[2] == "waits":
        sys.stdin.readline()
    else:
        time.sleep(100)
    file.write("of another process")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the process is killed by a signal")
def test_next_write_removes_what_a_killed_one_left(path):
    """But not the file of a process, or of a thread, that is still writing."""

    def writer(how):
        run = [sys.executable, "-c", WRITER, str(path), how, atomic.__file__]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(run, **pipes)
        assert process.stdout.readline() == "writes\n"
        return process

    killed, living = writer("is killed"), writer("waits")
    killed.kill()
    killed.communicate()
    other = path.with_name(f".{path.name}.0123abcd-1-0123abcd.tmp")  # of another machine
    other.touch()
    assert len(list(path.parent.iterdir())) == 3
    with replace_file(path, "w") as outer:
        with replace_file(path, "w") as file:
            assert len(list(path.parent.iterdir())) == 4
            file.write("inner")
        outer.write("outer")
    assert path.read_text() == "outer"
    living.communicate("go on\n")
    assert living.returncode == 0
    assert path.read_text() == "of another process"
    assert {*path.parent.iterdir()} == {path, other}


@pytest.fixture
def full_disk():
    """A limit on the size of files, which has the effect of a disk that fills up while writing."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    on_signal = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    @contextmanager
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield limited
    signal.signal(signal.SIGXFSZ, on_signal)


def test_full_disk_keeps_the_old_files(path, full_disk, capsys, monkeypatch):
    monkeypatch.chdir(path.parent)
    small("maf").fit(X).save(path)
    table = path.with_name("table.csv")
    table.write_text("a\n1\n", encoding="utf-8")
    content = path.read_bytes()
    model = skflows.load("model.skflows")
    with full_disk(), pytest.raises(OSError, match=r"cannot write model\.skflows: File too large"):
        model.save("model.skflows")
    with full_disk():
        assert main("sample model.skflows -n 500 -o table.csv".split()) == 2
    printed = capsys.readouterr().err
    assert re.findall(r"cannot write (.*): File too large", printed) == [table.name]
    assert path.read_bytes() == content
    assert table.read_text(encoding="utf-8") == "a\n1\n"
    assert {*path.parent.iterdir()} == {path, table}


# What a file may make `load` do


HOSTILE = {
    "another class of torch": {"@class": "torch.nn.utils"},
    "a function of torch": {"@class": "torch.nn.factory_kwargs"},
    "a number": 5,
    "a list": [1, 2],
    "a hidden method": {
        "@estimator": "MAFDensity",
        "state": {"score_samples": 1, "_skflows": {"format": 3, "version": "0.1.0"}},
    },
    "a state that is none": {"@estimator": "MAFDensity", "state": [1]},
    "no estimator": {"@estimator": "Chain", "state": {}},
    "a class in place of a name": {"@estimator": "importlib:import_module", "state": {}},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_models_are_refused(path, kind):
    small("maf", max_iter=1).fit(X).save(path)

    rewrite(path, lambda files: _with_model(files, HOSTILE[kind]))
    with pytest.raises(ValueError, match=r"cannot load .*model\.skflows"):
        skflows.load(path)


def test_compressed_file_is_refused(path):
    """A small file could become one that fills the memory, also if it states a small size."""
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("model.json", "{}" + 10**6 * " ")
        content = bytearray(path.read_bytes())
        for size in (10**6 + 2, 50):
            entry = content.rindex(b"PK\x01\x02")
            content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
            path.write_bytes(content)
            with pytest.raises(ValueError, match="members are compressed, or larger"):
                skflows.load(path)
    small("maf", max_iter=1).fit(X).save(path)
    with pytest.raises(ValueError, match="trusted='Double'; it must be a list"):
        skflows.load(path, trusted="Double")


@pytest.mark.parametrize(
    "array",
    [
        _npy_that_claims("<f8", (10**10, 0)),
        _npy_that_claims("|V0", (10**10,)),
        _npy_that_claims("<f8", (10**9, 10**9, 10**9)),
        _npy_that_claims("<f8", (1,), bytes(80)),
    ],
)
def test_arrays_that_claim_other_sizes_are_refused(path, array, mixture_in_skops):
    small("maf", max_iter=1).fit(X).save(path)
    for name in ("0.npy", "9.npy"):
        content = path.read_bytes()
        rewrite(path, lambda files, name=name: files | {name: array})
        with pytest.raises(ValueError, match=r"cannot load .*model\.skflows"):
            skflows.load(path)
        path.write_bytes(content)
    _rewrite_skops(path, mixture_in_skops, lambda name, content: array)
    with pytest.raises(ValueError, match=r"cannot load .*model\.skflows: (an array|negative)"):
        skflows.load(path)


@pytest.fixture
def mixture_in_skops():
    pytest.importorskip("skops")
    return TransformedDensity(BayesianGaussianMixture(random_state=0)).fit(X)


def _rewrite_skops(path, model, change, pack=pack):
    """Save a model with changed arrays in the part that skops has stored."""
    model.save(path)

    def changed(files):
        parts = {name: unpack(part) for name, part in files.items() if name.endswith(".skops")}
        (name,) = (name for name, part in parts.items() if len(part) > 1)  # with arrays
        inside = {
            each: change(each, content) if each.endswith(".npy") else content
            for each, content in parts[name].items()
        }
        return files | {name: pack(inside)}

    rewrite(path, changed)


def test_parts_of_skops_take_no_more_memory_than_they_have(path, mixture_in_skops):
    def deflated(files):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return whole.getvalue()

    _rewrite_skops(path, mixture_in_skops, lambda name, content: content)
    assert_equal(mixture_in_skops, skflows.load(path))
    _rewrite_skops(path, mixture_in_skops, lambda name, content: content, deflated)
    with pytest.raises(ValueError, match="members are compressed, or larger"):
        skflows.load(path)
    inside = deflated({"data.npy": _npy(np.zeros(10**6))})
    _rewrite_skops(path, mixture_in_skops, lambda name, content: inside)
    with pytest.raises(ValueError, match="members are compressed, or larger"):
        skflows.load(path)


def test_sparse_matrices_are_stored_without_compression(path):
    skops_io = pytest.importorskip("skops.io")
    from skflows.persistence.model_file import dump_foreign

    matrix = sparse.random(9, 9, density=0.2, random_state=0, format="csr")
    content = dump_foreign(sparse.csr_matrix(matrix), "a matrix")
    (name,) = (name for name in unpack(content) if name.endswith(".npz"))
    assert "data.npy" in unpack(unpack(content)[name])
    loaded = skops_io.loads(content, trusted=["scipy.sparse._csr.csr_matrix"])
    np.testing.assert_array_equal(loaded.toarray(), matrix.toarray())


def test_small_files_take_little_memory(path):
    """One array, or one container, in many places would take much more than the file."""
    small("maf", max_iter=1).fit(X).save(path)
    copies = [{"@array": "0.npy"}] * 1000
    nested = [{"@tuple": [1] * 10, "@number": 0}]
    for number in range(1, 9):
        nested.append({"@tuple": [{"@same": number - 1}] * 10, "@number": number})
    content = path.read_bytes()
    for model in (copies, nested):
        path.write_bytes(content)
        rewrite(path, lambda files, model=model: _with_model(files, model))
        rewrite(path, lambda files: files | {"0.npy": _npy(np.zeros(10**4))})
        tracemalloc.start()
        with pytest.raises(ValueError, match="more than once"):
            skflows.load(path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 4 * 10**6


@pytest.mark.parametrize("name", ["MT19937", "Philox"])
def test_random_states_out_of_range_are_refused(path, name):
    """With them, numpy reads memory of others, and the process ends."""
    for place in (-(10**8), 10**8):
        model = small("maf", max_iter=1).fit(X)
        model.random_state = np.random.Generator(getattr(np.random, name)(0))
        model.save(path)
        model.random_state = np.random.RandomState(0)
        assert isinstance(skflows.load(path).random_state, np.random.Generator)
        key = "buffer_pos" if name == "Philox" else "pos"
        pattern = re.compile(rf'"{key}": \d+'.encode())

        new = f'"{key}": {place}'.encode()

        def moved(files, pattern=pattern, new=new):
            content, n_changed = pattern.subn(new, files["model.json"])
            assert n_changed == 1
            return files | {"model.json": content}

        rewrite(path, moved)
        with pytest.raises(ValueError, match=f"random state of a {name} has the place {place}"):
            skflows.load(path)


def test_mutated_models_load_or_are_refused(path, models):
    """With the right checksum, whatever value or key of the JSON, or byte of an array, changes."""

    models["detector"].save(path)
    original = path.read_bytes()
    rng = random.Random(0)
    n_refused = 0
    for _ in range(150):
        path.write_bytes(original)
        rewrite(path, lambda files: mutated_files(files, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                skflows.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            n_refused += 1
    assert n_refused > 50


def test_models_with_parts_of_scikit_learn_need_no_trust(path):
    frozen = FrozenEstimator(small("maf", max_iter=1).fit(X))
    pipeline = make_pipeline(small("nsf", max_iter=1))
    members = [("frozen", frozen), ("pipeline", pipeline)]
    model = StackedDensity(members, cv=KFold(2), random_state=0).fit(X)
    model.save(path)
    assert_equal(model, skflows.load(path))


class WithAttention(Double):
    def __init__(self, n_features):
        super().__init__(n_features)
        self.attention = torch.nn.MultiheadAttention(4, 2)
        self.register_forward_pre_hook(check_arguments)


def check_arguments(module, arguments):
    assert len(arguments)


def test_modules_of_torch_are_copied_with_their_hooks():
    model = OwnDensity(max_iter=1).fit(X)
    model.flow_.bijection = WithAttention(X.shape[1]).double()
    copied = copy.deepcopy(model).flow_.bijection
    assert type(copied.attention) is torch.nn.MultiheadAttention
    assert len(copied._forward_pre_hooks) == 1
