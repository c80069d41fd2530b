"""Displays of outlier detectors."""

import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.integrate import trapezoid
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture

from skflows import DensityOutlierDetector
from skflows.inspection import (
    ExplanationDisplay,
    OutlierBoundaryDisplay,
    OutlierCurveDisplay,
    OutlierScoreDisplay,
    PValueDisplay,
)

FRAME = load_iris(as_frame=True).data
ODD = FRAME.iloc[:5] + np.array([0.0, 0.0, 0.0, 3.0])
BOTH = pd.concat([FRAME, ODD])
LABELS = np.repeat([1, -1], [len(FRAME), len(ODD)])
NEEDS_Y = [OutlierCurveDisplay]
ALL = [
    OutlierScoreDisplay,
    PValueDisplay,
    OutlierCurveDisplay,
    OutlierBoundaryDisplay,
    ExplanationDisplay,
]
METHODS = {
    OutlierScoreDisplay: "score_samples",
    PValueDisplay: "p_values",
    OutlierCurveDisplay: "score_samples",
    OutlierBoundaryDisplay: "decision_function",
    ExplanationDisplay: "explain",
}
each_display = pytest.mark.parametrize("display", ALL)


@pytest.fixture(scope="module")
def detector():
    mixture = GaussianMixture(3, random_state=0)
    return DensityOutlierDetector(mixture, calibration="conformal", random_state=0).fit(FRAME)


def from_estimator(display, estimator, **kwargs):
    """Call ``from_estimator``, with labels if the display requires them."""
    labels = (LABELS,) if display in NEEDS_Y else ()
    return display.from_estimator(estimator, BOTH, *labels, **kwargs)


@each_display
def test_plot_draws_on_new_or_given_axes(display, detector):
    shown = from_estimator(display, detector)
    first = shown.figure_
    first.canvas.draw()
    assert shown.plot() is shown
    assert shown.figure_ is not first
    figure, (left, right) = plt.subplots(1, 2)
    assert shown.plot(ax=right) is shown
    assert shown.figure_ is figure
    assert shown.ax_ is right
    assert not left.has_data()
    assert from_estimator(display, detector, ax=left).ax_ is left


@each_display
def test_unfitted_or_unsuitable_estimator_is_an_error(display, detector):
    with pytest.raises(NotFittedError):
        from_estimator(display, DensityOutlierDetector())
    with pytest.raises(AttributeError, match=f"no `{METHODS[display]}` method"):
        from_estimator(display, object())
    assert plt.get_fignums() == []


