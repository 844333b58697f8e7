"""The solver L-BFGS of the scikit-learn estimators, by ``scipy.optimize``."""

import warnings

import numpy as np
import scipy.optimize
from scipy.optimize import OptimizeResult
from sklearn.exceptions import ConvergenceWarning

from backprop_xp.backends import Array, array_namespace, to_device_of, to_host, to_host_together
from backprop_xp.checks import stacklevel
from backprop_xp.estimators.parameters import Model
from backprop_xp.estimators.stochastic import Report, Task, index_of_best
from backprop_xp.training.interrupt import Interrupt


class Search:
    """The functions that ``scipy.optimize`` calls, with vectors on the host.

    Each evaluation moves theta to the device once, and the loss and the gradient back.
    """

    def __init__(self, model: Model, task: Task, report: Report | None) -> None:
        self._task, self._report, self._verbose = task, report, model.verbose
        x, _, weight = task.samples
        total = x.shape[-2]
        if weight is not None:
            total = float(to_host(array_namespace(task.theta).sum(weight)))
            total /= weight.shape[-1] if len(weight.shape) > 1 else 1  # of entries
        self._l2 = model._l2 / total
        self.interrupt, self.has_ended = Interrupt(), False

    def to_device(self, vector: np.ndarray) -> Array:
        """Return a vector on theta's device and in its dtype."""
        return to_device_of(self._task.theta, vector, self._task.theta.dtype)

    def evaluate(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and the gradient, in float64."""
        x, y, weight = self._task.samples
        network, theta = self._task.network, self.to_device(vector)
        both = network.loss_and_gradient(theta, x, y, sample_weight=weight, l2=self._l2)
        loss, gradient = to_host_together([*both])
        return float(loss), gradient.astype(np.float64)

    def after_iteration(self, intermediate_result: OptimizeResult) -> None:
        """Report an iteration; raise StopIteration to end the training."""
        if self._verbose:
            print(f"Loss {intermediate_result.fun:.8f}")  # noqa: T201
        if self._report is not None:
            self.has_ended = self._report(self.to_device(intermediate_result.x))
        if self.has_ended or self.interrupt.pressed:
            raise StopIteration


def minimize(model: Model, task: Task, report: Report | None) -> Array:
    """Return theta after L-BFGS; with several starts, the best.

    Ctrl-C is delayed until an iteration ends. Then it ends all starts, as a report does.
    """
    search, found = Search(model, task, report), list[OptimizeResult]()
    interrupt, starts = search.interrupt, to_host(task.theta).astype(np.float64)
    options = {
        "method": "L-BFGS-B",
        "jac": True,
        "callback": search.after_iteration,
        "options": {"maxfun": model.max_fun, "maxiter": model.max_iter, "gtol": model.tol},
    }
    try:
        with interrupt:
            for start in starts.reshape(-1, starts.shape[-1]):
                interrupt.busy = True
                found.append(scipy.optimize.minimize(search.evaluate, start, **options))
                interrupt.release()
                if search.has_ended:
                    break
    except KeyboardInterrupt:
        if not found or interrupt.busy:  # nothing was learnt, or the user's own code raised it
            raise
        search.has_ended = True
        warnings.warn("Training interrupted by user.", stacklevel=stacklevel())
    best = found[index_of_best(np.asarray([result.fun for result in found]))[0]]
    if best.status != 0 and not search.has_ended:
        warnings.warn(
            f"lbfgs failed to converge after {best.nit} iteration(s) (status={best.status}):\n"
            f"{best.message}\n\nIncrease the number of iterations (max_iter), or of evaluations "
            "(max_fun), or scale the data.",
            ConvergenceWarning,
            stacklevel=stacklevel(),
        )
    model.n_iter_, model.loss_ = min(best.nit, model.max_iter), float(best.fun)
    # The state of an earlier optimizer does not belong to this theta.
    vars(model).pop("_optimizer_state", None)
    vars(model).pop("_learning_rate", None)
    return search.to_device(best.x)
