"""Defects in images: the density of local features at the least probable places."""

import copy
import math
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from ..callbacks._progress import VERBOSE
from ..callbacks._run import clock, fit_task
from ..callbacks._support import CallbackSupportMixin
from ..columns.arrays import checked_number, grid_shape, validate_rows
from ..columns.types import Floats, Table
from ..conditional import ConditionalDensity
from ..density import RealNVPDensity
from ..density._outlier_labels import OutlierLabelsMixin
from ..density._third_party import (
    fit_subtask,
    time_limits,
    was_interrupted,
    with_time_limit,
)
from ..ensemble._stacked import clone_with_seeds
from ..persistence.mixin import PersistenceMixin
from ..preprocessing.sklearn_compat import HasMethods, Interval, Options, StrOptions
from ..training.threads import fit_context, one_thread_if_forked
from ._detector import NULLS, DensityOutlierDetector

MAX_PLACES = 20_000  # that a density is fitted to
HELD_OUT = 5  # one of so many images is held out for early stopping
VALUES_AT_ONCE = 2**18
WORST = 0.03  # fraction of the places of an image, the least likely ones, that make its score
SIGMA = 3.0  # places, of the Gaussian that weighs the surroundings of a place
MIN_PLACES = 64  # below which images are too small to learn what surrounds a place


