"""scikit-learn estimators: ``MLPClassifier`` and ``MLPRegressor``. Needs the extra ``sklearn``.

The order of reading:

- ``bases`` (scikit-learn's classes), ``parameters``, ``targets`` (losses, scores, classes as
  columns) and ``samples`` (X, y and weights, where they are trained on);
- ``architecture``: the network of the parameters, and theta as fitted attributes;
- ``slopes`` (derivatives of targets) and ``streaming`` (a table larger than the device);
- ``stochastic``: gradient descent by scikit-learn's rules; ``folds``, ``intervals``,
  ``scikit_learn_lbfgs`` and ``full_batch``: solvers of the full batch, with intervals;
- ``persistence`` (files), ``base`` (what both estimators share) and ``perceptrons``.
"""

from backprop_xp.estimators.perceptrons import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
