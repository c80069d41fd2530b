"""Glow for tables."""

from ._flow_density import FlowDensity


class GlowDensity(FlowDensity):
    """Density by Glow: ActNorm, an invertible linear map and affine couplings.

    The linear maps, with an LU parametrisation that starts at random rotations, replace the fixed
    permutations of RealNVP by learned ones.

    Parameters
    ----------
    n_transforms : int, default=5
        Number of steps, each an ActNorm, a linear map and a pair of couplings.

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
    Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import GlowDensity
    >>> X = load_iris().data
    >>> density = GlowDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import ActNorm, Affine, Chain, Coupling, LULinear

        network = self._network(n_context)
        steps = []
        for _ in range(self.n_transforms):
            steps += [
                ActNorm(n_features),
                LULinear(n_features, rotation=True),
                Coupling(n_features, Affine(), **network),
            ]
        return Chain(steps)
