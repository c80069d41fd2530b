"""Settings of the whole suite, read before ``skflows`` or ``tests`` is collected."""

import gc
import os
import sys
from functools import partial

import pytest
import sklearn
from hypothesis import HealthCheck, settings
from sklearn.utils.fixes import parse_version

# Displays draw without a screen, and no window waits to be closed.
os.environ["MPLBACKEND"] = "Agg"

# Commands use all cores; each of joblib's processes takes seconds to start.
os.environ["LOKY_MAX_CPU_COUNT"] = "1"

# A fit takes longer than hypothesis allows an example, and a failure must come back on the next
# run: the examples are drawn from the test itself, not from a database on one machine.
settings.register_profile(
    "skflows",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("skflows")

HAS_CALLBACKS = parse_version(sklearn.__version__) >= parse_version("1.9")
collect_ignore = [] if HAS_CALLBACKS else ["test_callbacks.py", "test_checkpoints.py"]


def pytest_collection_finish():
    """Let the garbage collector pass over modules and tests, which stay until the end."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip a test that sets callbacks where scikit-learn has none."""
    try:
        return (yield)
    except NotImplementedError as error:
        if HAS_CALLBACKS or "scikit-learn>=1.9" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def close_figures():
    """No figure of a test stays open after it."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


# What is read, scored, drawn or answered at once.
SMALL_BLOCKS = {
    "skflows.cli._tables.BATCH_ROWS": 20,
    "skflows.cli._tables.BLOCK": 64,
    "skflows.dask._density.CHUNK": 40,
    "skflows.density._evaluation.VALUES_AT_ONCE": 50,
    "skflows.density._evaluation.VALUES_PER_CHUNK": 30,
    "skflows.distribution.distribution.ROWS_AT_ONCE": 3,
    "skflows.ensemble._simple_densities.VALUES_PER_CHUNK": 300,
    "skflows.preprocessing.dequantizer.ROWS_AT_ONCE": 7,
    "skflows.table._predictive.ROWS_AT_ONCE": 3,
    "skflows.table._variables.ROWS_AT_ONCE": 3,
    "skflows.training.losses.EVALUATION_ROWS": 5,
}


@pytest.fixture
def small_blocks(monkeypatch):
    """Return a function that lets all work be done in small blocks, which must change no result."""

    def shrink():
        for name, size in SMALL_BLOCKS.items():
            monkeypatch.setattr(name, size)

    return shrink


@pytest.fixture
def two_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)  # small passes use 1
    yield
    torch.set_num_threads(before)


@pytest.fixture
def on_terminal(monkeypatch):
    """Return a function that lets the standard output be a terminal."""
    return lambda: monkeypatch.setattr("sys.stdout.isatty", lambda: True)


@pytest.fixture
def interrupt(monkeypatch):
    """Interrupt the third epoch; return a list that grows by each epoch."""
    from skflows.training import trainer

    epochs = []
    shuffle = trainer.shuffled_batches

    def interrupted(*args, **kwargs):
        epochs.append(0)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return shuffle(*args, **kwargs)

    monkeypatch.setattr(trainer, "shuffled_batches", interrupted)
    return epochs


@pytest.fixture(params=["compiled", "torch"])
def implementation(request, monkeypatch):
    """Run a test with the compiled kernels, and with PyTorch operations alone."""
    from skflows import kernels

    if request.param == "torch":
        monkeypatch.setattr(kernels, "_compiled", None)
    elif kernels._compiled is None:
        pytest.skip("installed without a C compiler")


@pytest.fixture
def with_torch(monkeypatch):
    """Return a function that calls another one as if there were no compiled kernels."""
    from skflows import kernels

    def call(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "_compiled", None)
            return function(*args)

    return call


@pytest.fixture
def keep_components(monkeypatch):
    """Return a function that lets densities of tables have few components.

    ``keep_components(condition)`` keeps those for which ``condition(component)`` is true.
    """
    from _tables import keep_components

    return partial(keep_components, monkeypatch)


@pytest.fixture
def one_class(keep_components, monkeypatch):
    """Let densities of tables have a single component, which is fitted at once, and two folds."""
    keep_components(lambda component: component.name == "quantile classes of 1")
    monkeypatch.setattr("skflows.ensemble._folds.N_FOLDS", 2)


@pytest.fixture
def mixed_table(monkeypatch, keep_components):
    """Return a table of numbers, texts, dates and gaps; let `TableDensity` have few members.

    Its network sees one batch and draws nothing, so rows may be in other places: dates and counts
    have so few values that these are listed.
    """
    import numpy as np
    import pandas as pd
    import torch

    from skflows.table import _components, _network

    def all_targets(known, uniform, *_):
        return torch.zeros_like(known), torch.ones(len(known))

    keep_components(lambda each: each.is_trained or each.name == "quantile classes of 1")
    monkeypatch.setattr(_network, "random_given", all_targets)
    for name, value in {"HIDDEN": (8,), "BATCH_SIZE": 1000, "DROPOUT": 0.0}.items():
        monkeypatch.setattr(_components, name, value)
    rng = np.random.default_rng(0)
    kind = rng.choice(["cat", "dog"], 200)
    weight = np.where(kind == "cat", 4.0, 20.0) * rng.lognormal(0, 0.2, 200)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 55, 200), "D")
    table = pd.DataFrame({"kind": kind, "kg": weight, "cm": 3 * weight + rng.normal(size=200)})
    table = table.assign(n=rng.binomial(7, 0.5, 200), day=day)
    table.loc[::10, "kg"] = np.nan
    table.loc[5::17, "kind"] = None
    table.loc[60] = None  # nothing is known
    table.loc[100:149, "cm"] = np.nan  # a whole partition
    return table


@pytest.fixture
def crash_after(monkeypatch):
    """Return a function that lets the n-th next write of a checkpoint be the last act of a fit."""
    from _densities import Crash

    from skflows.callbacks._checkpoint import TrainingFile

    write, left = TrainingFile.save, [0]

    def save(self, *args):
        write(self, *args)
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    def crash_after(n):
        left[0] = n

    monkeypatch.setattr(TrainingFile, "save", save)
    return crash_after
