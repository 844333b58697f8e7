"""The command line, on the environment's backend; a real process where one matters."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.losses import LOSSES

pytest.importorskip("typer")

from typer.testing import CliRunner

from backprop_xp import cli, tutorial

PACKAGE_FOLDER = Path(bx.__file__).parent.parent

# A small float32 network agrees with itself to about 1e-6; what is printed has 7 digits.
PRINTED = 1e-4

# Learns XOR from the default seed in few epochs: JAX and array-api-strict take 1 to 2 ms for each.
FAST = ("--learning-rate", "8", "--epochs", "600")


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(
        cli.app, list(arguments), env=environment, prog_name="backprop-xp", color=False
    )


def xor(*arguments: str, **environment: str) -> str:
    result = run("xor", *arguments, **environment)
    assert result.exit_code == 0, result.output
    return str(result.output)


def start_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER), **environment},
        check=False,
    )


def predictions(output: str) -> list[float]:
    block = output.split("predictions\n")[1].splitlines()[1:5]
    return [float(line.split()[-1]) for line in block]


def costs(output: str) -> list[tuple[int, float]]:
    block = output.split("training:")[1].split("\n\n")[0].splitlines()[2:]
    return [(int(line.split()[0]), float(line.split()[1])) for line in block]


def gradients(output: str) -> tuple[list[float], list[float]]:
    """Return the printed analytic and numeric entries, in theta's order."""
    analytic: list[float] = []
    numeric: list[float] = []
    block = output.split("gradient at the starting theta")[1].split("gradient check")[0]
    for line in block.splitlines():
        if re.fullmatch(r"[-+.e0-9 ]+", line) and line.strip():
            numbers = [float(word) for word in line.split()]
            half = len(numbers) // 2
            analytic += numbers[:half]
            numeric += numbers[half:]
    return analytic, numeric


def test_the_default_run_learns_xor_and_proves_the_gradient() -> None:
    numpy = {"BACKPROP_XP_BACKEND": "numpy", "BACKPROP_XP_DEVICE": "", "BACKPROP_XP_DTYPE": ""}
    output = xor(**numpy)
    assert np.abs(np.array(predictions(output)) - [0, 1, 1, 0]).max() < 0.05
    assert "solved: all four" in output
    assert "gradient check: pass" in output
    assert [epoch for epoch, _ in costs(output)] == list(range(0, 10_001, 1000))


def test_the_tutorial_runs_where_the_environment_says(xp: Any) -> None:
    output = xor(*FAST)
    where = xp.selection
    assert output.startswith(
        f"XOR on {where.backend.name} ({where.backend.device_name(where.device)}, "
    )
    assert str(where.dtype).rpartition(".")[2].strip("'>") in output.splitlines()[0]
    assert np.abs(np.array(predictions(output)) - [0, 1, 1, 0]).max() < 0.5
    for name, shape in (("x", "(4, 2)"), ("y", "(4, 1)"), ("theta", "(9,)")):
        assert re.search(rf"^  {name} +{re.escape(shape)}$", output, re.M)
    network = tutorial.xor_network([2, 2, 1], loss="mean_squared_error", hidden="sigmoid")
    for line in network.describe().splitlines():
        assert line in output


def test_the_printed_gradient_is_the_one_of_the_start(xp: Any) -> None:
    analytic, numeric = gradients(xor("--epochs", "1", "--sizes", "2 3 2 1", "--seed", "5"))
    network = tutorial.xor_network([2, 3, 2, 1], loss="mean_squared_error", hidden="sigmoid")
    theta = network.initialize(5)
    x, y = bx.asarray(tutorial.INPUTS), bx.asarray(tutorial.TARGETS)
    expected = xp.host(network.loss_and_gradient(theta, x, y)[1])
    assert len(analytic) == network.size
    np.testing.assert_allclose(analytic, expected, rtol=PRINTED, atol=1e-7)
    np.testing.assert_allclose(numeric, expected, rtol=0.01, atol=PRINTED)


def test_a_wide_matrix_is_abridged(xp: Any) -> None:
    output = xor("--epochs", "1", "--sizes", "2,50,1")
    assert "(the first 4 rows and columns; all are checked)" in output
    assert max(map(len, output.splitlines())) < 140


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"categorical_cross_entropy"}))
def test_every_loss_that_fits_has_its_output_and_passes_its_check(xp: Any, loss: str) -> None:
    output = xor("--epochs", "3", "--loss", loss)
    linked = loss in ("binary_cross_entropy", "poisson")
    assert f"hidden sigmoid, output {'identity' if linked else 'sigmoid'}" in output
    assert f"learning rate {tutorial.LEARNING_RATES[loss]:g}" in output
    assert "gradient check: pass" in output
    assert ("2/m" in output) == (loss == "mean_squared_error")


