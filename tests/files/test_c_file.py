"""The exported C, compiled, is the network's ``predict``, ``forward`` and derivative.

Specifies ``c_ensemble``, ``c_functions``, ``c_loops``, ``c_self_test``, ``c_source``, ``c_text``,
``elementwise``, ``layer_comments``, ``lazy_arrays``, ``lazy_functions`` and ``plan``.
"""

import ctypes
import math
import os
import re
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.files.c_export.c_source import constant_lines
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from tests.c_programs import (
    SANITIZED,
    STRICT,
    Case,
    Library,
    compile_c,
    library_of,
    skip_without_sanitizers,
)
from tests.helpers import HANGING
from tests.user_layers import PARAMETRIC_LOSSES, Factors, PassThrough, sample_targets

pytestmark = [pytest.mark.c_compiler, pytest.mark.once]

# Relative to the largest result: other orders of sums and other exponentials round differently.
CLOSE = {"float32": 2e-6, "float64": 1e-13}
# Sums of products of these do not overflow, in which order and with which rounding ever.
LARGE = {"float32": 1e15, "float64": 1e100}


class Polynomial(PassThrough):
    """A custom layer: a cubic of x, joined with the difference of neighbours."""

    n_in, n_out = 3, 6

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        xp = array_namespace(x)
        return xp.concat([x**3 - x, x - xp.roll(x, 1, axis=-1)], axis=-1), x

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        xp, h = array_namespace(g), g[..., 3:]
        return g[..., :3] * (3.0 * cache**2 - 1.0) + h - xp.roll(h, -1, axis=-1), ()


class Cut(PassThrough):
    """A custom layer without the last feature, whose derivative is a sum of zeros."""

    n_in, n_out = 3, 2

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return x[..., :2], x

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        xp = array_namespace(g)
        nothing = xp.sum(xp.where(cache == cache, 0.0, 0.0), axis=-1, keepdims=True)
        return xp.concat([g, nothing], axis=-1), ()


class Unread(PassThrough):
    """A custom layer that does not use its parameter."""

    n_in = n_out = 3
    names, shapes = ("unread",), ((3,),)

    def initialize(self, generator: Any) -> tuple[np.ndarray]:
        return (np.ones(3),)

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return g, (0.0 * parameters[0],)


class Own(PassThrough):
    """A custom layer that applies a function to x."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self.work(x), None


def _assigned(x: Any) -> Any:
    x[..., 0] = 1.0
    return x


def _cube() -> bx.Activation:
    return bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 3.0 * z**2 * g)


ONE_OUTPUT = bx.mlp([1, 4, 1], hidden="tanh").layers
LAYERS = {
    "LayerNorm": [bx.Dense(3, 5), bx.LayerNorm(5), bx.Activate("tanh"), bx.Dense(5, 2)],
    "Dropout": [bx.Dense(3, 5, "tanh"), bx.Dropout(0.5), bx.Dense(5, 2)],
    "Embedding": [bx.Embedding([3, 4, 2], 2), bx.Dense(6, 2)],
    "NumericEmbedding": [bx.NumericEmbedding(3), bx.Dense(12, 2)],
    "NumericEmbedding of pl": [bx.NumericEmbedding(3, 2, "pl"), bx.Dense(6, 2)],
    "Columns": [bx.Columns(bx.Embedding(3, 2), bx.NumericEmbedding(2)), bx.Dense(10, 2)],
    "Scale": [bx.Scale(3), bx.Dense(3, 2)],
    "Chain": [
        bx.Chain(bx.Dense(3, 5, "tanh"), bx.Chain(bx.LayerNorm(5), bx.Dense(5, 4))),
        bx.Dense(4, 2),
    ],
    "Residual": [
        bx.Residual(bx.Dense(3, 5, "tanh"), bx.Residual(bx.LayerNorm(5)), bx.Dense(5, 3)),
        bx.Dense(3, 2),
    ],
    "Standardize": [
        bx.Standardize([0.5, -1.0, 3.0], [2.0, 0.5, 4.0]),
        bx.Dense(3, 2, "tanh"),
        bx.Standardize([10.0, 0.0], [3.0, 1.0]).inverse,
    ],
    "Constrained": [
        bx.Constrained(
            bx.mlp([3, 6, 1], hidden="tanh").layers,
            lambda x: x[..., 1:2] * (1.0 - x[..., 1:2]),
            lambda x: array_namespace(x).sin(x[..., :1]),
        )
    ],
    "Groups": [
        bx.Groups(
            [
                bx.Equation(ONE_OUTPUT, lambda s: s.u_x + s.u, "x"),
                bx.Equation(ONE_OUTPUT, lambda s: s.u - 1.0, "x"),
            ],
            [2, 1],
        )
    ],
    "Derivatives": [bx.Derivatives(bx.mlp([3, 4, 1], hidden="tanh").layers, [(), (0,), (1, 2)])],
    "Derivatives beside codes": [
        bx.Derivatives(
            [bx.Columns(bx.Embedding(3, 2), bx.Scale(2)), bx.Dense(4, 1, "tanh")],
            [(), (1,), (1, 2)],
        )
    ],
    "Equation": [
        bx.Equation(
            bx.mlp([2, 4, 1], hidden="tanh").layers,
            lambda s: s.u_t - s.k * s.u_xx + s.xp.sin(s.u) * s.q,
            "tx",
            given=["q"],
            unknown={"k": 1.0},
        )
    ],
    "Equation of points": [
        bx.Equation(
            ONE_OUTPUT, lambda s: (s[0].u_x - s[1].u * s[2].u, s[0].x * s[1].u), "x", points=3
        )
    ],
    "a layer of one's own": [bx.Dense(3, 3), Polynomial(), bx.Dense(6, 2, _cube())],
    "a layer that ignores a feature": [Cut(), bx.Dense(2, 2)],
    "a layer that ignores its parameter": [Unread()],
    "no hidden layer": [bx.Dense(3, 2)],
    # In one network, each with an input of its own.
    "activations": [
        bx.Dense(3, 30),
        bx.Columns(*(bx.Residual(bx.Dense(3, 3, name)) for name in ACTIVATIONS)),
        bx.Dense(30, 2),
    ],
    **{name: [bx.Dense(3, 5, name), bx.Dense(5, 2)] for name in ACTIVATIONS},
    **{f"Activate {name}": [bx.Dense(3, 2), bx.Activate(name)] for name in ACTIVATIONS},
}
NETWORKS = {name: bx.Network(layers, "mean_squared_error") for name, layers in LAYERS.items()}
NETWORKS |= {name: bx.mlp([3, 4, 2], hidden="tanh", loss=name) for name in LOSSES}
NETWORKS |= {
    name: bx.mlp([3, 4, 3], hidden="tanh", loss=loss) for name, loss in PARAMETRIC_LOSSES.items()
}
NETWORKS["hinge of one"] = bx.mlp([3, 4, 1], hidden="tanh", loss="hinge")
ALWAYS = [name for name in LAYERS if name.rpartition(" ")[2] not in ACTIVATIONS]
ALWAYS += ["poisson", "binary_cross_entropy", "categorical_cross_entropy", "gaussian_nll"]
ALWAYS += ["hinge of one", "focal", "quantiles", "tweedie"]
OPTIONS = {
    "unoptimized": ["-O0"],
    "optimized": ["-O3"],
    "without contraction": ["-O3", "-ffp-contract=off"],
    "with contraction": ["-O3", "-ffp-contract=fast", "-march=native"],
}
FUNCTIONS = ("outputs", "predict", "jacobian")


class Compiled(NamedTuple):
    """Networks with random parameters, and the library that is made of their files."""

    cases: dict[str, Case]
    library: Library

    def results(self, key: str, function: str, x: np.ndarray) -> np.ndarray:
        """Return what C computes, in the shape of ``expected``."""
        case = self.cases[key]
        n_out = case.network.outputs_shape(case.theta, np.zeros((1, 3)))[-1]
        shape = (n_out, 3) if function == "jacobian" else (n_out,)
        found = self.library.call(key, function, x, math.prod(shape))
        return found.reshape(len(x), *shape)


def _cases(names: Iterable[str]) -> dict[str, Case]:
    generator, cases = np.random.default_rng(5), dict[str, Case]()
    for i, name in enumerate(names):
        theta = generator.normal(0.0, 0.7, NETWORKS[name].size)
        cases |= {f"{d}_{i}": Case(NETWORKS[name], theta, d) for d in CLOSE}
    return cases


def _compiled(folder: Path, cases: dict[str, Case], options: Sequence[str] = ("-O0",)) -> Compiled:
    return Compiled(cases, library_of(folder, cases, options, derivatives=True))


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A network for each kind of layer and link."""
    return _compiled(tmp_path_factory.mktemp("some"), _cases(ALWAYS))


