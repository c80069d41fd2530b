"""RealNVP: affine coupling."""

from ._flow_density import FlowDensity


class RealNVPDensity(FlowDensity):
    """Density by RealNVP: affine couplings with bounded scales.

    Each coupling scales and shifts half of the columns by functions of the other half. Both
    directions take one network pass.

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
    Dinh, Sohl-Dickstein & Bengio, "Density Estimation using Real NVP", 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import RealNVPDensity
    >>> X = load_iris().data
    >>> density = RealNVPDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import ActNorm, Affine, Coupling

        network = self._network(n_context)
        steps = []
        for _ in range(self.n_transforms):
            steps += [ActNorm(n_features), Coupling(n_features, Affine(), **network)]
        return Coupling.chain(n_features, steps)
