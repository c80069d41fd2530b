"""Threads: forked processes, and small fits that use one."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from _densities import banana, small
from _tables import few_components  # noqa: F401 - a fixture
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from skflows import StackedDensity, TableDensity
from skflows.density._third_party import fit_density
from skflows.training import threads, torch_state

# Every public method of every kind of estimator, in a child of a process whose threads have run.
FORKED = """
import multiprocessing, sys, warnings
import numpy as np, pandas as pd, torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from skflows import (
    AdaptiveKernelDensity, AutoDensity, CNFDensity, ConditionalDensity, DensityClassifier,
    DensityOutlierDetector, FlowRegressor, NSFDensity, StackedDensity, TableDensity,
    TransformedDensity,
)
from skflows.compression import FlowCompressor
from skflows.outlier import DefectDetector, OutlierEnsemble
from skflows.table import TableImputer, _components

warnings.simplefilter("ignore")
_components.N_CLASSES = {"quantile": (4,), "linear": (4,)}
_components.N_BINNED_CLASSES, _components.BANDWIDTHS = (4,), (1.0,)
rng = np.random.default_rng(0)
X = rng.standard_normal((1200, 8))
y, label = X[:, 0] + rng.standard_normal(1200), (X[:, 0] > 0).astype(int)
table = pd.DataFrame(X[:120], columns=list("abcdefgh"))
table["kind"] = np.where(table["a"] > 0, "p", "n")
gaps = table.assign(**table[["a", "kind"]].mask(rng.random((120, 2)) < 0.2))
some, images = X[:400], rng.standard_normal((20, 16, 16))
new = images + rng.standard_normal(images.shape)
flow = NSFDensity(max_iter=1, hidden_layer_sizes=(64,))
kinds = TableDensity(max_iter=1, n_orders=2, cv=2)
scored = {"score_samples": (X,), "predict": (X,), "decision_function": (X,)}
density = scored | {"score": (X,), "sample": (400,)}
mapped = {name: (X,) for name in ("transform", "inverse_transform", "reconstruction_error")}
CASES = [
    (flow, (X,), density | mapped | {"partial_fit": (X,), "distribution": ()}),
    (CNFDensity(max_iter=1, contamination=None, solver="rk4", n_steps=2), (X,), density | mapped | {
        "partial_fit": (X,), "distribution": (), "solver_error": (some,),
        "score_standard_error": (some,)}),
    (AdaptiveKernelDensity(), (X,), density),
    (TransformedDensity(AdaptiveKernelDensity()), (X,), density),
    (StackedDensity([("flow", flow)], cv=2), (X,), density),
    (AutoDensity(cv=2, time_limit=0.2), (X,), density),
    (kinds, (table,), {name: (gaps,) for name in scored} | {
        "score": (gaps,), "sample": (400,), "impute": (gaps,), "levels": ("kind",),
        "predict_proba": ("kind", gaps), "quantile": ("a", gaps),
        "predict_distribution": ("a", gaps),
        "condition": ({"a": 0.0},), "marginal": (["a", "kind"],)}),
    (TableImputer(kinds), (gaps,), {"transform": (gaps,)}),
    (ConditionalDensity(flow, cv=2), (X, y), {
        "log_prob": (X, y), "sample": (X,), "score": (X, y), "predict_distribution": (some,)}),
    (FlowRegressor(ConditionalDensity(flow, cv=2)), (X, y), {
        "p_values": (some, y[:400]), "score": (some, y[:400])} | {
        name: (some,) for name in ("predict", "predict_distribution", "predict_interval",
        "predict_quantiles", "predict_region")}),
    (DensityClassifier(flow, calibration=0.2), (X, label), {"score": (X, label)} | {
        name: (X,) for name in ("predict", "predict_proba", "predict_log_proba", "predict_set",
        "p_values", "score_samples")}),
    (DensityOutlierDetector(flow, calibration="conformal", cv=2), (X,), scored | {
        "score": (X,), "p_values": (X,), "flag": ([0.1, 0.2],), "batch_p_value": (some,),
        "explain": (X[:4],), "odd_pairs": (X[:4],)}),
    (DefectDetector(cv=2, estimator=ConditionalDensity(flow, cv=None)), (images,), {
        name: (new,) for name in ("score_samples", "predict", "decision_function", "p_values",
        "defect_map")}),
    (OutlierEnsemble(), (X,), scored),
    (FlowCompressor(flow), (X,), {"compress": (X[:40],), "decompress": None}),
]
COMMON = {"fit", "fit_predict", "fit_transform", "save"}

def public(estimator):
    names = {name for name in dir(estimator) if not name.startswith(("_", "set_", "get_"))}
    names = {name for name in names if not name.endswith("_")}
    return {name for name in names - COMMON if callable(getattr(estimator, name, None))}

