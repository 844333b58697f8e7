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


class Broken(Artist):
    """What cannot be drawn: the saving fails half-way."""

    def draw(self, renderer: Any) -> None:
        raise RuntimeError("cannot be drawn")


def test_a_loss_curve_is_the_losses_over_the_epochs(xp: Any) -> None:
    losses = [1.0, 0.5, 0.25]
    axes = plots.loss_curves(xp.asarray(losses)).axes[0]
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), losses)
    assert axes.get_yscale() == "log"


def test_a_stack_has_a_line_for_each_network(xp: Any) -> None:
    losses = 1.0 + np.arange(24.0).reshape(4, 2, 3)
    lines = plots.loss_curves(xp.asarray(losses), epochs=[0, 10, 20, 30]).axes[0].lines
    assert len(lines) == 6
    np.testing.assert_array_equal(lines[4].get_ydata(), losses[:, 1, 1])
    np.testing.assert_array_equal(lines[4].get_xdata(), [0, 10, 20, 30])


def test_a_history_of_fit_is_drawn_with_its_names(xp: Any) -> None:
    network = bx.mlp([2, 2, 1], hidden="tanh")
    theta = network.initialize(seed=0)
    result = bx.fit(network, theta, X, Y, optimizer=bx.SGD(0.1), epochs=3, validation=(X, Y))
    axes = plots.loss_curves(result.history).axes[0]
    assert [line.get_label() for line in axes.lines] == ["loss", "validation_loss"]
    assert len({line.get_color() for line in axes.lines}) == 2


def test_losses_that_are_not_positive_are_drawn_on_a_linear_scale() -> None:
    assert plots.loss_curves([1.0, -0.5]).axes[0].get_yscale() == "linear"
    assert plots.loss_curves([1.0, 0.0]).axes[0].get_yscale() == "linear"
    assert plots.loss_curves([1.0, np.nan, np.inf]).axes[0].get_yscale() == "log"


def test_losses_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"loss has shape \(\)"):
        plots.loss_curves(1.0)
    with pytest.raises(ValueError, match=r"loss has shape \(0,\)"):
        plots.loss_curves([])
    with pytest.raises(ValueError, match="epochs has shape"):
        plots.loss_curves([1.0, 2.0], epochs=[1, 2, 3])


def test_a_surface_is_the_networks_predictions_over_the_plane(xp: Any) -> None:
    network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    theta = xp.initialize(network, seed=1)
    axes = plots.decision_surface(network, theta, X, Y, resolution=5).axes[0]
    (image,) = axes.images
    assert list(image.get_extent()) == [-0.5, 1.5, -0.5, 1.5]
    points = xp.asarray([[-0.5, -0.5], [1.5, -0.5], [0.5, 1.0]])
    bottom_left, bottom_right, upper_middle = xp.host(network.predict(theta, points))[:, 0]
    values = np.asarray(image.get_array())
    # The same precision on both sides; the batch's size may change the order of a product's sums.
    rtol = xp.rounding(1e-12)
    np.testing.assert_allclose(values[0, 0], bottom_left, rtol=rtol)
    np.testing.assert_allclose(values[0, -1], bottom_right, rtol=rtol)
    np.testing.assert_allclose(values[3, 2], upper_middle, rtol=rtol)
    np.testing.assert_array_equal(axes.collections[-1].get_offsets(), X)


def test_float32_is_drawn_as_well(xp: Any) -> None:
    network = bx.mlp([2, 3, 1])
    theta = xp.initialize(network, dtype="float32")
    x = xp.asarray(X, dtype="float32")
    assert plots.decision_surface(network, theta, x, Y, resolution=4).axes[0].images


def test_the_boundary_lies_halfway_between_the_targets(xp: Any) -> None:
    network = bx.mlp([2, 1])
    theta = xp.asarray([1.0, 1.0, 0.0])
    axes = plots.decision_surface(network, theta, X, [[-1], [0], [0], [2]], resolution=4).axes[0]
    assert [list(c.levels) for c in axes.collections if hasattr(c, "levels")] == [[0.5]]
    axes = plots.decision_surface(network, theta, X, [[0], [2], [2], [4]], resolution=4).axes[0]
    assert [list(c.levels) for c in axes.collections if hasattr(c, "levels")] == [[2.0]]


def test_a_feature_that_never_varies_still_has_a_width(xp: Any) -> None:
    network = bx.mlp([2, 1])
    x = [[0.0, 3.0], [2.0, 3.0]]
    axes = plots.decision_surface(network, xp.initialize(network), x, [[0], [1]]).axes[0]
    assert list(axes.images[0].get_extent()) == [-1.0, 3.0, 2.5, 3.5]


