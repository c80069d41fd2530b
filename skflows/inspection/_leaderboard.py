"""Bar plot of the components of a mixture."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import check_integer
from ._common import MODEL_COLOR, check_matplotlib, single_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


REST_COLOR = "#94a4a2"


class LeaderboardDisplay:
    """Weights and held-out scores of the components of a mixture.

    The length of a bar is the weight of a component, with the largest weight on top. The label at
    the bar is the mean log-density of held-out rows under that component alone, in nats. A
    component with a low score can have a large weight, if it fits rows that the others do not fit.

    It is recommended to use :meth:`from_estimator` to create a :class:`LeaderboardDisplay`.

    Parameters
    ----------
    component : list of str
        Names of the components, in descending order of the weight.

    weight : array-like of shape (n_components,)
        Weights of the components in the mixture.

    score : array-like of shape (n_components,)
        Mean log-density of held-out rows under each component, in nats.

    seconds : array-like of shape (n_components,)
        Time to fit and score each component, in seconds. Stored but not drawn.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The bars, in descending order of the weight. With more than `max_components` components,
        the last bar is the sum of the remaining ones.

    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure containing the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import StackedDensity
    >>> from skflows.inspection import LeaderboardDisplay
    >>> components = [(f"mixture of {k}", GaussianMixture(k, random_state=0)) for k in (1, 2, 3)]
    >>> density = StackedDensity(components, random_state=0).fit(load_iris().data)
    >>> display = LeaderboardDisplay.from_estimator(density)
    >>> len(display.bars_)
    3
    """

    def __init__(self, *, component, weight, score, seconds):
        self.component = component
        self.weight = weight
        self.score = score
        self.seconds = seconds

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        *,
        max_components: int = 12,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the leaderboard of a fitted mixture.

        Parameters
        ----------
        estimator : estimator with `leaderboard_`
            Fitted :class:`skflows.AutoDensity` or :class:`skflows.StackedDensity`.

        max_components : int, default=12
            Maximum number of components with their own bar. The remaining ones share one
            bar, whose length is the sum of their weights.

        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.barh`.

        Returns
        -------
        display : LeaderboardDisplay
            The display that stores the leaderboard.

        Raises
        ------
        AttributeError
            If the estimator has no `leaderboard_`.
        ValueError
            If `max_components` is not a positive integer.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        check_integer("max_components", max_components)
        check_is_fitted(estimator)
        name = type(estimator).__name__
        if not hasattr(estimator, "leaderboard_"):
            raise AttributeError(
                f"{name} has no `leaderboard_`, so there are no components to draw. Pass a fitted "
                "AutoDensity or StackedDensity. For a pipeline, pass its last step; for a search, "
                "its best_estimator_."
            )
        board = estimator.leaderboard_
        display = cls(**{key: board[key] for key in ("component", "weight", "score", "seconds")})
        return display.plot(ax=ax, max_components=max_components, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, max_components: int = 12, **kwargs: Any) -> Self:
        """Draw the leaderboard.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is created.

        max_components : int, default=12
            Maximum number of components with their own bar. The remaining ones share one
            bar, whose length is the sum of their weights.

        **kwargs : dict
            Keyword arguments for :func:`matplotlib.pyplot.barh`.

        Returns
        -------
        display : LeaderboardDisplay
            This display.

        Raises
        ------
        ValueError
            If `max_components` is not a positive integer.
        ImportError
            If matplotlib is not installed.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        check_integer("max_components", max_components)
        import matplotlib.pyplot as plt

        names = list(self.component[:max_components])
        weights = list(self.weight[:max_components])
        notes = [f"{score:.2f} nats" for score in self.score[:max_components]]
        colors = [MODEL_COLOR] * len(names)
        if n_others := len(self.component) - len(names):
            names.append(f"{n_others} other{'s' * (n_others > 1)}")
            weights.append(np.sum(self.weight[max_components:]))
            notes.append("")
            colors.append(REST_COLOR)
        ax = single_axes(plt, ax, (6.4, 1.0 + 0.3 * len(names)))
        self.ax_, self.figure_ = ax, ax.figure
        places = np.arange(len(names))
        self.bars_ = ax.barh(places, weights, **({"color": colors} | kwargs))
        ax.bar_label(self.bars_, notes, padding=4, fontsize="small")
        ax.set_yticks(places, names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        # Leave space for the label of the longest bar.
        ax.set_xlim(0, 1.25 * max(weights))
        # Two lines, since one would be wider than the axes beside long names.
        ax.set_xlabel("weight in the mixture\n(labels: mean held-out log-density)")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        return self
