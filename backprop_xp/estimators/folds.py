"""Networks that were trained without a fold of the rows: they choose ``alpha`` and judge errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, array_namespace, to_device_of, to_host
from backprop_xp.estimators.architecture import draw_theta
from backprop_xp.estimators.minimization import Minimization, at_index, index_of_best
from backprop_xp.estimators.parameters import Model
from backprop_xp.training.fit import fit
from backprop_xp.training.optimizers.first_order import LevenbergMarquardt

_FOLDS = 5
# What alpha="auto" chooses from: for standardized data, from no noise to no signal.
ALPHAS = tuple(10.0**k for k in range(-5, 4))


class Folds(NamedTuple):
    """The fold of each row, ``(batch,)``, and each fold's networks, ``(folds, members, P)``.

    A network has seen all rows but those of its fold.
    """

    of_rows: np.ndarray
    thetas: Array


def train_folds(model: Model, problem: Minimization, optimizer: LevenbergMarquardt) -> Folds | None:
    """Set ``alpha_`` if folds choose it; return their networks if an interval needs them.

    All networks that choose are one stack ``(strengths * folds * restarts, P)``, of the first
    member's starts: the strength is one for all members. The starts are new, because those of a
    warm start have seen all rows.
    """
    of_rows = _drawn(problem.samples.y.shape[0], problem.random_state)
    starts = draw_theta(model, problem.network, problem.random_state).reshape(
        -1, problem.network.size
    )
    kept = None
    if isinstance(model.alpha, str):
        thetas, losses = _trained(
            model, problem, optimizer, of_rows, ALPHAS, starts[: model.n_restarts]
        )
        best = _best(losses)
        model.alpha_ = ALPHAS[best]
        kept = thetas[best, ...] if model.n_members == 1 else None
    if model._interval_kind != "conformal":
        return None
    if kept is None:
        thetas, _ = _trained(model, problem, optimizer, of_rows, (model._l2,), starts)
        kept = thetas[0, ...]
    return Folds(of_rows, kept)


def _trained(
    model: Model,
    problem: Minimization,
    optimizer: LevenbergMarquardt,
    of_rows: np.ndarray,
    alphas: Sequence[float],
    starts: np.ndarray,
) -> tuple[Array, np.ndarray]:
    """Return the best networks ``(strengths, folds, members, P)``, and their left-out losses.

    The losses are ``(strengths,)``, means over all rows and members.
    """
    x, y, weight = problem.samples
    counts = to_host(weight) if weight is not None else np.ones(len(of_rows))
    mask = of_rows == np.arange(of_rows.max() + 1)[:, None]
    mask = mask.reshape(*mask.shape, *(1 for _ in counts.shape[1:]))  # beside weights of entries
    members, cells = len(starts) // model.n_restarts, len(alphas) * len(mask)

    def put(values: np.ndarray) -> Array:
        return to_device_of(problem.theta, values, problem.theta.dtype)

    def for_each(by_fold: np.ndarray, networks: int) -> Array:
        """Return a row for each network, from one for each fold."""
        return put(np.concatenate([np.repeat(by_fold, networks, axis=0)] * len(alphas)))

    result = fit(
        problem.network,
        put(np.tile(starts, (cells, 1))),
        x,
        y,
        optimizer=optimizer,
        epochs=model.max_iter,
        sample_weight=for_each(~mask * counts, len(starts)),
        l2_of_sum=put(np.repeat(alphas, len(mask) * len(starts))),
        train_metrics=True,
    )
    index = index_of_best(result.history["training_loss"][-1], cells * members)
    thetas = at_index(result.theta, index)
    left_out = for_each(mask * counts, members)
    losses = to_host(problem.network.loss(thetas, x, y, sample_weight=left_out, l2=0.0))
    shape = (len(alphas), len(mask), members)
    totals = np.sum((mask * counts).reshape(len(mask), -1), axis=-1)
    means = losses.reshape(shape).mean(axis=-1) @ totals
    return array_namespace(thetas).reshape(thetas, (*shape, -1)), means


def _drawn(rows: int, random_state: Any) -> np.ndarray:
    """Return the fold of each row, ``(rows,)``: folds of nearly equal size."""
    if rows < 2:
        raise ValueError(
            f"X has {rows} row, but folds need at least 2: give alpha a number, and leave out "
            "interval='conformal'."
        )
    order: np.ndarray = random_state.permutation(rows)
    return order % min(_FOLDS, rows)


def _best(losses: np.ndarray) -> int:
    """Return the strength with the least loss of left-out rows; NaN is the greatest."""
    return int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))
