"""The base of flows of grids with several levels: images and videos."""

import math
from numbers import Integral

import numpy as np

from ..columns.arrays import checked_number, flat_rows, grid_shape
from ..columns.types import Floats, RandomState, Rows, Table
from ..preprocessing.sklearn_compat import Interval
from ._flow_density import FlowDensity


class MultiscaleDensity(FlowDensity):
    """Base of flows with steps as in Glow, at each of several levels of a grid."""

    _shape_parameter: str  # the name of the parameter that gives the shape of grids

    _parameter_constraints: dict = {
        **FlowDensity._parameter_constraints,
        "n_bins": [Interval(Integral, 2, 512, closed="both"), None],
        "n_levels": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def _grid_shape(self):
        """The height, width and channels of grids, or None if rows are not grids."""
        shape = getattr(self, self._shape_parameter)
        return None if shape is None else grid_shape(self._shape_parameter, shape)

    def _start_fit(self, table, *args):
        if self._grid_shape is not None:  # raise errors before columns are prepared
            rows = table.X[:, : table.X.shape[1] - table.n_context]
            flat_rows(rows, self._row_shape, type(self).__name__)
            self._squeezes()
        return super()._start_fit(table, *args)

    def _squeezes(self):
        """Return the squeeze of each level of a grid."""
        from ..bijections import Squeeze

        squeezes = []
        height, width, n_channels = self._grid_shape
        for level in range(self.n_levels):
            factors = 2 - height % 2, 2 - width % 2
            if factors == (1, 1) and (level or n_channels == 1):
                remedy = "choose fewer levels, or pad" if level else "pad"
                raise ValueError(
                    f"{self._shape_parameter}={self._grid_shape} has no even height or width in "
                    f"level {level + 1} of n_levels={self.n_levels}, where the grid is {height} x "
                    f"{width}: {remedy} the images."
                )
            squeezes.append(Squeeze((height, width, n_channels), factors))
            height, width, n_channels = squeezes[-1].shape
            n_channels //= 2
        return squeezes

    def _univariate(self):
        from ..bijections import Affine, RationalQuadraticSpline

        return Affine() if self.n_bins is None else RationalQuadraticSpline(self.n_bins)

    def _levels(self, squeezes, network):
        """Return the bijections of all levels of a grid."""
        from ..bijections import ActNorm, Affine, Chain, GridCoupling, LULinear, Pointwise
        from ..bijections._conditional import FirstColumns
        from ..bijections._grid import split_channels

        levels: list = []  # from the deepest one up
        for squeeze in reversed(squeezes):
            height, width, n = shape = squeeze.shape
            steps = [squeeze]
            for _ in range(self.n_transforms):
                steps += [
                    Pointwise(ActNorm(n), n),
                    Pointwise(LULinear(n, rotation=True), n),
                    GridCoupling(shape, self._univariate(), **network),
                ]
            if levels:
                steps += [
                    GridCoupling(shape, Affine(), both=False, **network),
                    split_channels(shape),
                    FirstColumns(Chain(levels), height * width * (n // 2)),
                ]
            levels = steps
        return levels

    def bits_per_dim(self, X: Table) -> Floats:
        """Return the negative log-likelihood of each row in bits per column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or of the shape of grids
            The rows.

        Returns
        -------
        bits : ndarray of shape (n_samples,)
            Bits per column. For discrete columns, of the probability of the value; for continuous
            ones, of the density.
        """
        log_volume = np.log(list(self.discrete_.values())).sum()  # of the cell around a row
        scores = self.score_samples(X)
        return -(scores + log_volume) / (self.n_features_in_ * math.log(2))

    def sample(
        self,
        n_samples: int = 1,
        random_state: RandomState = None,
        *,
        as_frame: bool = False,
        temperature: float = 1.0,
    ) -> Rows:
        """Draw rows from the fitted density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        as_frame : bool, default=False
            Return a pandas DataFrame with the column names seen in `fit`, and their integer and
            boolean dtypes; other columns of whole numbers are int64.

        temperature : float, default=1.0
            Standard deviation of the latent coordinates. Below 1, samples are more typical and less
            diverse than the data; at 0, all are the row at the centre of the latent space.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            The rows.
        """
        temperature = checked_number("temperature", temperature)
        return self._sample(n_samples, random_state, as_frame, temperature=temperature)
