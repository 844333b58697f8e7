"""The problem that a check solves: a value, its analytic gradient, a point, and the options."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.checks import integer, known, nearest, real
from backprop_xp.gradient_check.points import Point, Structure, flatten_like

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]


class CheckOptions(TypedDict, total=False):
    """The keyword options of every check; ``bx.check_gradient`` explains them."""

    method: str
    directions: int | None
    tolerance: float | None
    scale: Structure | None
    bounds: Sequence[Structure] | None
    tangent: Callable[[Structure], Structure] | None
    seed: int
    max_memory: int
    batched: bool | None


DEFAULTS: CheckOptions = {
    "method": "auto", "directions": None, "tolerance": None, "scale": None, "bounds": None,
    "tangent": None, "seed": 0, "max_memory": 16 * 2**20, "batched": None,
}  # fmt: skip


class Problem(NamedTuple):
    """A value and its gradient, both functions of the point's structure.

    ``is_jacobian``: value returns many results, and gradient their Jacobian. ``perturbed_values``
    is a faster way to the values with one entry of the point perturbed. ``scale (P,)`` is the size
    at which value varies, by default that of the entries, but at least ``least_scale`` times the
    root mean square of their tensor. ``bounds`` are two vectors ``(P,)``.

    The others serve the diagnosis of a network: ``batch_size``; ``l2``, the penalty's strength, and
    the names of the tensors that it ``decays``; ``wrong_layers`` names the layers that are wrong.
    """

    point: Point
    value: Callable[[Structure], Structure]
    gradient: Callable[[Structure], Structure]
    options: CheckOptions = DEFAULTS
    is_jacobian: bool = False
    perturbed_values: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    scale: np.ndarray | None = None
    least_scale: float = 0.0
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    batch_size: int | None = None
    l2: float = 0.0
    decays: frozenset[str] = frozenset()
    wrong_layers: Callable[[], str | None] = lambda: None


def complete_options(given: CheckOptions) -> CheckOptions:
    """Return the options with their defaults; raise TypeError or ValueError for a wrong one."""
    for name in set(given) - set(DEFAULTS):
        raise TypeError(f"{name!r} is not an option. {nearest(name, list(DEFAULTS))}")
    options: CheckOptions = {**DEFAULTS, **given}
    tangent, batched = options["tangent"], options["batched"]
    known(options["method"], METHODS, "method")
    if not isinstance(batched, bool | None):
        raise TypeError(f"batched must be True, False or None, not {batched!r}.")
    if tangent is not None and not callable(tangent):
        raise TypeError(f"tangent must be a function of a direction, not {tangent!r}.")
    if options["directions"] is not None:
        integer(options["directions"], "directions")
    if options["tolerance"] is not None:
        real(options["tolerance"], "tolerance", above=0.0)
    integer(options["max_memory"], "max_memory")
    options["seed"] = integer(options["seed"], "seed", at_least=0)
    return options


def with_scale_and_bounds(problem: Problem) -> Problem:
    """Return a problem with the vectors of its options ``scale`` and ``bounds``."""
    point, scale, bounds = problem.point, problem.options["scale"], problem.options["bounds"]
    if scale is not None:
        scale = flatten_like(point, scale, "scale")
        if not np.all((scale > 0.0) & np.isfinite(scale)):
            raise ValueError("scale must be positive: the size at which value varies.")
        problem = problem._replace(scale=scale)
    if bounds is not None:
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise TypeError(f"bounds must be (low, high), not {bounds!r}.")
        low, high = (
            flatten_like(point, default if side is None else side, f"bounds[{i}]")
            for i, (side, default) in enumerate(zip(bounds, (-np.inf, np.inf), strict=True))
        )
        x = to_host(point.flat)
        point.require((low <= x) & (x <= high), ", outside of its bounds.")
        problem = problem._replace(bounds=(low, high))
    return problem
