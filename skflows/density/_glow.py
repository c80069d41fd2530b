"""Glow for tables and images."""

import math
from numbers import Integral, Real

import numpy as np

from ..preprocessing.sklearn_compat import Interval
from ._flow_density import FlowDensity


class GlowDensity(FlowDensity):
    """Density by Glow: ActNorm, an invertible linear map and affine couplings.

    The linear maps, with an LU parametrisation that starts at random rotations, replace the fixed
    permutations of RealNVP by learned ones.

    With ``image_shape``, rows are flattened images, and all methods take arrays of shape
    ``(n_samples, height, width, channels)`` too. The steps then act on images: ActNorm and the
    linear map act on the channels of each position (an invertible 1x1 convolution), and couplings
    use convolutional networks. Each of ``n_levels`` levels begins by moving blocks of 2 x 2 pixels
    to channels, and leaves half of them behind, with a normal prior given the other half.

    Parameters
    ----------
    n_transforms : int, default=5
        Number of steps, each an ActNorm, a linear map and a pair of couplings; for images, in each
        level.

    n_bins : int, default=None
        Number of bins of rational-quadratic splines, from 2 to 512, which take the place of affine
        couplings: they fit better, and take longer. None for affine couplings, Glow's own.

    image_shape : tuple of int, default=None
        Height, width and channels of the images. Maps of ``preprocessing`` are then the same for
        all positions, and ``discrete="auto"`` treats either all pixels as discrete, on one set of
        values, or none. None for a table.

    n_levels : int, default=2
        Number of levels for images. Every level needs an even height or width; with several
        channels, the first does not.

    {network}

    {preprocessing}

    {data}

    {training}

    Attributes
    ----------
    {trained}

    {attributes}

    References
    ----------
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import GlowDensity
    >>> X = load_iris().data
    >>> density = GlowDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)

    For images, hidden layers are convolutional, and their sizes are numbers of channels:

    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data[:200]
    >>> density = GlowDensity(
    ...     n_transforms=1, image_shape=(8, 8, 1), hidden_layer_sizes=8, max_iter=2, random_state=0
    ... ).fit(X)
    >>> density.bits_per_dim(X.reshape(-1, 8, 8, 1)[:3]).shape
    (3,)
    """

    _parameter_constraints: dict = {
        **FlowDensity._parameter_constraints,
        "n_bins": [Interval(Integral, 2, 512, closed="both"), None],
        "image_shape": ["array-like", None],
        "n_levels": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_transforms=5,
        n_bins=None,
        image_shape=None,
        n_levels=2,
        hidden_layer_sizes=(64, 64),
        activation="relu",
        dropout=0.1,
        preprocessing="quantile",
        bounds=None,
        discrete="auto",
        input_noise=0.0,
        batch_size="auto",
        learning_rate_init=2e-3,
        weight_decay=0.0,
        max_iter=100,
        time_limit=None,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        contamination="auto",
        device="auto",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            n_transforms=n_transforms,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            preprocessing=preprocessing,
            bounds=bounds,
            discrete=discrete,
            input_noise=input_noise,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            weight_decay=weight_decay,
            max_iter=max_iter,
            time_limit=time_limit,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            contamination=contamination,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.n_bins = n_bins
        self.image_shape = image_shape
        self.n_levels = n_levels

    @property
    def _row_shape(self):
        if self.image_shape is None:
            return None
        shape = tuple(self.image_shape)
        is_size = [isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in shape]
        if len(shape) != 3 or not all(is_size):
            raise ValueError(
                f"image_shape={self.image_shape!r}; give three positive integers, the height, the "
                "width and the number of channels, such as (28, 28, 1)."
            )
        return shape

    def _start_fit(self, *args):
        if self.image_shape is not None:
            self._squeezes()  # raises an error before columns are prepared
        return super()._start_fit(*args)

    def _squeezes(self):
        """Return the squeeze of each level of an image."""
        from ..bijections import Squeeze

        squeezes = []
        height, width, n_channels = self._row_shape
        for level in range(self.n_levels):
            factors = 2 - height % 2, 2 - width % 2
            if factors == (1, 1) and (level or n_channels == 1):
                remedy = "choose fewer levels, or pad" if level else "pad"
                raise ValueError(
                    f"image_shape={self.image_shape} has no even height or width in level "
                    f"{level + 1} of n_levels={self.n_levels}, where the grid is {height} x "
                    f"{width}: {remedy} the images."
                )
            squeezes.append(Squeeze((height, width, n_channels), factors))
            height, width, n_channels = squeezes[-1].shape
            n_channels //= 2
        return squeezes

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import ActNorm, Chain, Coupling, LULinear

        network = self._network(n_context)
        if self.image_shape is not None:
            return Chain([*self._levels(network), ActNorm(n_features)])
        steps = []
        for _ in range(self.n_transforms):
            steps += [
                ActNorm(n_features),
                LULinear(n_features, rotation=True),
                Coupling(n_features, self._univariate(), **network),
            ]
        return Chain(steps)

    def _univariate(self):
        from ..bijections import Affine, RationalQuadraticSpline

        return Affine() if self.n_bins is None else RationalQuadraticSpline(self.n_bins)

    def _levels(self, network):
        """Return the bijections of all levels of an image."""
        from ..bijections import ActNorm, Affine, Chain, GridCoupling, LULinear, Pointwise
        from ..bijections._conditional import FirstColumns
        from ..bijections._grid import split_channels

        levels = []  # from the deepest one up
        for squeeze in reversed(self._squeezes()):
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

    def bits_per_dim(self, X):
        """Return the negative log-likelihood of each row in bits per column.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, height, width, channels)
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

    def sample(self, n_samples=1, random_state=None, *, as_frame=False, temperature=1.0):
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
        if not (isinstance(temperature, Real) and 0 <= temperature < math.inf):
            raise ValueError(f"temperature={temperature!r}; it must be a number of at least 0.")
        return self._sample(n_samples, random_state, as_frame, temperature=float(temperature))
