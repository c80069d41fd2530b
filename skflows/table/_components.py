"""The components of a table's density: what is fitted, and how held-out rows weight it."""

import math
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
from joblib import delayed

from ..callbacks._run import in_folder, training_file
from ..columns.frames import read_frame
from ..density._third_party import MIN_SECONDS
from ..ensemble._folds import automatic_cv, make_folds
from ..ensemble._mixture import start_workers
from ..training.threads import few_threads
from ._variables import Rows
from ._view import MemberOfFold, TableView

ROWS_WITH_FOLDS = 1_000  # beyond, a single held-out part is accurate enough
HELD_OUT = 0.15
MAX_HELD_OUT = 2_000
N_CLASSES = {"quantile": (1, 2, 4, 12, 32), "linear": (2, 3, 4, 5, 6, 8, 12, 16)}
N_BINNED_CLASSES = (4, 8, 24)
BANDWIDTHS = (0.25, 0.5, 1.0)  # times that of Scott's rule
MAX_KERNELS = 2_000  # rows, beyond which kernels take too long
ROWS_PER_CLASS = 10  # for each class and number
BATCH_SIZE = 128
MAX_STEPS = 3_000  # of a network in all folds, unless the following epochs are more or fewer
EPOCHS = (100, 300)
ROWS_WITH_TWO = 4_000  # beyond, twice the epochs of one network are better than a second one
HIDDEN = (128, 128, 128)
DROPOUT, ROWS_OF_DROPOUT = 0.15, 200  # of a network on pairs: dropout is min(0.15, 200 / n_rows)
N_COMPONENTS = 10
LEARNING_RATE = 6e-3
EMA_DECAY = 0.995
PATIENCE = 20
TIME_FOR_CLASSES, TIME_FOR_ALL = 0.3, 0.9  # of a time limit; the rest is for scores
MAX_NORMAL = 40  # numbers, beyond which solving for conditional normals takes too long
MAX_CATEGORIES = 800  # of all variables, beyond which comparing all pairs takes too long


class TableComponent(NamedTuple):
    """A component of the density.

    ``fit(train, held_out, seed, seconds)`` returns a member, from views of rows.
    """

    name: str
    fit: object
    is_trained: bool = False  # whether it is a network, which a time limit cuts short
    is_refitted: bool = False  # whether one member of all rows takes the place of those of folds


def components(schema, n, settings):
    """Return the components for ``n`` rows, the quick ones first."""
    from ._binned_classes import fit_binned_classes
    from ._latent_classes import fit_kernels, fit_latent_classes

    def kernels(bandwidth, space):
        fit = partial(fit_quick, fit_kernels, bandwidth=bandwidth, space=space)
        return TableComponent(f"{space} kernels of {bandwidth:g}", fit, is_refitted=True)

    def latent_classes(k, space):
        fit = partial(fit_quick, fit_latent_classes, n_classes=k, space=space)
        return TableComponent(f"{space} classes of {k}", fit)

    def binned_classes(k):
        fit = partial(fit_quick, fit_binned_classes, n_classes=k)
        return TableComponent(f"binned classes of {k}", fit)

    d = sum(part.has_number for part in schema.parts)
    spaces = ["quantile", "linear"] if d else ["quantile"]
    found = [
        latent_classes(k, space)
        for space in spaces
        for k in N_CLASSES[space]
        if k == 1 or k * ROWS_PER_CLASS * max(1, d / 4) <= n
    ]
    found += [binned_classes(k) for k in N_BINNED_CLASSES if k * ROWS_PER_CLASS <= n]
    if d and n <= MAX_KERNELS:
        found += [kernels(bandwidth, space) for space in spaces for bandwidth in BANDWIDTHS]
    network = partial(fit_network, settings=settings)
    networks = [TableComponent("network", network, True)]
    if has_normal(schema) or has_forest(schema):
        network = partial(network, has_backbone=True)
        networks.append(TableComponent("network on pairs", network, True))
    return found + networks[-1 if n > ROWS_WITH_TWO else 0 :]


def fit_quick(fit, train, held_out, seed, seconds, **settings):
    """Fit a component that needs neither held-out rows nor a time limit."""
    return fit(train, **settings, random_state=np.random.RandomState(seed))


def has_normal(schema):
    """Return whether a network may start from the normal distribution of the numbers."""
    return 2 <= sum(part.has_number for part in schema.parts) <= MAX_NORMAL


def has_forest(schema):
    """Return whether a network may start from the dependent pairs of levels and numbers."""
    from ._chow_liu import category_sizes

    sizes = category_sizes(schema.parts)
    has_levels = any(part.n_levels for part in schema.parts)
    return has_levels and len(schema.columns) > 1 and sum(sizes) <= MAX_CATEGORIES


def backbone_of(view, random_state):
    """Return the normal and the forest that a network starts from, if the columns allow them."""
    from ._chow_liu import fit_chow_liu
    from ._latent_classes import fit_latent_classes

    found = {}
    if has_normal(view.schema):
        one = fit_latent_classes(view, 1, "quantile", random_state)
        order = np.argsort(one.numbers)
        found["gaussian"] = one.means[0, order], one.covariances[0][np.ix_(order, order)]
    if has_forest(view.schema):
        found["forest"] = fit_chow_liu(view)
    return found


