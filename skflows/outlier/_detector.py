"""An outlier detector by any density estimator."""

from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from .._auto import AutoDensity
from ..density._protocol import check_is_density, is_frozen
from ..density._surface import OutlierDensityMixin
from ..density._validation import validate_rows
from ._calibrated import NULLS, CalibratedMixin
from ._calibration import pooled
from ._explain import ExplainedMixin
from ._fit import fit_scored
from ._scores import SCORES, Setting


class DensityOutlierDetector(
    ExplainedMixin, CalibratedMixin, OutlierDensityMixin, MetaEstimatorMixin, BaseEstimator
):
    """Outlier detector by a density: scores, p-values, false discovery rate, explanations.

    It wraps any density estimator, of this package or of scikit-learn.

    Parameters
    ----------
    estimator : estimator, default=None
        A density estimator with `fit` and `score_samples`. None is `skflows.AutoDensity`. One
        that is fitted already stays as it is inside a `sklearn.frozen.FrozenEstimator`; the
        rows of `fit` then only calibrate it. Estimators see arrays: columns are named by number.

    statistic : str, default="log_pool"
        The score, one of `skflows.outlier.SCORES`; higher always means more normal.

        - "log_pool": of mixtures such as `skflows.AutoDensity`, the mean of the log-densities of
          its components, with a vote for each kind: the likeliest mixture, kernels and flow on
          columns that are scaled, whitened or taken through their quantiles. Which of these
          predicts best says little of rows that are unlike all others. Of other estimators, the
          log-density.
        - "log_density": the log-density, in nats.
        - "latent_norm": minus the distance to the origin of the latent space, of estimators with
          `transform`.
        - "typicality": ``-abs(log_density - mean)``, the mean being that of unseen rows: too
          dense is odd as well.
        - "score_norm": minus the norm of the gradient of the log-density, per standard deviation
          of each column.
        - "likelihood_ratio": the log-density less that of a `background` density.
        - "ensemble": the log-density of log-density, score norm, likelihood ratio and latent
          norm (if there is one) as seen on unseen rows, by a Gaussian copula.

    background : estimator, default=None
        Density for the likelihood ratio. None is another `estimator`, fitted to the rows with
        30 % of the values replaced by those of other rows.

    calibration : {"conformal", "empirical_null"} or None, default=None
        How scores become p-values.

        - "conformal": by the ranks among scores of rows that the density has not seen, all of
          which should be inliers. No more than a fraction ``a`` of new inliers then has a p-value
          of ``a`` or less, whatever the density.
        - "empirical_null": by the gamma distributions of the surprise (minus the score) that fit
          the more normal three quarters of the rows, which may hold outliers. This is a model,
          not a guarantee.

    cv : "auto", int, cross-validation generator or iterable, default="auto"
        How rows are held out to calibrate. A single split, as of ``ShuffleSplit(1)``, is split
        conformal prediction; several folds, each with its own model, are cross-conformal. "auto"
        takes the held-out scores that the estimator keeps (`skflows.AutoDensity` and
        `skflows.StackedDensity` do), else 5 folds; without calibration it holds nothing out. The
        empirical null, which judges the rows of `fit` too, has such an estimator hold out all.

    alpha : float, default=0.05
        The p-value up to which `predict` flags a row, with calibration.

    fdr : float, default=None
        False discovery rate: the largest fraction of false flags among those of `predict`, on
        average. The label of a row then depends on the rows beside it, and among clean rows there
        may be no flag at all, while scikit-learn's checks ask for one. None flags by `alpha`.

    fdr_method : {"bh", "by", "adaptive"}, default="bh"
        Benjamini-Hochberg; Benjamini-Yekutieli, for any dependence of the rows; or
        Benjamini-Hochberg with Storey's estimate of the fraction of inliers.

    trim : float or "auto", default=0.0
        Fraction of the rows that is left out of the fit of the density, the least likely ones,
        in turns of fit and choice. "auto" takes `contamination` if that is a number, else 0.

    contamination : float, "auto" or None, default="auto"
        Fraction of outliers in the rows of `fit`. A number puts the threshold of `predict` at
        that quantile of their scores. "auto" takes the one of `alpha` with calibration, and the
        lower Tukey fence, Q1 - 1.5 (Q3 - Q1), without. None sets no threshold.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds, the noise of the background and the estimator, if that is None; another
        has a seed of its own.

    Attributes
    ----------
    models_ : list of tuple
        The fitted density of each fold, or a single one, with its score.

    held_out_scores_ : ndarray of shape (n_samples,)
        Score of each row of `fit` by a model that had not seen it, nan where there is none.

    p_values_ : ndarray of shape (n_samples,)
        With ``calibration="empirical_null"``: the p-values of these scores. (With "conformal" the
        rows of `fit` are what others are compared with.)

    offset_ : float
        Score below which `predict` calls a row an outlier, unless `fdr` is set.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Genest & Zidek, "Combining Probability Distributions: A Critique and an Annotated
    Bibliography", 1986 (the logarithmic opinion pool).

    Le Lan & Dinh, "Perfect Density Models Cannot Guarantee Anomaly Detection", 2021 (scores
    depend on the coordinates).

    Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005.

    Vovk, "Cross-Conformal Predictors", 2015.

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
        "statistic": [StrOptions(set(SCORES))],
        "background": [HasMethods(["fit", "score_samples"]), None],
        "calibration": [StrOptions(set(NULLS)), None],
        "cv": [StrOptions({"auto"}), "cv_object"],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "fdr": [Interval(Real, 0, 1, closed="neither"), None],
        "fdr_method": [StrOptions({"bh", "by", "adaptive"})],
        "trim": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="both")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        statistic="log_pool",
        background=None,
        calibration=None,
        cv="auto",
        alpha=0.05,
        fdr=None,
        fdr_method="bh",
        trim=0.0,
        contamination="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.statistic = statistic
        self.background = background
        self.calibration = calibration
        self.cv = cv
        self.alpha = alpha
        self.fdr = fdr
        self.fdr_method = fdr_method
        self.trim = trim
        self.contamination = contamination
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the density, its score and the calibration.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        X = validate_rows(self, X, ensure_min_samples=2)
        random_state = check_random_state(self.random_state)
        estimator = self.estimator
        if estimator is None:
            estimator = AutoDensity(random_state=random_state.randint(2**31 - 1))
        self._check_suits(estimator, X)
        estimator = self._with_folds(estimator)
        setting = Setting(estimator, self.background, random_state)
        trim = self.trim
        if isinstance(trim, str):  # "auto"
            trim = self.contamination if isinstance(self.contamination, Real) else 0.0
        splits = self._splits(estimator, X, random_state)
        parts = [train for train, _ in splits] or [slice(None)]
        self.models_ = [fit_scored(self.statistic, setting, X[part], trim) for part in parts]
        self._set_held_out(estimator, X, splits)
        self._set_threshold(X)
        self._set_reference(X, random_state)
        return self

    def _check_suits(self, estimator, X):
        check_is_density(estimator)
        if is_frozen(estimator) and self.background is None and SCORES[self.statistic].compares:
            raise ValueError(
                f"statistic={self.statistic!r} compares the density with a background, which a "
                "fitted estimator cannot be fitted to: give a background."
            )
        if self.fdr is not None and self.calibration is None:
            raise ValueError(
                f"fdr={self.fdr} needs p-values: set calibration to one of {list(NULLS)}."
            )
        if self.statistic == "latent_norm" and not hasattr(estimator, "transform"):
            raise ValueError(
                f"statistic='latent_norm' needs a latent space, and {type(estimator).__name__} "
                "has no transform: give a flow, such as NSFDensity, or choose another statistic."
            )
        names = getattr(self, "feature_names_in_", None)
        known = getattr(estimator, "feature_names_in_", names)
        if names is not None and list(names) != list(known):
            raise ValueError(
                f"X has the columns {list(names)}, but the fitted estimator has {list(known)}: "
                "pass the same columns in the same order."
            )

    def score_samples(self, X):
        """The score of each row, by the chosen statistic: the lower, the more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats, for the statistics that are made of log-densities.
        """
        return super().score_samples(X)

    def _score_rows(self, X):
        return pooled([model.score_samples(X) for model in self.models_], self._calibration)

    def score(self, X, y=None):
        """Mean log-density of the rows, whatever the statistic: for searches without labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        y : None
            Ignored.

        Returns
        -------
        score : float
            In nats per row.
        """
        check_is_fitted(self)
        X = validate_rows(self, X, reset=False)
        return float(np.mean([model.log_density(X) for model in self.models_]))
