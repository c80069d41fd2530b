"""Conformal calibration of prediction intervals and highest-density regions."""

import numpy as np


def translated(scores, one, mean):
    """Return the scores under a mean of models that correspond to scores under one of them.

    Parameters
    ----------
    scores : ndarray of shape (n,) or (n, n_outputs)
        Scores from 0 to 1 under one model.
    one, mean : ndarray of shape (m,) or (m, n_outputs)
        Scores of the same rows under one model and under the mean.

    Returns
    -------
    scores : ndarray of shape (n,) or (n, n_outputs)
        The quantiles of `mean` that the scores are of `one`.
    """
    if scores.ndim > 1:
        return np.column_stack([*map(translated, scores.T, one.T, mean.T)])
    one, mean = (np.sort([0, *values, 1]) for values in (one, mean))
    return np.interp(scores, one, mean)
