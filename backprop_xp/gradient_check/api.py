"""Checking a gradient: the public functions.

A point and two functions of it become a ``Problem``. Its claimed gradient and numeric derivatives,
each with error bars, go to the judge; what the judge finds is explained and reported.
"""

from collections.abc import Callable
from typing import Any, Unpack

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    like,
    require_floating,
    resolve,
    whole_numbers,
)
from backprop_xp.checks import choose, integer, nearest, real
from backprop_xp.gradient_check.functions import DEFAULTS, CheckOptions, Problem
from backprop_xp.gradient_check.network_problems import (
    drawn_parameters,
    in_double,
    layer_problem,
    loss_problem,
    network_pieces,
    network_problem,
)
from backprop_xp.gradient_check.points import flatten
from backprop_xp.gradient_check.report import GradientReport
from backprop_xp.gradient_check.run import check_problem
from backprop_xp.networks.activations import Activation
from backprop_xp.networks.inputs import Rows, check_targets, check_x, counted, stand_ins
from backprop_xp.networks.layers import Activate
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.networks.network import Network
from backprop_xp.networks.propagation import Layer, require_layer

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]


def check_gradient(
    value: Callable[..., Any],
    gradient: Callable[..., Any] | bool,
    point: Any,
    *,
    args: tuple[Any, ...] = (),
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare ``gradient(point, *args)`` with numeric derivatives of ``value(point, *args)``.

    ``point`` is an array of any shape and any array library, a number, or lists, dicts and named
    tuples of such, nested; whole numbers are cast. ``value`` returns one number, ``gradient`` the
    structure of the point; ``gradient=True`` says that value returns ``(value, gradient)``. Both
    are called with copies of the point, first twice each. ``method`` is

    - ``"complex_step"``: every entry, exact to rounding, for an analytic value that takes complex
      arrays (Squire and Trapp 1998);
    - ``"centered"``: every entry, by differences whose steps are found (Ridders 1982);
    - ``"directional"``: along ``directions`` directions of random sizes, one of them with the
      gradient's own signs: at most eight evaluations of a smooth value however large the point is,
      unless more directions are asked for; a mistake is then tracked down by halving;
    - ``"taylor"``: by differences along a direction, with the orders of the Taylor remainder;
    - ``"auto"``: the complex step where value proves fit for it, else the centered difference, and
      by directions above 20,000 entries, or where those would take more than some ten seconds.

    ``tolerance`` is the largest relative error of a right gradient; without one it is what rounding
    leaves, and a mistake of 1 % of an entry is one that must show. ``scale``, a number or like the
    point, is the size at which value varies along each entry: by default the entry's own.
    ``bounds`` are ``(low, high)``, numbers or like the point, outside which value is not called.
    ``tangent`` projects a direction, structured like the point, onto those that make sense, such as
    ``lambda d: (d + d.T) / 2`` for symmetric matrices. ``seed`` draws the directions.
    ``batched=True`` promises that value takes copies stacked along a new first axis and returns one
    number for each, from that copy only, which is tried; None finds out. ``max_memory`` bounds, in
    bytes, the copies made at once.

    Raises TypeError or ValueError for a point that is not finite or not real, a gradient of another
    structure or shape, and a value that is not one finite number.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> x = np.array([0.5, -2.0, 3.0])
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 3 * p**2, x).verdict)
    pass
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 6 * p**2, x).diagnosis)
    the gradient is the numeric one times a constant factor of 2
    """
    chosen = _options(options)
    if gradient is True:
        functions = (lambda p: value(p, *args)[0]), (lambda p: value(p, *args)[1])
    elif callable(one := gradient):
        functions = (lambda p: value(p, *args)), (lambda p: one(p, *args))
    else:
        raise TypeError(f"gradient must be a function, or True, not {gradient!r}.")
    return check_problem(Problem(flatten(point), *functions, chosen))


def check_jacobian(
    function: Callable[..., Any],
    jacobian: Callable[..., Any],
    point: Any,
    *,
    args: tuple[Any, ...] = (),
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare ``jacobian(point, *args)`` with numeric derivatives of a vector-valued function.

    ``function`` returns an array of M numbers, ``jacobian`` their derivatives ``(M, n)``, or
    ``(M, *shape)`` for each array of the point: as ``scipy.optimize.least_squares`` takes them; a
    sparse matrix of SciPy's will do. Options as for ``check_gradient``; an entry of the report is
    called ``J[i, j]``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> t = np.array([0.0, 0.5, 1.0])
    >>> def decay(p):
    ...     return p[0] * np.exp(-p[1] * t)
    >>> def wrong(p):
    ...     return np.stack([np.exp(-p[1] * t), p[0] * t * np.exp(-p[1] * t)], axis=-1)
    >>> report = bx.check_jacobian(decay, wrong, np.array([2.0, 0.7]))
    >>> print(report.verdict, report.worst[0].name)
    fail J[2, 1]
    """
    functions = (lambda p: function(p, *args)), (lambda p: jacobian(p, *args))
    problem = Problem(flatten(point), *functions, _options(options), has_many=True)
    return check_problem(problem)


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
    is whether the layers take a stack, as the built-in ones do. With ``rng`` the dropout masks are
    fixed, and checked along. The formula is judged, in float64 where the device keeps it. A moved
    parameter is sent through its layer and those behind it alone, as many copies at once as fit the
    memory. A wrong layer is named.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> bx.check_network(network, theta, [[0, 1], [1, 1]], [[1], [0]]).passed
    True
    """
    chosen = _options(options)
    require_floating(theta, "theta")
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network's, ({network.size},), is "
            "checked at a time: theta[i]."
        )
    x, y = in_double(like(theta, x, "x")), in_double(_targets(network, theta, x, y))
    theta, rows = in_double(theta), Rows(x, y, None, rng)
    if sample_weight is not None:
        weight = in_double(like(theta, sample_weight, "sample_weight"))
        rows = counted(Rows(x, y, weight, rng, stand_ins(weight, ())))
    problem = network_problem(network, theta, rows, chosen)
    return check_problem(problem._replace(blame=lambda: _blame(network, theta, rows, chosen)))


def check_layer(
    layer: Layer | Activation,
    x: Array,
    *,
    wants_input: bool = True,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Check a layer's backward rule by its input and its parameters, without a network.

    ``x`` is ``(batch, n_in)``; the parameters are the layer's own draw of ``seed`` and some noise,
    and dropout masks have it for a key. ``wants_input=False`` leaves the input out, as a layer of
    integer codes needs it, and passes x as it is. An ``Activation`` is checked as a layer of its
    own. What is compared is ``backward`` of a random upstream gradient u with the derivatives of
    ``<y, u>``: by ``method="directional"`` that is the dot test. ``options`` are those of
    ``check_gradient``; the tensors are called ``input`` and as the layer names its parameters.

    >>> import backprop_xp as bx
    >>> print(bx.check_layer(bx.LayerNorm(3), bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    pass
    >>> wrong = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 2 * z**2 * g)
    >>> print(bx.check_layer(wrong, bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    fail
    """
    chosen = _options(options)
    if isinstance(layer, Activation):
        layer = Activate(layer)
    require_layer(layer, "layer")
    if not wants_input and not layer.names:
        raise ValueError("layer has no parameters: without its input there is nothing to check.")
    seed, width = chosen["seed"], getattr(layer, "n_in", None)
    x = _samples(x, "x", width) if wants_input else _rows(asarray(x), "x", width)
    if array_namespace(x).isdtype(x.dtype, "real floating"):
        x = in_double(x)
    parameters = drawn_parameters(layer, x, seed)
    return check_problem(layer_problem(layer, parameters, x, seed, chosen, wants_input=wants_input))


