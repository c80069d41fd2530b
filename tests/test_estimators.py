"""scikit-learn's conventions, reproducibility, and the global state of a process."""

import inspect
import random
import tomllib
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _densities import (
    MORE_CHECKS,
    N_ROWS,
    each_estimator,
    each_estimator_in_batches,
    each_kind,
    gaussian,
    small,
)
from numpydoc.validate import validate
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import skflows
from skflows.density import ARCHITECTURES, FlowDensity, _evaluation
from skflows.training import flow_fit, torch_state
from skflows.training.trainer import Trainer

PUBLIC_METHODS = [
    "score_samples",
    "score",
    "decision_function",
    "predict",
    "transform",
    "inverse_transform",
    "reconstruction_error",
]
PUBLIC_CLASSES = [
    getattr(skflows, name)
    for name in skflows.__all__
    if name not in ("FlowDensity", "export", "load")
]
each_public_class = pytest.mark.parametrize("cls", PUBLIC_CLASSES)
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def smallest(name, **params):
    """Return an estimator of as few parts as possible, for checks of its interface."""
    params = {"max_iter": 1, "n_transforms": 1, "n_steps": 1} | params
    known = inspect.signature(ARCHITECTURES[name]).parameters
    return small(name, **{key: value for key, value in params.items() if key in known})


def only_builds_a_bijection(cls):
    """Whether a flow inherits all but its bijection, and with it what scikit-learn checks."""
    generated = "__", "_abc_", "_sklearn_", "set_"
    return {name for name in vars(cls) if not name.startswith(generated)} == {"_build_bijection"}


# Of the flows that differ in their bijections alone, one stands for the others.
CHECKED = {
    name: {"objective": "flow_matching"} if name == "cnf" else {}
    for name, cls in ARCHITECTURES.items()
    if name == "maf" or not only_builds_a_bijection(cls)
}


# One small step. Where a gradient vanishes, Adam turns its rounding error into 1e-8 of a step, and
# later steps amplify it; the sample-weight check has a tolerance of 1e-9.
@parametrize_with_checks(
    [smallest(name, learning_rate_init=1e-4, **params) for name, params in CHECKED.items()]
)
def test_check_estimator(estimator, check):
    check(estimator)


# The pandas and polars checks mix arrays and frames on purpose. All flows inherit the methods that
# these checks call; only that of `CNFDensity` may have a number of output columns of its own.
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning")
@pytest.mark.parametrize("check", MORE_CHECKS)
@pytest.mark.parametrize("name", ["cnf", "maf"])
def test_checks_that_check_estimator_leaves_out(name, check):
    estimator = smallest(name)
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


@each_estimator
def test_parameter_constraints_hold(name):
    estimator_checks.check_param_validation(ARCHITECTURES[name].__name__, small(name))


def test_architectures_are_all_public_flows():
    flows = {cls for cls in [*PUBLIC_CLASSES, FlowDensity] if issubclass(cls, FlowDensity)}
    assert flows - {FlowDensity} == set(ARCHITECTURES.values())


# A solver needs a smooth velocity, a single network replaces several, and epochs are cheap. All
# samples of a waveform are alike, and its convolutions have few channels.
OWN_DEFAULTS = {
    "cnf": {"hidden_layer_sizes", "learning_rate_init", "max_iter", "n_iter_no_change"},
    "residual": {"hidden_layer_sizes", "learning_rate_init"},
    "waveflow": {"hidden_layer_sizes", "dropout", "preprocessing"},
}


@each_estimator
def test_shared_parameters_have_the_same_defaults(name):
    shared = inspect.signature(FlowDensity).parameters
    for key, parameter in inspect.signature(ARCHITECTURES[name]).parameters.items():
        if key in shared and key not in OWN_DEFAULTS.get(name, set()) | {"n_transforms"}:
            assert parameter.default == shared[key].default, key


@each_estimator
def test_tags(name):
    tags = get_tags(small(name))
    assert is_outlier_detector(small(name))
    assert not tags.target_tags.required
    assert tags.transformer_tags is not None
    assert not tags.input_tags.allow_nan
    assert not tags.input_tags.sparse


@each_estimator
def test_parameters_round_trip(name):
    """`get_params`, `set_params` and `clone` keep every parameter as it is given."""
    cls = ARCHITECTURES[name]
    params = {key: object() for key in inspect.signature(cls).parameters}
    estimator = cls(**params)
    assert estimator.get_params() == params
    assert cls().set_params(**params).get_params() == params
    assert vars(estimator) == params

    fitted = small(name, contamination=0.25).fit(gaussian(20)[0])
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "flow_")


@each_estimator
def test_parameters_are_keyword_only_and_validated(name):
    parameters = inspect.signature(ARCHITECTURES[name]).parameters
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(ARCHITECTURES[name]._parameter_constraints) == set(parameters)


@each_estimator
def test_unfitted_estimator_raises(name):
    for method in PUBLIC_METHODS:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(small(name), method)(np.zeros((3, 2)))
    with pytest.raises(NotFittedError, match="not fitted yet"):
        small(name).sample(2)


