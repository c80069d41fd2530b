"""Masked autoregressive flow."""

from ._flow_density import FlowDensity


class MAFDensity(FlowDensity):
    """Density by masked autoregressive flow: affine maps of each column given those before it.

    Scoring takes one network pass; sampling solves column by column. Each step begins with a linear
    map, which starts at the identity, and the order of the columns is reversed from one to the
    next.

    Parameters
    ----------
    n_transforms : int, default=5
        Number of autoregressive steps.

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
    Papamakarios, Pavlakou & Murray, "Masked Autoregressive Flow for Density Estimation",
    2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import MAFDensity
    >>> X = load_iris().data
    >>> density = MAFDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    >>> density.sample(2, random_state=0).shape
    (2, 4)
    """

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import Affine, Bijection, Chain, LULinear, MaskedAutoregressive

        network = self._network(n_context)
        steps: list[Bijection] = []
        for i in range(self.n_transforms):
            steps.append(LULinear(n_features))
            steps.append(MaskedAutoregressive(n_features, Affine(), reverse=i % 2 == 1, **network))
        return Chain(steps)