def check_loss(
    loss: str | Loss, outputs: Array, targets: Array, **options: Unpack[CheckOptions]
) -> GradientReport:
    """Check a loss's gradient by the outputs, ``(batch, n_out)``, each sample weighted at random.

    ``loss`` is a name of ``bx.losses`` or a ``Loss``; ``options`` are those of ``check_gradient``.

    >>> import backprop_xp as bx
    >>> print(bx.check_loss("huber", bx.asarray([[0.3, 2.0]]), bx.asarray([[0.0, 0.0]])).verdict)
    pass
    """
    chosen = _options(options)
    loss = choose(LOSSES, loss, "loss")
    outputs = _samples(outputs, "outputs")
    targets, _ = check_targets(
        outputs, outputs.shape, targets, None, labels=loss.labels, name="targets"
    )
    return check_problem(loss_problem(loss, in_double(outputs), in_double(targets), chosen))


def assert_gradient(
    value: Callable[..., Any],
    gradient: Callable[..., Any] | bool,
    point: Any,
    *,
    args: tuple[Any, ...] = (),
    **options: Unpack[CheckOptions],
) -> None:
    """Raise ``GradientCheckError`` (an AssertionError) with the report unless the check passes.

    Arguments as for ``check_gradient``.
    """
    check_gradient(value, gradient, point, args=args, **options).raise_if_failed()


