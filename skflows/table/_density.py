"""The density of a table as it is."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral
from operator import itemgetter
from typing import TYPE_CHECKING, Self

import joblib
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from ..callbacks._progress import VERBOSE
from ..callbacks._run import random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import check_different_names, check_integer, check_may_be_table
from ..columns.checks import warn_of_row_names
from ..columns.encoding import Encoding
from ..columns.frames import is_frame, labelled, read_frame, rows_of
from ..columns.kinds import stated
from ..columns.types import Floats, RandomState, Rows, Table, Weights
from ..density import _docstrings
from ..density._base import BaseFlowDensity
from ..density._outlier_labels import OutlierDensityMixin
from ..distribution.distribution import (
    ConditionalDistribution,
    checked_probabilities,
    distribution_of,
)
from ..ensemble._folds import Folds
from ..ensemble._mixture import (
    can_gain,
    mixture_attributes,
    run_mixture,
    scores_of,
    weighted_members,
    weights_of,
)
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ..preprocessing.validation import validate_weight
from ..training.threads import fit_context, in_one_thread
from ._blanks import blanks_of_sums, with_told_blanks
from ._class_column import ClassColumn
from ._completion import ROUNDS_OF_RULES, Completion
from ._dates import DateDistribution
from ._duration import expected_duration, said
from ._missing import (
    BlankPattern,
    MissingPattern,
    blank_columns,
    levels_without,
    rows_of_pattern,
    warn_of_contradictions,
    warn_of_levels_without,
)
from ._predictive import OneColumn, without
from ._queries import (
    ConditionalTable,
    check_order,
    chosen,
    column_of,
    describe,
    impute,
    probabilities_of,
)
from ._ranges import MAX_TRIES, N_DRAWS, ROWS_OF_TRIES, Ranges
from ._rare import companions_of
from ._rule_search import find_rules
from ._rules import RULE_FIELDS
from ._schema import Schema
from ._spans import add_spans
from ._usual import UsualScores
from ._variables import ROWS_AT_ONCE, in_chunks
from ._view import TableView, distinct_rows

if TYPE_CHECKING:
    import pandas as pd


DRAWN_AT_ONCE = 20_000  # rows: a few take nearly as long as many
ROUNDS_OF_TRIES = 5  # in which draws that are to lie within ranges are made to keep the rules
REFUSED, FILLED = 1, 2  # cost of a draw outside of its range, and of one that broke a rule
ROUNDS_FAR_OUT = 10  # in which samples that are too far out are drawn again
MIN_WEIGHT = 0.02  # of a component that is kept: each takes time to score


def as_table(rows, names=None):
    """Return rows, which are dicts, as a DataFrame, or as they are if pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame(rows, columns=names)


def _has_names_or_categories(density):
    """Whether a column can be asked for: scikit-learn's checks call ``predict_proba(X)``.

    `predict_proba(column, X)` fails check_dataframe_column_names_consistency, which
    `check_estimator` does not run.
    """
    if not hasattr(density, "_schema"):
        raise AttributeError(f"this {type(density).__name__} is not fitted yet: call fit first.")
    is_categorical = any(column.kind == "categorical" for column in density._schema.columns)
    if not (is_categorical or hasattr(density, "feature_names_in_")):
        raise AttributeError(
            "predict_proba needs columns with names, or one of categories; X has only numbers."
        )
    return True


