"""How far the scores of a density are off that is the solution of an equation."""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._validation import validate_rows


class AccuracyMixin:
    """Errors of the estimate of the trace and of the solver, from a `flow_` that has both."""

    def score_standard_error(self, X):
        """Standard error that Hutchinson's estimate of the trace leaves in `score_samples`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            In nats, from the spread of the probes; 0 where the trace is exact. Each row has probes
            of its own, so that their errors are independent, but for rows that differ in discrete
            columns alone.
        """
        from . import _engine

        check_is_fitted(self)
        X = validate_rows(self, X, reset=False)
        bijection = self.flow_.bijection
        if not bijection.n_probes:
            return np.zeros(len(X))
        if bijection.n_probes == 1:
            raise ValueError("n_probes=1 leaves no spread to tell an error from; use 2 or more.")

        def log_densities(rows):
            return _engine.map_rows(self.flow_, "log_prob_by_probe", rows)[0]

        by_probe = self._dequantizer.mean_density(log_densities, X)
        return by_probe.std(axis=1, ddof=1) / np.sqrt(bijection.n_probes)

    def solver_error(self, X):
        """How far the scores move with half the tolerance (with "rk4", twice the steps).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        error : ndarray of shape (n_samples,)
            Absolute change of `score_samples`, in nats.
        """
        check_is_fitted(self)
        X = validate_rows(self, X, reset=False)
        refined = copy.deepcopy(self.flow_)
        refined.bijection.solver = refined.bijection.solver.refined()
        return np.abs(self._score_by(refined, X) - self._score_rows(X))