def _targets(network: Network, theta: Array, x: Array, y: Any) -> Array:
    """Return y beside theta, class labels made one-hot; the network's loss checks its shape."""
    if network.loss_function.labels and whole_numbers(theta, y, "y") is not None:
        x = check_x(theta, x, None)
        outputs = (x.shape[-2], network.forward(theta, x[..., :1, :]).shape[-1])
        y, _ = check_targets(theta, outputs, y, None, labels=True)
    return like(theta, y, "y")


def _blame(network: Network, theta: Array, rows: Rows, options: CheckOptions) -> str | None:
    """Return which layers of a network, or the loss, fail a check of their own along directions."""
    along: CheckOptions = {**DEFAULTS, "method": "directional", "seed": options["seed"]}
    wrong = []
    for name, problem in network_pieces(network, theta, rows, along):
        report = check_problem(problem)
        if report.verdict in ("fail", "nondeterministic"):
            tensor = f", in the derivative by its {report.worst[0].tensor}" if report.worst else ""
            wrong.append(f"{name} fails a check of its own{tensor}")
    return "; ".join(wrong) or None


def _options(given: CheckOptions) -> CheckOptions:
    """Return the options with their defaults, or raise for one that is none."""
    for name in set(given) - set(DEFAULTS):
        raise TypeError(f"{name!r} is no option. {nearest(name, list(DEFAULTS))}")
    chosen: CheckOptions = {**DEFAULTS, **given}
    method, tangent = chosen["method"], chosen["tangent"]
    if not isinstance(method, str):
        raise TypeError(f"method must be a name such as 'auto', not {method!r}.")
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown. {nearest(method, METHODS)}")
    if not isinstance(chosen["batched"], bool | None):
        raise TypeError(f"batched must be True, False or None, not {chosen['batched']!r}.")
    if tangent is not None and not callable(tangent):
        raise TypeError(f"tangent must be a function of a direction, not {tangent!r}.")
    if chosen["directions"] is not None:
        integer(chosen["directions"], "directions")
    if chosen["tolerance"] is not None:
        real(chosen["tolerance"], "tolerance", above=0.0)
    integer(chosen["max_memory"], "max_memory")
    chosen["seed"] = integer(chosen["seed"], "seed", at_least=0)
    return chosen


def _samples(x: Any, name: str, width: int | None = None) -> Array:
    """Return x as a floating array ``(batch, width)``; whole numbers in the precision chosen."""
    choice = resolve(x)
    x = asarray(x, backend=choice.backend, device=choice.device, dtype=choice.dtype)
    require_floating(x, name)
    return _rows(x, name, width)


def _rows(x: Array, name: str, width: int | None) -> Array:
    """Return x, or raise ValueError unless it is ``(batch, width)``."""
    if len(x.shape) != 2 or 0 in x.shape or width not in (None, x.shape[-1]):
        came, wanted = tuple(x.shape), f"(batch, {width or 'n'})"
        raise ValueError(f"{name} has shape {came}, but {wanted} with rows is expected.")
    return x
