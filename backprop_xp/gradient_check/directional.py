"""Checking a gradient along random directions: a few evaluations, however many entries it has.

Then, where it failed, an entry that is wrong is tracked down by halving the direction.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from backprop_xp.backends import array_namespace
from backprop_xp.gradient_check.directions import aligned, balanced, draw, jitter, norm, only
from backprop_xp.gradient_check.engines import (
    Slopes,
    complex_line,
    complex_size,
    is_double,
    real_entries,
    real_line,
    real_size,
)
from backprop_xp.gradient_check.entrywise import check_entries
from backprop_xp.gradient_check.findings import (
    JITTERS,
    Findings,
    Subject,
    line_rounding,
    line_step,
    row,
    verdict_of,
)
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.guard import trusted_complex_line
from backprop_xp.gradient_check.judgement import (
    INCONCLUSIVE,
    KINK,
    ONE_STEP,
    RIGHT,
    WRONG,
    Depth,
    full_depth,
    judge,
)
from backprop_xp.gradient_check.points import Tensor

# Up to so many entries, what directions leave open is decided entry by entry.
MANY = 20_000

# Of the complex step, in float64 and float32: tighter than entry by entry, since a mistake in one
# of many tensors is a small part of a direction's derivative.
_TOLERANCES = {True: 1e-10, False: 5e-5}
_ROUGH_TOLERANCES = {True: 1e-8, False: 5e-5}
# The direction with the gradient's own signs: along it a small error of a whole tensor adds up,
# while along random signs an error of a single entry shows best.
ALIGNED = 1
# A difference so many times what rounding may make of it is none of its doing.
_FAR = 16.0


class _Line(NamedTuple):
    """What was found along a direction: both derivatives, and what becomes of the analytic one.

    ``scale`` is the norm of the derivative's terms; ``bar`` what rounding explains.
    """

    direction: Host
    analytic: float
    numeric: float
    scale: float
    bar: float
    outcome: str


class _Rule(NamedTuple):
    """How a derivative along a direction is taken, and what a right one stays below."""

    name: str
    function: Function
    measure: Callable[[Host], float]
    step: float
    tolerance: float


def check_directions(subject: Subject, directions: int | None, tolerance: float | None) -> Findings:
    """Check along random directions: two, or one where the complex step cannot be taken."""
    first = direction_of(subject, 0)
    exact, slopes = trusted_complex_line(subject, first, subject.function, depth=ONE_STEP)
    if exact is not None:
        rule = _exact_rule(subject, tolerance)
        rounding = 0.0 if slopes is None else line_rounding(subject, slopes)
        lines = _exact_lines(subject, rule, (first, exact, rounding), directions or 2)
    else:
        rule = _rough_rule(subject, tolerance)
        lines = _rough_lines(
            subject, rule, None if slopes is None else (first, slopes), directions or 1
        )
    evaluations = subject.function.tally["value"]
    found = _findings(subject, rule, lines)._replace(evaluations=evaluations)
    if found.verdict == "pass" or (found.verdict == "kink" and _has_frozen(subject)):
        return found
    if found.verdict == "fail":
        place = _track_down(subject, rule, max(lines, key=lambda line: _error(line)))
        if exact is not None or _is_wrong_alone(subject, rule, place):
            return _located(subject, rule, found, place)
        found = found._replace(verdict=verdict_of([INCONCLUSIVE]))
    if subject.analytic.shape[0] > MANY:
        return found
    # Along a direction many kinks can meet: one entry crosses few.
    decided = check_entries(subject, "auto", tolerance)
    reason = "that of the entries, for the directions left it open"
    return decided._replace(method="directional", reason=reason, numeric=None)


def direction_of(subject: Subject, number: int) -> Host:
    """Return direction ``number`` of a subject, ``(P,)``."""
    drawn = draw(subject.function, subject.seed, number)
    if number == ALIGNED:
        drawn = aligned(drawn, subject.analytic)
    return balanced(drawn, subject.tensors, subject.analytic)


def _exact_rule(subject: Subject, tolerance: float | None) -> _Rule:
    function = subject.function
    return _Rule(
        "complex step",
        function,
        lambda direction: complex_line(function, direction)[0],
        complex_size(function),
        _TOLERANCES[is_double(function)] if tolerance is None else tolerance,
    )


def _rough_rule(subject: Subject, tolerance: float | None) -> _Rule:
    double = subject.function.in_double()
    function, name = subject.function, "centered difference"
    if double is not None:
        function, name = double, "centered difference in float64"
    step = line_step(function)
    usual = _ROUGH_TOLERANCES[is_double(subject.function)]
    return _Rule(
        name,
        function,
        lambda direction: float(real_line(function, direction, step, subject.analytic).slope[0]),
        step,
        usual if tolerance is None else tolerance,
    )


def _exact_lines(
    subject: Subject, rule: _Rule, known: tuple[Host, float, float], count: int
) -> list[_Line]:
    """Judge lines by the complex step; one that is wrong, or at a kink, ends the series.

    Of the first the derivative is ``known``, and what rounding may make of it.
    """
    first, slope, rounding = known
    lines = [_exact_line(subject, rule, first, slope, rounding)]
    for number in range(1, count):
        if lines[-1].outcome in (WRONG, KINK):
            break
        direction = direction_of(subject, number)
        lines.append(_exact_line(subject, rule, direction, rule.measure(direction), rounding))
    if WRONG in [line.outcome for line in lines]:
        return lines
    return [_jittered(subject, line) if line.outcome == INCONCLUSIVE else line for line in lines]


def _exact_line(
    subject: Subject, rule: _Rule, direction: Host, numeric: float, rounding: float
) -> _Line:
    line = _line(subject, direction, numeric)
    difference = abs(line.analytic - numeric)
    if difference <= rule.tolerance * line.scale:
        return line
    if _agrees_on_the_piece(subject, rule, line):
        return line._replace(outcome=KINK)
    outcome = WRONG if difference > _FAR * rounding else INCONCLUSIVE
    return line._replace(bar=rounding, outcome=outcome)


def _jittered(subject: Subject, line: _Line) -> _Line:
    """Return a line with what a jitter of the point makes of its derivative in its bar."""
    away = jitter(subject.function, subject.seed)
    slope, _ = complex_line(subject.function, line.direction, away)
    bar = line.bar + JITTERS * abs(slope - line.numeric)
    wrong = abs(line.analytic - line.numeric) > bar
    return line._replace(bar=bar, outcome=WRONG if wrong else INCONCLUSIVE)


def _rough_lines(
    subject: Subject, rule: _Rule, known: tuple[Host, Slopes] | None, count: int
) -> list[_Line]:
    """Judge lines by real differences; ``known`` is a direction with its slopes, if one was taken.

    Otherwise the first has the gradient's signs: the value changes the most along it.
    """
    if known is None or rule.function is not subject.function:
        direction = direction_of(subject, ALIGNED)
        known = direction, real_line(rule.function, direction, rule.step, subject.analytic)
    lines = [_rough_line(subject, rule, *known)]
    for number in range(2, count + 1):
        if lines[-1].outcome != RIGHT:
            break
        direction = direction_of(subject, number)
        slopes = real_line(rule.function, direction, rule.step, subject.analytic)
        lines.append(_rough_line(subject, rule, direction, slopes))
    return lines


def _rough_line(subject: Subject, rule: _Rule, direction: Host, slopes: Slopes) -> _Line:
    xp = array_namespace(direction)
    line = _line(subject, direction, float(slopes.slope[0]))

    def probe(h: float) -> Slopes:
        if h == rule.step:
            return slopes
        return real_line(rule.function, direction, h, subject.analytic)

    def judged(depth: Depth) -> _Line:
        # A gradient that is 0 throughout is compared with 1.
        scale = xp.asarray([line.scale or 1.0])
        found = judge(
            probe, xp.asarray([line.analytic]), scale, rule.tolerance, rule.step, depth=depth
        )
        numeric, bar, outcome = float(found.slope[0]), float(found.bar[0]), found.outcomes[0]
        if outcome == WRONG and abs(line.analytic - numeric) <= line_rounding(subject, slopes):
            outcome = INCONCLUSIVE
        return line._replace(numeric=numeric, bar=bar, outcome=outcome)

    once = judged(ONE_STEP)
    if once.outcome == RIGHT:
        return once
    if _agrees_on_the_piece(subject, rule, line):
        return line._replace(outcome=KINK)
    if once.outcome == WRONG and _is_smooth(slopes, once):
        return once
    return judged(full_depth(rule.function))


def _is_smooth(slopes: Slopes, line: _Line) -> bool:
    """Say whether no kink explains a difference: the slopes on either side close with the step."""
    gap = abs(float(slopes.right[0] - slopes.left[0]))
    return gap < 0.25 * abs(line.analytic - line.numeric) or 1.7 * gap < float(slopes.wide_gap[0])


def _line(subject: Subject, direction: Host, numeric: float) -> _Line:
    terms = subject.analytic * direction
    analytic = float(array_namespace(terms).sum(terms))
    return _Line(direction, analytic, numeric, max(norm(terms), abs(numeric)), 0.0, RIGHT)


def _error(line: _Line) -> float:
    difference = abs(line.analytic - line.numeric)
    return difference / line.scale if line.scale else difference


def _has_frozen(subject: Subject) -> bool:
    return subject.function.frozen() is not None


def _agrees_on_the_piece(subject: Subject, rule: _Rule, line: _Line) -> bool:
    """Say whether the gradient is right on the smooth piece of the function at the point."""
    piece = rule.function.frozen()
    if piece is None:
        return False
    try:
        slope = complex_line(piece, line.direction)[0]
    except Exception:
        slope = float(real_line(piece, line.direction, rule.step, subject.analytic).slope[0])
    return abs(line.analytic - slope) <= rule.tolerance * line.scale


def _findings(subject: Subject, rule: _Rule, lines: Sequence[_Line]) -> Findings:
    verdict = verdict_of([line.outcome for line in lines])
    bars = [line.bar / line.scale for line in lines if line.scale and line.outcome == RIGHT]
    compared = [_error(line) for line in lines if line.outcome != KINK]
    plural = "" if len(lines) == 1 else "s"
    return Findings(
        verdict=verdict,
        method="directional",
        engine=f"{rule.name} along {len(lines)} direction{plural}",
        step=rule.step,
        tolerance=max([rule.tolerance, *bars]),
        reason="relative to the norm of the derivative's terms, whatever its size",
        evaluations=0,
        error=max(compared, default=0.0),
        measure=rule.measure,
    )


def _located(subject: Subject, rule: _Rule, found: Findings, place: int) -> Findings:
    """Return findings with the entry at ``place``."""
    xp = array_namespace(subject.analytic)
    unit = xp.astype(xp.arange(subject.analytic.shape[0]) == place, xp.float64)
    numeric, analytic = rule.measure(unit), float(subject.analytic[place])
    scale = max(abs(numeric), abs(analytic))
    return found._replace(
        rows=(row(subject.tensors, place, analytic, numeric, scale),), place=place
    )


def _is_wrong_alone(subject: Subject, rule: _Rule, place: int) -> bool:
    """Say whether the entry at ``place`` is wrong by itself: along a direction kinks can meet."""
    xp = array_namespace(subject.analytic)
    analytic = subject.analytic[place : place + 1]
    found = judge(
        lambda h: real_entries(rule.function, [place], h), analytic, xp.abs(analytic) + 1e-300,
        rule.tolerance, real_size(rule.function), depth=full_depth(rule.function),
    )  # fmt: skip
    return found.outcomes[0] == WRONG


def _track_down(subject: Subject, rule: _Rule, line: _Line) -> int:
    """Return the place of a wrong entry: of each half the one that explains more is halved."""
    low, high = 0, line.direction.shape[0]
    missing = line.numeric - line.analytic
    while high - low > 1:
        middle = _middle(subject.tensors, low, high)
        half = only(line.direction, slice(low, middle))
        terms = subject.analytic * half
        off = rule.measure(half) - float(array_namespace(terms).sum(terms))
        if abs(off) >= abs(missing - off):
            high, missing = middle, off
        else:
            low, missing = middle, missing - off
    return low


def _middle(tensors: Sequence[Tensor], low: int, high: int) -> int:
    """Return where to halve: between tensors while there are several, then in the middle."""
    middle = (low + high) // 2
    bounds = [t.part.start for t in tensors if low < t.part.start < high]
    return min(bounds, key=lambda bound: abs(bound - middle), default=middle)
