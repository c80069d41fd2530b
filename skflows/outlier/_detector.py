"""An outlier detector by any density estimator."""

import warnings
from contextlib import nullcontext
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted

from ..calibration.ranks import Ranks, discoveries, least_p_value, pooled
from ..calibration.tails import Tails
from ..calibration.thresholds import by_held_out, equalized
from ..callbacks._progress import VERBOSE, prints
from ..callbacks._run import fit_task, random_state_of
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import check_integer, row_shape, validate_rows
from ..columns.checks import (
    ColumnWarning,
    results_of_each,
    warn_of_columns,
    warn_of_far_dates,
    warn_of_gaps,
    warn_of_identifiers,
    warn_of_row_names,
    warn_of_texts,
    warn_user,
)
from ..columns.frames import data_frame, index_of, is_frame
from ..columns.types import Flags, Floats, Labels, RandomState, Rows, Table, Weights
from ..density._outlier_labels import OutlierDensityMixin
from ..density._sampling import check_has_names
from ..density._third_party import (
    check_is_density,
    fit_subtask,
    is_density,
    is_frozen,
    nothing_after_failure,
    of_no_use_alone,
    read,
    read_as_in_fit,
    takes_tables,
    takes_weights,
    unfrozen,
    was_interrupted,
    weighted_if,
    with_verbose,
)
from ..ensemble._auto import AutoDensity
from ..ensemble._folds import N_FOLDS, make_folds
from ..ensemble._mixture import MixtureMixin
from ..preprocessing.dequantizer import discrete_columns
from ..preprocessing.sklearn_compat import HasMethods, Interval, StrOptions
from ..preprocessing.validation import uneven, validate_weight, weighted_rows
from ..table import TableDensity
from ..training.threads import fit_context
from ._ensemble import OutlierEnsemble
from ._explain import contributions, partners_of, reference_rows, with_base
from ._scored_density import Setting, fit_scored
from ._statistics import STATISTICS, held_out_values

if TYPE_CHECKING:
    from shap import Explanation


NULLS: dict[str, type[Ranks] | type[Tails]] = {"conformal": Ranks, "empirical_null": Tails}
FITTED = {"models_", "held_out_scores_", "p_values_", "null_", "offset_"}
ROWS_PER_COLUMN = 20  # with at least as many, leave-one-out scores are as good as held-out ones
MOST_WITH_FOLDS = 10_000  # rows, all of which are held out to calibrate: a part of more is enough