def own_members(cls):
    """Yield the public methods and properties of a class that skflows itself defines."""
    for name, member in inspect.getmembers(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), object)
        if not name.startswith("_") and owner.__module__.startswith("skflows"):
            yield name, member


@each_public_class
def test_docstrings_pass_numpydoc_validation(cls):
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]
    excluded = set(settings["numpydoc_validation"]["checks"])
    public = [f"skflows.{cls.__name__}"]
    public += [f"{public[0]}.{member}" for member, _ in own_members(cls)]
    assert len(public) > 3
    found = [
        f"{path}: {code} {message}"
        for path in public
        for code, message in validate(path)["errors"]
        if code not in excluded
    ]
    assert not found


# Types of libraries that are imported where they are used.
OF_OTHERS = dict.fromkeys(["Axes", "CallbackContext", "Explanation"], object)
OF_OTHERS |= dict.fromkeys(["dd", "pd"], SimpleNamespace(DataFrame=object, Series=object))


@pytest.mark.parametrize("room", skflows.SUBMODULES)
def test_public_methods_have_types(room):
    module = getattr(skflows, room)
    found = []
    for name in getattr(module, "__all__", ()):
        own = getattr(module, name)
        for function in map(function_of, [own, *vars(own).values()]):
            if function is not None and not function.__name__.startswith("_"):
                parameters = [*inspect.signature(function).parameters.values()]
                parameters = [p for p in parameters if p.name not in ("self", "cls")]
                types = [inspect.signature(function).return_annotation]
                types += [p.annotation for p in parameters]
                if inspect.Signature.empty in types:
                    found.append(f"{name}.{function.__name__}")
                typing.get_type_hints(function, localns=OF_OTHERS)
    assert not found


def function_of(member):
    """Return the function behind a method or a property of skflows, or None."""
    member = getattr(member, "fit", member)  # the descriptor of `fit` has it
    member = getattr(member, "fget", getattr(member, "fn", member))
    member = inspect.unwrap(getattr(member, "__func__", member))
    is_own = getattr(member, "__module__", "").startswith("skflows")
    return member if inspect.isfunction(member) and is_own else None


@each_public_class
def test_defaults_are_documented(cls):
    lines = inspect.getdoc(cls).splitlines()
    for key, parameter in inspect.signature(cls).parameters.items():
        documented = next(line for line in lines if line.startswith(f"{key} : "))
        _, _, value = documented.rpartition("default=")
        if parameter.default is not inspect.Parameter.empty:
            assert eval(value) == parameter.default, documented


@each_estimator
def test_fitted_attributes_are_documented(name):
    frame = pytest.importorskip("pandas").DataFrame(gaussian(20)[0], columns=["a", "b"])
    estimator = small(name).fit(frame)
    attributes = {key for key in vars(estimator) if key.endswith("_") and key[0] != "_"}
    attributes |= {
        key for key, member in own_members(type(estimator)) if isinstance(member, property)
    }
    assert {"flow_", "n_iter_", "offset_", "feature_names_in_", "loss_curve_"} <= attributes
    docs = [inspect.getdoc(type(estimator))]
    docs += [f"{key} : {inspect.getdoc(getattr(type(estimator), key, None))}" for key in attributes]
    lines = [line for doc in docs for line in doc.splitlines()]
    for key in attributes:
        assert any(line.startswith(f"{key} : ") for line in lines), key


@each_estimator_in_batches
def test_same_seed_gives_equal_results(name, batch_size):
    X, _ = gaussian(N_ROWS)
    params = {"batch_size": batch_size}
    if "dropout" in small(name).get_params():
        params["dropout"] = 0.2
    first, second = (small(name, **params).fit(X) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(X), second.score_samples(X))
    for seed in (3, np.random.RandomState(3)):
        np.testing.assert_array_equal(first.sample(5, random_state=3), second.sample(5, seed))
    assert first.history_ == second.history_
    other = small(name, **params | {"random_state": 1}).fit(X)
    assert np.any(other.score_samples(X) != first.score_samples(X))
    assert np.any(first.sample(5, random_state=4) != first.sample(5, random_state=3))


@each_kind
def test_random_state_instance_is_advanced(name):
    """Fits with one `RandomState` differ, and a new one with the same seed repeats them."""
    X, _ = gaussian(N_ROWS)

    def losses():
        random_state = np.random.RandomState(7)
        estimators = [
            small(name, batch_size=16, max_iter=1, random_state=random_state) for _ in range(2)
        ]
        return [estimator.fit(X).loss_curve_ for estimator in estimators]

    first, second = losses(), losses()
    assert first == second
    assert first[0] != first[1]


def global_state():
    return [
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        np.random.get_state()[2:],  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    ]


def test_scores_do_not_depend_on_the_number_of_threads(two_threads, small_blocks):
    X, _ = gaussian(N_ROWS)
    estimator = small("nsf").fit(X)
    small_blocks()
    scores = estimator.score_samples(X)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    np.testing.assert_array_equal(scores, estimator.score_samples(X))


