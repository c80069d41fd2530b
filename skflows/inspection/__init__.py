"""Pictures of a fitted density or outlier detector, in scikit-learn's Display convention.

Each display is made by its ``from_estimator`` class method (some by ``from_predictions``, too),
stores the arrays it draws and can draw them again with ``plot``. Drawing needs matplotlib
(``pip install skflows[plot]``); importing this module does not.
"""

from ._boundary import OutlierBoundaryDisplay
from ._density import DensityDisplay
from ._explanation import ExplanationDisplay
from ._latent import LatentDisplay
from ._leaderboard import LeaderboardDisplay
from ._loss_curve import LossCurveDisplay
from ._outlier_curve import OutlierCurveDisplay
from ._outlier_scores import OutlierScoreDisplay
from ._p_values import PValueDisplay
from ._samples import SamplesDisplay

__all__ = [
    "DensityDisplay",
    "ExplanationDisplay",
    "LatentDisplay",
    "LeaderboardDisplay",
    "LossCurveDisplay",
    "OutlierBoundaryDisplay",
    "OutlierCurveDisplay",
    "OutlierScoreDisplay",
    "PValueDisplay",
    "SamplesDisplay",
]
