"""Training: ``train`` yields a state per epoch, ``fit`` runs it to the end and keeps a history.

Everything is per network of a stack: losses ``(*stack,)``, clipping, early stopping. Losses stay on
the device; ``fit`` moves them at the end, or each epoch if somebody looks at them.
"""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, Unpack

from backprop_xp.backends import Array, array_namespace, to_host
from backprop_xp.batches import batches, check_rows, check_validation, member, share
from backprop_xp.checks import integer, real, sequence
from backprop_xp.gradient_check.live import Update, Watch, draw_sizes, judge, suspected, watch
from backprop_xp.inputs import Rows
from backprop_xp.network import Network
from backprop_xp.optimizers import Optimizer
from backprop_xp.random import fold_in


class TrainingState(NamedTuple):
    """Where training stands after an epoch; valid until the next state is drawn.

    ``loss`` is the mean over the epoch's batches, each measured before its own update;
    ``validation_loss`` is measured after the epoch, without dropout and penalty. Both are
    ``(*stack,)`` on the device. ``watch`` is what gradient checks found in the epoch, if any was
    made: its ``errors`` are arrays ``(*stack,)`` on the device, one for each.
    """

    epoch: int
    step: int
    theta: Array
    optimizer_state: Any
    loss: Array
    validation_loss: Array | None
    watch: Watch | None = None


class FitResult(NamedTuple):
    """What ``fit`` leaves: the trained theta, and NumPy arrays ``(epochs, *stack)`` of losses.

    ``history`` has ``"loss"`` and, with validation rows, ``"validation_loss"``; with
    ``check_every``, ``"gradient_error"``, ``(checks, *stack)``: the relative error of each check.
    ``epochs`` counts the epochs that were run.
    """

    theta: Array
    history: dict[str, Any]
    optimizer_state: Any
    epochs: int


