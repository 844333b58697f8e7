"""scikit-learn estimators: ``MLPClassifier`` and ``MLPRegressor``. Needs the extra ``sklearn``."""

from backprop_xp.estimators.perceptrons import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
