"""Training by compiled steps, where there is a compiler."""

import shutil

import numpy as np
import pytest
from _densities import banana

from skflows import NSFDensity

pytestmark = [
    pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, as it compiles
]


def test_compiled_fit_is_that_of_before():
    """Batches of one size: no row is left out, so that only rounding differs."""
    X = banana(256)
    params = {"n_transforms": 1, "hidden_layer_sizes": 8, "n_bins": 3, "dropout": 0.0}
    params |= {"batch_size": 128, "max_iter": 5, "early_stopping": False, "random_state": 0}
    plain = NSFDensity(**params).fit(X)
    compiled = NSFDensity(**params, compile=True).fit(X)
    np.testing.assert_allclose(compiled.history_["loss"], plain.history_["loss"], atol=1e-4)
    np.testing.assert_allclose(compiled.score_samples(X), plain.score_samples(X), atol=1e-2)


def test_compiled_batches_are_of_one_size():
    """260 rows make three batches of 86, with others left out in each epoch, and with dropout."""
    X = banana(260)
    params = {"n_transforms": 1, "hidden_layer_sizes": 8, "n_bins": 3, "batch_size": 128}
    params |= {"max_iter": 3, "early_stopping": False, "random_state": 0, "compile": True}
    fits = [NSFDensity(**params).fit(X) for _ in range(2)]
    first, second = (fit.score_samples(X) for fit in fits)
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()
    assert fits[0].history_["loss"][-1] < fits[0].history_["loss"][0]
