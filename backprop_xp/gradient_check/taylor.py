"""The Taylor test: how fast what a gradient leaves unexplained vanishes with the step.

Along a direction d with a right gradient g, ``f(x + h d) - f(x) - h g.d`` is O(h^2), and
``f(x + h d) - f(x - h d) - 2 h g.d`` is O(h^3), for the even terms cancel; with a wrong one both
are O(h). Divided by the step these are the errors of a one-sided difference, O(h), and of a
centred one, O(h^2). Orders are measured from step to step.
"""

import itertools
import math
from typing import NamedTuple

from backprop_xp.backends import array_namespace, device_of, require_owner, to_host
from backprop_xp.gradient_check.engines import epsilon
from backprop_xp.gradient_check.functions import Function, Host

_STEPS = 24
# A remainder counts where it stands out from its rounding so far that its order is good to 0.1.
_ABOVE_NOISE = 32.0


class TaylorTable(NamedTuple):
    """Remainders along a direction: one row for each step, each step half of the one before.

    ``one_sided`` and ``symmetric`` are magnitudes; ``noise`` is what rounding, of the value and of
    the analytic gradient, may make of them.
    """

    steps: tuple[float, ...]
    one_sided: tuple[float, ...]
    symmetric: tuple[float, ...]
    noise: tuple[float, ...]

    @property
    def orders(self) -> tuple[float, ...]:
        """The orders of the symmetric remainder: 3 where the gradient is right, 1 where wrong."""
        return self._orders(self.symmetric)

    @property
    def one_sided_orders(self) -> tuple[float, ...]:
        """The orders of the one-sided remainder: 2 where the gradient is right, 1 where wrong."""
        return self._orders(self.one_sided)

    def _orders(self, remainders: tuple[float, ...]) -> tuple[float, ...]:
        orders = []
        for k in range(1, len(remainders)):
            longer, shorter = remainders[k - 1], remainders[k]
            if not min(longer, shorter) > _ABOVE_NOISE * self.noise[k]:
                break
            orders.append(math.log2(longer / shorter))
        return tuple(orders)

    def lines(self) -> list[str]:
        """Return the table as text."""
        head = f"{'step':>10}  {'one-sided':>10}  {'order':>5}  {'symmetric':>10}  {'order':>5}"
        rows = [head]
        for i, step in enumerate(self.steps):
            orders = [
                f"{found[i - 1]:5.2f}" if 0 < i <= len(found) else f"{'':5}"
                for found in (self.one_sided_orders, self.orders)
            ]
            rows.append(
                f"{step:10.1e}  {self.one_sided[i]:10.1e}  {orders[0]}  "
                f"{self.symmetric[i]:10.1e}  {orders[1]}"
            )
        return [line.rstrip() for line in rows]


def taylor_table(
    function: Function, direction: Host, analytic: Host, longest: float, rounding: float
) -> TaylorTable:
    """Measure the remainders of an analytic gradient ``(P,)`` along a direction ``(P,)``.

    The first step is ``longest``; ``rounding`` is that of the analytic derivative. It ends where
    the symmetric remainder has sunk into rounding, or is linear in the step.
    """
    xp = array_namespace(direction)
    flat, here = function.flat, xp.astype(function.host, xp.float64)
    from_host, where = require_owner(flat, "point").from_host, device_of(flat)
    steps: list[float] = []
    one_sided: list[float] = []
    symmetric: list[float] = []
    noise: list[float] = []
    largest = abs(function.base)
    for k in range(_STEPS):
        h = longest * 2.0**-k
        step = from_host(h * direction, flat.dtype, where)
        remainders = []
        for moved in (flat + step, flat - step):
            value = float(function.at(moved[None, :])[0])
            away = xp.astype(to_host(moved), xp.float64) - here
            remainders.append(value - function.base - float(xp.sum(analytic * away)))
            largest = max(largest, abs(value))
        steps.append(h)
        one_sided.append(abs(remainders[0]))
        symmetric.append(abs(remainders[0] - remainders[1]))
        noise.append(4.0 * epsilon(function) * largest + rounding * h)
        if not symmetric[-1] > _ABOVE_NOISE * noise[-1] or _is_linear(symmetric):
            break
    return TaylorTable(tuple(steps), tuple(one_sided), tuple(symmetric), tuple(noise))


def _is_linear(remainders: list[float]) -> bool:
    """Say whether the last remainders are halved with the step: a wrong gradient's for good."""
    last = remainders[-5:]
    ratios = [longer / shorter for longer, shorter in itertools.pairwise(last) if shorter > 0.0]
    return len(ratios) == 4 and all(1.9 < ratio < 2.1 for ratio in ratios)
