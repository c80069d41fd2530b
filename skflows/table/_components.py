"""The components of a table's density: what is fitted, and how held-out rows weight it."""

from functools import partial

import numpy as np

from ..callbacks._run import training_file
from ..columns.arrays import some_rows
from ..ensemble._folds import automatic_cv, make_folds
from ..ensemble._race import Component, Fold, Task
from ..training.threads import few_threads
from ._view import MemberOfFold, TableView

ROWS_WITH_FOLDS = 1_000  # beyond, a single held-out part is accurate enough
HELD_OUT = 0.15
MAX_HELD_OUT = 2_000
HELD_OUT_OF_CLASS = 20  # rows of a class at least, for its p-values, but at most a third of it
N_CLASSES = {"quantile": (1, 2, 4, 12, 32), "linear": (2, 3, 4, 5, 6, 8, 12, 16)}
N_BINNED_CLASSES = (4, 8, 24)
MAX_ROWS = 50_000  # of a component that is no network, and of an epoch of a network
MAX_KERNELS = 2_000  # rows, beyond which kernels take too long
ROWS_PER_CLASS, NUMBERS_PER_CLASS = 10, 8  # rows of each class for so many numbers
BATCH_SIZE = 128
ROWS_OF_BATCH_SIZE, MOST_TIMES = 2_048, 4  # rows for each time that batches are as large, at most
MAX_STEPS = 800  # of a network in all folds, unless the following epochs are more or fewer
EPOCHS = (50, 100)
ROWS_WITH_TWO = 4_000  # beyond, twice the epochs of one network are better than a second one
HIDDEN = (128, 128, 128)
DROPOUT, ROWS_OF_DROPOUT = 0.15, 200  # of a network on pairs: dropout is min(0.15, 200 / n_rows)
N_COMPONENTS = 10
LEARNING_RATE = 6e-3  # of batches of 128, times the root of larger ones
EMA_DECAY = 0.995
# Epochs and steps: the end of the schedule gains more than a few steps cost.
PATIENCE, LEAST_PATIENCE, STEPS_OF_PATIENCE = 40, 12, 600
N_VALIDATION_DRAWS = 6  # of what is given in each held-out row
MAX_NORMAL = 40  # numbers, beyond which solving for conditional normals takes too long
MAX_CATEGORIES = 800  # of all variables, beyond which comparing all pairs takes too long


def components(schema, n, settings):
    """Return the components for ``n`` rows, the quick ones first.

    Their recipes are functions: ``recipe(train, held_out, seed, seconds)`` returns a member, from
    views of rows. Those that are refitted take a ``start``, a member with whose classes they begin.
    """
    from ._binned_classes import fit_binned_classes
    from ._latent_classes import fit_kernels, fit_latent_classes

    def kernels(space):
        fit = partial(fit_quick, fit_kernels, space=space)
        return Component(f"{space} kernels", fit, refit=True)

    def latent_classes(k, space):
        fit = partial(fit_quick, fit_latent_classes, n_classes=k, space=space)
        return Component(f"{space} classes of {k}", fit)

    def binned_classes(k):
        fit = partial(fit_quick, fit_binned_classes, n_classes=k)
        return Component(f"binned classes of {k}", fit)

    d = sum(variable.has_number for variable in schema.variables)
    spaces = ["quantile", "linear"] if d else ["quantile"]
    portfolio = [
        latent_classes(k, space)
        for space in spaces
        for k in N_CLASSES[space]
        if k == 1 or k * ROWS_PER_CLASS * max(1, d / NUMBERS_PER_CLASS) <= n
    ]
    portfolio += [binned_classes(k) for k in N_BINNED_CLASSES if k * ROWS_PER_CLASS <= n]
    if d and n <= MAX_KERNELS:
        portfolio += [kernels(space) for space in spaces]
    if sum(variable.has_number or variable.n_levels > 1 for variable in schema.variables) < 2:
        return portfolio  # with one varying column there is no dependence to learn
    network = partial(fit_network, settings=settings)
    networks = [Component("network", network, is_trained=True)]
    if has_normal(schema) or has_forest(schema):
        network = partial(network, has_backbone=True)
        networks.append(Component("network on pairs", network, is_trained=True))
    return portfolio + networks[-1 if n > ROWS_WITH_TWO else 0 :]


def fit_quick(fit, train, held_out, seed, seconds, **settings):
    """Fit a component that needs neither held-out rows nor a time limit."""
    return fit(at_most(MAX_ROWS, train), **settings, random_state=np.random.RandomState(seed))


def at_most(n, view):
    """Return a view, or n of its rows if it has more."""
    return view if len(view) <= n else view.take(some_rows(len(view), n))


def has_normal(schema):
    """Return whether a network may start from the normal distribution of the numbers."""
    return 2 <= sum(variable.has_number for variable in schema.variables) <= MAX_NORMAL


def has_forest(schema):
    """Return whether a network may start from the dependent pairs of levels and numbers."""
    from ._chow_liu import category_sizes

    sizes = category_sizes(schema.variables)
    has_levels = any(variable.n_levels for variable in schema.variables)
    return has_levels and len(schema.columns) > 1 and sum(sizes) <= MAX_CATEGORIES


