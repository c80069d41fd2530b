"""Maps of each column to a standard normal, through its quantiles."""

import torch
from torch import Tensor
from torch.special import ndtr

from ._base import Mapped
from ._quantile_splines import ALL_KINDS, QuantileSplines, SortedSample
from ._standardize import Standardize, weighted_moments
from ._tails import ALL_TAILS, TAILS

BINS = (0, 2, 4, 8, 16, 32)
ROWS_PER_BIN = 10
BINS_FOR_TAILS = 8  # while the tails are chosen; more bins hardly change the choice
SMALL_SAMPLE = 40  # with fewer rows, nothing is chosen, here and elsewhere in the package
N_FOLDS = 5
ROWS_TO_CHOOSE_ON = 5000
VALUES_AT_ONCE = 2**16  # of the columns that are chosen for together: bounds the memory
# Standard errors by which the held-out likelihood must grow. More bins must improve it clearly, but
# heavier tails are the safer guess: the sample may lack the row that needs them.
GAIN_OF_BINS = 0.5
GAIN_OF_TAILS = -1.0


class MarginalQuantile(Standardize):
    """Map each column separately to a standard normal, through its quantiles.

    Between its outer quantiles a column goes through a monotone rational-quadratic spline whose
    knots map quantiles of the data to standard normal quantiles. Beyond, it has a parametric tail
    on each side that continues the density without a jump.

    Parameters
    ----------
    n_features : int
        Number of columns.
    n_bins : int or "auto", default="auto"
        Number of bins of each spline. 0 makes the map affine and the column a Gaussian, tails
        included. "auto" chooses for each column by held-out likelihood; with fewer than 40 rows it
        chooses 0.
    tails : {"auto", "gaussian", "student_t", "pareto"}, default="auto"
        Family of the tails: of a Gaussian, of a Student t with 1, 2 or 4 degrees of freedom, or
        of a generalised Pareto distribution. "auto" chooses for each column and side by held-out
        likelihood, and prefers heavy tails when in doubt.

    References
    ----------
    Gregory & Delbourgo, "Piecewise Rational Quadratic Interpolation to Monotonic Data", 1982.
    Pickands, "Statistical Inference Using Extreme Order Statistics", 1975.
    """

    knots: Tensor
    tail: Tensor
    tail_scale: Tensor
    tail_shape: Tensor
    kinds = ALL_KINDS  # of tails that an exporter records; it may leave out unused ones

    def __init__(self, n_features, n_bins="auto", tails="auto"):
        super().__init__(n_features)
        if n_bins != "auto" and n_bins < 0:
            raise ValueError(f'n_bins={n_bins} must be "auto", 0 or more.')
        if tails != "auto" and tails not in TAILS:
            raise ValueError(f'tails="{tails}" must be "auto" or one of {list(TAILS)}.')
        self.n_bins = n_bins
        self.tails = tails
        n_knots = 1 + (BINS[-1] if n_bins == "auto" else max(n_bins, 1))
        knots = torch.ones(3, n_features, n_knots, dtype=torch.float64)
        knots[:2, :, 0] = -1  # x, z and slope: the identity
        self.register_buffer("knots", knots)
        self.register_buffer("tail", torch.zeros(2, n_features, dtype=torch.long))
        self.register_buffer("tail_scale", torch.ones(2, n_features, dtype=torch.float64))
        self.register_buffer("tail_shape", torch.zeros(2, n_features, dtype=torch.float64))

    def _splines(self):
        return QuantileSplines(self.knots, self.tail, self.tail_scale, self.tail_shape)

    def initialize(
        self,
        x: Tensor,
        weight: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        x = x.double()
        weight = x.new_ones(len(x)) if weight is None else weight.double()
        x, weight = x[weight > 0], weight[weight > 0]
        loc, scale = robust_moments(x, weight)
        self.loc.copy_(loc)
        self.scale.copy_(scale)
        unit = super().forward(x)[0].T
        splines = fit_splines(unit, weight, self.n_bins, self.tails)
        for buffer, fitted in zip(
            self._splines(), splines.padded(self.knots.shape[2]), strict=True
        ):
            buffer.copy_(fitted)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        unit, log_det = super().forward(x)
        z, log_slope = self._splines().forward(unit.T, self.kinds)
        return z.T, log_det + log_slope.sum(0)

    def forward_by_column(self, x: Tensor) -> tuple[Tensor, Tensor]:
        unit, log_slope = super().forward_by_column(x)
        z, log_slope_of_splines = self._splines().forward(unit.T, self.kinds)
        return z.T, log_slope + log_slope_of_splines.T

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        unit, log_slope = self._splines().inverse(z.T, self.kinds)
        x, log_det = super().inverse(unit.T)
        return x, log_det + log_slope.sum(0)


def robust_moments(x, weight):
    """Return the median of each column and half the range of its inner 68 %.

    If that range is 0, the standard deviation takes its place.
    """
    # Differences of columns near the largest float64 would overflow: work at unit magnitude.
    magnitude = x.abs().amax(0).clamp(min=torch.finfo(x.dtype).tiny)
    levels = ndtr(torch.tensor([-1.0, 0.0, 1.0]).to(x))
    low, median, high = SortedSample((x / magnitude).T, weight).quantile(levels).T
    spread = ((high - low) / 2 * magnitude).clamp(max=torch.finfo(x.dtype).max)
    _, std = weighted_moments(x, weight)
    return median * magnitude, torch.where(spread > 0, spread, std)


def fit_splines(columns, weight, n_bins="auto", tails="auto"):
    """Fit splines to columns ``(d, n)``, with the best choices for each of them by default."""
    whole = SortedSample(columns, weight)
    d, n = columns.shape
    kinds = [ALL_TAILS.index(tail) for tail in TAILS.get(tails, ALL_TAILS)]
    bins = [k for k in BINS if k * ROWS_PER_BIN <= whole.n_rows] if n_bins == "auto" else [n_bins]
    tail = torch.full((2, d), kinds[0], device=columns.device)
    if whole.n_rows < SMALL_SAMPLE or n < SMALL_SAMPLE:
        return whole.fit(bins[0], tail)
    size = max(1, VALUES_AT_ONCE // min(n, ROWS_TO_CHOOSE_ON))
    trials = [Trial(some, weight) for some in columns.split(size)]
    if len(kinds) > 1:
        n_bins = min(bins[-1], BINS_FOR_TAILS)
        tail = torch.cat([trial.choose_tails(kinds, n_bins) for trial in trials], 1)
    if len(bins) == 1:
        return whole.fit(bins[0], tail)
    tails_of_trials = tail.split(size, 1)
    best = torch.cat(
        [
            trial.choose_bins(bins, of_trial)
            for trial, of_trial in zip(trials, tails_of_trials, strict=True)
        ]
    )
    splines = whole.fit(bins[0], tail).padded(bins[-1] + 1)
    for k in bins[1:]:
        splines = whole.fit(k, tail).padded(bins[-1] + 1).where(best == k, splines)
    return splines


class Trial:
    """Choices for each column, by cross-validated likelihood.

    The folds have one size and are processed side by side, as columns of one sample.
    """

    def __init__(self, columns, weight):
        n = columns.shape[1]
        n_few = min(n, ROWS_TO_CHOOSE_ON) // N_FOLDS * N_FOLDS
        few = torch.linspace(0, n - 1, n_few, device=columns.device, dtype=torch.float64).long()
        few = few.view(-1, N_FOLDS).T.flatten()  # fold after fold, each spread over all rows
        self.columns, weight = columns[:, few], weight[few]
        self.share = weight / weight.sum()
        rows = torch.arange(n_few, device=columns.device).view(N_FOLDS, -1)
        others = torch.stack([rows[torch.arange(N_FOLDS) != i].flatten() for i in range(N_FOLDS)])
        self.held = self._folds(rows)
        self.sample = SortedSample(
            self._folds(others), weight[others].repeat_interleave(len(columns), 0)
        )

    def _folds(self, rows):
        """Return the columns at the rows ``(N_FOLDS, k)`` of each fold, ``(N_FOLDS * d, k)``."""
        return self.columns[:, rows].transpose(0, 1).flatten(0, 1)

    def held_out(self, n_bins, tail):
        """Return the log-density ``(d, n)`` of each row under the fit to the other folds."""
        log_prob = self.sample.fit(n_bins, tail.repeat(1, N_FOLDS)).log_prob(self.held)
        return log_prob.unflatten(0, (N_FOLDS, -1)).transpose(0, 1).flatten(1)

    def improves(self, new, old, n_errors):
        """Whether the mean log-density of a column grows by more than ``n_errors`` standard
        errors."""
        gain = new - old
        mean = (self.share * gain).sum(-1, keepdim=True)
        error = (self.share * (gain - mean)).square().sum(-1).sqrt()
        return mean[..., 0] > n_errors * error

    def choose_tails(self, kinds, n_bins):
        """Return the kind of tail ``(2, d)`` for each side."""
        sides = torch.stack([self.columns < 0, self.columns >= 0])
        tail = torch.full((2, len(self.columns)), kinds[0], device=self.columns.device)
        best = sides * self.held_out(n_bins, tail)
        for kind in kinds[1:]:
            candidate = sides * self.held_out(n_bins, torch.full_like(tail, kind))
            better = self.improves(candidate, best, GAIN_OF_TAILS)
            tail = tail.masked_fill(better, kind)
            best = torch.where(better[..., None], candidate, best)
        return tail

    def choose_bins(self, bins, tail):
        """Return the number of bins ``(d,)``."""
        chosen = torch.full_like(tail[0], bins[0])
        best = self.held_out(bins[0], tail)
        for n_bins in bins[1:]:
            candidate = self.held_out(n_bins, tail)
            better = self.improves(candidate, best, GAIN_OF_BINS)
            chosen = chosen.masked_fill(better, n_bins)
            best = torch.where(better[:, None], candidate, best)
        return chosen
