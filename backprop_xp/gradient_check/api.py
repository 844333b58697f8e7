"""The public functions of the gradient check: each makes a ``Problem`` and checks it."""

from collections.abc import Callable
from typing import Unpack

from backprop_xp.backends import Array, array_namespace, asarray, require_floating, resolve
from backprop_xp.checks import choose
from backprop_xp.gradient_check.network_problems import (
    draw_parameters,
    in_double,
    layer_problem,
    loss_problem,
    network_problem,
)
from backprop_xp.gradient_check.points import Structure, flatten
from backprop_xp.gradient_check.problems import CheckOptions, Problem, complete_options
from backprop_xp.gradient_check.report import GradientReport
from backprop_xp.gradient_check.run import check_problem
from backprop_xp.networks.activations import Activation
from backprop_xp.networks.inputs import Rows, check_targets, counted, stand_ins
from backprop_xp.networks.layers import Activate
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.networks.network import Network
from backprop_xp.networks.propagation import Layer, require_layer


def check_gradient(
    value: Callable[..., Structure],
    gradient: Callable[..., Structure] | bool,
    point: Structure,
    *,
    args: tuple[Structure, ...] = (),
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare an analytic gradient with numeric derivatives of its function.

    - ``value(point, *args)`` returns one number, and ``gradient(point, *args)`` its derivatives in
      the structure of the point. With ``gradient=True``, value returns ``(value, gradient)``.
    - ``point``: an array of any shape and library, a number, or lists, dicts and named tuples of
      them, nested. Integers are cast to floating numbers.
    - ``args``: further arguments of both functions.
    - ``method``: one of the methods below, by default "auto".
    - ``directions``: the number of random directions, by default 1.
    - ``tolerance``: the largest relative error that passes. The default is 1e-7, in float32 1e-4
      (along a direction 1e-6), plus the error bars.
    - ``scale``: the size at which value varies along each entry, in the entry's units: a number, or
      numbers in the structure of the point. The default is the magnitude of the entry.
    - ``bounds``: ``(low, high)``, each a number, numbers in the structure of the point, or None.
      ``value`` is not called outside of them.
    - ``tangent``: a function that projects a direction, in the structure of the point, onto the
      allowed ones. ``lambda d: (d + d.T) / 2`` keeps a matrix symmetric.
    - ``seed``: the non-negative integer that draws the directions, by default 0.
    - ``max_memory``: the bytes that copies of the point may take at a time, by default 16 MiB.
    - ``batched``: whether value takes copies of the point stacked along a new first axis, and
      returns one number per copy. By default (None) the check finds out.

    The methods:

    - "complex_step": every entry, exact to rounding, for an analytic value (Squire and Trapp 1998).
    - "centered": every entry, by central differences that search the best step (Ridders 1982).
    - "directional": along random directions, at most eight evaluations each for a smooth value,
      whatever the size of the point. If the gradient fails, bisection locates a wrong entry.
    - "taylor": by differences along a direction, with the orders of the Taylor remainder.
    - "auto": the complex step if value supports it, otherwise central differences. Above 20,000
      entries, or about ten seconds of work, it takes directions.

    Both functions receive copies of the point, in float64 if they support it. Raises TypeError or
    ValueError for a point that is not real and finite, a value that is not one finite number, and a
    gradient of another structure or shape.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> x = np.array([0.5, -2.0, 3.0])
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 3 * p**2, x).verdict)
    pass
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 6 * p**2, x).diagnosis)
    the gradient is the numeric gradient times a constant factor of 2
    """
    checked = complete_options(options)
    if gradient is True:
        functions = (lambda p: value(p, *args)[0]), (lambda p: value(p, *args)[1])
    elif callable(function := gradient):
        functions = (lambda p: value(p, *args)), (lambda p: function(p, *args))
    else:
        raise TypeError(f"gradient must be a function, or True, not {gradient!r}.")
    return check_problem(Problem(flatten(point), *functions, checked))


def check_jacobian(
    function: Callable[..., Structure],
    jacobian: Callable[..., Structure],
    point: Structure,
    *,
    args: tuple[Structure, ...] = (),
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare an analytic Jacobian with numeric derivatives of a vector-valued function.

    - ``function``: ``function(point, *args)``, which returns an array of M numbers.
    - ``jacobian``: ``jacobian(point, *args)``, its derivatives ``J[i, j] = d function_i / d
      point_j``, ``(M, n)``, or ``(M, *shape)`` for each array of the point. SciPy's sparse matrices
      are allowed.
    - ``point``, ``args`` and the options: those of ``check_gradient``.

    The functions are those of ``scipy.optimize.least_squares``. The report names an entry
    ``J[i, j]``. Raises what ``check_gradient`` raises.

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
    checked = complete_options(options)
    return check_problem(Problem(flatten(point), *functions, checked, is_jacobian=True))


def check_network(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    sample_weight: Array | None = None,
    rng: Array | int | None = None,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare ``network.loss_and_gradient`` with numeric derivatives of ``network.loss``.

    - ``network``: any network, also with layers of your own.
    - ``theta``: the parameters ``(P,)`` of one network, not of a stack.
    - ``x``, ``y``: the samples ``(batch, n_in)`` and targets ``(batch, n_out)``; class labels
      ``(batch,)`` for a categorical cross-entropy.
    - ``sample_weight``: the weights ``(batch,)`` of the samples, by default equal ones.
    - ``rng``: the key of the dropout masks, a non-negative integer. Without it there is no dropout.
    - The options are those of ``check_gradient``. ``batched`` here means that the layers take
      stacked parameters, as the built-in ones do.

    The check runs in float64 if the device has it: it judges the formula, not the dtype. A
    perturbed parameter runs through its own and the later layers only. If the check fails, the
    diagnosis names the wrong layer. Raises TypeError or ValueError for arrays that do not fit the
    network.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> bx.check_network(network, theta, [[0, 1], [1, 1]], [[1], [0]]).passed
    True
    """
    checked = complete_options(options)
    require_floating(theta, "theta")
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but the check takes one network, "
            f"({network.size},). Pass theta[i]."
        )
    x, key = network.check_inputs(theta, x, rng)
    outputs = network.outputs_shape(theta, x)
    y, weight = check_targets(theta, outputs, y, sample_weight, network.loss_function)
    x, y = in_double(x), in_double(y)
    rows = Rows(x, y, None, key)
    if weight is not None:
        weight = in_double(weight)
        rows = counted(Rows(x, y, weight, key, stand_ins(weight, ())))
    return check_problem(network_problem(network, in_double(theta), rows, checked))


