"""Exported flows, run without skflows."""

import numpy as np
import pytest
import torch
from _densities import banana, small
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import ShuffleSplit
from sklearn.neighbors import KernelDensity

import skflows
from skflows import AdaptiveKernelDensity, StackedDensity, TransformedDensity
from skflows.density._export import _plain_operations
from skflows.density._modules import module_of

TABLE = np.column_stack([banana(60), np.arange(60) % 7])  # the last column is discrete
X = TABLE[:45]  # another number of rows than the example's
BOUNDED = {"bounds": [None, (-20, None), None]}


def run_program(path, rows):
    return torch.export.load(path).module()(torch.tensor(rows)).numpy()


def run_onnx(path, rows):
    runtime = pytest.importorskip("onnxruntime")
    (found,) = runtime.InferenceSession(path).run(None, {"X": rows})
    return found


def check(density, path, run, method, tolerance=1e-9):
    skflows.export(density, path, method)
    rows = density.transform(X) if method == "inverse_transform" else X
    expected = getattr(density, method)(rows)
    for n in (len(rows), 1):
        found = run(path, rows[:n])
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected[:n], rtol=tolerance, atol=tolerance)


def test_programs_score_as_the_flow(tmp_path):
    spline = small("nsf", n_transforms=1, discrete=None).fit(TABLE)
    planar = small("planar", n_transforms=1).fit(TABLE)
    assert planar.discrete_
    for density in (spline, planar):
        check(density, tmp_path / "flow.pt2", run_program, "score_samples")


def test_programs_have_the_inverse(tmp_path):
    density = small("nice", n_transforms=1, preprocessing="quantile", **BOUNDED).fit(TABLE)
    check(density, tmp_path / "flow.pt2", run_program, "inverse_transform")


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_modules_of_mixtures_of_normals(kind):
    mixture = GaussianMixture(2, covariance_type=kind, random_state=0)
    for density in (mixture, TransformedDensity(mixture, preprocessing="standardize")):
        module = module_of(density.fit(TABLE))
        with torch.no_grad():
            np.testing.assert_allclose(module(torch.tensor(X)), density.score_samples(X))
        assert all(buffer.is_contiguous() for buffer in module.buffers())  # or torch warns


def test_programs_score_as_a_mixture(tmp_path):
    mixture = GaussianMixture(2, covariance_type="tied", random_state=0)
    members = [
        ("normals", TransformedDensity(mixture, preprocessing="standardize")),
        ("kernels", AdaptiveKernelDensity(n_neighbors=5)),
        ("flow", small("nice", n_transforms=1, preprocessing="whiten")),
    ]
    density = StackedDensity(members, cv=ShuffleSplit(1, random_state=0), random_state=0)
    density.fit(TABLE)
    density.estimators_ = [[member.fit(TABLE)] for _, member in members]
    density.weights_ = np.full(len(members), 1 / len(members))
    assert len(module_of(density).members) == len(members)
    check(density, tmp_path / "mixture.pt2", run_program, "score_samples")


@pytest.mark.parametrize("method", ["score_samples", "inverse_transform"])
def test_onnx_models(method, tmp_path):
    pytest.importorskip("onnxscript")
    density = small("realnvp", n_transforms=1, **BOUNDED).fit(TABLE)
    check(density, tmp_path / "flow.onnx", run_onnx, method, tolerance=1e-7)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("softplus", -30, 30),
        ("special_ndtri", 1e-300, 1),
        ("special_ndtri", 0, 1e-12),
        ("special_erfcx", 0.5, 50),
        ("atan", -40, 40),
        ("tan", 0.1, 1.5),
        ("acos", -0.99, 1),
    ],
)
def test_plain_operations_are_accurate(name, low, high):
    operation = getattr(torch.ops.aten, name).default
    x = torch.linspace(low, high, 1001, dtype=torch.float64)[1:-1]
    plain = _plain_operations()[operation](x)
    torch.testing.assert_close(plain, operation(x), rtol=1e-13, atol=1e-15)


def test_plain_operations_of_two_tensors():
    plain = _plain_operations()
    aten = torch.ops.aten
    x = torch.tensor([0.0, 1.0, 1.5, -3.7, -1e300, 7e-5, -torch.inf, torch.inf]).double()
    for y in (torch.full_like(x, 1e301), torch.full_like(x, -1e301)):
        assert torch.equal(plain[aten.nextafter.default](x, y), x.nextafter(y))
        finite = x[:4], y[:4]
        torch.testing.assert_close(plain[aten.hypot.default](*finite), torch.hypot(*finite))
    matrix = torch.tensor([[2.0, 0.5], [0.3, 3.0]]).double()
    for settings in ({"upper": True}, {"upper": False}, {"upper": False, "unitriangular": True}):
        args = matrix, x[:6].view(2, 3)
        found = plain[aten.linalg_solve_triangular.default](*args, **settings)
        torch.testing.assert_close(found, torch.linalg.solve_triangular(*args, **settings))


def test_what_cannot_be_exported(tmp_path):
    path = tmp_path / "flow.pt2"
    maf, cnf = small("maf").fit(X), small("cnf", n_steps=1).fit(X)
    with pytest.raises(ValueError, match=r"flow\.h5' ends in '\.h5'.*\.pt2"):
        skflows.export(maf, "flow.h5")
    with pytest.raises(ValueError, match="method='sample'; choose one of"):
        skflows.export(maf, path, "sample")
    with pytest.raises(ValueError, match="MAFDensity cannot be exported: it takes more than one"):
        skflows.export(maf, path, "inverse_transform")
    with pytest.raises(ValueError, match="CNFDensity cannot be exported: it solves a differential"):
        skflows.export(cnf, path)
    kernels = StackedDensity([("kernels", KernelDensity())], cv=2).fit(X)
    with pytest.raises(TypeError, match="the density of KernelDensity is not known as PyTorch"):
        skflows.export(kernels, path)
    with pytest.raises(TypeError, match="StackedDensity has no transform"):
        skflows.export(kernels, path, "transform")
    assert not path.exists()
