"""The public checks of functions: each makes a ``Problem`` for every point and checks it."""

import functools
from collections.abc import Callable
from typing import Any, Unpack

from backprop_xp.gradient_check.entrances.jacobians import jacobian_problem
from backprop_xp.gradient_check.entrances.products import jvp_problem, vjp_problem
from backprop_xp.gradient_check.inputs.points import Point, flatten, flatten_arguments
from backprop_xp.gradient_check.inputs.problems import (
    CheckOptions,
    Problem,
    complete_options,
    shows_options,
)
from backprop_xp.gradient_check.inputs.structures import Structure
from backprop_xp.gradient_check.verdict.report import GradientReport
from backprop_xp.gradient_check.verdict.several_points import Build, check_points


@shows_options()
def check_gradient(
    value: Callable[..., Structure],
    gradient: Callable[..., Structure] | bool,
    point: Structure,
    *,
    args: tuple[Structure, ...] = (),
    argnums: int | tuple[int, ...] = 0,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare an analytic gradient with numeric derivatives of its function.

    - ``value(point, *args)`` returns one number, and ``gradient(point, *args)`` its derivatives in
      the structure of the point. With ``gradient=True``, value returns ``(value, gradient)``.
    - ``point``: an array of any shape and library, a number, or containers of them, nested: lists,
      dicts, named tuples, dataclasses, attrs classes, ``SimpleNamespace`` and JAX's pytrees. They
      keep their type. Integers, strings, functions and other objects in them are constants; a
      point of integers alone is cast. A complex number is checked by its real and imaginary part;
      its gradient is the sum of the first and i times the second (PyTorch's; conjugate JAX's).
    - ``args``: further arguments of both functions.
    - ``argnums``: the position in ``(point, *args)`` of the argument to check, by default 0, or a
      tuple of positions; gradient then returns a tuple.
    - ``points``, ``samples``: further points, and a number of points to draw: zeros, entries a
      hundred times as large, and others near the point, moved into the bounds. The report is that
      of the point with the worst verdict, and names it; if several fail, of one with the commonest
      diagnosis. A drawn point outside of the domain, or one that decides
      nothing, is only noted.
    - ``mask``: which entries to check, True or False in the structure of the point.
    - ``method``: one of the methods below, by default "auto".
    - ``directions``: the number of random directions, by default 1.
    - ``tolerance``: the largest relative error that passes. The default is 1e-7, in float32 1e-4
      (along a direction 1e-6), plus the error bars.
    - ``scale``: the size at which value varies along each entry, in the entry's units: a number, or
      numbers in the structure of the point. The default is the magnitude of the entry.
    - ``bounds``: ``(low, high)``, each a number, numbers in the structure of the point, or None.
      ``value`` is not called outside of them; an entry with equal bounds is not checked.
    - ``tangent``: a function that projects a direction, in the structure of the point, onto the
      allowed ones. ``lambda d: (d + d.T) / 2`` keeps a matrix symmetric.
    - ``seed``: the non-negative integer that draws the directions, by default 0.
    - ``max_evaluations``, ``max_seconds``: limits at each point. "auto" takes directions unless
      all entries leave room for the evaluations of a fail. A check that exceeds them without a fail
      is inconclusive. Calls of gradient after the first two count as evaluations.
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

    Mistakes hide in a gradient that is zero to rounding, as at the end of a minimization. There the
    check judges a second point, one natural step away, unless a limit is given. A note says so.

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
    checked = complete_options(options, value=value)
    if gradient is True:
        value, gradient = halves(value, "value(point) must be (value, gradient) with gradient=True")
    elif not callable(gradient):
        raise TypeError(f"gradient must be a function, or True, not {gradient!r:.100}.")
    call, read, first = bind(point, args, argnums)
    functions = call(value), call(gradient)
    return _check(lambda p: Problem(p, *functions, checked), read, first, checked)


@shows_options()
def check_jacobian(
    function: Callable[..., Structure],
    jacobian: Callable[..., Structure],
    point: Structure,
    *,
    args: tuple[Structure, ...] = (),
    argnums: int | tuple[int, ...] = 0,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare an analytic Jacobian with numeric derivatives of a vector-valued function.

    - ``function``: ``function(point, *args)``, which returns an array of M numbers, or a structure
      of arrays.
    - ``jacobian``: ``jacobian(point, *args)``, its derivatives ``J[i, j] = d function_i / d
      point_j``, ``(M, n)``, or ``(M, *shape)`` for each array of the point. Where function returns
      a structure, it is one of Jacobians. A sparse matrix of SciPy's takes as many perturbations as
      its columns need colors: columns without a common row are perturbed together.
    - ``point``, ``args``, ``argnums``, the options and the errors: those of ``check_gradient``.

    The functions are those of ``scipy.optimize.least_squares``. The report names entries ``J[i,
    j]`` for two vectors, otherwise ``d output['a'][0, 2] / d input['b'][1]``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> t = np.array([0.0, 0.5])
    >>> def decay(p):
    ...     return p[0] * np.exp(-p[1] * t)
    >>> def wrong(p):
    ...     return np.stack([np.exp(-p[1] * t), p[0] * t * np.exp(-p[1] * t)], axis=-1)
    >>> report = bx.check_jacobian(decay, wrong, np.array([2.0, 0.7]))
    >>> print(report.verdict, report.worst[0].name)
    fail J[1, 1]
    """
    checked = complete_options(options, function=function, jacobian=jacobian)
    call, read, first = bind(point, args, argnums)
    functions = call(function), call(jacobian)
    return _check(lambda p: jacobian_problem(p, *functions, checked), read, first, checked)


@shows_options()
def check_vjp(
    f: Callable[..., Structure],
    vjp: Callable[..., Structure],
    *inputs: Structure,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare a vector-Jacobian product, the backward rule of reverse mode, with its function.

    - ``f``: ``f(*inputs)`` returns an array of any shape, or a structure of arrays.
    - ``vjp``: ``vjp(*inputs, u)`` returns the gradients of ``<u, f(*inputs)>``, a tuple like the
      inputs; for a single input also the gradient itself. ``u`` has the structure of the output.
    - ``inputs``: structures as the point of ``check_gradient``. Constants need no gradient.
    - The options and errors are those of ``check_gradient``. Their point is the tuple of the
      inputs, or the input itself if there is one.

    ``u`` is random and, for up to 32 results, each unit vector: then the report names entries as
    that of ``check_jacobian`` does.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> a, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5, -1.0])
    >>> bx.check_vjp(np.matmul, lambda a, x, u: (np.outer(u, x), a.T @ u), a, x).verdict
    'pass'
    >>> bx.check_vjp(np.matmul, lambda a, x, u: (np.outer(x, u), a.T @ u), a, x).verdict
    'fail'
    """
    checked = complete_options(options, f=f, vjp=vjp)
    spread, read, first = _together(inputs)

    def rule(point: Structure, u: Structure) -> Structure:
        found = vjp(*spread(point), u)
        is_tuple = isinstance(found, tuple) and len(found) == 1
        return found[0] if len(inputs) == 1 and is_tuple else found

    return _check(
        lambda p: vjp_problem(p, lambda x: f(*spread(x)), rule, checked), read, first, checked
    )


@shows_options()
def check_jvp(
    f: Callable[..., Structure],
    jvp: Callable[..., Structure],
    *inputs: Structure,
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare a Jacobian-vector product, the rule of forward mode, with its function.

    - ``f``: ``f(*inputs)`` returns an array of any shape, or a structure of arrays.
    - ``jvp``: ``jvp(*inputs, *tangents)`` returns the derivative of f along the tangents, which are
      structured like the inputs, in the structure of the output.
    - ``inputs``, the options and the errors: those of ``check_vjp``.

    The tangents are random and, for up to 32 entries, along each entry.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> x = np.array([0.5, -1.0])
    >>> bx.check_jvp(np.sin, lambda x, v: np.cos(x) * v, x).verdict
    'pass'
    """
    checked = complete_options(options, f=f, jvp=jvp)
    spread, read, first = _together(inputs)

    def rule(point: Structure, v: Structure) -> Structure:
        return jvp(*spread(point), *spread(v))

    return _check(
        lambda p: jvp_problem(p, lambda x: f(*spread(x)), rule, checked), read, first, checked
    )


@shows_options()
def check_hessian(
    gradient: Callable[..., Structure],
    hessian: Callable[..., Structure],
    x: Structure,
    *,
    args: tuple[Structure, ...] = (),
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare an analytic Hessian with numeric derivatives of the gradient, and its symmetry.

    - ``gradient``: ``gradient(x, *args)``, structured like x.
    - ``hessian``: ``hessian(x, *args)``, the Jacobian of gradient as ``check_jacobian`` takes it:
      ``(n, n)`` or ``(*shape, *shape)`` for an array, dense or sparse.
    - ``x``: the point ``(n,)``, or a structure; ``args``, the options and the errors: those of
      ``check_gradient``.

    A right Jacobian that is not symmetric fails: then gradient is not the gradient of a function.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> a = np.array([[2.0, 0.5], [0.5, 1.0]])
    >>> bx.check_hessian(lambda x: a @ x, lambda x: a, np.array([1.0, -2.0])).verdict
    'pass'
    """
    checked = complete_options(options, gradient=gradient, hessian=hessian)
    call, read, first = bind(x, args)
    named: Any = {"names": ("gradient(x)", "hessian(x)"), "is_hessian": True}
    functions = call(gradient), call(hessian)
    return _check(lambda p: jacobian_problem(p, *functions, checked, **named), read, first, checked)


@shows_options()
def check_hvp(
    gradient: Callable[..., Structure],
    hvp: Callable[..., Structure],
    x: Structure,
    *,
    args: tuple[Structure, ...] = (),
    **options: Unpack[CheckOptions],
) -> GradientReport:
    """Compare Hessian-vector products with numeric derivatives of the gradient, and symmetry.

    - ``gradient``: ``gradient(x, *args)``, structured like x.
    - ``hvp``: ``hvp(x, p, *args)``, the Hessian times p, as ``hessp`` of ``scipy.optimize``.
    - ``x``, ``args``, the options and the errors: those of ``check_hessian``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> a = np.array([[2.0, 0.5], [0.5, 1.0]])
    >>> bx.check_hvp(lambda x: a @ x, lambda x, p: a @ p, np.array([1.0, -2.0])).verdict
    'pass'
    """
    checked = complete_options(options, gradient=gradient, hvp=hvp)
    call, read, first = bind(x, args)
    named: Any = {"names": ("gradient(x)", "hvp(x, p)"), "is_hessian": True}
    functions = call(gradient), lambda x, p: hvp(x, p, *args)
    return _check(lambda p: jvp_problem(p, *functions, checked, **named), read, first, checked)


@shows_options()
def assert_gradient(
    value: Callable[..., Structure],
    gradient: Callable[..., Structure] | bool,
    point: Structure,
    *,
    args: tuple[Structure, ...] = (),
    argnums: int | tuple[int, ...] = 0,
    **options: Unpack[CheckOptions],
) -> None:
    """Raise ``GradientCheckError``, an AssertionError, unless ``check_gradient`` passes.

    The arguments are those of ``check_gradient``. The message is the report.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> bx.assert_gradient(lambda p: np.sum(p**2), lambda p: 2.0 * p, np.asarray([1.0, 2.0]))
    """
    report = check_gradient(value, gradient, point, args=args, argnums=argnums, **options)
    report.raise_if_failed()


def halves(
    function: Callable[..., Any], rule: str
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return two functions from one that returns a pair; ``rule`` begins the error."""

    def half(i: int, *arguments: Any) -> Any:
        found = function(*arguments)
        if not (isinstance(found, tuple | list) and len(found) == 2):
            raise TypeError(f"{rule}, not {found!r:.100}.")
        return found[i]

    return functools.partial(half, 0), functools.partial(half, 1)


def _check(
    build: Build, read: Callable[[Structure, str], Point], first: Structure, options: CheckOptions
) -> GradientReport:
    """Check the problems that ``build`` makes at the points that ``read`` flattens."""
    return check_points(lambda given, name: (read(given, name), build), first, options)


def _together(
    inputs: tuple[Structure, ...],
) -> tuple[Callable[[Structure], tuple[Structure, ...]], Callable[..., Point], Structure]:
    """Return what turns a point into inputs, what flattens a point, and the point of inputs."""
    if len(inputs) == 1:
        return (lambda point: (point,)), flatten, inputs[0]
    return tuple, flatten_arguments, inputs


def bind(
    point: Structure, args: tuple[Structure, ...], argnums: int | tuple[int, ...] = 0
) -> tuple[Callable[[Any], Callable[[Structure], Structure]], Callable[..., Point], Any]:
    """Return what makes a function of all arguments one of the chosen, and what flattens these.

    The third is the chosen argument, or a tuple of arguments.
    """
    if not isinstance(args, tuple | list):
        raise TypeError(f"args must be a tuple of arguments, such as (a,), not {args!r:.100}.")
    arguments = (point, *args)
    chosen = argnums if isinstance(argnums, tuple) else (argnums,)
    valid = [i for i in chosen if type(i) is int and i in range(len(arguments))]
    if not valid or len({*valid}) < len(chosen):
        raise ValueError(
            "argnums must be positions in (point, *args), each once, from 0 to "
            f"{len(arguments) - 1}, not {argnums!r}."
        )

    def call(function: Any) -> Callable[[Structure], Structure]:
        def bound(parts: tuple[Structure, ...]) -> Structure:
            given = dict(zip(chosen, parts, strict=True))
            return function(*(given.get(i, a) for i, a in enumerate(arguments)))

        i = chosen[0]
        before, after = arguments[:i], arguments[i + 1 :]
        return bound if chosen is argnums else lambda part: function(*before, part, *after)

    if chosen is not argnums:
        return call, flatten, arguments[chosen[0]]
    return call, _flatten_asked, tuple(arguments[i] for i in chosen)


def _flatten_asked(arguments: tuple[Structure, ...], name: str = "point") -> Point:
    """Return arguments as a point; integers among them are cast, since they were asked for."""
    each = [flatten(argument, name) for argument in arguments]
    cast = zip(arguments, each, strict=True)
    return flatten_arguments(tuple(p.restore(p.flat) if p.notes else a for a, p in cast), name)