def check_layer(
    layer: Layer | Activation,
    x: Array,
    *,
    wants_input: bool = True,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Check a layer's backward rule, by its input and its parameters, without a network.

    - ``layer``: a layer, or an ``Activation``.
    - ``x``: its input ``(batch, n_in)``.
    - ``wants_input``: False leaves out the derivative by the input and passes x unchanged, as a
      layer of integer codes needs it.
    - The options are those of ``check_gradient``. ``seed`` also draws the parameters, by the
      layer's initializer plus noise, and the dropout masks.

    The check draws an upstream gradient u and compares ``backward(u)`` with the derivatives of
    ``<y, u>``. With ``method="directional"`` that is the dot-product test. The report calls the
    tensors ``input`` and as the layer names its parameters. Raises TypeError for an object that is
    not a layer, and ValueError for an x of another shape.

    >>> import backprop_xp as bx
    >>> print(bx.check_layer(bx.LayerNorm(3), bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    pass
    >>> wrong = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 2 * z**2 * g)
    >>> print(bx.check_layer(wrong, bx.asarray([[1.0, 2.0, 4.0]])).verdict)
    fail
    """
    checked = complete_options(options)
    if isinstance(layer, Activation):
        layer = Activate(layer)
    require_layer(layer, "layer")
    if not wants_input and not layer.names:
        raise ValueError("layer has no parameters: without its input there is nothing to check.")
    seed, width = checked["seed"], getattr(layer, "n_in", None)
    x = _rows(x, "x", width, is_floating=wants_input)
    if array_namespace(x).isdtype(x.dtype, "real floating"):
        x = in_double(x)
    parameters = draw_parameters(layer, x, seed)
    return check_problem(
        layer_problem(layer, parameters, x, seed, checked, wants_input=wants_input)
    )


def check_loss(
    loss: str | Loss, outputs: Array, targets: Array, **options: Unpack[CheckOptions]
) -> GradientReport:
    """Check a loss's gradient by the outputs, with random weights of the samples.

    - ``loss``: a name in ``bx.losses``, or a ``Loss``.
    - ``outputs``: the network's outputs ``(batch, n_out)``, logits for a cross-entropy.
    - ``targets``: the targets ``(batch, n_out)``, or class labels ``(batch,)``, as the loss takes
      them.
    - The options are those of ``check_gradient``.

    Raises ValueError for an unknown name and for shapes that do not fit.

    >>> import backprop_xp as bx
    >>> print(bx.check_loss("huber", bx.asarray([[0.3, 2.0]]), bx.asarray([[0.0, 0.0]])).verdict)
    pass
    """
    checked = complete_options(options)
    loss = choose(LOSSES, loss, "loss")
    outputs = _rows(outputs, "outputs")
    targets, _ = check_targets(outputs, outputs.shape, targets, None, loss, name="targets")
    return check_problem(loss_problem(loss, in_double(outputs), in_double(targets), checked))


def assert_gradient(
    value: Callable[..., Structure],
    gradient: Callable[..., Structure] | bool,
    point: Structure,
    *,
    args: tuple[Structure, ...] = (),
    **options: Unpack[CheckOptions],
) -> None:
    """Raise ``GradientCheckError``, an AssertionError, unless ``check_gradient`` passes.

    The arguments are those of ``check_gradient``. The message is the report.
    """
    check_gradient(value, gradient, point, args=args, **options).raise_if_failed()


def _rows(x: Array, name: str, width: int | None = None, *, is_floating: bool = True) -> Array:
    """Return x as an array ``(batch, width)``; numbers take the chosen backend and dtype."""
    if is_floating:
        choice = resolve(x)
        x = asarray(x, backend=choice.backend, device=choice.device, dtype=choice.dtype)
        require_floating(x, name)
    else:
        x = asarray(x)
    if len(x.shape) != 2 or 0 in x.shape or width not in (None, x.shape[-1]):
        shape, expected = tuple(x.shape), f"(batch, {width or 'n'})"
        raise ValueError(f"{name} has shape {shape}, but {expected} with rows is expected.")
    return x
