"""The solver L-BFGS of the scikit-learn estimators, by ``scipy.optimize``.

``model`` is an estimator: its hyperparameters are read, and what scikit-learn's writes is written.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, array_namespace, require_owner, to_host, to_host_together
from backprop_xp.estimators.stochastic import Report, Task, place_of_best
from backprop_xp.training.interrupt import Interrupt


def minimize(model: Any, task: Task, report: Report | None) -> Array:
    """Return theta after L-BFGS by ``scipy.optimize``; of several starts, the best.

    Ctrl-C is held back until an iteration ends; it, and a report, end all of the starts.
    """
    evaluate, moved = _evaluated_on_host(model, task)
    interrupt, ends = Interrupt(), False
    found: list[Any] = []

    def after_iteration(intermediate_result: Any) -> None:
        nonlocal ends
        if model.verbose:
            print(f"Loss {intermediate_result.fun:.8f}")  # noqa: T201
        ends = report is not None and report(moved(intermediate_result.x))
        if ends or interrupt.pressed:
            raise StopIteration

    limits = {"maxfun": model.max_fun, "maxiter": model.max_iter, "gtol": model.tol}
    starts = to_host(task.theta).astype(np.float64)
    try:
        with interrupt:
            for start in starts.reshape(-1, starts.shape[-1]):
                interrupt.busy = True
                given: dict[str, Any] = {"jac": True, "options": limits}
                given["callback"] = after_iteration
                found.append(scipy.optimize.minimize(evaluate, start, method="L-BFGS-B", **given))
                interrupt.release()
                if ends:
                    break
    except KeyboardInterrupt:
        if not found or interrupt.busy:  # nothing was learnt, or a user's own code raised it
            raise
        warnings.warn("Training interrupted by user.", stacklevel=5)
        ends = True
    best = found[place_of_best(np.asarray([result.fun for result in found]))[0]]
    if best.status != 0 and not ends:
        warnings.warn(
            f"lbfgs failed to converge after {best.nit} iteration(s) (status={best.status}):\n"
            f"{best.message}\n\nIncrease the number of iterations (max_iter), or of evaluations "
            "(max_fun), or scale the data.",
            ConvergenceWarning,
            stacklevel=5,
        )
    model.n_iter_, model.loss_ = min(best.nit, model.max_iter), float(best.fun)
    # An optimiser that went before has nothing to say of where this has led.
    vars(model).pop("_optimizer_state", None)
    vars(model).pop("_learning_rate", None)
    return moved(best.x)


def _evaluated_on_host(model: Any, task: Task) -> tuple[Callable[..., Any], Callable[..., Array]]:
    """Return the loss and gradient of a vector on the host, and what moves one beside theta.

    Each evaluation moves theta once, and its loss and gradient back.
    """
    home, dtype = require_owner(task.theta, "theta"), task.theta.dtype
    device = getattr(task.theta, "device", None)
    total = task.x.shape[-2]
    if task.sample_weight is not None:
        total = float(to_host(array_namespace(task.theta).sum(task.sample_weight)))

    def moved(vector: np.ndarray) -> Array:
        return home.from_host(vector, dtype, device)

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = task.network.loss_and_gradient(
            moved(vector),
            task.x,
            task.y,
            sample_weight=task.sample_weight,
            l2=model.alpha / total,
        )
        value, slope = to_host_together([loss, gradient])
        return float(value), slope.astype(np.float64)

    return evaluate, moved
