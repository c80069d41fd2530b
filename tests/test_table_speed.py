"""How much work a density of a table does, counted in calls rather than in seconds."""

import numpy as np
import pandas as pd
import pytest

from skflows import TableDensity
from skflows.table import _components, _queries
from skflows.table._components import components


@pytest.fixture
def few_components(monkeypatch):
    """Fit the first two kinds of classes only: what is counted does not depend on the others."""
    monkeypatch.setattr(_components, "components", lambda *args: components(*args)[:2])


@pytest.mark.parametrize("column", ["x", "rain", "n", "angle"])
def test_all_quantile_levels_are_bisected_together(few_components, column, monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "x": rng.normal(size=80),
            "rain": np.where(rng.random(80) < 0.3, 0.0, rng.gamma(2.0, size=80)),
            "n": rng.poisson(3, 80),
            "angle": rng.uniform(0, 360, 80),
        }
    )
    density = TableDensity({"angle": ("circular", 360)}, random_state=0).fit(table)
    rows, q = table[:3].drop(columns=column), np.linspace(0.01, 0.99, 40)
    expected = np.stack([density.quantile(column, rows, one) for one in q], axis=1)
    calls, cdf = [], _queries.OneVariable.cdf

    def counted(self, x):
        calls.append(x.shape)
        return cdf(self, x)

    monkeypatch.setattr(_queries.OneVariable, "cdf", counted)
    np.testing.assert_array_equal(density.quantile(column, rows, q), expected)
    assert len(calls) <= 1 + _queries.N_BISECTIONS
    monkeypatch.setattr(_queries, "VALUES_AT_ONCE", 30)  # ten levels at once
    np.testing.assert_array_equal(density.quantile(column, rows, q), expected)