def use(estimator, fit, calls):
    name = type(estimator).__name__
    for method, args in calls.items():
        print(name, method, flush=True)
        if method == "decompress":
            args = (estimator.compress(X[:40]),)
        found = getattr(estimator, method)(*args)
        if method in ("condition", "marginal"):
            for part in (found, found.marginal(["b" if method == "condition" else "a"])):
                part.score_samples(gaps)
                part.sample(400)
        if method == "predict_distribution":
            for asked in ("mean", "median", "std"):
                getattr(found, asked)()
            found.logpdf(y[: len(found)]), found.cdf(y[: len(found)]), found.rvs(2)
    print(name, "fit", flush=True)
    clone(estimator).fit(*fit)

def use_all():
    for case in CASES:
        use(*case)

torch.set_num_threads(2)
for estimator, fit, calls in CASES:
    estimator.fit(*fit)
    if public(estimator) != set(calls):
        sys.exit(f"{type(estimator).__name__}: {public(estimator) ^ set(calls)}")
torch.ones(2000, 2000).exp().sum()  # starts a thread that the child does not have
KMeans(2, n_init=1).fit(np.ones((5000, 2)) * np.arange(5000)[:, None])  # of another OpenMP
child = multiprocessing.get_context("fork").Process(target=use_all)
child.start()
child.join(600)  # 180 s on a busy machine
hangs = child.is_alive()
child.kill()
sys.exit("the child hangs" if hangs else child.exitcode)
"""


def run_python(code):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_every_method_works_in_a_forked_process():
    run_python(FORKED)


def pools():
    """Return the number of threads of each library."""
    found = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    return found | {"torch": torch.get_num_threads()}


@pytest.fixture
def two_threads():
    """Let all libraries use two threads, and return what `pools` says then."""
    KMeans(1, n_init=1).fit(np.zeros((2, 1)))  # loads its OpenMP
    before = torch.get_num_threads()
    with threadpool_limits(2):
        # Otherwise no other thread could set OpenBLAS.
        for pool in ThreadpoolController().lib_controllers:
            if hasattr(pool, "clear_controlling_thread"):
                pool.clear_controlling_thread()
        torch.set_num_threads(2)
        yield pools()
        torch.set_num_threads(before)


class Watched(GaussianMixture):
    """A density that keeps the number of threads of each library in its fit."""

    def fit(self, X, y=None):
        self.seen = pools()
        return super().fit(X)


class Watcher:
    """A callback that keeps the number of threads in each task of a fit, and may end the fit."""

    def __init__(self, error=None):
        self.error = error

    def setup(self, estimator, context):
        self.seen = []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.seen.append(pools())
        if self.error is not None and len(self.seen) == 2:  # in the first component
            raise self.error

    def on_fit_task_end(self, estimator, context):
        self.seen.append(pools())


def test_small_fits_use_one_thread_in_every_library(two_threads):
    assert len(two_threads) > 2
    assert set(two_threads.values()) == {2}
    watcher = Watcher()
    TableDensity(max_iter=1, cv=2).set_callbacks(watcher).fit(banana(60))
    assert {n for seen in watcher.seen for n in seen.values()} == {1}
    assert pools() == two_threads


def test_large_fits_use_the_threads_of_the_caller(two_threads, monkeypatch):
    X = banana(60)
    assert set(fit_density(Watched(), X).seen.values()) == {1}
    monkeypatch.setattr(threads, "MIN_SHARED_VALUES", X.size)
    assert fit_density(Watched(), X).seen == two_threads
    assert pools() == two_threads


def test_large_steps_of_a_small_table_use_the_threads_of_the_caller(two_threads, monkeypatch):
    seen, suitable = [], torch_state.suitable_threads
    monkeypatch.setattr(torch_state, "MIN_SHARED_WORK", 0)
    with threads.few_threads(banana(60)):
        assert torch.get_num_threads() == 1
        with suitable(small("maf").fit(banana(60)).flow_.bijection, 60):
            seen.append(torch.get_num_threads())
        assert torch.get_num_threads() == 1
    assert seen == [2]
    assert pools() == two_threads


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_fits_leave_the_threads_as_they_were(error, two_threads):
    density = TableDensity(max_iter=1, cv=2).set_callbacks(Watcher(error))
    for _ in range(3):
        with nullcontext() if error is None else pytest.raises(error):
            density.fit(banana(60))
        assert pools() == two_threads


@pytest.fixture
def workers(two_threads):
    """Return two functions, each of which calls another one in a thread of its own."""
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        calls = [lambda f, *a, pool=pool: pool.submit(f, *a).result() for pool in (first, second)]
        for call in calls:
            call(torch.get_num_threads)  # a thread begins with what torch has at its first call
            call(torch.set_num_threads, 2)
            call(set_openmp, 2)
        yield calls


def set_openmp(n):
    for pool in ThreadpoolController().select(user_api="openmp").lib_controllers:
        pool.set_num_threads(n)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_overlapping_fits_of_two_threads(order, two_threads, workers):
    """The one that ends first leaves the other one its limit; the last one restores all."""
    contexts = [threads.few_threads(banana(9)) for _ in workers]
    for call, context in zip(workers, contexts, strict=True):
        call(context.__enter__)
        assert set(call(pools).values()) == {1}
    first, last = order
    workers[first](contexts[first].__exit__, None, None, None)
    assert set(workers[last](pools).values()) == {1}
    assert workers[first](torch.get_num_threads) == 2
    workers[last](contexts[last].__exit__, None, None, None)
    for call in (*workers, lambda f: f()):
        assert call(pools) == two_threads


def test_large_steps_in_one_thread_leave_others_their_limit(two_threads, workers):
    small_fit, large_fit = threads.few_threads(banana(9)), torch_state.one_thread.lifted()
    workers[0](small_fit.__enter__)
    with ThreadPoolExecutor(1) as new:  # its thread begins with the one of the small fit
        assert new.submit(torch.get_num_threads).result() == 1
        new.submit(large_fit.__enter__).result()
        assert new.submit(torch.get_num_threads).result() == 2
        assert set(workers[0](pools).values()) == {1}
        workers[0](small_fit.__exit__, None, None, None)
        new.submit(large_fit.__exit__, None, None, None).result()
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == 2
    assert pools() == two_threads


def test_after_a_fit_other_threads_may_set_openblas(two_threads, workers):
    """Threadpoolctl gives OpenBLAS to the first thread that sets it, until that gives it up."""
    with threads.few_threads(banana(9)):
        pass

    def limited():
        with threadpool_limits(1):
            return pools()

    found = workers[0](limited)
    assert {n for path, n in found.items() if "openblas" in path} == {1}


IN_CHILD = """
import os, signal, sys, threading
import numpy as np, torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info
from skflows import NSFDensity
from skflows.distribution.normal import normal_cdf
from skflows.training import threads, torch_state