@pytest.mark.parametrize(
    ("name", "method", "in_parallel"),
    [
        ("maf", "forward", True),
        ("maf", "inverse", False),
        ("iaf", "log_prob", False),
        ("iaf", "inverse", True),
        ("realnvp", "inverse", True),
        ("planar", "log_prob", False),
    ],
)
def test_only_passes_of_large_operations_run_in_threads(
    name, method, in_parallel, two_threads, small_blocks, monkeypatch
):
    """Threads take chunks in turn if the pass is not sequential; torch never divides a chunk."""
    X, _ = gaussian(N_ROWS)
    estimator = small(name).fit(X)
    pools, n_threads = [], []
    monkeypatch.setattr(
        _evaluation,
        "ThreadPoolExecutor",
        lambda size: pools.append(size) or ThreadPoolExecutor(size),
    )
    original = getattr(type(estimator.flow_), method)

    def recorded(*args):
        n_threads.append(torch.get_num_threads())
        return original(*args)

    monkeypatch.setattr(type(estimator.flow_), method, recorded)
    at_once = estimator._map_rows(method, X)
    assert n_threads == [1] and not pools
    small_blocks()
    in_chunks = estimator._map_rows(method, X)
    assert pools == [2] * in_parallel
    assert set(n_threads) == {1}
    assert torch.get_num_threads() == 2
    for part, whole in zip(in_chunks, at_once, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9)


@pytest.fixture
def threads_of_fits(two_threads, monkeypatch):
    """Record the number of threads in which each training runs."""
    n_threads = []
    original = Trainer.fit

    def recorded(self):
        n_threads.append(torch.get_num_threads())
        return original(self)

    monkeypatch.setattr(Trainer, "fit", recorded)
    return n_threads


@pytest.mark.parametrize(("name", "n_threads"), [("maf", 2), ("iaf", 1), ("planar", 1)])
def test_training_uses_one_thread_for_small_operations(
    name, n_threads, threads_of_fits, monkeypatch
):
    X, _ = gaussian(N_ROWS)
    small(name, max_iter=1).fit(X)
    monkeypatch.setattr(torch_state, "MIN_SHARED_WORK", 0)
    small(name, max_iter=1).fit(X)
    assert threads_of_fits == [1, n_threads]
    assert torch.get_num_threads() == 2


def test_a_stack_has_the_threads_that_a_member_would_have(threads_of_fits, monkeypatch):
    """With more, a search is several times slower than its fits alone on a busy machine."""
    X, _ = gaussian(N_ROWS)
    flow = small("maf", max_iter=1, batch_size=64, early_stopping=True)
    work = 64 * sum(p.numel() for p in clone(flow).fit(X).flow_.bijection.parameters())
    flow.set_params(input_noise="auto")  # four members
    monkeypatch.setattr(torch_state, "MIN_SHARED_WORK", 2 * work)
    clone(flow).fit(X)
    monkeypatch.setattr(torch_state, "MIN_SHARED_WORK", work)
    clone(flow).fit(X)
    assert threads_of_fits == [1, 1, 2]


def test_preprocessing_uses_one_thread(two_threads, monkeypatch):
    n_threads = []
    original = flow_fit.fitted_preprocessor

    def recorded(*args):
        n_threads.append(torch.get_num_threads())
        return original(*args)

    monkeypatch.setattr(flow_fit, "fitted_preprocessor", recorded)
    small("maf", max_iter=1).fit(gaussian(N_ROWS)[0])
    assert n_threads == [1]
    assert torch.get_num_threads() == 2


def test_overlapping_contexts_restore_the_number_of_threads(two_threads):
    first, second = torch_state.one_thread(), torch_state.one_thread()
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        for pool, context in ((a, first), (b, second)):
            pool.submit(context.__enter__).result()
        for pool, context in ((a, first), (b, second)):
            pool.submit(context.__exit__, None, None, None).result()
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == 2


@pytest.mark.usefixtures("two_threads")
@each_kind
def test_global_state_is_unchanged(name):
    X, _ = gaussian(N_ROWS)
    before = global_state()
    estimator = small(name, batch_size=16, early_stopping=True).fit(X)
    estimator.partial_fit(X)
    estimator.score_samples(X)
    estimator.sample(3, random_state=0)
    estimator.inverse_transform(estimator.transform(X))
    assert global_state() == before


@each_kind
def test_fit_works_under_no_grad(name):
    X, _ = gaussian(N_ROWS)
    with torch.no_grad():
        estimator = small(name).fit(X)
    assert estimator.loss_curve_ == small(name).fit(X).loss_curve_


@each_estimator_in_batches
def test_fit_works_under_another_default_dtype(name, batch_size):
    """The initial weights may differ in their rounding or their draws, the score only a little."""
    X, _ = gaussian(N_ROWS)
    score = small(name, batch_size=batch_size).fit(X).score(X)
    torch.set_default_dtype(torch.float64)
    try:
        other = small(name, batch_size=batch_size).fit(X).score(X)
    finally:
        torch.set_default_dtype(torch.float32)
    assert other == pytest.approx(score, abs=0.1)
