"""A small table with columns of each kind, and a density of it that fits quickly."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from skflows import TableDensity
from skflows.columns.encoding import Encoding
from skflows.table import _components
from skflows.table._schema import Schema
from skflows.table._view import TableView

N = 200


def quick(**params):
    return TableDensity(**{"max_iter": 2, "n_orders": 2, "cv": 2, "random_state": 0} | params)


def schema_of(X, columns=None, handle_unknown="error", **kwargs):
    """Return the schema of a table."""
    encoding, rows = Encoding.read(X, handle_unknown=handle_unknown)
    return Schema(encoding, rows, columns, **kwargs)


def view_of(X, schema=None, **kwargs):
    """Return the view of a table that components are fitted to, and that members score."""
    if schema is None:
        schema = schema_of(X, **{"random_state": np.random.RandomState(0)} | kwargs)
    return TableView(schema, schema.encode(X))


def mixed_table(n=N, seed=0):
    """One column of each kind, with gaps; they depend on one another."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    sex = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-2 * size)), "male", "female")
    table = pd.DataFrame(
        {
            "sex": sex,
            "size": size + 0.3 * rng.normal(size=n),
            "visits": rng.poisson(np.exp(1 + 0.5 * size)),
            "age": rng.integers(18, 90, n),
            "pay": np.round(np.exp(2 + size), 2),
            "rain": np.where(rng.uniform(size=n) < 0.4, 0.0, rng.gamma(2.0, size=n)),
            "hour": rng.vonmises(1.0, 2.0, n) * 12 / np.pi % 24,
            "grade": pd.Categorical(
                rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"], ordered=True
            ),
            "member": rng.uniform(size=n) < 0.3,
            "since": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(rng.integers(0, 2 * 365 * 86400, n), unit="s"),
        }
    )
    table["age"] = table["age"].astype("Int64")
    for name, share in {"sex": 0.1, "size": 0.2, "age": 0.1}.items():
        table[name] = table[name].mask(rng.uniform(size=n) < share)
    return table


COLUMNS = {"hour": ("circular", 24)}


FEW_COMPONENTS = {
    "quantile classes of 1",
    "linear classes of 4",
    "binned classes of 4",
    "linear kernels",
    "network on pairs",
}


def keep_components(patch, condition):
    """Let densities of tables have those components only for which a condition is true."""
    components = _components.components
    patch.setattr(_components, "components", lambda *args: [*filter(condition, components(*args))])


def only(names):
    """Return a fixture that leaves densities of the tests of a module some components."""

    @pytest.fixture(scope="module", autouse=True)
    def kept():
        with pytest.MonkeyPatch.context() as patch:
            keep_components(patch, lambda each: each.name in names)
            yield

    return kept


few_components = only(FEW_COMPONENTS)
two_components = only({"quantile classes of 1", "linear kernels"})  # where members do not matter


@pytest.fixture(scope="module")
def table():
    return mixed_table()


@cache
def fitted_density():
    return quick(columns=COLUMNS).fit(mixed_table())


@pytest.fixture
def density():
    return fitted_density()
