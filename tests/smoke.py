"""A short test of an installed package: `make dist`, `make release` and the wheel builds run it.

    python smoke.py [--kernels]

With ``--kernels`` it fails if the compiled kernels are missing.
"""

import platform
import sys
import time

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import skflows
from skflows import DensityOutlierDetector, MAFDensity, NSFDensity, kernels


def main():
    started = time.perf_counter()
    has_kernels = kernels._compiled is not None
    if "--kernels" in sys.argv and not has_kernels:
        sys.exit("The compiled kernels are missing.")
    X_train, X_test = train_test_split(load_wine().data, random_state=0)
    for flow in (NSFDensity(max_iter=20, random_state=0), MAFDensity(max_iter=20, random_state=0)):
        flow.fit(X_train)
        scores, samples = flow.score_samples(X_test), flow.sample(50, random_state=0)
        assert np.isfinite(scores).all() and np.isfinite(samples).all()
        assert samples.shape == (50, X_test.shape[1])
        np.testing.assert_allclose(
            flow.inverse_transform(flow.transform(X_test)), X_test, rtol=1e-5
        )
    detector = DensityOutlierDetector(flow, calibration="conformal", random_state=0).fit(X_train)
    p_values = detector.p_values(X_test)
    assert ((0 < p_values) & (p_values <= 1)).all()
    how = "with" if has_kernels else "without"
    seconds = time.perf_counter() - started
    print(
        f"skflows {skflows.__version__} {how} compiled kernels, on Python "
        f"{platform.python_version()}, NumPy {np.__version__}, scikit-learn {sklearn.__version__} "
        f"and torch {torch.__version__}: passed in {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
