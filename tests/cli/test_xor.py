"""The command ``xor``: the tutorial on the environment's backend, and its output.

Specifies ``xor_experiment``.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.cli import xor_experiment
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from tests.commands import NOWHERE, STRICT, run

# Two runs of a small float32 network agree to about 1e-6; printed numbers have 7 digits.
PRINTED = 1e-4
# Learns XOR from the default seed in few epochs: JAX and strict need 1 to 2 ms for each.
FAST = ("--learning-rate", "8", "--epochs", "600")
DIVERGE = ("--epochs", "20", "--learning-rate", "1e300", "--loss", "poisson")
ENTROPY = ("--loss", "binary_cross_entropy")
TARGETS = [0, 1, 1, 0]


def xor(*arguments: str, **environment: str) -> str:
    result = run("xor", *arguments, **environment)
    assert result.exit_code == 0, result.output
    return str(result.output)


def predictions(output: str) -> np.ndarray:
    block = output.split("predictions\n")[1].splitlines()[1:5]
    return np.array([float(line.split()[-1]) for line in block])


def gradients(output: str) -> np.ndarray:
    """Return the printed analytic and numeric entries, in theta's order, as two rows."""
    block = output.split("gradient at the initial theta")[1].split("gradient check")[0]
    rows = re.findall(r"^[-+.e0-9 ]*\d[-+.e0-9 ]*$", block, re.M)
    halves = [np.reshape([float(word) for word in row.split()], (2, -1)) for row in rows]
    return np.concatenate(halves, axis=1)


def test_the_default_run_learns_xor_and_its_gradient_check_passes() -> None:
    output = xor(**NOWHERE)
    assert np.abs(predictions(output) - TARGETS).max() < 0.05
    assert "solved: all four" in output
    assert "gradient check: pass" in output
    lines = output.split("training:")[1].split("\n\n")[0].splitlines()[2:]
    assert [int(line.split()[0]) for line in lines] == list(range(0, 10_001, 1000))


@pytest.mark.long
def test_the_tutorial_runs_on_the_environments_device_and_a_seed_repeats_it(xp: Any) -> None:
    output, where = xor(*FAST), xp.selection
    first = output.splitlines()[0]
    assert first.startswith(f"XOR on {xp.name} ({where.backend.device_name(where.device)}, ")
    assert str(where.dtype).rpartition(".")[2].strip("'>") in first
    assert np.abs(predictions(output) - TARGETS).max() < 0.5
    for name, shape in (("x", "(4, 2)"), ("y", "(4, 1)"), ("theta", "(9,)")):
        assert re.search(rf"^  {name} +{re.escape(shape)}$", output, re.M)
    network = xor_experiment.xor_network([2, 2, 1], loss="mean_squared_error", hidden="sigmoid")
    assert all(line in output for line in network.describe().splitlines())
    assert xor(*FAST) == output


def test_an_option_chooses_the_backend() -> None:
    output = xor(*STRICT, "--epochs", "2", **NOWHERE)
    assert output.startswith("XOR on array-api-strict (CPU_DEVICE, float64), chosen by --backend\n")


@pytest.mark.once
def test_the_printed_gradient_is_that_of_the_first_theta_rows_and_columns(
    xp: Any,
) -> None:
    network = xor_experiment.xor_network([2, 3, 2, 1], loss="mean_squared_error", hidden="sigmoid")
    theta = network.initialize(5)
    x, y = bx.asarray(xor_experiment.INPUTS), bx.asarray(xor_experiment.TARGETS)
    expected = xp.host(network.loss_and_gradient(theta, x, y)[1])
    analytic, numeric = gradients(xor("--epochs", "1", "--sizes", "2 3 2 1", "--seed", "5"))
    np.testing.assert_allclose(analytic, expected, rtol=PRINTED, atol=1e-7)
    np.testing.assert_allclose(numeric, expected, rtol=0.01, atol=PRINTED)
    wide = xor("--epochs", "1", "--sizes", "2,50,1")
    assert "(the first 4 rows and columns; all are checked)" in wide
    assert max(map(len, wide.splitlines())) < 140


@pytest.mark.once
@pytest.mark.parametrize(
    "loss", sorted(set(LOSSES) - {"categorical_cross_entropy", "gaussian_nll"})
)
def test_every_allowed_loss_has_its_output_activation_and_passes_its_check(
    xp: Any, loss: str
) -> None:
    output = xor("--epochs", "3", "--loss", loss, "--hidden", "gelu")
    linked = loss in ("binary_cross_entropy", "poisson", "hinge")
    assert f"hidden gelu, output {'identity' if linked else 'sigmoid'}" in output
    assert f"learning rate {xor_experiment.LEARNING_RATES[loss]:g}" in output
    assert "gradient check: pass" in output
    assert ("2/m" in output) == (loss == "mean_squared_error")


