"""The report of ``skflows predict --report``: how good the predictions of known targets are."""

from html import escape
from itertools import pairwise

import numpy as np
from scipy import stats

from ..columns.arrays import listed
from ..conditional import DensityClassifier
from ..inspection import PredictiveCalibrationDisplay
from ..preprocessing.sklearn_compat import safe_indexing
from ._columns import numbers, select
from ._forms import FileForm
from ._page import breakable, number_cell, page, picture, row_of, table
from ._report import amount_text, text_as
from ._tables import import_pandas

MOST_ROWS = 2000  # that are judged
N_SHUFFLED, LEAST_SHUFFLED = 3000, 50  # rows whose columns are shuffled, for all columns and each
N_LISTED = 10  # rows with the most surprising targets
CONFIDENCE = 0.99
MOST_CLASSES = 12  # of the table of predictions by class
PROBABILITIES = np.array([0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])  # ends of bins
OF_FIT = (
    "If these rows were used in the fit, new rows are predicted less well: give rows that the "
    "model has not seen."
)


class KnownTargets:
    """The rows whose target is known, which batches of a table add.

    Parameters
    ----------
    args : namespace
        The arguments of the command.
    target : str
        The name of the target.
    is_classifier : bool
        Whether it is a class.
    """

    def __init__(self, args, target, is_classifier):
        self.args, self.target, self.is_classifier = args, target, is_classifier
        self.X, self.y, self.names = [], [], []

    def add(self, batch, X, labels):
        """Add the rows of a batch; labels are the columns that name rows."""
        target = select(batch, [self.target], self.args.data)
        known = target[self.target].notna().to_numpy()
        target = target[known]
        y = target[self.target].astype(str)
        if not self.is_classifier and len(target):
            y = numbers(target, self.args.data)[self.target]
        names = batch[labels[0]] if labels else import_pandas().Series(batch.index + 1)
        self.X.append(X[known])
        self.y.append(np.asarray(y))
        self.names.append(np.asarray(names)[known])

    def some(self, rng):
        """Return at most `MOST_ROWS` of the rows: their columns, targets and names."""
        y = np.concatenate(self.y)
        if not len(y):
            raise ValueError(
                f"{self.args.data} has no row with a value of {self.target!r}, which --report needs"
            )
        kept = np.sort(rng.permutation(len(y))[:MOST_ROWS])
        if isinstance(self.X[0], np.ndarray):
            X = np.concatenate(self.X)
        else:
            X = import_pandas().concat(self.X, ignore_index=True)
        return safe_indexing(X, kept), y[kept], np.concatenate(self.names)[kept]


def report(model, known, coverage, form):
    """Return the page as text.

    Parameters
    ----------
    model : FlowRegressor or DensityClassifier
        The fitted model.
    known : KnownTargets
        The rows.
    coverage : float
        The probability of the intervals.
    form : FileForm
        The form in which numbers are written.
    """
    rng = np.random.default_rng(0)
    X, y, names = known.some(rng)
    name, amount = escape(known.target), amount_text(form, known.target)
    if isinstance(model, DensityClassifier):
        check_classes(y, model, known)
        lead, sections = of_classes(model, X, y, name)
        amount = amount_text(FileForm(decimal=form.decimal), None)  # of probabilities
    else:
        text = text_as(form, known.target, import_pandas().Series(y))
        lead, sections = of_numbers(model, X, y, names, name, coverage, text, amount)
    sections.append(("Importance of the columns", importance(model, X, y, rng, amount)))
    title = f"Predictions of {known.target} for {known.args.data.name}"
    return page(title, lead, sections, f". {len(y):,} rows were judged.", OF_FIT)


def check_classes(y, model, known):
    """Raise an error if no target is a class of the model."""
    classes = np.asarray(model.classes_).astype(str)
    if not np.isin(y, classes).any():
        raise ValueError(
            f"{known.args.data} has {listed(np.unique(y), MOST_CLASSES)} in column "
            f"{known.target!r}, but {known.args.model} predicts {listed(classes, MOST_CLASSES)}: "
            "write them so, or leave --report out"
        )


def of_numbers(model, X, y, names, name, coverage, text, amount):
    """Return the lead and the sections of a regressor's report.

    Functions write values and amounts, such as errors.
    """
    distribution = model.predict_distribution(X)
    low, high = model.predict_interval(X, coverage).T
    median = distribution.median()
    inside = (low <= y) & (y <= high)
    error = np.abs(y - median).mean()
    guess = np.abs(y - np.median(y)).mean()
    lead = (
        f"<strong>The {100 * coverage:.6g}% intervals hold {name} in {inside.mean():.1%} of "
        f"{len(y):,} rows</strong>{verdict(inside.sum(), len(y), coverage)}. Predictions are off "
        f"by {escape(amount(error))} on average, the median of all rows by "
        f"{escape(amount(guess))}."
    )
    calibration = PredictiveCalibrationDisplay.from_estimator(model, X, y)
    oddest = np.argsort(tails(distribution, y), kind="stable")[:N_LISTED]
    rows = [
        f"<tr><td>{escape(str(names[i]))}</td>"
        + "".join(number_cell(x[i], escape(text(x[i]))) for x in (y, low, median, high))
        + "</tr>"
        for i in oddest
    ]
    head = [("row", False), (name, True), ("low", True), ("median", True), ("high", True)]
    caption = (
        "Left: where the targets lie in their predicted distributions; a dome means that these are "
        "too wide, a bowl too narrow. Right: how many central intervals hold their target."
    )
    return lead, [
        ("Calibration", picture(calibration, caption)),
        ("Widths of the intervals", widths(low, high, inside, amount)),
        ("The most surprising rows", table(head, rows)),
    ]


