"""The report of ``skflows fit --report``: how well synthetic rows stand for the table."""

from html import escape
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ..columns.frames import rows_of
from ..inspection import SamplesDisplay
from ..table import TableDensity
from ._forms import form_of
from ._page import breakable, page, percent, picture, row_of, table
from ._report import text_as, usual_values
from ._tables import import_pandas

MOST_ROWS = 2000  # of each table that are compared
N_BINS, N_BINS_OF_PAIRS = 20, 6  # of numbers, and categories besides a rest
MOST_COLUMNS, N_PAIRS = 60, 10  # whose pairs are compared, and listed pairs
N_DRAWN = 4  # columns of the picture
N_REPEATS, CHANCE = 200, 0.99  # of a multinomial, for the largest difference by chance
LEAST = 1e-9  # difference by chance, of constant columns
AUC_ALIKE, AUC_SIMILAR = 0.6, 0.75
LARGE = 0.1  # difference of a pair of columns, beyond chance, that a hurried reader should know
N_FOLDS, MOST_CATEGORIES = 5, 200
MOST_NEIGHBOURS = 20_000  # rows of the fit, to which distances are computed
WITHIN = 0.01  # of the rows: the distance that so many have at most
FAR = 2.0  # such ranges from the median, to which numbers are moved
CLOSE = 2.0  # times as many synthetic rows so near to a row: memorised


def report(path, model, frame, seconds, random_state=None):
    """Return the page as text.

    Parameters
    ----------
    path : Path
        The file of the table.
    model : estimator
        The fitted density.
    frame : DataFrame
        The table, as it was fitted.
    seconds : float
        How long the fit took.
    random_state : int, default=None
        Seeds the synthetic rows and the choice of rows.
    """
    rng = np.random.default_rng(random_state)
    seed = int(rng.integers(2**31))
    n = min(len(frame), MOST_ROWS)
    real = frame.iloc[np.sort(rng.permutation(len(frame))[:n])].reset_index(drop=True)
    drawn = drawn_rows(model, n, seed)
    names = model._schema.names if isinstance(model, TableDensity) else [*drawn]
    real, synthetic = (table[[name for name in real if name in names]] for table in (real, drawn))
    coded = codes_of(real, synthetic, N_BINS)
    differences = {name: difference(coded, [name], N_BINS, rng) for name in real}
    auc, near = discriminator(real, synthetic, seed), nearness(frame, synthetic, rng)
    broken = broken_rules(model, synthetic)
    paired = [*real][:MOST_COLUMNS]
    coded = codes_of(real[paired], synthetic[paired], N_BINS_OF_PAIRS)
    of_pairs = {
        pair: difference(coded, pair, N_BINS_OF_PAIRS, rng) for pair in combinations(paired, 2)
    }
    most_different = {*sorted(real, key=lambda name: -differences[name][0])[:N_DRAWN]}
    shown = [str(name) for name in real if name in most_different]
    display = SamplesDisplay._of_samples(model, frame, lambda _: drawn, shown).plot()
    sections = [
        ("Columns", columns(real, synthetic, differences, form_of(model))),
        (
            "The columns that differ most",
            picture(display, "Rows of the table, and synthetic rows."),
        ),
        ("Pairs of columns", pairs(of_pairs, real.shape[1])),
        ("Rules", rules(broken)),
        ("Distances to the rows of the fit", distances(near)),
    ]
    note = f" after a fit of {seconds:.0f} s. {n:,} rows of each table were compared."
    first = lead(auc, near, broken, of_pairs, len(frame))
    return page(f"Synthetic rows of {path.name}", first, sections, note)


def drawn_rows(model, n, seed):
    """Return drawn rows as a table."""
    if not isinstance(model, TableDensity):
        return model.sample(n, random_state=seed, as_frame=True)
    return import_pandas().DataFrame(model.sample(n, random_state=seed))


def lead(auc, near, broken, of_pairs, n_fitted):
    """Return what a hurried reader should know."""
    alike = "clearly different from the real ones"
    if auc < AUC_SIMILAR:
        alike = "hard to tell from the real ones" if auc < AUC_ALIKE else "similar to the real ones"
    text = (
        f"<strong>Synthetic rows are {alike}</strong>: shown a real row and a synthetic one, a "
        f"classifier picks the synthetic one in {max(auc, 0.5):.0%} of the cases; guessing gives "
        "50%."
    )
    if broken:
        n_odd = sum(is_odd for *_, is_odd in broken)
        rules = "1 rule" if len(broken) == 1 else f"{len(broken)} rules"
        text += f" They break {n_odd or 'none'} of {rules} clearly more often than the table does."
    worst = max(of_pairs, key=lambda pair: np.subtract(*of_pairs[pair]), default=None)
    if worst is not None and np.subtract(*of_pairs[worst]) > LARGE:
        value, chance = of_pairs[worst]
        first, second = (escape(str(name)) for name in worst)
        text += (
            f" <strong>{first} and {second} do not go together as in the table</strong>: "
            f"{value:.0%} of the rows would need other values; up to {chance:.0%} by chance."
        )
    if near.is_suspicious:
        return (
            f"{text} <strong>They are too near to rows of the fit</strong>: don't publish them in "
            "place of private rows."
        )
    if n_fitted > MOST_NEIGHBOURS:
        return (
            f"{text} Only {MOST_NEIGHBOURS:,} of the {n_fitted:,} rows of the fit were searched "
            "for copies: they show none, others may."
        )
    real, synthetic = near.shares
    return (
        f"{text} {synthetic:.1%} of them are as near to one of the {n_fitted:,} rows of the fit as "
        f"the nearest {real:.1%} of these are to another. (This is no proof of privacy.)"
    )


