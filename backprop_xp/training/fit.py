"""Training: ``train`` yields a state per epoch, ``fit`` runs it to the end and keeps a history.

Everything is per network of a stack: losses ``(*stack,)``, clipping, early stopping. Losses stay on
the device; ``fit`` moves them at the end, or at each epoch if somebody looks at them.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from backprop_xp.backends import Array, array_namespace, owner, require_owner, to_host
from backprop_xp.checks import boolean, nearest, sequence
from backprop_xp.display.progress import reporting
from backprop_xp.networks.inputs import check_entries, check_l2
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import strength_of
from backprop_xp.networks.random_bits import as_int32, fold_in
from backprop_xp.training.batches import joined, mean_over, pieces, remaining, tables_of, take
from backprop_xp.training.data_checks import check_data
from backprop_xp.training.early_stopping import EarlyStopping, better, slowed
from backprop_xp.training.gradient_monitor import check_step
from backprop_xp.training.history import Record, kept, on_host, saving
from backprop_xp.training.loop import Interrupt, steps_of
from backprop_xp.training.optimizers import optimizer_beside
from backprop_xp.training.options import FitResult, Options, TrainingState, started
from backprop_xp.training.pytrees import copied
from backprop_xp.training.schedules import Plateau

# Epochs of one update each in one loop, which keeps their losses to its end.
_BLOCK = 2000


def _checked(function: str, given: dict[str, Any], *own: str) -> Options:
    """Return the checked options of ``train`` or ``fit``, given the names of the function's own."""
    known = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            raise TypeError(f"{function} has no option {name!r}. {nearest(name, [*known, *own])}")
    for name, example in (("optimizer", "bx.Adam()"), ("epochs", "100")):
        if name not in given:
            raise TypeError(f"{function} needs {name}=, such as {name}={example}.")
    return Options(**given)


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show the options, with their defaults, in a function's signature."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = inspect.signature(Options).parameters.values()
    parameters = sorted([*own, *options], key=lambda parameter: parameter.kind)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


@_with_options
def train(
    network: Network, theta: Array, x: Array, y: Array, **options: Any
) -> Iterator[TrainingState]:
    """Return an iterator that trains for an epoch each time it is advanced.

    It yields a ``TrainingState``; the options are those of ``bx.options.Options``.

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
    # Of an interrupt that is not entered: here Ctrl-C raises wherever it comes.
    return interruptible(network, theta, x, y, _checked("train", options), Interrupt())


def interruptible(
    network: Network, theta: Array, x: Array, y: Array, options: Options, interrupt: Interrupt
) -> Iterator[TrainingState]:
    """Return the iterator of ``train``, in whose steps an interrupt is held back.

    Once it is pressed, the state after the step is yielded, in the middle of an epoch as a rule;
    whoever entered the interrupt releases it then, and goes on or does not.
    """
    state, advance = _prepared(network, theta, x, y, options)
    record, save = Record(state), saving(network, state, options)

    def states(state: TrainingState) -> Iterator[TrainingState]:
        while not _has_ended(state, options):
            interrupt.busy = True
            state, values = advance(state, 1, interrupt)
            interrupt.raise_error()
            if values and options.checkpoint is not None:
                record.add(values)
                save(state, record, _has_ended(state, options))
            yield state

    return states(state)


@_with_options
def fit(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    callbacks: Sequence[Callable[[TrainingState], Any]] = (),
    progress: bool = False,
    **options: Any,
) -> FitResult:
    """Train and return theta, the history and the optimiser's state.

    The other options are those of ``train``, of ``bx.options.Options``. Each callback is given the
    state after every epoch; one that returns True ends the training, and TypeError is raised for
    what is no boolean and not None. ``progress`` shows a bar on a terminal and in a notebook, where
    rich is installed, and writes lines to stderr elsewhere.

    Ctrl-C ends the training at once, between two updates. Its KeyboardInterrupt, and every other
    exception, has the last whole state that was reached in its attribute ``state``, with the
    history so far: ``start=error.state`` goes on as if nothing had happened. Before the training
    begins that is ``start``, or None.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> result = bx.fit(network, theta, [[0], [1]], [[1], [3]], optimizer=bx.SGD(0.3), epochs=200)
    >>> result.theta.round(6), result.history["loss"].shape
    (array([2., 1.]), (200,))
    """
    chosen = _checked("fit", options, "callbacks", "progress")
    callbacks = sequence(callbacks, "callbacks", "(print,)")
    looks = boolean(progress, "progress") or callbacks or chosen.early_stopping or chosen.plateau
    reports = reporting(chosen.epochs) if progress else contextlib.nullcontext(None)
    every, checks = chosen.checkpoint_every, list[tuple[str, float]]()
    ends, interrupt, record = False, Interrupt(), None
    state: Any = chosen.start
    try:
        state, advance = _prepared(network, theta, x, y, chosen)
        record, save = Record(state), saving(network, state, chosen)
        _refuse_empty_stack(theta, progress=progress)
        with interrupt, reports as report:
            while not (ends or _has_ended(state, chosen)):
                left = chosen.epochs - state.epoch
                # Nearly equal blocks, of two lengths at most: a compiler takes each anew.
                count = 1 if looks else math.ceil(left / math.ceil(left / _BLOCK))
                if chosen.checkpoint is not None:
                    count = min(count, every - state.epoch % every)
                interrupt.busy = True
                state, values = advance(state, count, interrupt)
                if values:
                    checks += state.checks
                    record.add(values)
                interrupt.release()
                if not values:  # an interrupt cut the epoch short, and its handler lets us go on
                    continue
                if report is not None:
                    report(state.epoch, functools.partial(on_host, [values]))
                # Every callback is called.
                ends = True in [_ends(call(state), i) for i, call in enumerate(callbacks)]
                save(state, record, ends or _has_ended(state, chosen))
            # A library that computes later is waited for here.
            state = record.completed(state)
        history = _history(state, checks, chosen)
    except BaseException as error:
        error.state = state if record is None else record.completed(state)  # type: ignore[attr-defined]
        raise
    # Copied: who goes on with the result does not write over the state.
    ending = kept(state, chosen)
    left_with, optimizer_state = copied((ending.theta, ending.optimizer_state))
    return FitResult(left_with, history, optimizer_state, state.epoch, state)


def _history(
    state: TrainingState, checks: Sequence[tuple[str, float]], options: Options
) -> dict[str, Any]:
    """Return on the host what the whole training measured, and what this call's checks found."""
    history: dict[str, Any] = copied(dict(state.history))
    if not history:  # of a start that is at its end, and has none
        known = to_host(state.theta[..., 0])
        np = array_namespace(known)
        unknown = np.full((state.epoch, *known.shape), math.nan, dtype=known.dtype, device="cpu")
        history = dict.fromkeys(["loss", *options.judged], unknown)
    if options.check_every is not None:
        history["gradient_error"] = to_host([error for _, error in checks])
        history["gradient_verdict"] = to_host([verdict for verdict, _ in checks])
    return history


