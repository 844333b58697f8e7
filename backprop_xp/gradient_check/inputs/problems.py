"""The problem that a check solves: a value, its analytic gradient, a point, and the options."""

import inspect
from collections.abc import Callable, Sequence
from typing import (
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    TypeVar,
    get_args,
    get_type_hints,
)

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.checks import integer, known, nearest, real, with_options
from backprop_xp.gradient_check.inputs.points import Point, flatten_like
from backprop_xp.gradient_check.inputs.structures import Structure

# How messages call a value and its gradient.
Names: TypeAlias = tuple[str, str]
Method: TypeAlias = Literal["auto", "complex_step", "centered", "directional", "taylor"]
METHODS: tuple[Method, ...] = get_args(Method)
Check = TypeVar("Check", bound=Callable[..., Any])


class OptionsWithoutBounds(TypedDict, total=False):
    """The keyword options of every check but ``bounds``, which SciPy's problems have."""

    method: Method
    directions: int | None
    tolerance: float | None
    scale: Structure | None
    tangent: Callable[[Structure], Structure] | None
    mask: Structure | None
    points: Sequence[Structure]
    samples: int
    seed: int
    max_evaluations: int | None
    max_seconds: float | None
    max_memory: int
    batched: bool | None


class CheckOptions(OptionsWithoutBounds, total=False):
    """The keyword options of every check; ``bx.check_gradient`` explains them."""

    bounds: Sequence[Structure] | None


DEFAULTS: CheckOptions = {
    "method": "auto", "directions": None, "tolerance": None, "scale": None, "bounds": None,
    "tangent": None, "mask": None, "points": (), "samples": 0, "seed": 0, "max_evaluations": None,
    "max_seconds": None, "max_memory": 16 * 2**20, "batched": None,
}  # fmt: skip


def shows_options(**other: Any) -> Callable[[Check], Check]:
    """Return a decorator that shows the options in a check's signature; some have other defaults.

    Options that the check has itself are left out.
    """
    types = get_type_hints(CheckOptions)

    def decorate(check: Check) -> Check:
        own = inspect.signature(check).parameters
        return with_options(
            check,
            (
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=other.get(name, default),
                    annotation=types[name],
                )
                for name, default in DEFAULTS.items()
                if name not in own
            ),
        )

    return decorate


class Problem(NamedTuple):
    """A value and its gradient, both functions of the point's structure.

    ``subject`` is what the gradient is called. ``is_jacobian``: value returns many results, and
    gradient their Jacobian; ``outputs`` are the results as a point. ``label`` names entry i of
    result k, and gives the unit of its derivative; with it, gradient returns the Jacobian as ``(P,
    M)`` and its rounding error. ``perturbed_values`` is a faster way to the values with one
    entry of the point perturbed. ``scale (P,)`` is the size at which value varies, by default that
    of the entries, but at least ``least_scale`` times the root mean square of their tensor.
    ``bounds`` are two vectors ``(P,)``, and ``counts (P,)`` the entries to check. ``verify``
    returns a mistake that the compared entries show although they agree, or None.

    The others serve the diagnosis: ``batch_size``; ``l2``, the penalty's strength, and the names of
    the tensors that it ``decays``; ``locate`` says where compared entries are wrong, or None.
    """

    point: Point
    value: Callable[[Structure], Structure]
    gradient: Callable[[Structure], Structure]
    options: CheckOptions = DEFAULTS
    names: Names = ("value(point)", "gradient(point)")
    subject: str = "gradient"
    is_jacobian: bool = False
    outputs: Point | None = None
    label: Callable[[int, int], tuple[str, tuple[int, ...], float]] | None = None
    perturbed_values: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    scale: np.ndarray | None = None
    least_scale: float = 0.0
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    counts: np.ndarray | None = None
    verify: Callable[[Any], str | None] = lambda entries: None
    batch_size: int | None = None
    l2: float = 0.0
    decays: frozenset[str] = frozenset()
    locate: Callable[[Any], str | None] = lambda entries: None

    def entry(self, entry: int, result: int) -> tuple[str, tuple[int, ...], float]:
        """Return the name, the index and the unit of a derivative."""
        if self.label is not None:
            return self.label(entry, result)
        if self.outputs is not None:
            return (*jacobian_entry(self.outputs, result, self.point, entry), 1.0)
        return (*self.point.entry(entry), 1.0)

    @property
    def noun(self) -> str:
        """The last word of the subject: "gradient", "Jacobian", "Hessian" or "product"."""
        return self.subject.split()[-1]


