"""Iterative Gaussianisation: a flow that is fitted layer by layer, without gradients."""

from numbers import Integral

from ..preprocessing.sklearn_compat import Interval, StrOptions
from ._base import BaseFlowDensity


class GaussianizationDensity(BaseFlowDensity):
    """Density by iterative Gaussianisation: rotate, map each column to a normal one, repeat.

    Rows that are normal in every direction are standard normal. Each layer rotates the rows to the
    directions in which they are least normal and maps these to normal ones, through their
    quantiles; held-out rows decide when to stop. There is no gradient and little to tune: it takes
    seconds, and is strong on small tables. A table of fewer than 40 rows gets a single, linear
    layer.

    Parameters
    ----------
    n_bins : int or "auto", default="auto"
        Number of bins between the quantiles of a column. "auto" chooses it for each column by
        held-out likelihood, 0 (a linear map) among the candidates.

    rotation : {"ica", "random"}, default="ica"
        Directions of each layer: by independent component analysis, or random ones, which take more
        layers.

    preprocessing : str or sequence of str, default=("quantile", "whiten")
        Fixed maps in front of the layers, as in the other flows: "standardize", "whiten" or
        "quantile".

    {data}

    max_iter : int, default=50
        Largest number of layers.

    time_limit : float, default=None
        Seconds after which no further layer is begun.

    early_stopping : bool or "auto", default="auto"
        Whether to hold out ``validation_fraction`` of the rows, keep the number of layers with the
        best score on them and stop when it no longer improves. "auto" does so from 40 rows on.

    validation_fraction : float, default=0.1
        Fraction of the rows held out.

    n_iter_no_change : int, default=5
        Layers without improvement on the held-out rows after which the fit stops.

    tol : float, default=1e-4
        Minimum improvement, in nats per row, to reset the patience.

    {contamination}

    random_state : int, RandomState instance or None, default=None
        Seeds the rotations, the held-out rows and the noise on discrete columns.

    verbose : "auto" or int, default="auto"
        "auto" prints at a terminal or in a notebook how far a fit of more than ten seconds is.
        0 and False print nothing, and other numbers the loss every ``verbose`` layers.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Chen & Gopinath, "Gaussianization", 2000.
    Laparra, Camps-Valls & Malo, "Iterative Gaussianization: from ICA to Random Rotations", 2011.
    Tabak & Turner, "A Family of Nonparametric Density Estimation Algorithms", 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import GaussianizationDensity
    >>> X = load_iris().data
    >>> density = GaussianizationDensity(random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    _parameter_constraints: dict = {
        **BaseFlowDensity._parameter_constraints,
        "rotation": [StrOptions({"ica", "random"})],
        "n_bins": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
    }

    _remedy_for_inexact_inverse = "fewer layers (max_iter)"

    def __init__(
        self,
        *,
        n_bins="auto",
        rotation="ica",
        preprocessing=("quantile", "whiten"),
        bounds=None,
        discrete="auto",
        max_iter=50,
        time_limit=None,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-4,
        contamination="auto",
        random_state=None,
        verbose="auto",
    ):
        self.n_bins = n_bins
        self.rotation = rotation
        self.preprocessing = preprocessing
        self.bounds = bounds
        self.discrete = discrete
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.contamination = contamination
        self.random_state = random_state
        self.verbose = verbose

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import Chain

        return Chain([])

    def _start_fit(self, table, held_out, warm, increment, max_iter):
        from ..training.layerwise_fit import LayerwiseFit

        return LayerwiseFit(self._recipe(max_iter), table, held_out, self.rotation, self.n_bins)
