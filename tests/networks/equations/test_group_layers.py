"""Equations at groups of points of their own, as one layer and as rows for fit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backprop_xp as bx
from tests.user_layers import sample_theta

# Some hundred roundings, relative to the largest entry.
PARITY = 1e-12
# Each step of Levenberg-Marquardt passes on the roundings of those before it.
AFTER_STEPS = 1e-8
generator = np.random.default_rng(71)
LAYERS = bx.mlp([2, 6, 1], hidden="tanh").layers
UNKNOWN = {"k": 0.4}


def residual_inside(s: Any) -> Any:
    return s.u_t - s.k * s.u_xx


def residual_of_readings(s: Any) -> Any:
    return s.u - s.reading, 0.1 * s.u_t


bx.register("tests.inside", residual_inside)
bx.register("tests.readings", residual_of_readings)
INSIDE = bx.Equation(LAYERS, residual_inside, "tx", unknown=UNKNOWN)
READINGS = bx.Equation(LAYERS, residual_of_readings, "tx", given="reading", unknown=UNKNOWN)
POINTS, READ = generator.normal(size=(11, 2)), generator.normal(size=(4, 3))
TARGETS = generator.normal(size=(4, 2))
TARGETS[1, 0] = np.nan


def grouped(xp: Any, sizes: tuple[int, int] = (11, 4), **options: Any) -> Any:
    groups = {
        "inside": (INSIDE, xp.asarray(POINTS[: sizes[0], :])),
        "readings": (READINGS, *xp.put(READ[: sizes[1], :], TARGETS[: sizes[1], :])),
    }
    return bx.group_rows(groups, **options)


@pytest.mark.parametrize("sizes", [(11, 4), (11, 1), (1, 4), (3, 2), (4, 3), (1, 1)])
def test_the_loss_is_the_mean_of_the_groups_own_means(xp: Any, sizes: tuple[int, int]) -> None:
    layer, x, y, weight = grouped(xp, sizes, weights={"readings": 3.0})
    network = bx.Network([layer], "mean_squared_error")
    theta = xp.asarray(sample_theta(network))
    inside, readings = (
        xp.host(bx.Network([one], "huber").forward(theta, xp.asarray(at[:n])))
        for one, at, n in ((INSIDE, POINTS, sizes[0]), (READINGS, READ, sizes[1]))
    )
    # The own mean of a group is that of its measured values.
    errors = (readings - TARGETS[: sizes[1]]) ** 2
    expected = (np.mean(inside**2) + 3.0 * np.nanmean(errors)) / 4.0
    xp.assert_close(network.loss(theta, x, y, sample_weight=weight), expected, PARITY)


def repeated(sizes: Sequence[int]) -> tuple[int, Callable[[int], int]]:
    """Return the rows of groups of these sizes, and the number of points in a number of rows."""
    points = {str(i): (INSIDE, np.ones((n, 2))) for i, n in enumerate(sizes)}
    layer, x, _, weight = bx.group_rows(points)
    assert (weight > 0.0).all()  # each row counts
    assert layer.points == tuple(-(-n // len(x)) for n in sizes)
    return len(x), lambda rows: rows * sum(-(-n // rows) for n in sizes)


@pytest.mark.parametrize(
    "sizes", [(500, 1), (301, 300), (599, 300), (100, 20, 20, 3), (7,), (2, 1), (40, 40), (1, 90)]
)
def test_there_are_as_many_rows_as_repeat_a_tenth_of_the_points(sizes: tuple[int, ...]) -> None:
    rows, points_in = repeated(sizes)
    enough = [n for n in range(1, max(sizes) + 1) if points_in(n) <= 1.1 * sum(sizes)]
    assert rows == max(enough)


def test_a_row_has_few_points_however_many_there_are() -> None:
    """The memory of a block of rows is bounded."""
    rows, points_in = repeated((20_000, 1))
    assert points_in(rows) / rows == 11


def test_the_places_of_a_point_share_its_weight() -> None:
    _, x, _, weight = bx.group_rows({"a": (INSIDE, POINTS), "b": (INSIDE, POINTS[:1])})
    points, shares = np.concatenate([*x]).reshape(-1, 2), weight.reshape(-1)
    for point in POINTS[1:]:
        share = shares[(points == point).all(-1)].sum()
        assert share == pytest.approx(1.0 / 11.0, rel=PARITY)


@pytest.mark.long
@pytest.mark.float64  # theta after several steps
@pytest.mark.parametrize("stack", [(), (2,)])
def test_levenberg_marquardt_has_the_steps_of_one_row_of_all_points(
    xp: Any, stack: tuple[int, ...]
) -> None:
    """One row has each point once, and the rule of any layer."""
    layer, *rows = grouped(xp, (11, 1))
    whole = bx.Groups([INSIDE, READINGS], [11, 1])
    parts = (POINTS, READ[:1]), (np.zeros((1, 11)), TARGETS[:1]), (np.ones(11) / 11, np.ones(2) / 2)
    one_row = [np.concatenate([*map(np.ravel, part)])[None, :] for part in parts]
    found = []
    # Another layer behind the groups makes each output one of the whole row.
    for layers, given in (([layer], rows), ([whole, bx.Activate("identity")], xp.put(*one_row))):
        x, y, weight = given
        network = bx.Network(layers, "mean_squared_error")
        theta = xp.initialize(network, stack=stack)
        # The penalty avoids a warning: there are fewer residuals than parameters.
        options = {"optimizer": bx.LevenbergMarquardt(), "epochs": 4, "l2": 1e-9}
        options["sample_weight"] = weight
        found.append(bx.fit(network, theta, x, y, **options).history["loss"])
    np.testing.assert_allclose(*found, rtol=AFTER_STEPS)
    assert (found[0][-1] < 0.5 * found[0][0]).all()


@pytest.mark.parametrize("sizes", [(11, 1), (11, 4), (1, 4)])
def test_a_gauss_newton_matrix_takes_one_backward_pass_for_each_residual(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each point of a row."""
    calls, backward = [], bx.Equation.backward

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(self)
        return backward(self, *arguments, **options)

    monkeypatch.setattr(bx.Equation, "backward", counted)
    groups = {"a": (INSIDE, POINTS[: sizes[0]]), "b": (READINGS, READ[: sizes[1]])}
    layer, x, y, weight = bx.group_rows(groups)
    network = bx.Network([layer], "mean_squared_error")
    network.gauss_newton(sample_theta(network), x, y, sample_weight=weight)
    assert calls == [INSIDE, READINGS, READINGS]


