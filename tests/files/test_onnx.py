"""The exported graph, run by ONNX Runtime alone, is the network's ``predict``.

Specifies ``recording``.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from tests.helpers import HANGING
from tests.user_layers import Factors, PassThrough

pytest.importorskip("ndonnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.once

# Relative to the largest prediction: other orders of sums and other exponentials round differently.
CLOSE = {"float32": 1e-6, "float64": 1e-12}

LAYERS = {
    "LayerNorm": [bx.Dense(3, 5), bx.LayerNorm(5), bx.Activate("tanh"), bx.Dense(5, 2)],
    "Dropout": [bx.Dense(3, 5, "tanh"), bx.Dropout(0.5), bx.Dense(5, 2)],
    "Embedding": [bx.Embedding([3, 4, 2], 2), bx.Dense(6, 2)],
    "NumericEmbedding": [bx.NumericEmbedding(3), bx.Dense(12, 2)],
    "NumericEmbedding of pl": [bx.NumericEmbedding(3, 2, "pl"), bx.Dense(6, 2)],
    "Columns": [bx.Columns(bx.Embedding(3, 2), bx.NumericEmbedding(2)), bx.Dense(10, 2)],
    "Scale": [bx.Scale(3), bx.Dense(3, 2)],
    "Standardize": [bx.Standardize([1.0, 2.0, 3.0], 2.0), bx.Dense(3, 2)],
    "Derivatives": [bx.Derivatives([bx.Dense(3, 2, "tanh")], [(), (0,), (0, 1), (2, 2)])],
    "Derivatives beside codes": [
        bx.Derivatives(
            [bx.Columns(bx.Embedding(3, 2), bx.Scale(2)), bx.Dense(4, 2, "tanh")],
            [(), (1,), (1, 2)],
        )
    ],
    "Equation": [
        bx.Equation(
            [bx.Dense(3, 1, "sigmoid")],
            lambda s: (s.u_t - s.k * s.u_xx * s.u, s.xp.exp(s.y)),
            "txy",
            unknown={"k": 2.0},
        )
    ],
    "Equation of points": [
        bx.Equation(
            [bx.Dense(1, 1, "tanh")],
            lambda s: (s[0].u_x - s[1].u * s[2].u, s[0].x * s[1].u),
            "x",
            points=3,
        )
    ],
    "Groups": [
        bx.Groups(
            [
                bx.Equation([bx.Dense(1, 1, "tanh")], residual, "x")
                for residual in (lambda s: s.u_x + s.u, lambda s: (s.u, s.u_x))
            ],
            [2, 1],
        )
    ],
    "Constrained": [bx.Constrained([bx.Dense(3, 2)], lambda x: x[..., :1], lambda x: 1.0)],
    "Chain": [
        bx.Chain(bx.Dense(3, 5, "tanh"), bx.Chain(bx.LayerNorm(5), bx.Dense(5, 4))),
        bx.Dense(4, 2),
    ],
    "Residual": [bx.Residual(bx.Dense(3, 5, "tanh"), bx.Dense(5, 3)), bx.Dense(3, 2)],
    "leaky_relu_with": [bx.Dense(3, 5, bx.activations.leaky_relu_with(0.3)), bx.Dense(5, 2)],
    **{name: [bx.Dense(3, 5, name), bx.Dense(5, 2)] for name in ACTIVATIONS},
    **{f"Activate {name}": [bx.Dense(3, 2), bx.Activate(name)] for name in ACTIVATIONS},
}
NETWORKS = {name: bx.Network(layers, "mean_squared_error") for name, layers in LAYERS.items()}
NETWORKS |= {name: bx.mlp([3, 4, 2], hidden="tanh", loss=name) for name in LOSSES}
# ndonnx takes a quarter of a second for a product: by default one network has all activations, and
# an inverse link has one layer before it. Beside a residual each activation gets numbers of both
# signs.
SHIFT = bx.Standardize([0.5, 0.5, 0.5], 2.0)
EACH = [bx.Residual(SHIFT, bx.Activate(name)) for name in ACTIVATIONS]
NETWORKS["each activation"] = bx.Network([*EACH, bx.Dense(3, 2)], "mean_squared_error")
LINKS = {
    "link of poisson": bx.Network([bx.Scale(3)], "poisson"),
    "link of binary_cross_entropy": bx.Network([bx.Scale(3)], "binary_cross_entropy"),
    "link of categorical_cross_entropy": bx.Network([bx.Scale(3)], "categorical_cross_entropy"),
    "link of focal": bx.Network([bx.Scale(3)], bx.losses.focal()),
    "link of gaussian_nll": bx.Network([bx.Dense(3, 4)], "gaussian_nll"),
    "link of hinge": bx.Network([bx.Dense(3, 1)], "hinge"),
}
NETWORKS |= LINKS
NOT_MANY = ("LayerNorm", "Scale", "Columns", "each activation")
NOT_MANY += ("Constrained", "Groups", "Derivatives beside codes")  # of equations
FEW = [(name, "float64") for name in (*NOT_MANY, *LINKS)]
FEW += [("Dropout", "float32")]
CASES = [(name, dtype) for dtype in CLOSE for name in NETWORKS]


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    (predictions,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    return np.asarray(predictions)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*c, marks=[] if c in FEW else pytest.mark.thorough) for c in CASES],
)
def test_the_graph_predicts_as_the_network_for_any_number_of_rows(
    xp: Any, name: str, dtype: str, tmp_path: Path
) -> None:
    network, generator = NETWORKS[name], np.random.default_rng(2)
    theta = xp.initialize(network, dtype=dtype)
    bx.export_onnx(tmp_path / "model.onnx", network, theta)
    for rows in (1, 7):
        x = generator.normal(0.0, 2.0, (rows, 3))
        is_code = np.asarray(network.codes or (0,)) > 0
        x = np.where(is_code, generator.integers(0, 2, (rows, 3)), x).astype(dtype)
        expected = xp.host(network.predict(theta, xp.asarray(x, dtype=dtype)))
        actual = _run(tmp_path / "model.onnx", x)
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        atol = CLOSE[dtype] * max(1.0, np.max(np.abs(expected)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_graph_is_as_stable_as_the_network(name: str, tmp_path: Path) -> None:
    network = bx.Network([bx.Scale(2), bx.Activate(name)], "mean_squared_error")
    theta = network.initialize(backend="numpy", dtype="float32")
    x = np.asarray([[1e4, 1.0], [1e4, -1e4], [-1e4, 1e4]], dtype=np.float32)
    bx.export_onnx(tmp_path / "model.onnx", network, theta)
    expected = network.predict(theta, x)
    np.testing.assert_allclose(_run(tmp_path / "model.onnx", x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.once
def test_the_file_has_the_precision_of_dtype(tmp_path: Path) -> None:
    network = bx.mlp([3, 4, 2], hidden="tanh")
    theta = network.initialize(backend="numpy", dtype="float64")
    x = np.random.default_rng(4).normal(size=(5, 3))
    for dtype, close in (("float32", 1e-6), ("float64", 1e-14)):
        bx.export_onnx(tmp_path / "model.onnx", network, theta, dtype=dtype)
        found = _run(tmp_path / "model.onnx", x.astype(dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, network.predict(theta, x), rtol=close, atol=close)
    with pytest.raises(ValueError, match="theta has numbers beyond the range of float32"):
        bx.export_onnx(tmp_path / "model.onnx", network, 1e40 * theta, dtype="float32")
    with pytest.raises(ValueError, match="dtype"):
        bx.export_onnx(tmp_path / "model.onnx", network, theta, dtype="float16")


def test_the_file_needs_only_onnxruntime(tmp_path: Path) -> None:
    network = bx.mlp([3, 4, 2], loss="categorical_cross_entropy")
    bx.export_onnx(tmp_path / "model.onnx", network, network.initialize(backend="numpy"))
    program = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "x = np.ones((5, 3))\n"
        "assert ort.InferenceSession('model.onnx').run(None, {'x': x})[0].shape == (5, 2)\n"
        "assert 'backprop_xp' not in sys.modules and 'ndonnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=HANGING)


def test_arguments_in_another_order_are_an_error_that_names_it(tmp_path: Path) -> None:
    network = bx.mlp([2, 1])
    theta, path = network.initialize(backend="numpy"), tmp_path / "file"
    order = r"must be .*, not a ndarray.*path, network, th"
    for write in (bx.export_onnx, bx.export_c, bx.save):
        with pytest.raises(TypeError, match=order):
            write(path, theta, network)


def test_a_stack_is_exported_one_by_one(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    theta = network.initialize(backend="numpy", stack=4)
    with pytest.raises(ValueError, match=r"choose one of the stack, such as theta\[0, :\]"):
        bx.export_onnx(tmp_path / "model.onnx", network, theta)
    assert not list(tmp_path.iterdir())


class Own(PassThrough):
    """A custom layer that applies a function to x."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self.work(x), None


