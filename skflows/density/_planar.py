"""Planar flow."""

from ._flow_density import FlowDensity


class PlanarDensity(FlowDensity):
    """Density by planar flow: a chain of maps that move rows along one direction each.

    Every step bends space across one hyperplane. It has few parameters and a smooth density, and is
    best in low dimension. The inverse solves one monotone scalar equation per row and step.

    Parameters
    ----------
    n_transforms : int, default=32
        Number of planar steps.

    {preprocessing}

    {data}

    {training}

    Attributes
    ----------
    {trained}

    {attributes}

    References
    ----------
    Rezende & Mohamed, "Variational Inference with Normalizing Flows", 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import PlanarDensity
    >>> X = load_iris().data
    >>> density = PlanarDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    _parameter_constraints: dict = {
        name: constraint
        for name, constraint in FlowDensity._parameter_constraints.items()
        if name not in ("hidden_layer_sizes", "dropout")
    }

    def __init__(
        self,
        *,
        n_transforms=32,
        preprocessing="quantile",
        bounds=None,
        discrete="auto",
        input_noise=0.0,
        batch_size="auto",
        learning_rate_init=2e-3,
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
        # Without super().__init__, because a planar flow has no network and none of its parameters.
        self.n_transforms = n_transforms
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
        from ..bijections import Chain, LULinear, Planar

        steps = [Planar(n_features, n_context) for _ in range(self.n_transforms)]
        return Chain([LULinear(n_features), Chain(steps)])