@each_display
def test_missing_matplotlib_is_an_error(display, detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = display.__name__ + r"\.{} needs matplotlib.*pip install matplotlib"
    with pytest.raises(ImportError, match=message.format("from_estimator")):
        from_estimator(display, detector)
    with pytest.raises(ImportError, match=message.format("plot")):
        display.__new__(display).plot()  # raises before it reads the arrays


def test_histogram_counts_all_rows(detector):
    shown = from_estimator(OutlierScoreDisplay, detector)
    (bars,) = shown.bars_
    assert bars.get_data().values.sum() == len(BOTH)
    assert shown.line_.get_xdata()[0] == detector.offset_
    n_flagged = (detector.predict(BOTH) == -1).sum()
    assert f"{n_flagged} of {len(BOTH)} rows" in shown.line_.get_label()

    shown = OutlierScoreDisplay.from_estimator(detector, BOTH, LABELS, color="green")
    counts = [bars.get_data().values.sum() for bars in shown.bars_]
    assert counts == [len(FRAME), len(ODD)]
    assert matplotlib.colors.to_hex(shown.bars_[0].get_facecolor()) == "#008000"


def test_histogram_counts_extreme_and_infinite_scores_in_the_first_bin():
    scores = np.array([*np.linspace(0, 1, 50), -1e9, -np.inf])
    shown = OutlierScoreDisplay.from_predictions(scores)
    (bars,) = shown.bars_
    assert bars.get_data().values.sum() == 52
    assert shown.line_ is None
    assert "rows below the axis, which the first bin counts: 2" in shown.ax_.get_xlabel()
    with pytest.raises(ValueError, match="No score is finite"):
        OutlierScoreDisplay.from_predictions([-np.inf])
    constant = OutlierScoreDisplay.from_predictions([2.0, 2.0])
    assert constant.bars_[0].get_data().values.sum() == 2


@pytest.mark.parametrize("log", [True, False])
def test_p_value_curve_and_band(log):
    p_values = np.linspace(0.01, 1, 100)
    shown = PValueDisplay.from_predictions(p_values, log=log)
    shown.figure_.canvas.draw()
    x, y = shown.line_.get_data()
    np.testing.assert_allclose(x, y)
    vertices = shown.band_.get_paths()[0].vertices
    low, high = stats.binom.interval(0.95, 100, 0.5)
    near = vertices[np.abs(vertices[:, 0] - 0.5) < 0.01, 1]
    assert near.min() == pytest.approx(low / 100, abs=0.02)
    assert near.max() == pytest.approx(high / 100, abs=0.02)


def test_p_values_are_those_of_the_detector(detector):
    shown = from_estimator(PValueDisplay, detector)
    np.testing.assert_array_equal(shown.p_values, detector.p_values(BOTH))


@pytest.mark.parametrize("p_values", [[], [0.5, 1.5], [np.nan]])
def test_invalid_p_values_are_an_error(p_values):
    with pytest.raises(ValueError, match="between 0 and 1"):
        PValueDisplay.from_predictions(p_values)


@pytest.mark.parametrize(
    ("kind", "summary"),
    [("roc", roc_auc_score), ("precision_recall", average_precision_score)],
)
def test_curve_takes_outliers_as_the_positive_class(detector, kind, summary):
    shown = from_estimator(OutlierCurveDisplay, detector, kind=kind)
    expected = summary(LABELS == -1, -detector.score_samples(BOTH))
    assert shown.summary_ == pytest.approx(expected)
    assert f"{expected:.3f}" in shown.line_.get_label()
    x, y = shown.line_.get_data()
    area = abs(trapezoid(y, x))
    assert area == pytest.approx(expected, abs=0.02)


def test_curve_of_infinite_scores():
    shown = OutlierCurveDisplay.from_predictions([-np.inf, 0.0, 1.0, -5.0], [-1, 1, 1, -1])
    assert shown.summary_ == 1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 1], "labels '0': give 1 for inliers and -1 for outliers"),
        ([1, 1, 1], "must hold both labels"),
        ([1, -1], r"shape \(2,\), but there are 3 rows"),
    ],
)
def test_invalid_labels_are_an_error(y, message):
    with pytest.raises(ValueError, match=message):
        OutlierCurveDisplay.from_predictions([0.0, 1.0, 2.0], y)
    assert plt.get_fignums() == []


def test_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="kind='det': it must be one of"):
        OutlierCurveDisplay.from_predictions([0.0, 1.0], [1, -1], kind="det")


def test_boundary_is_where_the_decision_function_is_zero():
    X = np.random.default_rng(0).standard_normal((400, 2))
    detector = DensityOutlierDetector(GaussianMixture(), contamination=0.1).fit(X)
    shown = OutlierBoundaryDisplay.from_estimator(detector, X, grid_resolution=60)
    line = np.concatenate([path.vertices for path in shown.boundary_.get_paths()])
    np.testing.assert_allclose(detector.decision_function(line), 0, atol=0.05)
    np.testing.assert_array_equal(shown.outlier, detector.predict(X) == -1)
    assert len(shown.scatter_.get_offsets()) == 400