def _reshaped(x: Any) -> Any:
    xp = array_namespace(x)
    return xp.reshape(xp.reshape(x, (-1, 1, 3)), (-1, 3))


def test_a_custom_layer_of_array_operations_is_exported(tmp_path: Path) -> None:
    network = bx.Network([bx.Dense(3, 3), Own(_reshaped)], "huber")
    theta, x = network.initialize(backend="numpy"), np.ones((5, 3))
    bx.export_onnx(tmp_path / "model.onnx", network, theta)
    np.testing.assert_allclose(_run(tmp_path / "model.onnx", x), network.predict(theta, x))


@pytest.mark.parametrize(
    ("layers", "loss", "error", "message"),
    [
        (
            [bx.Dense(3, 2), Own(lambda x: array_namespace(x).reshape(x, (x.shape[0], 2)))],
            "huber",
            TypeError,
            r"In layers\[1\] \(Own\)\.forward\. .*without a number of rows, x\.shape\[0\]",
        ),
        ([bx.Dense(3, 2), Own(np.sin)], "huber", TypeError, r"In layers\[1\] .*array API standard"),
        (
            [bx.Dense(3, 2)],
            bx.losses.over_outputs(lambda o, t: (o - t, 1.0), inverse_link=np.sin),
            TypeError,
            r"In the loss's inverse link\. .*array API standard",
        ),
        ([Factors(3)], "huber", ValueError, "network does not define its number.* n_in"),
        # The number of features before a layer with n_in is unknown.
        (
            [Own(lambda x: x[..., :3]), bx.Dense(3, 2)],
            "huber",
            ValueError,
            "network does not define",
        ),
    ],
)
def test_a_layer_that_cannot_be_exported_is_an_error_that_names_the_missing_part_and_the_rule(
    layers: list[Any], loss: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    network = bx.Network(layers, loss)
    with pytest.raises(error, match=rf"{message}.*docs/extending\.md"):
        bx.export_onnx(tmp_path / "model.onnx", network, network.initialize(backend="numpy"))
    assert not list(tmp_path.iterdir())
