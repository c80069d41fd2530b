"""VideoFlow: a Glow of frames, given the frames before them."""

import math
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

from ..columns.arrays import check_integer, checked_number, flat_rows
from ..columns.types import Floats, RandomState
from ..preprocessing.sklearn_compat import Interval
from ._multiscale import MultiscaleDensity

N_LAYERS = 4  # of the network that sees the frames before


class VideoFlowDensity(MultiscaleDensity):
    """Density of videos by VideoFlow: each frame is distributed given a few frames before it.

    Use it for likelihoods and predictions of frames of a few hundred pixels; for larger ones, a
    `GlowDensity` of single frames scores nearly the same or better after ten minutes of training,
    and is simpler (``benchmarks/video.md``).

    A row is a window of frames, flattened one after another; all methods take arrays of shape
    ``(n_samples, n_frames, height, width, channels)`` too. Each frame goes through the same
    multi-scale Glow. A convolutional network computes features of the ``n_context_frames`` frames
    before. The couplings see them, and so do the normal priors of the coordinates that each level
    leaves behind. In the paper, only the priors see the frames before.

    Parameters
    ----------
    n_transforms : int, default=5
        Number of steps in each level, each an ActNorm, a linear map and a pair of couplings.

    n_bins : int, default=None
        Number of bins of rational-quadratic splines, from 2 to 512, which take the place of affine
        couplings: they fit better, and take longer. None for affine couplings.

    frame_shape : tuple of int, default=None
        Height, width and channels of a frame, whose size divides the number of columns. None for
        frames of a single value: a row is a time series.

    n_context_frames : int, default=2
        Number of frames before it on which a frame depends. The first frames of a row have fewer.

    n_levels : int, default=2
        Number of levels. All but the first need an even height or width. One for single values.

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
    Kumar et al., "VideoFlow: A Conditional Flow-Based Model for Stochastic Video Generation", 2020.

    Examples
    --------
    Digits that move to the right, one column in each frame:

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skflows import VideoFlowDensity
    >>> images = load_digits().images[:100]
    >>> videos = np.stack([np.roll(images, step, axis=2) for step in range(4)], axis=1)
    >>> density = VideoFlowDensity(
    ...     frame_shape=(8, 8, 1), n_transforms=1, hidden_layer_sizes=8, max_iter=2, random_state=0
    ... ).fit(videos[..., None])
    >>> density.predict_next(videos[:3, :2, :, :, None], n_steps=2, random_state=0).shape
    (3, 2, 8, 8, 1)
    """

    _parameter_constraints: dict = {
        **MultiscaleDensity._parameter_constraints,
        "frame_shape": ["array-like", None],
        "n_context_frames": [Interval(Integral, 1, None, closed="left")],
    }

    _shape_parameter = "frame_shape"

    def __init__(
        self,
        *,
        n_transforms=5,
        n_bins=None,
        frame_shape=None,
        n_context_frames=2,
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
        self.frame_shape = frame_shape
        self.n_context_frames = n_context_frames
        self.n_levels = n_levels

    @property
    def _row_shape(self):
        return None, *(self._grid_shape or (1, 1, 1))

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import ActNorm, Chain, FrameAutoregressive, Pointwise, Squeeze

        if self.frame_shape is None:
            squeezes = [Squeeze((1, 1, 1), (1, 1))]
        else:
            squeezes = self._squeezes()
        network = self._network(n_context)
        n_hidden = network["hidden_layer_sizes"][0]
        squeeze = squeezes[0]
        height, width, _ = squeeze.shape
        features = {
            "context_grid": (height, width),
            "n_context": height * width * n_hidden,
            "output_size": 1,  # features know the surroundings, and larger kernels take longer
        }
        _, *levels = self._levels(squeezes, network | features)  # squeezed for the network already
        size = math.prod(squeeze.shape)
        network["hidden_layer_sizes"] = (n_hidden,) * (N_LAYERS + 1)
        frames = FrameAutoregressive(
            Chain([*levels, ActNorm(size)]), squeeze.shape, self.n_context_frames, **network
        )
        return Chain([Pointwise(squeeze, size), frames])

    def predict_next(
        self,
        frames: ArrayLike,
        n_steps: int = 1,
        temperature: float = 1.0,
        random_state: RandomState = None,
    ) -> Floats:
        """Draw the frames that follow the given ones.

        Parameters
        ----------
        frames : array-like of shape (n_samples, n_frames, height, width, channels)
            Frames, at least `n_context_frames` of them, of which the last ones count; or flattened
            rows of them. Discrete values get noise, as in fit.

        n_steps : int, default=1
            Number of frames to draw. If the rows of fit had more than one frame beside
            `n_context_frames`, as many are drawn at once.

        temperature : float, default=1.0
            Standard deviation of the latent coordinates. At 0, the centre of the latent space is
            decoded.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        next_frames : ndarray of shape (n_samples, n_steps, height, width, channels)
            The frames.
        """
        check_is_fitted(self)
        temperature = checked_number("temperature", temperature)
        check_integer("n_steps", n_steps)
        _, *shape = self._row_shape
        n_seen, size = self.n_context_frames, math.prod(shape)
        n_new = self.n_features_in_ // size - n_seen
        if n_new < 1:
            raise ValueError(
                f"The rows of fit had {n_new + n_seen} frames, and no frame with "
                f"n_context_frames={n_seen} others before it: fit longer rows, or choose fewer."
            )
        rows = flat_rows(frames, self._row_shape, type(self).__name__)
        rows = check_array(rows, dtype=np.float64, input_name="frames")
        if (given := rows.shape[1] // size) < n_seen:
            raise ValueError(
                f"frames has {given} frames in each row; at least n_context_frames={n_seen} are "
                "needed."
            )
        rng = check_random_state(random_state)
        n_known = n_seen * size
        rows = rows[:, -n_known:]
        for _ in range(0, n_steps, n_new):
            window = np.hstack([rows[:, -n_known:], np.tile(rows[:, -size:], n_new)])
            window = self._dequantizer.add_random_noise(window, rng)
            latent = self._map_rows("forward", window)[0]
            latent[:, n_known:] = temperature * rng.standard_normal((len(rows), n_new * size))
            window = self._dequantizer.round(self._map_rows("inverse", latent)[0])
            rows = np.hstack([rows, window[:, n_known:]])
        return rows[:, n_known:].reshape(len(rows), -1, *shape)[:, :n_steps]
