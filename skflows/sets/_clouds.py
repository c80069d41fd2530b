"""Clouds of points: from what a user gives to arrays, and back."""

import numpy as np
from sklearn.utils import check_array

from ..columns.arrays import check_magnitude


def read_clouds(X, n_features=None):
    """Return clouds as arrays (n_points, n_features) of float64; errors name the cloud.

    Parameters
    ----------
    X : array-like of shape (n_clouds, n_points, n_features), or list of array-like
        The clouds.
    n_features : int, optional
        Number of coordinates in `fit`.
    """
    if isinstance(X, str) or not hasattr(X, "__len__") or not len(X):
        raise ValueError(f"X={X!r}; give an array of clouds, or a list of arrays, one at least.")
    if np.ndim(X[0] if isinstance(X, list | tuple) else np.asarray(X)[0]) < 2:
        raise ValueError(
            "X is a single cloud, or no clouds; give an array of shape (n_clouds, n_points, "
            "n_features), or a list of arrays of shape (n_points, n_features)."
        )
    clouds = []
    for row, cloud in enumerate(X):
        name = f"Cloud {row} of X"
        with np.errstate(invalid="ignore"):  # of infinite coordinates
            points = check_array(cloud, dtype=np.float64, order="C", input_name=name)
        check_magnitude(points, what=name)
        n_features = n_features or points.shape[1]
        if points.shape[1] != n_features:
            raise ValueError(
                f"{name} has points with {points.shape[1]} coordinates; it must have {n_features}, "
                "as the other clouds."
            )
        clouds.append(points)
    return clouds


def as_array(clouds):
    """Return an array of clouds of the same number of points, others as the list they are."""
    return np.stack(clouds) if len({*counts_of(clouds)}) == 1 else clouds


def counts_of(clouds):
    """Return the number of points of each cloud."""
    return np.array([len(cloud) for cloud in clouds])
