"""The one loop of a training: steps one by one, or many in one compiled call."""

import functools
import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from backprop_xp.backends import Array, array_namespace, beside, device_of, like, require_owner
from backprop_xp.compiled import compiled
from backprop_xp.early_stopping import Slowed
from backprop_xp.hyperparameters import hyperparameter
from backprop_xp.network import Network
from backprop_xp.objective import loss_and_gradient_of, views_of
from backprop_xp.optimizers import Optimizer
from backprop_xp.schedules import Plateau, rate_at
from backprop_xp.steps import evaluate, is_ours, step, update_of


class Interrupt:
    """Ctrl-C, held back while ``busy``, as theta is being changed; ``pressed`` keeps what came.

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
    before a step; ``slowed`` is how far a plateau has lowered the rates. Once ``interrupt`` is
    pressed, no more are taken.

    ``evaluate(theta, rows, l2)`` returns a dict of the loss, in inference, and the metrics.
    """
    judge = functools.partial(evaluate, network, dict(metrics))
    gradient = functools.partial(loss_and_gradient_of, network)
    one = functools.partial(step, gradient, update_of(optimizer, theta), judge)
    many: Any = None
    home, arguments = require_owner(theta, "theta"), None
    views: Any = None
    if home.loop(one) is not None:
        one, many, judge, arguments = compiled(home, network, optimizer, judge, metrics)

    def run_steps(
        carry: tuple[Array, Any],
        places: Any,
        first: int,
        shared: Mapping[str, Any],
        interrupt: Interrupt,
        before: Callable[[Array, Any, int], None] | None = None,
        *,
        slowed: Slowed | None = None,
    ) -> Any:
        nonlocal views
        count = places if isinstance(places, int) else places.shape[0]
        tables = None if isinstance(places, int) else places
        rates = _rates(optimizer, range(first, first + count), theta, slowed)
        # The library's optimisers keep no gradient: its memory serves step after step.
        if many is None and is_ours(optimizer) and (views is None or views.theta is not carry[0]):
            views = views_of(network, carry[0])
        shared = {**shared, "views": views, "arguments": arguments}
        columns = None
        if many is not None and count > 1 and before is None:
            columns = _columns(theta, tables, first, rates)
        if columns is None:
            given = zip(itertools.count(first), rates, strict=False)
            after, outcomes = _one_by_one(one, carry, tables, given, shared, interrupt, before)
        else:
            after, outcomes = many(carry, columns, shared)
        losses, found = outcomes
        _require_alike(theta, after[0])
        return (after[0], _counted(carry[1], after[1], losses.shape[0])), losses, found

    return run_steps, judge


def _one_by_one(
    one: Callable[..., Any],
    carry: tuple[Array, Any],
    tables: Any,
    given: Iterable[tuple[int, Any]],
    shared: Mapping[str, Any],
    interrupt: Interrupt,
    before: Callable[[Array, Any, int], None] | None,
) -> Any:
    losses: list[Array] = []
    each: list[dict[str, Array]] = []
    for number, rate in given:
        places = None if tables is None else tables[len(losses), ...]
        if before is not None:
            before(carry[0], places, number)
        carry, (loss, found) = one(carry, (places, number, rate), shared)
        losses.append(loss)
        each.append(found)
        if interrupt.pressed:
            break
    stack = array_namespace(carry[0]).stack
    return carry, (stack(losses), {name: stack([f[name] for f in each]) for name in each[0]})


def _counted(before: Any, state: Any, steps: int) -> Any:
    """Return a state whose ``step`` is an int again, if it was one and a compiler took it."""
    count = getattr(before, "step", None)
    if not isinstance(count, int) or not hasattr(state, "_replace") or isinstance(state.step, int):
        return state
    return state._replace(step=count + steps)


def _require_alike(theta: Array, moved: Array) -> None:
    """Raise ValueError where a user's optimiser changed a shape or a dtype."""
    if moved.dtype != theta.dtype or tuple(moved.shape) != tuple(theta.shape):
        raise ValueError(
            f"The optimiser's update returned a theta of {moved.dtype} and shape "
            f"{tuple(moved.shape)}, but it was given one of {theta.dtype} and {tuple(theta.shape)}."
        )


def _rates(optimizer: Any, numbers: range, theta: Array, slowed: Slowed | None) -> list[Any]:
    """Return the learning rates of steps, evaluated on the host; None where there is none."""
    given = getattr(optimizer, "learning_rate", None)

    def placed(rate: Any) -> Any:
        # One kind of number: a compiler would make a function for each, and NumPy's widen float32.
        # An array is beside theta: a compiler would take one of another library unseen.
        return rate if rate is None else hyperparameter(theta, rate, "learning_rate")

    if isinstance(given, Plateau) and slowed is not None:
        factor = _factor(theta, slowed)
        rates = (placed(rate_at(given, number)) for number in numbers)
        return [_slowed(rate, factor, given.final) for rate in rates]
    if callable(given):
        return [placed(rate_at(given, number)) for number in numbers]
    return [placed(given)] * len(numbers)


def _factor(theta: Array, slowed: Slowed) -> Any:
    """Return what each network's rate is multiplied by: a number, or ``(*stack, 1)``."""
    factor = slowed.factor
    return beside(theta, factor[..., None], theta.dtype) if factor.shape else float(factor)


def _slowed(rate: Any, factor: Any, final: float) -> Any:
    """Return a rate times a factor, but no less than ``final``, or than itself if that is less."""
    slow = rate * factor
    if type(slow) is float:
        return max(slow, min(rate, final))
    xp = array_namespace(slow)
    low = min(rate, final) if type(rate) is float else xp.minimum(rate, final)
    return xp.maximum(slow, low)


def _columns(theta: Array, tables: Any, first: int, rates: Sequence[Any]) -> Any:
    """Return what many steps are given, along a new first axis; None of arrays that differ."""
    xp, count, column = array_namespace(theta), len(rates), rates[0]
    if all(isinstance(rate, float) for rate in rates):
        column = like(theta, rates, "learning_rate")
    elif any(rate is not column for rate in rates):
        return None
    elif column is not None:
        column = xp.broadcast_to(column, (count, *column.shape))
    return tables, xp.arange(first, first + count, dtype=xp.int32, device=device_of(theta)), column
