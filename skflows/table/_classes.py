"""What members that are mixtures of classes have in common."""

import numpy as np
from scipy.special import logsumexp


class Classes:
    """Base of the members that have ``log_weights`` and ``_log_probs`` of their classes."""

    def _given_others(self, view, j):
        """Return the cells of a view, which are known besides variable j, and the classes' shares.

        The shares are the probabilities of the classes given what is known, ``(n, n_classes)``.
        """
        cells = view.cells(self.space)
        known = cells.known.copy()
        known[:, j] = False
        return cells, known, self._responsibilities(cells, known)

    def _responsibilities(self, cells, known):
        joint = self._log_probs(cells, known) + self.log_weights
        return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
