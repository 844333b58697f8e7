"""A layer, an activation or a loss is checked alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.losses import LOSSES
from tests.planted import (
    HALF_A_SQUARE,
    SQUARE,
    Affine,
    Unmasked,
    first_column_doubled,
    with_gradient,
)

METHODS = ["auto", "directional"]
DTYPES = ["float64", "float32"]
every_method = pytest.mark.parametrize("method", METHODS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# These have kinks, and a direction may meet one.
KINKED = ("relu", "leaky_relu", "mean_absolute_error", "huber")
# What a right gradient errs by at most by the complex step, well inside the tolerance that decides:
# it must pass by more than luck. Rounding of some dozen operations.
ERRORS = {"float64": 1e-13, "float32": 2e-5}

# Everything has three columns, so that few shapes are compiled by JAX.
generator = np.random.default_rng(61)
X = generator.normal(size=(4, 3))
NUMBERS = generator.normal(size=(4, 3))
SHARES = generator.dirichlet(np.ones(3), 4)
TARGETS = {
    "poisson": [[0.0, 1.0, 3.0], [2.0, 0.0, 1.0], [5.0, 1.0, 1.0], [0.0, 0.0, 2.0]],
    "binary_cross_entropy": [[0.0, 1.0, 1.0], [1.0, 0.0, 0.25], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]],
    "categorical_cross_entropy": SHARES,
}


def _assert_passes(report: Any, dtype: str, *, kinked: bool = False) -> None:
    assert report.passed, str(report)
    assert report.verdict == "pass" or (kinked and report.verdict == "kink")
    assert report.diagnosis is None
    if not kinked:
        assert report.max_relative_error <= ERRORS[dtype]


# ---- layers


LAYERS: dict[str, Any] = {
    **{f"Dense {name}": bx.Dense(3, 3, name) for name in ACTIVATIONS},
    **{f"Activate {name}": bx.Activate(name) for name in ACTIVATIONS},
    "Dropout": bx.Dropout(0.4),
    "LayerNorm": bx.LayerNorm(3),
    "Residual": bx.Residual(bx.Dense(3, 3, "tanh"), bx.LayerNorm(3), bx.Dropout(0.3)),
}


@every_dtype
@every_method
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_the_library_passes(xp: Any, name: str, method: str, dtype: str) -> None:
    layer = LAYERS[name]
    report = bx.check_layer(layer, xp.asarray(X, dtype=dtype), method=method)
    _assert_passes(report, dtype, kinked=name.endswith(KINKED))
    if method == "auto":
        assert [tensor.tensor for tensor in report.tensors] == ["input", *layer.names]


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_a_layer_at_its_kink_passes(xp: Any, name: str) -> None:
    """Differences see both slopes; the complex step sees the one that the layer takes, as it is."""
    x = xp.asarray([[0.0, 1.0, -1.0]])
    verdicts = {
        method: bx.check_layer(bx.Activate(name), x, method=method).verdict
        for method in ("complex_step", "centered")
    }
    assert verdicts == {"complex_step": "pass", "centered": "kink"}


@every_dtype
@every_method
def test_a_users_own_layer_passes_if_it_is_right(xp: Any, method: str, dtype: str) -> None:
    report = bx.check_layer(Affine(), xp.asarray(X, dtype=dtype), method=method)
    _assert_passes(report, dtype)


@every_dtype
@every_method
@pytest.mark.parametrize("mistake", ["input", *Affine.names])
def test_a_users_own_layer_fails_by_the_tensor_whose_rule_is_wrong(
    xp: Any, mistake: str, method: str, dtype: str
) -> None:
    """A scale of 1, which is what the layer draws, would hide the mistake in the input's rule."""
    report = bx.check_layer(Affine(mistake), xp.asarray(X, dtype=dtype), method=method)
    assert (report.verdict, report.passed) == ("fail", False)
    assert report.worst[0].tensor == mistake
    assert report.worst[0].name.startswith(f"{mistake}[")
    assert mistake in str(report)


@every_method
@pytest.mark.parametrize("mistake", ["", "input", "scale"])
def test_a_layer_that_takes_no_complex_numbers_is_checked_by_differences(
    xp: Any, mistake: str, method: str
) -> None:
    report = bx.check_layer(Affine(mistake, real=True), xp.asarray(X), method=method)
    assert report.verdict == ("fail" if mistake else "pass")
    assert report.method == ("centered" if method == "auto" else method)
    if mistake:
        assert report.worst[0].tensor == mistake


