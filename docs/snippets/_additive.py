"""Additive autoregressive flow."""

from ._flow_density import FlowDensity


class AdditiveDensity(FlowDensity):
    """Density by additive autoregressive flow: shifts of each column given those before it.

    Only the final scale of each column changes volume.

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

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skflows import AdditiveDensity
    >>> X = load_iris().data
    >>> density = AdditiveDensity(max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape
    (3,)
    """

    def _build_bijection(self, n_features, n_context=0):
        from ..bijections import Chain, ElementwiseAffine, MaskedAutoregressive, Shift

        network = self._network(n_context)
        steps = []
        for i in range(self.n_transforms):
            reverse = i % 2 == 1  # the last column comes first
            steps.append(MaskedAutoregressive(n_features, Shift(), reverse=reverse, **network))
        return Chain([*steps, ElementwiseAffine(n_features)])
