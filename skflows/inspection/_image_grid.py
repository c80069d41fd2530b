"""Images side by side: data, samples of a density, or steps between them."""

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from ..columns.arrays import check_integer, flat_rows
from ..columns.types import RandomState, Table
from ._common import check_estimator_method, check_matplotlib, single_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


GAP = 1  # pixels between images


class ImageGridDisplay:
    """Images in the cells of a grid, row by row.

    It is recommended to use :meth:`from_estimator` to draw samples of a density.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width, channels)
        The images, with 1 channel or 3.

    n_columns : int, default=None
        Number of images side by side. If None, about as many as there are rows.

    value_range : tuple of float, default=None
        The values that are drawn in black and in white (or full colour). If None, the least and
        the largest value.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The drawn images, as one.

    ax_ : matplotlib Axes
        Axes with the images.

    figure_ : matplotlib Figure
        Figure containing the images.

    See Also
    --------
    SamplesDisplay : Pair plot of the columns of data and samples.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skflows.inspection import ImageGridDisplay
    >>> images = load_digits().images[:10, :, :, None]
    >>> display = ImageGridDisplay(images=images, n_columns=5).plot()
    >>> display.mosaic().shape
    (17, 44, 1)
    """

    def __init__(self, *, images, n_columns=None, value_range=None):
        self.images = images
        self.n_columns = n_columns
        self.value_range = value_range

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Table | None = None,
        *,
        n_samples: int = 25,
        random_state: RandomState = None,
        n_columns: int | None = None,
        value_range: tuple[float, float] | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw samples of a fitted density of images, or given rows in their place.

        Parameters
        ----------
        estimator : estimator with `image_shape` and `sample`
            Fitted density of images, such as :class:`skflows.GlowDensity`.

        X : array-like of shape (n_images, n_features), default=None
            Rows to draw, such as the inverse transforms of latent coordinates. If None, samples
            of the estimator.

        n_samples : int, default=25
            Number of samples, if X is None.

        random_state : int, RandomState instance or None, default=None
            Seed of the samples.

        n_columns : int, default=None
            Number of images side by side. If None, about as many as there are rows.

        value_range : tuple of float, default=None
            The values that are drawn in black and in white. If None, the least and the largest
            value.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.imshow`.

        Returns
        -------
        display : ImageGridDisplay
            The display that stores the images.

        Raises
        ------
        AttributeError
            If the estimator has no `sample`.
        ValueError
            If the estimator was not built for images, if `n_samples` or `n_columns` is not a
            positive integer, or if X does not have images of its shape.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_estimator_method(estimator, "sample")
        shape = getattr(estimator, "image_shape", None)
        if shape is None:
            raise ValueError(
                f"{type(estimator).__name__} has no image_shape, so its rows are not images: pass "
                "a GlowDensity that was fitted with one."
            )
        if X is None:
            check_integer("n_samples", n_samples)
            X = estimator.sample(n_samples, random_state=random_state)
        rows = flat_rows(np.asarray(X, dtype=np.float64), tuple(shape), type(estimator).__name__)
        images = rows.reshape(-1, *shape)
        display = cls(images=images, n_columns=n_columns, value_range=value_range)
        return display.plot(ax=ax, **kwargs)

    def mosaic(self) -> NDArray:
        """Return the images as one.

        Returns
        -------
        mosaic : ndarray of shape (height, width, channels)
            Values between 0 and 1, NaN between the images.

        Raises
        ------
        ValueError
            If the images do not have 1 channel or 3, or if `n_columns` is not a positive integer.
        """
        images = np.asarray(self.images, dtype=np.float64)
        if images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
            raise ValueError(
                f"images has the shape {images.shape}; give (n_images, height, width, channels) "
                "with at least one image, and 1 channel or 3."
            )
        n, height, width, channels = images.shape
        n_columns = math.ceil(math.sqrt(n)) if self.n_columns is None else self.n_columns
        check_integer("n_columns", n_columns)
        n_rows = math.ceil(n / n_columns)
        given = self.value_range
        low, high = (np.nanmin(images), np.nanmax(images)) if given is None else given
        cells = np.full((n_rows * n_columns, height + GAP, width + GAP, channels), np.nan)
        cells[:n, :height, :width] = np.clip((images - low) / ((high - low) or 1.0), 0, 1)
        rows = cells.reshape(n_rows, n_columns, *cells.shape[1:]).swapaxes(1, 2)
        return rows.reshape(n_rows * (height + GAP), -1, channels)[:-GAP, :-GAP]

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.imshow`.

        Returns
        -------
        display : ImageGridDisplay
            This display.

        Raises
        ------
        ValueError
            See `mosaic`.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        mosaic = self.mosaic()
        import matplotlib.pyplot as plt

        height, width, channels = mosaic.shape
        if channels == 3:  # white between the images, where a colour map leaves it out
            mosaic = np.nan_to_num(mosaic, nan=1.0)
        else:
            mosaic = mosaic[:, :, 0]
        self.ax_ = single_axes(plt, ax, (6.4, 6.4 * height / width))
        self.figure_ = self.ax_.figure
        options = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
        self.image_ = self.ax_.imshow(mosaic, **options | kwargs)
        self.ax_.set_axis_off()
        return self