def pools():
    found = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    return found | {"torch": torch.get_num_threads()}

def in_child(f):
    child = os.fork()
    if not child:
        os._exit(f())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

KMeans(1, n_init=1).fit(np.zeros((2, 1)))
torch.set_num_threads(2)
before, table = pools(), np.zeros((9, 2))
if in_child(lambda: pools() != before):
    sys.exit("a child that does nothing with skflows is limited")

def after_a_fit():
    with threads.few_threads(np.zeros((2_000_000, 1))):
        is_limited = set(pools().values()) == {1}
    return not (is_limited and pools() == before)

def many_values():
    signal.alarm(60)
    return bool((normal_cdf(np.zeros(10**6)) != 0.5).any())

torch.ones(2000, 2000).exp().sum()  # starts a thread that the child does not have
if in_child(many_values):
    sys.exit("the distribution function of many values waits for the threads of the parent")
if in_child(after_a_fit):
    sys.exit("a large fit in a child is not limited, or leaves its limit")
begun, end = threading.Event(), threading.Event()

def fit():
    with torch_state.one_thread():
        begun.set()
        end.wait()

thread = threading.Thread(target=fit)
thread.start()
begun.wait()
is_kept = in_child(lambda: bool(torch_state.one_thread.contexts))
end.set()
thread.join()
if is_kept:
    sys.exit("a child waits for the fit of a thread that it does not have")
with torch_state.one_thread():
    if in_child(lambda: len(torch_state.one_thread.contexts) != 1):
        sys.exit("a child forgets the fit that it was forked in")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_children_keep_their_threads():
    run_python(IN_CHILD)


def test_answers_of_tables_use_one_thread_of_torch(two_threads, monkeypatch):
    X = banana(60)
    model, seen = TableDensity(max_iter=1, cv=2, n_orders=2).fit(X), []
    for name in ("log_softmax", "cholesky", "solve_triangular", "searchsorted", "erfc"):
        for module in (torch, torch.linalg, torch.special):
            if hasattr(module, name):
                exact = getattr(module, name)

                def watched(*args, exact=exact, **kwargs):
                    seen.append(torch.get_num_threads())
                    return exact(*args, **kwargs)

                monkeypatch.setattr(module, name, watched)
    gaps = X.copy()
    gaps[::2, 0] = np.nan
    model.score_samples(X)
    model.impute(gaps)
    model.sample(5, random_state=0)
    model.quantile(0, gaps, [0.1, 0.5])
    model.predict_distribution(1, gaps).mean()
    assert set(seen) == {1}


@pytest.mark.parametrize(
    "estimator",
    [
        TableDensity(max_iter=1, cv=2, random_state=0),
        StackedDensity([("gm", GaussianMixture(3))], cv=2, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_threads_do_not_change_the_bits(estimator, two_threads):
    X = np.random.default_rng(0).standard_normal((400, 6))
    two = estimator.fit(X).score_samples(X)
    with threadpool_limits(1):
        torch.set_num_threads(1)
        np.testing.assert_array_equal(estimator.fit(X).score_samples(X), two)
    torch.set_num_threads(2)