def test_a_network_is_drawn_where_its_theta_lives() -> None:
    pytest.importorskip("array_api_strict")
    network = bx.mlp([2, 1])
    # Neither the environment's backend nor, most likely, its device.
    theta = network.initialize(backend="array-api-strict", device="device2")
    assert plots.decision_surface(network, theta, X, Y, resolution=4).axes[0].images


def test_several_outputs_are_drawn_as_the_class_of_the_largest(xp: Any) -> None:
    network = bx.mlp([2, 3], loss="categorical_cross_entropy")
    weights = xp.asarray([[1.0, -1.0, 0.0], [0.0, 0.0, 1.5]])
    theta = network.pack([(weights, xp.asarray([[0.0, 0.0, 0.0]]))])
    x = [[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]]
    y = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    axes = plots.decision_surface(network, theta, x, y, resolution=3, margin=0.0).axes[0]
    classes = np.asarray(axes.images[0].get_array())
    assert classes[0].tolist()[0] == 1
    assert classes[0].tolist()[-1] == 0
    assert classes[2].tolist() == [2, 2, 2]


def test_a_surface_without_a_boundary_or_with_nan_is_drawn_without_a_warning(
    xp: Any, tmp_path: Path
) -> None:
    network = bx.mlp([2, 1])
    zero = 0.0 * xp.initialize(network)
    for i, theta in enumerate((zero, zero + float("nan"))):
        figure = plots.decision_surface(network, theta, X, Y, resolution=4)
        plots.save(figure, tmp_path / f"{i}.png")


def test_other_shapes_are_refused_by_the_surface(xp: Any) -> None:
    network = bx.mlp([2, 1])
    with pytest.raises(ValueError, match=r"theta\[i\]"):
        plots.decision_surface(network, xp.initialize(network, stack=3), X, Y)
    theta = xp.initialize(network)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\)"):
        plots.decision_surface(network, theta, [[1, 2, 3], [4, 5, 6]], [[1], [2]])
    with pytest.raises(ValueError, match=r"y has shape \(4,\)"):
        plots.decision_surface(network, theta, X, [0, 1, 1, 0])
    with pytest.raises(ValueError, match="resolution"):
        plots.decision_surface(network, theta, X, Y, resolution=1)
    with pytest.raises(ValueError, match="margin"):
        plots.decision_surface(network, theta, X, Y, margin=-1.0)


def test_learning_shows_both(xp: Any) -> None:
    network = bx.mlp([2, 2, 1])
    figure = plots.learning([2.0, 1.0], network, xp.initialize(network), X, Y)
    assert len(figure.axes[0].lines) == 1
    assert len(figure.axes[1].images) == 1


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


def test_gradients_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"analytic holds \['a'\], but numeric \['b'\]"):
        plots.gradient_entries({"a": [1.0]}, {"b": [1.0]})
    with pytest.raises(ValueError, match=r"analytic\['a'\] has shape \(1,\), but numeric \(2,\)"):
        plots.gradient_entries({"a": [1.0]}, {"a": [1.0, 2.0]})
    with pytest.raises(ValueError, match="no entries"):
        plots.gradient_entries([], [])


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


def test_a_saved_picture_can_be_read_back(tmp_path: Path) -> None:
    plots.save(plots.loss_curves([1.0, 0.5]), tmp_path / "a.png")
    assert imread(tmp_path / "a.png").ndim == 3
    plots.save(plots.loss_curves([1.0, 0.5]), str(tmp_path / "a.svg"))
    assert "</svg>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["old.png", "old.pdf", "old.svg"])
def test_a_picture_that_fails_leaves_the_old_file_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    figure = plots.loss_curves([1.0, 0.5])
    figure.add_artist(Broken())
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        plots.save(figure, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_picture_is_readable_by_whom_the_umask_lets(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    plots.save(plots.loss_curves([1.0]), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    link.symlink_to(real)
    plots.save(plots.loss_curves([1.0]), link)
    assert link.is_symlink()
    assert real.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    for name in ("a.xyz", "a"):
        with pytest.raises(ValueError, match=r"none of the formats known: .*\.png"):
            plots.save(plots.loss_curves([1.0]), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_pyplot_and_its_global_state_stay_away() -> None:
    program = (
        "import sys; from backprop_xp import plots; assert 'matplotlib' not in sys.modules;"
        "plots.loss_curves([1.0]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_matplotlib_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'backprop_xp\[plot\]'"):
        plots.loss_curves([1.0])
