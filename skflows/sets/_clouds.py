"""Clouds of points: from what a user gives to arrays."""

import reprlib

import numpy as np
from sklearn.utils import check_array

from ..columns.arrays import check_magnitude


def read_clouds(X, n_features=None):
    """Return clouds as arrays (n_points, n_features) of float64; errors name the cloud."""
    listed = X if isinstance(X, list | tuple) else np.asarray(X)
    if not getattr(listed, "ndim", 1) or not len(listed):
        raise ValueError(
            f"X={reprlib.repr(X)}; give an array of clouds, or a list of arrays, one at least."
        )
    clouds = []
    for row, cloud in enumerate(listed):
        name = f"Cloud {row} of X"
        try:
            points = check_array(cloud, dtype=np.float64, order="C")
        except (TypeError, ValueError) as error:
            cause = str(error).splitlines()[0].rstrip(".:")  # scikit-learn's advice is for tables
            raise ValueError(
                f"{name} must be an array of finite numbers of shape (n_points, n_features), with "
                f"one point at least: {cause}. Give [X] for a single cloud."
            ) from error
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