class DensityOutlierDetector(
    OutlierDensityMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator
):
    """Outlier detector by a density: scores, p-values, false discovery rate, explanations.

    It wraps any density estimator, of this package or of scikit-learn.

    Parameters
    ----------
    estimator : estimator, default=None
        A density estimator with `fit` and `score_samples`, or any other detector whose scores are
        higher for inliers. None is an `OutlierEnsemble`, for rows without outliers with
        ``calibration="conformal"``, which needs such rows, and otherwise for rows that may contain
        some. It takes no uneven `sample_weight`: for weighted rows give a density that does, such
        as an `AdaptiveKernelDensity`. For statistics other than "log_pool", which need a density,
        None is an `AutoDensity`, and for a DataFrame with texts, dates or missing values a
        `TableDensity` with ``missing="model"``, which takes about ten times as long.
        A fitted one is used as it is inside a `sklearn.frozen.FrozenEstimator`; the rows of `fit`
        then only calibrate it. Estimators other than `TableDensity` see arrays: columns are given
        by index.

    statistic : str, default="log_pool"
        The score; higher always means more normal.

        - "log_pool": the score of the estimator. For mixtures such as `skflows.AutoDensity`, the
          mean of the log-densities of its components, with one vote per family: the likeliest
          mixture, kernels and flow on columns that are scaled, whitened or mapped through their
          quantiles. How well each of these predicts ordinary rows says little about unusual ones.
          For a `TableDensity`, the log-density relative to what is usual for rows with the same
          missing values and the same very frequent numbers: an amount that is often 0 is much
          likelier there than at any other number, and a row without it has no term for it, but
          neither is odd.
        - "log_density": the log-density, in nats.
        - "dependence": the log-density minus the sum of the single columns' log-densities, for a
          `TableDensity`. It finds unusual combinations, whether or not each value is rare by
          itself. With a calibration, the density is fitted five times, once for each fold.
        - "typicality": ``-abs(log_density - mean)``, with the mean over unseen rows: a density that
          is too high is odd as well.

    calibration : {"conformal", "empirical_null"} or None, default=None
        How scores become p-values.

        - "conformal": by ranks among the scores of rows that the density has not seen, all of which
          should be inliers. Then at most a fraction ``a`` of new inliers has a p-value of ``a`` or
          less: exactly so for a single split, whatever the density, and closely for other ``cv``.
        - "empirical_null": by the gamma distributions of the surprise (minus the score) that fit
          the more normal three quarters of the rows, which may contain outliers. This is a model,
          not a guarantee.

    cv : "auto", int, cross-validation generator or iterable, default="auto"
        How rows are held out to calibrate. A single split, such as ``ShuffleSplit(1)``, is split
        conformal prediction; several folds, each with its own model, are cross-conformal: the
        estimator is fitted once for each, and a ``time_limit`` of it holds for each fit. "auto"
        takes the held-out scores that the estimator keeps (`AutoDensity`, `StackedDensity` and
        `TableDensity` do; with 20 rows per column or more, `OutlierEnsemble` and
        `AdaptiveKernelDensity`), otherwise 5 folds; without calibration it holds nothing out. With
        the empirical null, which judges the rows of `fit` too, a mixture holds out all rows, and
        with conformal calibration it does if there are fewer than 10,000: a small held-out part has
        no small p-values.

    alpha : float, default=0.05
        The p-value up to which `predict` flags a row, with calibration.

    fdr : float, default=None
        False discovery rate: the largest fraction of false flags among all flags of `predict`, on
        average. The label of a row then depends on the other rows, and clean rows may have no flag
        at all (scikit-learn's estimator checks expect one). None flags by `alpha`.

    fdr_method : {"bh", "by", "adaptive"}, default="bh"
        Benjamini-Hochberg; Benjamini-Yekutieli, for any dependence of the rows; or
        Benjamini-Hochberg with an estimate of the fraction of inliers, a conservative variant of
        Storey's, which finds more if many rows are outliers. "adaptive" controls the rate only with
        ``calibration="conformal"``, a single split such as ``cv=ShuffleSplit(1, test_size=0.5)``
        or a frozen estimator, and rows without weights; otherwise it is an error.

    trim : float or "auto", default=0.0
        Fraction of the rows that the fit of the density leaves out, the least likely ones,
        alternating fit and selection. "auto" takes `contamination` if that is a number, otherwise
        0.

    contamination : float, "auto" or None, default="auto"
        Fraction of outliers in the rows of `fit`. A number puts the threshold of `predict` at that
        quantile of their scores or, if that would flag many more of the rows that were held out, of
        the held-out scores (`fit_predict` then labels rows by these). "auto" takes the threshold of
        `alpha` with calibration, and the lower Tukey fence, Q1 - 1.5 (Q3 - Q1), without. None sets
        no threshold.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds and the default estimator; an estimator that is given has its own seed.

    verbose : "auto" or int, default="auto"
        "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is. 0
        and False print nothing, and other numbers the number of each fold before its
        density is fitted; an estimator with a `verbose` gets such a number too.

    Attributes
    ----------
    models_ : list of tuple
        The fitted density of each fold, or a single one, with its score.

    held_out_scores_ : ndarray of shape (n_samples,)
        Score of each row of `fit` by a model that had not seen it, NaN if there is none.

    p_values_ : ndarray of shape (n_samples,)
        With ``calibration="empirical_null"``: the p-values of these scores. (With "conformal", the
        rows of `fit` are what others are compared with.)

    null_ : object or None
        With a calibration: the scores of inliers. ``null_.p_values(scores)`` are the p-values of
        rows with these scores.

    offset_ : float
        Score below which `predict` labels a row an outlier, unless `fdr` is set.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Genest & Zidek, "Combining Probability Distributions: A Critique and an Annotated Bibliography",
    1986 (the logarithmic opinion pool).

    Le Lan & Dinh, "Perfect Density Models Cannot Guarantee Anomaly Detection", 2021 (scores depend
    on the coordinates).

    Storey, "A Direct Approach to False Discovery Rates", 2002.

    Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005.

    Vovk, "Cross-Conformal Predictors", 2015.

    Tibshirani, Barber, Candes & Ramdas, "Conformal Prediction under Covariate Shift", 2019.

    Bates, Candes, Lei, Romano & Sesia, "Testing for Outliers with Conformal p-values", 2023.

    Efron, "Large-Scale Simultaneous Hypothesis Testing: The Choice of a Null Hypothesis", 2004.

    Nalisnick, Matsukawa, Teh & Lakshminarayanan, "Detecting Out-of-Distribution Inputs to Deep
    Generative Models Using Typicality", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from skflows import DensityOutlierDetector
    >>> X = np.random.default_rng(0).standard_normal((300, 2))
    >>> detector = DensityOutlierDetector(GaussianMixture(), calibration="conformal", alpha=0.01)
    >>> detector.fit(X).predict([[0.0, 0.0], [6.0, 0.0]])
    array([ 1, -1])
    >>> detector.p_values([[6.0, 0.0]])
    array([0.003])
    >>> detector.explain([[6.0, 0.0]]).argmin(axis=1)
    array([0])
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"]), None],
        "statistic": [StrOptions(set(STATISTICS))],
        "calibration": [StrOptions(set(NULLS)), None],
        "cv": [StrOptions({"auto"}), "cv_object"],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "fdr": [Interval(Real, 0, 1, closed="neither"), None],
        "fdr_method": [StrOptions({"bh", "by", "adaptive"})],
        "trim": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="both")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), None],
        "random_state": ["random_state"],
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        estimator=None,
        *,
        statistic="log_pool",
        calibration=None,
        cv="auto",
        alpha=0.05,
        fdr=None,
        fdr_method="bh",
        trim=0.0,
        contamination="auto",
        random_state=None,
        verbose="auto",
    ):
        self.estimator = estimator
        self.statistic = statistic
        self.calibration = calibration
        self.cv = cv
        self.alpha = alpha
        self.fdr = fdr
        self.fdr_method = fdr_method
        self.trim = trim
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _row_shape(self):
        return row_shape(self.estimator)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if takes_tables(self.estimator):  # others see arrays of numbers
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def _takes_weights(self):
        default = OutlierEnsemble if self.statistic == "log_pool" else AutoDensity
        return takes_weights(default if self.estimator is None else self.estimator)

    @weighted_if(_takes_weights)
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None, sample_weight: Weights = None) -> Self:
        """Fit the density, its score and the calibration.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, if the estimator takes weights: in the density, in what the
            statistic learns, in `trim` and in the threshold; rows of weight 0 are left out. Equal
            weights change nothing. P-values compare weighted ranks: with
            ``calibration="conformal"``, they come from weighted conformal prediction (Tibshirani et
            al., 2019) and are valid if the weights are the density of new inliers, divided by the
            density of the rows of `fit`, up to a factor. A new row counts with the largest of the
            weights, which its weight must not exceed. An integer weight is thus no number of rows:
            copies of a row would be no further evidence.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        with nothing_after_failure(self, FITTED):
            return self._fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight):
        given = X, y
        random_state = random_state_of(self)
        estimator, encoding = self.estimator, None
        if estimator is not None and takes_tables(estimator):
            encoding, rows = read(self, estimator, X, least=2)
        elif estimator is None and (self.statistic == "dependence" or is_frame(X)):
            # A category that a fold lacks, or that is new, is rare rather than an error. A value
            # that rows like it lack is odd, as is a missing one that they have.
            of_tables = TableDensity(handle_unknown="rare", missing="model")
            encoding, rows = read(self, of_tables, X, least=2)
            missing = [encoding.keys[j] for j in np.flatnonzero(np.isnan(rows).any(axis=0))]
            if self.statistic != "dependence" and encoding.is_plain and not missing:
                encoding = None  # densities of numbers take it as it is
            else:
                if self.statistic == "log_pool" and encoding.is_plain and missing:
                    warn_of_gaps(missing)
                estimator = of_tables.set_params(random_state=random_state.randint(2**31 - 1))
        self._encoding = encoding
        if encoding is not None:
            X = rows
            self._warn_of_row_names(X)
            weight = validate_weight(sample_weight, X, least=2)
            is_weighted = weight > 0
            X, weight = X[is_weighted], weight[is_weighted]
        else:
            X, weight, is_weighted = weighted_rows(self, X, sample_weight, least=2)
        trim = self.trim
        if isinstance(trim, str):  # "auto"
            trim = self.contamination if isinstance(self.contamination, Real) else 0.0
        if estimator is None:
            seed = random_state.randint(2**31 - 1)
            if self.statistic == "log_pool":
                # Conformal p-values need clean rows, the other thresholds do not.
                contaminated = self.calibration != "conformal"
                estimator = OutlierEnsemble(contaminated=contaminated, random_state=seed)
            else:
                estimator = AutoDensity(random_state=seed)
        self._check_parameters(estimator)
        estimator = with_verbose(self._with_folds(estimator, len(X)), self.verbose)
        splits = self._splits(estimator, X, is_weighted, random_state)
        self._is_split = (
            self.calibration == "conformal"
            and (len(splits) == 1 or is_frozen(estimator))
            and uneven(weight) is None
        )
        self._check_fdr_method()
        # Folds may lack categories.
        if encoding is not None and splits and hasattr(estimator, "_share_columns"):
            estimator = clone(estimator)._share_columns(X, random_state, weight, encoding)
        parts = [train for train, _ in splits] or [slice(None)]
        n_fits = None if trim else len(parts)
        with fit_task(
            self, *given, max_subtasks=n_fits, what="fits", sample_weight=sample_weight
        ) as task:
            fit = partial(fit_subtask, task, encoding=encoding)
            setting = Setting(estimator, random_state, fit, encoding)
            if encoding is None and is_density(estimator) and not is_frozen(estimator):
                warn_of_columns(self, X, discrete_columns(X))
            if encoding is not None and not is_frozen(estimator):
                for name, texts in encoding.values(X, ["text"]).items():
                    warn_of_texts(name, texts)
                for name, moments in encoding.values(X, ["datetime"]).items():
                    warn_of_far_dates(name, moments)
            models = []
            for i, part in enumerate(parts, 1):
                if prints(self) and splits:
                    print(f"Fold {i} of {len(parts)}")
                is_last = i == len(parts)
                with warnings.catch_warnings(), nullcontext() if is_last else of_no_use_alone():
                    warnings.simplefilter("ignore", ColumnWarning)  # by index, and of each fold
                    models.append(fit_scored(self.statistic, setting, X[part], weight[part], trim))
                if was_interrupted(models[-1].density) and not is_last:
                    raise KeyboardInterrupt  # without the other folds nothing is calibrated
            self.models_ = models
            self._set_held_out_scores(estimator, X, weight, is_weighted, splits)
            self._set_threshold(X, weight)
            self._reference = reference_rows(X, self._score_rows, random_state)
        return self

    def _warn_of_row_names(self, rows):
        encoding = self._encoding
        if encoding is None:
            return
        if encoding.names is not None:
            warn_of_row_names(encoding.values(rows, ["number", "text"]))
        if encoding.inferred_identifiers:
            warn_of_identifiers(encoding.inferred_identifiers)

    def _validated(self, X):
        """Return the rows to score as an array."""
        if self._encoding is None:
            return validate_rows(self, X, reset=False)
        return read_as_in_fit(self, X)

    def _check_parameters(self, estimator):
        if self.statistic != "log_pool":  # which takes any score
            check_is_density(estimator)
        if self.fdr is not None and self.calibration is None:
            raise ValueError(
                f"fdr={self.fdr} needs p-values: set calibration to one of {list(NULLS)}."
            )
        if self.statistic == "dependence" and not hasattr(unfrozen(estimator), "_dependence"):
            raise ValueError(
                f"statistic='dependence' needs the densities of single columns, which "
                f"{type(estimator).__name__} does not have: give a TableDensity."
            )
        names = getattr(self, "feature_names_in_", None)
        # Others are cloned, and fitted to these columns.
        if names is None or not is_frozen(estimator):
            return
        known = getattr(estimator, "feature_names_in_", names)
        if list(names) != list(known):
            raise ValueError(
                f"X has the columns {list(names)}, but the fitted estimator has {list(known)}: "
                "pass the same columns in the same order."
            )

    def _with_folds(self, estimator, n_rows):
        """Return the estimator; a mixture holds out every row if all are judged or needed."""
        is_needed = self.calibration == "conformal" and n_rows < MOST_WITH_FOLDS
        is_judged = (
            (is_needed or self.calibration == "empirical_null")
            and isinstance(estimator, MixtureMixin | TableDensity)
            and STATISTICS[self.statistic].held_out is not None
        )
        if is_judged and isinstance(estimator.cv, str) and isinstance(self.cv, str):  # both "auto"
            return clone(estimator).set_params(cv=N_FOLDS)
        return estimator

    def _n_fits(self, X):
        """Return how many densities `fit` fits to rows, none of weight 0, without trimming."""
        all_rows, random_state = np.ones(len(X), dtype=bool), np.random.RandomState(0)
        return len(self._splits(self.estimator, X, all_rows, random_state)) or 1

    def _splits(self, estimator, X, is_weighted, random_state):
        """Return pairs of indices of rows to fit to and rows to hold out, if any are held out."""
        seed = random_state.randint(2**31 - 1)
        if is_frozen(estimator):
            return []
        cv = self.cv
        if isinstance(cv, str):  # "auto"
            kept = getattr(estimator, "_held_out_scores", None)
            # A row that is left out still affects scales and widths, noticeably if rows are few.
            is_fair = kept == "folds" or len(X) >= ROWS_PER_COLUMN * X.shape[1]
            has_scores = kept is not None and STATISTICS[self.statistic].held_out is not None
            if self.calibration is None or (has_scores and is_fair):
                return []
            cv = N_FOLDS
        return make_folds(cv, len(X), seed, X=X, kept=is_weighted)

    def _set_held_out_scores(self, estimator, X, weight, is_weighted, splits):
        """Score rows by models that have not seen them, as far as there are any."""
        held_out_scores = np.full(len(X), np.nan)
        held_out = [rows for _, rows in splits]
        self._calibration = []  # scores of the rows held out from each model
        for model, rows in zip(self.models_, held_out, strict=False):
            held_out_scores[rows] = scores = model.score_samples(X[rows])
            self._calibration.append(scores)
        if not splits:
            (model,) = self.models_
            if is_frozen(estimator):
                held_out_scores = model.score_samples(X)
            elif (known := held_out_values(self.statistic, model.density)) is not None:
                held_out_scores[model.kept] = known
                if not model.kept.all():
                    held_out_scores[~model.kept] = model.score_samples(X[~model.kept])
            held_out = [np.flatnonzero(~np.isnan(held_out_scores))]
            self._calibration = [held_out_scores[held_out[0]]]
        self._calibration_weights = [weight[rows] for rows in held_out]
        self.held_out_scores_ = np.full(len(is_weighted), np.nan)
        self.held_out_scores_[is_weighted] = held_out_scores

    def _set_threshold(self, X, weight):
        """Set the null distribution, and the threshold of `predict`."""
        known, importance = map(np.concatenate, (self._calibration, self._calibration_weights))
        self.null_ = null = None
        if self.calibration is not None:
            self.null_ = null = NULLS[self.calibration].fit(known, importance)
        self._judges_held_out = False
        self.__dict__.pop("p_values_", None)  # of an earlier fit
        if null is not None and self.calibration == "empirical_null":
            self.p_values_ = null.p_values(self.held_out_scores_)
        if null is not None and isinstance(self.contamination, str):
            self.offset_ = null.threshold(self.alpha)
            if np.isinf(self.offset_) and self.fdr is None:
                warn_user(
                    f"alpha={self.alpha:g} flags no row: with {len(known)} rows to calibrate, the "
                    f"smallest p-value is {least_p_value(null):.2g}. Hold out more rows, or raise "
                    "alpha."
                )
            return
        self.offset_, judges_held_out = by_held_out(
            self.contamination, known, importance, lambda: (self._score_rows(X), weight)
        )
        self._judges_held_out = judges_held_out and self.fdr is None

    def score_samples(self, X: Table) -> Floats:
        """Return the score of each row, by the chosen statistic: the lower, the more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats, for statistics that consist of log-densities.
        """
        check_is_fitted(self)
        return self._score_rows(self._validated(X))

    def _score_rows(self, X):
        scores = results_of_each([model.score_samples for model in self.models_], X)
        return pooled(scores, self._calibration, self._calibration_weights)

    def p_values(
        self, X: Table, *, randomized: bool = False, random_state: RandomState = None
    ) -> Floats:
        """Return the p-value of each row under the distribution of inliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows.

        randomized : bool, default=False
            With ``calibration="conformal"``, break ties at random: the rank of a row is drawn
            uniformly from the ranks between it and the calibration rows of the same score. P-values
            of inliers are then uniform, and `flag` finds more outliers if few rows calibrate; but
            the flags depend on the draw.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw; None is 0, so that each call draws the same.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            Between 0 and 1; with ``calibration="conformal"`` and without randomisation, at least
            ``1 / (n + 1)`` for ``n`` rows to calibrate.
        """
        check_is_fitted(self)
        null = self._checked_null()
        scores = self.score_samples(X)
        if not randomized:
            return null.p_values(scores)
        if self.calibration != "conformal":
            raise ValueError(
                f"randomized=True is for the ranks of calibration='conformal', not for "
                f"{self.calibration!r}, whose p-values are continuous."
            )
        rng = check_random_state(0 if random_state is None else random_state)
        return null.randomized_p_values(scores, rng)

    def _check_fdr_method(self):
        if self.fdr is not None and self.fdr_method == "adaptive" and not self._is_split:
            raise ValueError(
                f"fdr_method='adaptive' with calibration={self.calibration!r} and cv={self.cv!r} "
                "does not control the false discovery rate: it needs p-values from the rows of a "
                "single split, without weights. Set calibration='conformal' and "
                "cv=ShuffleSplit(1, test_size=0.5), fit again, or choose fdr_method='bh'."
            )

    def _checked_null(self):
        """Return the null distribution, or raise an error if there is none."""
        if self.null_ is None:
            raise ValueError(
                "calibration=None: there are no p-values. Set calibration='conformal', or "
                "'empirical_null' if the rows of fit may contain outliers."
            )
        return self.null_

    def predict(self, X: Table) -> Labels:
        """Label each row as an inlier or an outlier, by `fdr` if it is set, otherwise by `offset_`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers.
        """
        if self.fdr is None:
            return super().predict(X)
        return np.where(self.flag(self.p_values(X)), -1, 1)

    def fit_predict(self, X: Table, y: object = None, **kwargs: Any) -> Labels:
        """Fit to the rows, and label each of them as an inlier or an outlier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        **kwargs : dict
            Further arguments of `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for inliers. With ``calibration="empirical_null"``, these are the
            flags of `p_values_`, from models that have not seen the row; otherwise `predict`
            gives them, as for scikit-learn's novelty detectors, or the held-out scores do, if
            `contamination` is a number and these set the threshold.
        """
        labels = super().fit_predict(X, y, **kwargs)
        p_values = getattr(self, "p_values_", np.full(1, np.nan))
        if np.isnan(p_values).any():
            return labels
        return np.where(self.flag(p_values), -1, 1)

    def flag(self, p_values: ArrayLike) -> Flags:
        """Return which p-values are flagged, by `fdr` if it is set, otherwise by `alpha`.

        Parameters
        ----------
        p_values : array-like of shape (n_samples,)
            The result of `p_values`, or the ``p_values_`` of the rows of `fit`.

        Returns
        -------
        outlier : ndarray of shape (n_samples,) of bool
            Whether a row is an outlier.
        """
        check_is_fitted(self)
        self._checked_null()
        self._check_fdr_method()
        p_values = np.asarray(p_values, dtype=np.float64)
        if not ((p_values >= 0) & (p_values <= 1)).all():
            raise ValueError(
                "p_values must lie between 0 and 1. (The p_values_ of rows that no model has held "
                "out are NaN: set cv to a number of folds.)"
            )
        if self.fdr is None:
            return p_values <= self.alpha
        flagged = discoveries(p_values, self.fdr, self.fdr_method, sum(map(len, self._calibration)))
        least = least_p_value(self.null_)
        n_least = (p_values == least).sum()
        if n_least and not flagged.any():
            needed = self.fdr * n_least / len(p_values)
            warn_user(
                f"Some rows have the smallest possible p-value, {least:.2g}, but none is flagged: "
                f"for {n_least} of {len(p_values)} rows, fdr={self.fdr:g} needs {needed:.2g}. Give "
                "more rows to calibrate, or use flag(p_values(X, randomized=True))."
            )
        return flagged

    def batch_p_value(
        self, X: Table, *, n_resamples: int = 2000, random_state: RandomState = None
    ) -> float:
        """Return the p-value of a whole batch of rows: whether it differs from the rows of `fit`.

        The test is two-sided, since rows can also be too likely (as in the typicality test). It
        compares the mean rank of the batch among the scores of the calibration rows with the mean
        ranks of batches drawn from both together. Many rows reveal a shift that no single row does.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows, as one batch.

        n_resamples : int, default=2000
            Number of batches to compare with.

        random_state : int, RandomState instance or None, default=None
            Seed of these batches. None draws the same ones in each call.

        Returns
        -------
        p_value : float
            At least ``1 / (n_resamples + 1)``. With a single model it is exact: a batch of inliers
            has a p-value of ``a`` or less with probability ``a`` at most.

        References
        ----------
        Nalisnick, Matsukawa, Teh & Lakshminarayanan, "Detecting Out-of-Distribution Inputs to Deep
        Generative Models Using Typicality", 2019.
        """
        check_is_fitted(self)
        self._checked_null()
        check_integer("n_resamples", n_resamples)
        rng = check_random_state(0 if random_state is None else random_state)
        scores = self.score_samples(X)
        ranks = rankdata(equalized(np.concatenate([scores, *self._calibration])))
        weight = uneven(np.concatenate([np.ones(len(scores)), *self._calibration_weights]))
        shares = None if weight is None else weight / weight.sum()
        centre = np.average(ranks, weights=shares)
        observed = np.abs(ranks[: len(scores)].mean() - centre)
        means = [
            rng.choice(ranks, len(scores), replace=False, p=shares).mean()
            for _ in range(n_resamples)
        ]
        # Equal means may differ by rounding errors.
        is_as_odd = np.abs(np.array(means) - centre) >= observed * (1 - 1e-12)
        return float((1 + is_as_odd.sum()) / (n_resamples + 1))

    def explain(
        self,
        X: Table,
        *,
        n_orders: int = 8,
        random_state: RandomState = None,
        as_frame: bool = False,
        as_shap: bool = False,
    ) -> "Rows | Explanation":
        """Return the contribution of each column to the score of each row.

        Starting from a similar training row, the columns are set to the values of the row to be
        explained one by one, in a random order and in its reverse; the change of the score is the
        contribution of that column. Contributions are averaged over the orders, each from another
        training row; the score of these rows themselves is shared equally by all columns. Columns
        that are odd only together each get a share: `odd_pairs` finds these. Columns that follow
        from others by a rule of a `TableDensity` follow in these mixed rows too.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. A density may have learnt the odd values of rows that it was fitted to.

        n_orders : int, default=8
            Number of orders.

        random_state : int, RandomState instance or None, default=None
            Seed of the orders. None draws the same ones in each call.

        as_frame : bool, default=False
            Return a pandas DataFrame with the column names seen in `fit`, and the index of X if
            that is a DataFrame.

        as_shap : bool, default=False
            Return a `shap.Explanation` for the plots of `shap`, which must be installed. The score
            of the training rows is then its `base_values` instead of being shared by the columns.

        Returns
        -------
        contributions : ndarray, DataFrame or Explanation of shape (n_samples, n_features)
            Each row, with its base value if there is one, adds up to ``score_samples(X)``; the
            oddest column has the lowest value.

        References
        ----------
        Strumbelj & Kononenko, "Explaining Prediction Models and Individual Predictions with Feature
        Contributions", 2014.
        """
        check_is_fitted(self)
        check_integer("n_orders", n_orders)
        if as_frame and as_shap:
            raise ValueError("as_frame=True and as_shap=True: set only one of them.")
        if as_frame:
            check_has_names(self)
        index = index_of(X)
        rows = self._validated(X)
        changes, base = self._contributions(rows, n_orders, random_state)
        if as_shap:
            import shap  # optional

            names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(rows.shape[1])])
            data = rows
            if self._encoding is not None:
                data = np.asarray(self._encoding.decode(rows), object)
            return shap.Explanation(changes, base_values=base, data=data, feature_names=names)
        changes = with_base(changes, base)
        return data_frame(changes, self.feature_names_in_, index) if as_frame else changes

    def odd_pairs(
        self, X: Table, *, n_orders: int = 8, random_state: RandomState = None
    ) -> list[tuple | None]:
        """Return the two columns of each row that are odd only together, if there are any.

        It needs rows of numbers: a detector of texts, dates or missing values has only `explain`.

        `explain` gives each column its share of such a combination, for example of a small weight
        *with* a great height. This looks for a partner of the column with the lowest contribution.
        Normal rows with nearly its value take it over, those with nearly the values of both columns
        take over both, and the scores change. A pair is reported if the row is odd (below the lower
        Tukey fence of the normal scores), the change for both values exceeds 1.5 interquartile
        ranges of these, and the changes for single values add up to less than a fifth of it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        n_orders : int, default=8
            Number of orders, as in `explain`.

        random_state : int, RandomState instance or None, default=None
            Seed of the orders, as in `explain`.

        Returns
        -------
        pairs : list of tuple or None
            For each row, the names of the two columns, or their indices if columns have no names:
            first the one with the lowest contribution. None where a value is odd alone, or where
            nothing is odd.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> from skflows import DensityOutlierDetector
        >>> X = np.random.default_rng(0).standard_normal((300, 3))
        >>> X[:, 1] = X[:, 0] + 0.1 * X[:, 1]  # two columns that are nearly equal
        >>> detector = DensityOutlierDetector(GaussianMixture(), random_state=0).fit(X)
        >>> detector.odd_pairs([[1.0, -1.0, 0.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
        [(0, 1), None, None]
        """
        check_is_fitted(self)
        if self._encoding is not None:
            raise ValueError(
                "odd_pairs needs complete rows of numbers; explain takes texts, dates and missing "
                "values too."
            )
        oddest = np.asarray(self.explain(X, n_orders=n_orders, random_state=random_state))
        rows = validate_rows(self, X, reset=False)
        oddest = oddest.argmin(axis=1)
        names = getattr(self, "feature_names_in_", range(rows.shape[1]))
        return [
            None if partner < 0 else (names[column], names[partner])
            for column, partner in zip(oddest, partners_of(self, rows, oddest), strict=True)
        ]

    def _contributions(self, X, n_orders, random_state):
        """Return the contributions, and the base values that they add up to the score with."""
        rng = check_random_state(0 if random_state is None else random_state)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ColumnWarning)  # of rows that are not the user's
            parts = [
                contributions(model, X, self._reference, n_orders, rng) for model in self.models_
            ]
        changes, base = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
        if len(self.models_) > 1:
            # The score is not quite the mean over the folds.
            scores, sums = self._score_rows(X), changes.sum(axis=1)
            np.subtract(scores, sums, out=base, where=np.isfinite(scores) & np.isfinite(sums))
        return changes, base