def rows(network: bx.Network, n: int, dtype: str) -> np.ndarray:
    """Return ordinary rows, with codes of categories where the network takes them."""
    generator = np.random.default_rng(2)
    x = generator.normal(0.0, 2.0, (n, 3))
    is_code = np.asarray(network.codes or (0, 0, 0)) > 0
    return np.where(is_code, generator.integers(0, 2, x.shape), x).astype(dtype)


def expected(case: Case, function: str, x: np.ndarray, dtype: str | None = None) -> np.ndarray:
    """Return the library's results, each of one row: with others it could round differently."""
    network, kept = case.network, np.dtype(dtype or case.dtype)
    # The parameters and rows of the file, computed in another precision if one is given.
    theta = case.theta.astype(case.dtype).astype(kept)
    x = x.astype(kept)
    if function == "predict":
        return np.concatenate([network.predict(theta, row[None, :]) for row in x])
    if function == "outputs":
        return np.concatenate([network.forward(theta, row[None, :]) for row in x])
    n_out = network.forward(theta, x[:1]).shape[-1]
    outputs = np.eye(n_out, dtype=kept)
    each = [[network.vjp(theta, r[None, :], o[None, :])[1] for o in outputs] for r in x]
    return np.asarray(each)[:, :, 0, :]


def assert_equal(compiled: Compiled) -> None:
    """Assert that C has the results of the library, for each network and function."""
    for key, case in compiled.cases.items():
        x = rows(case.network, 8, case.dtype)
        for function in FUNCTIONS:
            exact = expected(case, function, x, "float64")
            found = compiled.results(key, function, x)
            scale = max(1.0, float(np.max(np.abs(exact))))
            np.testing.assert_allclose(
                found, exact, rtol=0, atol=CLOSE[case.dtype] * scale, err_msg=f"{key} {function}"
            )


def test_the_c_file_predicts_as_the_network_and_has_its_jacobian(some: Compiled) -> None:
    assert_equal(some)


@pytest.mark.thorough
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_network_is_the_same_with_every_option_of_the_compiler(
    options: list[str], tmp_path: Path
) -> None:
    assert_equal(_compiled(tmp_path, _cases(NETWORKS), options))


def test_infinite_missing_and_large_numbers_pass_as_in_the_library(some: Compiled) -> None:
    for key, case in some.cases.items():
        x = extreme(case.network, 30, case.dtype)
        for function in FUNCTIONS:
            with np.errstate(all="ignore"):
                reference = expected(case, function, x)
            found = some.results(key, function, x)
            np.testing.assert_array_equal(
                kinds(found), kinds(reference), err_msg=f"{key} {function}"
            )


def extreme(network: bx.Network, n: int, dtype: str) -> np.ndarray:
    """Return rows of infinities, NaN, tiny and large numbers."""
    generator, large = np.random.default_rng(4), LARGE[dtype]
    values = [0.0, -0.0, 1.0, -1.0, 1e-300, -1e-40, 1e4, -1e4, 89.0, -89.0]
    values += [large, -large, math.inf, -math.inf, math.nan]
    x, codes = generator.choice(values, (n, 3)), rows(network, n, dtype)
    return np.where(np.asarray(network.codes or (0, 0, 0)) > 0, codes, x.astype(dtype))


def kinds(x: np.ndarray) -> np.ndarray:
    """Return 0 for a finite number, 1 and -1 for the infinities, 2 for NaN."""
    return np.where(np.isnan(x), 2.0, np.where(np.isinf(x), np.sign(x), 0.0))


def test_each_function_of_the_standard_is_that_of_numpy(tmp_path: Path) -> None:
    """A layer that joins the results of all functions is exported, and called with each kind."""
    network = bx.Network([bx.Scale(3), Own(_each_function)], "mean_squared_error")
    cases = {d: Case(network, np.ones(3), d) for d in CLOSE}
    library = library_of(tmp_path, cases)
    generator = np.random.default_rng(7)
    for dtype, case in cases.items():
        x = np.concatenate([generator.normal(0.0, 2.0, (40, 3)), _corners()]).astype(dtype)
        with np.errstate(all="ignore"):
            reference = np.concatenate(
                [network.forward(case.theta.astype(dtype), r[None]) for r in x]
            )
        found = library.call(dtype, "outputs", x, reference.shape[1])
        np.testing.assert_array_equal(kinds(found), kinds(reference))
        np.testing.assert_allclose(found, reference, rtol=CLOSE[dtype], atol=CLOSE[dtype])


def _corners() -> np.ndarray:
    values = [0.0, -0.0, 0.5, -1.5, 2.0, 1e-3, math.inf, -math.inf, math.nan]
    return np.asarray([[a, b, c] for a in values for b in values for c in (1.0, -2.0)])


