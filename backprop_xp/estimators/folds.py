"""Networks that were trained without a fold of the rows: they judge the errors of its rows."""

from typing import NamedTuple

import numpy as np

from backprop_xp.backends import Array, array_namespace, to_device_of, to_host
from backprop_xp.estimators.architecture import draw_theta
from backprop_xp.estimators.minimization import Minimization, at_index, index_of_best, strengths
from backprop_xp.estimators.parameters import Model
from backprop_xp.training.fit import fit
from backprop_xp.training.optimizers.first_order import LevenbergMarquardt

_FOLDS = 5


class Folds(NamedTuple):
    """The fold of each row, ``(batch,)``, and each fold's networks, ``(folds, members, P)``.

    A network has seen all rows but those of its fold.
    """

    of_rows: np.ndarray
    thetas: Array


def train_folds(model: Model, problem: Minimization, optimizer: LevenbergMarquardt) -> Folds:
    """Return the networks of folds of nearly equal size: of each member the best start.

    All are one stack ``(folds * members * restarts, P)``. Their starts are new, because those of a
    warm start have seen all rows.
    """
    x, y, weight = problem.samples
    rows, members = y.shape[0], model.n_members
    if rows < 2:
        raise ValueError(
            f"X has {rows} row, but interval='conformal' needs at least 2: leave it out."
        )
    of_rows = problem.random_state.permutation(rows) % min(_FOLDS, rows)
    counts = np.ones(rows) if weight is None else to_host(weight)
    is_seen = of_rows != np.arange(of_rows.max() + 1)[:, None]
    is_seen = is_seen.reshape(*is_seen.shape, *(1 for _ in counts.shape[1:]))
    starts = draw_theta(model, problem.network, problem.random_state)
    starts = starts.reshape(-1, problem.network.size)

    def put(values: np.ndarray) -> Array:
        return to_device_of(problem.theta, values, problem.theta.dtype)

    result = fit(
        problem.network,
        put(np.tile(starts, (len(is_seen), 1))),
        x,
        y,
        optimizer=optimizer,
        epochs=model.max_iter,
        sample_weight=put(np.repeat(is_seen * counts, len(starts), axis=0)),
        l2_of_sum=strengths(problem.theta, [model]),
        train_metrics=True,
    )
    losses = result.history["training_loss"][-1]
    thetas = at_index(result.theta, index_of_best(losses, len(is_seen) * members))
    return Folds(of_rows, array_namespace(thetas).reshape(thetas, (len(is_seen), members, -1)))
