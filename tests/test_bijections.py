"""Properties of all bijections, each tested once for the whole table."""

import math
from dataclasses import dataclass

import pytest
import torch
from _bijections import (
    SOLVED,
    TABLE,
    WITHIN,
    build,
    check_vjp,
    make_case,
    randomize,
)
from torch.autograd import gradcheck
from torch.autograd.functional import jacobian
from torch.func import functional_call, jacrev, vmap
from torch.testing import assert_close

from skflows import bijections
from skflows.bijections import (
    Affine,
    Bijection,
    Chain,
    Coupling,
    ElementwiseAffine,
    Inverse,
    LULinear,
    MaskedAutoregressive,
    Univariate,
)


def exactness(name, rounding=1e-9):
    """How close to each other two computations of the same have to be."""
    tolerance = SOLVED.get(name, rounding)
    return {"rtol": tolerance, "atol": tolerance}


every_bijection = pytest.mark.parametrize("name", TABLE)
# A single column without a context, and several with one.
in_two_sizes = pytest.mark.parametrize(("d", "n_context"), [(1, 0), (5, 3)])
in_one_size = pytest.mark.parametrize(("d", "n_context"), [(5, 3)])


def log_abs_det_jacobian(function, x):
    """``log |det|`` of the autograd Jacobian of each row."""
    # Rows do not depend on each other (tested below): the Jacobian of the sum has those of all.
    jacobians = jacobian(lambda x: function(x)[0].sum(0), x, vectorize=True)
    return torch.linalg.slogdet(jacobians.transpose(0, 1)).logabsdet


def test_table_covers_every_bijection():
    exported = {getattr(bijections, name) for name in bijections.__all__}
    modules = [module for name in TABLE for module in build(name, 2).modules()]
    tried = {type(module) for module in modules} | {
        type(module.univariate) for module in modules if hasattr(module, "univariate")
    }
    assert exported - {Bijection, Univariate} <= tried


