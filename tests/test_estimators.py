"""The estimators keep scikit-learn's conventions."""

import inspect
import random
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from _densities import N_ROWS, NAMES, each_estimator, gaussian, small, whole_and_in_batches
from numpydoc.validate import validate
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import skflows
from skflows.training import trainer as _training
from skflows.density import ARCHITECTURES, FlowDensity
from skflows.training import torch_state as _engine, flow_fit as _run

# `check_estimator` does not run these, though they apply.
LEFT_OUT = [
    "check_dataframe_column_names_consistency",
    "check_estimators_partial_fit_n_features",
    "check_get_feature_names_out_error",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_param_validation",
    "check_requires_y_none",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]
PUBLIC_METHODS = [
    "score_samples",
    "score",
    "decision_function",
    "predict",
    "transform",
    "inverse_transform",
    "reconstruction_error",
]
PUBLIC = [getattr(skflows, name) for name in skflows.__all__ if name != "FlowDensity"]
each_public = pytest.mark.parametrize("cls", PUBLIC)
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


# One small step: where a gradient vanishes, Adam turns its rounding into 1e-8 of a step, and more
# in later steps; the sample-weight check tolerates 1e-9.
@parametrize_with_checks([small(name, max_iter=1, learning_rate_init=1e-4) for name in NAMES])
def test_check_estimator(estimator, check):
    check(estimator)


# The pandas and polars checks mix arrays and frames on purpose.
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning")
@pytest.mark.parametrize("check", LEFT_OUT)
@each_estimator
def test_check_left_out_of_check_estimator(name, check):
    estimator = small(name)
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


def test_table_holds_every_public_flow():
    classes = {getattr(skflows, name) for name in skflows.__all__}
    flows = {cls for cls in classes if issubclass(cls, FlowDensity)}
    assert flows - {FlowDensity} == set(ARCHITECTURES.values())


# A solver needs a smooth velocity, there is one network in place of several, and epochs are cheap.
OWN_DEFAULTS = {
    "cnf": set(
        "hidden_layer_sizes activation preprocessing learning_rate_init max_iter "
        "n_iter_no_change".split()
    )
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
    """Every parameter is kept as given, by `get_params`, `set_params` and `clone`."""
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


@pytest.mark.parametrize("method", PUBLIC_METHODS)
@each_estimator
def test_unfitted(name, method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(small(name), method)(np.zeros((3, 2)))


@each_estimator
def test_unfitted_sample(name):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        small(name).sample(2)


def own_members(cls):
    """Public methods and properties that skflows itself defines for a class."""
    for name, member in inspect.getmembers(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), object)
        if not name.startswith("_") and owner.__module__.startswith("skflows"):
            yield name, member


@each_public
def test_docstrings(cls):
    """Numpydoc finds nothing: each parameter and return value is described, for one."""
    settings = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]
    excluded = set(settings["numpydoc_validation"]["checks"])
    public = [f"skflows.{cls.__name__}"]
    public += [f"{public[0]}.{member}" for member, _ in own_members(cls)]
    assert len(public) > 6
    found = [
        f"{path}: {code} {message}"
        for path in public
        for code, message in validate(path)["errors"]
        if code not in excluded
    ]
    assert not found


@each_public
def test_defaults_are_documented(cls):
    """The docstring of a class states the default that its signature has."""
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


@whole_and_in_batches
@each_estimator
def test_same_seed_gives_the_same_bits(name, batch_size):
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


@each_estimator
def test_random_state_instance_is_advanced(name):
    """One instance gives a different fit each time, and the same ones when it is made again."""
    X, _ = gaussian(N_ROWS)

    def losses():
        random_state = np.random.RandomState(7)
        estimators = [small(name, batch_size=16, random_state=random_state) for _ in range(2)]
        return [estimator.fit(X).loss_curve_ for estimator in estimators]

    first, second = losses(), losses()
    assert first == second
    assert first[0] != first[1]


def global_state():
    return [
        random.getstate(),
        *np.random.get_state()[1:],  # noqa: NPY002
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    ]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # not the 1 that small passes run on
    yield
    torch.set_num_threads(before)


def test_threads_share_the_chunks_of_a_table(two_threads, monkeypatch):
    X, _ = gaussian(N_ROWS)
    estimator = small("nsf").fit(X)
    monkeypatch.setattr(_engine, "VALUES_PER_CHUNK", 20)
    shared = estimator.score_samples(X)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    np.testing.assert_array_equal(shared, estimator.score_samples(X))


@pytest.mark.parametrize(
    ("name", "direction", "is_shared"),
    [
        ("maf", "forward", True),
        ("maf", "inverse", False),
        ("iaf", "log_prob", False),
        ("iaf", "inverse", True),
        ("realnvp", "inverse", True),
        ("planar", "log_prob", False),
    ],
)
def test_threads_share_no_small_operations(name, direction, is_shared, two_threads, monkeypatch):
    """Neither Python's, which would take turns at starting them, nor torch's."""
    X, _ = gaussian(N_ROWS)
    estimator = small(name).fit(X)
    monkeypatch.setattr(_engine, "VALUES_PER_CHUNK", 40)
    pools, numbers = [], []
    monkeypatch.setattr(
        _engine,
        "ThreadPoolExecutor",
        lambda n_threads: pools.append(n_threads) or ThreadPoolExecutor(n_threads),
    )
    passed = getattr(type(estimator.flow_), direction)

    def watched(*args):
        numbers.append(torch.get_num_threads())
        return passed(*args)

    monkeypatch.setattr(type(estimator.flow_), direction, watched)
    in_chunks = estimator._map_rows(direction, X)
    assert pools == [2] * is_shared
    assert set(numbers) == {1}
    monkeypatch.setattr(_engine, "VALUES_PER_CHUNK", 2**16)
    numbers.clear()
    at_once = estimator._map_rows(direction, X)
    assert numbers == [1]  # for torch to share few rows gains nothing
    monkeypatch.undo()
    assert torch.get_num_threads() == 2
    for part, whole in zip(in_chunks, at_once, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "n_threads"), [("maf", 2), ("iaf", 1), ("planar", 1)])
