"""Standard errors of unknown coefficients and of a solution that are learned from readings.

They are those of ``influence``: noise ``dy`` in the readings moves the minimum by ``K dy``, and
their fitted values by ``S dy``. The variance of the noise is ``sum(r**2) / (n - 2 tr S +
tr S^T S)`` (Hastie and Tibshirani 1990, section 3.5), and theta's covariance is as many times
``K K^T``. The residuals whose targets are exact have no noise: they only hold the solution.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    gather,
    integer_array,
    to_host,
    to_host_together,
    transposed,
)
from backprop_xp.checks import real, sequence, stacklevel
from backprop_xp.display.reprs import argument_text
from backprop_xp.extras import install_command
from backprop_xp.networks.chain.array_checks import check_l2
from backprop_xp.networks.chain.batch_rows import row_slices
from backprop_xp.networks.chain.layout import weight_mask
from backprop_xp.networks.derivatives.gauss_newton import linearized
from backprop_xp.networks.derivatives.row_jacobians import outputs_and_jacobian
from backprop_xp.networks.equations.equation_layers import Equation
from backprop_xp.networks.equations.group_layers import Groups
from backprop_xp.networks.equations.influence import (
    Influence,
    Minimum,
    inverse_or_zero,
    lengths,
)
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.network import Network

if TYPE_CHECKING:
    from backprop_xp.display.summaries import Summary

# The part of an unknown's error that a remaining step may move it.
_MOST_LEFT = 0.1
# The times that the readings may decide about what the equation leaves free.
_MOST_PARAMETERS = 2.0
# So many numbers of the solution's derivatives are computed at once.
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class StandardErrors:
    """The standard errors that noise in the readings gives, ``(*stack,)`` each.

    - ``unknown`` has those of the unknown coefficients, by name. An error is infinite if neither
      the readings nor the equation determine the coefficient.
    - ``covariance`` and ``correlation`` are those of the unknown coefficients, in the order of
      ``unknown``: ``(*stack, m, m)``. The errors are the roots of the covariance's diagonal. A
      coefficient whose error is infinite or 0 has the correlation NaN.
    - ``noise`` is the standard deviation of the readings' noise.
    - ``parameters`` are the effective ones: how many numbers the readings decide about.
    - ``freedom`` are the degrees of freedom that are left for the noise, those of Student's t.

    Printed, they are a table of the coefficients with their errors, and the strongest correlation.
    """

    unknown: Mapping[str, Array]
    covariance: Array
    correlation: Array
    noise: Array
    parameters: Array
    freedom: Array
    _coefficients: Array  # (*stack, 2, m), and their errors
    _network: Network
    _theta: Array  # of the solution
    _influence: Influence

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()

    def _summary(self) -> "Summary":
        from backprop_xp.display.coefficients import summary_of

        shown = self._coefficients, self.correlation, self.noise, self.parameters, self.freedom
        return summary_of([*self.unknown], *to_host_together(shown))

    def of(self, points: Array) -> Array:
        """Return the standard errors of the solution at points, ``(*stack, rows, n_out)``.

        ``points`` are ``(rows, n_in)``, as those of the equations' ``network``.
        """
        theta, network, xp = self._theta, self._network, array_namespace(self._theta)
        points, _ = network.check_inputs(theta, points)
        (*stack, count, n_out), size = network.outputs_shape(theta, points), theta.shape[-1]
        at_once, found = max(1, _NUMBERS_AT_ONCE // (math.prod(theta.shape) * n_out)), []
        for rows in row_slices(count, at_once):
            _, jacobian = outputs_and_jacobian(network.definition, theta, points[..., rows, :])
            moved = lengths(self._influence.on(xp.reshape(jacobian, (*stack, -1, size))))
            found.append(xp.reshape(self.noise[..., None] * moved, (*stack, -1, n_out)))
        return xp.concat(found, axis=-2)

    def quantile(self, coverage: float) -> Array:
        """Return Student's t: how many standard errors on either side have this coverage."""
        try:
            from scipy.special import stdtrit
        except ImportError as error:
            raise ImportError(f"{error} ({install_command('sklearn')})") from error
        coverage = real(coverage, "coverage", above=0.0, below=1.0)
        factor = stdtrit(to_host(self.freedom), 0.5 + 0.5 * coverage)
        xp, device = array_namespace(self._theta), device_of(self._theta)
        return xp.asarray(factor, dtype=self._theta.dtype, device=device)