@every_method
def test_only_the_tensor_whose_rule_is_wrong_is_off(xp: Any, method: str) -> None:
    report = bx.check_layer(Affine("shift"), xp.asarray(X), method=method)
    wrong = {tensor.tensor for tensor in report.tensors if tensor.fraction_wrong}
    assert wrong == ({"shift"} if method == "auto" else set())
    # The mean was taken where the sum over four rows belongs.
    assert "shift" in str(report.diagnosis)
    assert "1/4" in str(report.diagnosis)


@every_method
def test_a_mask_that_is_forgotten_on_the_way_back_fails(xp: Any, method: str) -> None:
    report = bx.check_layer(Unmasked(0.5), xp.asarray(X), method=method)
    assert report.verdict == "fail"
    assert report.worst[0].tensor == "input"


class Drawn(Affine):
    """Keeps what it drew."""

    drawn: Any = None

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        self.drawn = generator.uniform(0.5, 1.5, (1, 3))
        return self.drawn, np.zeros((1, 3))


def test_the_seed_draws_the_parameters_and_changes_no_verdict(xp: Any) -> None:
    x, drawn = xp.asarray(X), []
    for seed in (0, 1, 1, 2):
        right, wrong = Drawn(), Drawn("input")
        assert bx.check_layer(right, x, seed=seed).verdict == "pass"
        assert bx.check_layer(wrong, x, seed=seed).verdict == "fail"
        assert np.array_equal(right.drawn, wrong.drawn)
        drawn.append(tuple(right.drawn[0]))
    assert drawn[1] == drawn[2]
    assert len(set(drawn)) == 3


@every_method
def test_an_activation_is_checked_as_it_is(xp: Any, method: str) -> None:
    right, wrong = (
        bx.check_layer(activation, xp.asarray(X), method=method)
        for activation in (SQUARE, HALF_A_SQUARE)
    )
    _assert_passes(right, xp.dtype)
    assert wrong.verdict == "fail"
    assert wrong.worst[0].tensor == "input"
    assert "factor of 1/2" in str(wrong.diagnosis)


@every_method
def test_a_layer_with_a_wrong_activation_fails(xp: Any, method: str) -> None:
    for layer in (bx.Dense(3, 3, HALF_A_SQUARE), bx.Residual(bx.Activate(HALF_A_SQUARE))):
        assert bx.check_layer(layer, xp.asarray(X), method=method).verdict == "fail"


def test_a_layer_is_checked_where_its_input_is(xp: Any) -> None:
    report = bx.check_layer(bx.Dense(3, 3, "tanh"), xp.asarray(X, dtype="float32"))
    assert len(report.analytic) == len(report.numeric) == 3
    for array in (*report.analytic, *report.numeric):
        assert bx.backends.owner(array) is xp.selection.backend
        assert bx.backends.device_of(array) == xp.selection.device
        assert array.dtype == xp.namespace.float32


def test_an_input_in_lists_goes_where_the_environment_says(xp: Any) -> None:
    report = bx.check_layer(bx.Activate("tanh"), [[0.5, -1.0, 2.0]])
    assert report.passed
    assert bx.backends.owner(report.analytic[0]) is xp.selection.backend


@pytest.mark.parametrize("layer", ["tanh", None, bx.Dense, 3, bx.losses.huber])
def test_what_is_no_layer_is_refused_with_an_example(xp: Any, layer: Any) -> None:
    with pytest.raises(TypeError, match=r"layer is .*, which is no layer: .*bx\.Dense\(2, 1\)"):
        bx.check_layer(layer, xp.asarray(X))


def test_a_layer_without_a_gradient_of_its_input_is_refused_by_name(xp: Any) -> None:
    class NoInput(Affine):
        def backward(self, *arguments: Any, **options: Any) -> tuple[Any, tuple[Any, ...]]:
            return None, super().backward(*arguments, **options)[1]

    with pytest.raises(TypeError, match="input must be an array of a known library, not NoneType"):
        bx.check_layer(NoInput(), xp.asarray(X))