def jacobian_entry(
    outputs: Point, result: int, point: Point, entry: int
) -> tuple[str, tuple[int, ...]]:
    """Return the name and the index of the derivative of a result by an entry of the point.

    It is ``J[i, j]`` for two vectors, otherwise ``d output['a'][0, 2] / d input[1][2, 2]``.
    """
    (output, i), (by, j) = outputs.entry(result), point.entry(entry)
    if not (output or by) and len(i) == len(j) == 1:
        return "J", i + j
    at = f"[{', '.join(map(str, i))}]" if i else ""
    return f"d output{output}{at} / d input{by}", j


def product_entry(product: str, part: str, index: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return the name and the index of an entry of a product; ``part`` is "input" or "output".

    It is ``J v[i]`` for a vector, otherwise ``J v, output['a'][0, 2]``.
    """
    is_vector = part in ("input", "output") and len(index) == 1
    return product if is_vector else f"{product}, {part}", index


def complete_options(given: CheckOptions, **functions: Any) -> CheckOptions:
    """Return the options with their defaults; raise TypeError or ValueError for a wrong one.

    Raises TypeError for functions, by name, that are none.
    """
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"{name} must be a function, not {function!r:.100}.")
    for name in set(given) - set(DEFAULTS):
        raise TypeError(f"{name!r} is not an option. {nearest(name, list(DEFAULTS))}")
    options: CheckOptions = {**DEFAULTS, **given}
    known(options["method"], METHODS, "method")
    if not isinstance(options["batched"], bool | None):
        raise TypeError(f"batched must be True, False or None, not {options['batched']!r}.")
    if options["tangent"] is not None and not callable(options["tangent"]):
        raise TypeError(f"tangent must be a function of a direction, not {options['tangent']!r}.")
    if not isinstance(options["points"], list | tuple):
        raise TypeError(f"points must be a list of points, not {options['points']!r:.100}.")
    for name, least in (("directions", 1), ("max_evaluations", 1)):
        if options[name] is not None:  # type: ignore[literal-required]
            integer(options[name], name, at_least=least)  # type: ignore[literal-required]
    for name in ("tolerance", "max_seconds"):
        if options[name] is not None:  # type: ignore[literal-required]
            real(options[name], name, above=0.0)  # type: ignore[literal-required]
    integer(options["max_memory"], "max_memory")
    integer(options["samples"], "samples", at_least=0)
    options["seed"] = integer(options["seed"], "seed", at_least=0)
    return options


def with_vectors(problem: Problem) -> Problem:
    """Return a problem with the vectors of its options ``scale``, ``bounds`` and ``mask``."""
    point, options = problem.point, problem.options
    scale, bounds, mask = options["scale"], options["bounds"], options["mask"]
    counts = np.ones(point.flat.shape, dtype=bool)
    if scale is not None:
        scale = _vector(point, scale, "scale")
        if not np.all((scale > 0.0) & np.isfinite(scale)):
            raise ValueError("scale must be positive: the size at which value varies.")
        problem = problem._replace(scale=scale)
    if bounds is not None:
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise TypeError(f"bounds must be (low, high), not {bounds!r}.")
        low, high = (
            _vector(point, default if side is None else side, f"bounds[{i}]")
            for i, (side, default) in enumerate(zip(bounds, (-np.inf, np.inf), strict=True))
        )
        x = to_host(point.flat)
        point.require((low <= x) & (x <= high), ", outside of its bounds.")
        problem, counts = problem._replace(bounds=(low, high)), low < high
    if mask is not None:
        counts = counts & (_vector(point, mask, "mask") != 0.0)
    if not counts.any():
        raise ValueError(
            "mask leaves no entry to check: it is True for the entries to check, and bounds must "
            "let them move."
        )
    return problem if counts.all() else problem._replace(counts=counts)


def _vector(point: Point, numbers: Structure, name: str) -> np.ndarray:
    """Return a number, or numbers in the structure of the point, as ``(P,)``."""
    return flatten_like(point, numbers, name, broadcasts=True)[0][:, 0].astype(np.float64)
