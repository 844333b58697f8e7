"""Hand-written gradients of pyttb (looked at: 1.8.6) and metric-learn (0.7.0), where installed."""

import importlib
import importlib.util
from functools import partial
from typing import Any

import numpy as np
from sklearn.datasets import load_iris

from .pairs import Case, Pair, elementwise, normal

POSITIVE = {"middle": [0.3, 0.8, 1.7, 5.2], "small": [1e-6, 1e-4], "large": [1e3, 1e6]}
TRIALS = "num_trials + 1 instead of num_trials + data: every entry unless data = 1 (1.8.6)"
WEIGHTS = "the comparisons' part omits its weights, also the default 1 / n (0.7.0)"


def tensor_loss(name: str, *more: float, wrong: str | None = None) -> Pair:
    handles = importlib.import_module("pyttb.gcp.handles")
    loss, gradient = getattr(handles, name), getattr(handles, f"{name}_grad")
    value, slope = (lambda m: loss(2.0, m, *more)), (lambda m: gradient(2.0, m, *more))
    return Pair(f"pyttb: {name}", elementwise(value, slope, POSITIVE, wrong=wrong))


def comparisons(weights: Any) -> Case:
    learner = importlib.import_module("metric_learn").LSML()
    x, _ = load_iris(return_X_y=True)
    a, b, c, d = x[np.random.default_rng(0).permutation(80)].reshape(4, 20, 4)
    learner.w_ = weights / np.sum(weights)
    root = np.eye(4) + 0.1 * normal(4, 4)
    points = {"identity": np.eye(4), "random": root @ root.T}
    args = (a - b, c - d, np.eye(4))
    return Case(learner._total_loss, learner._gradient, points, args, wrong=WEIGHTS)


PAIRS: list[Pair] = []
if importlib.util.find_spec("pyttb"):
    names = ("gaussian", "poisson", "bernoulli_odds", "rayleigh", "gamma", "ztp")
    PAIRS += [*map(tensor_loss, names), tensor_loss("huber", 0.7), tensor_loss("beta", 0.4)]
    PAIRS += [tensor_loss("negative_binomial", 3.0, wrong=TRIALS)]
if importlib.util.find_spec("metric_learn"):
    PAIRS += [
        Pair("metric-learn: LSML", partial(comparisons, np.ones(20))),
        Pair("metric-learn: LSML, weights", partial(comparisons, np.arange(1.0, 21.0))),
    ]
