"""The one loop of a training: steps one by one, or many in one compiled call."""

import functools
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from backprop_xp.backends import Array, array_namespace, like, require_owner
from backprop_xp.compiled import compiled
from backprop_xp.hyperparameters import hyperparameter
from backprop_xp.network import Network, views_of
from backprop_xp.optimizers import Optimizer
from backprop_xp.schedules import rate_at
from backprop_xp.steps import evaluate, is_ours, step, update_of


class Interrupt:
    """Ctrl-C, held back while ``busy``, when theta is being changed; ``pressed`` is what came then.

    In the main thread; elsewhere Python delivers no signals. Whatever handles them otherwise, as
    asyncio, does so at ``release``.
    """

    def __init__(self) -> None:
        self.busy = False
        self.pressed: tuple[Any, ...] = ()
        self._handler: Any = None

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def _press(self, *signalled: Any) -> None:
        if self.busy:
            self.pressed = signalled
        else:
            self._handler(*signalled)

    def release(self) -> None:
        """Let come what was held back, as a rule KeyboardInterrupt."""
        self.busy, signalled, self.pressed = False, self.pressed, ()
        if signalled:
            self._handler(*signalled)


def steps_of(
    network: Network, optimizer: Optimizer, metrics: Mapping[str, Any], theta: Array
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return ``run_steps`` and ``evaluate`` of a training, compiled where the library compiles.

    ``run_steps(carry, places, first, shared, interrupt, before)`` takes a step for each row of
    ``places``, or so many in the full batch, numbered from ``first``. It returns the carry, each
    batch's loss before its step, ``(steps, *stack)``, and, where ``shared["judged"]`` is arguments
    of ``evaluate``, what that found after each step. ``before(theta, places, number)`` is called
    before a step. Once ``interrupt`` is pressed, no more are taken.

    ``evaluate(theta, rows, l2)`` returns a dict of the loss, in inference, and the metrics.
    """
    home = require_owner(theta, "theta")
    judge = functools.partial(evaluate, network, dict(metrics))
    one = functools.partial(step, network, judge, update_of(optimizer, theta))
    if home.loop(one) is None:
        return functools.partial(_run, network, optimizer, one, None), judge
    one, many, judge, arguments = compiled(home, network, optimizer, metrics, judge)
    return functools.partial(_run, network, optimizer, one, many, arguments=arguments), judge


def _run(
    network: Network,
    optimizer: Optimizer,
    one: Callable[..., Any],
    many: Callable[..., Any] | None,
    carry: tuple[Array, Any],
    places: Any,
    first: int,
    shared: Mapping[str, Any],
    interrupt: Interrupt,
    before: Callable[[Array, Any, int], None] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """Take steps, ``many`` in one compiled call where that can be."""
    theta = carry[0]
    xp, whole = array_namespace(theta), isinstance(places, int)
    count = places if whole else places.shape[0]
    rates = _rates(optimizer, first, count, theta)
    # The library's optimisers keep no gradient: its memory serves step after step.
    views = views_of(network, theta) if many is None and is_ours(optimizer) else None
    shared = {**shared, "arguments": arguments, "views": views}
    if many is not None and count > 1 and before is None and _are_alike(rates):
        column = _column(theta, rates)
        # Of no other column, the loop would not know how many steps to take.
        counts = _column(theta, [0.0] * count) if whole and column is None else None
        given = None if whole else places, column, counts
        carry, (losses, found) = many(carry, first, given, shared)
        _require_alike(theta, carry[0], losses.shape[1:])
        return carry, losses, found
    done: list[tuple[Array, dict[str, Array]]] = []
    for i, rate in enumerate(rates):
        part = None if whole else places[i, ...]
        if before is not None:
            before(carry[0], part, first + i)
        carry, outcome = one(carry, (part, first + i, rate), shared)
        done.append(outcome)
        if interrupt.pressed:
            break
    losses = [loss for loss, _ in done]
    _require_alike(theta, carry[0], losses[0].shape)
    found = {name: xp.stack([found[name] for _, found in done]) for name in done[0][1]}
    return carry, xp.stack(losses), found


def _require_alike(theta: Array, moved: Array, loss: Sequence[int]) -> None:
    """Raise ValueError where an optimiser or a loss of one's own made something else."""
    if moved.dtype != theta.dtype or tuple(moved.shape) != tuple(theta.shape):
        raise ValueError(
            f"The optimiser's update returned a theta of {moved.dtype} and shape "
            f"{tuple(moved.shape)}, but it was given one of {theta.dtype} and {tuple(theta.shape)}."
        )
    if tuple(loss) != tuple(theta.shape[:-1]):
        raise ValueError(
            f"A batch's loss has shape {tuple(loss)}, but {tuple(theta.shape[:-1])}, one for "
            "each network, is expected: a loss's value is one number per sample, (..., batch)."
        )


def _rates(optimizer: Any, first: int, count: int, theta: Array) -> list[Any]:
    """Return the learning rates of steps, evaluated on the host; None where there is none."""
    given = getattr(optimizer, "learning_rate", None)

    def beside(rate: Any) -> Any:
        # One kind of number: a compiler would make a function for each, and NumPy's widen float32.
        # An array is beside theta: a compiler would take one of another library unseen.
        return rate if rate is None else hyperparameter(theta, rate, "learning_rate")

    if callable(given):
        return [beside(rate_at(given, first + i)) for i in range(count)]
    return [beside(given)] * count


def _are_alike(rates: Sequence[Any]) -> bool:
    """Say whether the rates of many steps are numbers, or one and the same array."""
    first = rates[0]
    return all(rate is first for rate in rates) or all(isinstance(rate, float) for rate in rates)


def _column(theta: Array, rates: Sequence[Any]) -> Any:
    """Return the rates of many steps along a new first axis."""
    first = rates[0]
    if first is None or isinstance(first, float):
        return None if first is None else like(theta, rates, "learning_rate")
    xp = array_namespace(theta)
    return xp.broadcast_to(first, (len(rates), *first.shape))
