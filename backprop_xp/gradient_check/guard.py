"""The guard of the complex step: whether it may be trusted, along one direction."""

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.engines import (
    KinkError,
    NotAnalyticError,
    Slopes,
    complex_line,
    epsilon,
    is_double,
    real_line,
)
from backprop_xp.gradient_check.findings import Subject, finite, line_step
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.judgement import (
    INCONCLUSIVE,
    KINK,
    RIGHT,
    WRONG,
    Depth,
    full_depth,
    judge,
    seems_kinked,
)


def trusted_complex_line(
    subject: Subject,
    direction: Host,
    beside: Function,
    *,
    depth: Depth,
    strict: bool = False,
) -> tuple[float | None, Slopes | None]:
    """Return the derivative along a direction by the complex step, None if it cannot be trusted.

    The value must be complex at a complex point, with the real part it has at the real one, and a
    real difference must agree: of ``beside``, the same function or that in float64. It is returned
    too, if it was taken. ``strict`` raises what the function raised, or NotAnalyticError, instead
    of returning None.
    """
    function = subject.function
    try:
        slope, real = complex_line(function, direction)
    except Exception:
        if strict:
            raise
        return None, None
    if slope == 0.0 and not strict:
        return None, None  # an imaginary part that was dropped, maybe
    terms = abs(slope) + float(abs(finite(subject.analytic * direction)).max())
    same_value = abs(real - function.base) <= epsilon(function) ** 0.5 * (abs(real) + terms)
    outcome, slopes = _beside(subject, direction, beside, slope, terms, depth)
    piece = beside.frozen()
    if outcome in (KINK, WRONG) and piece is not None:
        # At a kink the complex step is on the side that the network's own activations are on, but
        # for its own rounding.
        on_piece, _ = _beside(subject, direction, piece, slope, terms, depth)
        outcome = on_piece if on_piece in (RIGHT, INCONCLUSIVE) else outcome
    if outcome in (RIGHT, INCONCLUSIVE) and same_value:
        return slope, slopes
    if strict:
        kind = KinkError if outcome == KINK and same_value else NotAnalyticError
        raise kind(
            f"value is not analytic, or has a kink at the point: along a random direction the "
            f"complex step gives a slope of {slope:.6g}, but a difference "
            f'{float(slopes.slope[0]):.6g}. Use method="auto" or "centered".'
        )
    return None, slopes


def _beside(
    subject: Subject,
    direction: Host,
    function: Function,
    slope: float,
    terms: float,
    depth: Depth,
) -> tuple[str, Slopes]:
    """Return what real differences along a direction say of a slope, and the first of them."""
    looked: list[Slopes] = []

    def probe(h: float) -> Slopes:
        looked.append(real_line(function, direction, h, finite(subject.analytic)))
        return looked[-1]

    xp = array_namespace(direction)
    analytic, scale = xp.asarray([slope]), xp.asarray([terms])
    tolerance, step = guard_tolerance(subject.function), line_step(function)

    def outcome(depth: Depth) -> str:
        return judge(probe, analytic, scale, tolerance, step, depth=depth).outcomes[0]

    found = outcome(depth)
    if found != RIGHT and seems_kinked(looked[0]):
        found = outcome(full_depth(function))
    return found, looked[0]


def guard_tolerance(function: Function) -> float:
    """Return how well the complex step must agree with a real difference."""
    return 1e-8 if is_double(function) else 1e-4
