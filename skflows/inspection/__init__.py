"""Pictures of a fitted density, in scikit-learn's Display convention.

Each display is made by its ``from_estimator`` class method, stores the arrays it draws and can draw
them again with ``plot``. Drawing needs matplotlib (``pip install skflows[plot]``); importing this
module does not.
"""

from ._density import DensityDisplay
from ._latent import LatentDisplay
from ._leaderboard import LeaderboardDisplay
from ._loss_curve import LossCurveDisplay
from ._samples import SamplesDisplay

__all__ = [
    "DensityDisplay",
    "LatentDisplay",
    "LeaderboardDisplay",
    "LossCurveDisplay",
    "SamplesDisplay",
]
