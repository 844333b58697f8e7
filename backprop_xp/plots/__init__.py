"""Pictures by matplotlib: of a training, of what it learned, and of a gradient check.

Each function draws into the axes ``ax=`` and returns them. Without ``ax`` it makes a new pyplot
figure, which a notebook and ``plt.show()`` show. Arrays may be of any library and device: they are
moved to the host. Raises ImportError without matplotlib.
"""

from backprop_xp.plots.canvas import save
from backprop_xp.plots.curves import learning_curves, rate_range
from backprop_xp.plots.equations import residual, solution
from backprop_xp.plots.gradients import gradient_entries, taylor_remainders
from backprop_xp.plots.predictions import calibration, confusion_matrix, residuals
from backprop_xp.plots.sensitivities import sensitivities
from backprop_xp.plots.surface import decision_surface
from backprop_xp.plots.weights import weight_histograms

__all__ = [
    "calibration",
    "confusion_matrix",
    "decision_surface",
    "gradient_entries",
    "learning_curves",
    "rate_range",
    "residual",
    "residuals",
    "save",
    "sensitivities",
    "solution",
    "taylor_remainders",
    "weight_histograms",
]


def __dir__() -> list[str]:
    return __all__
