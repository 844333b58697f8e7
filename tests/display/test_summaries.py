"""Summaries: short reprs, and well-formed, escaped HTML."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.display.summaries import sparkline
from backprop_xp.files.checkpoint import Checkpoint

TAGS = {"section", "p", "strong", "details", "summary", "figure", "figcaption", "svg", "path"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
X, Y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [[0.0], [1.0], [1.0], [0.0]]
LINE = bx.mlp([2, 1])


class Page(HTMLParser):
    """A parsed page: its tags, attributes, words and the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def paths(self) -> list[str]:
        return [value or "" for name, value in self.attributes if name == "d"]


def page_of(thing: Any) -> Page:
    return Page(thing._repr_html_())


def result(history: dict[str, Any], epochs: int, theta: Any = None) -> bx.FitResult:
    theta = np.ones(3) if theta is None else theta
    state = bx.TrainingState(epochs, epochs, theta, ())
    return bx.FitResult(theta, history, (), epochs, state)


def report(**given: Any) -> Any:
    return bx.check_gradient(
        lambda p: np.sum(p["<w>"] ** 3) + np.sum(p["b"] ** 2),
        lambda p: {"<w>": given["factor"] * p["<w>"] ** 2, "b": 2 * p["b"]},
        {"<w>": np.asarray([1.0, -2.0, 3.0]), "b": np.asarray([0.5])},
        method=given.get("method", "auto"),
    )


def everything() -> list[Any]:
    stack = {"loss": np.asarray([[4.0, np.nan], [2.0, np.inf]]), "r<2": np.ones((2, 2))}
    return [
        LINE,
        result({"loss": np.asarray([3.0, 1.0])}, 2),
        result(stack, 2, np.ones((2, 3))),
        report(factor=1.5),
        report(factor=3.0),
        report(factor=3.0, method="taylor"),
    ]


def test_no_page_has_a_script_a_link_or_a_fixed_colour() -> None:
    for thing in everything():
        page = page_of(thing)
        assert set(page.tags) <= TAGS
        for name, value in page.attributes:
            assert not name.startswith("on")
            assert name not in ("href", "src", "id", "class")
            assert "url(" not in str(value)
            # Only the line between the grays has a colour.
            styled = str(value).replace("rgba(128,128,128,.5)", "")
            assert not re.search(r"color:|background|font-family|rgb|#", styled), value


def test_a_network_is_a_table_of_its_layers() -> None:
    layers = [bx.Dense(2, 3, "tanh"), bx.LayerNorm(3), bx.Residual(bx.Dense(3, 3)), bx.Dense(3, 1)]
    network = bx.Network(layers, "huber", l2=0.25)
    page = page_of(network)
    head, *rows = page.tables[0]
    assert head == ["", "layer", "arrays", "parameters"]
    assert rows == [
        ["0", "Dense(2, 3, 'tanh')", "weights (2, 3), bias (1, 3)", "9"],
        ["1", "LayerNorm(3)", "scale (1, 3), bias (1, 3)", "6"],
        ["2", "Residual(Dense(3, 3))", "layers[0].weights (3, 3), layers[0].bias (1, 3)", "12"],
        ["3", "Dense(3, 1)", "weights (3, 1), bias (1, 1)", "4"],
        ["", "", "", "31"],
    ]
    assert page.text.startswith("Network of 31 parameters; loss 'huber', l2 0.25")


def test_names_of_a_users_layer_are_escaped() -> None:
    class Layer:
        names = ("<script>alert(1)</script>",)
        shapes = ((2,),)

        def initialize(self, generator: Any) -> Any:
            return (np.zeros(2),)

        def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
            return x, None

        def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
            return g, parameters

        def __repr__(self) -> str:
            return '<b onclick="x()">&'

    page = page_of(bx.Network([Layer()], "huber"))
    assert page.tables[0][1] == [
        "0",
        '<b onclick="x()">&',
        "<script>alert(1)</script> (2,)",
        "2",
    ]
    assert not {"script", "b"} & set(page.tags)


def test_a_result_has_its_last_and_best_losses_and_a_curve_of_each(xp: Any) -> None:
    history = {
        "loss": np.asarray([4.0, 1.0, 2.0]),
        "accuracy": np.asarray([0.5, 0.75, 0.25]),
        "validation_loss": np.asarray([5.0, 3.0, 2.5]),
        "gradient_error": np.asarray([1e-9]),
        "gradient_verdict": np.asarray(["pass"]),
    }
    page = page_of(result(history, 12, xp.asarray([1.0, 2.0, 3.0])))
    assert page.tables[0] == [
        ["", "last", "best", "at epoch"],
        ["loss", "2", "1", "11"],
        ["accuracy", "0.25", "", ""],
        ["validation_loss", "2.5", "2.5", "12"],
    ]
    assert page.text.startswith(f"FitResult of 12 epochs; theta <{xp.dtype} (3,)>")
    assert "loss (solid), validation_loss (dashed), epochs 10 to 12" in page.text
    assert "logarithmic" not in page.text
    assert "diverged" not in page.text
    assert len(page.paths) == 2


