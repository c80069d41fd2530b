"""NICE: additive coupling."""

from ._flow_density import FlowDensity


class NICEDensity(FlowDensity):
    """Density by NICE: additive couplings and one final scale for each column.

    Couplings preserve volume: only preprocessing and the final scale have a log-determinant.
    Fast in both directions, and the least expressive flow here.

    Parameters
    ----------
    n_transforms : int, default=5
        Number of pairs of couplings; each pair maps every column once.

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
    Dinh, Krueger & Bengio, "NICE: Non-linear Independent Components Estimation", 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import NICEDensity
    >>> X = load_iris().data
    >>> density = NICEDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import Coupling, ElementwiseAffine, Shift

        network = self._network(n_context)
        couplings = [Coupling(n_features, Shift(), **network) for _ in range(self.n_transforms)]
        return Coupling.chain(n_features, [*couplings, ElementwiseAffine(n_features)])
