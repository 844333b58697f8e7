"""The differentiation rules of a ``torch.autograd.Function`` or a JAX function, for a check."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

# The inputs of a function, or arrays by the names of its parameters.
Inputs: TypeAlias = tuple[Any, ...] | dict[str, Any]
# "vjp" or "jvp", and the arguments of bx.check_vjp or bx.check_jvp: the function, the rule, and the
# floating inputs. The other inputs are constants.
Rule: TypeAlias = tuple[str, Callable[..., Any], Callable[..., Any], list[Any]]


def torch_rules(function: Any, inputs: Inputs) -> list[Rule]:
    """Return the backward of a ``torch.autograd.Function``, and its jvp if it has one."""
    torch: Any = importlib.import_module("torch")
    base, dual = torch.autograd.Function, torch.autograd.forward_ad
    is_function = inspect.isclass(function) and issubclass(function, base)
    if not is_function:
        raise TypeError(f"{function!r} is not a torch.autograd.Function.")
    has_context = function.setup_context is base.setup_context
    given = _in_order(partial(function.forward, None) if has_context else function.forward, inputs)
    given = [torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in given]
    moving = [i for i, x in enumerate(given) if torch.is_tensor(x) and x.is_floating_point()]

    def outputs(parts: Iterable[Any]) -> Sequence[Any]:
        # A forward may write into its inputs.
        copies = dict(zip(moving, (part.clone() for part in parts), strict=True))
        found = function.apply(*(copies.get(i, x) for i, x in enumerate(given)))
        return found if isinstance(found, tuple) else (found,)

    # Others are integers, or marked as not differentiable.
    start = [given[i].detach() for i in moving]
    first = outputs(x.clone().requires_grad_() for x in start)
    kept = [i for i, y in enumerate(first) if torch.is_tensor(y) and y.requires_grad]
    if not kept:
        raise ValueError("no output of the function has a gradient by a floating tensor.")

    def value(*parts: Any) -> Any:
        found = outputs(parts)
        return _one_or_all([found[i] for i in kept])

    def vjp(*arguments: Any) -> Any:
        *parts, cotangent = arguments
        return _one_or_all(torch.autograd.functional.vjp(value, tuple(parts), cotangent)[1])

    def jvp(*arguments: Any) -> Any:
        count = len(moving)
        with dual.dual_level():
            found = outputs(map(dual.make_dual, arguments[:count], arguments[count:]))
            pairs = [dual.unpack_dual(found[i]) for i in kept]
        zeros = torch.zeros_like
        return _one_or_all([zeros(y) if t is None else t for y, t in pairs])

    has_vjp = function.backward is not base.backward or function.vjp is not base.vjp
    rules: list[Rule] = [("vjp", value, vjp, start)] if has_vjp else []
    rules += [] if function.jvp is base.jvp else [("jvp", value, jvp, start)]
    if not rules:
        raise ValueError("the function has neither a backward nor a jvp.")
    return rules


def jax_rules(function: Any, inputs: Inputs) -> list[Rule]:
    """Return the rule of a JAX function: the jvp of a ``custom_jvp``, of others the vjp."""
    jax: Any = importlib.import_module("jax")
    given, constant = _in_order(function, inputs), getattr(function, "nondiff_argnums", ())

    def is_floating(x: Any) -> bool:
        dtypes = (getattr(leaf, "dtype", type(leaf)) for leaf in jax.tree.leaves(x))
        return any(jax.numpy.issubdtype(dtype, np.floating) for dtype in dtypes)

    moving = [i for i, x in enumerate(given) if i not in constant and is_floating(x)]
    if not moving:
        raise ValueError("the function has no floating input to differentiate by.")
    start, count = [jax.tree.map(jax.numpy.asarray, given[i]) for i in moving], len(moving)

    def value(*parts: Any) -> Any:
        moved = dict(zip(moving, parts, strict=True))
        return function(*(moved.get(i, x) for i, x in enumerate(given)))

    def vjp(*arguments: Any) -> Any:
        *parts, cotangent = arguments
        return _one_or_all(jax.vjp(value, *parts)[1](cotangent))

    def jvp(*arguments: Any) -> Any:
        return jax.jvp(value, arguments[:count], arguments[count:])[1]

    is_jvp = isinstance(function, jax.custom_jvp)
    return [("jvp", value, jvp, start) if is_jvp else ("vjp", value, vjp, start)]


def _in_order(function: Callable[..., Any], inputs: Inputs) -> list[Any]:
    """Return inputs as a list; TypeError for names that are not those of the parameters."""
    if not isinstance(inputs, dict):
        return list(inputs)
    if all(re.fullmatch(r"arr_\d+", name) for name in inputs):  # np.savez had no names
        return list(inputs.values())
    bound = inspect.signature(function).bind(**inputs)
    bound.apply_defaults()
    return list(bound.args)


def _one_or_all(found: Sequence[Any]) -> Any:
    return found[0] if len(found) == 1 else tuple(found)