def test_each_group_computes_the_derivatives_of_its_own_residual_alone(xp: Any) -> None:
    layer, *_ = grouped(xp)
    assert layer.points == (3, 1)
    assert (layer.n_in, layer.n_out) == (3 * 2 + 3, 3 + 2)
    assert [one._passes[0][0] for one in layer.equations] == [((0,), (1, 1)), ((), (0,))]


@pytest.mark.float64  # the complex step of one precision
def test_backpropagation_through_groups_passes_the_check(xp: Any) -> None:
    layer, x, *_ = grouped(xp)
    report = bx.check_layer(layer, x, method="complex_step")
    assert report.passed, str(report)


def test_a_training_takes_batches_of_all_groups(xp: Any) -> None:
    layer, x, y, weight = grouped(xp)
    network = bx.Network([layer], "mean_squared_error")
    options = {"optimizer": bx.Adam(1e-2), "epochs": 5, "batch_size": 2, "sample_weight": weight}
    result = bx.fit(network, xp.initialize(network, stack=(2,)), x, y, **options)
    losses = xp.host(network.loss(result.theta, x, y, sample_weight=weight))
    before = xp.host(network.loss(xp.initialize(network, stack=(2,)), x, y, sample_weight=weight))
    assert np.all(losses < before)
    theta, unknown = layer.split(result.theta)
    assert layer.network.predict(theta, xp.asarray(POINTS)).shape == (2, 11, 1)
    assert unknown["k"].shape == (2,)


@pytest.mark.float64  # NaN for a group without a weight, and digits
@pytest.mark.parametrize("weights", [{"readings": 3.0}, {"inside": 0.0}])
def test_the_history_has_each_groups_loss(xp: Any, weights: dict[str, float]) -> None:
    layer, x, y, weight = grouped(xp, weights=weights)
    network = bx.Network([layer], "mean_squared_error")
    options = {"optimizer": bx.Adam(1e-2), "epochs": 2, "sample_weight": weight}
    result = bx.fit(
        network, xp.initialize(network, stack=(2,)), x, y, metrics=layer.metrics, **options
    )
    readings = xp.host(bx.Network([READINGS], "huber").forward(result.theta, xp.asarray(READ)))
    expected = np.nanmean((readings - TARGETS) ** 2, axis=(-2, -1))
    xp.assert_close(result.history["readings"][-1], expected, PARITY)
    if "inside" in weights:
        assert np.isnan(result.history["inside"]).all()
        return
    # The loss is their mean with the weights.
    found = (result.history["inside"][-1] + 3.0 * result.history["readings"][-1]) / 4.0
    xp.assert_close(network.loss(result.theta, x, y, sample_weight=weight), found, PARITY)


def test_a_groups_loss_takes_weights_of_rows(xp: Any) -> None:
    predictions, targets = xp.put(np.arange(6.0).reshape(3, 2), np.zeros((3, 2)))
    first = bx.Groups([INSIDE, INSIDE], [1, 1], ["a", "b"]).metrics["b"]
    xp.assert_close(first(predictions, targets), np.asarray(35.0 / 3.0), PARITY)
    weight = xp.asarray([1.0, 0.0, 3.0])
    xp.assert_close(first(predictions, targets, weight), np.asarray(76.0 / 4.0), PARITY)


@pytest.mark.once
def test_groups_have_a_name_each() -> None:
    with pytest.raises(ValueError, match="groups has 1 names, but there are 2 equations"):
        bx.Groups([INSIDE, INSIDE], [1, 1], ["a"])


