"""JAX's own rules: custom ones and those of its primitives (looked at: 0.10.2)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax, nn, numpy as jnp, scipy as jsp
from jax.scipy import special

import backprop_xp as bx

from .pairs import Case, Pair, complex_normal, normal

jax.config.update("jax_enable_x64", True)


def reverse(function: Callable[..., Any], *inputs_and_u: Any) -> Any:
    """Return a vector-Jacobian product in PyTorch's convention: conjugate where complex."""
    *inputs, u = inputs_and_u
    products = jax.vjp(function, *inputs)[1](jax.tree.map(jnp.conj, u))
    return tuple(map(jnp.conj, products))


def forward(function: Callable[..., Any], *inputs_and_tangents: Any) -> Any:
    half = len(inputs_and_tangents) // 2
    return jax.jvp(function, inputs_and_tangents[:half], inputs_and_tangents[half:])[1]


def on_the_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiled function of NumPy's arrays."""
    compiled = jax.jit(function)
    return lambda *inputs: jax.tree.map(np.asarray, compiled(*inputs))


def rule(
    function: Callable[..., Any],
    points: dict[str, Any],
    expected: dict[str, str] | None = None,
    wrong: str | None = None,
    *,
    is_forward: bool = False,
) -> Case:
    product, entrance = (forward, bx.check_jvp) if is_forward else (reverse, bx.check_vjp)
    pair = on_the_host(function), on_the_host(partial(product, function))
    return Case(*pair, points, entrance=entrance, expected=expected or {}, wrong=wrong)


def eigh(a: Any) -> Any:
    values, vectors = jnp.linalg.eigh(a + a.T)
    return values, vectors**2  # the signs are arbitrary


def root(a: Any) -> Any:
    """Cube roots, by the implicit function theorem."""

    def solve(_: Any, start: Any) -> Any:
        return lax.fori_loop(0, 40, lambda _, x: x - (x**3 - a) / (3.0 * x**2), start)

    return lax.custom_root(
        lambda x: x**3 - a, jnp.full(2, 1.5), solve, lambda g, y: y / g(jnp.ones_like(y))
    )


BRANCH = "the sign is wrong where the real part is negative (0.10.2)"
ZERO = {"zero": "fail: the slope is 1 instead of 0 (0.10.2)"}
SPENCE = "NaN for 1 < x <= 2, and 0 for 1; forward mode is right (0.10.2)"
PHASE = "0 instead of the derivative of x / abs(x) (0.10.2)"
CORNER = {"corner": "kink: the function has a corner"}
MIDDLE = np.array([-2.3, -0.7, -1e-3, 0.4, 1.9])
FAR = np.array([-60.0, -12.0, 15.0, 90.0])
POSITIVE, RATES = np.array([0.03, 0.4, 1.7, 6.2]), np.array([0.02, 0.3, 0.6, 0.97])
NEAR, BENT = {"middle": MIDDLE}, {"middle": MIDDLE, "corner": np.zeros(3)}
ROWS = {"random": normal(2, 3), "saturated": 100 * normal(2, 3)}
SQUARE, COMPLEX = {"random": normal(3, 3)}, {"random": complex_normal(3)}
PAIR = {"middle": (POSITIVE, POSITIVE[::-1] + 0.1)}
TABLE: dict[str, tuple[Any, ...]] = {
    "relu": (nn.relu, BENT, CORNER),
    "silu": (nn.silu, NEAR),
    "gelu": (nn.gelu, NEAR),
    "softmax": (nn.softmax, {"random": ROWS["random"]}),
    "logsumexp": (partial(special.logsumexp, axis=-1), ROWS),
    "logaddexp": (jnp.logaddexp, {"random": (normal(4), normal(4, seed=1))}),
    "sinc": (jnp.sinc, {"middle": MIDDLE}),
    "expit": (special.expit, NEAR),
    "logit": (special.logit, {"middle": RATES, "border": np.array([1e-9, 1.0 - 1e-9])}),
    "xlogy": (special.xlogy, PAIR),
    "xlog1py": (special.xlog1py, PAIR),
    "log_ndtr": (special.log_ndtr, NEAR | {"far": FAR}),
    "ndtri": (special.ndtri, {"middle": RATES}),
    "erfinv": (special.erfinv, {"middle": 2.0 * RATES - 1.0}),
    "gammaln": (special.gammaln, {"middle": POSITIVE}),
    "digamma": (special.digamma, {"middle": POSITIVE}),
    "gammainc, both arguments": (special.gammainc, PAIR),
    "i0": (special.i0, {"middle": MIDDLE, "zero": np.zeros(2)}, ZERO),
    "i1e": (special.i1e, NEAR),
    "spence": (special.spence, {"middle": POSITIVE}, {}, SPENCE),
    "inv": (jnp.linalg.inv, SQUARE),
    "det": (jnp.linalg.det, SQUARE),
    "pinv": (jnp.linalg.pinv, {"random": normal(4, 2)}),
    "eigh": (eigh, SQUARE),
    "cholesky": (lambda a: jnp.linalg.cholesky(a @ a.T), SQUARE),
    "qr": (lambda a: tuple(jnp.linalg.qr(a)), SQUARE),
    "expm": (jsp.linalg.expm, SQUARE),
    "fft, complex": (jnp.fft.fft, COMPLEX),
    "irfft, complex": (jnp.fft.irfft, COMPLEX),
    "arccosh, complex": (jnp.arccosh, {"right": abs(MIDDLE[:2]) + 0.3j, "left": MIDDLE[:2] + 0.3j},
                         {"right": "pass: the real part is positive"}, BRANCH),
    "sign, complex": (jnp.sign, COMPLEX, {}, PHASE),
    "cumprod": (jnp.cumprod, {"middle": MIDDLE, "zero": MIDDLE * (MIDDLE != -0.7)}),
    "custom_root": (root, {"middle": np.array([2.0, 5.0])}),
}  # fmt: skip
FORWARD = """relu; silu; softmax; logsumexp; logaddexp; sinc; expit; logit; xlogy; xlog1py; log_ndtr
ndtri; erfinv; digamma; i0; det; pinv; custom_root; arccosh, complex; sign, complex"""
PAIRS = [Pair(f"JAX: {name}, vjp", partial(rule, *row)) for name, row in TABLE.items()]
PAIRS += [
    Pair(f"JAX: {name}, jvp", partial(rule, *TABLE[name], is_forward=True))
    for name in FORWARD.replace("\n", "; ").split("; ")
]