class DefectDetector(OutlierLabelsMixin, CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Detector of defects in images, from images without defects.

    Use it for few images and for maps; with 200 images or more, distances to the nearest of their
    features, minus the features of the surroundings, rank images a little better
    (``benchmarks/defects.md``). A flow learns the density of local features: the responses of a
    fixed bank of filters, at several scales, around each place of the images and of their
    rotations. It is conditional, given the mean features of the surroundings: a defect differs from
    what is around it, and images differ from each other. The score of an image is the mean
    log-density of its features at the 3 % of the places where that is lowest, averaged over
    rotations. This is DifferNet (Rudolph et al., 2021) with features at many places, in place of
    one row of features for an image: a few images then have enough rows for a flow.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        Height, width and channels of the images, or height and width of grey ones. Rows are then
        flattened images, and all methods take arrays of shape ``(n_samples, height, width,
        channels)`` too. None takes the shape from such an array. Rows without a shape are read as
        square grey images if their length is a perfect square, otherwise as one line of pixels.

    features : callable or transformer, default=None
        Function or `torch.nn.Module` that takes a float32 tensor of images ``(n, channels, height,
        width)`` and returns their features, of shape ``(n, k)`` or, for many places, ``(n, k, rows,
        columns)``; for example the first layers of a pretrained network. Or a transformer of
        scikit-learn, which is cloned and fitted to flattened images. None is a bank of Gaussian
        derivatives: the logarithms of their local energies, for the first order in three
        orientations, the second one in four, and up to three scales, and the local mean.

    estimator : estimator, default=None
        Density of the features of a place, with `fit` and `score_samples`, or a
        `ConditionalDensity` of them given its surroundings: the mean of their features, weighted by
        a Gaussian whose standard deviation is 3 places. If its `cv` is None, whole images are held
        out for early stopping; folds are of places. None is a `ConditionalDensity` of a
        `RealNVPDensity`, with ``cv=None``, or that flow alone if images have fewer than 64 places.

    n_rotations : {1, 2, 4}, default=4
        Number of rotated copies of each image, by multiples of ``360 / n_rotations`` degrees, in
        `fit` and in scores. Choose 1 if the orientation of the images is fixed and matters.

    calibration : {"conformal", "empirical_null"} or None, default="conformal"
        How scores become p-values; see `DensityOutlierDetector`. None fits a single density, and
        sets the threshold by the scores of the images of `fit`.

    cv : "auto", int, cross-validation generator or iterable, default="auto"
        How images are held out to calibrate; "auto" is 5 folds. Each fold has a density of its own.

    alpha : float, default=0.05
        The p-value up to which `predict` flags an image. The smallest p-value of ``n`` images is
        ``1 / (n + 1)``.

    time_limit : float, default=None
        Seconds that the fit may take, approximately. Each fold has an equal share, of which its
        density gets what the features leave. The estimator must have a ``time_limit`` too.

    random_state : int, RandomState instance or None, default=None
        Seeds the folds, the choice of places and the density.

    verbose : "auto" or int, default="auto"
        "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is. 0
        and False print nothing, and other numbers the number of each fold.

    Attributes
    ----------
    detector_ : DensityOutlierDetector
        The fitted detector of flattened images, whose further methods combine p-values of images.

    image_shape_ : tuple of int
        Height, width and channels of the images.

    held_out_scores_ : ndarray of shape (n_samples,)
        Score of each image of `fit` by a model that had not seen it, NaN if there is none.

    offset_ : float
        Score below which `predict` labels an image as defective.

    n_features_in_ : int
        Number of values of an image.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Column names seen in `fit`, if they are all strings.

    References
    ----------
    Rudolph, Wandt & Rosenhahn, "Same Same But DifferNet: Semi-Supervised Defect Detection with
    Normalizing Flows", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows.outlier import DefectDetector
    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(24, 12, 12))
    >>> scratched = rng.normal(size=(1, 12, 12))
    >>> scratched[0, 6, 2:10] += 5
    >>> detector = DefectDetector(cv=2, random_state=0).fit(images)
    >>> detector.predict(scratched)
    array([-1])
    >>> detector.defect_map(scratched).shape
    (1, 12, 12)
    """

    _parameter_constraints: dict = {
        "image_shape": ["array-like", None],
        "features": [callable, HasMethods(["fit", "transform"]), None],
        "estimator": [HasMethods(["fit", "score_samples"]), ConditionalDensity, None],
        "n_rotations": [Options(Integral, {1, 2, 4})],
        "calibration": [StrOptions(set(NULLS)), None],
        "cv": [StrOptions({"auto"}), "cv_object"],
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        image_shape=None,
        *,
        features=None,
        estimator=None,
        n_rotations=4,
        calibration="conformal",
        cv="auto",
        alpha=0.05,
        time_limit=None,
        random_state=None,
        verbose="auto",
    ):
        self.image_shape = image_shape
        self.features = features
        self.estimator = estimator
        self.n_rotations = n_rotations
        self.calibration = calibration
        self.cv = cv
        self.alpha = alpha
        self.time_limit = time_limit
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: object = None) -> Self:
        """Fit the density of the features, and calibrate the scores.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images without defects, flattened or not.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        shape = self._shape_of(X)
        rows = validate_rows(self, X, ensure_min_samples=2, shape=shape or ())
        self._row_shape = shape
        self.image_shape_ = shape or shape_of_rows(rows.shape[1])
        random_state = check_random_state(self.random_state)
        density = FeatureDensity(
            self.image_shape_,
            self.features,
            self.estimator,
            self.n_rotations,
            random_state.randint(2**31 - 1),
        )
        detector = DensityOutlierDetector(
            density,
            calibration=self.calibration,
            cv=self.cv,
            alpha=self.alpha,
            random_state=random_state.randint(2**31 - 1),
            verbose=self.verbose,
        )
        if self.time_limit is not None:
            if self.estimator is not None and not time_limits(self.estimator):
                raise ValueError(
                    f"time_limit={self.time_limit:g}, but {type(self.estimator).__name__} has no "
                    "time_limit: give a flow, a ConditionalDensity of a flow, or no time_limit."
                )
            if hasattr(self.cv, "__next__"):  # splits that can be counted only once
                detector.cv = list(self.cv)
            density.time_limit = self.time_limit / detector._n_fits(rows)
        with fit_task(self, X, y, max_subtasks=1) as task:
            self.detector_ = fit_subtask(task, detector, rows)
            self.offset_ = self.detector_.offset_
            self.held_out_scores_ = self.detector_.held_out_scores_
        return self

    def _shape_of(self, X):
        """Return the shape of the images of `fit`, or None for rows without one."""
        shape, given = self.image_shape, X.shape if hasattr(X, "shape") else np.asarray(X).shape
        if shape is None and len(given) <= 2:
            return None
        shape = given[1:] if shape is None else shape
        return grid_shape("image_shape", tuple(shape) + (1,) * (len(shape) == 2))

    def _detector_of(self, X):
        """Return the fitted detector and flattened images."""
        check_is_fitted(self)
        return self.detector_, validate_rows(self, X, reset=False)

    def score_samples(self, X: Table) -> Floats:
        """Return the score of each image: the lower, the more probably it has a defect.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images, flattened or not.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Mean log-density of the features, in nats, at the 3 % of the places where it is lowest,
            averaged over rotations and folds.
        """
        detector, rows = self._detector_of(X)
        return detector.score_samples(rows)

    def p_values(self, X: Table) -> Floats:
        """Return the p-value of each image under the distribution of images without defects.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New images, flattened or not.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            Between 0 and 1; see `DensityOutlierDetector.p_values`.
        """
        detector, rows = self._detector_of(X)
        return detector.p_values(rows)

    def defect_map(self, X: Table, *, sigma: float = 2.0) -> Floats:
        """Return the sensitivity of each image's anomaly score to its pixels.

        This is the absolute gradient of minus the score in the pixels, summed over channels and
        smoothed; the surroundings of each place are held fixed. It needs features and a density
        through which torch can differentiate: the default ones can.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images, flattened or not.

        sigma : float, default=2.0
            Standard deviation of the Gaussian that smooths the map, in pixels; 0 for none.

        Returns
        -------
        defect_map : ndarray of shape (n_samples, height, width)
            In nats per unit of the pixels; high where a defect is probable.
        """
        from scipy.ndimage import gaussian_filter

        sigma = checked_number("sigma", sigma)
        detector, rows = self._detector_of(X)
        slopes = np.mean([m.density.score_gradient(rows) for m in detector.models_], axis=0)
        pixels = np.abs(slopes).reshape(len(rows), *self.image_shape_).sum(axis=-1)
        return gaussian_filter(pixels, (0, sigma, sigma), mode="nearest")


