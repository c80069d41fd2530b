"""PointFlow: the density of clouds of points, by a code for each cloud."""

from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from ..callbacks._run import clock
from ..columns.arrays import check_integer
from ..columns.types import Floats, RandomState
from ..density._flow_density import FlowDensity, architecture
from ..density._nsf import NSFDensity
from ..density._objects import ObjectDensity
from ..preprocessing.sklearn_compat import Interval
from ..training.threads import fit_context
from ._clouds import counts_of, read_clouds

POINTS = {"n_transforms": 3, "hidden_layer_sizes": (128, 128), "dropout": 0.0}
CODES = {"n_transforms": 2, "autoregressive": False, "dropout": 0.0}
TAIL_SCALE = 5.0  # of standardised points, beyond which they grow logarithmically


class PointCloudDensity(ObjectDensity):
    """Density of clouds of points by PointFlow: a code for each cloud, and a flow of its points.

    A row is a cloud: a set of points in the plane, in space or of more coordinates, whose order
    does not matter. An encoder, which averages over the points, gives a normal distribution of the
    cloud's code; a flow is the prior of codes; another flow is the density of single points given
    the code. All are trained together, by the variational bound.

    Parameters
    ----------
    density : FlowDensity, default=None
        The flow of points, of which the architecture and the objective are used: its parameters of
        training and preprocessing have no effect. None takes an `NSFDensity`; a `CNFDensity` is
        trained by flow matching.

    code_size : int, default=32
        Size of the code, two at least.

    hidden_size : int, default=128
        Size of the hidden layers of the encoder.

    n_points : int, default=64
        Number of points of a cloud that a step of the training draws for the encoder; the flow of
        points is trained on a quarter of them.

    n_draws : int, default=8
        Number of codes that a score draws.

    {clouds_training}

    Attributes
    ----------
    network_ : torch.nn.Module
        The encoder, the prior and the flow of points, in float64.

    n_points_ : ndarray of shape (n_clouds,)
        Number of points of each cloud of `fit`.

    history_ : dict of list
        ``loss``, ``divergence`` (of the codes, from the prior), ``validation_score`` (a bound by
        one draw, and a quarter of ``n_points`` points of each held-out cloud) and
        ``learning_rate`` of each epoch.

    {object_trained}

    offset_ : float
        Outlier threshold for `score_samples` divided by the number of points.

    n_features_in_ : int
        Number of coordinates of a point.

    References
    ----------
    Yang et al., "PointFlow: 3D Point Cloud Generation with Continuous Normalizing Flows", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skflows import NSFDensity
    >>> from skflows.sets import PointCloudDensity
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0, 2 * np.pi, (40, 50))
    >>> radius = rng.uniform(1, 2, (40, 1))
    >>> X = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # circles
    >>> flow = NSFDensity(n_transforms=2, hidden_layer_sizes=(16,))
    >>> density = PointCloudDensity(flow, code_size=2, max_iter=2, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, n_points=30, random_state=0).shape
    (2, 30, 2)
    """

    _n_of_fence = 200
    _parameter_constraints: dict = {
        **ObjectDensity._parameter_constraints,
        "density": [FlowDensity, None],
        "code_size": [Interval(Integral, 2, None, closed="left")],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "n_points": [Interval(Integral, 1, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        density=None,
        *,
        code_size=32,
        hidden_size=128,
        n_points=64,
        n_draws=8,
        batch_size=32,
        learning_rate_init=5e-3,
        max_iter=100,
        time_limit=None,
        validation_fraction=0.1,
        n_iter_no_change=50,
        contamination="auto",
        random_state=None,
        verbose="auto",
    ):
        self.density = density
        self.code_size = code_size
        self.hidden_size = hidden_size
        self.n_points = n_points
        self.n_draws = n_draws
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the density to clouds.

        Parameters
        ----------
        X : array-like of shape (n_clouds, n_points, n_features), or list of array-like
            The clouds, two at least; in a list, each may have another number of points.

        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        import torch

        from ..bijections import Asinh, Chain, Standardize
        from ._network import CloudBound, CloudNetwork, Encoder

        started = clock()
        clouds = read_clouds(X)
        d = self.n_features_in_ = clouds[0].shape[1]
        self.n_points_ = counts_of(clouds)

        def build():
            points = torch.from_numpy(np.concatenate(clouds))
            preprocess = Chain([Standardize(d), Asinh(TAIL_SCALE)])
            preprocess.initialize(points)
            points, log_det = preprocess(points)
            flow = self.density or NSFDensity(**POINTS)
            bijection, objective = architecture(flow, d, self.code_size)
            encoder = Encoder(d, self.code_size, self.hidden_size)
            prior, _ = architecture(NSFDensity(**CODES), self.code_size)
            network = CloudNetwork(encoder, prior, preprocess, bijection, d)
            sizes = self.n_points_, self.code_size, self.n_points
            return network, CloudBound(objective, points, log_det, *sizes)

        self._train(X, clouds, build, started=started, n_each=self.n_points)
        return self

    def _scores_of(self, network, clouds):
        return logsumexp(self._log_weights(network, clouds), axis=1) / counts_of(clouds)

    def _log_weights(self, network, clouds):
        noise = np.random.default_rng(0).standard_normal((self.n_draws, network.encoder.code_size))
        return np.array([network.log_weights(cloud, noise) for cloud in clouds])

    def score_samples(self, X: ArrayLike, *, return_std: bool = False) -> Any:
        """Return a lower bound of the log-density of each cloud.

        Parameters
        ----------
        X : array-like of shape (n_clouds, n_points, n_features), or list of array-like
            The clouds, with any numbers of points.

        return_std : bool, default=False
            Return the standard error too.

        Returns
        -------
        log_density : ndarray of shape (n_clouds,)
            In nats, of all points of a cloud, given their number: the logarithm of a mean over
            ``n_draws`` codes from the encoder's distribution, with importance weights. Its
            expectation is a lower bound of the log-density, which more draws tighten. The draws
            are the same in each call.

        standard_error : ndarray of shape (n_clouds,)
            Standard error of the logarithm due to the draws; NaN with one draw. It is too small if
            few draws carry the weight: more than about 0.5 is not to be trusted. Only if
            ``return_std`` is true.
        """
        check_is_fitted(self)
        log_weights = self._log_weights(self.network_, read_clouds(X, self.n_features_in_))
        scores = logsumexp(log_weights, axis=1)
        if not return_std:
            return scores
        shares = np.exp(log_weights - scores[:, None])
        if self.n_draws == 1:
            return scores, np.full(len(scores), np.nan)
        return scores, shares.std(axis=1, ddof=1) * np.sqrt(self.n_draws)

    def decision_function(self, X: ArrayLike) -> Floats:
        """Return the score per point above the outlier threshold: negative for outliers.

        Parameters
        ----------
        X : array-like of shape (n_clouds, n_points, n_features), or list of array-like
            The clouds.

        Returns
        -------
        scores : ndarray of shape (n_clouds,)
            ``score_samples(X)`` divided by the numbers of points, minus ``offset_`` if there is a
            threshold.
        """
        scores = self.score_samples(X) / counts_of(X)
        return scores if np.isneginf(self.offset_) else scores - self.offset_

    def transform(self, X: ArrayLike) -> Floats:
        """Return the latent code of each cloud.

        Parameters
        ----------
        X : array-like of shape (n_clouds, n_points, n_features), or list of array-like
            The clouds.

        Returns
        -------
        codes : ndarray of shape (n_clouds, code_size)
            Where the prior maps the mean code that the encoder gives: standard normal if the fit is
            perfect.
        """
        check_is_fitted(self)
        return self.network_.encoded(read_clouds(X, self.n_features_in_))

    def inverse_transform(
        self, X: ArrayLike, n_points: Any = None, random_state: RandomState = None
    ) -> Any:
        """Draw a cloud for each latent code.

        Parameters
        ----------
        X : array-like of shape (n_clouds, code_size)
            Latent codes, as `transform` returns.

        n_points : int or array-like of shape (n_clouds,), default=None
            Number of points of each cloud; None draws from the numbers in `fit`.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        clouds : ndarray of shape (n_clouds, n_points, n_features), or list of ndarray
            A list if numbers of points differ.
        """
        check_is_fitted(self)
        latent = check_array(X, dtype=np.float64, input_name="X")
        if latent.shape[1] != (size := self.network_.encoder.code_size):
            raise ValueError(
                f"X has {latent.shape[1]} columns; it must have code_size={size}, as the output of "
                "transform."
            )
        rng = check_random_state(random_state)
        if n_points is None:
            n_points = rng.choice(self.n_points_, len(latent))
        if np.ndim(n_points) and len(n_points) != len(latent):
            raise ValueError(
                f"n_points has {len(n_points)} numbers for {len(latent)} clouds; give one for "
                "each, or one for all."
            )
        counts = np.broadcast_to(n_points, len(latent))
        for count in counts.tolist():
            check_integer("n_points", count)
        noise = rng.standard_normal((counts.sum(), self.n_features_in_))
        clouds = self.network_.decoded(latent, counts, noise)
        return np.stack(clouds) if len({*counts.tolist()}) == 1 else clouds

    def reconstruct(
        self, X: ArrayLike, n_points: Any = None, random_state: RandomState = None
    ) -> Any:
        """Draw a cloud for the code of each cloud.

        Parameters
        ----------
        X : array-like of shape (n_clouds, n_points, n_features), or list of array-like
            The clouds.

        n_points : int or array-like of shape (n_clouds,), default=None
            Number of points of each new cloud; None for as many as the cloud has.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        Returns
        -------
        clouds : ndarray of shape (n_clouds, n_points, n_features), or list of ndarray
            A list if numbers of points differ.
        """
        codes = self.transform(X)
        n_points = counts_of(X) if n_points is None else n_points
        return self.inverse_transform(codes, n_points, random_state)

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None, *, n_points: Any = None
    ) -> Any:
        """Draw clouds.

        Parameters
        ----------
        n_samples : int, default=1
            Number of clouds.

        random_state : int, RandomState instance or None, default=None
            Seed of the draw.

        n_points : int or array-like of shape (n_samples,), default=None
            Number of points of each cloud; None draws from the numbers in `fit`.

        Returns
        -------
        clouds : ndarray of shape (n_samples, n_points, n_features), or list of ndarray
            A list if numbers of points differ.
        """
        check_is_fitted(self)
        check_integer("n_samples", n_samples)
        rng = check_random_state(random_state)
        latent = rng.standard_normal((n_samples, self.network_.encoder.code_size))
        return self.inverse_transform(latent, n_points, rng)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
