"""Training: ``train`` yields a state per epoch, ``fit`` runs it to the end and keeps a history.

Everything is per network of a stack: losses ``(*stack,)``, clipping, early stopping. Losses stay on
the device; ``fit`` moves them at the end, or each epoch if somebody looks at them.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, Unpack

from backprop_xp.backends import Array, array_namespace, owner, to_host, to_host_together
from backprop_xp.batches import check_data
from backprop_xp.checks import integer, real, sequence
from backprop_xp.epochs import (
    Plan,
    Run,
    TrainingState,
    are_one_call,
    blocks,
    copied,
    epoch_by_epoch,
    mapped,
)
from backprop_xp.network import Network
from backprop_xp.optimizers import Optimizer
from backprop_xp.updates import updates_of


class FitResult(NamedTuple):
    """What ``fit`` leaves: the trained theta, and NumPy arrays ``(epochs, *stack)`` of losses.

    ``history`` has ``"loss"`` and, with validation rows, ``"validation_loss"``; with
    ``check_every``, ``"gradient_error"`` and ``"gradient_verdict"``, ``(checks,)``, of each check.
    ``epochs`` counts the epochs that were run.
    """

    theta: Array
    history: dict[str, Any]
    optimizer_state: Any
    epochs: int


@dataclass(frozen=True)
class EarlyStopping:
    """Ends training when no network of the stack has improved for ``patience`` epochs.

    A network improves when its validation loss falls by more than ``min_delta`` below its best.
    Without validation rows that is the training loss after the epoch, without dropout, which takes
    another forward pass. With ``restore_best`` each network and its optimiser's state are given
    back as they were at its own best epoch; what a state counts for all networks of a stack, as its
    step, is that of the last of these.
    """

    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", integer(self.patience, "patience"))
        object.__setattr__(self, "min_delta", real(self.min_delta, "min_delta", low=0.0))


class TrainOptions(TypedDict, total=False):
    """The options of ``train`` that ``fit`` hands on."""

    batch_size: int | None
    shuffle: bool
    seed: int
    sample_weight: Array | None
    validation: Sequence[Array] | None
    clip: float | None
    check_every: int | None


class _Best(NamedTuple):
    """Each network's best loss, its theta and optimiser's state then, and the epochs since."""

    loss: Array
    theta: Array
    optimizer_state: Any
    waited: Array


def train(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    sample_weight: Array | None = None,
    validation: Sequence[Array] | None = None,
    clip: float | None = None,
    check_every: int | None = None,
) -> Iterator[TrainingState]:
    """Return an iterator that trains for an epoch each time it is advanced.

    ``batch_size`` None is the full batch. Each epoch's order is drawn from ``seed`` and the
    epoch's number, dropout masks from ``seed`` and the update's. ``validation`` is ``(x, y)`` or
    ``(x, y, sample_weight)``. ``clip`` bounds the norm of each network's own gradient. At every
    ``check_every``-th update the gradient of its batch is compared with one difference of the loss
    and, where that leaves a doubt, checked along directions: a fail ends the training by
    ``GradientCheckError``, whose ``report`` says what is wrong.

    The arguments are checked at once: ValueError or TypeError for those that do not fit, and for a
    value in x, y or sample_weight that is not finite or a target that the loss cannot mean, with
    its place. theta is copied, never written.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 4, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]]
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> for state in bx.train(network, theta, x, y, optimizer=bx.Adam(0.1), epochs=200):
    ...     pass
    >>> network.predict(state.theta, x).round().T
    array([[0., 1., 1., 0.]])
    """
    run = _prepare(
        network,
        theta,
        x,
        y,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        sample_weight=sample_weight,
        validation=validation,
        clip=clip,
        check_every=check_every,
    )
    return (state for state, _ in epoch_by_epoch(run))


def fit(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer,
    epochs: int,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callable[[TrainingState], Any]] = (),
    progress: bool = False,
    **options: Unpack[TrainOptions],
) -> FitResult:
    """Train and return theta, the history and the optimiser's state.

    ``options`` are those of ``train``: batch_size, shuffle, seed, sample_weight, validation, clip,
    check_every. Each callback is given the state after every epoch; one that returns true ends the
    training.
    ``progress`` writes lines to stderr.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> result = bx.fit(network, theta, [[0], [1]], [[1], [3]], optimizer=bx.SGD(0.3), epochs=200)
    >>> result.theta.round(6), result.history["loss"].shape
    (array([2., 1.]), (200,))
    """
    if not isinstance(early_stopping, EarlyStopping | None):
        raise TypeError(
            f"early_stopping must be one such as bx.EarlyStopping(), not {early_stopping!r}."
        )
    callbacks = sequence(callbacks, "callbacks", "(print,)")
    run = _prepare(network, theta, x, y, optimizer=optimizer, epochs=epochs, **options)
    _refuse_empty_stack(theta, early_stopping=early_stopping is not None, progress=progress)
    looks = progress or callbacks or early_stopping is not None
    best: _Best | None = None
    history: dict[str, list[Any]] = {}
    pending: list[tuple[Array, Array | None]] = []
    checks: list[tuple[str, float]] = []
    for state, losses in blocks(run) if not looks and are_one_call(run) else epoch_by_epoch(run):
        pending.append(losses)
        checks += state.checks
        if early_stopping is not None:
            loss = state.validation_loss
            if loss is None:
                loss = run.updates.training_loss(state.theta, run.rows)
            best = _track(best, state, loss, early_stopping.min_delta)
        writes = progress and (
            state.epoch in (1, epochs) or state.epoch % max(1, epochs // 10) == 0
        )
        waited = None
        if writes or best is not None or state.epoch == epochs:
            waited = _note(history, pending, best)
            pending = []
        if best is not None and waited == 0.0:
            best = best._replace(optimizer_state=_with_numbers(best, state))
        if writes:
            _write_progress(state.epoch, epochs, history)
        # Every callback is called. A comparison of losses returns a library's own True.
        ends = True in [_ends(callback(state), i) for i, callback in enumerate(callbacks)]
        patience = math.inf if early_stopping is None else early_stopping.patience
        if ends or (waited is not None and waited >= patience):
            break
    if pending:
        _note(history, pending, None)
    restores = best is not None and early_stopping is not None and early_stopping.restore_best
    kept = best if best is not None and restores else state
    joined = {name: _concat(parts) for name, parts in history.items()}
    if run.plan.check_every is not None:
        joined["gradient_error"] = to_host([error for _, error in checks])
        joined["gradient_verdict"] = to_host([verdict for verdict, _ in checks])
    return FitResult(kept.theta, joined, kept.optimizer_state, state.epoch)


def _prepare(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    sample_weight: Array | None = None,
    validation: Sequence[Array] | None = None,
    clip: float | None = None,
    check_every: int | None = None,
) -> Run:
    """Check what a training is given."""
    if isinstance(optimizer, type) or not hasattr(optimizer, "initialize"):
        raise TypeError(f"optimizer must be one such as bx.Adam(), not {optimizer!r}.")
    if batch_size is not None:
        batch_size = integer(batch_size, "batch_size")
    epochs, seed = integer(epochs, "epochs"), integer(seed, "seed", at_least=0)
    clip = None if clip is None else real(clip, "clip", above=0.0)
    check_every = None if check_every is None else integer(check_every, "check_every")
    rows, held_out = check_data(network, theta, x, y, sample_weight, validation)
    _refuse_empty_stack(theta, check_every=check_every is not None)
    size = rows.x.shape[-2] if batch_size is None else batch_size
    plan = Plan(optimizer, epochs, size, shuffle, seed, clip, check_every)
    start = copied(theta)
    return Run(
        network, start, rows, held_out, plan, updates_of(network, optimizer, plan.clip, theta)
    )


def _refuse_empty_stack(theta: Array, **asked: bool) -> None:
    """Raise ValueError for options that judge networks where there are none."""
    for name, is_asked in asked.items():
        if is_asked and 0 in theta.shape:
            raise ValueError(
                f"{name} needs a network to judge, but theta has shape {tuple(theta.shape)}, a "
                "stack of none. Give theta at least one network, or leave the option out."
            )


def _ends(answer: Any, i: int) -> bool:
    """Say whether a callback's answer ends the training: a truth, or an array of one."""
    shape = tuple(getattr(answer, "shape", ()))
    if math.prod(shape) != 1:
        raise ValueError(
            f"callbacks[{i}] returned an array of shape {shape}, but True, which ends the "
            "training, or False is expected: of a stack, say whether all or any of its networks "
            "are done, by the library's all or any."
        )
    return bool(answer)