def _each_function(x: Any) -> Any:
    """Return the results of all functions that can be recorded, joined."""
    xp = array_namespace(x)
    a, b, c = x[..., :1], x[..., 1:2], x[..., 2:]
    small = xp.clip(a, -0.9, 0.9)
    # NumPy has no rule for the integer of NaN.
    n = xp.astype(xp.clip(xp.where(xp.isnan(a), 0.0, 2.0 * a), -5.0, 5.0), xp.int64)
    k = xp.arange(3) - 1
    numbers = [
        *(getattr(xp, name)(a) for name in ("abs", "ceil", "floor", "trunc", "round", "sign")),
        *(getattr(xp, name)(a) for name in ("exp", "expm1", "sinh", "cosh", "tanh", "atan")),
        *(getattr(xp, name)(small) for name in ("acos", "asin", "atanh", "sin", "cos", "tan")),
        *(getattr(xp, name)(abs(a)) for name in ("sqrt", "log1p", "log", "log2", "log10")),
        *(xp.asinh(small), xp.acosh(1.0 + abs(a)), xp.reciprocal(c), xp.square(b)),
        *(a + b, a - b, a * b, a / b, -a, +a, a % c, a // c, 2.0 - a, a**2, abs(a) ** 0.5),
        *(a**3, small**4, xp.pow(abs(small), b), xp.pow(2.0 + small, -1.5)),
        *(xp.maximum(a, b), xp.minimum(a, 0.5), xp.atan2(small, c), xp.hypot(a, b)),
        *(xp.copysign(c, a), xp.logaddexp(a, b), xp.clip(a, -1.0, None), xp.where(a > b, a, c)),
        *(xp.where(xp.isnan(a), 1.0, a), xp.full_like(a, 2.5), xp.zeros_like(b)),
    ]
    conditions = [
        *(a < b, a <= b, a > b, a >= b, a == b, a != b, xp.isnan(a), xp.isinf(a), xp.isfinite(a)),
        *((a > 0) & (b > 0), (a > 0) | (b > 0), (a > 0) ^ (b > 0), ~(a > 0)),
        *(xp.logical_and(a > 0, c > 0), xp.logical_not(a > 0), xp.any(x > 0, keepdims=True)),
        *(xp.all(x > -1.0, axis=-1, keepdims=True), (a > 0) + (b > 0), (a > 0) * (b > 0)),
        *(xp.logical_and(a, b), xp.logical_or(a, b), xp.logical_xor(a, b), xp.logical_not(a)),
        *(xp.isnan(n), xp.isinf(n), xp.isfinite(n), xp.isfinite(a > 0)),
    ]
    integers = [
        *(n + 2, n * n, -n, abs(n), n % 2, n // 2, xp.sign(n), xp.maximum(n, 1), n & 1, n | 1),
        *(xp.sum(n + k, axis=-1, keepdims=True), xp.max(n + k, axis=-1, keepdims=True), n**2),
    ]
    m = xp.reshape(xp.concat([x, x * 2.0], axis=-1), (2, 3))
    weights = xp.asarray([[1.0, 2.0], [0.5, -1.0], [0.25, 3.0]], dtype=x.dtype)
    parts = [
        *(xp.sum(m, axis=0), xp.prod(m, axis=1), xp.max(m), xp.min(m, axis=0), xp.mean(m, axis=1)),
        *(xp.var(m, axis=1), xp.std(m, axis=1, correction=1), m.T, xp.flip(m, axis=1), m[::-1, 1:]),
        *(xp.permute_dims(m, (1, 0)), xp.moveaxis(m, 0, -1), xp.roll(m, 2, axis=1), m[1, :]),
        *(xp.stack([m, m + 1.0], axis=1), xp.squeeze(m[:, :1], axis=1), xp.expand_dims(m, axis=1)),
        *(xp.unstack(m)[1], xp.take(m, xp.asarray([2, 0, 0]), axis=1), xp.concat([m, m], axis=0)),
        *(m @ weights, weights.T @ m.T, m @ m.mT, m[0, :] @ weights, m @ weights[:, 0]),
        *(xp.vecdot(m, m), m[:, :1] @ m[:1, :], xp.broadcast_to(a, (2, 2)) * xp.eye(2)),
        *xp.broadcast_arrays(a, m[:, :1]),
    ]
    everything = [*numbers, *parts, *(xp.astype(one, x.dtype) for one in (*conditions, *integers))]
    return xp.concat([xp.reshape(xp.astype(one, x.dtype), (1, -1)) for one in everything], axis=-1)


def test_an_index_out_of_range_reads_no_other_memory(tmp_path: Path) -> None:
    """It is the nearest one; negative ones count from the end, as in NumPy."""

    def looked_up(x: Any) -> Any:
        xp = array_namespace(x)
        table = xp.asarray([10.0, 20.0, 30.0], dtype=x.dtype)
        return xp.reshape(xp.take(table, xp.astype(x[0, :], xp.int64)), (1, 3))

    network = bx.Network([bx.Scale(3), Own(looked_up)], "mean_squared_error")
    library = library_of(tmp_path, {"network": Case(network, np.ones(3), "float64")})
    x = np.asarray([[0.0, 2.0, -1.0], [3.0, 1e300, -1e300], [-3.0, -4.0, math.nan]])
    found = library.call("network", "outputs", x, 3)
    np.testing.assert_array_equal(found, [[10.0, 30.0, 30.0], [30.0, 30.0, 10.0], [10.0] * 3])


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda x: array_namespace(x).cumulative_sum(x, axis=-1), r"xp\.cumulative_sum cannot be"),
        (lambda x: array_namespace(x).argmax(x, axis=-1), r"xp\.argmax cannot be recorded"),
        (lambda x: array_namespace(x).sort(x), r"xp\.sort cannot be recorded"),
        (lambda x: x if x[0, 0] > 0 else -x, r"if and while need a value"),
        (lambda x: x * float(x[0, 0]), r"has no value to make a number of"),
        (lambda x: x[x > 0], r"for indices in an array use xp\.take"),
        (_assigned, r"x\[\.\.\.\] = \.\.\. cannot be recorded: use xp\.where"),
        (np.sin, r"does not support ufuncs"),
        (lambda x: (x > 0) @ (x > 0).mT, r"matmul of booleans cannot be recorded: make numbers"),
        (lambda x: x * 1j, r"an array is expected, not complex"),
        (lambda x: x[0, :], r"one row has outputs of the shape \(3,\)"),
    ],
)
def test_what_cannot_be_recorded_is_an_error_with_the_function_the_layer_and_the_way_out(
    work: Any, message: str, tmp_path: Path
) -> None:
    network = bx.Network([bx.Dense(3, 3), Own(work)], "huber")
    with pytest.raises(TypeError, match=rf"recorded for C: .*{message}.*docs/extending\.md"):
        bx.export_c(tmp_path / "network.c", network, network.initialize(backend="numpy"))
    assert not list(tmp_path.iterdir())