def test_a_file_has_the_groups(xp: Any, tmp_path: Path) -> None:
    layer, x, *_ = grouped(xp)
    network = bx.Network([layer], "mean_squared_error")
    theta = xp.initialize(network)
    bx.save(tmp_path / "network", network, theta)
    read = bx.load(tmp_path / "network")
    assert read.network == network
    xp.assert_close(read.predict(x), network.predict(theta, x))


OTHER = bx.Equation(LAYERS, residual_inside, "tx", unknown={"k": 0.5})
WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "other unknown": (
        {"a": (INSIDE, POINTS), "b": (OTHER, POINTS)},
        {},
        ValueError,
        "other layers or",
    ),
    "no equation": ({"a": (LAYERS, POINTS)}, {}, TypeError, r"groups\['a'\] must begin with"),
    "no tuple": ({"a": POINTS}, {}, TypeError, "be a tuple .* or .*, not ndarray"),
    "a list": ({"a": [INSIDE, POINTS]}, {}, TypeError, r"be a tuple \(equation, points\).* list"),
    "no dictionary": ([(INSIDE, POINTS)], {}, TypeError, "^groups must be a dictionary .* list"),
    "no weights": (
        {"a": (INSIDE, POINTS)},
        {"weights": [1.0]},
        TypeError,
        "^weights must be a dictionary .* list",
    ),
    "width": ({"a": (INSIDE, READ)}, {}, ValueError, r"points\) has shape \(4, 3\), but \(n, 2\)"),
    "complex": (
        {"a": (INSIDE, POINTS + 0j)},
        {},
        TypeError,
        r"^groups\['a'\]\[1\] \(the points\) are complex, but real",
    ),
    "complex targets": (
        {"a": (INSIDE, POINTS, POINTS[:, :1] + 0j)},
        {},
        TypeError,
        r"\(the targets\) is complex128",
    ),
    "targets": (
        {"a": (READINGS, READ, POINTS)},
        {},
        ValueError,
        r"\(the targets\) has shape \(11, 2\), but \(4, 2\)",
    ),
    "weights": (
        {"a": (INSIDE, POINTS)},
        {"weights": {"b": 1.0}},
        ValueError,
        r"weights has \['b'\]",
    ),
    "empty": ({}, {}, ValueError, "groups is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_groups_that_do_not_fit_are_an_error(name: str) -> None:
    groups, options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        bx.group_rows(groups, **options)


@pytest.mark.usefixtures("nothing_chosen")
@pytest.mark.parametrize("kind", [list, tuple, pd.DataFrame])
def test_points_that_are_no_array_are_an_error_with_the_call_that_makes_one(kind: Any) -> None:
    points: Any = kind(POINTS.tolist())
    with pytest.raises(TypeError) as error:
        bx.group_rows({"wall (left)": (INSIDE, points)})
    place = "groups['wall (left)'][1]"
    message = f"{place} (the points) must be an array, not {kind.__name__}."
    assert str(error.value) == f"{message} Make it one: bx.asarray({place})."
    layer, *_ = bx.group_rows({"wall (left)": (INSIDE, bx.asarray(points, backend="numpy"))})
    assert layer.points == (1,)


def test_a_vector_of_points_is_an_error_that_names_the_column() -> None:
    one = bx.Equation(bx.mlp([1, 3, 1]).layers, lambda s: s.u, "x")
    series = bx.asarray(pd.Series([0.1, 0.2]), backend="numpy")
    with pytest.raises(ValueError, match=r"has shape \(2,\), but \(n, 1\).*as v\[:, None\]\.$"):
        bx.group_rows({"a": (one, series)})
    with pytest.raises(ValueError, match=r"has shape \(2,\), but \(2, 1\).*as v\[:, None\]\.$"):
        bx.group_rows({"a": (one, series[:, None], series)})


@pytest.mark.parametrize("which", ["points", "targets"])
def test_arrays_of_two_libraries_or_precisions_are_an_error_with_the_call(which: str) -> None:
    def mixed(other: Any) -> dict[str, Any]:
        if which == "targets":
            return {"b": (INSIDE, POINTS, other[:, :1])}
        return {"a": (INSIDE, POINTS), "b": (INSIDE, other)}

    place = "groups['b'][1]" if which == "points" else "groups['b'][2]"
    strict = bx.asarray(POINTS, backend="array-api-strict", device="CPU_DEVICE", dtype="float64")
    cases = (strict, ValueError, "array-api-strict's"), (POINTS.astype("f4"), TypeError, "float32")
    moved = f"bx.asarray({place}, backend='numpy', device='cpu', dtype='float64')"
    for other, error, library in cases:
        with pytest.raises(error) as caught:
            bx.group_rows(mixed(other))
        assert f"{place} (the {which}) is {library}" in str(caught.value)
        assert "(the points) is " in str(caught.value)
        assert str(caught.value).endswith(f"it: {moved}.")