def test_fits_share_no_small_operations(name, n_threads, two_threads, monkeypatch):
    monkeypatch.setattr(_engine, "SMALLEST_SHARED_WORK", 0)
    monkeypatch.setattr(_engine, "SMALLEST_WITH_TILES", 0)
    numbers = []
    fit_flow = _training.fit_flow

    def watched(*args, **settings):
        numbers.append(torch.get_num_threads())
        return fit_flow(*args, **settings)

    monkeypatch.setattr(_training, "fit_flow", watched)
    small(name, max_iter=1).fit(gaussian(N_ROWS)[0])
    assert numbers == [n_threads]


@pytest.mark.parametrize(
    ("params", "n_threads"),
    [({}, 1), ({"activation": "tanh"}, 2), ({"compile": True}, 2), ({"input_noise": "auto"}, 1)],
)
def test_fits_with_tiles_are_shared_from_more_work_on(params, n_threads, two_threads, monkeypatch):
    """Not where products are torch's on one thread as well."""
    monkeypatch.setattr(_run, "pay", lambda dtype: True)
    monkeypatch.setattr(_engine, "SMALLEST_SHARED_WORK", 0)
    monkeypatch.setattr(_engine, "SMALLEST_WITH_TILES", 1e9)
    numbers = []

    def watched(*args, **settings):
        numbers.append(torch.get_num_threads())
        return 1 / 0

    monkeypatch.setattr(_training, "fit_flow", watched)
    with pytest.raises(ZeroDivisionError):
        small("maf", max_iter=1, **params).fit(gaussian(N_ROWS)[0])
    assert numbers == [n_threads]


@pytest.mark.parametrize(("pays", "n_threads"), [(True, 1), (False, 2)])
def test_a_stack_in_tiles_has_the_threads_of_its_members(pays, n_threads, two_threads, monkeypatch):
    numbers = []
    X, _ = gaussian(N_ROWS)
    flow = small("maf", max_iter=1, batch_size=64, early_stopping=True)
    work = 64 * sum(p.numel() for p in clone(flow).fit(X).flow_.bijection.parameters())
    monkeypatch.setattr(_run, "pay", lambda dtype: pays)
    for limit in ("SMALLEST_SHARED_WORK", "SMALLEST_WITH_TILES"):
        monkeypatch.setattr(_engine, limit, 2 * work)  # of one there is less, of four more
    fit_flow = _training.fit_flow

    def watched(*args, **settings):
        numbers.append(torch.get_num_threads())
        return fit_flow(*args, **settings)

    monkeypatch.setattr(_training, "fit_flow", watched)
    flow.set_params(input_noise="auto").fit(X)
    assert numbers == [n_threads]


def test_columns_are_prepared_on_one_thread(two_threads, monkeypatch):
    numbers = []
    fitted_preprocessor = _run.fitted_preprocessor

    def watched(*args):
        numbers.append(torch.get_num_threads())
        return fitted_preprocessor(*args)

    monkeypatch.setattr(_run, "fitted_preprocessor", watched)
    small("maf", max_iter=1).fit(gaussian(N_ROWS)[0])
    assert numbers == [1]
    assert torch.get_num_threads() == 2


def test_overlapping_threads_leave_their_number_as_found(two_threads):
    first, second = _engine.one_thread(), _engine.one_thread()
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        for pool, context in ((a, first), (b, second)):
            pool.submit(context.__enter__).result()
        for pool, context in ((a, first), (b, second)):
            pool.submit(context.__exit__, None, None, None).result()
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == 2


@pytest.mark.usefixtures("two_threads")
@each_estimator
def test_global_state_is_left_alone(name):
    X, _ = gaussian(N_ROWS)
    before = global_state()
    estimator = small(name, batch_size=16, early_stopping=True).fit(X)
    estimator.partial_fit(X)
    estimator.score_samples(X)
    estimator.sample(3, random_state=0)
    estimator.inverse_transform(estimator.transform(X))
    for old, new in zip(before, global_state(), strict=True):
        assert np.array_equal(old, new) if isinstance(old, np.ndarray) else torch_equal(old, new)


def torch_equal(old, new):
    return torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new


@each_estimator
def test_fits_where_the_caller_has_switched_gradients_off(name):
    X, _ = gaussian(N_ROWS)
    with torch.no_grad():
        estimator = small(name).fit(X)
    assert estimator.loss_curve_ == small(name).fit(X).loss_curve_


@whole_and_in_batches
@each_estimator
def test_fits_under_another_default_dtype(name, batch_size):
    """The initial weights may differ in their last digits or draws, the fit not by much."""
    X, _ = gaussian(N_ROWS)
    score = small(name, batch_size=batch_size).fit(X).score(X)
    torch.set_default_dtype(torch.float64)
    try:
        other = small(name, batch_size=batch_size).fit(X).score(X)
    finally:
        torch.set_default_dtype(torch.float32)
    assert other == pytest.approx(score, abs=0.1)