def standard_errors(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    measured: Sequence[Equation],
    sample_weight: Array | None = None,
    l2: float | Array | None = None,
) -> StandardErrors:
    """Return the standard errors of an equation's unknown coefficients, and of its solution.

    ``network`` has one layer, an ``Equation`` or the ``Groups`` of ``group_rows``, and was trained
    to ``theta``, ``(*stack, P)``, at a minimum of the loss. ``measured`` are the equations whose
    targets are readings with independent noise, of one standard deviation: divide a residual and
    its targets by known ones. ``x``, ``y``, ``sample_weight`` and ``l2`` are those of the training.

    The errors are those of noise: an equation that does not describe the readings has others. The
    weights of the readings do not count as their precision. More weight makes the errors wider,
    since the readings then decide about more than the coefficients: see ``parameters``.

    Warns where another step would move a coefficient by a tenth of its error, where nothing
    determines a coefficient, and for an equation of one variable where the readings decide about
    more than twice what it leaves free. Raises ValueError if less than one degree of freedom is
    left, or the loss is not the squared error.

    >>> import backprop_xp as bx
    >>> layers, unknown = bx.mlp([1, 6, 1], hidden="tanh").layers, {"k": 1.0}
    >>> decay = bx.Equation(layers, lambda s: s.u_t + s.k * s.u, "t", unknown=unknown)
    >>> reading = bx.Equation(layers, lambda s: s.u, "t", unknown=unknown)
    >>> inside = bx.asarray([[0.1 * i] for i in range(21)])
    >>> read = [[1.03], [0.75], [0.62], [0.45], [0.38], [0.27], [0.24], [0.16]]
    >>> data = reading, bx.asarray([[0.25 * i] for i in range(8)]), bx.asarray(read)
    >>> groups = {"inside": (decay, inside), "data": data}
    >>> layer, x, y, weight = bx.group_rows(groups, weights={"data": 0.1})
    >>> network, options = bx.Network([layer], "mean_squared_error"), {"sample_weight": weight}
    >>> theta = network.initialize(seed=0)
    >>> adjust = {"optimizer": bx.LevenbergMarquardt(), "epochs": 200}
    >>> theta = bx.fit(network, theta, x, y, **adjust, **options).theta
    >>> errors = bx.standard_errors(network, theta, x, y, measured=[reading], **options)
    >>> k = layer.split(theta)[1]["k"]
    >>> print(f"k = {float(k):.2f} with a standard error of {float(errors.unknown['k']):.2f}")
    k = 1.03 with a standard error of 0.03
    """
    equations, counts, numbers = _checked(network, measured)
    rows = network.check_rows(theta, x, y, sample_weight, None)
    l2 = check_l2(theta, network.l2 if l2 is None else l2)
    linear = linearized(network.definition, theta, rows, slice(None))
    minimum = Minimum.of(theta, linear, _decay(network, theta, l2))
    given = network.check_inputs(theta, x)[0], rows.y, linear.curvature
    places, times = _readings(equations, counts, numbers, *map(to_host, given))
    at, names = integer_array(theta, places, "readings"), [*equations[0].unknown]
    xp, size = array_namespace(theta), theta.shape[-1] - len(names)
    influence = minimum.influence(at, times)
    parameters, squares = influence.traces()
    freedom = float(len(places)) - 2.0 * parameters + squares
    _check_freedom(len(places), to_host(parameters), to_host(freedom))
    errors = gather(minimum.errors, at, -1)
    noise = xp.sqrt(xp.sum(errors * errors, axis=-1) / freedom)
    unit = xp.eye(len(names), theta.shape[-1], k=size, dtype=theta.dtype, device=device_of(theta))
    given = noise, influence.on(unit), influence.undetermined(unit)
    spread, covariance, correlation = _spread(*given)
    _warn_of_steps(names, to_host(minimum.step[..., size:]), to_host(spread))
    _warn_of_parameters(equations, float(to_host(parameters).max()))
    _warn_of_undetermined(names, to_host(spread))
    unknown = {name: spread[..., i] for i, name in enumerate(names)}
    found = unknown, covariance, correlation, noise, parameters, freedom
    values = xp.stack([theta[..., size:], spread], axis=-2)
    return StandardErrors(*found, values, equations[0].network, theta[..., :size], influence)


