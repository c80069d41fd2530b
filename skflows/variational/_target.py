"""The target: a log-density of the user, with its gradient, in unconstrained coordinates."""

import copy

import numpy as np
import torch

from ..bijections import Chain
from ..training.torch_state import gradients_enabled

MAX_NAMED = 8  # coordinates of a point in an error
STEP = 1e-5  # of the finite difference that checks a user's gradients, relative to the point
MAX_GRADIENT_ERROR = 0.05
NO_GRADIENT = (
    "Variational fits need gradients: use torch operations on the tensor that log_density is given "
    "(not .item(), .detach() or .numpy()), or return a tuple of two arrays, the values (n,) and "
    "their gradients (n, n_features), from an array: np.asarray(x) suits both."
)

INVALID = (
    "With validate_args=False, a distribution returns NaN in place of an error; the search for "
    "modes and the training leave such rows out."
)


class TargetDensity:
    """A log-density on the whole space, and its gradient.

    Parameters
    ----------
    function : callable
        The log-density of the user: of a tensor ``(n, n_features)``, or of an array if it returns
        values and gradients.
    support : Bijection
        Its inverse maps unconstrained rows to the rows of the function.
    names : list of str, default=None
        Names of the columns, for errors.
    """

    def __init__(self, function, support, names=None):
        self.function = function
        self.support = support
        self.names = names
        self.takes_arrays = False

    def __call__(self, u):
        """Return the log-density of unconstrained rows and its gradient, (n,) and (n, d)."""
        with gradients_enabled():
            u = u.detach().to("cpu", torch.float64, copy=True).requires_grad_()
            x, log_det = self.support.inverse(u)
            value, slope = self.values_and_gradients(x.detach())
            # The gradient of the function, pulled back, and the gradient of the log-determinant.
            total = (x * slope.nan_to_num(0.0, 0.0, 0.0)).sum() + log_det.sum()
            (gradient,) = torch.autograd.grad(total, u)
        is_bad = ~slope.isfinite().all(1)
        return (value + log_det).detach(), gradient.masked_fill(is_bad[:, None], torch.nan)

    def mapped_by(self, *bijections):
        """Return this target in the coordinates that bijections map its rows to."""
        target = copy.copy(self)
        target.support = Chain([self.support, *bijections])
        return target

    def values(self, x):
        """Return the log-density of rows within their constraints."""
        with torch.no_grad():
            return self._guarded(x, self._values)[0]

    def values_and_gradients(self, x):
        """Return the log-density of rows within their constraints and its gradient."""
        with gradients_enabled():
            return self._guarded(x, self._values_and_gradients)

    def _guarded(self, x, evaluate):
        """Evaluate the finite rows; others are NaN, which some functions refuse to take."""
        is_finite = x.isfinite().all(1)
        try:
            if is_finite.all():
                return evaluate(x)
            parts = evaluate(x[is_finite]) if is_finite.any() else (x[:0, 0], x[:0])
        except Exception as error:
            self._raise_at_culprit(x[is_finite], error)
        return tuple(
            part.new_full((len(x), *part.shape[1:]), torch.nan).index_put((is_finite,), part)
            for part in parts
        )

    def _values(self, x):
        if self.takes_arrays:
            return self._values_and_gradients(x)[:1]
        return (self.function(x.clone()).double(),)

    def _values_and_gradients(self, x):
        if self.takes_arrays:
            value, slope = self.function(x.numpy().copy())
            return _tensor(value), _tensor(slope)
        x = x.clone().requires_grad_()
        value = self.function(x)
        (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
        slope = torch.zeros_like(x) if slope is None else slope
        return value.detach().double(), slope

    def _raise_at_culprit(self, x, error):
        """Raise an error that names the first row at which the function fails."""
        culprit = x[0]
        for row in x if len(x) > 1 else []:
            try:
                self._values_and_gradients(row[None])
            except Exception:
                culprit = row
                break
        text = str(error).partition("\n")[0]  # PyTorch names the invalid values of all rows
        raise ValueError(
            f"log_density raised {type(error).__name__}: {text} (at {self.described(culprit)}). "
            "It is given float64 rows; return -inf where the density is 0."
            + (f" {NO_GRADIENT}" if "requires grad" in str(error) else "")
            + (f" {INVALID}" if "satisfy the constraint" in str(error) else "")
        ) from error

    def check(self, u):
        """Raise an error unless the function works at unconstrained rows.

        It finds out whether the function takes tensors or arrays.
        """
        with torch.no_grad():
            x, _ = self.support.inverse(u)
        self.find_kind(x)
        values, slopes = self.values_and_gradients(x)
        if values.shape != x.shape[:1] or slopes.shape != x.shape:
            raise ValueError(
                f"log_density returned values of shape {tuple(values.shape)}"
                + (f" and gradients of shape {tuple(slopes.shape)}" if self.takes_arrays else "")
                + f" for {len(x)} rows, an array of shape {tuple(x.shape)}, such as "
                f"{self.described(x[0])}: return one value for each row. torch.func.vmap turns a "
                "function of one row into one of many."
            )
        is_bad = values.isnan() | (values == torch.inf)
        if not self.takes_arrays:
            is_bad |= values.isfinite() & ~slopes.isfinite().all(1)
        if is_bad.any():
            row = int(is_bad.nonzero()[0])
            raise ValueError(
                f"log_density is {values[row]:g}, with the gradient {_numbers(slopes[row])}, at "
                f"{self.described(x[row])}. Both must be finite where the density is positive; "
                "return -inf where it is 0."
            )
        if not values.isfinite().any():
            raise ValueError(
                f"log_density is -inf at all of {len(x)} random points, such as "
                f"{self.described(x[0])}: state by bounds, ordered or simplex where the density is "
                "positive."
            )
        if self.takes_arrays:
            self._check_gradients(x[values.isfinite()], slopes[values.isfinite()])

    def find_kind(self, x):
        """Find out whether the function takes tensors or arrays."""
        try:
            with gradients_enabled():
                outcome = self.function(x.clone().requires_grad_())
        except Exception as error:
            if not self._returns_pair(x):
                self._raise_at_culprit(x, error)
            return
        if isinstance(outcome, torch.Tensor):
            if not outcome.requires_grad:
                raise ValueError(f"log_density returned a tensor without a gradient. {NO_GRADIENT}")
            return
        if not self._returns_pair(x):
            raise ValueError(f"log_density returned {_kind(outcome)}. {NO_GRADIENT}")

    def _returns_pair(self, x):
        """Return whether the function takes an array, and returns values with gradients."""
        try:
            outcome = self.function(x.numpy().copy())
        except Exception:
            return False
        if isinstance(outcome, np.ndarray | float):
            raise ValueError(f"log_density returned {_kind(outcome)}. {NO_GRADIENT}")
        self.takes_arrays = isinstance(outcome, tuple) and len(outcome) == 2
        return self.takes_arrays

    def _check_gradients(self, x, slopes):
        """Compare the user's gradients with finite differences in a random direction."""
        generator = torch.Generator().manual_seed(0)
        step = STEP * (1 + x.abs()) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        after, before = (self.values_and_gradients(x + sign * step)[0] for sign in (1, -1))
        expected, found = (after - before) / 2, (slopes * step).sum(1)
        error = (found - expected).abs() / ((slopes * step).abs().sum(1) + expected.abs())
        is_wrong = error > MAX_GRADIENT_ERROR
        if is_wrong.sum() > len(x) / 2:  # not kinks, or rounding where the density is flat
            row = int(is_wrong.nonzero()[0])
            raise ValueError(
                f"log_density returned gradients that do not agree with its values: at "
                f"{self.described(x[row])}, a step changes the value by {expected[row]:.4g}, and "
                f"by its gradient {found[row]:.4g}."
            )

    def described(self, point):
        """Return the coordinates of a point as text, for an error."""
        names = range(len(point)) if self.names is None else self.names
        shown = [f"{n}={v:.6g}" for n, v in zip(names, point.tolist(), strict=True)][:MAX_NAMED]
        return ", ".join(shown) + (", ..." if len(point) > MAX_NAMED else "")


def _tensor(array):
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _kind(outcome):
    """Return what a function returned, as text."""
    if hasattr(outcome, "shape"):
        return f"an array of shape {tuple(outcome.shape)} without gradients"
    return f"a {type(outcome).__name__}"


def _numbers(values):
    return "[" + ", ".join(f"{value:.4g}" for value in values.tolist()[:MAX_NAMED]) + "]"
