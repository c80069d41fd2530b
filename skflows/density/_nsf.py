"""Neural spline flow."""

from numbers import Integral

from ..preprocessing.sklearn_compat import Interval
from ._flow_density import FlowDensity

TAIL_BOUND = 4.0  # beyond it, splines are the identity; columns have a standard deviation of 1


class NSFDensity(FlowDensity):
    """Density by neural spline flow: monotone rational-quadratic splines.

    Each column is mapped by a spline whose knots depend on other columns: those before it
    (autoregressive, the default) or the other half (coupling). Splines act between -4 and 4, on
    columns with an initial standard deviation of 1, and are the identity beyond. Each step begins
    with a linear map, which starts at the identity. The first choice for most tables.

    Parameters
    ----------
    n_transforms : int, default=5
        Number of autoregressive steps, or of pairs of couplings.

    n_bins : int, default=8
        Number of bins of each spline, from 2 to 512. More than 32 take several times as long on
        a CPU.

    autoregressive : bool, default=True
        Whether a column is mapped given all those before it, which fits best but samples column
        by column, or given the other half, which takes one network pass in both directions.

    {network}

    {preprocessing}

    {data}

    {training}

    Attributes
    ----------
    {trained}

    {attributes}

    References
    ----------
    Durkan, Bekasov, Murray & Papamakarios, "Neural Spline Flows", 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import NSFDensity
    >>> X = load_iris().data
    >>> density = NSFDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    _parameter_constraints: dict = {
        **FlowDensity._parameter_constraints,
        "n_bins": [Interval(Integral, 2, 512, closed="both")],
        "autoregressive": ["boolean"],
    }

    def __init__(
        self,
        *,
        n_transforms=5,
        n_bins=8,
        autoregressive=True,
        hidden_layer_sizes=(64, 64),
        dropout=0.1,
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
        super().__init__(
            n_transforms=n_transforms,
            hidden_layer_sizes=hidden_layer_sizes,
            dropout=dropout,
            preprocessing=preprocessing,
            bounds=bounds,
            discrete=discrete,
            input_noise=input_noise,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            weight_decay=weight_decay,
            max_iter=max_iter,
            time_limit=time_limit,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            contamination=contamination,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.n_bins = n_bins
        self.autoregressive = autoregressive

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import (
            Chain,
            Coupling,
            LULinear,
            MaskedAutoregressive,
            RationalQuadraticSpline,
        )

        spline = RationalQuadraticSpline(self.n_bins, TAIL_BOUND)
        network = self._network(n_context)
        steps: list = []
        for i in range(self.n_transforms):
            steps.append(LULinear(n_features))
            if self.autoregressive:
                reverse = i % 2 == 1
                steps.append(MaskedAutoregressive(n_features, spline, reverse=reverse, **network))
            else:
                steps.append(Coupling(n_features, spline, **network))
        return Chain(steps) if self.autoregressive else Coupling.chain(n_features, steps)
