"""What members that are mixtures of classes have in common."""

import numpy as np

LEAST_LOG = -300.0


class Classes:
    """Base of the members that are mixtures of classes.

    They have a ``space`` and ``_joint(cells, known)``, which yields some rows, and the
    log-probabilities of their known variables and each class, ``(m, n_classes)``.
    """

    def log_prob(self, view, given=None):
        """Return the log-probability of the known variables, given some of them."""
        cells, target = view.cells(self.space), view.known
        log_prob = self._log_evidence(view)
        if given is not None:
            target = target & ~given
            log_prob = log_prob - self._log_evidence(view.given(given))
        return log_prob + np.where(target, cells.log_scale, 0.0).sum(axis=1)

    def evidence(self, view):
        """Return `log_prob`, and let the view keep the shares of the classes for more questions."""
        self.posterior(view)
        return self.log_prob(view)

    def _log_evidence(self, view):
        """Return the log-probability of the known cells and levels, ``(n,)``."""
        if self not in view.kept:
            log_prob = np.empty(len(view))
            for rows, joint in self._joint(view.cells(self.space), view.known):
                log_prob[rows] = log_sum_exp(joint)
            view.kept[self] = log_prob, None
        return view.kept[self][0]

    def posterior(self, view):
        """Return the log-probability of the known cells and levels, and shares of the classes.

        The shares are probabilities of the classes given what is known, ``(n, n_classes)``. The
        view keeps both.
        """
        if view.kept.get(self, (None, None))[1] is None:
            log_prob, shares = np.empty(len(view)), np.empty((len(view), len(self.log_weights)))
            for rows, joint in self._joint(view.cells(self.space), view.known):
                log_prob[rows] = log_sum_exp(joint)  # which leaves the shares, up to a factor
                shares[rows] = joint / joint.sum(axis=1, keepdims=True)
            view.kept[self] = log_prob, shares
        return view.kept[self]

    def _shares_without(self, view, j, rows):
        """Return the shares of the classes in some rows, given what is known besides variable j."""
        if view.known[rows, j].any():
            known = view.known.copy()
            known[:, j] = False
            view = view.given(known)
        return self.posterior(view)[1][rows]


def log_sum_exp(x, axis=1):
    """Return the logarithm of the sum of exponentials along an axis.

    x is overwritten by exp(x - max).
    """
    greatest = x.max(axis=axis, keepdims=True)
    x -= greatest
    total = exp_in_place(x).sum(axis=axis, keepdims=True)
    return np.squeeze(np.log(total) + greatest, axis)


def exp_in_place(x):
    """Return exponentials; of -300 for smaller numbers, as denormal results are slow."""
    return np.exp(np.maximum(x, LEAST_LOG, out=x), out=x)