def shape_of_rows(n_features):
    """Return the shape of images that come as rows of a given length, without a shape."""
    side = math.isqrt(n_features)
    return (side, side, 1) if side**2 == n_features else (1, n_features, 1)


def default_flow():
    """Return the flow of features that is used if no density is given."""
    return RealNVPDensity(
        n_transforms=4,
        hidden_layer_sizes=(64,),
        dropout=0.0,
        preprocessing="standardize",
        input_noise=0.3,
        discrete=None,
        contamination=None,
        learning_rate_init=5e-3,
        max_iter=20,
    )


class GivenSurroundings(PersistenceMixin, BaseEstimator):
    """Rows of features and of their surroundings: the density of the first half given the other."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None, X_val=None):
        density = clone(self.estimator).set_params(trees=False)  # whose outputs are too many
        cv = density.cv
        if X_val is not None:
            n, X = len(X), np.concatenate([X, X_val])
            if cv is None:
                density.set_params(cv=[(np.arange(n), np.arange(n, len(X)))])
        features, around = np.hsplit(X, 2)
        with warnings.catch_warnings():  # of a blank channel, which users do not know as y
            warnings.filterwarnings("ignore", "y has a single value in column")
            self.density_ = density.fit(around, features)
        self._interrupted = was_interrupted(self.density_)
        if cv is None:  # indices would be saved with the model
            density.set_params(cv=None).held_out_ = [None]
        return self

    def score_samples(self, X):
        features, around = np.hsplit(X, 2)
        return self.density_.log_prob(around, features)

    def distribution(self):
        return self

    def log_prob(self, rows):
        """Return what `score_samples` does, of a tensor (..., 2 k), by torch operations.

        It has no gradient in the surroundings: maps find defects better without it.
        """
        import torch

        features, around = rows.flatten(0, -2).chunk(2, 1)
        if len(self.density_.encoder_) > 1:
            raise ValueError("defect_map needs a ConditionalDensity with encoder='auto'.")
        around = torch.from_numpy(self.density_._encoded(around.detach().numpy()))
        terms = [flow.log_prob(torch.cat([features, around], 1)) for flow in self.density_.flows_]
        return torch.stack(terms).logsumexp(0).sub(math.log(len(terms))).view(rows.shape[:-1])


class TransformedImages(PersistenceMixin):
    """Features of images by a fitted transformer of flattened images."""

    def __init__(self, transformer):
        self.transformer = transformer

    def __call__(self, images):
        import torch

        rows = images.permute(0, 2, 3, 1).flatten(1).double().numpy()
        return torch.from_numpy(np.asarray(self.transformer.transform(rows), dtype=np.float32))


class FeatureDensity(PersistenceMixin, OutlierMixin, BaseEstimator):
    """Images, as rows of pixels, by the log-density of their features at the worst places.

    Parameters are as of `DefectDetector`.
    """

    def __init__(
        self, image_shape, features, estimator, n_rotations, random_state, time_limit=math.inf
    ):
        self.image_shape = image_shape
        self.features = features
        self.estimator = estimator
        self.n_rotations = n_rotations
        self.random_state = random_state
        self.time_limit = time_limit

    def fit(self, X, y=None):
        started = clock()
        from torch import nn

        from ..nn.filter_bank import FilterBank

        random_state = check_random_state(self.random_state)
        self.features_: Callable
        if self.features is None:
            pixels = np.asarray(X, dtype=np.float64).reshape(-1, self.image_shape[-1])
            self.features_ = FilterBank(pixels.mean(axis=0), pixels.std(axis=0))
        elif hasattr(self.features, "transform"):
            self.features_ = TransformedImages(clone(self.features).fit(X))
        else:
            self.features_ = copy.deepcopy(self.features)
            if isinstance(self.features_, nn.Module):
                # Statistics of batches would mix images.
                self.features_.eval().requires_grad_(False)
        estimator = clone_with_seeds(self._estimator_for(X[:1]), random_state)
        n_held_out = len(X) // HELD_OUT if has_fit_parameter(estimator, "X_val") else 0
        order = random_state.permutation(len(X))
        rows = self._some_places(X[order[n_held_out:]], MAX_PLACES, random_state)
        held_out = {}
        if n_held_out:  # whole images, because their places and copies resemble each other
            images = X[order[:n_held_out]]
            held_out["X_val"] = self._some_places(images, MAX_PLACES // HELD_OUT, random_state)
        estimator = with_time_limit(estimator, self.time_limit - (clock() - started))
        self.density_ = estimator.fit(rows, **held_out)
        self._interrupted = was_interrupted(self.density_)
        return self

    def _estimator_for(self, X):
        """Return the density of the features of images, and set whether it sees surroundings."""
        self.sees_surroundings_ = False
        n_places = next(self._copies(next(self._batches(X)))).shape[1]
        estimator = self.estimator
        if estimator is None:
            estimator = default_flow()
            if n_places >= MIN_PLACES:
                estimator = ConditionalDensity(estimator, cv=None)
        self.sees_surroundings_ = isinstance(estimator, ConditionalDensity)
        if not self.sees_surroundings_:
            return estimator
        if n_places == 1:
            raise ValueError(
                "A ConditionalDensity needs features at several places, (n, k, rows, columns): "
                "a single place has no surroundings. Give another density."
            )
        return GivenSurroundings(estimator)

    def _some_places(self, X, most, random_state):
        """Return the features at random places of some images and their copies, as rows."""
        parts = []
        for images in self._batches(X):
            share = math.ceil(most * len(images) / (len(X) * self.n_rotations))
            for rows in self._rows(images):
                if len(rows) > share:
                    rows = rows[np.sort(random_state.choice(len(rows), share, replace=False))]
                parts.append(rows)
        return np.concatenate(parts)

    @one_thread_if_forked()
    def score_samples(self, X):
        import torch

        scores = []
        for images in self._batches(X):
            found = np.stack([self.density_.score_samples(rows) for rows in self._rows(images)])
            places = torch.from_numpy(found).double().view(len(found), len(images), -1)
            scores.append(mean_of_worst(places).mean(0))
        return torch.cat(scores).numpy()

    @one_thread_if_forked()
    def score_gradient(self, X):
        """Return the gradient of the score of each image in its pixels, as rows."""
        import torch

        if not hasattr(self.density_, "distribution"):
            raise ValueError(
                f"defect_map needs a density that torch can differentiate, but "
                f"{type(self.density_).__name__} is not one: give a flow, such as RealNVPDensity."
            )
        log_prob, slopes = self.density_.distribution().log_prob, []
        for images in self._batches(X):
            images.requires_grad_()
            try:
                scores = [mean_of_worst(log_prob(places)) for places in self._copies(images)]
                total = torch.stack(scores).sum()
                (slope,) = torch.autograd.grad(total / self.n_rotations, images)
            except RuntimeError as error:
                raise ValueError(
                    "defect_map needs features that torch can differentiate: `features` must use "
                    "only torch operations on its input."
                ) from error
            slopes.append(slope.permute(0, 2, 3, 1).flatten(1).double().numpy())
        return np.concatenate(slopes)

    def _batches(self, X):
        """Yield tensors of images ``(n, channels, height, width)``."""
        import torch

        size = max(1, VALUES_AT_ONCE // X.shape[1])
        dtype = torch.float64 if self.features is None else torch.float32
        for start in range(0, len(X), size):
            rows = torch.tensor(X[start : start + size], dtype=dtype)
            yield rows.view(-1, *self.image_shape).permute(0, 3, 1, 2).contiguous()

    def _rows(self, images):
        """Yield the features at all places of each rotated copy of images, as rows."""
        for places in self._copies(images):
            yield places.flatten(0, 1).detach().numpy()

    def _copies(self, images):
        """Yield the features of each rotated copy of images, of shape (n, places, k).

        Those of the surroundings are beside them, if the density sees them.
        """
        import torch

        n = len(images)
        for i in range(self.n_rotations):
            turned = torch.rot90(images, 4 * i // self.n_rotations, (2, 3))
            maps = torch.as_tensor(self.features_(turned))
            if maps.dim() not in (2, 4) or len(maps) != n:
                raise ValueError(
                    f"features returned an array of shape {tuple(maps.shape)} for {n} images; it "
                    f"must return one of shape ({n}, k) or ({n}, k, rows, columns)."
                )
            maps = maps.double().reshape(*maps.shape[:2], *(maps.shape[2:] or (1, 1)))
            if self.sees_surroundings_:
                down, right = map(blur, maps.shape[2:])
                maps = torch.cat([maps, down @ maps @ right.T], 1)
            yield maps.flatten(2).mT


def n_worst(n_places):
    """Return the number of places that make the score of an image."""
    return max(1, round(WORST * n_places))


def mean_of_worst(scores):
    """Return the mean score of the worst places, which are the last axis."""
    return scores.topk(n_worst(scores.shape[-1]), largest=False).values.mean(-1)


def blur(n):
    """Return the matrix ``(n, n)`` that blurs n places in a line."""
    import torch
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(np.eye(n), SIGMA, axis=0, mode="nearest"))
