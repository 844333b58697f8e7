"""Checking a gradient: the public functions."""

from collections.abc import Callable
from typing import Any, Unpack

from backprop_xp.backends import Array, like, require_floating
from backprop_xp.gradient_check.diagnosis import Context
from backprop_xp.gradient_check.functions import number
from backprop_xp.gradient_check.network import of_network
from backprop_xp.gradient_check.pieces import blame
from backprop_xp.gradient_check.points import Tensor, flatten
from backprop_xp.gradient_check.problems import (
    CheckOptions,
    Problem,
    check_options,
    of_functions,
)
from backprop_xp.gradient_check.report import GradientReport
from backprop_xp.gradient_check.run import run
from backprop_xp.inputs import Rows
from backprop_xp.layout import lay_out
from backprop_xp.network import Network


def check_gradient(
    value: Callable[[Any], Any],
    gradient: Callable[[Any], Any],
    point: Any,
    *,
    method: str = "auto",
    directions: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    max_memory: int = 16 * 2**20,
    batched: bool | None = None,
) -> GradientReport:
    """Compare ``gradient(point)`` with numeric derivatives of ``value(point)``.

    ``point`` is an array of any shape, or a list or dict of arrays, of any array library;
    ``value`` returns a scalar, ``gradient`` arrays like the point. Both are called with copies of
    the point, first twice each. ``method`` is

    - ``"complex_step"``: every entry, exact to rounding, for an analytic value that takes complex
      arrays (Squire and Trapp 1998);
    - ``"centered"``: every entry, by real differences of fourth order;
    - ``"directional"``: along ``directions`` directions of random sizes, one of them with the
      gradient's own signs: at most eight evaluations of a smooth value however large the point is,
      unless more directions are asked for; a mistake is then tracked down by halving;
    - ``"taylor"``: the order in which the remainder vanishes along a direction;
    - ``"auto"``: the complex step where value proves fit for it, else the centered difference, and
      by directions above 20,000 entries.

    ``tolerance`` is the largest relative error of a right gradient; None takes one that fits the
    method and the precision. ``seed`` draws the directions. ``batched=True`` promises that value
    takes copies stacked along a new first axis and returns one number for each, from that copy
    only, which is tried; None finds out.
    ``max_memory`` bounds, in bytes, the copies made at once.

    Raises TypeError or ValueError for a point that is not finite or not real floating, a gradient
    of another structure, shape, dtype or device, and a value that is not one finite number.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> x = np.array([0.5, -2.0, 3.0])
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 3 * p**2, x).verdict)
    pass
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 6 * p**2, x).diagnosis)
    the gradient is the numeric one times a constant factor of 2
    """
    options = CheckOptions(
        method=method,
        directions=directions,
        tolerance=tolerance,
        seed=seed,
        max_memory=max_memory,
        batched=batched,
    )
    chosen = check_options(options)
    return run(of_functions(value, gradient, flatten(point), chosen), chosen)


def check_network(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    sample_weight: Array | None = None,
    rng: Any = None,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare ``network.loss_and_gradient`` with numeric derivatives of ``network.loss``.

    ``theta`` is one network's, ``(P,)``; ``options`` are those of ``check_gradient``: ``batched``
    is whether the layers take a stack, as the built-in ones do. With ``rng``
    the dropout masks are fixed, and checked along. A moved parameter is sent through its layer and
    those behind it alone, as many copies at once as fit the memory. A wrong layer is named.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> bx.check_network(network, theta, [[0, 1], [1, 1]], [[1], [0]]).passed
    True
    """
    chosen = check_options(options)
    require_floating(theta, "theta")
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network's, ({network.size},), is "
            "checked at a time: theta[i]."
        )
    weight = None if sample_weight is None else like(theta, sample_weight, "sample_weight")
    rows = Rows(like(theta, x, "x"), like(theta, y, "y"), weight, rng)
    given = {"sample_weight": weight, "rng": rng}
    point = flatten(theta)._replace(tensors=_network_tensors(network))
    problem = Problem(
        point,
        lambda flat: number(network.loss(flat, rows.x, rows.y, **given), stacked=False),
        lambda flat: network.loss_and_gradient(flat, rows.x, rows.y, **given)[1],
        lambda base, tally: of_network(
            network, theta, rows, base, tally, batched=chosen.batched, max_memory=chosen.max_memory
        ),
        Context(rows.x.shape[-2], network.l2, _decaying(network)),
        lambda: blame(network, theta, rows, chosen),
    )
    return run(problem, chosen)


def assert_gradient(
    value: Callable[[Any], Any],
    gradient: Callable[[Any], Any],
    point: Any,
    **options: Unpack[CheckOptions],
) -> None:
    """Raise ``GradientCheckError`` (an AssertionError) with the report unless the check passes.

    Arguments as for ``check_gradient``.
    """
    check_gradient(value, gradient, point, **options).raise_if_failed()


def _network_tensors(network: Network) -> tuple[Tensor, ...]:
    layout, _ = lay_out(network.layers)
    return tuple(
        Tensor(f"layers[{i}].{place.name}", place.shape, place.part)
        for i, places in enumerate(layout)
        for place in places
    )


def _decaying(network: Network) -> frozenset[str]:
    layout, _ = lay_out(network.layers)
    return frozenset(
        f"layers[{i}].{place.name}"
        for i, places in enumerate(layout)
        for place in places
        if place.decays
    )