def automatic_epochs(n, n_folds):
    """Return the largest number of epochs of each network for ``n`` rows in each of some folds."""
    least = 2 * EPOCHS[0] if n > ROWS_WITH_TWO else EPOCHS[0]
    return int(np.clip(MAX_STEPS * BATCH_SIZE // (n * n_folds), least, EPOCHS[1]))


def fit_network(train, held_out, seed, seconds, settings, has_backbone=False):
    """Train a network on the rows of a view; held-out rows choose the best epoch."""
    import torch

    from ..training import trainer
    from ..training.data_parallel import current_group
    from ..training.optimizer import TimeLimited, cosine_with_warm_up
    from ..training.torch_state import gradients_enabled, one_thread, torch_seed
    from ._network import MaskedLikelihood, NetworkMember, OrderAgnosticNetwork, Packing

    group = current_group()
    started = group.clock()
    schema = train.schema
    random_state = np.random.RandomState(seed)
    backbone, dropout = {}, 0.0
    if has_backbone:
        backbone = backbone_of(train, random_state)
        dropout = min(DROPOUT, ROWS_OF_DROPOUT / group.n_rows(train))
    with torch_seed(seed, torch.device("cpu")):
        network = OrderAgnosticNetwork(
            schema.parts,
            train.rows.code,
            train.weight,
            HIDDEN,
            N_COMPONENTS,
            dropout=dropout,
            **backbone,
        )
    views = local_views(group, train, held_out)
    own, other = map(Packing, views)
    weights = [torch.from_numpy(view.weight).float() for view in views]
    schedule = cosine_with_warm_up
    if seconds is not None:
        schedule = TimeLimited(schedule, seconds, started, group.clock)
    generator = torch.Generator().manual_seed(seed)
    # Middles of cells would prefer a network with peaks there.
    held_out_rows = other.redraw(generator) if other.is_cell else other.packed
    file = training_file(None, seed, settings, has_backbone, train.rows, held_out.rows)
    with gradients_enabled(), one_thread():
        history = trainer.train_in_phases(
            [{"max_iter": settings["max_iter"]}],
            network,
            trainer.Rows(own.packed, weights[0], own.offset),
            trainer.Rows(held_out_rows, weights[1], other.offset),
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            n_iter_no_change=PATIENCE,
            ema_decay=EMA_DECAY,
            schedule=schedule,
            generators=[generator],
            redraw=(lambda running, epoch: own.redraw(generator)) if own.is_cell else None,
            objective=MaskedLikelihood(),
            group=group,
            file=group.file(file),
        )
    orders = random_orders(schema, settings["n_orders"], random_state)
    return NetworkMember(network, orders, len(history.loss), history.interrupted)


def local_views(group, *views):
    """Return the part of each view that this process trains on."""
    schema = views[0].schema
    tables = [(*view.rows, view.weight) for view in views]
    found = group.local_rows(*tables, encode=lambda X: schema.encode(read_frame(X)))
    return [
        view if own is table else TableView(view.schema, Rows(*own[:-1]), own[-1])
        for view, table, own in zip(views, tables, found, strict=True)
    ]


def random_orders(schema, n_orders, random_state):
    """Return random orders, each followed by its reverse.

    A value comes after the variable that says whether it is missing, and the week of a date with
    bounds after its weekday and time: the probabilities of an order would not sum to 1 otherwise.
    """
    places = [random_state.permutation(len(schema.parts)) for _ in range((n_orders + 1) // 2)]
    places = np.array([place for own in places for place in (own, -own)][:n_orders], dtype=float)
    for own in schema.weeks:
        places[:, own[0]] = places[:, own].max(axis=1) + 0.25
    for value, flag in schema.flag_of.items():
        places[:, flag] = np.minimum(places[:, flag], places[:, value] - 0.5)
    return np.argsort(places, axis=1)


def make_splits(cv, copy_of, seed):
    """Return pairs of indices of training and held-out rows.

    Parameters
    ----------
    cv : "auto" or int
        Number of folds.
    copy_of : ndarray of shape (n,)
        The first of the rows that each row equals.
    seed : int
        Seed of the shuffling.
    """
    n = len(copy_of)
    automatic = automatic_cv(n, seed, ROWS_WITH_FOLDS, HELD_OUT, MAX_HELD_OUT)
    cv = automatic if cv == "auto" else min(cv, n)
    return make_folds(cv, n, seed, copy_of=copy_of, least=1)


def first_copies(schema, rows):
    """Return the first of the rows that each row equals.

    Only rows with a number of a continuous column count as copies: others are equal by chance.
    """
    is_continuous = [part.has_number and part.step is None for part in schema.parts]
    has_number = (rows.known & (rows.code <= 0))[:, is_continuous].any(axis=1)
    values = np.column_stack([rows.code, np.nan_to_num(rows.x), rows.known])
    _, first, inverse = np.unique(values, axis=0, return_index=True, return_inverse=True)
    return np.where(has_number, first[inverse.ravel()], np.arange(len(rows)))


class TableOutcome(NamedTuple):
    """A fitted component: its members, the scores of held-out rows, and the time it took."""

    members: list
    scores: np.ndarray
    seconds: float
    interrupted: bool

    def __str__(self):
        return f"held-out score {self.scores.mean():.4f}, {self.seconds:.1f} s"


def views_of(split, schema, rows, weight, seed):
    """Return the views of the rows to fit to, and of those to hold out.

    New rows have no part in the maps to normal scores, so those that are held out have none either.
    """
    train, _ = split
    own = schema.with_maps_of(rows.take(train), weight[train], np.random.RandomState(seed))
    return [TableView(own, rows.take(some), weight[some]) for some in split]


class FoldOutcome(NamedTuple):
    """A component that was fitted to the training rows of a fold."""

    member: object
    scores: np.ndarray  # of the held-out rows
    of_all: object  # the member fitted to all rows; None except for the last fold of some
    seconds: float

    @property
    def interrupted(self):
        return getattr(self.member, "interrupted", False)


class Limit(NamedTuple):
    """The time limit of a fit, as one fold of a component sees it."""

    seconds: float  # of the whole fit
    started: float
    is_needed: bool  # whether to fit even if there is little time left
    rounds: int  # of trainings, one after the other, that share the time that is left


def fit_fold(key, component, train, held_out, whole, seed, limit):
    """Return a key, and the `FoldOutcome` of a component, or None without time for it.

    Parameters
    ----------
    key : tuple of (str, int)
        Name of the component and number of the fold, because folds may end in any order.
    component : TableComponent
        The component.
    train, held_out : TableView
        The rows of the fold.
    whole : TableView or None
        All rows, if the component is to be fitted to them too.
    seed : int
        Seed of the fit.
    limit : Limit or None
        The time limit.
    """
    from ..training.data_parallel import current_group

    clock = current_group().clock
    begun, seconds = clock(), None
    if limit is not None:
        passed = begun - limit.started
        if passed > TIME_FOR_CLASSES * limit.seconds and not limit.is_needed:
            return key, None
        seconds = max(MIN_SECONDS, (TIME_FOR_ALL * limit.seconds - passed) / limit.rounds)
    with few_threads(train.rows.x):
        member = component.fit(train, held_out, seed, seconds)
        scores = member.log_prob(held_out)
        of_all = None if whole is None else component.fit(whole, None, seed, None)
    return key, FoldOutcome(member, scores, of_all, clock() - begun)


def fit_components(found, schema, rows, weight, splits, seed, time_limit, started, n_jobs):
    """Yield the `TableOutcome` of each component on the splits, or None without time for it."""
    from ..training.data_parallel import current_group

    views = [views_of(split, schema, rows, weight, seed) for split in splits]
    whole = TableView(schema, rows, weight)
    parallel, n_workers = start_workers(n_jobs, time_limit, "generator_unordered")
    pairs = [(component, i) for component in found for i in range(len(views))]
    # The last ones take longest: they start first, except in the process that the first ones need.
    n_ahead = n_workers - 1
    pairs = pairs[len(pairs) - n_ahead :] + pairs[: len(pairs) - n_ahead]
    fit = delayed(in_folder(fit_fold))
    needed = {found[0].name}

    def tasks():
        n_networks = sum(component.is_trained for component, _ in pairs)
        for component, i in pairs:
            limit = None
            if time_limit is not None:
                passed = current_group().clock() - started
                # A network is of no use without its other folds: what has begun is completed.
                if component.is_trained and passed < TIME_FOR_ALL * time_limit:
                    needed.add(component.name)
                rounds = math.ceil(n_networks / n_workers)
                limit = Limit(time_limit, started, component.name in needed, rounds)
            n_networks -= component.is_trained
            # The held-out rows count too. Members of several folds make up for one another.
            refits = component.is_refitted or (len(views) == 1 and not component.is_trained)
            own = whole if refits and i == len(views) - 1 else None
            yield fit((component.name, i), component, *views[i], own, seed + i, limit)

    def outcomes():
        yield from parallel(tasks())

    done = {}
    with closing(outcomes()) as fitted:
        for component in found:
            keys = [(component.name, i) for i in range(len(views))]
            while not done.keys() >= set(keys):
                (name, i), outcome = next(fitted)
                if outcome is not None and outcome.interrupted and i < len(views) - 1:
                    raise KeyboardInterrupt  # without its other folds it is not whole
                done[name, i] = outcome
            yield joined_outcome([done.pop(key) for key in keys], views)


def joined_outcome(outcomes, views):
    """Return the `TableOutcome` of a component from its folds, None if one was left out."""
    if None in outcomes:
        return None
    last = outcomes[-1]
    if last.of_all is not None:
        members = [last.of_all]
    else:
        members = [
            MemberOfFold(outcome.member, train.schema)
            for outcome, (train, _) in zip(outcomes, views, strict=True)
        ]
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    seconds = sum(outcome.seconds for outcome in outcomes)
    return TableOutcome(members, scores, seconds, last.interrupted)