@pytest.mark.parametrize("hidden", ["relu", "gelu", "softmax"])
def test_other_hidden_activations_pass_their_check(xp: Any, hidden: str) -> None:
    assert "gradient check: pass" in xor("--epochs", "3", "--hidden", hidden)


def test_a_seed_gives_the_same_run_and_another_seed_another(xp: Any) -> None:
    one, again, other = (xor("--epochs", "5", "--seed", seed) for seed in ("3", "3", "4"))
    assert one == again
    assert costs(one) != costs(other)


def test_a_run_that_gets_stuck_says_so(xp: Any) -> None:
    output = xor("--epochs", "5")
    assert "not solved: " in output
    assert "solved: all four" not in output
    assert "--restarts 64" in output
    assert "--loss binary_cross_entropy" in output
    assert "--loss binary" not in xor("--epochs", "5", "--loss", "binary_cross_entropy")


def test_a_run_that_diverges_says_so(xp: Any) -> None:
    output = xor("--epochs", "20", "--learning-rate", "1e30", "--loss", "poisson")
    assert "diverged" in output
    assert "not solved" not in output


def test_restarts_are_counted_and_the_best_is_shown(xp: Any) -> None:
    output = xor("--restarts", "6", *FAST)
    assert "(6, 9)" in output
    counted = re.search(r"restarts: (\d) of 6 starts solved XOR", output)
    assert counted
    assert int(counted[1]) >= 1
    assert re.search(r"epochs until solved: median \d+(\.5)?, from \d+ to \d+ \(looked", output)
    assert np.abs(np.array(predictions(output)) - [0, 1, 1, 0]).max() < 0.5
    assert "gradient check: pass" in output


def test_no_restart_that_solves_is_no_error(xp: Any) -> None:
    output = xor("--restarts", "3", "--epochs", "2")
    assert "0 of 3 starts solved" in output
    assert "epochs until solved" not in output
    assert "not solved" in output
    assert "--restarts" not in output


def experiment(**options: Any) -> tutorial.Experiment:
    defaults: dict[str, Any] = {
        "loss": "mean_squared_error",
        "hidden": "sigmoid",
        "learning_rate": 8.0,
        "epochs": 600,
        "seed": 0,
        "restarts": 1,
    }
    return tutorial.prepare([2, 2, 1], **{**defaults, **options})


def test_the_first_restart_is_the_run_without_restarts(xp: Any) -> None:
    alone = list(tutorial.learn(experiment(epochs=30)))
    stacked = list(tutorial.learn(experiment(epochs=30, restarts=3)))
    assert [look.epoch for look in stacked] == [look.epoch for look in alone] == list(range(31))
    for one, many in zip(alone, stacked, strict=True):
        np.testing.assert_allclose(xp.host(many.loss)[0], xp.host(one.loss), rtol=1e-5)


def test_solved_since_is_the_first_look_from_which_on_all_four_are_right(xp: Any) -> None:
    given = experiment(epochs=600, restarts=4)
    right = []
    for look in tutorial.learn(given):
        error = xp.host(given.network.predict(look.theta, given.x)) - tutorial.TARGETS
        right.append(np.abs(error).max(axis=(-1, -2)) < 0.5)
    since = xp.host(look.solved_since)
    assert np.isfinite(since).any()
    for i, epoch in enumerate(since):
        history = [looks[i] for looks in right]
        if np.isfinite(epoch):
            assert all(history[int(epoch) :])
            assert not history[int(epoch) - 1]
        else:
            assert not history[-1]


def test_a_network_that_strays_again_has_not_solved_it(xp: Any) -> None:
    given = experiment(restarts=2)
    since = xp.host(list(tutorial.learn(given))[-1].solved_since)
    solved = int(np.flatnonzero(np.isfinite(since))[0])
    theta = list(tutorial.learn(given))[-1].theta[solved, ...]
    single = given._replace(start=theta, epochs=1)
    look = next(iter(tutorial.learn(single)))
    assert float(look.solved_since) == 0.0
    strayed = tutorial._solved_since(single, 0.0 * theta, 10, look.solved_since)
    assert float(strayed) == np.inf
    assert float(tutorial._solved_since(single, theta, 20, strayed)) == 20.0