def test_a_stack_has_medians_and_the_best_of_all_its_networks() -> None:
    losses = np.asarray([[[9.0, 8.0], [7.0, 6.0]], [[5.0, 0.5], [3.0, np.nan]]])
    page = page_of(result({"loss": losses}, 2, np.ones((2, 2, 3))))
    assert page.tables[0] == [
        ["", "last, median", "best", "at epoch", "network"],
        ["loss", "3", "0.5", "2", "[0, 1]"],
    ]
    assert "of 2 epochs, 4 networks; theta <float64 (2, 2, 3)>" in page.text
    assert "1 of 4 networks diverged" in page.text
    assert "medians" in page.text


@pytest.mark.filterwarnings("error")
def test_a_training_with_nan_is_marked_and_its_curve_ends() -> None:
    page = page_of(result({"loss": np.asarray([2.0, 1.0, np.nan, 3.0, np.inf])}, 5))
    assert page.tables[0][1] == ["loss", "nan", "1", "2"]
    assert "The network diverged: the last loss is not finite." in page.text
    assert re.sub(r"[\d. ]+", "", page.paths[0]) == "MhLMh"
    nothing = page_of(result({"loss": np.full(3, np.nan)}, 3))
    assert nothing.tables[0][1] == ["loss", "nan", "", ""]
    assert "svg" not in nothing.tags


def test_a_result_of_no_epochs_has_no_table() -> None:
    page = page_of(result({"loss": np.empty((0,))}, 4))
    assert page.text == "FitResult of 4 epochs; theta <float64 (3,)>"
    assert page.tables == []


def test_a_fit_result_has_a_page(xp: Any) -> None:
    theta = xp.initialize(LINE, stack=2)
    rows = {"validation": (X, Y), "metrics": {"rmse": bx.metrics.rmse}}
    fitted = bx.fit(LINE, theta, X, Y, optimizer=bx.SGD(0.1), epochs=3, **rows)
    page = page_of(fitted)
    assert [row[0] for row in page.tables[0]] == ["", *fitted.history]
    last = {row[0]: row[1] for row in page.tables[0][1:]}
    for name, values in fitted.history.items():
        assert last[name] == f"{np.median(values[-1]):.6g}"


def points_of(path: str) -> np.ndarray:
    return np.asarray([[float(v) for v in p.split()] for p in re.findall(r"[\d.]+ [\d.]+", path)])


@pytest.mark.parametrize(("losses", "is_log"), [([8.0, 4.0, 2.0], False), ([8.0, 0.8, 0.08], True)])
def test_a_curve_fills_its_axes(losses: list[float], is_log: bool) -> None:
    text = sparkline({"loss": np.asarray(losses)[:, None]}, 3)
    points = points_of(Page(text).paths[0])
    np.testing.assert_allclose(points[[0, -1]], [[3.0, 3.0], [277.0, 61.0]])
    middle = 0.5 if is_log else (4.0 - 2.0) / (8.0 - 2.0)
    np.testing.assert_allclose(points[1], [140.0, 61.0 - 58.0 * middle], atol=0.05)
    assert ("logarithmic" in text) is is_log


def test_a_long_curve_is_thinned_and_constant_losses_are_a_line() -> None:
    points = points_of(Page(sparkline({"loss": np.ones((5000, 1))}, 5000)).paths[0])
    assert 100 < len(points) <= 140
    np.testing.assert_allclose(points[[0, -1], 0], [3.0, 277.0])
    assert len(set(points[:, 1])) == 1


def test_a_failed_check_shows_its_verdict_then_why_and_the_worst_entries() -> None:
    failed = report(factor=1.5)
    page = page_of(failed)
    assert page.text.startswith("gradient check: fail (largest relative error 5.0e-01")
    assert failed.diagnosis is not None
    assert f"diagnosis: {failed.diagnosis}" in page.text
    worst, tensors = page.tables
    assert [row[0] for row in worst[1:]] == [row.name for row in failed.worst]
    assert worst[1][1:3] == [
        f"{v:.8g}" for v in (failed.worst[0].analytic, failed.worst[0].numeric)
    ]
    assert "<w>" in worst[1][0]
    assert [row[0] for row in tensors] == ["tensor", "['<w>']", "['b']"]
    assert "details" not in page.tags


def test_a_passed_check_has_folded_tables() -> None:
    page = page_of(report(factor=3.0))
    assert page.text.startswith("gradient check: pass (largest relative error")
    assert page.tags.count("details") == len(page.tables) == 2
    taylor = report(factor=3.0, method="taylor")
    (remainders,) = page_of(taylor).tables
    assert [row[0] for row in remainders[1:]] == [f"{step:.1e}" for step in taylor.taylor.steps]
    assert remainders[2][-1] == f"{taylor.taylor_orders[0]:.2f}"


# Reprs


def lines_of(thing: Any) -> list[str]:
    """Return the lines of a repr, which a transfer guard allows."""
    with bx.transfer_guard("disallow"):
        return repr(thing).splitlines()


