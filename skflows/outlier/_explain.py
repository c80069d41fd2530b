"""Explanations of a score: contributions of the columns that add up to it."""

import numpy as np

from ..training.threads import one_thread_if_forked

N_REFERENCE = 500  # rows, at most, with which explanations compare
EXCLUDED = 0.1  # fraction of these with the lowest scores, which may be outliers
FAR = 1.0  # scaled difference in a column beyond which rows are equally far
ROWS_AT_ONCE = 20_000
N_STARTS = 4  # normal rows with which a quick explanation compares each row
MARGINS = (("standardize",), ("quantile", "standardize"))  # of the densities of such explanations
VALUES_AT_ONCE = 2**18
TINY = 1e-300  # slope of a map that clips values very far out
N_SIMILAR = 4  # normal rows that take the values of a column or a pair
JOINT = 0.8  # least fraction of the oddness of a pair that neither value explains alone


def reference_rows(X, score_rows, random_state):
    """Return normal rows to compare with: a sample of rows without the lowest scores."""
    few = X[random_state.permutation(len(X))[:N_REFERENCE]]
    order = np.argsort(score_rows(few), kind="stable")
    return few[order[int(EXCLUDED * len(few)) :]]


def contributions(model, X, reference, n_orders, random_state):
    """Return the contribution of each column to the score of each row, and the score without them.

    A similar normal row takes the values of the row to be explained, column by column; the change
    of the score is the contribution of that column. The sum telescopes, so it is exact for every
    density. Conditional densities add up to the log-density too, but they blame the columns that
    depend on the odd one: given it, they seem odd as well.

    Parameters
    ----------
    model : ScoredDensity
        Computes the score.
    X : ndarray of shape (n, d)
        The rows to explain.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.
    n_orders : int
        Orders of the columns over which contributions are averaged.
    random_state : RandomState
        Draws the orders.

    Returns
    -------
    contributions : ndarray of shape (n, d)
        Mean changes of the score.
    base : ndarray of shape (n,)
        Mean score of the normal rows. With the contributions it adds up to the score, up to
        rounding.
    """
    from ..density._evaluation import column_scale  # imports torch

    orders = column_orders(X.shape[1], n_orders, random_state)
    with np.errstate(invalid="ignore"):
        filled = np.where(np.isnan(reference), np.nanmedian(reference, axis=0), reference)
    scale = column_scale(filled)
    changes, base = np.empty(X.shape), np.empty(len(X))
    size = max(1, ROWS_AT_ONCE // (len(orders) * (X.shape[1] + 1)))
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        similar = nearest(rows / scale, reference / scale, len(orders))
        part = along_orders(model, rows, reference[similar], orders)
        changes[start : start + size], base[start : start + size] = part
    return changes, base


def with_base(contributions, base):
    """Return contributions that add up to the score: the columns share the base equally."""
    return contributions + base[:, None] / contributions.shape[1]


@one_thread_if_forked()
def quick_contributions(X, reference):
    """Return contributions to the scores of rows under two simple densities.

    One is normal in the columns, the other in their quantiles: the first families that
    `AutoDensity` pools, fitted to the reference rows only. After maps of the single columns their
    log-density is quadratic, so that the mean over all orders of the columns has a closed form: a
    difference in a column times the mean of the gradients at both rows.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        The rows to explain.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.

    Returns
    -------
    contributions : ndarray of shape (n, d)
        The oddest column has the lowest one. They add up to the difference of the scores of a row
        and of similar normal rows.
    """
    import torch

    from ..bijections._standardize import shrunk_correlation
    from ..density._evaluation import column_scale
    from ..preprocessing.fixed_maps import fitted_preprocessor

    known = torch.tensor(reference, dtype=torch.float64)

    def evaluated(maps, factor, rows):
        """Return mapped rows, the gradient of their log-density, and the log-slopes of the maps."""
        rows = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        mapped, _ = maps(rows)
        (slope,) = torch.autograd.grad(mapped.sum(), rows)  # each column is mapped on its own
        mapped = mapped.detach()
        gradient = -torch.cholesky_solve(mapped.T, factor).T
        return mapped, gradient, slope.clamp(min=TINY).log()

    densities = []
    for names in MARGINS:
        maps = fitted_preprocessor(names, None, known, known.new_ones(len(known)))
        with torch.no_grad():
            factor = torch.linalg.cholesky(shrunk_correlation(maps(known)[0]))
        densities.append((maps, factor, evaluated(maps, factor, reference)))
    scale = column_scale(reference)
    totals = np.zeros(X.shape)
    size = max(1, VALUES_AT_ONCE // max(X.shape[1], len(reference)))  # distances, too
    for start in range(0, len(X), size):
        part = slice(start, start + size)
        similar = nearest(X[part] / scale, reference / scale, N_STARTS)
        for maps, factor, of_known in densities:
            of_rows = evaluated(maps, factor, X[part])
            end, end_gradient, end_slope = (values[:, None] for values in of_rows)
            begin, begin_gradient, begin_slope = (values[similar] for values in of_known)
            change = (end - begin) * (end_gradient + begin_gradient) / 2 + end_slope - begin_slope
            totals[part] += change.mean(dim=1).numpy()
    return totals / len(densities)


def joint_oddness(score_rows, X, columns, reference):
    """Return how odd the value of one column is together with each other value of its row.

    Normal rows that have nearly the value, or nearly both values, take them over exactly: their
    score hardly changes if such rows exist. The change for two values beyond the changes for each
    alone is what only the combination explains. It is 0 if the columns are independent.

    Parameters
    ----------
    score_rows : callable
        Returns the scores of rows.
    X : ndarray of shape (n, d)
        The rows.
    columns : ndarray of shape (n,)
        The index of a column for each row.
    reference : ndarray of shape (m, d)
        Normal rows to compare with.

    Returns
    -------
    pair, joint : ndarray of shape (n, d)
        Change of the score when a normal row takes the values of both columns, and the part of it
        beyond the changes for each value alone.
    """
    from ..density._evaluation import column_scale  # imports torch

    scale, before = column_scale(reference), score_rows(reference)
    before = np.where(np.isfinite(before), before, before[np.isfinite(before)].min(initial=0))
    n, d = X.shape
    size = max(1, ROWS_AT_ONCE // (2 * d * N_SIMILAR))
    single, pair = np.empty((2, n, d))
    for start in range(0, n, size):
        rows, chosen = X[start : start + size], columns[start : start + size]
        distance = np.abs(reference - rows[:, None]) / scale
        distance[(distance == 0).all(axis=2)] = np.inf  # the row itself
        chosen_distance = np.take_along_axis(distance, chosen[:, None, None], axis=2)
        for effect, distances, is_pair in (
            (single, distance, False),
            (pair, distance + chosen_distance, True),
        ):
            similar = np.argsort(distances, axis=1, kind="stable")[:, :N_SIMILAR]
            changed = reference[similar]  # row, similar row, column, and the columns of the row
            each = np.arange(d)
            changed[:, :, each, each] = rows[:, None]
            if is_pair:
                for i, j in enumerate(chosen):
                    changed[i, :, :, j] = rows[i, j]
            after = score_rows(changed.reshape(-1, d)).reshape(similar.shape)
            effect[start : start + size] = (after - before[similar]).mean(axis=1)
    chosen_single = np.take_along_axis(single, columns[:, None], axis=1)
    with np.errstate(invalid="ignore"):
        joint = pair - np.minimum(single, 0) - np.minimum(chosen_single, 0)
    return pair, np.nan_to_num(joint, nan=0.0, neginf=-np.inf)


def partners(score_rows, X, columns, reference):
    """Return the column with which a given column of each row is odd only together, or -1.

    That is the one with the oddest combination, if the row lies below the lower Tukey fence of the
    normal scores, the combination lowers these by more than 1.5 interquartile ranges, and the
    values alone explain less than a fifth of that.
    """
    normal = score_rows(reference)
    normal = normal[np.isfinite(normal)]
    if not len(X) or not len(normal):
        return np.full(len(X), -1)
    pair, joint = joint_oddness(score_rows, X, columns, reference)
    np.put_along_axis(joint, columns[:, None], 0.0, axis=1)
    partner = joint.argmin(axis=1)
    rows = np.arange(len(X))
    pair, joint = pair[rows, partner], joint[rows, partner]
    first, third = np.percentile(normal, [25, 75])
    distance = 1.5 * (third - first)
    is_odd = (score_rows(X) < first - distance) & (joint < -distance) & (joint <= JOINT * pair)
    return np.where(is_odd, partner, -1)


def partners_of(detector, X, columns):
    """Return what `partners` returns for the mean of the scores of a detector's models."""

    def mean_scores(rows):
        return np.mean([model.score_samples(rows) for model in detector.models_], axis=0)

    return partners(mean_scores, X, columns, detector._reference)


def quick_explanation(detector, X):
    """Return contributions of columns to a simpler score than `explain` explains, in less time."""
    if detector._encoding is None:
        return quick_contributions(np.asarray(X), detector._reference)
    return detector.models_[0].density.surprises(detector._encoding.encode(X))


def column_orders(d, n_orders, random_state):
    """Return random orders, each followed by its reverse: early in one is late in the other."""
    orders = [random_state.permutation(d) for _ in range((n_orders + 1) // 2)]
    return [order for pair in orders for order in (pair, pair[::-1])][:n_orders]


def nearest(X, reference, k):
    """Return the indices of the k most similar reference rows, insensitive to a single odd
    column."""
    distance = np.array([differences(reference, row).sum(axis=1) for row in X])
    distance[distance == 0] = np.inf  # the row itself, which explains nothing
    ranks = np.argsort(distance, axis=1, kind="stable")
    return ranks[:, np.arange(k) % len(reference)]


def differences(reference, row):
    """Return scaled differences, at most `FAR`; two missing values differ by 0."""
    difference = np.minimum(np.abs(reference - row), FAR)
    missing = np.isnan(difference)
    both = np.isnan(reference) & np.isnan(row)
    return np.where(both, 0.0, np.where(missing, FAR, difference))


def along_orders(model, X, starts, orders):
    """Return the mean contributions over orders, and the mean scores of the starts, which are a row
    for each row of X and order."""
    n, d = X.shape
    steps = np.empty((len(orders), d + 1, n, d), dtype=X.dtype)
    is_new = np.ones(steps.shape[:-1], dtype=bool)
    for i, order in enumerate(orders):
        steps[i, 0] = starts[:, i]
        for k, column in enumerate(order):
            steps[i, k + 1] = steps[i, k]
            steps[i, k + 1, :, column] = X[:, column]
            new, old = X[:, column], starts[:, i, column]
            is_new[i, k + 1] = (new != old) & ~(np.isnan(new) & np.isnan(old))
    reconciled = getattr(model, "reconciled", None)
    if reconciled is not None:  # a step that breaks a rule would blame columns that are not odd
        for i, order in enumerate(orders):
            steps[i] = reconciled(steps[i], order)
        is_new[:] = True
    scores = np.empty(is_new.shape)
    scores[is_new] = model.score_samples(steps[is_new])
    latest = np.maximum.accumulate(np.where(is_new, np.arange(d + 1)[:, None], 0), axis=1)
    scores = np.take_along_axis(scores, latest, axis=1)
    with np.errstate(invalid="ignore"):
        changes = np.diff(scores, axis=1)
    changes[np.isnan(changes)] = 0.0  # from density 0 to density 0
    totals = np.zeros((n, d))
    for order, change in zip(orders, changes, strict=True):
        totals[:, order] += change.T
    return totals / len(orders), scores[:, 0].mean(axis=0)
