"""The display of the leaderboard of a mixture."""

import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from skflows import StackedDensity
from skflows.inspection import LeaderboardDisplay


@pytest.fixture(scope="module")
def mixture():
    components = [("narrow", KernelDensity(bandwidth=0.1)), ("wide", KernelDensity(bandwidth=0.3))]
    components += [(f"mixture of {k}", GaussianMixture(k, random_state=0)) for k in (1, 2, 3)]
    return StackedDensity(components, cv=3, random_state=0).fit(load_iris().data)


def board(weight):
    """Return a leaderboard with these weights."""
    n = len(weight)
    return {
        "component": [f"c{i}" for i in range(n)],
        "weight": weight,
        "score": [-float(i) for i in range(n)],
        "seconds": [0.1] * n,
    }


def drawn_bars(display):
    """Return name, width and label of each bar, from top to bottom."""
    display.figure_.canvas.draw()
    ax = display.ax_
    names = dict(zip(ax.get_yticks(), ax.get_yticklabels(), strict=True))
    bars = sorted(
        zip(display.bars_, ax.texts, strict=True),
        key=lambda bar: -ax.transData.transform((0, bar[0].get_y()))[1],
    )
    return [
        (
            names[round(bar.get_y() + bar.get_height() / 2)].get_text(),
            bar.get_width(),
            text.get_text(),
        )
        for bar, text in bars
    ]


def test_bars_show_the_leaderboard(mixture):
    display = LeaderboardDisplay.from_estimator(mixture)
    expected = mixture.leaderboard_
    assert {key: getattr(display, key) for key in expected} == expected
    labels = [f"{score:.2f} nats" for score in expected["score"]]
    rows = zip(expected["component"], expected["weight"], labels, strict=True)
    assert drawn_bars(display) == list(rows)
    assert "weight" in display.ax_.get_xlabel()


@pytest.mark.parametrize(
    ("max_components", "last"), [(1, "3 others"), (2, "2 others"), (3, "1 other"), (4, None)]
)
def test_remaining_components_share_a_bar(max_components, last):
    weight = [0.4, 0.3, 0.2, 0.1]
    display = LeaderboardDisplay(**board(weight)).plot(max_components=max_components)
    bars = drawn_bars(display)
    assert [name for name, _, _ in bars[:max_components]] == ["c0", "c1", "c2", "c3"][
        :max_components
    ]
    assert sum(width for _, width, _ in bars) == pytest.approx(1)
    if last is None:
        assert len(bars) == 4
    else:
        assert bars[max_components:] == [(last, pytest.approx(sum(weight[max_components:])), "")]


def test_twelve_components_are_drawn_by_default():
    display = LeaderboardDisplay(**board([1 / 40] * 40)).plot()
    assert [name for name, _, _ in drawn_bars(display)][11:] == ["c11", "28 others"]


@pytest.mark.parametrize("weight", [[1.0], [1.0, 0.0], [0.5, 0.5], [0.05] * 20])
def test_labels_stay_within_the_axes(weight):
    display = LeaderboardDisplay(**board(weight)).plot()
    display.figure_.canvas.draw()
    right = display.ax_.get_window_extent().x1
    assert all(text.get_window_extent().x1 <= right for text in display.ax_.texts)


def test_plot_can_be_repeated_on_given_axes(mixture):
    """Each call of `plot` makes new axes unless `ax` is given, and passes on keyword arguments."""
    display = LeaderboardDisplay.from_estimator(mixture)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    figure, (left, right) = plt.subplots(1, 2)
    assert display.plot(ax=right, max_components=2, color="green") is display
    assert display.figure_ is figure
    assert display.ax_ is right
    assert not left.has_data()
    assert matplotlib.colors.to_hex(display.bars_[0].get_facecolor()) == "#008000"
    assert LeaderboardDisplay.from_estimator(mixture, ax=left, max_components=1).ax_ is left


def test_component_with_a_score_of_minus_infinity():
    """Such as a tophat kernel density, if a held-out row is out of its reach."""
    arrays = board([1.0, 0.0]) | {"score": [-1.0, -np.inf]}
    assert drawn_bars(LeaderboardDisplay(**arrays).plot())[1] == ("c1", 0.0, "-inf nats")


def test_unfitted_estimator_raises():
    with pytest.raises(NotFittedError, match="StackedDensity"):
        LeaderboardDisplay.from_estimator(StackedDensity([("kde", KernelDensity())]))


def test_estimator_without_a_leaderboard_raises():
    kernel = KernelDensity().fit([[0.0], [1.0]])
    with pytest.raises(AttributeError, match=r"KernelDensity has no `leaderboard_`.*AutoDensity"):
        LeaderboardDisplay.from_estimator(kernel)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("max_components", [0, -1, 2.5, None])
def test_invalid_max_components_raise(max_components, mixture):
    with pytest.raises(ValueError, match=f"max_components={max_components}; .* at least 1"):
        LeaderboardDisplay.from_estimator(mixture, max_components=max_components)
    with pytest.raises(ValueError, match=f"max_components={max_components}; .* at least 1"):
        LeaderboardDisplay(**board([1.0])).plot(max_components=max_components)
    assert plt.get_fignums() == []


def test_missing_matplotlib_raises(mixture, monkeypatch):
    display = LeaderboardDisplay.__new__(LeaderboardDisplay)  # without arrays, which it never reads
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"LeaderboardDisplay\.{} needs matplotlib.*pip install matplotlib"
    with pytest.raises(ImportError, match=message.format("from_estimator")):
        LeaderboardDisplay.from_estimator(mixture)
    with pytest.raises(ImportError, match=message.format("plot")):
        display.plot()
