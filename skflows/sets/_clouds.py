"""Clouds of points: from what a user gives to arrays, and back."""

import reprlib

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
    listed = X if isinstance(X, list | tuple) else np.asarray(X)
    if not getattr(listed, "ndim", 1) or not len(listed):
        raise ValueError(
            f"X={reprlib.repr(X)}; give an array of clouds, or a list of arrays, one at least."
        )
    any_array: dict = {"ensure_2d": False, "allow_nd": True, "ensure_all_finite": False}
    any_array |= {"ensure_min_samples": 0, "ensure_min_features": 0}
    clouds = []
    for row, cloud in enumerate(listed):
        name = f"Cloud {row} of X"
        try:
            points = check_array(cloud, dtype=np.float64, order="C", **any_array)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is no array of numbers: {error}") from error
        if points.ndim != 2 or not points.size:
            raise ValueError(
                f"{name} has shape {points.shape}; give an array of shape (n_clouds, n_points, "
                "n_features), or a list of arrays of shape (n_points, n_features), with one point "
                "at least: [X] for a single cloud."
            )
        if not np.isfinite(points).all():
            raise ValueError(f"{name} contains NaN or infinity; leave such points out.")
        check_magnitude(points, what=name)
        n_features = n_features or points.shape[1]
        if points.shape[1] != n_features:
            raise ValueError(
                f"{name} has points with {points.shape[1]} coordinates; it must have {n_features}, "
                "as all clouds of X and of fit."
            )
        clouds.append(points)
    return clouds


def counts_of(clouds):
    """Return the number of points of each cloud."""
    return np.array([len(cloud) for cloud in clouds])