def test_boundary_of_another_detector_in_selected_columns():
    forest = IsolationForest(n_estimators=5, random_state=0).fit(FRAME)
    names = ["petal length (cm)", "sepal width (cm)"]
    shown = OutlierBoundaryDisplay.from_estimator(forest, FRAME, features=names, grid_resolution=5)
    assert shown.ax_.get_xlabel() == names[0]
    assert "2 other columns" in shown.ax_.get_title()
    # The dots are the nearest rows of a slice.
    others = FRAME.drop(columns=names)
    distance = (((others - others.median()) / others.std(ddof=0)) ** 2).sum(axis=1)
    near = FRAME[distance.rank(method="first") <= 20][names]
    np.testing.assert_array_equal(shown.X, near)
    np.testing.assert_array_equal(shown.outlier, forest.predict(FRAME)[near.index] == -1)
    assert [text.get_text() for text in shown.ax_.get_legend().texts] == ["inlier", "outlier"]
    inliers = OutlierBoundaryDisplay(xx0=shown.xx0, xx1=shown.xx1, decision=np.ones((5, 5)))
    assert inliers.plot().boundary_ is None
    for features, message in (((0,), "1 column.*give two"), ((0, 9), "indices run from 0")):
        with pytest.raises(ValueError, match=message):
            OutlierBoundaryDisplay.from_estimator(forest, FRAME, features=features)
    with pytest.raises(ValueError, match="grid_resolution=1"):
        OutlierBoundaryDisplay.from_estimator(forest, FRAME, grid_resolution=1)


def test_explanation_has_the_lowest_contribution_on_top(detector):
    shown = from_estimator(ExplanationDisplay, detector, row=-1, max_features=3)
    expected = detector.explain(ODD.iloc[[-1]])[0]
    np.testing.assert_allclose(shown.contributions, expected)
    widths = [bar.get_width() for bar in shown.bars_]
    np.testing.assert_allclose(widths, np.sort(expected)[:3] - np.median(expected))
    first = shown.ax_.get_yticklabels()[0].get_text()
    assert first == f"petal width (cm) = {ODD.iloc[-1, 3]:,.6g}"
    assert f"contribution to the score ({expected.sum():.4g})" in shown.ax_.get_xlabel()


@pytest.mark.parametrize("n_bars", [1, 10])
def test_explanation_fits_into_its_figure(n_bars):
    names = [f"a column with quite a long name {i}" for i in range(10)]
    shown = ExplanationDisplay.from_predictions(
        np.linspace(-123.456, 0, 10), values=[1e6] * 10, feature_names=names, max_features=n_bars
    )
    shown.figure_.canvas.draw()
    label, figure = shown.ax_.xaxis.label.get_window_extent(), shown.figure_.bbox
    assert figure.x0 <= label.x0 and label.x1 <= figure.x1 and figure.y0 <= label.y0


def test_infinite_contribution_has_the_longest_bar():
    shown = ExplanationDisplay.from_predictions([-1.0, -np.inf, 0.0])
    widths = [bar.get_width() for bar in shown.bars_]
    assert np.isfinite(widths).all()
    assert widths[0] == min(widths)
    assert [text.get_text() for text in shown.ax_.get_yticklabels()] == ["x1", "x0", "x2"]


@pytest.mark.parametrize(
    ("params", "message"),
    [({"row": 200}, "row=200: X has 155"), ({"max_features": 0}, "max_features=0")],
)
def test_invalid_row_or_max_features_is_an_error(detector, params, message):
    with pytest.raises(ValueError, match=message):
        from_estimator(ExplanationDisplay, detector, **params)


def test_labels_have_values_without_exponents():
    """A value written as 1e+05 would be hard to find in the table."""
    shown = ExplanationDisplay.from_predictions(
        [-2.0, -1.0], values=[99_999, 0.125], feature_names=["gain", "rate"]
    )
    labels = [text.get_text() for text in shown.ax_.get_yticklabels()]
    assert labels == ["gain = 99,999", "rate = 0.125"]