def _checked(
    network: Network, measured: Any
) -> tuple[Sequence[Equation], Sequence[int], list[int]]:
    """Return a network's equations, their points in a row, and the numbers of those measured."""
    layer: Any = network.layers[0]
    if len(network.layers) > 1 or not isinstance(layer, Equation | Groups):
        raise TypeError(
            "standard_errors needs a network of one layer, a bx.Equation or the layer of "
            f"bx.group_rows, not {argument_text(network)}."
        )
    if network.loss_function not in (LOSSES["mean_squared_error"], LOSSES["half_squared_error"]):
        raise ValueError(
            "standard_errors needs the loss mean_squared_error or half_squared_error, not "
            f"{argument_text(network.loss_function)}: its formulas are those of least squares."
        )
    equations: tuple[Equation, ...] = layer.equations if isinstance(layer, Groups) else (layer,)
    counts: tuple[int, ...] = layer.points if isinstance(layer, Groups) else (1,)
    numbers = list[int]()
    for i, one in enumerate(sequence(measured, "measured", "[readings]")):
        found = [k for k, each in enumerate(equations) if each is one or each == one]
        if not found:
            raise ValueError(
                f"measured[{i}] is not one of the network's equations: give those whose targets "
                "are readings, as they were given to group_rows."
            )
        numbers += found
    if not numbers:
        raise ValueError("measured is empty, but the equation of the readings is expected.")
    return equations, counts, [*dict.fromkeys(numbers)]


def _decay(network: Network, theta: Array, l2: Any) -> Array | None:
    """Return the penalty's second derivative by each parameter, None without a penalty."""
    if l2 is None:
        return None
    strength = l2 if isinstance(l2, float) else l2[..., None]
    return strength * weight_mask(network.layout, theta)


def _readings(
    equations: Sequence[Equation],
    counts: Sequence[int],
    numbers: Sequence[int],
    x: Any,
    y: Any,
    curvature: Any,
) -> tuple[list[int], list[float]]:
    """Return the place of each reading among the residuals, and its number of places.

    ``group_rows`` repeats some points, whose places share a reading's weight.
    """
    if x.ndim > 2:
        raise ValueError(
            f"x has shape {x.shape}, but standard_errors takes points that all networks of a stack "
            "share, (rows, n_in)."
        )
    y, width = y.reshape(-1, *y.shape[-2:])[0], curvature.shape[-1]
    curvature = curvature.reshape(-1, *curvature.shape[-2:])
    if ((curvature > 0.0) != (curvature[0] > 0.0)).any():
        raise ValueError("All networks of a stack must have readings of the same points.")
    found: dict[tuple[Any, ...], list[int]] = {}
    from_x = from_y = 0
    for i, (one, count) in enumerate(zip(equations, counts, strict=True)):
        to_x, to_y = from_x + one.n_in * count, from_y + one.n_out * count
        weights = curvature[0, :, from_y:to_y]
        # Rounded: the places of a reading have the same weight but for their last digit.
        shares = (weights / (weights.max() or 1.0)).round(6)
        own = range(len(x) if i in numbers else 0), range(count), range(one.n_out)
        for row, place, k in itertools.product(*own):
            column, at = place * one.n_out + k, from_x + place * one.n_in
            if share := float(shares[row, column]):
                point = x[row, at : at + one.n_in].tolist()
                key = i, k, share, float(y[row, from_y + column]), *point
                found.setdefault(key, []).append(row * width + from_y + column)
        from_x, from_y = to_x, to_y
    places, times = list[int](), list[float]()
    for (_, _, share, *_), where in found.items():
        # Readings of a whole weight at some places each; or alike ones, by a weight of their own.
        whole = round(share * len(where))
        is_whole = whole > 0 and abs(share * len(where) - whole) < 1e-5 * whole
        count = whole if is_whole else len(where)
        places += where[:count]
        times += [len(where) / count] * count
    return places, times


