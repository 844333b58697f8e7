"""PyTorch's own backward rules, real and complex ones (looked at: 2.13.0)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as nn

import backprop_xp as bx

from .pairs import Array, Case, Pair, complex_normal as z, normal

LOGITS = "the gradient is that of the logits, so the input must be a log_softmax (2.13.0)"
UNREAD = "also for the entries of the upper triangle, which the function does not read (2.13.0)"
CORNER = {"corner": "kink: the function has a corner"}


def backward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return autograd's vector-Jacobian product of a function."""

    def product(*inputs_and_u: Any) -> Any:
        *inputs, u = inputs_and_u
        inputs = [part.detach().clone().requires_grad_() for part in inputs]
        results = function(*inputs)
        pair = (results, u) if isinstance(results, tuple) else ((results,), (u,))
        return torch.autograd.grad(pair[0], inputs, pair[1], materialize_grads=True)

    return product


def rule(
    function: Callable[..., Any],
    points: dict[str, Any],
    expected: dict[str, str] | None = None,
    wrong: str | None = None,
) -> Case:
    tuples = {name: p if isinstance(p, tuple) else (p,) for name, p in points.items()}
    where = {name: tuple(map(torch.asarray, inputs)) for name, inputs in tuples.items()}
    product, more = backward(function), {"entrance": bx.check_vjp, "wrong": wrong}
    return Case(function, product, where, expected=expected or {}, **more)


def only(*arrays: Array) -> dict[str, Any]:
    return {"random": arrays}


def eigh(a: Any) -> Any:
    values, vectors = torch.linalg.eigh(a + a.mT)
    return values, vectors**2  # the signs are arbitrary


def ctc(x: Any, *, raw: bool) -> Any:
    x = x if raw else nn.log_softmax(x, -1)
    return nn.ctc_loss(x, torch.tensor([[1, 2, 1]]), torch.tensor([4]), torch.tensor([3]))