# ---- losses


@every_dtype
@every_method
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_the_library_passes(xp: Any, name: str, method: str, dtype: str) -> None:
    outputs, targets = (xp.asarray(array, dtype=dtype) for array in (NUMBERS, TARGETS.get(name, X)))
    for loss in (name, LOSSES[name]):
        report = bx.check_loss(loss, outputs, targets, method=method)
        _assert_passes(report, dtype, kinked=name in KINKED)
    if method == "auto":
        assert [tensor.tensor for tensor in report.tensors] == ["outputs"]


@every_dtype
@every_method
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: 0.5 * g, "factor of 1/2"),
        (lambda g: -g, "sign"),
        (lambda g: 3.0 * g, "factor of 3"),
        (first_column_doubled, ""),
    ],
)
def test_a_loss_with_a_wrong_gradient_fails(
    xp: Any, change: Callable[[Any], Any], says: str, method: str, dtype: str
) -> None:
    outputs, targets = (xp.asarray(array, dtype=dtype) for array in (NUMBERS, X))
    report = bx.check_loss(with_gradient(change), outputs, targets, method=method)
    assert report.verdict == "fail"
    assert report.worst[0].tensor == "outputs"
    assert says in (report.diagnosis or "")


@every_method
def test_a_loss_whose_samples_depend_on_one_another_fails(xp: Any, method: str) -> None:
    """Softmax over the batch instead of over the classes."""

    def gradient(outputs: Any, targets: Any) -> Any:
        flip = xp.namespace.matrix_transpose
        return flip(bx.activations.softmax.value(flip(outputs))) - targets

    wrong = bx.Loss(bx.losses.categorical_cross_entropy.value, gradient)
    outputs, targets = xp.asarray(NUMBERS), xp.asarray(SHARES)
    assert bx.check_loss(wrong, outputs, targets, method=method).verdict == "fail"


def test_targets_may_be_lists(xp: Any) -> None:
    outputs = xp.asarray(NUMBERS, dtype="float32")
    for targets in (TARGETS["poisson"], [[0, 1, 3], [2, 0, 1], [5, 1, 1], [0, 0, 2]]):
        assert bx.check_loss("poisson", outputs, targets).passed


def test_outputs_in_lists_go_where_the_environment_says(xp: Any) -> None:
    report = bx.check_loss("log_cosh", [[0.5, -1.0, 2.0]], [[1, 0, 1]])
    assert report.passed
    assert bx.backends.owner(report.analytic[0]) is xp.selection.backend


def test_an_unknown_loss_is_refused_with_the_nearest(xp: Any) -> None:
    with pytest.raises(ValueError, match=r"loss 'hubr' is unknown\. Did you mean 'huber'"):
        bx.check_loss("hubr", xp.asarray(NUMBERS), xp.asarray(X))
    with pytest.raises(TypeError, match=r"loss must be a name or a bx\.Loss, not 3"):
        bx.check_loss(3, xp.asarray(NUMBERS), xp.asarray(X))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, 2.0, 3.0], r"x has shape \(3,\), but \(batch, 3\) with rows is expected"),
        ([[1.0, 2.0]], r"x has shape \(1, 2\), but \(batch, 3\)"),
        (np.zeros((0, 3)), r"x has shape \(0, 3\), but \(batch, 3\) with rows"),
    ],
)
def test_samples_that_do_not_fit_a_layer_are_refused(xp: Any, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bx.check_layer(bx.LayerNorm(3), xp.asarray(x))


def test_whole_numbers_are_samples_too(xp: Any) -> None:
    x = xp.asarray([[1, 2, 4]], dtype=None)
    assert bx.check_layer(bx.LayerNorm(3), x).passed


def test_targets_that_are_no_row_each_are_refused(xp: Any) -> None:
    outputs, targets = xp.asarray([[0.1, 0.2], [0.3, 0.4]]), xp.asarray([[1.0], [0.0]])
    with pytest.raises(ValueError, match=r"targets has shape \(2, 1\), but the outputs"):
        bx.check_loss("huber", outputs, targets)


def test_an_option_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'tolerence' is no option.*'tolerance'"):
        bx.check_layer(bx.LayerNorm(3), [[1.0, 2.0, 4.0]], tolerence=1e-3)
