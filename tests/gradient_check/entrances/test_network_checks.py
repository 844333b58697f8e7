"""Checks of networks, layers and losses by their pieces, with verdicts in float64.

Specifies ``perturbed_losses`` and ``together``.
"""

import dataclasses
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace, device_of
from backprop_xp.gradient_check.entrances.perturbed_losses import perturbed_losses
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from tests import planted_mistakes
from tests.planted_mistakes import check, entries_and_directions, every_dtype
from tests.user_layers import Doubled

# The rounding of another order of operations, and the error of a difference of fourth order.
ROUNDING = {"complex_step": 1e-13, "centered": 1e-8}
every_entry = pytest.mark.parametrize("method", ROUNDING)
# A right gradient passes clearly: its error is at most this part of the tolerance.
BY_FAR = 0.2
# These have kinks, and a direction may cross one.
KINKED = ("relu", "leaky_relu", "mean_absolute_error", "huber")

# Every array has three columns, so JAX compiles few shapes.
generator = np.random.default_rng(61)
X, NUMBERS = generator.normal(size=(2, 4, 3))
CODES = np.asarray([[3], [0], [2], [3]])
SHARES = generator.dirichlet(np.ones(3), 4)

# Dense before Dense passes one column on; the others need the whole output.
NETWORKS = {
    "dense layers": bx.mlp([3, 3, 3, 3], hidden="gelu", output="sigmoid", l2=0.3),
    "softmax inside": bx.mlp([3, 3, 3], hidden="softmax", loss="categorical_cross_entropy"),
    "dropout": bx.mlp([3, 3, 3], hidden="relu", dropout=0.4, loss="binary_cross_entropy"),
    "others": bx.Network(
        [
            bx.Dense(3, 3, planted_mistakes.SQUARE),
            bx.LayerNorm(3),
            planted_mistakes.Affine(),
            bx.Dense(3, 3),
        ],
        "huber",
    ),
    "a subclass": bx.Network([bx.Dense(3, 3), Doubled(3, 3, "tanh"), bx.Dense(3, 3)], "huber"),
    "columns": bx.Network(
        [bx.Columns(bx.Embedding(4, 2), bx.NumericEmbedding(2)), bx.Scale(10), bx.Dense(10, 3)],
        "huber",
        l2=0.1,
    ),
    "a residual": bx.Network(
        [bx.Dense(3, 3, "silu"), bx.Residual(bx.Dense(3, 3, "softplus"))], "log_cosh", l2=0.1
    ),
}


def _case(xp: Any, network: bx.Network, dtype: str = "working") -> tuple[Any, ...]:
    noise = np.random.default_rng(7).normal(0.0, 0.3, network.size)
    x = np.where(network.codes, CODES, X) if network.codes else X
    noise, x, y = (xp.asarray(array, dtype=dtype) for array in (noise, x, SHARES))
    return network, xp.initialize(network, seed=3, dtype=dtype) + noise, x, y


@pytest.mark.float64
@pytest.mark.parametrize("name", NETWORKS)
def test_a_perturbed_loss_equals_the_loss_of_the_perturbed_theta(xp: Any, name: str) -> None:
    """If this failed, a check would use whole networks and still pass."""
    network, theta, x, y = _case(xp, NETWORKS[name])
    function = perturbed_losses(network, theta, Rows(x, y), batched=None, max_memory=2**20)
    assert function is not None
    host = xp.host(theta)
    each = np.repeat(host[None], network.size, axis=0)
    np.fill_diagonal(each, host + 0.01)
    whole = xp.host(network.loss(xp.asarray(each), x, y))
    xp.assert_close(function(np.arange(network.size), host + 0.01), whole)


@pytest.mark.float64
@every_entry
@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_the_partial_passes_give_the_losses_of_the_whole_network(
    xp: Any, name: str, method: str
) -> None:
    network, theta, x, y = _case(xp, NETWORKS[name])
    options: Any = {"sample_weight": xp.asarray([1.0, 0.5, 2.0, 0.0]), "rng": 5}
    value, gradient = (
        lambda p: network.loss(p, x, y, **options),
        lambda p: network.loss_and_gradient(p, x, y, **options)[1],
    )
    whole = check.gradient(value, gradient, theta, method=method)
    of_float32 = check.network(*_case(xp, network, "float32"), method="directional", rng=5)
    assert (of_float32.passed, of_float32.max_relative_error <= 1e-8) == (True, True)
    for memory in (1, 2**24):
        limits = {"max_memory": memory, "method": method}
        short = check.network(network, theta, x, y, **limits, **options)
        assert (short.verdict, short.method) == ("pass", method)
        found, expected = xp.host(short.numeric), xp.host(whole.numeric)
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=ROUNDING[method])