def tails(distribution, y):
    """Return the probabilities below or above targets, the smaller ones, with half of that at y."""
    below = distribution.cdf(y)
    if distribution.is_discrete:
        below = below - distribution.pmf(y) / 2
    return np.minimum(below, 1 - below)


def verdict(n_inside, n, coverage):
    """Return whether a number of covered rows is explained by chance, as a clause."""
    least, most = stats.binom.interval(CONFIDENCE, n, coverage)
    if least <= n_inside <= most:
        return ", as they should, up to chance"
    return ", fewer than they should" if n_inside < least else ", more than needed: they are wide"


def widths(low, high, inside, amount):
    """Return the coverage of the narrowest, the middle and the widest third of the intervals."""
    width = high - low
    thirds = np.array_split(np.argsort(width, kind="stable"), 3)
    lines = []
    for title, rows in zip(("narrowest", "middle", "widest"), thirds, strict=True):
        if len(rows):
            cells = escape(amount(np.median(width[rows]))), f"{inside[rows].mean():.1%}"
            lines.append(row_of(f"{title} third", *cells))
    head = [("intervals", False), ("median width", True), ("hold the target", True)]
    return (
        "<p>Intervals are right if the shares are alike: then narrow ones stand for rows that are "
        "easy to predict.</p>\n" + table(head, lines)
    )


def of_classes(model, X, y, name):
    """Return the lead and the sections of a classifier's report."""
    classes = np.asarray(model.classes_).astype(str)
    probability = model.predict_proba(X)
    predicted, most = classes[probability.argmax(axis=1)], probability.max(axis=1)
    right = predicted == y
    shares = [(y == each).mean() for each in classes]
    lead = (
        f"<strong>{right.mean():.1%} of {len(y):,} classes are predicted rightly</strong>; "
        f"{escape(str(classes[np.argmax(shares)]))}, the most frequent one, holds "
        f"{np.max(shares):.1%}. The probabilities say that {most.mean():.1%} should be right."
    )
    if right.mean() <= np.max(shares):
        lead += " Always predicting that one is right at least as often."
    lines = []
    for low, high in pairwise(PROBABILITIES):
        rows = (most > low) & (most <= high)
        if rows.any():
            cells = f"{rows.sum():,}", f"{most[rows].mean():.1%}", f"{right[rows].mean():.1%}"
            lines.append(row_of(f"{low:.0%} to {high:.0%}", *cells))
    head = [("probability of the predicted class", False), ("rows", True)]
    head += [("mean probability", True), ("right", True)]
    sections = [("Calibration", table(head, lines))]
    if len(classes) <= MOST_CLASSES:
        lines = [
            row_of(
                escape(actual), *(f"{((y == actual) & (predicted == p)).sum():,}" for p in classes)
            )
            for actual in classes
        ]
        head = [(f"actual {name}", False), *((f"predicted {escape(p)}", True) for p in classes)]
        sections.append(("Predictions by class", table(head, lines)))
    return lead, sections


def importance(model, X, y, rng, amount):
    """Return how much worse predictions become if the values of a column are shuffled."""
    n = max(LEAST_SHUFFLED, N_SHUFFLED // X.shape[1])
    rows = rng.permutation(len(y))[:n]
    X, y = safe_indexing(X, rows), y[rows]
    names = [f"x{j}" for j in range(X.shape[1])] if isinstance(X, np.ndarray) else [*X]
    order, loss = rng.permutation(len(y)), losses(model, X, y)
    lines = []
    for j, name in enumerate(names):
        shuffled = X.copy()
        if isinstance(X, np.ndarray):
            shuffled[:, j] = X[order, j]
        else:
            shuffled[name] = X[name].iloc[order].array
        worse = losses(model, shuffled, y) - loss
        noise = 2 * worse.std() / np.sqrt(len(y))
        lines.append((worse.mean(), noise, name))
    lines.sort(key=lambda line: -line[0])
    is_classifier = isinstance(model, DensityClassifier)
    what = "the mean error grows" if not is_classifier else "the probability of the class falls"
    head = [("column", False), (f"{what} by", True), ("give or take", True)]
    rows = [
        f"<tr><td>{breakable(name)}</td>"
        + number_cell(worse, escape(amount(float(f"{worse:.3g}"))))
        + number_cell(noise, escape(amount(float(f"{noise:.2g}"))))
        + "</tr>"
        for worse, noise, name in lines
    ]
    return (
        "<p>The values of one column are shuffled, so that they say nothing. A column can have "
        "little importance because others say the same, and too much if shuffling makes rows that "
        "cannot be, such as an end before its start.</p>\n" + table(head, rows)
    )


def losses(model, X, y):
    """Return how wrong the prediction of each row is: its error, or 1 minus a probability."""
    if not isinstance(model, DensityClassifier):
        return np.abs(model.predict_distribution(X).median() - y)
    classes = np.asarray(model.classes_).astype(str)
    return 1 - (model.predict_proba(X) * (classes == y[:, None])).sum(axis=1)