def test_a_result_of_many_networks_prints_shapes_and_the_best_network() -> None:
    losses = np.random.default_rng(0).uniform(1.0, 2.0, (40, 500))
    losses[30, 17], losses[-1, 3] = 0.5, np.inf
    history = {"loss": losses, "accuracy": np.full((40, 500), 0.75)}
    assert lines_of(result(history, 40, np.ones((500, 41)))) == [
        "FitResult of 40 epochs, 500 networks; theta <float64 (500, 41)>",
        "          last, median  best  at epoch  network",
        f"loss      {np.median(np.delete(losses[-1], 3)):12.6g}   0.5        31     [17]",
        "accuracy          0.75",
        "1 of 500 networks diverged: the last loss is not finite.",
    ]


def test_no_repr_is_longer_than_twelve_lines(tmp_path: Any) -> None:
    history = {f"{i} loss": np.full((3, 2), np.nan) for i in range(30)}
    long = result(history, 3, np.ones((2, 9)))
    state = long.state._replace(history=history)
    network = bx.mlp([2, *[2] * 500, 1])
    theta = np.ones(network.size)
    rates = np.full((2, 1), 0.1)
    checkpoint = Checkpoint(
        network,
        theta,
        bx.Adam(bx.schedules.chain([rates] * 60, list(range(1, 60)))),
        state,
        preparation=dict.fromkeys(map(str, range(500)), theta),
        metadata={"a": [1.0] * 1000},
        options={"epochs": 3},
    )
    for thing in (long, state, checkpoint):
        lines = lines_of(thing)
        assert len(lines) <= 12
        assert max(map(len, lines)) <= 100
        assert "and " in "".join(lines)
        Page(thing._repr_html_())


def test_a_state_shows_its_losses_by_one_transfer_or_by_copies_begun_together(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theta = xp.initialize(LINE, stack=3)
    options: dict[str, Any] = {"metrics": {"rmse": bx.metrics.rmse}, "validation": (X, Y)}
    options["early_stopping"] = bx.EarlyStopping(watch="rmse")
    (_, state) = bx.train(LINE, theta, X, Y, optimizer=bx.Adam(0.1), epochs=2, **options)
    moves: list[Any] = []
    kind = type(xp.selection.backend)
    to_host = kind.to_host
    monkeypatch.setattr(kind, "to_host", lambda *a: (moves.append(a[-1]), to_host(*a))[1])
    first, head, *rows = lines_of(state)
    # JAX would compile the joining of the arrays: it begins all copies before it waits for one.
    assert [move.shape for move in moves] == ([(3,)] * 3 if xp.name == "jax" else [(9,)])
    assert first == f"TrainingState of 2 epochs, 3 networks; theta <{xp.dtype} (3, 3)>"
    assert head.split() == ["last,", "median", "best", "at", "epoch", "network"]
    losses = xp.host(state.loss)
    best = f"{losses.min():.6g} 2 [{losses.argmin()}]".split()
    assert rows[0].split() == ["loss", f"{np.median(losses):.6g}", *best]
    assert [row.split()[0] for row in rows] == ["loss", "validation_loss", "rmse", "best"]
    assert rows[3].split()[:2] == ["best", "rmse"]
    assert page_of(state).tables[0][1][0] == "loss"
    moves.clear()
    fitted = bx.fit(LINE, theta, X, Y, optimizer=bx.Adam(0.1), epochs=2, **options)
    moves.clear()
    assert lines_of(fitted.state)[1:] == lines_of(fitted)[1:]
    assert not moves


def test_a_state_before_the_first_epoch_and_one_of_one_network_print() -> None:
    state = bx.TrainingState(0, 0, np.ones(3), ())
    assert lines_of(state) == ["TrainingState of 0 epochs; theta <float64 (3,)>"]
    later = state._replace(epoch=7, loss=np.asarray(0.25))
    # The only known loss, of the seventh epoch, need not be the best one.
    assert lines_of(later)[1:] == ["      last  best  at epoch", "loss  0.25"]


def test_a_checkpoint_prints_its_parts_and_the_losses_of_its_state() -> None:
    theta = np.ones(LINE.size)
    state = bx.TrainingState(2, 2, theta, (), history={"loss": np.asarray([2.0, 1.0])})
    whole = Checkpoint(LINE, theta, bx.Adam(0.1), state, metadata={"by": 1, "of": 2})
    assert lines_of(whole) == [
        "Checkpoint of a network with 3 parameters; theta <float64 (3,)>",
        "      last  best  at epoch",
        "loss     1     1         2",
        "optimizer Adam(0.1)",
        "metadata by, of",
        "TrainingState of 2 epochs; theta <float64 (3,)>",
    ]
    page = page_of(whole)
    assert page.tables[0][1] == ["loss", "1", "1", "2"]
    assert "optimizer Adam(0.1)" in page.text
    assert "svg" in page.tags
    assert lines_of(Checkpoint(LINE, theta)) == lines_of(whole)[:1]