class TableDensity(OutlierDensityMixin, CallbackSupportMixin, BaseEstimator):
    __doc__ = _docstrings.fill("""Density of a table as it is, with missing values and categories.

    One joint model of numbers, counts, ordered and unordered categories, dates and angles, of which
    any may be missing. Discrete columns have a probability, others a density. The fitted model
    answers any question about some columns given others: see `condition`, `marginal`, `sample`,
    `impute`, `predict_proba`, `predict_distribution` and `quantile`.

    The model is a mixture of latent-class models and kernels, whose conditionals are exact, and of
    autoregressive networks that were trained on random orders of the columns. One network starts
    from how pairs of columns depend on each other. The weights maximise the likelihood of rows that
    the members have not seen.

    Parameters
    ----------
    columns : dict, default=None
        The kinds of some columns, by name or index: "continuous", ("bounded", low, high),
        ("atoms", values, low, high), ("count", low, high), ("integer", low, high),
        ("rounded", low, high), "ordinal", "categorical", ("circular", period),
        ("datetime", first, last) or "identifier", which leaves the column out of the model. A bound
        that is left out, or None, is the default of the kind: the lower bound of "count", and of
        "rounded" without negative values, is 0; other ends are open, and -inf opens these too.
        Bounds of dates are texts such as "2024-12-31", without a time zone. ("datetime",
        "dayfirst") and ("datetime", "monthfirst") say how dates that are texts are written, and
        ("count", "thousands", ".") how numbers are. Kinds of the other columns come from dtypes
        and values: see `columns_`. Texts that hardly repeat
        are identifiers, with a warning. Columns without a known value are left out, also with a
        warning, and samples have them without a value.

    handle_unknown : {"warn", "rare", "error"}, default="warn"
        What to do with a category that the fit has not seen. "warn" gives it the probability of
        unseen categories, which is estimated from how many categories occur once, takes it for
        unknown in other respects, and warns. "rare" pools the categories with fewer than 3 rows
        into one, and takes it for one of them. "error" raises an error. In a column of more than
        200 categories, or of more than 60 that are also more than half as many as rows, the rarest
        are pooled in any case, with a warning, and new categories are taken for one of them; the
        200 most frequent are kept if they have ``max(3, min(20, n_rows // 1000))`` rows. "error"
        raises an error for such a column.

    missing : {"ignore", "model"}, default="ignore"
        Whether the pattern of missing values is part of the model. With "ignore", values are taken
        to be missing at random, and the score of a row is the log-density of its known part. With
        "model", a missing value is an event with a probability of its own, in every column. If
        a sum of columns holds without a missing term, such as a discount, the term counts as 0 in
        either case, with a warning, unless ``columns`` states its kind.

    rules : bool, default=True
        Whether to look for rules, such as a column that follows from another, and to keep them in
        scores, samples and imputations: see `rules_`.

    n_orders : int, default=2
        Orders of the columns over which the density of the network is averaged. With 4, scores and
        the fit take longer, scores mostly twice as long, and the held-out likelihood rises by 0.001
        to 0.016 nats per row (six tables of 2,000 rows).

    max_iter : int or "auto", default="auto"
        Largest number of epochs of each network. The other components are fitted in any case, which
        takes about half of the time of a fit; `time_limit` limits these too. "auto" takes about
        800 steps of 128 rows over all folds, within 50 to 100 epochs; up to 1,000 rows have 5
        folds, so 1,000 rows have 50 epochs and 1,001 rows 100. Beyond 4,000 rows there is one
        network, of at least 100 epochs, in place of two. Its batches have up to 512 rows. Beyond
        50,000 rows, an epoch has 50,000 of them in turn, and the other components are fitted to as
        many, which bounds time and memory.

    time_limit : float, default=None
        Seconds that `fit` may take, about, for all components and folds together. One component is
        always fitted, which may take longer. Latent classes
        and kernels of which a fold would start after two fifths of them are left out, and the
        networks share the rest. A network that would start after nine tenths is left out too.

    cv : "auto" or int, default="auto"
        Number of folds in which rows are held out. "auto" takes 5 folds up to 1,000 rows, and
        beyond a single part of 15 % of the rows, at most 2,000. Copies of a row are held out
        together if a continuous column shows that they are copies. Each component is fitted once
        for each fold, and these models make it up. Kernels with a weight are fitted once more, to
        all rows; with a single part, so is everything else except the networks.

    {held_out_contamination}

    n_jobs : int, default=None
        Number of folds and components to fit in parallel. None is 1, -1 all processors. Under a
        time limit of less than 10 seconds it is 1, because processes take time to start.

    random_state : int, RandomState instance or None, default=None
        Seeds the held-out rows and all members.

    {mixture_verbose}

    Attributes
    ----------
    columns_ : DataFrame or list of dict
        The kind of each column, how it is modelled, the unit of its part of the score, the number
        of missing values, and why it was decided so. A list if pandas is not installed.

    rules_ : DataFrame or list of dict
        The rules that the rows follow, all of them or at least 95 %: text, kind, share of
        exceptions, and number of rows that tell. A list if pandas is not installed.

    weights_ : ndarray of shape (n_components,)
        Weight of each component.

    component_names_ : list of str
        Their names.

    leaderboard_ : dict of list
        Name, weight, held-out score and seconds of each component, the heaviest first. Networks
        without a gain in the first fold are left out.

    held_out_scores_ : ndarray of shape (n_samples,)
        Log-density of each row of `fit` by members that had not seen it, NaN if there are none.

    stacked_score_ : float
        Mean of these.

    n_iter_ : int
        Number of epochs that the network was trained for.

    offset_ : float
        Log-density below which `predict` labels a row an outlier.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Chow & Liu, "Approximating Discrete Probability Distributions with Dependence Trees", 1968.

    Uria, Murray & Larochelle, "A Deep and Tractable Density Estimator", 2014.

    Hunt & Jorgensen, "Mixture Model Clustering for Mixed Data with Missing Information", 2003.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skflows import TableDensity
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.choice(["cat", "dog"], 300)
    >>> weight = np.where(kind == "cat", 4.0, 20.0) * rng.lognormal(0, 0.2, 300)
    >>> table = pd.DataFrame({"kind": kind, "weight": weight})
    >>> table.loc[::10, "weight"] = np.nan
    >>> density = TableDensity(max_iter=10, random_state=0).fit(table)
    >>> density.sample(2, random_state=0).columns.tolist()
    ['kind', 'weight']
    >>> proba = density.predict_proba("kind", pd.DataFrame({"weight": [4.0, 20.0]}))
    >>> proba.argmax(axis=1)
    array([0, 1])
    """)

    _parameter_constraints: dict = {
        "columns": [dict, None],
        "handle_unknown": [StrOptions({"warn", "rare", "error"})],
        "missing": [StrOptions({"ignore", "model"})],
        "rules": ["boolean"],
        "n_orders": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "cv": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": VERBOSE,
        **{
            name: BaseFlowDensity._parameter_constraints[name]
            for name in ("time_limit", "contamination", "random_state")
        },
    }

    def __init__(
        self,
        columns=None,
        *,
        handle_unknown="warn",
        missing="ignore",
        rules=True,
        n_orders=2,
        max_iter="auto",
        time_limit=None,
        cv="auto",
        contamination="auto",
        n_jobs=None,
        random_state=None,
        verbose="auto",
    ):
        self.columns = columns
        self.handle_unknown = handle_unknown
        self.missing = missing
        self.rules = rules
        self.n_orders = n_orders
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.cv = cv
        self.contamination = contamination
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Fit the density to the rows of X.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows, with missing values as NaN, None or ``pd.NA``. At least two.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, in relation to the others: equal weights change nothing. Rows of
            weight 0 are left out. A row of weight 2 counts as two rows, except that other rows are
            held out then.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight)

    @fit_context(prefer_skip_nested_validation=True)
    def _fit_held_out(self, X, sample_weight, held_out):
        """Fit the density, and hold out the rows of a mask."""
        return self._fit(X, None, sample_weight, held_out)

    @fit_context(prefer_skip_nested_validation=True)
    def _fit_rows(self, rows, sample_weight, encoding):
        """Fit the density to the rows of a table that a wrapper has encoded."""
        return self._fit(rows, None, sample_weight, encoding=encoding)

    @fit_context(prefer_skip_nested_validation=True)
    def _fit_classes(self, rows, label, sample_weight, encoding):
        """Fit the density of encoded rows and their classes, which are one more column.

        Return the log-density of each row in each class by members that have not seen it, NaN if
        there are none, of shape (n_samples, n_classes).
        """
        self._fit(rows, None, sample_weight, encoding=encoding, label=label)
        return vars(self).pop("_held_out_in_classes")

    def _fit(self, X, y, sample_weight, held_out=None, encoding=None, label=None):
        from ..training.data_parallel import current_group
        from ._components import (
            MAX_ROWS,
            automatic_epochs,
            components,
            first_copies,
            make_splits,
            tasks_of,
            views_of,
        )

        group = current_group()
        started = group.clock()
        group.check_same(self, X, sample_weight, label)
        # A fit that does not end leaves nothing.
        fitted = [name for name in vars(self) if name.endswith("_")]
        for name in (*fitted, "_schema", "_members", "_missing_pattern", "_levels_without"):
            vars(self).pop(name, None)
        shared, encoding, rows, weight = self._encoded_fit(X, encoding, sample_weight)
        kept = weight > 0
        weight = weight[kept] / weight[kept].mean()
        random_state = group.broadcast(random_state_of(self))
        self._schema = shared or self._schema_of(encoding, rows, random_state, weight)
        rows = self._schema.blanks_as_zeros(rows)
        is_missing, rows = np.isnan(rows), self._schema.split(rows)
        is_missing[:, self._schema.empty] = False  # of which no pattern is learnt
        if shared is not None:  # which has the maps of other rows
            self._schema = self._schema.with_maps_of(rows, weight, random_state)
        kept[kept] = is_known = ~np.isnan(rows).all(axis=1)
        if kept.sum() < 2:
            raise ValueError(f"X has {kept.sum()} rows with a known value; at least 2 are needed.")
        rows, weight, is_missing = rows[is_known], weight[is_known], is_missing[is_known]
        seed = int(random_state.randint(2**31 - 1000))
        copy_of = first_copies(self._schema, rows)
        self._schema.companions = companions_of(self._schema.variables, rows, weight)
        if self.rules and shared is None:
            self._schema.rules = find_rules(self._schema, rows, weight, copy_of)
            rows = add_spans(self._schema, rows, weight, random_state)
        self._schema.ranges = Ranges(self._schema.variables, rows)
        if label is not None:
            n_classes, label = label.max() + 1, label[kept]
            self._schema = self._schema.with_classes(label, weight, n_classes)
            rows = np.column_stack([rows, label])
        if held_out is None:
            splits = make_splits(self.cv, copy_of, seed, label)
        else:
            mask = held_out[kept]
            splits = [(np.flatnonzero(~mask), np.flatnonzero(mask))]
        n, max_iter = group.n_rows(rows), self.max_iter
        seconds = expected_duration(self, n, len(self._schema.names))
        expected = seconds, lambda: f"fitting {n} rows takes {said(seconds, self.time_limit)}"
        if max_iter == "auto":
            max_iter = automatic_epochs(n, len(splits))
        portfolio = components(self._schema, n, {"max_iter": max_iter, "n_orders": self.n_orders})
        # The held-out rows count too; several folds make up for one another.
        if len(splits) == 1 and n <= MAX_ROWS:
            portfolio = [c._replace(refit=c.refit or not c.is_trained) for c in portfolio]
        views = [views_of(split, self._schema, rows, weight, seed) for split in splits]
        folds = Folds(splits, weight, kept)
        run_mixture(
            self,
            portfolio,
            len(splits),
            partial(tasks_of, portfolio, views, seed),
            partial(self._refits, TableView(self._schema, rows, weight), folds, views, seed),
            partial(self._attributes, rows, folds, views, label is not None),
            can_gain=partial(can_gain, weight[splits[0][1]]),
            started=started,
            expected=expected,
            X=X,
            y=y,
            sample_weight=sample_weight,
        )
        # A clone of a fitted density is fitted to whatever table.
        for name in ("_shared", "_shared_settings"):
            vars(self).pop(name, None)
        if label is not None:  # of whose rows only scores are asked
            return self
        self._levels_without = levels_without(self._schema, rows, is_missing)
        if self.missing == "ignore" and is_missing.any():
            self._missing_pattern = self._fit_missing(rows, is_missing, weight, seed)
        return self

    def _fit_missing(self, values, is_missing, weight, seed):
        """Return the distribution of the pattern of missing values, which the model leaves out."""
        random_state = np.random.RandomState(seed)
        chosen, weight = rows_of_pattern(is_missing, weight, random_state)
        return MissingPattern(self._schema, values[chosen], is_missing[chosen], weight)

    def _encoded_fit(self, X, encoding, sample_weight):
        """Return the shared schema, if it is of the table, and how to fit to that.

        These are its encoding, its rows of positive weight, and all weights. With an encoding, X
        are encoded rows.
        """
        if encoding is not None:
            encoding.set_names(self)
            self._check_n_rows(X, 2, X.shape[1])
            weight = validate_weight(sample_weight, X, least=2)
            shared = self._own_shared()
            if shared is not None and not encoding.reads_like(shared.encoding):
                shared = None
            return shared, encoding, X[weight > 0], weight
        frame = self._read(X, reset=True)
        weight = validate_weight(sample_weight, np.empty((len(frame), 1)), least=2)
        frame = frame.take(weight > 0)
        encoding, shared = self._encoding_for(frame), self._own_shared()
        if shared is not None and shared.encoding is not encoding:
            shared = None
        rows = encoding.rows(frame)
        if encoding.names is not None and shared is None:
            is_stated = stated(self.columns, encoding.keys)
            numbers = encoding.values(rows, ["number"]).items()
            warn_of_row_names({name: x for name, x in numbers if name not in is_stated})
        return shared, encoding, rows, weight

    def _own_shared(self):
        """Return the shared schema, or None if it was found with other parameters."""
        return self._shared if self._shared_settings == self._settings() else None

    def _settings(self):
        """Return a text that is the same if the parameters that decide on kinds are."""
        return joblib.hash((self.columns, self.missing, self.handle_unknown, self.rules))

    def _encoding_for(self, frame):
        """Return the shared schema's encoding if a table may be a part of its, or a new one."""
        shared = self._own_shared()
        if shared is not None and shared.encoding.holds(frame):
            return shared.encoding
        return self._new_encoding(frame)

    def _new_encoding(self, frame):
        return Encoding(frame, self.handle_unknown, self.columns, finds_identifiers=True)

    def _schema_of(self, encoding, rows, random_state, weight):
        """Return the kinds and variables of the columns of encoded rows."""
        used = rows if weight is None else rows[weight > 0]
        return Schema(
            encoding,
            rows,
            self.columns,
            models_missing=self.missing == "model",
            random_state=random_state,
            weight=weight,
            blanks=blanks_of_sums(encoding, used, self.columns) if self.rules else None,
        )

    def _share_columns(self, X, random_state, weight=None, encoding=None, anew=False):
        """Find kinds, levels and rules now, for all later fits of this density and its clones.

        Those that another wrapper has found in more rows of the same encoding stay, unless anew.
        """
        from ._components import first_copies

        shared = None if anew or encoding is None else self._own_shared()
        if shared is not None and encoding.reads_like(shared.encoding):
            return self
        if encoding is None:
            frame = self._read(X, reset=True)
            encoding = self._new_encoding(frame)
            X = encoding.rows(frame)
        weight = None if weight is None else weight / weight[weight > 0].mean()
        self._shared = self._schema_of(encoding, X, random_state, weight)
        if self.rules:
            is_used = np.ones(len(X), dtype=bool) if weight is None else weight > 0
            values = self._shared.split(X[is_used])
            weights = np.ones(len(values)) if weight is None else weight[is_used]
            copy_of = first_copies(self._shared, values)
            self._shared.rules = find_rules(self._shared, values, weights, copy_of)
            add_spans(self._shared, values, weights, random_state)
        self._shared_settings = self._settings()
        return self

    @property
    def _encoding(self):
        return self._schema.encoding

    def __sklearn_clone__(self):
        clone = super().__sklearn_clone__()
        clone._shared, clone._shared_settings = self._shared, self._shared_settings
        return clone

    def _refits(self, view, folds, views, seed, done):
        """Return the tasks that fit components with a weight to all rows."""
        from ._components import refits_of, with_own_maps

        weights = weights_of(scores_of(done), folds.held_out_weight, MIN_WEIGHT)
        starts = [
            (component, with_own_maps(fitted, views).members[0])
            for (component, fitted), weight in zip(done, weights, strict=True)
            if component.refit and weight > 0
        ]
        return refits_of(starts, view, seed)

    def _attributes(self, rows, folds, views, has_classes, done):
        """Return the attributes of a density that consists of fitted components."""
        from ._components import with_own_maps

        done = [(c, with_own_maps(fitted, views)) for c, fitted in done]
        rules, held_out = self._schema.rules, rows[folds.held_out_rows]
        attributes, members = self._mixture(done, folds, rows)
        if rules.orders:  # only the whole mixture tells how often it breaks them
            self._members = members
            rules.weigh(self)
            terms = rules.order_terms(rules.encoded(self._schema, held_out))
            done = [(c, fitted._replace(scores=fitted.scores + terms)) for c, fitted in done]
            attributes, members = self._mixture(done, folds, rows)
        n_iter = [getattr(each, "n_iter", 1) for _, fitted in done for each in fitted.members]
        scores = folds.of_held_out(attributes["held_out_scores_"])
        usual = UsualScores.fit(self._schema.variables, held_out, scores, folds.held_out_weight)
        if has_classes:
            attributes["_class_column"] = ClassColumn(self._schema, rows, folds.weight)
            in_classes = []
            for i, (train, others) in enumerate(folds.splits):
                column = ClassColumn(self._schema, rows[train], folds.weight[train])
                of_fold = [[fitted.of_folds[i]] for _, fitted in done]
                members_of_fold = weighted_members(of_fold, attributes["weights_"])
                in_classes.append(column.log_densities(rows[others], members_of_fold))
            attributes["_held_out_in_classes"] = folds.spread(np.concatenate(in_classes))
        return attributes | {
            "_members": members,
            "n_iter_": max(n_iter),
            "_usual": usual,
            "_held_out_pool": folds.spread(usual.relative(scores, held_out)),
        }

    def _mixture(self, done, folds, rows):
        return mixture_attributes(
            done,
            folds,
            MIN_WEIGHT,
            self.contamination,
            lambda members: self._log_prob(rows, members=members),
        )

    @property
    def columns_(self) -> "pd.DataFrame | list[dict]":
        """The kind of each column, how it is modelled, and why."""
        check_is_fitted(self)
        return as_table(self._schema.describe())

    @property
    def rules_(self) -> "pd.DataFrame | list[dict]":
        """The rules that rows follow, with their exceptions and the number of rows that tell."""
        check_is_fitted(self)
        return as_table(self._schema.rules.describe(self._schema.names), RULE_FIELDS)

    _held_out_scores = "folds"  # which a detector calibrates with
    _missing_pattern = None  # of missing values, if there are any and the model leaves it out
    _levels_without: Sequence = ()  # in whose rows a column is always missing
    _shared = None  # kinds, levels and rules that a wrapper found in all rows
    _shared_settings = None  # the parameters with which it found them

    def _read(self, X, reset=False):
        """Return X as a `Frame` in the order of the columns of `fit`."""
        check_may_be_table(X)
        if is_frame(X) and not reset and self._encoding.library != "numpy":
            remedy = " If they are unknown, add them with missing values."
            frame = read_frame(X, self._encoding.keys, remedy)
        else:
            if not is_frame(X):
                from sklearn.utils import check_array

                X = check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=0)
            check_different_names(X)
            if not X.shape[1]:
                raise ValueError(
                    f"X has 0 feature(s) (shape={X.shape}), while a minimum of 1 is required."
                )
            validate_data(self, X, reset=reset, skip_check_array=True)
            frame = read_frame(X)
        self._check_n_rows(frame, 2 if reset else 1, len(frame.columns))
        return frame

    def _check_n_rows(self, rows, least, n_columns, what="X"):
        if len(rows) < least:
            raise ValueError(
                f"{what} has {len(rows)} sample{'s' if len(rows) != 1 else ''} "
                f"(shape=({len(rows)}, {n_columns})), while a minimum of {least} is required."
            )

    def _variables(self, X):
        """Return the variables of a table."""
        check_is_fitted(self)
        return self._schema.split(self._encoding.rows(self._read(X)))

    def _some_columns(self, X, what="X"):
        """Return the variables and names of a table, or dict, that has some of the columns."""
        frame = rows_of(X)
        names = self._encoding.keys if frame.names is None else list(frame.names)
        if not names:
            return self._nothing_known(1), names
        self._check_names(names, what, with_left_out=True)
        if len(frame.columns) != len(names):
            raise ValueError(
                f"{what} has {len(frame.columns)} columns without names; give a DataFrame, or all "
                f"{len(names)} columns."
            )
        values = self._schema.split(self._encoding.rows(frame, names), names)
        self._check_n_rows(values, 1, len(names), what)
        if what == "given":
            named = zip(names, frame.columns, strict=True)
            empty = [self._encoding.keys[j] for j in self._schema.empty]
            self._check_names([name for name, c in named if name in empty and c.known.any()], what)
            self._schema.check_possible(values, names)
            self._schema.warn_of_outside(values, names, as_condition=True, what="given")
            self._schema.rules.warn_of_broken(self._schema, values)
            warn_of_contradictions(self._schema, self._levels_without, values)
        return values, names

    def _check_names(self, names, what, with_left_out=False):
        keys = self._encoding.keys
        if unknown := [name for name in names if name not in keys]:
            raise ValueError(
                f"{what} names the columns {unknown}, which the density does not have; leave them "
                f"out: it has {keys}."
            )
        left_out = [name for name in names if name not in self._schema.names]
        if left_out and not with_left_out:
            raise ValueError(
                f"{what} names the columns {left_out}, which the density leaves out, because they "
                "name the rows or have no known value; if their values mean something, state their "
                "kind in columns."
            )

    def score_samples(self, X: Table) -> Floats:
        """Return the log-density of the known part of each row.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows. Columns of a DataFrame are found by name.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            In nats: log-probabilities of discrete columns and log-densities of others, in their
            units. It is 0 for a row with no known value. Up to rounding, a row's value does not
            depend on the other rows. A row of `fit` scores higher than the same row would if it
            were new, an odd one much higher: `held_out_scores_` judges these rows. Scores are exact
            for the latent classes and kernels. The network's density is its mean over ``n_orders``
            orders of the columns. Values outside of a kind that was inferred, such as half a visit,
            have a small density, with a warning. Values outside of a kind that ``columns`` states
            are impossible: the row scores minus infinity. A column that follows from others by a
            rule of `rules_` adds the log-probability that the rule holds. If the column has a
            density, it counts as known up to its unit, or up to a millionth of its range without
            one.
        """
        return self._scores(self._variables(X))

    def _score_rows_of(self, rows):
        """Return what `score_samples` returns, for the rows of an encoded table."""
        return self._scores(self._schema.split(rows))

    def _pool_rows_of(self, rows):
        """Return scores of encoded rows that `UsualScores` makes comparable."""
        values = self._schema.split(rows)
        return self._usual.relative(self._scores(values), values)

    def _dependence(self, rows):
        """Return the log-density of each row minus the sum for its single columns."""
        values = self._schema.split(rows)
        joint, singles = self._log_prob(values), 0.0
        for variables in self._schema.of_column[: len(self._schema.places)]:
            single = np.full_like(values, np.nan)
            single[:, variables] = values[:, variables]
            singles = singles + self._log_prob(single)
        # A value that is impossible on its own has no dependence on others.
        return np.where(np.isneginf(singles), -np.inf, joint - singles)

    def _surprises(self, rows):
        """Return how much less likely each value is than usual, given the others of its row.

        Quick contributions to the scores of rows, as columns of differences in nats, by the member
        with the largest weight.
        """
        values, (member, _) = self._schema.split(rows), max(self._members, key=itemgetter(1))
        surprises = np.zeros(rows.shape)
        for i in self._schema.places:
            variables = self._schema.of_place[i]
            given = ~np.isnan(values)
            given[:, variables] = False
            scores = self._log_prob(values, given, [(member, 1.0)])
            surprises[:, i] = scores - np.median(scores)
        return surprises

    @property
    def _reconciled(self):
        """`_follow_rules`, or None without rules that tell a column."""
        return self._follow_rules if self._schema.rules.functions else None

    def _follow_rules(self, steps, order):
        """Return steps from rows to others in which columns that are not set follow the rules.

        Columns are set in an order: ``steps[k]`` has the new values of the first k. A later date is
        as long after an earlier one as in the first step.
        """
        schema, steps = self._schema, steps.copy()
        first = schema.with_spans(schema.split(steps[0]))
        spans = [j for span in schema.spans for j in schema.of_column[span.column]]
        places = [(i, schema.places[i]) for i in schema.rules.columns if i < len(schema.places)]
        is_unknown = np.ones(first.shape, dtype=bool)
        for k, place in enumerate(order[:-1], start=1):
            if place in schema.places:
                is_unknown[:, schema.of_place[place]] = False
            values = schema.split(steps[k])
            values[:, spans] = first[:, spans]
            schema.rules.fill(schema, values, is_unknown)
            for i, each in places:
                if each not in order[:k]:
                    variables = schema.of_column[i]
                    steps[k][:, each] = schema.columns[i].joined(values[:, variables])
        return steps

    def _scores(self, values, given=None, names=None):
        """Return `_log_prob`, with a warning of values outside of their kind, in some columns."""
        self._schema.warn_of_outside(values, names)
        return self._log_prob(values, given)

    def _score_classes_of(self, rows):
        """Return the log-density of encoded rows in each class of `_fit_classes`."""
        values = self._schema.split(rows)
        self._schema.warn_of_outside(values)
        return self._class_column.log_densities(values, self._members)

    @in_one_thread
    def _log_prob(self, values, given=None, members=None):
        """Return the log-probability of the known values of rows, given some of them."""
        members = self._members if members is None else members
        log_probs = np.empty(len(values))
        for start in range(0, len(values), ROWS_AT_ONCE):
            chunk = slice(start, start + ROWS_AT_ONCE)
            condition = None if given is None else given[chunk]
            view = TableView(self._schema, self._schema.with_spans(values[chunk]))
            target = view.known if condition is None else view.known & ~condition
            judged = self._schema.rules.judged(view, condition)
            if condition is not None:
                judged.view = judged.view.with_conditions(judged.given)
            scores = self._log_weights(judged.view, judged.given, members)
            scores = scores + np.stack([judged.log_prob(m) for m, _ in members], axis=1)
            scores = logsumexp(scores, axis=1)
            log_probs[chunk] = np.where(target.any(axis=1), scores, 0.0)
        return log_probs

    def _log_weights(self, view, given, members=None):
        """Return log-weights of the members, given some of the values, ``(n, n_members)``."""
        members = self._members if members is None else members
        prior = np.log([weight for _, weight in members])
        if given is None or not given.any() or len(members) == 1:
            return np.tile(prior, (len(view), 1))
        if given is view.known:  # more is asked of the same rows
            scores = [member.evidence(view) for member, _ in members]
        else:
            scores = [member.log_prob(view.given(given)) for member, _ in members]
        scores = np.stack(scores, axis=1)
        joint = prior + np.where(np.isneginf(scores).all(axis=1, keepdims=True), 0.0, scores)
        return joint - logsumexp(joint, axis=1, keepdims=True)

    def sample(
        self,
        n_samples: int = 1,
        random_state: RandomState = None,
        *,
        given: object = None,
        complete: bool = False,
    ) -> Rows:
        """Draw rows from the fitted density, with missing values as the rows of `fit` have them.

        With ``missing="ignore"``, which values of a complete row are missing is drawn by decision
        trees: for each column from the known values of the columns that fewer rows lack, and from
        which of these are missing. Given values that all rows of `fit` with some level
        lack, such as the day of leaving of active employees, rule this level out.

        Numbers without bounds stay within a range that as many draws could plausibly reach, by
        generalised Pareto distributions of the outer tenth of the values of `fit` on each side: all
        of n draws lie within either end with a probability of 99 %, where n is at least the number
        of rows of `fit`. Beside a given value that lies beyond by some share of its range, other
        numbers may lie beyond by the same share of theirs. Rows with values beyond are drawn again,
        up to ten times, and then clipped. A number lies outside of its range in the rows of `fit`
        with the same category about as often as in a new row at most, which is below n rows, or
        above them, with a probability of 1 / (n + 1): where the members exceed that, rows are drawn
        again given their categories. Clipped rows keep all rules: columns that follow from others
        are computed again, and a row that cannot keep a rule beside its given values stays as
        drawn.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, for each row of ``given``.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        given : dict or DataFrame, default=None
            Values of some columns, which all rows have: one value each, or one for each row of a
            table. A missing value is unknown, unless it counts as 0 (see ``missing``): it is drawn
            as the other columns are. A number that the column cannot hold, such as 2.5 among
            integers, is an error. One far from the values of `fit` gives a warning, since samples
            of other columns are then unreliable. A date more than a month before or after all dates
            of `fit` stands for the same time of the nearest year, if they are more than a year
            apart, and other dates beyond for the nearest one.

        complete : bool, default=False
            Whether to draw rows without missing values. A warning tells of values in rows like
            which no row of `fit` has one.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_features)
            The rows, in the columns, dtypes and categories that `fit` saw. Identifiers are
            numbered placeholders, such as "Name 1" in a column "name".
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        if hasattr(random_state, "keys"):  # of a table or dict
            raise TypeError(
                f"random_state is a {type(random_state).__name__}; give conditions by name, as "
                "sample(n, given=...)."
            )
        random_state = check_random_state(random_state)
        schema, names = self._schema, []
        if given is None:
            values = self._nothing_known(n_samples)
        else:
            values, names = self._some_columns(given, "given")
            origin = np.repeat(np.arange(len(values)), n_samples)
            values = schema.without_missing(values)[origin]
        places = [schema.encoding.keys.index(name) for name in names]
        columns = [column.take(origin) for column in rows_of(given).columns] if names else []
        known = dict(zip(places, columns, strict=True))
        for place, column in known.items():
            schema.encoding.check_written(place, column)
        frame = schema.encoding.frame(self._drawn_rows(values, complete, random_state))
        frame = schema.encoding.with_placeholders(frame, known)
        for place, column in known.items():  # rows hold no categories that fit has not seen
            if place not in schema.places:
                continue
            i = schema.places.index(place)
            is_kept = schema.columns[i].is_unseen(values[:, schema.of_column[i]])
            if is_kept.any():
                frame.columns[place].values[is_kept] = column.values[is_kept]
                frame.columns[place].known[is_kept] = True
        return schema.encoding.table(frame)

    def _nothing_known(self, n):
        return np.full((n, len(self._schema.variables)), np.nan)

    def _drawn_rows(self, values, complete, random_state):
        """Return encoded rows, drawn given known variables, with missing values unless complete."""
        schema = self._schema
        values = schema.with_unknown_values(values) if complete else values
        pattern = None if complete else self._missing_pattern
        drawn = self._complete(values, random_state, pattern=pattern)
        schema.rules.warn_of_broken_draws(schema, values, drawn)
        if complete:
            warn_of_levels_without(schema, self._levels_without, values, drawn)
        rows = schema.joined(drawn, random_state)
        rows = rows if complete else schema.zeros_as_blanks(rows)
        rows[:, list(schema.encoding.identifiers)] = 0.0
        if pattern is not None and schema.encoding.identifiers:
            rows[pattern.draw_identifiers(schema, drawn, random_state)] = np.nan
        return rows

    def _solved(self, values, exceptions=None, as_centres=False):
        """Return variables with what rules tell by known ones: see `Rules.solved`.

        A value that only some levels have would be evidence of these, such as the refund of an
        order, which is its total, unless it is known that the order was refunded.
        """
        schema = self._schema
        may_be_blank = blank_columns(schema, self._levels_without, values, or_unknown=True)
        return schema.rules.solved(schema, values, exceptions, as_centres, may_be_blank)

    @in_one_thread
    def _complete(
        self,
        values,
        random_state,
        keeps_orders=True,
        keeps_ranges=True,
        pattern=None,
        n_rounds=ROUNDS_OF_RULES,
    ):
        """Return variables, the unknown ones drawn given the known ones, none absurdly far out.

        With a pattern, of missing values, some stay unknown.
        If a known value lies far out, others may depend on it: they may lie as far out, relative to
        what is within reach. A value that follows by a rule from values within their reach may lie
        beyond its reach. Rows stay as drawn if a rule with a known value would break by clipping.
        """
        rules = self._schema.rules if keeps_orders else self._schema.rules.without_orders()
        completion = Completion(rules, self, pattern)

        def draw(values, lacks=None, n_rounds=n_rounds):
            drawn = []
            for some in in_chunks(np.arange(len(values)), DRAWN_AT_ONCE):
                known = None if lacks is None else lacks[some]
                drawn.append(completion.complete(values[some], random_state, n_rounds, known))
            return (np.concatenate(each) for each in zip(*drawn, strict=True))

        low, high = self._schema.reach(len(values))
        width = np.where(np.isfinite(high - low), high - low, 0.0)
        excess = np.zeros((len(values), 1))  # of known values, relative to the width of their reach
        some = np.flatnonzero(((values < low) | (values > high)).any(axis=1))
        beyond = np.maximum(low - values[some], values[some] - high)[:, width > 0]
        beyond = np.nan_to_num(beyond / width[width > 0])
        excess[some, 0] = beyond.max(axis=1, initial=0.0)

        def ends(rows):
            return low - excess[rows] * width, high + excess[rows] * width

        def far_out(drawn, rows):
            low, high = ends(rows)
            is_far = ((drawn < low) | (drawn > high)) & np.isnan(values[rows])
            some = np.flatnonzero(is_far.any(axis=1))
            is_far[some] = rules.far_out(self._schema, drawn[some], is_far[some])
            return is_far

        drawn, is_filled = draw(values)
        lacks = np.isnan(drawn) & np.isnan(values)
        if keeps_ranges and self._schema.ranges:
            is_complete = not isinstance(pattern, MissingPattern)
            self._keep_ranges(draw, values, drawn, is_filled, random_state, is_complete)
        rows = np.arange(len(values))
        for _ in range(ROUNDS_FAR_OUT):
            is_far = far_out(drawn[rows], rows)
            rows = rows[is_far.any(axis=1)]
            if not len(rows):
                return drawn
            drawn[rows], _ = draw(values[rows], lacks[rows])
        last = drawn[rows]
        clipped = np.where(far_out(last, rows), np.clip(last, *ends(rows)), last)
        rules.fill(self._schema, clipped, np.isnan(values[rows]) & ~np.isnan(last))
        breaks = rules.are_kept(self._schema, last) & ~rules.are_kept(self._schema, clipped)
        drawn[rows] = np.where(breaks[:, None], last, clipped)
        return drawn

    def _keep_ranges(self, draw, values, drawn, is_filled, random_state, is_complete):
        """Draw numbers again, in place, that are outside of the range of their category.

        No draw breaks a rule that a row keeps so far. The categories of a row stay. Drawn values
        that nearly all rows like it lack are not judged.
        """
        ranges, variables = self._schema.ranges, self._schema.variables

        def judged(values, drawn):
            if self._missing_pattern is None or not is_complete:
                return drawn
            is_lacking = self._missing_pattern.are_lacking(self._schema, drawn)
            return np.where(is_lacking & np.isnan(values), np.nan, drawn)

        if ranges.accepted is None:  # few fits are asked for samples
            nothing, own = self._nothing_known(N_DRAWS), np.random.RandomState(0)
            pattern = self._missing_pattern
            drawn_freely = self._complete(nothing, own, keeps_ranges=False, pattern=pattern)
            ranges.calibrate(variables, drawn_freely)
        is_open = np.isnan(values)
        lacks = np.isnan(drawn) & is_open
        rows = ranges.refused(variables, judged(values, drawn), is_open, random_state)
        n_left = MAX_TRIES
        while len(rows) and n_left:
            # Few rows take nearly as long as many, so each of few is drawn several times at once.
            n_tries = min(n_left, -(-ROWS_OF_TRIES // len(rows)))
            tried = np.repeat(rows, n_tries)
            given = values[tried]
            given[:, ranges.levels] = drawn[np.ix_(tried, ranges.levels)]
            tries, break_rules = draw(given, lacks[tried], n_rounds=ROUNDS_OF_TRIES)
            of_tries = judged(values[tried], tries)
            refused = ranges.refused(variables, of_tries, is_open[tried], random_state)
            cost = FILLED * break_rules
            cost[refused] += REFUSED
            cost = cost.reshape(-1, n_tries)
            best, cost = cost.argmin(axis=1), cost.min(axis=1)
            may_break = FILLED * is_filled[rows]
            is_better = cost < REFUSED + may_break
            tries = tries[np.arange(len(rows)) * n_tries + best]
            drawn[rows[is_better]] = tries[is_better]
            rows = rows[cost > may_break]
            n_left -= n_tries

    def _drawn_by_members(self, values, random_state):
        """Return variables, the unknown ones drawn given the known ones, whatever rules say."""
        from ._network import choose

        distinct, inverse = distinct_rows(values)
        view = TableView.of_conditions(self._schema, distinct)
        shares = np.exp(self._log_weights(view, view.known))
        chosen = choose(shares, random_state, inverse)
        drawn = values.copy()
        for i, (member, _) in enumerate(self._members):
            rows = chosen == i
            if rows.any():
                drawn[rows] = member.sample(view, inverse[rows], random_state)
        drawn = np.where(np.isnan(values), drawn, values)  # conditions may be others to members
        return self._schema.with_rare(drawn, np.isnan(values), random_state)

    def condition(self, given: object) -> ConditionalTable:
        """Return the density of the other columns, given values of some.

        Parameters
        ----------
        given : dict or DataFrame
            Values of some columns. One value each, or one for each row of a table: row i of the
            table then conditions row i of what is scored.

        Returns
        -------
        conditional : ConditionalTable
            With `score_samples`, `score`, `sample` and `marginal`. Its densities of a single column
            are exact for every member of the mixture. Those of several columns are means over
            orders for the network, like `score_samples`. What given columns that follow by a rule
            say of several unknown determinants is left to the members, not to the rule.
        """
        check_is_fitted(self)
        values, names = self._some_columns(given, "given")
        rest = [name for name in self._schema.names if name not in names]
        if not rest:
            raise ValueError("given has all columns: nothing is left to have a density.")
        return ConditionalTable(self, rest, values, describe(given, values, names))

    def marginal(self, columns: Sequence[str | int]) -> ConditionalTable:
        """Return the density of some columns, the others being unknown.

        Parameters
        ----------
        columns : list of str or int
            Their names.

        Returns
        -------
        marginal : ConditionalTable
            With `score_samples`, `score`, `sample` and `marginal`.
        """
        check_is_fitted(self)
        columns = chosen(columns, self._schema.names)
        self._check_names(columns, "columns")
        return ConditionalTable(self, columns, self._nothing_known(1))

    def impute(
        self,
        X: Table,
        method: str = "mean",
        *,
        n_draws: int = 1,
        keep_blanks: bool = False,
        random_state: RandomState = None,
    ) -> "Rows | list[Rows]":
        """Fill in the missing values of X.

        A warning tells of values in rows like which no row of `fit` has one, such as the means of
        payment of all orders that are still open: there, a blank may mean that there is none, and
        ``keep_blanks`` leaves it.
        Of several unknown terms of a known sum in `rules_`, the largest one is what the others
        leave; where no possible value fits, all change in proportion. Of two unknown factors of a
        known product, one is the number nearest to its centre that leaves the other a possible
        value, if it has listed values, such as numbers of pieces.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows.

        method : {"mean", "median", "mode", "draw"}, default="mean"
            "mean" and "median" are conditional ones given the known values, for numbers;
            categories get their mode, and dates their median. A mean need not be a possible value:
            of a count it may be 2.37, which columns of integers, such as pandas' "Int64", round.
            "median" and "draw" are possible values. "mode" takes the likeliest level, and the
            median of numbers. "draw" draws all missing values of a row together.

        n_draws : int, default=1
            Number of draws. Other than 1, a list of tables is returned.

        keep_blanks : bool, default=False
            Whether values stay missing in rows of a category, or of another listed value, none of
            whose rows in `fit` has one; these are ten at least. The category may be imputed too.
            Missing values that count as 0 stay missing too, unless rows of `fit` have zeros. One
            for which a known sum tells another value gets this value in any case.

        random_state : int, RandomState instance or None, default=None
            Seed of the draws.

        Returns
        -------
        X : DataFrame or ndarray of shape (n_samples, n_features), or a list of them
            The rows, complete unless ``keep_blanks`` is true.
        """
        check_is_fitted(self)
        check_integer("n_draws", n_draws)
        frame, schema = self._read(X), self._schema
        rows = schema.encoding.rows(frame)
        values = schema.with_values(schema.split(rows))
        values = with_told_blanks(schema, rows, values, self._solved)
        schema.warn_of_outside(values, as_condition=True)
        if not keep_blanks:
            warn_of_levels_without(schema, self._levels_without, values)
        pattern = BlankPattern(self._levels_without)
        if method == "draw":
            random_state = check_random_state(random_state)
            of_draws = pattern if pattern.levels else None
            draws = [self._complete(values, random_state, pattern=of_draws) for _ in range(n_draws)]
            schema.rules.warn_of_broken_draws(schema, values, draws[0])
            for drawn in () if keep_blanks else draws:
                some = np.flatnonzero(np.isnan(drawn).any(axis=1))
                if len(some):  # blanks change no other value, so some may break a rule
                    drawn[some] = self._complete(drawn[some], random_state, n_rounds=1)
        elif method in ("mean", "median", "mode"):
            if n_draws != 1:
                raise ValueError(f"n_draws={n_draws} needs method='draw', not {method!r}.")
            filled = [impute(self, s, method, pattern, keep_blanks) for s in in_chunks(values)]
            draws = [np.concatenate(filled)]
        else:
            raise ValueError(f"method={method!r}; choose 'mean', 'median', 'mode' or 'draw'.")
        rows = [schema.joined(drawn) for drawn in draws]
        rows = [*map(schema.zeros_as_blanks, rows)] if keep_blanks else rows
        tables = [schema.encoding.fill(X, frame, each) for each in rows]
        return tables[0] if n_draws == 1 else tables

    @available_if(_has_names_or_categories)
    def predict_proba(
        self, column: int | str, X: Table, *, as_frame: bool = False
    ) -> "Floats | pd.DataFrame":
        """Return the probabilities of the values of a column, given the other known values.

        An array of numbers alone has no such method: scikit-learn's tools expect it to take only X.
        Give its columns names, or one of them the kind "categorical".

        Parameters
        ----------
        column : str or int
            A column of categories, or of numbers that are multiples of a step. These are listed
            with the ones that no row of `fit` has, up to 1,000 of them.

        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows. They may lack the column, and others; known values of it are ignored.

        as_frame : bool, default=False
            Whether to return a DataFrame of pandas, also for tables of other libraries. Its columns
            are the values as `sample` writes them, and its index is the one of X.

        Returns
        -------
        proba : ndarray or DataFrame of shape (n_samples, n_levels)
            They sum to 1, in the order of `levels`.

        Examples
        --------
        >>> import pandas as pd
        >>> from skflows import TableDensity
        >>> table = pd.DataFrame({"coat": ["fur", "scales"] * 50, "legs": [4, 0] * 50})
        >>> density = TableDensity(max_iter=1, random_state=0).fit(table)
        >>> asked = pd.DataFrame({"legs": [4, 0]}, index=["cat", "fish"])
        >>> proba = density.predict_proba("coat", asked, as_frame=True)
        >>> proba.idxmax(axis=1).tolist()
        ['fur', 'scales']
        """
        check_is_fitted(self)
        check_order("predict_proba(column, X)", column, X)
        values, _ = self._some_columns(X)
        probabilities = probabilities_of(self, column, values)
        if not as_frame:
            return probabilities
        i, _ = column_of(self, column, "possible")
        labels = self._encoding.written_levels(self._schema.places[i], self.levels(column))
        return labelled(probabilities, labels, X, column)

    def levels(self, column: int | str) -> list:
        """Return the possible values of a column, in the order of `predict_proba`.

        Parameters
        ----------
        column : str or int
            A column of categories, or of numbers that are multiples of a step, up to 1,000 of them.

        Returns
        -------
        levels : list
            The values.
        """
        check_is_fitted(self)
        i, _ = column_of(self, column, "possible")
        return self._schema.columns[i].possible

    def quantile(self, column: int | str, X: Table, q: ArrayLike = 0.5) -> np.ndarray:
        """Return quantiles of a column of numbers or dates, given the other known values.

        Parameters
        ----------
        column : str or int
            A column of numbers or dates.

        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows. They may lack the column, and others; known values of it are ignored.

        q : float or array-like of shape (n_quantiles,), default=0.5
            Probabilities between 0 and 1.

        Returns
        -------
        quantiles : ndarray of shape (n_samples,) or (n_samples, n_quantiles)
            The quantiles of the mixture, found by bisection. They are `ppf` of
            `predict_distribution`: quantiles of a circular column count from the point opposite
            its mean, and quantiles of dates are ``datetime64``.

        See Also
        --------
        FlowRegressor.predict_quantiles : The same of a regressor, for its only target.
        """
        check_is_fitted(self)
        check_order("quantile(column, X, q)", column, X, q)
        probabilities = np.atleast_1d(checked_probabilities(q, with_ends=False))
        if not len(probabilities):
            raise ValueError("q is empty; give at least one probability, such as 0.5.")
        distribution = self.predict_distribution(column, X)
        quantiles = distribution.ppf(probabilities[:, None]).T
        _, j = column_of(self, column, "is_ordered")
        variable, is_date = self._schema.variables[j], isinstance(distribution, DateDistribution)
        if variable.has_number and not is_date:  # as samples are rounded
            quantiles = variable.value(variable.snap(quantiles))
        return quantiles[:, 0] if np.ndim(q) == 0 else quantiles

    def predict_distribution(
        self, column: int | str, X: Table
    ) -> ConditionalDistribution | DateDistribution:
        """Return the distribution of a column of numbers or dates, given the other known values.

        Parameters
        ----------
        column : str or int
            A column of numbers or dates.

        X : DataFrame or array-like of shape (n_samples, n_features)
            The rows. They may lack the column, and others; known values of it are ignored.

        Returns
        -------
        distribution : ConditionalDistribution or DateDistribution
            With the methods of `scipy.stats` distributions, such as `cdf`, `ppf`, `interval`,
            `std` and `rvs`. A column of few numbers, or on a lattice of at most a million points,
            has a `pmf`. At an atom, `logpdf` is the log-probability. For discrete columns it is per
            step, the logarithm of the probability divided by the step, and `pmf` is the
            probability. Of a column of dates, `cdf`, `ppf`, `median`, `interval`, `mean` and `rvs`
            take and return dates.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> from skflows import TableDensity
        >>> rng = np.random.default_rng(0)
        >>> kind = rng.choice(["cat", "dog"], 300)
        >>> weight = np.where(kind == "cat", 4.0, 20.0) * rng.lognormal(0, 0.2, 300)
        >>> table = pd.DataFrame({"kind": kind, "weight": weight})
        >>> density = TableDensity(max_iter=10, random_state=0).fit(table)
        >>> asked = pd.DataFrame({"kind": ["cat", "dog"]})
        >>> low, high = density.predict_distribution("weight", asked).interval(0.9)
        >>> bool(high[0] < 10 < low[1])
        True
        """
        check_is_fitted(self)
        check_order("predict_distribution(column, X)", column, X)
        i, _ = column_of(self, column, "is_ordered")
        values, _ = self._some_columns(X)
        self._schema.warn_of_outside(without(values, self._schema, i), as_condition=True)
        if self._schema.columns[i].kind == "datetime":
            return DateDistribution(self, values, i)
        return distribution_of(OneColumn(self, values, i))
