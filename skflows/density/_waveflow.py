"""WaveFlow: autoregressive over a few rows of a folded waveform."""

from numbers import Integral

from ..preprocessing.sklearn_compat import Interval, StrOptions
from ._flow_density import FlowDensity

MAX_HEIGHT = 16


class WaveFlowDensity(FlowDensity):
    """Density of waveforms by WaveFlow: few autoregressive steps on a folded window.

    Use it for likelihoods, and as a vocoder whose rows are errors of linear prediction; to turn
    spectra into sound without a training, use Griffin-Lim, such as librosa's
    (``benchmarks/waveforms.md``).

    A row is a window of a waveform. It is folded into a grid with ``height`` neighbouring samples
    in each column, and each value is scaled and shifted given the rows of the grid above it, by
    dilated convolutions: that is, given those samples of each column that come earlier. Sampling
    takes ``height`` steps for each transform, whatever the length. With the length as height, a
    sample depends on the samples before it, as in WaveNet. With a height of 2, odd samples depend
    on the even ones around them, as in WaveGlow.

    Parameters
    ----------
    n_transforms : int, default=4
        Number of autoregressive maps. The order of the rows is reversed between them.

    height : int or "auto", default="auto"
        Number of rows of the grid, at least 2, which divides the length of the windows. "auto" is
        the largest divisor up to 16: choose a length that 16, or a number near it, divides.

    n_frames : int, default=1
        Number of frames of which a context consists, such as the frames of a mel spectrogram, one
        after another in its columns. They are spread evenly over the window. It matters only
        inside a `ConditionalDensity`, whose context has a multiple of it as columns.

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
    Ping, Peng, Zhao & Song, "WaveFlow: A Compact Flow-Based Model for Raw Audio", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import WaveFlowDensity
    >>> rng = np.random.default_rng(0)
    >>> phase = rng.uniform(0, 2 * np.pi, (100, 1))
    >>> X = np.sin(0.5 * np.arange(32) + phase) + 0.1 * rng.normal(size=(100, 32))
    >>> density = WaveFlowDensity(
    ...     height=8, n_transforms=2, hidden_layer_sizes=(8, 8), max_iter=5, random_state=0
    ... ).fit(X)
    >>> density.sample(2, random_state=0).shape
    (2, 32)
    """

    _parameter_constraints: dict = {
        **FlowDensity._parameter_constraints,
        "height": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "n_frames": [Interval(Integral, 1, None, closed="left")],
    }

    _row_shape = None, 1  # a grid of any length, with one channel: all columns are alike

    def __init__(
        self,
        *,
        n_transforms=4,
        height="auto",
        n_frames=1,
        hidden_layer_sizes=(32, 32, 32, 32),
        dropout=0.0,
        preprocessing="standardize",
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
        self.height = height
        self.n_frames = n_frames

    def _folded_shape(self, length):
        """Return the height and width of the grid into which a window is folded."""
        height = self.height
        if height == "auto":
            height = max(n for n in range(1, MAX_HEIGHT + 1) if length % n == 0)
        if length % height or 1 == height < length:
            unit = MAX_HEIGHT if self.height == "auto" else height
            raise ValueError(
                f"X has windows of {length} samples, and height={self.height!r} needs a length "
                f"that a height above 1 divides: cut or pad the windows to a multiple of {unit} "
                "samples, or choose another height."
            )
        return height, length // height

    def _build_bijection(self, n_features, n_context=0):
        import torch

        from ..bijections import Affine, Chain, GridAutoregressive, Permutation

        if n_context % self.n_frames:
            raise ValueError(
                f"n_frames={self.n_frames} does not divide the {n_context} columns of the context: "
                "give as many columns for each frame."
            )
        network = self._network(n_context)
        height, width = shape = self._folded_shape(n_features)
        index = torch.arange(n_features)
        fold = Permutation(n_features, index.view(width, height).T.flatten())
        flip = Permutation(n_features, index.view(shape).flip(0).flatten())
        steps: list = [fold]
        for i in range(self.n_transforms):
            step = GridAutoregressive(shape, Affine(), n_frames=self.n_frames, **network)
            steps += [flip, step, flip] if i % 2 else [step]
        return Chain([*steps, Permutation(n_features, fold.restore)])