def _spread(noise: Array, moves: Array, undetermined: Array) -> tuple[Array, Array, Array]:
    """Return standard errors ``(*stack, m)``, their covariance, and their correlation.

    ``moves``, ``(*stack, m, readings)``, are how the readings move the coefficients. The cosines of
    their rows are computed first: the squares of small errors would underflow.
    """
    xp, moved = array_namespace(moves), lengths(moves)
    along = moves * inverse_or_zero(moved)[..., None]
    cosines, spread = along @ transposed(along), noise[..., None] * moved
    covariance = spread[..., None] * spread[..., None, :] * cosines
    unknown = undetermined | (moved == 0.0)
    is_endless = undetermined[..., None] | undetermined[..., None, :]
    is_unknown = unknown[..., None] | unknown[..., None, :]
    return (
        xp.where(undetermined, xp.inf, spread),
        xp.where(is_endless, xp.inf, covariance),
        xp.where(is_unknown, xp.nan, cosines),
    )


def _check_freedom(readings: int, parameters: Any, freedom: Any) -> None:
    """Raise ValueError if a network leaves less than one degree of freedom for the noise."""
    if readings and freedom.min() >= 1.0:
        return
    raise ValueError(
        f"The {readings} readings decide about {parameters.max():.1f} parameters, which leaves "
        f"{freedom.min():.1f} degrees of freedom for their noise, but 1 or more are needed. Take "
        "more readings, give them less weight, or a larger l2."
    )


def _warn_of_steps(unknown: Sequence[str], step: Any, spread: Any) -> None:
    """Warn where theta is no minimum: a step would move an unknown coefficient."""
    if not (abs(step) > _MOST_LEFT * spread).any():
        return
    left = abs(step) / (spread + (spread == 0.0))
    worst = unknown[int(left.reshape(-1, len(unknown)).max(axis=0).argmax())]
    warnings.warn(
        f"theta is not a minimum: another step would move {worst} by {left.max():.2g} of its "
        "standard error. Train for more epochs, with LevenbergMarquardt.",
        stacklevel=stacklevel(),
    )


def _warn_of_parameters(equations: Sequence[Equation], parameters: float) -> None:
    """Warn where the readings decide about far more than an ordinary equation leaves free."""
    orders: dict[int, int] = {}
    for one in (quantity for each in equations for quantity in each.used):
        if one.kind == "output":
            orders[one.number] = max(len(one.term), orders.get(one.number, 0))
    if len(equations[0].variables) > 1 or not any(orders.values()):
        return  # a condition along a line, or no equation, leaves any number of values free
    free = len(equations[0].unknown) + sum(orders.values())
    if parameters > _MOST_PARAMETERS * free:
        warnings.warn(
            f"the readings decide about {parameters:.1f} parameters, but the equation leaves only "
            f"{free} numbers free, unknown coefficients and initial values: it does not hold well "
            "between the readings. Give them less weight.",
            stacklevel=stacklevel(),
        )


def _warn_of_undetermined(unknown: Sequence[str], spread: Any) -> None:
    """Warn of coefficients that neither the readings nor the equation determine."""
    endless = (spread == math.inf).reshape(-1, len(unknown)).any(axis=0)
    names = [name for name, is_endless in zip(unknown, endless, strict=True) if is_endless]
    if names:
        warnings.warn(
            f"neither the readings nor the equation determine {' and '.join(names)}: other values "
            "fit as well. The standard error is infinite.",
            stacklevel=stacklevel(),
        )