def test_the_best_start_has_solved_it_before_it_has_the_least_loss(xp: Any) -> None:
    given = experiment(restarts=4)
    losses, since = [np.nan, 0.1, 0.3, 0.2], [np.inf, np.inf, 5.0, 9.0]
    last = tutorial.Look(600, 2.0 * given.start, xp.asarray(losses), xp.asarray(since))
    result = tutorial.outcome(given, last)
    assert result.best == 3
    assert (xp.host(result.start) == xp.host(given.start)[3]).all()
    assert (xp.host(result.theta) == 2.0 * xp.host(given.start)[3]).all()
    none = last._replace(solved_since=xp.asarray([np.inf] * 4))
    assert tutorial.outcome(given, none).best == 1


def test_the_last_epoch_is_looked_at_whatever_the_rhythm(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorial, "_LOOKS", 4)
    looks = tutorial.learn(experiment(epochs=11))
    assert [look.epoch for look in looks] == [0, 2, 4, 6, 8, 10, 11]


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


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PDF"])
def test_plot_writes_a_picture(xp: Any, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"xor{suffix}"
    assert f"plot written to {path}" in xor("--epochs", "3", "--restarts", "2", "--plot", str(path))
    begins = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".PDF": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begins)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_diverged_run_can_be_drawn(xp: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "nan.png"
    xor("--epochs", "9", "--learning-rate", "1e30", "--loss", "poisson", "--plot", str(path))
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("fault", [("--learning-rate", "nan"), ("--sizes", "3,2,1")])
def test_a_run_that_fails_leaves_the_old_picture_whole(
    xp: Any, tmp_path: Path, fault: tuple[str, str]
) -> None:
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    assert run("xor", "--plot", str(path), *fault).exit_code == 2
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "3,2,1"], "must start with 2 and end with 1"),
        (["--sizes", "2,2,2"], "must start with 2 and end with 1"),
        (["--sizes", "2"], "must start with 2 and end with 1"),
        (["--sizes", ""], "must start with 2 and end with 1"),
        (["--sizes", "2,two,1"], "no positive integer"),
        (["--sizes", "2,0,1"], "no positive integer"),
        (["--sizes", "2,-2,1"], "no positive integer"),
        (["--sizes", f"2,{'9' * 5000},1"], "no positive integer"),
        (["--loss", "hubert"], "Did you mean 'huber'?"),
        (["--loss", "categorical_cross_entropy"], "use binary_cross_entropy"),
        (["--hidden", "rellu"], "Did you mean 'relu'?"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "many"], "--epochs"),
        (["--restarts", "0"], "--restarts"),
        (["--seed", "-1"], "--seed"),
        (["--plot", "xor.gif"], "must end in .png, .svg, .pdf"),
        (["--plot", "xor"], "must end in .png, .svg, .pdf"),
        (["--plot", "no_such_folder/xor.png"], "no folder"),
        (["--lost", "huber"], "--lost"),
        (["--learning-rate", "nan"], "'--learning-rate': must be finite and >= 0, not nan."),
        (["--learning-rate", "-1"], "'--learning-rate': must be >= 0, not -1."),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--backend", "numpi"], "'--backend': 'numpi' is unknown. Did you mean 'numpy'?"),
        (["--sizes", "2,999999999,1"], "'--sizes': asks for 3,999,999,997 numbers at once"),
        (["--restarts", "99999999999"], "'--restarts': asks for 899,999,999,991 numbers"),
    ],
)
def test_a_bad_option_is_told_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    result = run("xor", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert re.fullmatch(r"error: [^\n]+\n", result.output)


def test_an_option_chooses_the_backend() -> None:
    output = xor("--backend", "array-api-strict", "--epochs", "2", BACKPROP_XP_BACKEND="numpy")
    assert output.startswith("XOR on array-api-strict (CPU_DEVICE, float64), chosen by --backend\n")
    assert bx.resolve(backend="numpy").backend.name == "numpy"


# Where the output goes


def in_a_shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash in which ``$COMMAND`` is the command, on NumPy."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BACKPROP_XP_")}
    here = {"PYTHONPATH": str(PACKAGE_FOLDER), "COMMAND": f"{sys.executable} -m backprop_xp"}
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, env={**kept, **here}, check=False
    )


XOR = "$COMMAND xor --backend numpy --epochs 20"


@pytest.mark.once
@pytest.mark.skipif(os.name == "nt", reason="it is about a Unix shell")
@pytest.mark.parametrize("reader", ["head -1", "true"])
@pytest.mark.parametrize("command", [XOR, "$COMMAND --version", f"{XOR} --help"])
def test_nothing_is_said_where_nobody_reads_on(command: str, reader: str) -> None:
    done = in_a_shell(f"{command} | {reader}")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) <= 1


