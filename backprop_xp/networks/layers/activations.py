"""Activations: each is a function and its backward rule, side by side.

``z`` is the pre-activation, ``a = value(z)``, ``g = dL/da``; all are ``(..., batch, n)``. A rule
returns ``dL/dz``, a vector-Jacobian product. Softmax, whose Jacobian is full, needs no special
case.

Smooth activations are analytic for complex z. The slopes of relu and leaky_relu jump at 0; there
the rules use the slope from the left.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from backprop_xp.backends import Array, array_namespace, max_of_rows, replaceable, sum_of_rows
from backprop_xp.checks import real
from backprop_xp.display.reprs import entry_of, register_table, remember_call, repr_of
from backprop_xp.networks.numbers import complex_safe as safe
from backprop_xp.networks.numbers.partial import WithLast


@dataclass(frozen=True)
class Activation:
    """A function ``value(z) -> a`` with its backward rule ``vjp(g, z, a) -> dL/dz``.

    With ``from_output`` the rule uses ``a`` alone: ``z`` is not kept, and the rule gets None for
    it. The functions must not change after a network has them: CuPy and JAX compile them once.

    >>> import backprop_xp as bx
    >>> cube = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 3 * z**2 * g)
    >>> layer = bx.Dense(4, 2, cube)
    """

    value: Callable[[Array], Array]
    vjp: Callable[[Array, Array, Array], Array]
    from_output: bool = False

    __repr__ = repr_of


def _identity(z: Array) -> Array:
    return z


def _identity_vjp(g: Array, z: Array, a: Array) -> Array:
    return g


@replaceable
def _sigmoid(z: Array) -> Array:
    # At the limit of finite_exp the result is already below the smallest normal number.
    return 1.0 / (1.0 + safe.finite_exp(array_namespace(z), -z))


@replaceable
def _sigmoid_vjp(g: Array, z: Array, a: Array) -> Array:
    return (1.0 - a) * a * g


def _tanh(z: Array) -> Array:
    xp = array_namespace(z)
    # Beyond 20 the tanh of every precision here is 1; a complex tanh overflows far beyond that.
    return xp.tanh(safe.clip(xp, z, -20.0, 20.0) if safe.is_complex(xp, z.dtype) else z)


def _tanh_vjp(g: Array, z: Array, a: Array) -> Array:
    return g * (1.0 - a * a)


def _relu(z: Array) -> Array:
    xp = array_namespace(z)
    return z * safe.positive(xp, z) if safe.is_complex(xp, z.dtype) else xp.maximum(z, 0.0)


@replaceable
def _relu_vjp(g: Array, z: Array, a: Array) -> Array:
    return safe.positive(array_namespace(a), a) * g


def _leaky_relu(z: Array, slope: float) -> Array:
    xp = array_namespace(z)
    if safe.is_complex(xp, z.dtype):
        return z * (slope + (1.0 - slope) * safe.positive(xp, z))
    return xp.maximum(z, slope * z)


def _leaky_relu_vjp(g: Array, z: Array, a: Array, slope: float) -> Array:
    return g * (slope + (1.0 - slope) * safe.positive(array_namespace(a), a))


@entry_of("activations")
def leaky_relu_with(slope: float) -> Activation:
    """Return an activation that is z above 0 and ``slope * z`` below it, with a slope in [0, 1].

    >>> import backprop_xp as bx
    >>> bx.activations.leaky_relu_with(0.25).value(bx.asarray([-2.0, 2.0]))
    array([-0.5,  2. ])
    """
    slope = real(slope, "slope", low=0.0, high=1.0)
    functions = WithLast(_leaky_relu, (slope,)), WithLast(_leaky_relu_vjp, (slope,))
    leaky = Activation(*functions, from_output=True)
    return remember_call(leaky, leaky_relu_with, slope)


def _elu(z: Array) -> Array:
    # max(z, 0) + expm1(min(z, 0)): neither part can overflow.
    return _relu(z) + array_namespace(z).expm1(_up_to_0(z))


def _up_to_0(z: Array) -> Array:
    xp = array_namespace(z)
    return z - _relu(z) if safe.is_complex(xp, z.dtype) else xp.minimum(z, 0.0)


def _elu_vjp(g: Array, z: Array, a: Array) -> Array:
    # exp(z) below 0 and 1 above; a + 1 has lost its digits where a is near -1.
    return g * array_namespace(z).exp(_up_to_0(z))


_GELU_SCALE = math.sqrt(2.0 / math.pi)
_GELU_CUBIC = 0.044715


def _gelu_gate(z: Array) -> Array:
    # (1 + tanh(u)) / 2 is sigmoid(2 u), which keeps its digits when tanh rounds to -1.
    return _sigmoid(2.0 * _GELU_SCALE * (z + _GELU_CUBIC * z * z * z))


def _gelu(z: Array) -> Array:
    # The tanh form (Hendrycks and Gimpel 2016, section 2); the standard has no erf.
    return z * _gelu_gate(_gelu_range(z))


def _gelu_range(z: Array) -> Array:
    # Beyond 50 the gate is 0 or 1 to the last digit, and larger cubes would overflow.
    return safe.clip(array_namespace(z), z, -50.0, 50.0)


def _gelu_vjp(g: Array, z: Array, a: Array) -> Array:
    inner = _gelu_range(z)
    gate = _gelu_gate(inner)
    slope = 2.0 * _GELU_SCALE * (1.0 + 3.0 * _GELU_CUBIC * inner * inner)
    return g * (gate + inner * gate * (1.0 - gate) * slope)


@replaceable
def _silu(z: Array) -> Array:
    return _sigmoid(z) * z


@replaceable
def _silu_vjp(g: Array, z: Array, a: Array) -> Array:
    gate = _sigmoid(z)
    return ((1.0 - gate) * a + gate) * g


def _softplus(z: Array) -> Array:
    # log(1 + exp(z)) as max(z, 0) + log(1 + exp(-|z|)): exp never overflows.
    xp = array_namespace(z)
    return _relu(z) + xp.log1p(xp.exp(-safe.magnitude(xp, z)))


def _softplus_vjp(g: Array, z: Array, a: Array) -> Array:
    return g * _sigmoid(z)


def _softmax(z: Array) -> Array:
    # Shift by the maximum: exp overflows float32 above 88.
    xp = array_namespace(z)
    e = xp.exp(z - max_of_rows(safe.real_part(xp, z)))
    return e / sum_of_rows(e, keepdims=True)


def _softmax_vjp(g: Array, z: Array, a: Array) -> Array:
    return a * (g - sum_of_rows(g * a, keepdims=True))


@replaceable
def activated(
    z: Array, activation: Activation, bias: Array | None = None
) -> tuple[Array | None, Array]:
    """Return ``z + bias``, or None if the backward rule needs only the output, and the output."""
    if bias is not None:
        z = z + bias
    return None if activation.from_output else z, activation.value(z)


@replaceable
def sent_back(g: Array, activation: Activation, z: Array | None, a: Array) -> Array:
    """Return ``activation.vjp(g, z, a)``."""
    return activation.vjp(g, z, a)


identity = Activation(_identity, _identity_vjp, from_output=True)
sigmoid = Activation(_sigmoid, _sigmoid_vjp, from_output=True)
tanh = Activation(_tanh, _tanh_vjp, from_output=True)
relu = Activation(_relu, _relu_vjp, from_output=True)
leaky_relu = leaky_relu_with(0.01)
elu = Activation(_elu, _elu_vjp)
gelu = Activation(_gelu, _gelu_vjp)
silu = Activation(_silu, _silu_vjp)
softplus = Activation(_softplus, _softplus_vjp)
softmax = Activation(_softmax, _softmax_vjp, from_output=True)

ACTIVATIONS: dict[str, Activation] = register_table(
    "activations",
    {name: value for name, value in list(globals().items()) if isinstance(value, Activation)},
)


def is_piecewise_linear(activation: Activation) -> bool:
    """Whether an activation's second derivative is 0 between kinks."""
    value = activation.value
    return value is _relu or (isinstance(value, WithLast) and value.function is _leaky_relu)


def __dir__() -> list[str]:
    return [*ACTIVATIONS, "Activation", "leaky_relu_with"]
