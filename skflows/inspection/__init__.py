"""Plots of fitted densities and outlier detectors, with scikit-learn's Display API.

Create a display with its class method ``from_estimator`` or, where it has one,
``from_predictions``. A display stores the arrays that it draws, and ``plot`` draws them again.
Drawing requires matplotlib (``pip install matplotlib``); importing this module does not.
"""

from ._boundary import OutlierBoundaryDisplay
from ._calibration_curve import PredictiveCalibrationDisplay
from ._conditional_density import ConditionalDensityDisplay
from ._density import DensityDisplay
from ._explanation import ExplanationDisplay
from ._image_grid import ImageGridDisplay
from ._latent import LatentDisplay
from ._leaderboard import LeaderboardDisplay
from ._loss_curve import LossCurveDisplay
from ._outlier_curve import OutlierCurveDisplay
from ._outlier_scores import OutlierScoreDisplay
from ._p_values import PValueDisplay
from ._point_clouds import PointCloudDisplay
from ._posterior_calibration import PosteriorCalibrationDisplay, posterior_calibration
from ._predictive_bands import PredictiveBandsDisplay
from ._samples import SamplesDisplay

__all__ = [
    "ConditionalDensityDisplay",
    "DensityDisplay",
    "ExplanationDisplay",
    "ImageGridDisplay",
    "LatentDisplay",
    "LeaderboardDisplay",
    "LossCurveDisplay",
    "OutlierBoundaryDisplay",
    "OutlierCurveDisplay",
    "OutlierScoreDisplay",
    "PValueDisplay",
    "PointCloudDisplay",
    "PosteriorCalibrationDisplay",
    "PredictiveBandsDisplay",
    "PredictiveCalibrationDisplay",
    "SamplesDisplay",
    "posterior_calibration",
]