def _track(best: _Best | None, state: TrainingState, loss: Array, min_delta: float) -> _Best:
    """Return each network's best loss, and what it was then, after one more epoch."""
    xp = array_namespace(state.theta)
    if best is None:
        copies = copied(state.theta), copied(state.optimizer_state)
        # A loss that starts as NaN counts as infinite: any number improves on it.
        finite = xp.where(xp.isnan(loss), xp.full_like(loss, math.inf), loss)
        return _Best(finite, *copies, xp.zeros_like(loss))
    improved = loss < best.loss - min_delta

    def chosen(old: Any, new: Any) -> Any:
        if not _is_array(old):
            return old
        here = xp.reshape(improved, (*loss.shape, *([1] * (len(old.shape) - len(loss.shape)))))
        return xp.where(here, new, old)

    return _Best(
        xp.where(improved, loss, best.loss),
        chosen(best.theta, state.theta),
        mapped(chosen, best.optimizer_state, state.optimizer_state),
        xp.where(improved, xp.zeros_like(loss), best.waited + 1.0),
    )


def _with_numbers(best: _Best, state: TrainingState) -> Any:
    """Return the best optimiser's states, with the numbers that the present one counts."""
    return mapped(
        lambda old, new: old if _is_array(old) else new, best.optimizer_state, state.optimizer_state
    )


def _is_array(value: Any) -> bool:
    return owner(value) is not None and bool(getattr(value, "shape", ()))


def _note(
    history: dict[str, list[Any]],
    pending: list[tuple[Array, Array | None]],
    best: _Best | None,
) -> float | None:
    """Move to the host, in one transfer, what an epoch is judged by; add it to the history.

    Returns the number of epochs that every network has waited since its best.
    """
    losses, held_out = zip(*pending, strict=True)
    xp = array_namespace(losses[0])
    moving = {"loss": _concat(losses)}
    if held_out[0] is not None:
        moving["validation_loss"] = _concat(held_out)
    if best is not None:
        moving["waited"] = xp.min(best.waited)
    moved = dict(zip(moving, to_host_together(list(moving.values())), strict=True))
    waited = moved.pop("waited", None)
    for name, values in moved.items():
        history.setdefault(name, []).append(values)
    return None if waited is None else float(waited)


def _concat(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else array_namespace(parts[0]).concat(parts)


def _write_progress(epoch: int, epochs: int, history: dict[str, list[Any]]) -> None:
    parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}"]
    for name in ("loss", "validation_loss"):
        if name in history:
            last = history[name][-1][-1].ravel().tolist()
            values = sorted(last, key=lambda v: (math.isnan(v), v))
            rest = f" (best of {len(values)})" if len(values) > 1 else ""
            parts.append(f"{name.replace('_', ' ')} {values[0]:.6g}{rest}")
    sys.stderr.write("  ".join(parts) + "\n")