def _prepared(
    network: Network, theta: Array, x: Any, y: Any, options: Options
) -> tuple[TrainingState, Callable[[TrainingState, int, Interrupt], Any]]:
    """Return where a training begins, and the function that carries it on.

    ``advance(state, epochs, interrupt)`` returns the state after so many epochs of one update each,
    or after one of several, and what was measured in each, by name, ``(epochs, *stack)``. It uses
    the memory of the state that it is given again.
    """
    rows, held_out = check_data(network, theta, x, y, options.sample_weight, options.validation)
    early, plateau = options.named(options.early_stopping), options.named(options.plateau)
    every = options.check_every
    metrics = options.metrics or {}
    asked = {"early_stopping": early, "check_every": every, "plateau": plateau}
    _refuse_empty_stack(theta, **{name: value is not None for name, value in asked.items()})
    optimizer = optimizer_beside(options.optimizer, theta)
    l2 = network.l2 or None if options.l2 is None else check_l2(theta, options.l2)
    of_sum = None if options.l2_of_sum is None else check_l2(theta, options.l2_of_sum)
    for name, strength in (("l2", l2), ("l2_of_sum", of_sum)):
        if strength is not None and not isinstance(strength, float):
            check_entries(strength, name, low=0.0)
    count, weight = rows.x.shape[-2], rows.sample_weight
    size = min(options.batch_size or count, count)
    batches = math.ceil(count / size)
    start = started(options.start, optimizer, theta, batches, size)
    run_steps, evaluate = steps_of(network, optimizer, metrics, theta)
    home = require_owner(theta, "theta")
    mean = home.compile(mean_over)
    # What a theta is judged by: the validation rows, or the loss that is trained.
    judged: Any = (rows, strength_of(rows, l2, of_sum)) if held_out is None else (held_out, None)
    if held_out is None and not metrics and early is None and plateau is None:
        judged = None
    # Several batches are judged at the end of their epoch, a full one with its step.
    shared: dict[str, Any] = {"l2": l2, "l2_of_sum": of_sum, "clip": options.clip}
    shared["seed"] = as_int32(options.seed) if network.is_random else None
    shared["judged"] = judged if batches == 1 else None

    def look(checks: list[Any], theta: Array, places: Any, number: int) -> None:
        if every is not None and number % every == 0:
            batch = take(rows, places, fold_in(options.seed, number))
            strength = strength_of(batch, l2, of_sum)
            checks.append(check_step(network, theta, batch, strength, number))

    def advance(
        state: TrainingState, epochs: int, interrupt: Interrupt
    ) -> tuple[TrainingState, dict[str, Array]]:
        cut, step, carry = state.batch_losses, state.step, (state.theta, state.optimizer_state)
        done, checks, passed = list[Array](), list[Any](), 0
        if cut is not None:
            done, checks, passed = [cut], [*state.checks], cut.shape[0]
        before = None if every is None else functools.partial(look, checks)
        # Several batches, or an epoch that goes on, are judged at its end.
        at_end, ended, tables = batches > 1 or passed > 0, False, list[Array]()
        if batches > 1:
            tables = tables_of(rows, size, options.shuffle, options.seed, state.epoch)
        found: dict[str, Array] = {}
        left = remaining(tables, passed) if at_end else [epochs]
        try:
            for part, table in pieces(rows, left):
                given = {**shared, "rows": part}
                carry, losses, found = run_steps(
                    carry, table, step, given, interrupt, before, slowed=state.slowed
                )
                step += losses.shape[0]
                done.append(losses)
                if interrupt.has_come:
                    break
            ended = at_end and step == (state.epoch + 1) * batches
            if ended and judged is not None:
                found = {name: v[None, ...] for name, v in evaluate(carry[0], *judged).items()}
        except BaseException as error:
            if not done:  # nothing was written over
                raise
            interrupt.error, ended = error, False
        losses = joined(done, axis=0)
        taken, cut = losses.shape[0], None
        whole = int(ended) if at_end else taken if judged is None else _rows_of(found)
        if ended and batches > 1:
            losses = mean(tables, losses, weight)
        elif not ended and whole < taken:
            losses, cut = losses[:whole, ...], losses[whole:, ...]
        state = state._replace(
            epoch=state.epoch + whole,
            step=step,
            theta=carry[0],
            optimizer_state=carry[1],
            checks=tuple(checks),
            batch_losses=cut,
            batch_size=size,
        )
        if not whole:
            return state, {}
        measured = {name: found[name] for name in metrics}
        if held_out is not None:
            measured["validation_loss"] = found["loss"]
        last = {name: values[-1, ...] for name, values in {"loss": losses, **measured}.items()}

        def watched(rule: EarlyStopping | Plateau) -> Array:
            return found[str(rule.watch) if rule.watch in metrics else "loss"][-1, ...]

        if early is not None:
            best = better(early, state.best, watched(early), state.epoch, carry)
            state = state._replace(best=best)
        if plateau is not None:
            now = slowed(plateau, state.slowed, watched(plateau), state.epoch)
            state = state._replace(slowed=now)
        state = state._replace(
            loss=last.pop("loss"), validation_loss=last.pop("validation_loss", None), metrics=last
        )
        return state, {"loss": losses, **measured}

    def unrecorded(*arguments: Any) -> tuple[TrainingState, dict[str, Array]]:
        with home.unrecorded():
            return advance(*arguments)

    return start, unrecorded