MIDDLE = np.array([-2.3, -0.7, -1e-3, 0.4, 1.9])
FAR = np.array([-60.0, -12.0, 15.0, 90.0])
POSITIVE = {"middle": np.array([0.03, 0.4, 1.7, 6.2])}
NEAR, WIDE = {"middle": MIDDLE}, {"middle": MIDDLE, "far": FAR}
BENT = {"middle": MIDDLE, "corner": np.zeros(3)}
ROWS = {"random": normal(2, 3), "saturated": 100 * normal(2, 3)}
LOSSES = nn.log_softmax(torch.asarray(normal(4, 1, 3)), -1).numpy()
IMAGE, GRID = normal(1, 1, 4, 4), 0.6 * normal(1, 2, 2, 2, seed=1)
ZERO = np.where(np.arange(5) == 1, 0.0, MIDDLE)
SQUARE, COMPLEX = only(normal(3, 3)), only(z(2, 2))
TABLE: dict[str, tuple[Any, ...]] = {
    "relu": (nn.relu, BENT, CORNER),
    "leaky_relu": (nn.leaky_relu, BENT, CORNER),
    "silu": (nn.silu, NEAR),
    "gelu": (nn.gelu, NEAR),
    "gelu, tanh": (partial(nn.gelu, approximate="tanh"), NEAR),
    "mish": (nn.mish, NEAR),
    "softplus": (nn.softplus, WIDE),
    "logsigmoid": (nn.logsigmoid, WIDE),
    "hardswish": (nn.hardswish, NEAR),
    "softmax": (
        partial(nn.softmax, dim=-1),
        ROWS,
        {"saturated": "inconclusive: the probabilities are 0 or 1 up to rounding"},
    ),
    "log_softmax": (partial(nn.log_softmax, dim=-1), ROWS),
    "logcumsumexp": (partial(torch.logcumsumexp, dim=-1), ROWS),
    "layer_norm": (
        lambda x, w, b: nn.layer_norm(x, (3,), w, b),
        only(normal(2, 3), normal(3), normal(3)),
    ),
    "batch_norm": (
        lambda x, w, b: nn.batch_norm(x, None, None, w, b, True),
        only(normal(3, 2), normal(2), normal(2)),
    ),
    "conv2d": (
        partial(nn.conv2d, stride=2, padding=1, groups=2),
        {"random": (normal(1, 2, 3, 3), normal(2, 1, 2, 2))},
    ),
    "conv_transpose2d": (
        partial(nn.conv_transpose2d, stride=2, padding=1),
        {"random": (normal(1, 1, 2, 2), normal(1, 1, 3, 3))},
    ),
    "max_pool2d": (partial(nn.max_pool2d, kernel_size=2), {"random": IMAGE}),
    "interpolate, bicubic": (
        partial(nn.interpolate, size=(3, 2), mode="bicubic"),
        {"random": IMAGE},
    ),
    "grid_sample": (partial(nn.grid_sample, align_corners=False), {"random": (IMAGE, GRID)}),
    "cross_entropy": (
        partial(nn.cross_entropy, target=torch.tensor([0, 2]), label_smoothing=0.1),
        ROWS,
    ),
    "ctc_loss, logits": (partial(ctc, raw=False), {"random": normal(4, 1, 3)}),
    "ctc_loss": (partial(ctc, raw=True), {"random": LOSSES}, {}, LOGITS),
    "scaled_dot_product_attention": (
        nn.scaled_dot_product_attention,
        only(normal(2, 3), normal(3, 3), normal(3, 2)),
    ),
    "cdist": (torch.cdist, {"random": (normal(3, 2), normal(2, 2, seed=1))}),
    "cumprod": (partial(torch.cumprod, dim=0), {"middle": MIDDLE, "one zero": ZERO}),
    "log_ndtr": (torch.special.log_ndtr, WIDE),
    "erfcx": (torch.special.erfcx, {"middle": MIDDLE, "far": FAR[2:]}),
    "i1": (torch.special.i1, NEAR),
    "digamma": (torch.digamma, POSITIVE),
    "xlogy": (
        torch.special.xlogy,
        {"middle": (POSITIVE["middle"], POSITIVE["middle"][::-1].copy())},
    ),
    "inv": (torch.linalg.inv, SQUARE),
    "det": (torch.linalg.det, SQUARE),
    "solve": (torch.linalg.solve, only(normal(3, 3), normal(3, 2))),
    "lstsq": (lambda a, b: torch.linalg.lstsq(a, b)[0], only(normal(4, 2), normal(4, 1))),
    "pinv": (torch.linalg.pinv, only(normal(4, 2))),
    "matrix_exp": (torch.linalg.matrix_exp, SQUARE),
    "eigh": (eigh, SQUARE),
    "svdvals": (torch.linalg.svdvals, only(normal(4, 3))),
    "qr": (lambda a: tuple(torch.linalg.qr(a)), SQUARE),
    "cholesky": (lambda a: torch.linalg.cholesky(a @ a.mT), SQUARE),
    "cholesky_inverse": (
        torch.cholesky_inverse,
        {"random": np.tril(normal(3, 3)) + 2.0 * np.eye(3)},
        {},
        UNREAD,
    ),
    "fft, complex": (torch.fft.fft, only(z(4))),
    "irfft, complex": (partial(torch.fft.irfft, n=5), only(z(3))),
    "hfft, complex": (torch.fft.hfft, only(z(3))),
    "rfft": (torch.fft.rfft, only(normal(5))),
    "abs, complex": (torch.abs, only(z(3))),
    "angle, complex": (torch.angle, only(z(3))),
    "sgn, complex": (torch.sgn, only(z(3))),
    "log, complex": (torch.log, only(z(3))),
    "acosh, complex": (torch.acosh, only(z(3))),
    "pow, complex": (torch.pow, only(z(3), z(3, seed=2))),
    "inv, complex": (torch.linalg.inv, COMPLEX),
    "slogdet, complex": (lambda a: tuple(torch.linalg.slogdet(a)), COMPLEX),
    "svdvals, complex": (torch.linalg.svdvals, COMPLEX),
    "conv1d, complex": (nn.conv1d, {"random": (z(1, 1, 3), z(1, 1, 2))}),
}
PAIRS = [Pair(f"PyTorch: {name}", partial(rule, *row)) for name, row in TABLE.items()]