def test_the_error_of_a_layer_or_of_the_link_says_where_it_is(tmp_path: Path) -> None:
    network = bx.Network([bx.Dense(3, 3), Own(np.sin)], "huber")
    with pytest.raises(TypeError, match=r"In layers\[1\] \(Own\)\.forward\."):
        bx.export_c(tmp_path / "network.c", network, network.initialize(backend="numpy"))
    loss = bx.losses.over_outputs(lambda o, t: (o - t, 1.0), inverse_link=np.sin)
    network = bx.Network([bx.Dense(3, 3)], loss)
    with pytest.raises(TypeError, match=r"In the loss's inverse link\."):
        bx.export_c(tmp_path / "network.c", network, network.initialize(backend="numpy"))
    loss = bx.losses.over_outputs(lambda o, t: (array_namespace(o).sort(o - t), 1.0))
    with pytest.raises(TypeError, match=r"xp\.sort cannot be recorded.* In the loss\. "):
        bx.export_c(
            *(tmp_path / "network.c", bx.Network([bx.Dense(3, 3)], loss), np.ones(12)),
            gradient=True,
        )


@pytest.mark.parametrize("name", ["", "2nd", "a b", "a__b", "_a", "a_", "network\n", "größe", None])
def test_a_name_that_cannot_begin_names_in_c_is_refused(name: Any, tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    with pytest.raises((ValueError, TypeError), match=r"name (is|must be)"):
        bx.export_c(tmp_path / "a.c", network, network.initialize(backend="numpy"), name=name)
    assert not list(tmp_path.iterdir())


def test_the_file_is_also_cxx_and_can_be_compiled_by_itself(tmp_path: Path) -> None:
    network = NETWORKS["Columns"]
    theta = network.initialize(backend="numpy")
    bx.export_c(tmp_path / "model.c", network, theta, name="model", derivatives=True)
    strict = [option for option in STRICT if not option.startswith("-std")]
    compile_c(tmp_path, "model.c", ["-x", "c++", "-std=c++11", *strict, "-c", "-o", "cxx.o"])
    compile_c(tmp_path, "model.c", [*STRICT, "-c", "-o", "model.o"])
    (tmp_path / "main.c").write_text(
        "#define MODEL_DECLARATIONS_ONLY\n"
        '#include "model.c"\n'
        "int main(void)\n"
        "{\n"
        "    const float x[MODEL_N_IN] = {1.0f, 2.0f, 3.0f};\n"
        "    float y[MODEL_N_OUT], jacobian[MODEL_N_OUT * MODEL_N_IN];\n"
        "    model_predict(x, y);\n"
        "    model_jacobian(x, jacobian);\n"
        "    return y[0] + jacobian[1] < 1e30f ? 0 : 1;\n"
        "}\n"
    )
    compile_c(tmp_path, "main.c", [*STRICT, "model.o", "-o", "main"])
    subprocess.run([tmp_path / "main"], check=True, timeout=HANGING)


@pytest.mark.parametrize("stack", [(), 2])
def test_the_file_includes_math_h_alone_and_has_constants_and_functions_alone(
    stack: Any, tmp_path: Path
) -> None:
    network = bx.Network([bx.Embedding([3, 4, 2], 2), bx.Dense(6, 2, "gelu")], "poisson")
    options: dict[str, Any] = {"derivatives": True, "gradient": True}
    theta = network.initialize(backend="numpy", stack=stack)
    bx.export_c(tmp_path / "network.c", network, theta, **options)
    text = (tmp_path / "network.c").read_text()
    assert re.findall(r"#include.*", text) == ["#include <math.h>"]
    outside = re.findall(r"^(?!extern)[a-z].*", text, re.MULTILINE)
    assert [line for line in outside if not re.match(r"static const|[\w ]+\(.*\);?$", line)] == []
    assert not re.search(r"^ +static (?!const)", text, re.MULTILINE)
    assert not re.search(r"\b(malloc|calloc|alloca|free)\b", text)


def two_models(folder: Path, names: Sequence[str]) -> None:
    """Write a.c and b.c, which hold models of these names, and main.c, which uses both."""
    calls = []
    for i, (file, name) in enumerate(zip("ab", names, strict=True)):
        network = bx.mlp([3 + i, 2], loss="binary_cross_entropy")
        options = {"derivatives": True, "gradient": True, "dtype": ("float32", "float64")[i]}
        theta = network.initialize(i, backend="numpy", stack=1 + i)
        bx.export_c(folder / f"{file}.c", network, theta, name=name, **options)
        kind, upper = ("float", "double")[i], name.upper()
        calls += ["    {", f"        static {kind} t[{upper}_N_MEMBERS * {upper}_N_PARAMETERS];"]
        calls += [f"        {kind} x[{upper}_N_IN] = {{0}}, y[{upper}_N_OUT], s[{upper}_N_OUT];"]
        calls += [f"        {name}_start(t);", f"        {name}_predict(t, x, y, s);"]
        calls += ["        wrong += y[0] != 0.5;", "    }"]
    head = [f"#define {name.upper()}_DECLARATIONS_ONLY" for name in {*names}]
    head += ['#include "a.c"', '#include "b.c"', "int main(void)", "{", "    int wrong = 0;"]
    (folder / "main.c").write_text("\n".join([*head, *calls, "    return wrong;", "}", ""]))


@pytest.mark.parametrize("names", [("left", "left_2"), ("left", "left_member")])
def test_two_models_of_different_names_are_one_program(
    names: Sequence[str], tmp_path: Path
) -> None:
    two_models(tmp_path, names)
    for file in ("a", "b"):
        compile_c(tmp_path, f"{file}.c", [*STRICT, "-c", "-o", f"{file}.o"])
    compile_c(tmp_path, "main.c", [*STRICT, "a.o", "b.o", "-o", "linked"])
    assert subprocess.run([tmp_path / "linked"], timeout=HANGING).returncode == 0
    (tmp_path / "both.c").write_text('#include "a.c"\n#include "b.c"\n')
    compile_c(tmp_path, "both.c", [*STRICT, "-c"])


def names_of_networks(folder: Path) -> set[str]:
    """Return what stands behind ``NAME_`` in the files of networks: the rests of all names."""
    every = bx.Network([bx.Scale(3), Own(_each_function)], "poisson")
    learning = bx.mlp([3, 4, 2], hidden="gelu", loss="categorical_cross_entropy")
    options: dict[str, Any] = {"derivatives": True, "gradient": True}
    for i, (network, more) in enumerate(((every, {}), (learning, options))):
        theta = network.initialize(backend="numpy", stack=2)
        bx.export_c(folder / f"{i}.c", network, theta, name="z", **more)
    return {one for file in folder.glob("?.c") for one in rests(file)}


def rests(file: Path) -> set[str]:
    """Return what stands behind ``z_`` or ``Z_`` in the names of the model z."""
    return {*re.findall(r"\b[zZ]_(\w+)", file.read_text())}


def assert_no_shared_name(names: set[str]) -> None:
    """Assert that no model can have a name of another: one would end with all of another's rest."""
    assert not [(a, b) for a in names for b in names if a.endswith(f"_{b}")]


def test_models_of_different_names_have_no_name_in_common(tmp_path: Path) -> None:
    names = names_of_networks(tmp_path)
    assert names > {"predict", "jacobian", "start", "N_MEMBERS", "theta", "c0", "floor_divide_ll"}
    assert_no_shared_name(names)


def test_two_models_of_one_name_are_an_error_with_the_way_out(tmp_path: Path) -> None:
    two_models(tmp_path, ["network", "network"])
    for source in ("main.c", "both.c"):
        (tmp_path / "both.c").write_text('#include "a.c"\n#include "b.c"\n')
        with pytest.raises(AssertionError, match=r"#error .*the name network, .* name="):
            compile_c(tmp_path, source, ["-std=c99", "-c"])


def test_models_whose_names_differ_in_case_are_an_error_with_the_way_out(tmp_path: Path) -> None:
    """Their macros would be the same, though their parameters may be, too."""
    network = bx.mlp([3, 2])
    theta = network.initialize(backend="numpy")
    for file, name in (("a", "left"), ("b", "Left")):
        bx.export_c(tmp_path / f"{file}.c", network, theta, name=name)
    (tmp_path / "main.c").write_text('#include "a.c"\n#include "a.c"\n')
    compile_c(tmp_path, "main.c", [*STRICT, "-c", "-DLEFT_DECLARATIONS_ONLY"])
    (tmp_path / "main.c").write_text('#include "a.c"\n#include "b.c"\n')
    with pytest.raises(AssertionError, match=r"#error .*the name Left, ignoring case.* name="):
        compile_c(tmp_path, "main.c", ["-std=c99", "-c", "-DLEFT_DECLARATIONS_ONLY"])


def test_comments_say_which_layer_the_lines_compute(tmp_path: Path) -> None:
    layers = [bx.Standardize([0.0] * 3, [1.0] * 3), bx.Dense(3, 4), bx.LayerNorm(4)]
    layers += [bx.Activate("tanh"), bx.Residual(bx.Dense(4, 4)), bx.Scale(4), bx.Dense(4, 2)]
    network = bx.Network(layers, "huber")
    theta = network.initialize(backend="numpy", stack=2)
    options = {"derivatives": True, "gradient": True}
    bx.export_c(tmp_path / "network.c", network, theta, **options)
    text = (tmp_path / "network.c").read_text()
    assert "/* member 1, layer 4, Residual: layers[0].bias (1, 4) */\n" in text

    def layers_of(function: str) -> list[str]:
        body = text[text.rindex(f"_{function}(const ") :]
        return re.findall(r"/\* (layer .*) \*/", body[: body.index("\n}\n")])

    titles = [f"layer {i}: {type(layer).__name__}" for i, layer in enumerate(layers)]
    forward = layers_of("outputs_of_member")
    assert list(dict.fromkeys("; ".join(forward).split("; "))) == titles
    assert forward[-1] == titles[-1]
    with_parameters = [titles[i] for i in (6, 5, 4, 2, 1)]
    assert layers_of("jacobian_of_member")[-5:] == with_parameters
    assert {*"; ".join(layers_of("gradient")).split("; ")} == {*titles}


def sanitized(folder: Path, cases: dict[str, Case]) -> None:
    """Run all functions on ordinary and extreme rows under the sanitizers of memory and C."""
    skip_without_sanitizers()
    calls = []
    for key, case in cases.items():
        bx.export_c(
            folder / f"{key}.c",
            *(case.network, case.theta),
            name=key,
            dtype=case.dtype,
            derivatives=True,
            gradient=True,
        )
        x = np.concatenate(
            [rows(case.network, 5, case.dtype), extreme(case.network, 20, case.dtype)]
        )
        kind, upper = {"float32": "float", "float64": "double"}[case.dtype], key.upper()
        numbers = ", ".join(map(str, x.ravel())).replace("nan", "NAN").replace("inf", "INFINITY")
        spread = (", s", ", t") if case.theta.ndim > 1 else ("", "")
        calls.append(
            f"    {{ static const {kind} x[] = {{{numbers}}}, targets[{upper}_N_TARGETS] = {{0}};\n"
            f"      static {kind} theta[{upper}_N_MEMBERS * {upper}_N_PARAMETERS];\n"
            f"      {kind} y[{upper}_N_OUT], j[{upper}_N_OUT * {upper}_N_IN];\n"
            f"      {kind} s[{upper}_N_OUT], t[{upper}_N_OUT * {upper}_N_IN];\n"
            f"      {kind} g[{upper}_N_PARAMETERS]; (void)s; (void)t; {key}_start(theta);\n"
            f"      for (int i = 0; i < {len(x)}; ++i) {{\n"
            f"          {key}_predict(theta, x + 3 * i, y{spread[0]});\n"
            f"          {key}_jacobian(theta, x + 3 * i, j{spread[1]});\n"
            f"          {key}_gradient(theta, x + 3 * i, targets, g); }} }}\n"
        )
    included = "".join(f'#include "{key}.c"\n' for key in cases)
    text = f"{included}int main(void)\n{{\n{''.join(calls)}    return 0;\n}}\n"
    (folder / "main.c").write_text(text)
    compile_c(folder, "main.c", ["-std=c99", *SANITIZED, "-o", "main"])
    quiet = {**os.environ, "MallocNanoZone": "0"}  # otherwise macOS writes a line about its memory
    done = subprocess.run(
        [folder / "main"], capture_output=True, text=True, env=quiet, timeout=HANGING
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    cases = _cases(["Columns", "Residual", "a layer of one's own"])
    network = NETWORKS["categorical_cross_entropy"]
    stack = network.initialize(backend="numpy", stack=3)
    sanitized(tmp_path, {**cases, "stack": Case(network, stack, "float32")})


@pytest.mark.thorough
def test_the_sanitizers_find_nothing_in_any_network(tmp_path: Path) -> None:
    sanitized(tmp_path, _cases(NETWORKS))


def random_network(generator: np.random.Generator) -> bx.Network:
    """Return a network of three features with random layers, of one's own among them."""
    layers: list[Any] = [[], [bx.Scale(3)], [bx.NumericEmbedding(3, 2, "pl")]][
        generator.integers(3)
    ]
    n = 3 if len(layers) == 0 or isinstance(layers[0], bx.Scale) else 6
    for _ in range(generator.integers(1, 5)):
        activation, width = generator.choice([*ACTIVATIONS]), int(generator.integers(1, 9))
        choice = generator.integers(6)
        if choice == 0:
            # Behind a saturated activation it would magnify the rounding of its input.
            layers += [bx.Dense(n, width + 3), bx.LayerNorm(width + 3), bx.Activate(activation)]
            n = width + 3
        elif choice == 1:
            layers += [bx.Residual(bx.Dense(n, width, activation), bx.Dense(width, n))]
        elif choice == 2:
            layers += [bx.Dense(n, 3, activation), Polynomial()]
            n = 6
        elif choice == 3 and n > 1:
            parts = (bx.Dense(1, width, activation), bx.Scale(n - 1))
            layers += [bx.Columns(*parts)]
            n = width + n - 1
        else:
            layers += [bx.Dense(n, width, activation)]
            n = width
    losses = [bx.losses.focal(), "gaussian_nll", "poisson", "huber", "binary_cross_entropy"]
    return bx.Network([*layers, bx.Dense(n, 2)], losses[generator.integers(len(losses))])


@pytest.mark.parametrize("count", [pytest.param(200, marks=pytest.mark.thorough), 12])
def test_random_networks_are_the_same_in_c(count: int, tmp_path: Path) -> None:
    generator, cases = np.random.default_rng(count), dict[str, Case]()
    for i in range(count):
        network = random_network(generator)
        theta = generator.normal(0.0, 0.5, network.size)
        cases[f"n{i}"] = Case(network, theta, ("float32", "float64")[i % 2])
    compiled = _compiled(tmp_path, cases)
    for key, case in cases.items():
        x = rows(case.network, 8, case.dtype)
        for function in FUNCTIONS:
            with np.errstate(all="ignore"):  # cubes of cubes overflow
                exact = expected(case, function, x, "float64")
                reference = expected(case, function, x)
            finite = np.all(np.isfinite(reference.reshape(len(x), -1)), axis=1)
            exact, reference = exact[finite], reference[finite]
            found = compiled.results(key, function, x)[finite]
            # A badly conditioned network loses digits in the library, too.
            scale = max(1.0, float(np.max(np.abs(exact), initial=0.0)))
            error = (
                8.0 * float(np.max(np.abs(reference - exact), initial=0.0))
                + CLOSE[case.dtype] * scale
            )
            np.testing.assert_allclose(
                found, exact, rtol=0, atol=error, err_msg=f"{case.network} {function}"
            )


def test_a_network_whose_indices_are_long_compiles_without_a_warning(tmp_path: Path) -> None:
    network = bx.mlp([1, 512, 64, 1])
    theta = network.initialize(backend="numpy")
    bx.export_c(tmp_path / "network.c", network, theta, derivatives=True)
    assert "for (long i = 0" in (tmp_path / "network.c").read_text()
    for option in ("-O0", "-O3"):
        compile_c(tmp_path, "network.c", [*STRICT, option, "-c", "-o", "network.o"])


def test_the_stack_does_not_grow_with_the_depth(tmp_path: Path) -> None:
    sizes = {}
    for depth in (2, 300):
        network = bx.mlp([3, *[8] * depth, 1], hidden="gelu")
        bx.export_c(tmp_path / "deep.c", network, network.initialize(backend="numpy"))
        text = (tmp_path / "deep.c").read_text()
        sizes[depth] = int(re.findall(r"STACK_BYTES (\d+)", text)[0])
    assert sizes[2] == sizes[300] <= 2 * 8 * 4


def test_the_file_states_the_checksum_of_its_parameters(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    theta = network.initialize(backend="numpy", dtype="float32")
    bx.export_c(tmp_path / "network.c", network, theta)
    expected_sum = zlib.crc32(theta.astype("<f4").tobytes())
    text = (tmp_path / "network.c").read_text()
    assert f"#define NETWORK_CHECKSUM 0x{expected_sum:08x}UL\n" in text
    assert f"backprop_xp {bx.__version__}" in text


def test_the_file_holds_the_parameters_exactly(tmp_path: Path) -> None:
    values = [
        0.1,
        1e-45,
        3.4e38,
        -1.17549435e-38,
        5e-324,
        1.7976931348623157e308,
        math.inf,
        math.nan,
    ]
    for dtype, kind in (("float32", "float"), ("float64", "double")):
        theta = (
            np.asarray(values).astype(dtype) if dtype == "float64" else np.float32(values[:4] * 2)
        )
        network = bx.Network([bx.Scale(8)], "mean_squared_error")
        bx.export_c(tmp_path / "network.c", network, theta, dtype=dtype)
        text = f'#include "network.c"\n{kind} *theta(void);\n'
        text += f"{kind} *theta(void) {{ return ({kind} *)network_theta; }}\n"
        (tmp_path / "all.c").write_text(text)
        compile_c(tmp_path, "all.c", ["-fPIC", "-shared", "-o", f"{dtype}.so"])
        function = ctypes.CDLL(str(tmp_path / f"{dtype}.so")).theta
        function.restype = ctypes.POINTER(ctypes.c_float if kind == "float" else ctypes.c_double)
        np.testing.assert_array_equal(np.ctypeslib.as_array(function(), (8,)), theta)


def test_the_lines_of_many_parameters_are_made_one_by_one() -> None:
    values = np.full(80_000, 0.1, "float32")
    tracemalloc.start()
    count = sum(1 for _ in constant_lines("theta", values))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_003
    assert peak < values.nbytes


def test_the_options_of_printing_do_not_change_the_file(tmp_path: Path) -> None:
    network = bx.mlp([3, 4, 2], hidden="gelu")
    theta, texts = network.initialize(backend="numpy"), []
    for options in ({}, {"legacy": "1.13"}, {"precision": 2}):
        with np.printoptions(**options):
            bx.export_c(tmp_path / "network.c", network, theta, test=[[0.1, 0.2, 0.3]])
        texts.append([(tmp_path / f"network{end}.c").read_text() for end in ("", "_test")])
    assert texts[0] == texts[1] == texts[2]


def test_a_stack_gives_the_mean_and_the_deviation_of_its_members(tmp_path: Path) -> None:
    network = bx.mlp([3, 4, 2], hidden="tanh", loss="categorical_cross_entropy")
    theta = network.initialize(backend="numpy", stack=(2, 3))
    cases = {dtype: Case(network, theta, dtype) for dtype in CLOSE}
    library = library_of(tmp_path, cases)
    for dtype, close in CLOSE.items():
        x = rows(network, 10, dtype)
        found = bx.ensemble.predict(network, theta.astype(dtype), x)
        mean, deviation = np.empty((2, 2), dtype)
        for i, row in enumerate(x):
            getattr(library.library, f"{dtype}_predict")(*library.pointers(row, mean, deviation))
            np.testing.assert_allclose(mean, found.mean[i], rtol=0, atol=close)
            np.testing.assert_allclose(deviation, found.standard_deviation[i], rtol=0, atol=close)


def _product(o: Any) -> Any:
    """A link whose derivatives are not symmetric."""
    return array_namespace(o).concat([o[..., :1], o[..., :1] * o[..., 1:]], axis=-1)


OWN_LINK = bx.losses.over_outputs(lambda o, t: (o - t, 1.0), inverse_link=_product)


@pytest.mark.parametrize("loss", ["mean_squared_error", "categorical_cross_entropy", OWN_LINK])
def test_the_jacobian_of_a_stack_is_that_of_mean_and_deviation(loss: Any, tmp_path: Path) -> None:
    network, raw = bx.mlp([3, 4, 2], hidden="tanh", loss=loss), rows(NETWORKS["tanh"], 6, "float64")
    ready = bx.data.standardize(raw)
    theta = network.initialize(backend="numpy", stack=4)
    cases = {dtype: Case(network, theta, dtype) for dtype in CLOSE}
    library = library_of(tmp_path, cases, preparation=ready, derivatives=True)

    def predicted(x: np.ndarray) -> bx.ensemble.Prediction:
        return bx.ensemble.predict(network, theta, (x - ready.mean) / ready.scale)

    step, numeric = 1e-5, np.empty((2, len(raw), 2, 3))
    for i, shift in enumerate(step * np.eye(3)):
        ends = zip(predicted(raw + shift), predicted(raw - shift), strict=True)
        numeric[..., i] = [(more - less) / (2.0 * step) for more, less in ends]
    for dtype, close in (("float32", 3e-6), ("float64", 1e-9)):  # the error of differences
        for row, expected_row in zip(raw.astype(dtype), np.moveaxis(numeric, 1, 0), strict=True):
            found = np.empty((2, 2, 3), dtype)
            getattr(library.library, f"{dtype}_jacobian")(*library.pointers(row, *found))
            np.testing.assert_allclose(found, expected_row, rtol=0, atol=close)


def test_the_deviation_of_equal_members_has_a_derivative_of_0(tmp_path: Path) -> None:
    network = bx.mlp([3, 2], loss="poisson")
    theta = np.stack([network.initialize(backend="numpy")] * 3)
    cases = {"network": Case(network, theta, "float64")}
    library = library_of(tmp_path, cases, derivatives=True)
    mean, deviation = np.ones((2, 2, 3))
    library.library.network_jacobian(*library.pointers(np.ones(3), mean, deviation))
    slopes = network.input_jacobian(theta[0], np.ones((1, 3)), predict=True)[0]
    np.testing.assert_allclose(mean, slopes, rtol=CLOSE["float64"])
    np.testing.assert_array_equal(deviation, 0.0)


def test_each_member_of_a_stack_learns_on_the_device(tmp_path: Path) -> None:
    network = bx.mlp([3, 4, 2], hidden="tanh", l2=0.1)
    theta, x = network.initialize(backend="numpy", stack=3), np.asarray([[1.0, -0.5, 0.25]])
    options: dict[str, Any] = {"gradient": True, "derivatives": True, "test": x}
    cases = {"network": Case(network, theta, "float64")}
    library = library_of(tmp_path, cases, **options)
    functions, ours = library.library, np.empty_like(theta)
    functions.network_gradient.restype = ctypes.c_double
    functions.network_start(*library.pointers(ours))
    np.testing.assert_array_equal(ours, theta)
    y, gradient = np.ones((1, 2)), np.empty(network.size)
    losses, exact = network.loss_and_gradient(theta, x, y)
    for i in range(3):
        loss = functions.network_gradient(*library.pointers(ours[i], x, y, gradient))
        np.testing.assert_allclose(loss, losses[i], rtol=CLOSE["float64"])
        np.testing.assert_allclose(gradient, exact[i], rtol=0, atol=CLOSE["float64"])
        ours[i] -= 0.1 * gradient
    mean, deviation = np.empty((2, 1, 2))
    functions.network_predict(*library.pointers(ours, x, mean, deviation))
    found = bx.ensemble.predict(network, ours, x)
    np.testing.assert_allclose(mean, found.mean, rtol=CLOSE["float64"])
    np.testing.assert_allclose(deviation, found.standard_deviation, rtol=CLOSE["float64"])
    compile_c(tmp_path, "network_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0


@pytest.mark.parametrize("dtype", CLOSE)
def test_the_gradient_is_the_library_s_and_a_device_learns_with_it(
    dtype: str, tmp_path: Path
) -> None:
    layers = [bx.Columns(bx.Embedding(3, 2), bx.NumericEmbedding(2)), bx.LayerNorm(10)]
    layers += [bx.Residual(bx.Dense(10, 10, "gelu")), bx.Dense(10, 2)]
    network = bx.Network(layers, "gaussian_nll", l2=0.1)  # one target
    case = Case(network, network.initialize(backend="numpy"), dtype)
    library = library_of(tmp_path, {"network": case}, gradient=True, derivatives=True)
    functions, kind = library.library, ctypes.c_float if dtype == "float32" else ctypes.c_double
    functions.network_gradient.restype = kind
    x, y = np.asarray([[1.0, -0.5, 0.25]], dtype), np.asarray([[2.0]], dtype)
    theta, gradient = np.empty((2, network.size), dtype)
    functions.network_start(*library.pointers(theta))
    np.testing.assert_array_equal(theta, case.theta.astype(dtype))
    losses = []
    for _ in range(30):
        losses.append(functions.network_gradient(*library.pointers(theta, x, y, gradient)))
        exact_at = theta.astype("float64"), x.astype("float64"), y.astype("float64")
        loss, exact = network.loss_and_gradient(*exact_at)
        scale = float(np.max(np.abs(exact)))
        np.testing.assert_allclose(gradient, exact, rtol=0, atol=10.0 * CLOSE[dtype] * scale)
        np.testing.assert_allclose(losses[-1], loss, rtol=10.0 * CLOSE[dtype])
        theta -= 0.005 * gradient
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(ALWAYS, id="each kind of layer and link"),
        pytest.param([*NETWORKS], id="all", marks=pytest.mark.thorough),
    ],
)
def test_the_gradient_by_every_loss_and_layer_is_the_library_s(
    names: list[str], tmp_path: Path
) -> None:
    cases = {key: one for key, one in _cases(names).items() if one.dtype == "float64"}
    library = library_of(tmp_path, cases, gradient=True, derivatives=True)
    for key, (network, theta, dtype) in cases.items():
        function, found = getattr(library.library, f"{key}_gradient"), np.empty(network.size)
        function.restype = ctypes.c_double
        x = rows(network, 1, dtype)
        y = sample_targets(network.loss_function, network.outputs_shape(theta, x))
        loss, gradient = network.loss_and_gradient(theta, x, y)
        error = CLOSE[dtype] * max(1.0, float(np.max(np.abs(gradient))))
        result = function(*library.pointers(theta, x, y, found))
        np.testing.assert_allclose(result, loss, rtol=CLOSE[dtype], err_msg=str(network))
        np.testing.assert_allclose(found, gradient, rtol=0, atol=error, err_msg=str(network))


def test_a_preparation_makes_every_function_take_the_raw_row(tmp_path: Path) -> None:
    network = bx.mlp([3, 4, 2], hidden="tanh")
    raw = np.random.default_rng(8).normal([5.0, -3.0, 100.0], [1.0, 0.1, 30.0], (50, 3))
    ready, theta = bx.data.standardize(raw), network.initialize(backend="numpy")
    cases = {dtype: Case(network, theta, dtype) for dtype in CLOSE}
    library = library_of(tmp_path, cases, preparation=ready, derivatives=True, test=raw)
    for dtype, close in (("float32", 2e-5), ("float64", 1e-12)):  # 100 - 99.9 loses digits
        found = library.call(dtype, "predict", raw, 2)
        np.testing.assert_allclose(found, network.predict(theta, ready.x), rtol=0, atol=close)
        slopes = expected(cases[dtype], "jacobian", ready.x, "float64") / ready.scale
        found = library.call(dtype, "jacobian", raw, 6).reshape(-1, 2, 3)
        np.testing.assert_allclose(found, slopes, rtol=10.0 * close, atol=10.0 * close)
    compile_c(tmp_path, "float64_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0
    with pytest.raises(ValueError, match=r"preparation has the arrays .* mean and scale \(1, 3\)"):
        bx.export_c(tmp_path / "a.c", network, theta, preparation={"mean": raw[:1]})


def test_numbers_that_the_precision_of_the_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    network, path = bx.mlp([3, 2]), tmp_path / "network.c"
    theta, ones = network.initialize(backend="numpy"), np.ones((1, 3))
    with pytest.raises(ValueError, match=r"theta has numbers beyond .* use dtype='float64'"):
        bx.export_c(path, network, 1e300 * theta)
    for given, message in (
        ({"mean": 1e39 * ones, "scale": ones}, "mean has numbers beyond the range of float32"),
        ({"mean": ones, "scale": [1.0, 1e-60, 1.0] * ones}, r"scale\[1\] is 0 in float32"),
    ):
        with pytest.raises(ValueError, match=message):
            bx.export_c(path, network, theta, preparation=given)
    for wrong in (3, {"mean": [[0.0] * 3], "scale": [[1.0] * 3]}):
        with pytest.raises(TypeError, match="preparation must be a result of bx"):
            bx.export_c(path, network, theta, preparation=wrong)
    assert not path.exists()
    bx.export_c(path, network, np.full_like(theta, math.inf))
    bx.export_c(path, network, 1e300 * theta, dtype="float64")


@pytest.mark.parametrize("options", [{}, {"gradient": True}, {"stack": 3}, {"unit": 1e-27}])
def test_the_second_file_tests_the_first_where_it_runs(
    options: dict[str, Any], tmp_path: Path
) -> None:
    network = bx.mlp([3, 4, 2], hidden="tanh", loss="binary_cross_entropy")
    if "unit" in options:
        layers = bx.Dense(3, 2), bx.Standardize([0.0] * 2, [options.pop("unit")] * 2).inverse
        network = bx.Network(layers, "huber")
    theta = network.initialize(backend="numpy", stack=options.pop("stack", ()))
    x = rows(network, 40, "float64")
    bx.export_c(tmp_path / "model.c", network, theta, test=x, **options)
    compile_c(tmp_path, "model_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0
    # Another first weight, as a wrong compiler or processor could read it.
    text = (tmp_path / "model.c").read_text()
    first = re.search(r"_theta\[\d+\] = \{\s+/\*.*\*/\s+(\S+)f,", text)
    assert first is not None
    for wrong in (f"{float(first[1]) + 0.01}f", "NAN"):
        (tmp_path / "model.c").write_text(text.replace(f"{first[1]}f", wrong, 1))
        compile_c(tmp_path, "model_test.c", [*STRICT, "-o", "wrong"])
        assert subprocess.run([tmp_path / "wrong"], timeout=HANGING).returncode == 1


def test_the_name_of_a_tested_file_is_one_that_an_include_can_have(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    theta = network.initialize(backend="numpy")
    for name in ('a"b.c', "a\\b.c", "a\nb.c", "what??-.c"):
        with pytest.raises(ValueError, match=r"path ends in .* includes a file of this name"):
            bx.export_c(tmp_path / name, network, theta, test=[[1.0, 2.0, 3.0]])
    assert not list(tmp_path.iterdir())
    bx.export_c(tmp_path / "größe 1.c", network, theta, test=[[1.0, 2.0, 3.0]])
    compile_c(tmp_path, "größe 1_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0


def test_options_that_drop_nan_are_refused_where_the_functions_are_compiled(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    bx.export_c(tmp_path / "network.c", network, network.initialize(backend="numpy"))
    for option in ("-ffast-math", "-ffinite-math-only"):
        with pytest.raises(AssertionError, match=r"#error .*drop NaN and infinity"):
            compile_c(tmp_path, "network.c", [*STRICT, option, "-c"])
        declared = [option, "-DNETWORK_DECLARATIONS_ONLY", "-c"]
        compile_c(tmp_path, "network.c", ["-std=c99", *declared])


def test_a_file_and_its_test_are_both_written_or_none(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    theta, path = network.initialize(backend="numpy"), tmp_path / "network.c"
    path.write_text("old")
    (tmp_path / "network_test.c").mkdir()
    with pytest.raises(IsADirectoryError):
        bx.export_c(path, network, theta, test=[[1.0, 2.0, 3.0]])
    assert path.read_text() == "old"
    assert len([*tmp_path.iterdir()]) == 2


def test_rows_that_cannot_test_a_file_are_refused(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    theta = network.initialize(backend="numpy")
    with pytest.raises(ValueError, match=r"test has rows that .*: x has 2 features"):
        bx.export_c(tmp_path / "a.c", network, theta, test=[[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"test\[1\] has a result that is not finite"):
        bx.export_c(tmp_path / "a.c", network, theta, test=[[1.0, 2.0, 3.0], [math.inf, 0.0, 0.0]])
    assert not list(tmp_path.iterdir())


def test_the_precision_is_a_name_or_a_dtype(tmp_path: Path) -> None:
    network, texts = bx.mlp([3, 2]), dict[Any, str]()
    theta = network.initialize(backend="numpy")
    for dtype in ("float32", np.float32, np.dtype("float32"), "float64", np.float64):
        bx.export_c(tmp_path / "network.c", network, theta, dtype=dtype)
        texts[dtype] = (tmp_path / "network.c").read_text()
    assert texts["float32"] == texts[np.float32] == texts[np.dtype("float32")]
    assert texts["float64"] == texts[np.float64] != texts["float32"]


def test_an_unknown_number_of_features_or_precision_is_refused(tmp_path: Path) -> None:
    network = bx.Network([Factors(3)], "huber")
    with pytest.raises(ValueError, match=r"does not define its number.* n_in"):
        bx.export_c(tmp_path / "a.c", network, network.initialize(backend="numpy"))
    with pytest.raises(ValueError, match="dtype 'float16' is unknown"):
        bx.export_c(tmp_path / "a.c", network, network.initialize(backend="numpy"), dtype="float16")
    assert not list(tmp_path.iterdir())