def _rows_of(found: dict[str, Array]) -> int:
    """Return of how many epochs something was found."""
    return next(iter(found.values())).shape[0] if found else 0


def _has_ended(state: TrainingState, options: Options) -> bool:
    """Say whether all epochs are done, or no network has improved for the patience."""
    if state.epoch >= options.epochs or options.early_stopping is None or state.best is None:
        return state.epoch >= options.epochs
    return bool(state.epoch - state.best.epoch.max() >= options.early_stopping.patience)


def _refuse_empty_stack(theta: Array, **asked: bool) -> None:
    """Raise ValueError for options that judge networks where there are none."""
    for name, is_asked in asked.items():
        if is_asked and 0 in theta.shape:
            raise ValueError(
                f"{name} needs a network to judge, but theta has shape {tuple(theta.shape)}, a "
                "stack of none. Give theta at least one network, or leave the option out."
            )


def _ends(answer: Any, i: int) -> bool:
    """Whether a callback's answer ends the training: True, or an array of one True."""
    if answer is None or isinstance(answer, bool):
        return bool(answer)
    expected = "but True, which ends the training, or False is expected"
    home = owner(answer)
    if home is None or not home.namespace().isdtype(answer.dtype, "bool"):
        raise TypeError(
            f"callbacks[{i}] returned {answer!r} ({type(answer).__name__}), {expected}. A callback "
            "that has nothing to say returns None."
        )
    if math.prod(answer.shape) != 1:
        raise ValueError(
            f"callbacks[{i}] returned an array of shape {tuple(answer.shape)}, {expected}: of a "
            "stack, say whether all or any of its networks are done, by the library's all or any."
        )
    return bool(answer)
