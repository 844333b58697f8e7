"""Pictures by matplotlib: how a training went, what it learned, and what a gradient check found.

Each function draws into the axes that it is given by ``ax=`` and returns them. Without, it makes a
new figure by pyplot, so that a notebook shows it and ``plt.show()`` does. Arrays may be of any
library and device: they are moved to the host. Raises ImportError without matplotlib.
"""

from backprop_xp.plots.canvas import save
from backprop_xp.plots.curves import learning_curves
from backprop_xp.plots.gradients import gradient_entries, taylor_remainders
from backprop_xp.plots.predictions import calibration, confusion_matrix, residuals
from backprop_xp.plots.surface import decision_surface
from backprop_xp.plots.weights import weight_histograms

__all__ = [
    "calibration",
    "confusion_matrix",
    "decision_surface",
    "gradient_entries",
    "learning_curves",
    "residuals",
    "save",
    "taylor_remainders",
    "weight_histograms",
]