def codes_of(real, synthetic, n_bins):
    """Return what `codes` does for each column of two tables, (2, n), by name."""
    return {name: np.array(codes(real[name], synthetic[name], n_bins)) for name in real}


def codes(real, synthetic, n_bins):
    """Return two columns as numbers of bins, the last of which holds missing values."""
    missing = [column.isna().to_numpy() for column in (real, synthetic)]
    if real.dtype.kind in "iufMm":
        known = real.dropna().sort_values(ignore_index=True)
        places = np.linspace(0, max(len(known) - 1, 0), n_bins + 1)[1:-1].astype(int)
        ends = known.iloc[places if len(known) else places[:0]].unique()
        found = [np.searchsorted(ends, each.to_numpy(), side="right") for each in (real, synthetic)]
    else:
        common = real.astype(str)[~missing[0]].value_counts().index[: n_bins - 1]
        place = {name: i for i, name in enumerate(common)}
        found = [
            each.astype(str).map(place).fillna(n_bins - 1).to_numpy(dtype=int)
            for each in (real, synthetic)
        ]
    return [
        np.where(is_missing, n_bins, each) for each, is_missing in zip(found, missing, strict=True)
    ]


def difference(coded, names, n_bins, rng):
    """Return the total variation distance of some columns, and the largest that chance gives.

    Columns are bins by `codes_of`.
    """
    cells = 0
    for name in names:
        cells = cells * (n_bins + 1) + coded[name]
    n, n_cells = cells.shape[1], (n_bins + 1) ** len(names)
    shares = np.array([np.bincount(each, minlength=n_cells) for each in cells]) / n
    drawn = rng.multinomial(n, shares.mean(axis=0), (2, N_REPEATS)) / n
    by_chance = np.abs(drawn[0] - drawn[1]).sum(axis=1) / 2
    return np.abs(shares[0] - shares[1]).sum() / 2, np.quantile(by_chance, CHANCE)


def columns(real, synthetic, differences, form):
    """Return the table of columns."""
    has_missing = bool(real.isna().any(axis=None) or synthetic.isna().any(axis=None))
    lines = []
    for name in real:
        pair = real[name], synthetic[name]
        cells = [f"<td>{breakable(name)}</td>{compared(differences[name])}"]
        text = text_as(form, name, pair[0])
        cells += [f"<td>{escape(usual_values(column, text))}</td>" for column in pair]
        cells += [percent(column.isna().mean()) for column in pair] * has_missing
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = [("column", False), *COMPARED]
    head += [("usual in the table", False), ("usual in synthetic rows", False)]
    head += [("missing in the table", True), ("missing in synthetic rows", True)] * has_missing
    return (
        "<p>A difference is the share of the rows that would need another value, range of values "
        "or missing value, for both tables to have the same shares. Orange: larger than 99% of "
        "the differences between two random samples of the same table.</p>\n" + table(head, lines)
    )


COMPARED = [("difference", True), ("by chance up to", True)]


def compared(pair):
    """Return the cells of a difference and of the largest by chance."""
    value, chance = pair
    return percent(value, is_odd=value > chance) + percent(chance)


def pairs(found, n_columns):
    """Return the pairs of columns that differ most."""
    if not found:
        return "<p>There is one column.</p>"
    n_odd = sum(value > chance for value, chance in found.values())
    worst = sorted(found, key=lambda pair: -found[pair][0] / max(found[pair][1], LEAST))[:N_PAIRS]
    lines = [
        f"<tr><td>{breakable(a)}</td><td>{breakable(b)}</td>{compared(found[a, b])}</tr>"
        for a, b in worst
    ]
    of = f" of the first {MOST_COLUMNS} columns" if MOST_COLUMNS < n_columns else ""
    return (
        f"<p>{n_odd:,} of {len(found):,} pairs{of} differ by more than 99% of pairs of random "
        f"samples; one in a hundred would by chance. The {len(worst)} largest differences, "
        "relative to chance:</p>\n"
        + table([("column", False), ("other column", False), *COMPARED], lines)
    )


def broken_rules(model, synthetic):
    """Return each rule, the shares of rows of the fit and of synthetic rows that break it, and
    whether the second is larger by more than three standard errors.
    """
    schema = getattr(model, "_schema", None)
    if schema is None:
        return []
    values = schema.split(schema.encoding.rows(rows_of(synthetic), [*synthetic]), [*synthetic])
    rows = schema.rules.encoded(schema, values)
    broken = []
    for rule in schema.rules:
        allowed, share = rule.counts.share, rule.is_broken(rows).mean()
        limit = allowed + 3 * np.sqrt(max(allowed, 1 / len(rows)) / len(rows))
        broken.append((rule.text(schema.names), allowed, share, share > limit))
    return broken