@every_bijection
@in_two_sizes
def test_round_trip(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    z, log_det = bijection(x, context)
    back, log_det_back = bijection.inverse(z, context)
    assert_close(back, x, **exactness(name))
    assert_close(log_det_back, -log_det, **exactness(name))

    x_of_x, log_det = bijection.inverse(x, context)
    there, log_det_there = bijection(x_of_x, context)
    assert_close(there, x, **exactness(name))
    assert_close(log_det_there, -log_det, **exactness(name))


@every_bijection
@in_two_sizes
def test_log_det_is_that_of_the_jacobian(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    for direction in (bijection.forward, bijection.inverse):
        expected = log_abs_det_jacobian(lambda x, f=direction: f(x, context), x)
        assert_close(direction(x, context)[1], expected, **exactness(name, 1e-8))


@every_bijection
@in_two_sizes
def test_rows_do_not_depend_on_each_other(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    order = torch.tensor([3, 0, 4, 1, 2])
    for direction in (bijection.forward, bijection.inverse):
        together = direction(x, context)
        permuted = direction(x[order], None if context is None else context[order])
        alone = [
            direction(x[i : i + 1], None if context is None else context[i : i + 1])
            for i in range(len(x))
        ]
        for whole, shuffled, parts in zip(
            together, permuted, zip(*alone, strict=True), strict=True
        ):
            # Equal up to the order of the sums in matrix products.
            assert_close(shuffled, whole[order], rtol=1e-12, atol=1e-12)
            assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


@every_bijection
@pytest.mark.parametrize("d", [1, 5])
def test_rows_at_given_contexts(name, d):
    bijection, x, context = make_case(name, d, 3)
    given, some = bijection.given(context), torch.tensor([2, 0, 2])
    own_context = context if context is None else context[some]
    rows = torch.stack([x, x.roll(1, 0), x / 2])
    for direction in ("forward", "inverse"):
        map_ = getattr(bijection, direction)
        mapped = [map_(each, context) for each in rows]
        expected = [torch.stack(each) for each in zip(*mapped, strict=True)]
        assert_close(getattr(given, direction)(rows), tuple(expected), rtol=1e-12, atol=1e-12)
        expected = map_(x[some], own_context)
        found = getattr(given.take(some), direction)(x[None, some])
        assert_close(tuple(each[0] for each in found), expected, rtol=1e-12, atol=1e-12)
        same = x[:2, None]  # a row at all contexts
        expected = getattr(given, direction)(same.expand(-1, len(x), -1))
        for found, whole in zip(getattr(given, direction)(same), expected, strict=True):
            assert_close(found.expand_as(whole), whole, rtol=1e-12, atol=1e-12)


@every_bijection
@in_two_sizes
def test_rows_have_any_leading_shape(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    for direction in (bijection.forward, bijection.inverse):
        shapes = (2, 1, *x.shape), x.shape[:1]  # two axes more, and one row alone
        alone = None if context is None else context[0]
        for rows, own in [(x.expand(shapes[0]), context), (x[0], alone)]:
            table = direction(x, context)
            for value, expected in zip(direction(rows, own), table, strict=True):
                expected = expected[0] if rows.dim() == 1 else expected.expand_as(value)
                assert value.shape[: rows.dim() - 1] == rows.shape[:-1]
                assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in TABLE if build(name, 2, 3).n_context])
def test_context_is_broadcast_and_checked(name):
    bijection, x, context = make_case(name, 5, 3)
    for direction in (bijection.forward, bijection.inverse):
        for rows, given in [(x, context[0]), (x, context[:1]), (x[0], context)]:
            full = torch.broadcast_tensors(rows, x)[0], given.expand_as(context)
            for value, expected in zip(direction(rows, given), direction(*full), strict=True):
                assert_close(value, expected, rtol=1e-12, atol=1e-12)
        for wrong in (None, context[:, :2]):
            with pytest.raises(ValueError, match=r"n_context=3.* give a context of shape"):
                direction(x, wrong)


@every_bijection
def test_function_transforms(name):
    """One row at a time: values under vmap, and their Jacobians under jacrev."""
    bijection, x, context = make_case(name, d=3, n_context=2)
    x = 4 * x  # on the tails too
    for direction in (bijection.forward, bijection.inverse):
        expected = direction(x, context)
        with torch.no_grad():  # where networks otherwise write in place
            for value, other in zip(vmap(direction)(x, context), expected, strict=True):
                assert_close(value, other, rtol=1e-9, atol=1e-9)
        jacobians = vmap(jacrev(lambda *row, f=direction: f(*row)[0]))(x, context)
        log_det = torch.linalg.slogdet(jacobians).logabsdet
        assert_close(log_det, expected[1], **exactness(name, 1e-7))


@every_bijection
@in_one_size
def test_calls_do_not_change_inputs_or_state(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    kept = [t.clone() for t in (x, *bijection.state_dict().values())]
    kept_context = None if context is None else context.clone()
    bijection(x, context)
    bijection.inverse(x, context)
    assert all(map(torch.equal, kept, (x, *bijection.state_dict().values())))
    assert context is None or torch.equal(context, kept_context)


@every_bijection
@in_one_size
def test_float32_agrees_with_float64(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    rows, context32 = x.float(), None if context is None else context.float()
    expected = bijection(x, context), bijection.inverse(x, context)
    bijection.float()
    for direction, doubles in zip((bijection.forward, bijection.inverse), expected, strict=True):
        for value, double in zip(direction(rows, context32), doubles, strict=True):
            assert value.dtype == torch.float32
            assert_close(value.double(), double, rtol=1e-3, atol=1e-3)


@every_bijection
@in_two_sizes
def test_gradients_reach_every_parameter(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    for direction in (bijection.forward, bijection.inverse):
        bijection.zero_grad()
        z, log_det = direction(x, context)
        total = z.sin().sum() + log_det.sum()
        assert total.requires_grad == any(True for _ in bijection.parameters())
        if total.requires_grad:
            total.backward()
        for key, parameter in bijection.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            # One value alone, of a row or a frame, has none to be conditioned on or mixed with.
            is_alone = d == 1 or key == "bijection.bijections.1.nets.0.input.weight"
            assert is_alone or parameter.grad.any(), key


@every_bijection
@in_two_sizes
def test_vjp_equals_autograd(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    check_vjp(bijection, 4 * x, context)  # including values that networks see squashed


@every_bijection
@in_two_sizes
def test_score_of_mapped_rows(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    score = x.cos()
    with torch.inference_mode():
        _, pushed, pullback = bijection.vjp_with_score(x, score, context)
        # The log-density of x is the log-density of z plus the log-determinant.
        pulled, gradients = pullback(pushed, torch.ones(len(x), dtype=x.dtype))
        _, expected = bijection.vjp(x, context)[1](pushed, torch.ones(len(x), dtype=x.dtype))
    error = 1e-3 if name == "continuous" else 1e-6  # of its solver
    assert_close(pulled, score, rtol=error, atol=error)
    assert_close(gradients, expected)


@every_bijection
@in_two_sizes
def test_inverse_vjp_equals_autograd(name, d, n_context):
    bijection, x, context = make_case(name, d, n_context)
    with torch.no_grad():
        z, _ = bijection(x, context)
    check_vjp(Inverse(bijection), z, context)


def test_vjp_falls_back_to_autograd_in_subclasses():
    class Doubled(ElementwiseAffine):
        def forward(self, x, context=None):
            z, log_det = super().forward(2 * x)
            return z, log_det + x.shape[-1] * math.log(2)

    @dataclass(frozen=True)
    class Half(Affine):
        def forward(self, x, params):
            z, log_slope = super().forward(x / 2, params)
            return z, log_slope - math.log(2)

        def inverse(self, z, params):
            x, log_slope = super().inverse(z, params)
            return 2 * x, log_slope + math.log(2)

    class Halved:
        def forward(self, x, context=None):
            return super().forward(x / 2)

        def inverse(self, z, context=None):
            x, log_det = super().inverse(z)
            return 2 * x, log_det + z.shape[-1] * math.log(2)

    class HalfAutoregressive(Halved, MaskedAutoregressive):
        pass

    twice = ElementwiseAffine(3)
    for bijection in (
        Doubled(3),
        Chain([twice, LULinear(3), twice]),
        MaskedAutoregressive(3, Half(), (8,)),
        Coupling(3, Half(), (8,)),
        Inverse(MaskedAutoregressive(3, Half(), (8,))),
        Inverse(HalfAutoregressive(3, Affine(), (8,))),
    ):
        x = torch.linspace(-3, 3, 60).double().view(20, 3)
        check_vjp(randomize(bijection.double()), x)
        with torch.inference_mode():
            _, score, _ = bijection.vjp_with_score(x, x.cos())
            _, expected, _ = Bijection.vjp_with_score(bijection, x, x.cos())
        assert_close(score, expected, rtol=1e-8, atol=1e-8)


# Those that find a solution without autograd, and then differentiate it, and one of the others.
@pytest.mark.parametrize(
    "name", ["planar", "continuous", "residual", "residual_deep", "chain", "autoregressive_spline"]
)
def test_gradients_equal_finite_differences(name):
    """In both directions: an inverse autoregressive flow is trained through its inverse."""
    bijection, x, context = make_case(name, d=3, n_context=2)
    parameters = dict(bijection.named_parameters())

    for module in (bijection, Inverse(bijection)):
        prefix = "" if module is bijection else "bijection."

        def call(x, context, *values, module=module, prefix=prefix):
            named = {prefix + k: v for k, v in zip(parameters, values, strict=True)}
            return functional_call(module, named, (x, context))

        inputs = [x, context, *parameters.values()]
        inputs = [value.detach().clone().requires_grad_() for value in inputs]
        # fast_mode compares derivatives along random directions of all the inputs. Outputs without
        # a gradient concern functions with a backward of their own, of which there are none.
        options = {"fast_mode": True, "check_undefined_grad": False}
        assert gradcheck(call, inputs, **options, atol=1e-5, rtol=1e-5)


@every_bijection
@pytest.mark.parametrize(("d", "dtype"), [(1, torch.float64), (5, torch.float32)])
def test_far_rows_stay_finite(name, d, dtype):
    bijection, x, _ = make_case(name, d)
    bijection.to(dtype)
    far = torch.cat([x.sign() * 1e6, x.sign() * 1e15]).to(dtype)
    far[0, 1:] = far[-1, 1:] = 0  # far in one column only
    for direction in (bijection.forward, bijection.inverse):
        bijection.zero_grad()
        z, log_det = direction(far)
        assert z.isfinite().all()
        no_density = name in ("bounded", *WITHIN) and direction == bijection.forward
        assert (log_det.isfinite() | no_density & (log_det == -torch.inf)).all()
        if z.requires_grad:
            (z.tanh().sum() + log_det.sum()).backward()
            assert all(p.grad.isfinite().all() for p in bijection.parameters())


STARTS_ELSEWHERE = (
    *("asinh", "bounded", "ordered", "simplex", "difference"),
    *("permutation", "rotation", "planar", "chain"),
)


@pytest.mark.parametrize(
    "name", [name for name in TABLE if not any(part in name for part in STARTS_ELSEWHERE)]
)
@in_two_sizes
def test_starts_at_the_identity(name, d, n_context):
    _, x, context = make_case(name, d, n_context)
    bijection = build(name, d, n_context)
    for direction in (bijection.forward, bijection.inverse):
        z, log_det = direction(x, context)
        assert_close(z, x, **exactness(name, 1e-12))
        assert_close(log_det, torch.zeros_like(log_det), **exactness(name, 1e-12))
