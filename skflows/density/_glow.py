"""Glow for tables and images."""

from ._multiscale import MultiscaleDensity


class GlowDensity(MultiscaleDensity):
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
        **MultiscaleDensity._parameter_constraints,
        "image_shape": ["array-like", None],
    }

    _shape_parameter = "image_shape"

    def __init__(
        self,
        *,
        n_transforms=5,
        n_bins=None,
        image_shape=None,
        n_levels=2,
        hidden_layer_sizes=(64, 64),
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
        verbose="auto",
    ):
        super().__init__(
            n_transforms=n_transforms,
            hidden_layer_sizes=hidden_layer_sizes,
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
        return self._grid_shape

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import ActNorm, Chain, Coupling, LULinear

        network = self._network(n_context)
        if self.image_shape is not None:
            levels = self._levels(self._squeezes(), network)
            return Chain([*levels, ActNorm(n_features)])
        steps = []
        for _ in range(self.n_transforms):
            steps += [
                ActNorm(n_features),
                LULinear(n_features, rotation=True),
                Coupling(n_features, self._univariate(), **network),
            ]
        return Chain(steps)