def backbone_of(view, random_state):
    """Return the normal and the forest that a network starts from, if the columns allow them."""
    from ._chow_liu import fit_chow_liu
    from ._latent_classes import fit_latent_classes

    backbone = {}
    if has_normal(view.schema):
        one = fit_latent_classes(view, 1, "quantile", random_state)
        order = np.argsort(one.numbers)
        backbone["gaussian"] = one.means[0, order], one.covariances[0][np.ix_(order, order)]
    if has_forest(view.schema):
        backbone["forest"] = fit_chow_liu(view)
    return backbone


def automatic_epochs(n, n_folds):
    """Return the largest number of epochs of each network for ``n`` rows in each of some folds."""
    least = 2 * EPOCHS[0] if n > ROWS_WITH_TWO else EPOCHS[0]
    return int(np.clip(MAX_STEPS * BATCH_SIZE // (n * n_folds), least, EPOCHS[1]))


def automatic_batches(n):
    """Return batch size, learning rate and patience in epochs of a network for ``n`` rows."""
    times = int(np.clip(n // ROWS_OF_BATCH_SIZE, 1, MOST_TIMES))
    patience = np.clip(STEPS_OF_PATIENCE * times * BATCH_SIZE / n, LEAST_PATIENCE, PATIENCE)
    return {
        "batch_size": times * BATCH_SIZE,
        "learning_rate": LEARNING_RATE * times**0.5,
        "n_iter_no_change": int(patience),
    }


def fit_network(train, held_out, seed, seconds, settings, has_backbone=False):
    """Train a network on the rows of a view; held-out rows choose the best epoch."""
    import torch

    from ..training import trainer
    from ..training.data_parallel import current_group
    from ..training.optimizer import limited
    from ..training.torch_state import gradients_enabled, one_thread, torch_seed
    from ._network import Epochs, MaskedLikelihood, NetworkMember, OrderAgnosticNetwork, Packing

    group = current_group()
    started = group.clock()
    schema, some = train.schema, at_most(MAX_ROWS, train)
    random_state = np.random.RandomState(seed)
    backbone, dropout = {}, 0.0
    if has_backbone:
        backbone = backbone_of(some, random_state)
        dropout = min(DROPOUT, ROWS_OF_DROPOUT / group.n_rows(train))
    with torch_seed(seed, torch.device("cpu")):
        network = OrderAgnosticNetwork(
            schema.variables,
            some.code,
            some.weight,
            HIDDEN,
            N_COMPONENTS * (1 + schema.have_seasons.any()),
            dropout=dropout,
            **backbone,
        )
    train, held_out = local_views(group, train, held_out)
    epochs, validation = Epochs(train, network, MAX_ROWS, random_state), Packing(held_out, network)
    weight = torch.from_numpy(held_out.weight).float()
    generator = torch.Generator().manual_seed(seed)
    held_out_rows = torch.cat([validation.draw(generator) for _ in range(N_VALIDATION_DRAWS)])
    file = training_file(None, seed, settings, has_backbone, train.values, held_out.values)
    with gradients_enabled(), one_thread():
        history = trainer.train_in_phases(
            [{"max_iter": settings["max_iter"]}],
            network,
            trainer.Rows(epochs.weight[:, None][:, :0], epochs.weight, epochs.offset),
            trainer.Rows(held_out_rows, weight.repeat(N_VALIDATION_DRAWS), validation.offset),
            **automatic_batches(group.n_rows(train)),
            ema_decay=EMA_DECAY,
            schedule=limited(seconds, started, group.clock),
            generators=[generator],
            redraw=lambda running, epoch: epochs.draw(epoch, generator),
            objective=MaskedLikelihood(),
            group=group,
            file=group.file(file),
        )
    orders = random_orders(schema, settings["n_orders"], random_state)
    return NetworkMember(network, orders, len(history.loss), history.interrupted)


def local_views(group, *views):
    """Return the part of each view that this process trains on."""
    schema = views[0].schema
    tables = [(view.values, view.weight) for view in views]
    tables_here = group.local_rows(*tables, encode=lambda X: (schema.encode(X),))
    return [
        view if here is table else TableView(view.schema, *here)
        for view, table, here in zip(views, tables, tables_here, strict=True)
    ]


def random_orders(schema, n_orders, random_state):
    """Return random orders, each followed by its reverse.

    A value comes after the variable that says whether it is missing, and the week of a date with
    bounds after its weekday and time: the probabilities of an order would not sum to 1 otherwise.
    Dates of several years come first, unless many rows lack them (see `Schema.come_first`).
    """
    places = [random_state.permutation(len(schema.variables)) for _ in range((n_orders + 1) // 2)]
    places = np.array(
        [place for order in places for place in (order, -order)][:n_orders], dtype=float
    )
    places[:, schema.come_first] -= len(schema.variables)
    for parts in schema.weeks:
        places[:, parts[0]] = places[:, parts].max(axis=1) + 0.25
    for value, flag in schema.flag_of.items():
        places[:, flag] = np.minimum(places[:, flag], places[:, value] - 0.5)
    return np.argsort(places, axis=1)


def make_splits(cv, copy_of, seed, label=None):
    """Return the folds of a table, in which the first copy of each row is ``copy_of``.

    If rows have labels, each fold has rows of all of them to train on, or nearly.
    """
    n = len(copy_of)
    automatic = automatic_cv(n, seed, ROWS_WITH_FOLDS, HELD_OUT, MAX_HELD_OUT)
    if label is not None and n > ROWS_WITH_FOLDS:
        split = held_out_of_classes(label, seed)
        automatic = [split] if len(split[1]) else None
    cv = automatic if cv == "auto" else min(cv, n)
    splits = make_folds(cv, n, seed, copy_of=copy_of, label=label, least=1)
    if label is not None:
        lost = set().union(*(set(label) - set(label[train]) for train, _ in splits))
        if lost:  # copies may be all rows of a class: it would have none to train on
            copy_of = np.where(np.isin(label, [*lost]), np.arange(n), copy_of)
            splits = make_folds(cv, n, seed, copy_of=copy_of, label=label, least=1)
    return splits


def held_out_of_classes(label, seed):
    """Return training rows, and a held-out part of each class, larger in classes of few rows."""
    share = min(HELD_OUT, MAX_HELD_OUT / len(label))
    counts = np.bincount(label)
    n_held_out = np.maximum(np.rint(share * counts), np.minimum(HELD_OUT_OF_CLASS, counts // 3))
    order = np.random.RandomState(seed).permutation(len(label))
    by_class = order[np.argsort(label[order], kind="stable")]
    rank = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_held_out = rank < np.repeat(n_held_out, counts)
    return np.sort(by_class[~is_held_out]), np.sort(by_class[is_held_out])


def first_copies(schema, values):
    """Return the first of the rows that each row equals.

    Only rows with a number of a continuous column count as copies: others are equal by chance.
    """
    has_number = np.zeros(len(values), dtype=bool)
    for j, variable in enumerate(schema.variables):
        if variable.has_number and variable.step is None:
            has_number |= variable.is_number(values[:, j])
    first = np.arange(len(values))
    rows = np.flatnonzero(has_number)
    _, of_rows, inverse = np.unique(row_keys(values[rows]), return_index=True, return_inverse=True)
    first[rows] = rows[of_rows[inverse]]
    return first


def row_keys(values):
    """Return a hash of 64 bits for each row, equal for equal rows: sorting rows takes memory."""
    keys = np.zeros(len(values), dtype=np.uint64)
    multipliers = np.random.RandomState(0).randint(2**63 - 1, size=values.shape[1], dtype=np.int64)
    for column, multiplier in zip(values.T, multipliers.astype(np.uint64), strict=True):
        column = np.where(np.isnan(column), np.nan, column + 0.0)  # -0 equals 0
        keys = (keys ^ column.view(np.uint64)) * (multiplier | np.uint64(1))
        keys ^= keys >> np.uint64(32)
    return keys


def views_of(split, schema, values, weight, seed):
    """Return the views of the rows to fit to, and of those to hold out.

    New rows have no part in the maps to normal scores, so those that are held out have none either.
    """
    train, _ = split
    mapped = schema.with_maps_of(values[train], weight[train], np.random.RandomState(seed))
    return [TableView(mapped, values[some], weight[some]) for some in split]


def tasks_of(components, views, seed, n_workers):
    """Return the tasks that fit components, given the views of each fold."""
    tasks = []
    for component in components:
        for i, (train, held_out) in enumerate(views):
            fit = partial(fit_fold, component.recipe, train, held_out, seed + i)
            tasks.append(Task([(component.name, i)], fit, component.is_trained))
    return tasks


def fit_fold(fit, train, held_out, seed, seconds):
    """Fit a component to the training rows of a fold."""
    with few_threads(train.values):
        member = fit(train, held_out, seed, seconds)
        scores = held_out.judged.log_prob(member)
    return [Fold(member, scores, getattr(member, "interrupted", False))]


def refits_of(starts, view, seed):
    """Return the tasks that fit components to all rows, from pairs of one and its first member."""
    return [
        Task([(component.name, 0)], partial(fit_to_all, component.recipe, start, view, seed))
        for component, start in starts
    ]


def fit_to_all(fit, start, view, seed, seconds):
    """Fit a component to all rows.

    It begins where a fold has ended: held-out rows have shown that this is a good optimum, while
    another start may lead to a poorer one.
    """
    with few_threads(view.values):
        return [Fold(fit(view, None, seed, None, start=start))]


def with_own_maps(fitted, views):
    """Return a component, the members of which use the maps of their own folds."""
    pairs = zip(fitted.of_folds, views, strict=True)
    of_folds = [MemberOfFold(one, train.schema) for one, (train, _) in pairs]
    members = fitted.members if fitted.is_refitted else of_folds
    return fitted._replace(members=members, of_folds=of_folds)
