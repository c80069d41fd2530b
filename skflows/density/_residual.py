"""Residual flow: invertible residual blocks."""

from ._flow_density import FlowDensity


class ResidualDensity(FlowDensity):
    """Density by residual flow: networks that are added to the rows.

    Each block adds a network whose Lipschitz constant is below 1 to its rows, and is preceded by a
    linear map. All columns are moved at once, given all of them.

    Parameters
    ----------
    n_transforms : int, default=8
        Number of blocks.

    hidden_layer_sizes : int or tuple of int, default=(64,)
        Widths of the hidden layers of each network.

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
        name: constraint
        for name, constraint in FlowDensity._parameter_constraints.items()
        if name != "dropout"
    }

    def __init__(
        self,
        *,
        n_transforms=8,
        hidden_layer_sizes=(64,),
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
        verbose=0,
    ):
        # Without super().__init__, because units that are dropped would change the constant.
        self.n_transforms = n_transforms
        self.hidden_layer_sizes = hidden_layer_sizes
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

        steps: list = []
        for _ in range(self.n_transforms):
            steps.append(LULinear(n_features))
            steps.append(Residual(n_features, self._network(n_context)["hidden_layer_sizes"], n_context))
        return Chain(steps)