@dataclass(frozen=True)
class EarlyStopping:
    """Ends training when no network of the stack has improved for ``patience`` epochs.

    A network improves when its validation loss (without validation rows, its training loss) falls
    by more than ``min_delta`` below its best. With ``restore_best`` each network is given back as
    it was at its own best epoch.
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


class _Plan(NamedTuple):
    """The checked options of a training run."""

    optimizer: Optimizer
    epochs: int
    batch_size: int | None
    shuffle: bool
    seed: int
    clip: float | None
    check_every: int | None

    def batches(self, rows: Rows, epoch: int) -> Iterator[Rows]:
        """Yield the batches of an epoch."""
        return batches(rows, self.batch_size, self.seed if self.shuffle else None, epoch)


class _Run(NamedTuple):
    """A training run, checked: theta is a copy, the rows are beside it."""

    network: Network
    theta: Array
    rows: Rows
    held_out: Rows | None
    plan: _Plan


class _Best(NamedTuple):
    """Each network's best loss so far, its theta then, and the epochs since."""

    loss: Array
    theta: Array
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
    ``check_every``-th update the gradient is checked along one random direction.

    The arguments are checked at once: ValueError or TypeError for those that do not fit, and for a
    value in x, y or sample_weight that is not finite, with its place. theta is copied, never
    written.

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
    return _epochs(run)


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
    check_every. With ``check_every`` a gradient that fails a full check at the end of an epoch, at
    the batch and the theta where it was the most off, ends the training by ``GradientCheckError``,
    whose ``report`` says what is wrong. Each callback is given the state after every epoch; one
    that returns true ends the training.
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
    best: _Best | None = None
    losses: list[Array] = []
    validation_losses: list[Array] = []
    errors: list[Any] = []
    run = _prepare(network, theta, x, y, optimizer=optimizer, epochs=epochs, **options)
    for state in _epochs(run):
        losses.append(state.loss)
        if state.watch is not None:
            errors.append(_judged(run, state.epoch - 1, state.watch))
        if state.validation_loss is not None:
            validation_losses.append(state.validation_loss)
        if progress and (state.epoch in (1, epochs) or state.epoch % max(1, epochs // 10) == 0):
            _write_progress(state, epochs)
        # Every callback is called. A comparison of losses returns a library's own True.
        ends = True in [bool(callback(state)) for callback in callbacks]
        if early_stopping is not None:
            best = _track(best, state, early_stopping.min_delta)
            ends = ends or _all_waited(best, early_stopping.patience)
        if ends:
            break
    history = {"loss": _on_host(losses)}
    if validation_losses:
        history["validation_loss"] = _on_host(validation_losses)
    if errors:
        history["gradient_error"] = array_namespace(errors[0]).concat(errors)
    restores = best is not None and early_stopping is not None and early_stopping.restore_best
    trained = best.theta if best is not None and restores else state.theta
    return FitResult(trained, history, state.optimizer_state, state.epoch)


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
) -> _Run:
    """Check what a training is given."""
    if isinstance(optimizer, type) or not hasattr(optimizer, "initialize"):
        raise TypeError(f"optimizer must be one such as bx.Adam(), not {optimizer!r}.")
    plan = _Plan(
        optimizer,
        integer(epochs, "epochs"),
        None if batch_size is None else integer(batch_size, "batch_size"),
        shuffle,
        integer(seed, "seed", at_least=0),
        None if clip is None else real(clip, "clip", above=0.0),
        None if check_every is None else integer(check_every, "check_every"),
    )
    rows = check_rows(network, theta, x, y, sample_weight)
    held_out = None if validation is None else check_validation(network, theta, validation)
    start = array_namespace(theta).asarray(theta, copy=True)
    return _Run(network, start, rows, held_out, plan)


def _epochs(run: _Run) -> Iterator[TrainingState]:
    network, theta, rows, held_out, plan = run
    optimizer_state = plan.optimizer.initialize(theta)
    sizes = None if plan.check_every is None else draw_sizes(theta, plan.seed)
    step = 0
    for epoch in range(plan.epochs):
        losses, shares, watched = [], [], None
        for batch in plan.batches(rows, epoch):
            key = fold_in(plan.seed, step)
            loss, gradient = network.loss_and_gradient(
                theta, batch.x, batch.y, sample_weight=batch.sample_weight, rng=key
            )
            if plan.check_every is not None and step % plan.check_every == 0:
                update = Update(step, theta, loss, gradient)
                watched = watch(watched, network, sizes, update, batch._replace(rng=key))
            if plan.clip is not None:
                gradient = clip_norm(gradient, plan.clip)
            theta, optimizer_state = plan.optimizer.update(theta, gradient, optimizer_state)
            step += 1
            losses.append(loss)
            shares.append(share(batch))
        validation_loss = None
        if held_out is not None:
            validation_loss = network.loss(
                theta, held_out.x, held_out.y, sample_weight=held_out.sample_weight, l2=0.0
            )
        mean = _weighted_mean(losses, shares)
        yield TrainingState(epoch + 1, step, theta, optimizer_state, mean, validation_loss, watched)


def _judged(run: _Run, epoch: int, watched: Watch) -> Any:
    """Return the errors of an epoch's checks on the host; raise for a gradient that is wrong."""
    place = suspected(watched)
    if place is not None:
        network, theta, rows, _, plan = run
        step = int(to_host(watched.step)[place])
        past = epoch * len(list(plan.batches(rows, epoch)))
        batch = next(itertools.islice(plan.batches(rows, epoch), step - past, None))
        alone = member(batch, place, theta.shape[:-1])._replace(rng=fold_in(plan.seed, step))
        judge(network, watched.theta[(*place, ...)], alone, step)
    return to_host(array_namespace(watched.worst).stack(watched.errors))


def clip_norm(gradient: Array, bound: float) -> Array:
    """Return each network's gradient, ``(..., P)``, scaled to a norm of at most ``bound``."""
    xp = array_namespace(gradient)
    # Scaled by its largest entry first: squares overflow float32 above 1e19.
    largest = xp.max(xp.abs(gradient), axis=-1, keepdims=True)
    largest = largest + xp.astype(largest == 0.0, gradient.dtype)
    scaled = gradient / largest
    # At least 1, the largest entry's own part, but for a gradient that is 0.
    norm = xp.maximum(xp.sqrt(xp.sum(scaled * scaled, axis=-1, keepdims=True)), 1.0)
    allowed = bound / norm
    return xp.where(largest <= allowed, gradient, scaled * allowed)


def _weighted_mean(losses: list[Array], shares: list[Any]) -> Array:
    if len(losses) == 1:
        return losses[0]
    total = sum(shares[1:], start=shares[0])
    parts = [loss * (share / total) for loss, share in zip(losses, shares, strict=True)]
    return sum(parts[1:], start=parts[0])


def _track(best: _Best | None, state: TrainingState, min_delta: float) -> _Best:
    """Return each network's best loss and theta after one more epoch."""
    loss = state.loss if state.validation_loss is None else state.validation_loss
    xp = array_namespace(state.theta)
    if best is None:
        copy = xp.asarray(state.theta, copy=True)
        # A loss that starts as NaN counts as infinite: any number improves on it.
        finite = xp.where(xp.isnan(loss), xp.full_like(loss, math.inf), loss)
        return _Best(finite, copy, xp.zeros_like(loss))
    improved = loss < best.loss - min_delta
    return _Best(
        xp.where(improved, loss, best.loss),
        xp.where(improved[..., None], state.theta, best.theta),
        xp.where(improved, xp.zeros_like(loss), best.waited + 1.0),
    )


def _all_waited(best: _Best, patience: int) -> bool:
    return bool(array_namespace(best.theta).all(best.waited >= patience))


def _on_host(losses: list[Array]) -> Any:
    return to_host(array_namespace(losses[0]).stack(losses))


def _write_progress(state: TrainingState, epochs: int) -> None:
    parts = [f"epoch {state.epoch:>{len(str(epochs))}}/{epochs}"]
    for name, loss in (("loss", state.loss), ("validation loss", state.validation_loss)):
        if loss is not None:
            values = sorted(to_host(loss).ravel().tolist(), key=lambda v: (math.isnan(v), v))
            rest = f" (best of {len(values)})" if len(values) > 1 else ""
            parts.append(f"{name} {values[0]:.6g}{rest}")
    sys.stderr.write("  ".join(parts) + "\n")
