"""The recipe of a fit: how its flow is built, its phases and its settings."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """Settings of a fit, named as the parameters of estimators.

    Those from ``batch_size`` on are for gradient descent.
    """

    preprocessing: Any = "quantile"
    row_shape: tuple | None = None  # height, width and channels of a row that is an image
    early_stopping: bool | str = "auto"
    validation_fraction: float = 0.1
    n_iter_no_change: int = 20
    tol: float = 1e-4
    time_limit: float | None = None
    batch_size: int | str = "auto"
    learning_rate_init: float = 2e-3
    weight_decay: float = 0.0
    input_noise: float | str = 0.0
    device: str = "auto"


class Recipe(NamedTuple):
    """What a fit needs to know of an estimator.

    Attributes
    ----------
    owner : object
        The estimator. Only its seed, its callbacks and its fingerprint are used.
    build_flow : callable
        ``build_flow(preprocess, n_features, n_context)`` returns a new flow.
    phases : list of dict
        Settings of `skflows.training.trainer.Trainer` for each phase of the training. A "rate"
        multiplies the learning rate.
    settings : Settings
        Settings of all phases.
    """

    owner: Any
    build_flow: Callable
    phases: list[dict]
    settings: Settings = Settings()


class Past(NamedTuple):
    """What a fit continues from."""

    flow: Any
    input_noise: float
    n_epochs: int
    optimizer_state: dict | None