def rules(broken):
    """Return the table of rules."""
    if not broken:
        return "<p>No rules between the columns are known, such as sums and orders.</p>"
    lines = [
        f"<tr><td>{escape(text)}</td>{percent(allowed)}{percent(share, is_odd)}</tr>"
        for text, allowed, share, is_odd in broken
    ]
    head = [("rule", False), ("broken in the table", True), ("broken in synthetic rows", True)]
    return table(head, lines)


class Nearness(NamedTuple):
    """Distances of rows of the fit and of synthetic rows to the nearest other row of the fit."""

    real: np.ndarray
    synthetic: np.ndarray

    @property
    def shares(self):
        """The shares of both that are as near as the nearest hundredth of the rows of the fit."""
        limit = np.quantile(self.real, WITHIN)
        return [float((each <= limit).mean()) for each in self]

    @property
    def is_suspicious(self):
        """Whether more synthetic rows are so near than twice the share, beyond chance."""
        real, synthetic = self.shares
        return synthetic > CLOSE * real + 3 * np.sqrt(real / len(self.synthetic))


def nearness(frame, synthetic, rng):
    """Return the distances of rows to their nearest neighbours among the rows of the fit."""
    from sklearn.neighbors import NearestNeighbors

    fitted = frame[[*synthetic]].iloc[rng.permutation(len(frame))[:MOST_NEIGHBOURS]]
    neighbours = NearestNeighbors().fit(embedded(fitted, fitted))
    # The first of two neighbours of a row of the fit is the row itself.
    of_real = neighbours.kneighbors(embedded(fitted, fitted.iloc[: len(synthetic)]), 2)[0][:, 1]
    return Nearness(of_real, neighbours.kneighbors(embedded(fitted, synthetic), 1)[0][:, 0])


def embedded(fitted, rows):
    """Return rows as points: scaled numbers, and a coordinate for each common category."""
    parts = []
    for name in fitted:
        column, missing = rows[name], rows[name].isna().to_numpy()
        if column.dtype.kind in "iufMm":
            known = as_floats(fitted[name]).dropna()
            low, middle, high = known.quantile([0.05, 0.5, 0.95])
            scale = (high - low) or (known.max() - known.min()) or 1
            parts.append(((as_floats(column) - middle) / scale).fillna(0.0).clip(-FAR, FAR))
        else:
            common = fitted[name].dropna().astype(str).value_counts().index[:N_BINS]
            texts = column.astype(str)
            parts += [(texts == value) & ~missing for value in common]
        parts.append(missing)
    return np.column_stack(parts).astype(float)


def as_floats(column):
    """Return numbers, or dates in microseconds, with NaN for missing ones."""
    if column.dtype.kind not in "Mm":
        return column.astype(float)
    moments = column.to_numpy(f"{column.dtype.kind}8[us]").astype(np.int64)
    return import_pandas().Series(moments, column.index).where(column.notna())


def distances(near):
    """Return quantiles of the distances, of rows of the fit and of synthetic rows."""
    lines = []
    for title, probability in ("nearest 1%", 0.01), ("nearest 5%", 0.05), ("half", 0.5):
        cells = [f"{np.quantile(each, probability):.3g}" for each in near]
        lines.append(row_of(f"{title} are within", *cells))
    equal = [f"{(each == 0).mean():.1%}" for each in near]
    lines.append(row_of("equal to another row", *equal))
    head = [("rows", False), ("of the fit", True), ("synthetic", True)]
    return (
        "<p>Distance to the nearest other row of the fit. It is 1 between the ends of the range "
        "of 90% of a column of numbers, and 1.4 between two categories. A model that copies rows "
        "draws rows that are nearer.</p>\n" + table(head, lines)
    )


def discriminator(real, synthetic, seed):
    """Return the cross-validated AUC of gradient boosting that tells the rows apart."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    both = import_pandas().concat([real, synthetic], ignore_index=True)
    is_number = np.array([real[name].dtype.kind in "iufMm" for name in both])
    for name in both.columns[~is_number]:
        both[name] = both[name].astype(str).where(both[name].notna())
        common = both[name].value_counts().index[:MOST_CATEGORIES]
        both[name] = both[name].map({value: i for i, value in enumerate(common)})
    for name in both.columns[is_number]:
        both[name] = import_pandas().to_numeric(both[name]).where(both[name].notna())
    model = HistGradientBoostingClassifier(random_state=seed, categorical_features=~is_number)
    folds = StratifiedKFold(min(N_FOLDS, len(real)), shuffle=True, random_state=seed)
    y = np.repeat([0, 1], len(real))
    X = both.to_numpy(dtype=float)
    return float(cross_val_score(model, X, y, cv=folds, scoring="roc_auc").mean())
