"""Conformal calibration of prediction intervals and highest-density regions."""

import math

import numpy as np


def conformal_level(scores, coverage):
    """Return the level that a new row's score exceeds with a probability of 1 - coverage at most.

    Parameters
    ----------
    scores : ndarray of shape (n,) or (n, n_outputs)
        Scores from 0 to 1 of rows that the model has not seen.
    coverage : float
        The least probability of a score up to the level, over rows and calibration rows.

    Returns
    -------
    level : float or ndarray of shape (n_outputs,)
        1 if there are too few rows to tell.
    """
    rank = math.ceil((len(scores) + 1) * coverage)
    if rank > len(scores):
        return np.ones(np.shape(scores)[1:])
    return np.sort(scores, axis=0)[rank - 1]


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
    return np.interp(scores, *(np.sort([0, *own, 1]) for own in (one, mean)))