# The options, strings in the output, and strings that are absent.
OUTCOMES: list[tuple[tuple[str, ...], list[str], list[str]]] = [
    (("--epochs", "5"), ["not solved: ", "--restarts 64", "--loss binary"], ["solved: all four"]),
    (("--epochs", "5", *ENTROPY), ["not solved: ", "--restarts 64"], ["--loss binary"]),
    (DIVERGE, ["diverged"], ["solved"]),
    (
        ("--restarts", "3", "--epochs", "2"),
        ["0 of 3 starts solved", "3 are on a plateau", "0 diverged", "not solved"],
        ["epochs until solved", "--restarts"],
    ),
    (("--restarts", "2", *DIVERGE), ["0 are on a plateau", "2 diverged"], ["not solved"]),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "present", "absent"), OUTCOMES, ids=[" ".join(o[0]) for o in OUTCOMES]
)
def test_a_run_that_does_not_learn_reports_it(
    xp: Any, words: tuple[str, ...], present: list[str], absent: list[str]
) -> None:
    output = xor(*words)
    assert [text for text in present if text not in output] == []
    assert [text for text in absent if text in output] == []


@pytest.mark.long
def test_restarts_are_counted_and_the_best_is_shown(xp: Any) -> None:
    output = xor("--restarts", "6", *FAST)
    assert "(6, 9)" in output
    counted = re.search(r"restarts: (\d) of 6 starts solved XOR", output)
    assert counted
    assert int(counted[1]) >= 1
    assert re.search(r"epochs until solved: median \d+(\.5)?, from \d+ to \d+ \(measured", output)
    assert np.abs(predictions(output) - TARGETS).max() < 0.5
    assert "gradient check: pass" in output


@pytest.mark.long
def test_a_wrong_gradient_fails_and_sets_the_exit_status(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tanh = bx.activations.tanh
    wrong = bx.Activation(tanh.value, lambda g, z, a: 2.0 * tanh.vjp(g, z, a), from_output=True)
    monkeypatch.setitem(ACTIVATIONS, "wrong", wrong)
    result = run("xor", "--epochs", "3", "--hidden", "wrong")
    assert result.exit_code == 1
    assert "gradient check: fail" in result.output
    assert "layers[0].weights[" in result.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "name", "begins"),
    [(("--epochs", "3", "--restarts", "2"), "a.PDF", b"%PDF"), (DIVERGE, "b.png", b"\x89PNG")],
)
def test_plot_draws_a_diverged_run_too(
    xp: Any, tmp_path: Path, words: tuple[str, ...], name: str, begins: bytes
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / name
    assert f"plot written to {path}" in xor(*words, "--plot", str(path))
    assert path.read_bytes().startswith(begins)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


# The experiment itself


def experiment(**options: Any) -> xor_experiment.Experiment:
    given = {"loss": "mean_squared_error", "hidden": "sigmoid", "learning_rate": 8.0, "seed": 0}
    return xor_experiment.prepare([2, 2, 1], **{**given, "epochs": 600, "restarts": 1, **options})


def test_the_first_restart_is_the_run_without_restarts(xp: Any) -> None:
    alone = list(xor_experiment.learn(experiment(epochs=30)))
    stacked = list(xor_experiment.learn(experiment(epochs=30, restarts=3)))
    assert [one.epoch for one in stacked] == [one.epoch for one in alone] == list(range(31))
    for one, many in zip(alone, stacked, strict=True):
        np.testing.assert_allclose(xp.host(many.loss)[0], xp.host(one.loss), rtol=1e-5)


@pytest.mark.long
def test_solved_since_is_the_start_of_the_measurements_with_all_four_right(xp: Any) -> None:
    prepared, right = experiment(restarts=4), []
    for measured in xor_experiment.learn(prepared):
        predicted = xp.host(prepared.network.predict(measured.theta, prepared.x))
        error = predicted - xor_experiment.TARGETS
        right.append(np.abs(error).max(axis=(-1, -2)) < 0.5)
    since = xp.host(measured.solved_since)
    assert np.isfinite(since).any()
    for epoch, history in zip(since, np.transpose(right), strict=True):
        wrong = np.flatnonzero(~history)
        assert epoch == (np.inf if not history[-1] else wrong[-1] + 1)
    # A network that gets XOR wrong again has not solved it.
    theta, found = measured.theta, measured.solved_since
    strayed = xor_experiment._solved_since(prepared, 0.0 * theta, 700, found)
    assert not np.isfinite(xp.host(strayed)).any()
    again = xp.host(xor_experiment._solved_since(prepared, theta, 800, strayed))
    np.testing.assert_array_equal(again, np.where(np.isfinite(since), 800.0, np.inf))


def test_the_best_restart_has_the_least_loss_of_those_that_solve_xor(xp: Any) -> None:
    prepared = experiment(restarts=4)
    losses, since = [np.nan, 0.1, 0.3, 0.2], [np.inf, np.inf, 5.0, 9.0]
    start = prepared.start
    last = xor_experiment.Measurement(600, 2.0 * start, xp.asarray(losses), xp.asarray(since))
    result = xor_experiment.outcome(prepared, last)
    assert result.best == 3
    assert (xp.host(result.start) == xp.host(start)[3]).all()
    assert (xp.host(result.theta) == 2.0 * xp.host(start)[3]).all()
    none = last._replace(solved_since=xp.asarray([np.inf] * 4))
    assert xor_experiment.outcome(prepared, none).best == 1


@pytest.mark.long
def test_the_last_epoch_is_measured_whatever_the_interval(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xor_experiment, "_MEASUREMENTS", 4)
    found = xor_experiment.learn(experiment(epochs=11))
    assert [measured.epoch for measured in found] == [0, 2, 4, 6, 8, 10, 11]
