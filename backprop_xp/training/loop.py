"""The one loop of a training: steps one by one, or many in one compiled call."""

import functools
import itertools
import operator
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from backprop_xp.backends import (
    Array,
    array_namespace,
    beside,
    device_of,
    like,
    require_owner,
    to_host,
)
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import loss_and_gradient_of, views_of
from backprop_xp.training.compiled import compiled
from backprop_xp.training.early_stopping import Slowed
from backprop_xp.training.hyperparameters import hyperparameter
from backprop_xp.training.optimizers import Optimizer
from backprop_xp.training.pytrees import copied, mapped
from backprop_xp.training.schedules import Plateau, rate_at
from backprop_xp.training.steps import evaluate, is_ours, piece_by_piece, step, update_of

# Seconds of work that a compiler's library is given before it is waited for.
_AT_ONCE = 1.0


class Interrupt:
    """What ends a training early, held back while ``busy``, until its state is whole.

    ``pressed`` keeps the arguments of a Ctrl-C, ``error`` what a step raised. Ctrl-C is held back
    in the main thread; elsewhere Python delivers no signals. Whatever handles it otherwise, as
    asyncio, does so at ``release``. A handler that a callback has put in place stays.
    """

    def __init__(self) -> None:
        self.busy = False
        self.pressed: tuple[Any, ...] = ()
        self.error: BaseException | None = None
        self._handler: Any = None
        self._is_entered = False

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._handler, self._is_entered = handler, True
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_entered and signal.getsignal(signal.SIGINT) == self._press:
            signal.signal(signal.SIGINT, self._handler)
        self._is_entered = False

    def _press(self, *signalled: Any) -> None:
        # A handler that stays may call this one later.
        if self.busy and self._is_entered:
            self.pressed = signalled
        else:
            self._handler(*signalled)

    @property
    def has_come(self) -> bool:
        """Whether something is held back."""
        return bool(self.pressed) or self.error is not None

    def raise_error(self) -> None:
        """Raise an error that was held back, if there is one."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def release(self) -> None:
        """Let come what was held back: an error, or, as a rule, KeyboardInterrupt."""
        self.busy, signalled, self.pressed = False, self.pressed, ()
        self.raise_error()
        if signalled:
            self._handler(*signalled)


class _Queue:
    """How many steps a library that computes later may be given before it is waited for.

    As many as take it about a second, as measured; Ctrl-C waits for no more.
    """

    def __init__(self) -> None:
        self._allowed, self._given, self._since = 1, 0, time.perf_counter()

    @property
    def room(self) -> int:
        """How many steps may follow without waiting."""
        return self._allowed - self._given

    def add(self, steps: int, losses: Array) -> None:
        """Count steps that were given, and wait for their losses if there is no more room."""
        self._given += steps
        if self.room > 0:
            return
        to_host(losses)
        seconds, most = time.perf_counter() - self._since, 10 * self._given
        # The first call compiles, which takes longer than any step.
        self._allowed = max(1, min(most, int(self._given / seconds * _AT_ONCE)))
        self._given, self._since = 0, time.perf_counter()


def steps_of(
    network: Network, optimizer: Optimizer, metrics: Mapping[str, Any], theta: Array
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return ``run_steps`` and ``evaluate`` of a training, compiled where the library compiles.

    ``run_steps(carry, places, first, shared, interrupt, before)`` takes a step for each row of
    ``places``, or so many in the full batch, numbered from ``first``. It returns the carry, each
    batch's loss before its step, ``(steps, *stack)``, and, where ``shared["judged"]`` is arguments
    of ``evaluate``, what that found after each step. ``before(theta, places, number)`` is called
    before a step; ``slowed`` is how far a plateau has lowered the rates. Once ``interrupt`` is
    pressed, no more are taken. It holds back an error that comes after the first of them: what was
    taken before is whole.

    ``evaluate(theta, rows, l2)`` returns a dict of the loss, in inference, and the metrics.
    """
    judge = functools.partial(evaluate, network, dict(metrics), piece_by_piece)
    gradient = functools.partial(loss_and_gradient_of, network)
    one = functools.partial(step, gradient, update_of(optimizer, theta))
    many: Any = None
    home, arguments = require_owner(theta, "theta"), None
    views: Any = None
    queue = _Queue()
    if home.loop(one) is not None:
        one, many, judge, arguments = compiled(home, network, optimizer, dict(metrics))
    # What a compiler has taken up does not fail within an update; the library's own do not either.
    copies = many is None and not is_ours(optimizer)

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
        if columns is not None:
            after, (losses, found) = _in_blocks(many, carry, columns, shared, interrupt, queue)
        else:

            def take(carry: Any, places: Any, number: int, rate: Any) -> Any:
                if before is not None:
                    before(carry[0], places, number)
                after, loss = one(carry, (places, number, rate), shared)
                if many is not None:
                    after = after[0], _counted(carry[1], after[1], 1)
                    queue.add(1, loss)
                return after, loss

            given = zip(itertools.count(first), rates, strict=False)
            judged = None if shared["judged"] is None else lambda t: judge(t, *shared["judged"])
            after, losses, found = _one_by_one(
                take, judged, carry, tables, given, interrupt, copies=copies
            )
        _require_alike(theta, after[0])
        return after, losses, found

    return run_steps, judge


def _in_blocks(
    many: Callable[..., Any],
    carry: tuple[Array, Any],
    columns: Any,
    shared: Mapping[str, Any],
    interrupt: Interrupt,
    queue: _Queue,
) -> Any:
    """Take the steps of all columns in compiled calls, of which none takes long."""
    done, count, outcomes = 0, columns[1].shape[0], None
    while done < count and not (done and interrupt.has_come):
        last, before = min(count, done + queue.room), carry[1]
        (theta, state), found = many(carry, columns, done, last, shared)
        # A compiler makes another function for an array in a number's place.
        carry = theta, _counted(before, state, last - done)
        outcomes = found if outcomes is None else mapped(operator.add, outcomes, found)
        queue.add(last - done, found[0])
        done = last
    if done < count:
        outcomes = mapped(lambda each: each[:done, ...], outcomes)
    return carry, outcomes


def _one_by_one(
    take: Callable[..., Any],
    judge: Callable[[Array], dict[str, Array]] | None,
    carry: tuple[Array, Any],
    tables: Any,
    given: Iterable[tuple[int, Any]],
    interrupt: Interrupt,
    *,
    copies: bool,
) -> Any:
    """Take the steps, and hold back an error that comes after the first of them.

    With ``copies`` an update may leave what it was given half written where it fails: each epoch
    begins with a copy, and what came before it is kept.
    """
    losses: list[Array] = []
    each: list[dict[str, Array]] = []
    whole, kept = 0, carry
    for number, rate in given:
        if copies and (tables is None or not losses):
            whole, kept, carry = len(losses), carry, copied(carry)
        try:
            places = None if tables is None else tables[len(losses), ...]
            carry, loss = take(carry, places, number, rate)
            losses.append(loss)
            if judge is not None:
                each.append(judge(carry[0]))
        except BaseException as error:
            if copies:
                carry, losses, each = kept, losses[:whole], each[:whole]
            if not losses:
                raise
            interrupt.error = error
        if interrupt.has_come:
            break
    stack = array_namespace(carry[0]).stack
    found = {name: stack([f[name] for f in each]) for name in (each[0] if each else ())}
    return carry, stack(losses), found


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
