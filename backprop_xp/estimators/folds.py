"""Networks that were trained without a fold of the rows: they choose ``alpha`` and judge errors."""

from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, array_namespace, to_device_of, to_host
from backprop_xp.estimators.architecture import draw_theta
from backprop_xp.estimators.parameters import Model
from backprop_xp.estimators.stochastic import Task, at_index, index_of_best
from backprop_xp.training.fit import fit
from backprop_xp.training.optimizers import LevenbergMarquardt

_FOLDS = 5
# What alpha="auto" chooses from: for standardized data, from no noise to no signal.
ALPHAS = tuple(10.0**k for k in range(-5, 4))


class Folds(NamedTuple):
    """The fold of each row, ``(batch,)``, and each fold's networks, ``(folds, members, P)``.

    A network has seen all rows but those of its fold.
    """

    of_rows: np.ndarray
    thetas: Array


def train_folds(model: Model, task: Task, optimizer: LevenbergMarquardt) -> Folds:
    """Return the folds' networks, and set ``alpha_`` if it is chosen by their losses.

    The networks of all strengths, folds, members and restarts are one stack ``(strengths * folds *
    members * restarts, P)``. Their starts are new, because those of a warm start have seen all
    rows.
    """
    (x, y, weight), chooses = task.samples, isinstance(model.alpha, str)
    alphas = ALPHAS if chooses else (model._l2,)
    of_rows = _drawn(y.shape[0], task.random_state)
    starts = draw_theta(model, task.network, task.random_state).reshape(-1, task.network.size)
    counts = to_host(weight) if weight is not None else np.ones(len(of_rows))
    mask = of_rows == np.arange(of_rows.max() + 1)[:, None]
    mask = mask.reshape(*mask.shape, *(1 for _ in counts.shape[1:]))  # beside weights of entries

    def put(values: np.ndarray) -> Array:
        return to_device_of(task.theta, values, task.theta.dtype)

    def for_each(by_fold: np.ndarray, networks: int) -> Array:
        """Return a row for each network, from one for each fold."""
        return put(np.concatenate([np.repeat(by_fold, networks, axis=0)] * len(alphas)))

    cells = len(alphas) * len(mask)
    result = fit(
        task.network,
        put(np.tile(starts, (cells, 1))),
        x,
        y,
        optimizer=optimizer,
        epochs=model.max_iter,
        sample_weight=for_each(~mask * counts, len(starts)),
        l2_of_sum=put(np.repeat(alphas, len(mask) * len(starts))),
        train_metrics=True,
    )
    index = index_of_best(result.history["training_loss"][-1], cells * model.n_members)
    thetas = at_index(result.theta, index)
    best = 0
    if chooses:
        held = for_each(mask * counts, model.n_members)
        losses = to_host(task.network.loss(thetas, x, y, sample_weight=held, l2=0.0))
        totals = np.sum((mask * counts).reshape(len(mask), -1), axis=-1)
        best = _best(losses.reshape(len(alphas), len(mask), -1), totals)
        model.alpha_ = alphas[best]
    shape = (len(alphas), len(mask), model.n_members, -1)
    return Folds(of_rows, array_namespace(thetas).reshape(thetas, shape)[best, ...])


def _drawn(rows: int, random_state: Any) -> np.ndarray:
    """Return the fold of each row, ``(rows,)``: folds of nearly equal size."""
    if rows < 2:
        raise ValueError(
            f"X has {rows} row, but folds need at least 2: give alpha a number, and leave out "
            "interval='conformal'."
        )
    order: np.ndarray = random_state.permutation(rows)
    return order % min(_FOLDS, rows)


def _best(losses: np.ndarray, totals: np.ndarray) -> int:
    """Return the strength with the least mean loss of left-out rows; NaN is the greatest.

    The losses are ``(strengths, folds, members)``, and ``totals`` the weights of each fold.
    """
    means = np.sum(losses.mean(axis=-1) * totals, axis=-1)
    return int(np.argmin(np.where(np.isnan(means), np.inf, means)))