@pytest.mark.once
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [XOR, "$COMMAND --version", "$COMMAND info --json"])
@pytest.mark.parametrize(("where", "reason"), [(">/dev/full", "space"), (">&-", "closed")])
def test_output_that_cannot_be_written_is_an_error_in_one_line(
    command: str, where: str, reason: str
) -> None:
    done = in_a_shell(f"{command} {where}")
    assert done.returncode == 1
    assert re.fullmatch(rf"error: [^\n]*{reason}[^\n]*\n", done.stderr), done.stderr


@pytest.mark.once
def test_help_and_texts_keep_to_the_columns_of_the_environment() -> None:
    for arguments in (("xor", "--help"), ("info",)):
        narrow, wide = (
            start_python("-m", "backprop_xp", *arguments, COLUMNS=columns).stdout.splitlines()
            for columns in ("40", "80")
        )
        # A word that is longer than the room beside the labels is not broken.
        assert [line for line in narrow if len(line) > 40 and len(line.split()[-1]) < 16] == []
        assert any(len(line) > 40 and len(line.split()[-1]) < 16 for line in wide)


def test_a_backend_that_cannot_be_had_is_an_error_in_one_line() -> None:
    for environment in ({"BACKPROP_XP_BACKEND": "numpi"}, {"BACKPROP_XP_DTYPE": "int32"}):
        done = start_python("-m", "backprop_xp", "xor", **environment)
        assert done.returncode == 1
        assert done.stdout == ""
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr)


def test_version_is_shown() -> None:
    for result in (run("--version"), start_python("-m", "backprop_xp", "--version")):
        assert f"backprop-xp {bx.__version__}\n" == result.stdout


def test_help_calls_the_program_by_its_name() -> None:
    done = start_python("-m", "backprop_xp", "xor", "--help")
    assert "Usage: backprop-xp xor" in done.stdout


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_install_it(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None;from backprop_xp.__main__ import main; main()"
    )
    done = start_python("-c", program)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert "pip install 'backprop_xp[cli]'" in done.stderr


def test_plot_without_matplotlib_says_how_to_install_it_before_training(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None;"
        f"sys.argv[1:] = ['xor', '--plot', {str(tmp_path / 'x.png')!r}];"
        "from backprop_xp.__main__ import main; main()"
    )
    done = start_python("-c", program)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*pip install 'backprop_xp\[plot\]'\n", done.stderr)


def test_the_command_imports_no_heavy_library_before_it_needs_it() -> None:
    heavy = {"matplotlib", "sklearn", "torch", "jax", "cupy"}
    program = f"import sys, backprop_xp.cli; print(sorted({heavy!r} & set(sys.modules)))"
    assert start_python("-c", program).stdout.strip() == "[]"


def test_output_to_a_pipe_is_plain_lines_even_where_colours_are_forced() -> None:
    forced = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "BACKPROP_XP_BACKEND": "numpy"}
    environment = {**forced, "BACKPROP_XP_DEVICE": "", "BACKPROP_XP_DTYPE": ""}
    done = start_python("-m", "backprop_xp", "xor", "--epochs", "200", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    wrong = start_python("-m", "backprop_xp", "xor", "--sizes", "9", **environment)
    assert "\x1b" not in wrong.stdout + wrong.stderr


def test_a_terminal_shows_progress_and_the_same_lines() -> None:
    pty = pytest.importorskip("pty")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "BACKPROP_XP_BACKEND": "numpy"}
    environment |= {"BACKPROP_XP_DEVICE": "", "BACKPROP_XP_DTYPE": ""}
    environment |= {"PYTHONPATH": str(PACKAGE_FOLDER)}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "backprop_xp", "xor", "--epochs", "2000"]
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "\x1b[" in text
    assert "100%" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)
    for line in ("     2000    0.00942946", "gradient check: pass", "solved: all four"):
        assert line in plain


def test_a_reader_that_leaves_early_ends_it_quietly() -> None:
    command = f"{sys.executable} -m backprop_xp xor --epochs 100 | head -n 1"
    environment = {**os.environ, "BACKPROP_XP_BACKEND": "numpy", "BACKPROP_XP_DEVICE": ""}
    environment |= {"BACKPROP_XP_DTYPE": "", "PYTHONPATH": str(PACKAGE_FOLDER)}
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.startswith("XOR on numpy")
    assert done.stderr == ""
