"""scikit-learn estimators: ``MLPClassifier`` and ``MLPRegressor``. Needs the extra ``sklearn``.

The order of reading:

- ``bases`` (scikit-learn's classes), ``parameters``, ``targets`` (losses, scores, classes as
  columns) and ``samples`` (X, y and weights, where they are trained on);
- ``architecture``: the network of the parameters, and theta as fitted attributes;
- ``slopes`` (derivatives of targets) and ``streaming`` (a table larger than the device);
- ``minimization``: what a solver minimizes, of one estimator or of a stack of several;
  ``tasks`` and ``search_stacks``: searches of scikit-learn whose fits are such stacks;
- ``stochastic_rules`` (scikit-learn's, between epochs) and ``stochastic``: gradient descent;
  ``folds``, ``intervals``, ``scikit_learn_lbfgs`` and ``full_batch``: solvers of the full batch,
  with intervals;
- ``persistence`` (files), ``base`` (what both estimators share) and ``perceptrons``.
"""

from backprop_xp.estimators.perceptrons import MLPClassifier, MLPRegressor
from backprop_xp.estimators.search_stacks import stacked

__all__ = ["MLPClassifier", "MLPRegressor", "stacked"]
