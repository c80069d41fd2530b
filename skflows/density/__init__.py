"""Density estimators with scikit-learn's interface."""

from ._adaptive_kernel import AdaptiveKernelDensity
from ._cnf import CNFDensity
from ._flow_density import FlowDensity
from ._gaussianization import GaussianizationDensity
from ._glow import GlowDensity
from ._iaf import IAFDensity
from ._maf import MAFDensity
from ._nice import NICEDensity
from ._nsf import NSFDensity
from ._planar import PlanarDensity
from ._realnvp import RealNVPDensity
from ._residual import ResidualDensity
from ._transformed import TransformedDensity
from ._videoflow import VideoFlowDensity
from ._waveflow import WaveFlowDensity

# The table of architectures, which the command line, the tests, the documentation and the
# benchmarks read. Importing an architecture above enters it here.
ARCHITECTURES = {
    name.removesuffix("Density").lower(): cls
    for name, cls in list(vars().items())
    if isinstance(cls, type) and issubclass(cls, FlowDensity) and cls is not FlowDensity
}
