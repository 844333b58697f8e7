"""What is checked and how: options, and a value with its gradient as functions of a flat point."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

from backprop_xp.backends import Array
from backprop_xp.checks import integer, nearest, real
from backprop_xp.gradient_check.diagnosis import Context
from backprop_xp.gradient_check.functions import Function, Tally, of_value, solo
from backprop_xp.gradient_check.points import Point, flatten_gradient

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]


class CheckOptions(TypedDict, total=False):
    """The options that every check takes; ``check_gradient`` says what they mean."""

    method: str
    directions: int | None
    tolerance: float | None
    seed: int
    max_memory: int
    batched: bool | None


class Options(NamedTuple):
    """The options with their defaults."""

    method: str = "auto"
    directions: int | None = None
    tolerance: float | None = None
    seed: int = 0
    max_memory: int = 16 * 2**20
    batched: bool | None = None


class Problem(NamedTuple):
    """A value and its analytic gradient, as functions of one flat point ``(P,)``.

    ``value`` returns a Python number, ``gradient`` a vector beside the point. ``function`` makes
    the ``Function`` of a value that is known at the point; ``blame`` names the piece of it that is
    wrong, if there are pieces.
    """

    point: Point
    value: Callable[[Array], Any]
    gradient: Callable[[Array], Array]
    function: Callable[[float, Tally], Function]
    context: Context = Context()
    blame: Callable[[], str | None] = lambda: None


def check_options(options: CheckOptions) -> Options:
    """Return the options with their defaults, or raise for one that is none."""
    unknown = sorted(set(options) - set(Options._fields))
    if unknown:
        raise TypeError(
            f"{unknown[0]!r} is no option. {nearest(unknown[0], list(Options._fields))}"
        )
    chosen = Options(**options)
    if not isinstance(chosen.method, str):
        raise TypeError(f"method must be a name such as 'auto', not {chosen.method!r}.")
    if chosen.method not in METHODS:
        raise ValueError(f"method {chosen.method!r} is unknown. {nearest(chosen.method, METHODS)}")
    if chosen.batched is not None and not isinstance(chosen.batched, bool):
        raise TypeError(f"batched must be True, False or None, not {chosen.batched!r}.")
    if chosen.directions is not None:
        integer(chosen.directions, "directions")
    if chosen.tolerance is not None:
        real(chosen.tolerance, "tolerance", above=0.0)
    integer(chosen.max_memory, "max_memory")
    return chosen._replace(seed=integer(chosen.seed, "seed", at_least=0))


def of_functions(
    value: Callable[[Any], Any],
    gradient: Callable[[Any], Any],
    point: Point,
    options: Options,
    piece: Problem | None = None,
) -> Problem:
    """Return the problem of functions of the structure that ``point`` has.

    ``piece`` is that of the smooth piece of value on which the point lies, where it is known.
    """

    def function(base: float, tally: Tally) -> Function:
        made = of_value(
            value, point, base, tally, batched=options.batched, max_memory=options.max_memory
        )
        if piece is None:
            return made
        return made._replace(frozen=functools.partial(piece.function, base, tally))

    return Problem(
        point,
        lambda flat: solo(value, point, flat, stacked=options.batched is True),
        lambda flat: flatten_gradient(point, gradient(point.restore(flat))),
        function,
    )
