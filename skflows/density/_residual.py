"""Residual flow: invertible residual blocks."""

import copy
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..columns.arrays import validate_rows
from ..columns.types import Floats, Table
from ..preprocessing.sklearn_compat import Interval, StrOptions
from ._flow_density import FlowDensity


class ResidualDensity(FlowDensity):
    """Density by residual flow: rows plus networks of all their columns.

    Each block adds to a row the output of a network whose Lipschitz constant is below 1, so that
    rows never fold onto each other. A linear map, which starts at the identity, precedes each
    block. Densities are smooth, and no order or division of the columns is chosen. Samples and
    `inverse_transform` solve for the row of each block, up to rounding errors.

    Parameters
    ----------
    n_transforms : int, default=8
        Number of blocks.

    hidden_layer_sizes : int or tuple of int, default=(64,)
        Widths of the hidden layers of each network. The bound of the Lipschitz constant is a
        product over layers, and loosest for many of them: a single one fits best.

    log_det : {"auto", "exact", "series"}, default="auto"
        How log-determinants are computed: exactly, or by a power series with random signs
        (Hutchinson's estimate), whose cost grows linearly with the number of columns. "auto" is
        exact where a determinant has at most 128 rows, and in training at most 32: it has as many
        as there are columns, or units in a single hidden layer, if these are fewer.

    n_probes : int, default=8
        Vectors of random signs for the series in scores. They are the same for all rows and calls,
        so that scores are reproducible and independent of other rows; `score_standard_error`
        estimates their error. Terms are added until the rest is certainly below 1e-4 nats for each
        block. In training the estimate is unbiased: one vector is drawn for each row and step, and
        the number of terms is random.

    {preprocessing}

    {data}

    {training}

    Attributes
    ----------
    {trained}

    {attributes}

    References
    ----------
    Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen, "Invertible Residual Networks", 2019; Chen,
    Behrmann, Duvenaud & Jacobsen, "Residual Flows for Invertible Generative Modeling", 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import ResidualDensity
    >>> X = load_iris().data
    >>> density = ResidualDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    _parameter_constraints: dict = {
        **{
            name: constraint
            for name, constraint in FlowDensity._parameter_constraints.items()
            if name != "dropout"
        },
        "log_det": [StrOptions({"auto", "exact", "series"})],
        "n_probes": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_transforms=8,
        hidden_layer_sizes=(64,),
        log_det="auto",
        n_probes=8,
        preprocessing="quantile",
        bounds=None,
        discrete="auto",
        input_noise=0.0,
        batch_size="auto",
        learning_rate_init=5e-3,
        weight_decay=0.0,
        max_iter=100,
        time_limit=None,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        warm_start=False,
        contamination="auto",
        device="auto",
        random_state=None,
        verbose="auto",
    ):
        # Without super().__init__, because units that are dropped would change the constant.
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.log_det = log_det
        self.n_probes = n_probes
        self.preprocessing = preprocessing
        self.bounds = bounds
        self.discrete = discrete
        self.input_noise = input_noise
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.contamination = contamination
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import Chain, LULinear, Residual

        sizes = self._hidden_sizes()
        steps: list = []
        for _ in range(self.n_transforms):
            steps.append(LULinear(n_features))
            steps.append(Residual(n_features, sizes, n_context, self.log_det, self.n_probes))
        return Chain(steps)

    def score_standard_error(self, X: Table) -> Floats:
        """Return the standard error of `score_samples` due to the random signs of the series.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            In nats, from the spread of the vectors of signs; 0 if log-determinants are exact. All
            rows share the signs, so their errors are correlated.
        """
        from ..bijections import Residual

        check_is_fitted(self)
        rows = validate_rows(self, X, reset=False)
        flow = copy.deepcopy(self.flow_)
        blocks = [module for module in flow.modules() if isinstance(module, Residual)]
        if all(block.is_exact for block in blocks):
            return np.zeros(len(rows))
        probes = [block.probes for block in blocks]
        n_probes = probes[0].shape[-1]
        if n_probes == 1:
            raise ValueError("n_probes=1 has no spread to estimate an error from; use 2 or more.")
        scores = []
        for i in range(n_probes):
            for block, of_block in zip(blocks, probes, strict=True):
                block.probes = of_block[..., i : i + 1]
            scores.append(self._score_by(flow, rows))
        return np.std(scores, axis=0, ddof=1) / np.sqrt(n_probes)