@entries_and_directions
@pytest.mark.long
@pytest.mark.parametrize("mistake", ["", "scale"])
@pytest.mark.parametrize("unable", ["alone", "real"])
def test_layers_without_complex_numbers_or_stacks_are_checked_too(
    xp: Any, unable: str, mistake: str, method: str
) -> None:
    layers = [bx.Dense(3, 3, "tanh"), planted_mistakes.Affine(mistake, **{unable: True})]
    case = _case(xp, bx.Network(layers, "huber"))
    report = check.network(*case, method=method, batched=False if unable == "alone" else None)
    assert report.verdict == ("fail" if mistake else "pass")
    assert method != "auto" or report.method == {"real": "centered"}.get(unable, "complex_step")


class OfTheStack(planted_mistakes.Affine):
    """A layer that mixes the networks of a stack."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        mean = bx.backends.array_namespace(x).mean(x)
        return super().forward(parameters, x - mean, rng)


def test_a_layer_that_mixes_a_stack_is_not_given_one(xp: Any) -> None:
    network, theta, x, y = _case(xp, bx.Network([bx.Dense(3, 3), OfTheStack()], "huber"))
    assert perturbed_losses(network, theta, Rows(x, y), batched=None, max_memory=2**20) is None


@every_entry
def test_a_check_keeps_its_memory_limit(method: str) -> None:
    network, draw = bx.mlp([64, 100, 10], hidden="sigmoid"), np.random.default_rng(0).uniform
    theta = network.initialize(0, backend="numpy", dtype="float64")
    tracemalloc.start()
    case = network, theta, draw(size=(32, 64)), draw(size=(32, 10))
    check.network(*case, method=method, max_memory=4 * 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Besides, each of the 7,510 entries has a few dozen numbers.
    assert peak <= (4 + 3) * 2**20


def test_an_invalid_theta_is_an_error_that_names_it(xp: Any) -> None:
    network, rows = bx.mlp([2, 3, 1]), ([[0, 1], [1, 0]], [[1], [0]])
    assert check.network(network, xp.initialize(network), *rows).passed
    for theta, message in (
        (np.ones((2, 3, 13)), r"takes one network, \(13,\)\. Pass theta\[i\]"),
        (np.ones(5), r"theta has shape \(5,\), but this network's"),
        ([1.0] * 9 + [np.nan] * 4, r"layers\[1\]\.weights is nan at \[0, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            check.network(network, xp.asarray(theta), *rows)


LAYERS: dict[str, Any] = {
    **{f"Dense {name}": bx.Dense(3, 3, name) for name in ACTIVATIONS},
    "Activation": planted_mistakes.SQUARE,
    "Dropout": bx.Dropout(0.4),
    "Scale": bx.Scale(3),
    "NumericEmbedding": bx.NumericEmbedding(3, 3),
    "NumericEmbedding of pl": bx.NumericEmbedding(3, 2, "pl"),
    "Columns": bx.Columns(bx.NumericEmbedding(2), bx.Scale(1)),
    "Chain": bx.Chain(bx.Activate("tanh"), bx.LayerNorm(3), bx.Dropout(0.3)),
    "Residual": bx.Residual(bx.Activate("tanh"), bx.LayerNorm(3), bx.Dropout(0.3)),
    "Affine": planted_mistakes.Affine(),
    "real Affine": planted_mistakes.Affine(real=True),
}
TARGETS = {
    "poisson": [[0.0, 1.0, 3.0], [2.0, 0.0, 1.0], [5.0, 1.0, 1.0], [0.0, 0.0, 2.0]],
    "binary_cross_entropy": [[0.0, 1.0, 1.0], [1.0, 0.0, 0.25], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]],
    "categorical_cross_entropy": SHARES,
    "hinge": SHARES,
}


def _check(xp: Any, piece: Any, targets: Any, dtype: str, **options: Any) -> Any:
    """Check a layer, an activation or a loss."""
    numbers = NUMBERS
    if piece == "gaussian_nll":
        numbers, targets = NUMBERS[:, :2], X[:, :1]
    numbers, x, targets = (xp.asarray(array, dtype=dtype) for array in (numbers, X, targets))
    if isinstance(piece, str | bx.Loss):
        return check.loss(piece, numbers, targets, **options)
    return check.layer(piece, x, **options)


@every_dtype
@entries_and_directions
@pytest.mark.parametrize("name", [*LAYERS, *LOSSES])
def test_a_right_layer_or_loss_passes(xp: Any, name: str, method: str, dtype: str) -> None:
    report = _check(xp, LAYERS.get(name, name), TARGETS.get(name, X), dtype, method=method)
    kinked = name.endswith(KINKED)
    assert report.verdict == "pass" or (kinked and report.verdict == "kink"), str(report)
    if not kinked and xp.dtype == "float64":
        assert report.max_relative_error <= BY_FAR * report.tolerance
    if method == "auto":
        names = ["input", *getattr(LAYERS[name], "names", ())] if name in LAYERS else ["outputs"]
        assert [tensor.tensor for tensor in report.tensors] == names
        assert bx.backends.device_of(report.numeric[0]) == xp.selection.device


def _over_the_batch(outputs: Any, targets: Any) -> Any:
    flip = bx.backends.array_namespace(outputs).matrix_transpose
    return flip(bx.activations.softmax.value(flip(outputs))) - targets


# The mistake, and the tensor whose derivative is wrong; a scale of 1 would hide the first.
WRONG: dict[str, tuple[Any, str]] = {
    **{
        f"by its {k}": (planted_mistakes.Affine(k), k)
        for k in ("input", *planted_mistakes.Affine.names)
    },
    "a forgotten mask": (planted_mistakes.DropoutWithoutMask(0.5), "input"),
    "an activation": (planted_mistakes.WRONG_SQUARE, "input"),
    "a residual": (bx.Residual(planted_mistakes.Affine("input")), "input"),
    "a column": (planted_mistakes.WRONG_LOSS, "outputs"),
    "softmax": (bx.Loss(bx.losses.categorical_cross_entropy.value, _over_the_batch), "outputs"),
}


@pytest.mark.long
@every_dtype
@entries_and_directions
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layer_or_loss_fails(xp: Any, name: str, method: str, dtype: str) -> None:
    wrong, tensor = WRONG[name]
    for seed in range(2):
        report = _check(xp, wrong, SHARES, dtype, method=method, seed=seed)
        assert (report.verdict, report.worst[0].tensor) == ("fail", tensor)


@pytest.mark.filterwarnings("ignore:Casting complex")  # a warning must not occur
def test_an_invalid_layer_loss_or_sample_is_an_error_that_names_it(xp: Any) -> None:
    norm, x, number = bx.LayerNorm(3), xp.asarray(X), xp.asarray([[1.0]] * 4)
    complex_x = xp.namespace.astype(x, xp.namespace.complex64)
    for function, arguments, message in (
        (check.layer, ("tanh", x), r"layer is .*, which is not a layer: .*bx\.Dense\(2, 1\)"),
        (check.layer, (norm, x[0, :]), r"x has shape \(3,\), but \(batch, 3\) with rows"),
        (check.layer, (norm, number), r"x has shape \(4, 1\), but \(batch, 3\)"),
        (check.layer, (norm, complex_x), r"is complex\d+, but real floating numbers"),
        (check.loss, ("huber", x, number), r"targets has shape \(4, 1\), but the outputs"),
        (check.loss, ("hubr", x, x), r"loss 'hubr' is unknown\. Did you mean 'huber'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            function(*arguments)
    # Lists and integers are accepted.
    assert check.layer(norm, xp.asarray([[1, 2, 4]], dtype=None)).passed
    report = check.loss("log_cosh", [[0.5, -1.0, 2.0]], [[1, 0, 1]])
    assert bx.backends.owner(report.analytic[0]) is xp.selection.backend


class Codes:
    """A layer of integer codes ``(batch, 1)``, each a row index of a table of four rows."""

    names, shapes = ("table",), ((4, 3),)

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.normal(size=(4, 3)),)

    def _chosen(self, x: Any, like: Any) -> Any:
        xp = bx.backends.array_namespace(x)
        if not xp.isdtype(x.dtype, "integral"):
            raise TypeError("codes are integers")
        chosen = x == xp.arange(4, dtype=x.dtype, device=bx.backends.device_of(x))
        return xp.astype(xp.astype(chosen, xp.int32), like.dtype)

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self._chosen(x, parameters[0]) @ parameters[0], x

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        if wants_input:
            raise TypeError("codes have no derivative")
        xp = bx.backends.array_namespace(g)
        return None, (self.factor * (xp.matrix_transpose(self._chosen(cache, g)) @ g),)


def test_a_layer_of_integers_is_checked_without_its_input(xp: Any) -> None:
    x = xp.asarray([[0], [3], [1], [3]], dtype="int64")
    report = check.layer(Codes(), x, wants_input=False)
    assert (report.verdict, [t.tensor for t in report.tensors]) == ("pass", ["table"])
    assert check.layer(Codes(2.0), x, wants_input=False).verdict == "fail"
    dense = check.layer(bx.Dense(3, 2, "tanh"), xp.asarray(np.ones((4, 3))), wants_input=False)
    assert [t.tensor for t in dense.tensors] == ["weights", "bias"]
    with pytest.raises(ValueError, match="layer has no parameters"):
        check.layer(bx.Dropout(0.5), xp.asarray(np.ones((4, 3))), wants_input=False)


def test_a_row_of_weight_0_that_overflows_is_left_out_of_a_check(xp: Any) -> None:
    network = bx.mlp([2, 3, 1], hidden="relu")
    huge = 0.9 * float(np.finfo(xp.dtype).max)
    x, y = [[0.3, 1.0], [huge, -huge], [1.0, 0.2]], [[1.0], [huge], [0.0]]
    theta, x, y, weight = xp.put(xp.host(xp.initialize(network)), x, y, [1.0, 0.0, 2.0])
    report = bx.check_network(network, theta, x, y, sample_weight=weight)
    assert report.verdict == "pass", report


@every_dtype
def test_sample_weights_have_the_dtype_of_theta(xp: Any, dtype: str) -> None:
    case = _case(xp, NETWORKS["dense layers"], dtype)
    weight = xp.asarray([1.0, 0.5, 2.0, 0.0], dtype=dtype)
    assert check.network(*case, sample_weight=weight, method="directional").passed


# Its rule is right up to 3, and its gradient as a loss's up to 3.
CLIPPED = bx.Activation(lambda z: z * z, lambda g, z, a: 2.0 * g * _at_most_3(z))
CLIPPED_LOSS = bx.Loss(
    bx.losses.half_squared_error.value,
    lambda y, t: _at_most_3(bx.losses.half_squared_error.gradient(y, t)),
)


def _at_most_3(array: Any) -> Any:
    xp = bx.backends.array_namespace(array)
    real = xp.real(array) if xp.isdtype(array.dtype, "complex floating") else array
    return xp.where(real <= 3.0, array, 3.0 * xp.ones_like(array))


@pytest.mark.parametrize("piece", [CLIPPED, CLIPPED_LOSS], ids=["layer", "loss"])
def test_a_layer_or_loss_is_checked_at_several_points_too(xp: Any, piece: Any) -> None:
    small = xp.asarray([[0.5, -1.0, 2.0], [1.5, 1.0, 0.25]])
    targets = () if piece is CLIPPED else (0.0 * small,)
    run = check.layer if piece is CLIPPED else check.loss
    assert run(piece, small, *targets).verdict == "pass"
    assert run(piece, small, *targets, points=[-small, 0.5 * small]).verdict == "pass"
    for options, place in (
        ({"points": [-small, 40.0 * small]}, "points[1]"),
        ({"samples": 2}, "sample 1, entries 100 times"),
    ):
        report = run(piece, small, *targets, **options)
        assert (report.verdict, report.place) == ("fail", place)
    for point, message in (
        ("junk", r"points\[1\] has dtype"),
        (small[0, :], r"points\[1\] has sha"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            run(piece, small, *targets, points=[small, point])


def test_samples_of_parameters_alone_are_not_0_where_the_kinks_of_all_rows_meet(xp: Any) -> None:
    layer, x = bx.Dense(3, 3, "relu"), xp.asarray(X)
    report = check.layer(layer, x, wants_input=False, samples=4)
    assert report.passed, str(report)
    assert any(note.startswith("5 points") for note in report.notes)


def test_a_further_point_of_a_layer_of_integers_has_its_own_integers(xp: Any) -> None:
    class WrongAt2(Codes):
        def backward(self, *arguments: Any, **options: Any) -> Any:
            _, (by_table,) = super().backward(*arguments, **options)
            numbers = bx.backends.array_namespace(by_table)
            rows = numbers.reshape(xp.asarray([1.0, 1.0, 2.0, 1.0]), (4, 1))
            return None, (by_table * numbers.astype(rows, by_table.dtype),)

    x, with_2 = (xp.asarray([[0], [3], [i]], dtype="int64") for i in (1, 2))
    assert check.layer(WrongAt2(), x, wants_input=False, points=[x]).verdict == "pass"
    report = check.layer(WrongAt2(), x, wants_input=False, points=[with_2])
    assert (report.verdict, report.place) == ("fail", "points[0]")


def test_a_further_theta_of_a_network_must_be_one_of_its_own(xp: Any) -> None:
    network, rows = bx.mlp([2, 3, 1]), ([[0, 1], [1, 0]], [[1], [0]])
    theta = xp.initialize(network)
    assert check.network(network, theta, *rows, points=[2.0 * theta]).passed
    for point, message in (
        ("junk", r"points\[0\] must be an array"),
        (theta[:5], r"\[0\] has shape"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            check.network(network, theta, *rows, points=[point])


class Shift(planted_mistakes.Affine):
    """An Affine whose rule for the shift sums over an axis counted from the front."""

    def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
        by_input, (by_scale, _) = super().backward(parameters, cache, g, wants_input=wants_input)
        by_shift = bx.backends.array_namespace(g).sum(g, axis=0, keepdims=True)
        return by_input, (by_scale, by_shift)


def _over_axis_1(array: Any) -> Any:
    return bx.backends.array_namespace(array).mean(array, axis=1, keepdims=True)


FROM_THE_FRONT = bx.Activation(lambda z: z - _over_axis_1(z), lambda g, z, a: g - _over_axis_1(g))
# The layer, and the result that is wrong on stacks.
WRONG_ON_STACKS = {
    "a shift": (Shift(), "backward's shift has shape (1, 4, 3), but (2, 1, 3) is expected"),
    "an activation": (FROM_THE_FRONT, "forward's output differs from that of each alone"),
}


LIMITED = bx.Activation(
    lambda z: z**3, lambda g, z, a: 3.0 * z**2 * array_namespace(g).clip(g, -50.0, 50.0)
)


@pytest.mark.parametrize("name", ["Dense", "Activate", "Residual"])
def test_a_rule_that_is_right_for_small_g_alone_is_not_linear(xp: Any, name: str) -> None:
    layer = {
        "Dense": bx.Dense(3, 3, LIMITED),
        "Activate": LIMITED,
        "Residual": bx.Residual(bx.Dense(3, 3, LIMITED)),
    }[name]
    report = bx.check_layer(layer, xp.asarray([[1.0, 2.0, 0.3], [0.5, -1.0, 0.1]]))
    assert report.verdict == "fail"
    assert "takes clip of g, but it must be linear" in str(report.diagnosis)


@pytest.mark.parametrize("name", WRONG_ON_STACKS)
def test_a_layer_that_is_wrong_on_a_stack_of_two_fails(xp: Any, name: str) -> None:
    layer, message = WRONG_ON_STACKS[name]
    report = check.layer(layer, xp.asarray(X))
    assert report.verdict == "fail"
    assert message in str(report.diagnosis)
    assert "stack of two networks" in str(report.diagnosis)
    assert check.layer(layer, xp.asarray(X), batched=False).verdict == "pass"


def test_a_layer_that_raises_an_error_for_a_stack_passes_alone(xp: Any) -> None:
    alone, x = planted_mistakes.Affine(alone=True), xp.asarray(X)
    assert check.layer(alone, x).verdict == "pass"
    with pytest.raises(ValueError, match="one at a time"):
        check.layer(alone, x, batched=True)


SQUARED = bx.losses.mean_squared_error


def _mean_of_all(outputs: Any, targets: Any) -> Any:
    return bx.backends.array_namespace(outputs).mean((outputs - targets) ** 2)


def _mean_for_each(outputs: Any, targets: Any) -> Any:
    value = SQUARED.value(outputs, targets)
    xp = bx.backends.array_namespace(value)
    return 0.0 * value + xp.mean(value, axis=-1, keepdims=True)


def _first_axis(outputs: Any, targets: Any) -> Any:
    return bx.backends.array_namespace(outputs).mean((outputs - targets) ** 2, axis=1)


def _by_the_batch(outputs: Any, targets: Any) -> Any:
    return SQUARED.gradient(outputs, targets) / outputs.shape[-2]


# The loss, and words about its mistake.
BREAKS_THE_CONTRACT = {
    "a mean": (bx.Loss(_mean_of_all, _by_the_batch), r"has shape \(\), but \(4,\) is expected"),
    "a mean for each": (
        bx.Loss(_mean_for_each, SQUARED.gradient), "depends on the other samples.* value differs"
    ),
    "a share": (bx.Loss(SQUARED.value, _by_the_batch), "other samples.* gradient differs"),
    "an axis": (bx.Loss(_first_axis, SQUARED.gradient), r"stack.* value has shape \(2, 3\), but"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS_THE_CONTRACT)
@pytest.mark.parametrize("rows", [1, 4])
def test_a_loss_that_is_not_one_number_for_each_sample_alone_fails(
    xp: Any, name: str, rows: int
) -> None:
    loss, message = BREAKS_THE_CONTRACT[name]
    report = check.loss(loss, xp.asarray(X[:rows]), xp.asarray(SHARES[:rows]))
    assert report.verdict == "fail"
    assert re.search(message.replace("4", str(rows)), str(report.diagnosis)), report.diagnosis


def _curved(change: Any, loss: str = "poisson") -> bx.Loss:
    """Return a loss of the table with a changed curvature."""
    right = LOSSES[loss]
    assert right.curvature is not None
    return dataclasses.replace(right, curvature=lambda o, t: change(right.curvature(o, t)))


# The curvature's mistake, and words about it.
WRONG_CURVATURES = {
    "twice": (_curved(lambda c: 2.0 * c), r"not the derivative of its gradient.*outputs\[\d, \d\]"),
    "a percent": (_curved(lambda c: 1.01 * c), "not the derivative of its gradient"),
    "a weight": (_curved(lambda c: 1.01 * c, "huber"), "not the derivative of its gradient"),
    "a matrix": (
        _curved(lambda c: 1.01 * c, "categorical_cross_entropy"), "not the derivative"
    ),
    "a sign": (_curved(lambda c: -c), "has the eigenvalue -.*, but none below 0"),
    "a shape": (_curved(lambda c: c[..., :1]), r"curvature of .* has shape \(4, 1\)"),
    "the batch": (_curved(lambda c: c / c.shape[-2]), "other samples.* curvature differs"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", WRONG_CURVATURES)
def test_a_wrong_curvature_of_a_loss_fails(xp: Any, name: str) -> None:
    loss, message = WRONG_CURVATURES[name]
    targets = SHARES if loss.labels else TARGETS["poisson"]
    report = check.loss(loss, xp.asarray(NUMBERS), xp.asarray(targets))
    assert report.verdict == "fail"
    assert re.search(message, str(report.diagnosis)), report.diagnosis


def test_a_curvature_of_integers_is_checked_as_numbers(xp: Any) -> None:
    right = bx.losses.half_squared_error
    loss = dataclasses.replace(
        right, curvature=lambda o, t: array_namespace(o).full(o.shape, 1, device=device_of(o))
    )
    outputs, targets = xp.put([[0.3], [-2.0]], [[0.0], [1.0]])
    assert bx.check_loss(loss, outputs, targets).passed
