"""Pictures: what is drawn, read back from matplotlib's own objects."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

pytest.importorskip("matplotlib")

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.image import imread

from backprop_xp import plots

X = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
Y = [[0.0], [1.0], [1.0], [0.0]]
LINE = bx.mlp([2, 1])


def test_each_network_of_a_stack_has_its_losses_over_the_epochs(xp: Any) -> None:
    losses = 1.0 + np.arange(24.0).reshape(4, 2, 3)
    axes = plots.loss_curves(xp.asarray(losses), epochs=[0, 10, 20, 30]).axes[0]
    assert len(axes.lines) == 6
    np.testing.assert_array_equal(axes.lines[4].get_data(), [[0, 10, 20, 30], losses[:, 1, 1]])
    assert axes.lines[0].get_label() == "loss of 6 networks"
    (line,) = plots.loss_curves(xp.asarray([1.0, 0.5, 0.25])).axes[0].lines
    np.testing.assert_array_equal(line.get_data(), [[1, 2, 3], [1.0, 0.5, 0.25]])


def test_a_history_of_fit_is_drawn_with_its_names_beside_the_surface(xp: Any) -> None:
    network = bx.mlp([2, 2, 1], hidden="tanh")
    theta = network.initialize(seed=0)
    result = bx.fit(network, theta, X, Y, optimizer=bx.SGD(0.1), epochs=3, validation=(X, Y))
    curves, surface = plots.learning(result.history, network, result.theta, X, Y).axes[:2]
    assert [line.get_label() for line in curves.lines] == ["loss", "validation_loss"]
    assert len({line.get_color() for line in curves.lines}) == 2
    assert len(surface.images) == 1


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([1.0, -0.5], "linear"), ([1.0, 0.0], "linear"), ([1.0, np.nan, np.inf], "log")],
)
def test_losses_are_drawn_on_a_logarithmic_scale_where_they_are_positive(
    losses: list[float], scale: str
) -> None:
    assert plots.loss_curves(losses).axes[0].get_yscale() == scale


def test_a_surface_is_the_networks_predictions_over_the_plane(xp: Any) -> None:
    network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    theta = xp.initialize(network, seed=1)
    axes = plots.decision_surface(network, theta, X, Y, resolution=5).axes[0]
    (image,) = axes.images
    assert list(image.get_extent()) == [-0.5, 1.5, -0.5, 1.5]
    points = xp.asarray([[-0.5, -0.5], [1.5, -0.5], [0.5, 1.0]])
    values = np.asarray(image.get_array())
    # The same precision on both sides; the batch's size may change the order of a product's sums.
    np.testing.assert_allclose(
        [values[0, 0], values[0, -1], values[3, 2]],
        xp.host(network.predict(theta, points))[:, 0],
        rtol=xp.rounding(1e-12),
    )
    np.testing.assert_array_equal(axes.collections[-1].get_offsets(), X)


@pytest.mark.parametrize(
    ("targets", "middle"), [([[-1], [0], [0], [2]], 0.5), ([[0], [2], [2], [4]], 2.0)]
)
def test_the_boundary_lies_halfway_between_the_targets(
    xp: Any, targets: list[list[int]], middle: float
) -> None:
    theta = xp.asarray([1.0, 1.0, 0.0])
    axes = plots.decision_surface(LINE, theta, X, targets, resolution=4).axes[0]
    assert [list(c.levels) for c in axes.collections if hasattr(c, "levels")] == [[middle]]


def test_a_feature_that_never_varies_still_has_a_width(xp: Any) -> None:
    x = [[0.0, 3.0], [2.0, 3.0]]
    axes = plots.decision_surface(LINE, xp.initialize(LINE), x, [[0], [1]]).axes[0]
    assert list(axes.images[0].get_extent()) == [-1.0, 3.0, 2.5, 3.5]


def test_a_network_is_drawn_where_its_theta_lives_in_its_precision() -> None:
    pytest.importorskip("array_api_strict")
    # Neither the environment's backend nor, most likely, its device, which begins with float32.
    theta = LINE.initialize(backend="array-api-strict", device="device2")
    assert plots.decision_surface(LINE, theta, X, Y, resolution=4).axes[0].images


def test_several_outputs_are_drawn_as_the_class_of_the_largest(xp: Any) -> None:
    network = bx.mlp([2, 3], loss="categorical_cross_entropy")
    weights = xp.asarray([[1.0, -1.0, 0.0], [0.0, 0.0, 1.5]])
    theta = network.pack([(weights, xp.asarray([[0.0, 0.0, 0.0]]))])
    x = [[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]]
    y = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    axes = plots.decision_surface(network, theta, x, y, resolution=3, margin=0.0).axes[0]
    classes = np.asarray(axes.images[0].get_array())
    assert (classes[0, 0], classes[0, -1], classes[2].tolist()) == (1, 0, [2, 2, 2])
    np.testing.assert_array_equal(axes.collections[-1].get_array(), [1, 0, 2])


def test_a_surface_without_a_boundary_or_with_nan_is_drawn_without_a_warning(
    xp: Any, tmp_path: Path
) -> None:
    zero = 0.0 * xp.initialize(LINE)
    for i, theta in enumerate((zero, zero + float("nan"))):
        figure = plots.decision_surface(LINE, theta, X, Y, resolution=4)
        plots.save(figure, tmp_path / f"{i}.png")


def test_entries_lie_beside_a_diagonal(xp: Any) -> None:
    analytic = {"weights": [[1.0, 2.0], [3.0, 4.0]], "bias": [5.0]}
    numeric = {"weights": [[1.0, 2.0], [3.0, 9.0]], "bias": [-1.0]}
    both = ({name: xp.asarray(g) for name, g in part.items()} for part in (analytic, numeric))
    axes = plots.gradient_entries(*both).axes[0]
    weights, bias, diagonal = axes.lines
    np.testing.assert_array_equal(weights.get_data(), [[1, 2, 3, 9], [1, 2, 3, 4]])
    np.testing.assert_array_equal(bias.get_data(), [[-1], [5]])
    np.testing.assert_array_equal(diagonal.get_data(), [[-1, 9], [-1, 9]])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["weights", "bias"]
    assert plots.gradient_entries([1.0, 2.0], [1.0, 2.0]).axes[0].get_legend() is None


def test_remainders_are_drawn_beside_those_of_a_right_gradient() -> None:
    steps = [0.5, 0.25]
    axes = plots.taylor_remainders(steps, [4.0, 3.0], [8.0, 5.0], [1e-3, 1e-4]).axes[0]
    heights = [list(line.get_ydata()) for line in axes.lines]
    assert heights == [[4.0, 3.0], [4.0, 1.0], [8.0, 5.0], [8.0, 1.0], [1e-3, 1e-4]]
    assert all(list(line.get_xdata()) == steps for line in axes.lines)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_a_drawing_goes_into_the_axes_that_are_given() -> None:
    for draw, lines in (
        (plots.loss_curves, 1),
        (lambda losses, axes: plots.gradient_entries(losses, losses, axes=axes), 2),
        (lambda losses, axes: plots.taylor_remainders(*[losses] * 4, axes=axes), 5),
    ):
        figure = Figure()
        axes = figure.subplots()
        assert draw([1.0, 0.5], axes=axes) is figure
        assert len(axes.lines) == lines


def _surface(**given: Any) -> Any:
    arguments = {"theta": LINE.initialize(backend="numpy"), "x": X, "y": Y, **given}
    return plots.decision_surface(LINE, **arguments)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (plots.loss_curves, {"history": 1.0}, r"loss has shape \(\)"),
    (plots.loss_curves, {"history": []}, r"loss has shape \(0,\)"),
    (plots.loss_curves, {"history": [1.0, 2.0], "epochs": [1, 2, 3]}, "epochs has shape"),
    (_surface, {"theta": np.ones((3, 3))}, r"theta\[i\]"),
    (_surface, {"x": [[1, 2, 3], [4, 5, 6]], "y": [[1], [2]]}, r"x has shape \(2, 3\)"),
    (_surface, {"x": np.ones((0, 2)), "y": np.ones((0, 1))}, r"x has shape \(0, 2\)"),
    (_surface, {"y": [0, 1, 1, 0]}, r"y has shape \(4,\)"),
    (_surface, {"y": [[0], [1]]}, r"y has shape \(2, 1\)"),
    (_surface, {"resolution": 1}, "resolution"),
    (_surface, {"margin": -1.0}, "margin"),
    (
        plots.gradient_entries,
        {"analytic": {"a": [1.0]}, "numeric": {"b": [1.0]}},
        r"analytic holds \['a'\], but numeric \['b'\]",
    ),
    (
        plots.gradient_entries,
        {"analytic": {"a": [1.0]}, "numeric": {"a": [1.0, 2.0]}},
        r"analytic\['a'\] has shape \(1,\), but numeric \(2,\)",
    ),
    (plots.gradient_entries, {"analytic": [], "numeric": []}, "no entries"),
]


@pytest.mark.parametrize(("draw", "given", "message"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(draw: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(**given)


def test_a_saved_picture_replaces_the_old_one_behind_a_link_and_as_the_umask_says(
    tmp_path: Path,
) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    link.symlink_to(real)
    (tmp_path / "plain").touch()
    plots.save(plots.loss_curves([1.0]), link)
    assert link.is_symlink()
    assert imread(real).ndim == 3
    assert real.stat().st_mode == (tmp_path / "plain").stat().st_mode
    plots.save(plots.loss_curves([1.0, 0.5]), str(tmp_path / "a.svg"))
    assert "</svg>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_picture_that_fails_leaves_the_old_file_whole(tmp_path: Path) -> None:
    class Broken(Artist):
        def draw(self, renderer: Any) -> None:
            raise RuntimeError("cannot be drawn")

    path, figure = tmp_path / "old.png", plots.loss_curves([1.0, 0.5])
    path.write_bytes(b"old")
    figure.add_artist(Broken())
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        plots.save(figure, path)
    for name in ("a.xyz", "a"):
        with pytest.raises(ValueError, match=r"none of the formats known: .*\.png"):
            plots.save(figure, tmp_path / name)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_is_imported_when_something_is_drawn_and_pyplot_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = (
        "import sys; from backprop_xp import plots; assert 'matplotlib' not in sys.modules;"
        "plots.loss_curves([1.0]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'backprop_xp\[plot\]'"):
        plots.loss_curves([1.0])
