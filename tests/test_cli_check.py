"""The command ``check``; a real process where other libraries must be missing or not imported."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.backends import to_host
from backprop_xp.losses import LOSSES

pytest.importorskip("typer")

from typer.testing import CliRunner

from backprop_xp import cli
from backprop_xp.cli.comparison import Case, Difference, Finding, check_on, differences, draw

PACKAGE_FOLDER = Path(bx.__file__).parent.parent

# The environment chooses nothing: every backend where it would be without one.
NOWHERE = {"BACKPROP_XP_BACKEND": "", "BACKPROP_XP_DEVICE": "", "BACKPROP_XP_DTYPE": ""}

NUMPY = ("--backend", "numpy")
STRICT = ("--backend", "array-api-strict")

# The order of sums differs between backends; the gradients' entries are near 1.
ROUNDING = 1e-14


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(
        cli.app,
        ["check", *arguments],
        env={**NOWHERE, **environment},
        prog_name="backprop-xp",
        color=False,
    )


def passing(*arguments: str, **environment: str) -> str:
    result = run(*arguments, **environment)
    assert result.exit_code == 0, result.output
    return str(result.output)


def start(
    *arguments: str, without: tuple[str, ...] = (), then: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process where some libraries are not installed."""
    program = (
        "import sys; from importlib.machinery import PathFinder; find = PathFinder.find_spec\n"
        f"hide = lambda name, *rest: None if name in {without!r} else find(name, *rest)\n"
        "PathFinder.find_spec = hide\n"
        f"sys.argv[1:] = {['check', *arguments]!r}\n"
        "from backprop_xp.__main__ import main\n"
        f"try: main()\nfinally: {then or 'pass'}"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **NOWHERE, "PYTHONPATH": str(PACKAGE_FOLDER), **environment},
        check=False,
    )


def rows(output: str) -> dict[str, list[str]]:
    """Return the words of each backend's row, by the backend's name."""
    block = re.split(r"^backend .*\n", output, flags=re.M)[1].split("\n\n")[0]
    return {line.split()[0]: line.split()[1:] for line in block.splitlines()}


def wrong_rule(monkeypatch: pytest.MonkeyPatch, library: str = "") -> None:
    """Put tanh in the table as ``"wrong"``: its rule is twice the true one on some arrays."""
    tanh = bx.activations.tanh

    def vjp(g: Any, z: Any, a: Any) -> Any:
        factor = 2.0 if library in type(a).__module__ else 1.0
        return factor * tanh.vjp(g, z, a)

    monkeypatch.setitem(ACTIVATIONS, "wrong", bx.Activation(tanh.value, vjp, from_output=True))


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put tanh in the table as ``"watched"``; return the list of what it will be given."""
    tanh, given = bx.activations.tanh, []

    def value(z: Any) -> Any:
        given.append(z)
        return tanh.value(z)

    monkeypatch.setitem(ACTIVATIONS, "watched", bx.Activation(value, tanh.vjp, from_output=True))
    return given


def problem(loss: str = "mean_squared_error", seed: int = 0, **options: Any) -> Case:
    network = bx.mlp([4, 8, 3], loss=loss, **options)
    return draw(network, [4, 8, 3], loss, batch=50, seed=seed, method="auto")


def test_a_right_gradient_passes_and_the_backends_are_compared() -> None:
    output = passing(*NUMPY, *STRICT)
    for line in bx.mlp([4, 8, 3]).describe().splitlines():
        assert f"  {line}\n" in output
    found = rows(output)
    assert list(found) == ["numpy", "array-api-strict"]
    assert [words[0] for words in found.values()] == ["cpu", "CPU_DEVICE"]
    for words in found.values():
        assert words[1:4] == ["float64", "pass", "complex_step"]
        assert float(words[4]) <= float(words[5])
        assert int(words[6]) >= 67
        assert float(words[7]) < 60.0
    compared = re.search(r"^  float64  numpy and array-api-strict +(\S+)$", output, re.M)
    assert compared
    assert float(compared[1]) < ROUNDING
    assert "gradient check:" not in output
    assert max(map(len, output.splitlines())) < 120


def test_the_environments_backend_passes_where_it_is_placed(xp: Any) -> None:
    names = ("BACKEND", "DEVICE", "DTYPE")
    given = {f"BACKPROP_XP_{name}": os.environ.get(f"BACKPROP_XP_{name}", "") for name in names}
    words = rows(passing("--backend", xp.name, **given))[xp.name]
    assert words[0] == xp.selection.backend.device_name(xp.selection.device)
    assert words[1] in str(xp.selection.dtype)
    assert words[2] == "pass"


def test_a_device_of_the_environment_is_for_its_backend_alone() -> None:
    strict = {"BACKPROP_XP_BACKEND": "array-api-strict", "BACKPROP_XP_DEVICE": "device1"}
    found = rows(passing(*NUMPY, *STRICT, **strict))
    assert [words[0] for words in found.values()] == ["cpu", "device1"]


def test_the_backend_asked_for_is_run_and_no_other_library_is_imported() -> None:
    others = {"array_api_strict", "cupy", "jax", "torch"}
    done = start(*NUMPY, then=f"print(); print(sorted({others!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")
    assert list(rows(done.stdout)) == ["numpy"]
    assert "largest difference" not in done.stdout


def test_a_backend_named_twice_is_checked_once() -> None:
    assert passing(*NUMPY, *NUMPY).count("complex_step") == 1


def test_by_default_all_are_checked_and_one_that_cannot_run_is_told_but_no_failure() -> None:
    done = start(without=("cupy", "jax", "torch"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(done.stdout)
    assert list(found) == [row.name for row in bx.list_backends()]
    assert found["numpy"][2] == found["array-api-strict"][2] == "pass"
    assert re.search(r"^cupy +not usable: CuPy is not installed\. Try: pip ", done.stdout, re.M)
    assert re.search(r"^jax +not usable: JAX is not installed\. Try: pip ", done.stdout, re.M)
    assert re.search(r"^torch +not usable: PyTorch is not installed\. Try: pip", done.stdout, re.M)


def test_a_backend_asked_for_that_cannot_run_is_a_failure_and_the_others_are_run() -> None:
    done = start("--backend", "cupy", *NUMPY, without=("cupy", "jax", "torch"))
    assert done.returncode == 1
    assert done.stderr == ""
    assert re.search(r"^cupy +not usable: CuPy is not installed\. Try: pip ", done.stdout, re.M)
    assert rows(done.stdout)["numpy"][2] == "pass"


def test_a_dtype_that_a_backend_lacks_is_told_and_a_failure_only_if_it_was_asked_for() -> None:
    pytest.importorskip("jax")
    asked = start("--dtype", "float64", "--backend", "jax", JAX_ENABLE_X64="0")
    unasked = start("--dtype", "float64", without=("cupy", "torch"), JAX_ENABLE_X64="0")
    assert (asked.returncode, unasked.returncode) == (1, 0), asked.stderr + unasked.stderr
    for done in (asked, unasked):
        told = r"^jax +cpu:0 +float64 +not checked: .*JAX keeps no float64.*JAX_ENABLE_X64=1"
        assert re.search(told, done.stdout, re.M)
    assert rows(unasked.stdout)["numpy"][1:3] == ["float64", "pass"]


def test_a_wrong_gradient_fails_with_its_report_on_every_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong_rule(monkeypatch)
    result = run("--hidden", "wrong", *NUMPY, *STRICT)
    assert result.exit_code == 1
    assert [words[2] for words in rows(result.output).values()] == ["fail", "fail"]
    reports = result.output.split("largest difference")[1].split("\n\n")[1:]
    assert [report.splitlines()[0] for report in reports] == [
        "numpy, float64",
        "array-api-strict, float64",
    ]
    for report in reports:
        assert "gradient check: fail" in report
        assert "layers[0].weights[" in report


def test_a_backend_that_alone_is_wrong_is_told_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong_rule(monkeypatch, "array_api_strict")
    result = run("--hidden", "wrong", *NUMPY, *STRICT)
    assert result.exit_code == 1
    assert [words[2] for words in rows(result.output).values()] == ["pass", "fail"]
    compared = re.search(r"numpy and array-api-strict +(\S+)$", result.output, re.M)
    assert compared
    assert float(compared[1]) > 0.01
    assert result.output.count("gradient check:") == 1


def test_a_backend_that_raises_is_an_error_in_one_line_and_the_others_are_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class LibrarysOwnError(Exception):
        pass

    def value(z: Any) -> Any:
        if "array_api_strict" in type(z).__module__:
            raise LibrarysOwnError("no such\nkernel")
        return z

    broken = bx.Activation(value, lambda g, z, a: g, from_output=True)
    monkeypatch.setitem(ACTIVATIONS, "broken", broken)
    result = run("--hidden", "broken", *STRICT, *NUMPY)
    assert result.exit_code == 1
    told = r"^array-api-strict +CPU_DEVICE +float64 +error: LibrarysOwnError: no such kernel$"
    assert re.search(told, result.output, re.M)
    assert rows(result.output)["numpy"][2] == "pass"
    assert "largest difference" not in result.output


def test_a_device_that_is_unknown_is_an_error_of_its_backend() -> None:
    result = run(*NUMPY, *STRICT, BACKPROP_XP_BACKEND="numpy", BACKPROP_XP_DEVICE="gpu7")
    assert result.exit_code == 1
    assert re.search(r"^numpy +error: ValueError: device 'gpu7' is none", result.output, re.M)
    assert rows(result.output)["array-api-strict"][2] == "pass"


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_passes(loss: str) -> None:
    assert f"loss {loss}," in passing("--loss", loss, *NUMPY)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_passes_wherever_it_stands(name: str) -> None:
    output = passing("--hidden", name, "--output", name, *NUMPY)
    assert f"hidden {name}, output {name}" in output


def test_output_is_the_last_layers_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_rule(monkeypatch)
    result = run("--output", "wrong", *NUMPY)
    assert result.exit_code == 1
    assert "layers[1].weights[" in result.output


def test_sizes_layer_norm_dropout_and_l2_make_the_network() -> None:
    options = ("--sizes", "3 6,2", "--layer-norm", "--dropout", "0.25", "--l2", "0.5")
    output = passing(*options, *NUMPY)
    expected = bx.mlp([3, 6, 2], layer_norm=True, dropout=0.25)
    for line in expected.describe().splitlines():
        assert f"  {line}\n" in output
    assert "network 3-6-2," in output
    assert "l2 0.5, dropout 0.25" in output


def test_batch_is_the_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = watched(monkeypatch)
    assert ", 7 rows," in passing("--hidden", "watched", "--batch", "7", *NUMPY)
    assert {z.shape[-2] for z in given} == {7}


def test_a_seed_gives_the_same_problem_and_another_seed_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = []
    for seed in ("3", "3", "4"):
        given = watched(monkeypatch)
        assert f"seed {seed}\n" in passing("--hidden", "watched", "--seed", seed, *NUMPY)
        first.append(given[0])
    assert (first[0] == first[1]).all()
    assert not (first[0] == first[2]).any()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", "1e-07"), ("float32", "1e-07")])
def test_dtype_is_every_backends(dtype: str, tolerance: str) -> None:
    output = passing("--dtype", dtype, *NUMPY, *STRICT, BACKPROP_XP_DTYPE="float32")
    for words in rows(output).values():
        assert words[1:3] == [dtype, "pass"]
        assert words[5] == tolerance
    assert f"  {dtype}  numpy and array-api-strict" in output


@pytest.mark.parametrize("method", ["complex_step", "centered", "directional", "taylor"])
def test_method_is_the_checks(method: str) -> None:
    assert rows(passing("--method", method, *NUMPY))["numpy"][3] == method


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "3"], "needs a width of the inputs and one of the outputs: 4,8,3 would do"),
        (["--sizes", "4,two"], "holds what is no positive integer: 4,8,3 would do"),
        (["--sizes", "4,1", "--loss", "categorical_cross_entropy"], "two classes or more"),
        (["--hidden", "rellu"], "Did you mean 'relu'?"),
        (["--output", "sigmoidal"], "Did you mean 'sigmoid'?"),
        (["--loss", "hubert"], "Did you mean 'huber'?"),
        (["--dropout", "half"], "--dropout"),
        (["--l2", "much"], "--l2"),
        (["--batch", "0"], "--batch"),
        (["--seed", "-1"], "--seed"),
        (["--dtype", "float16"], "Known: float64, float32"),
        (["--method", "centred"], "Did you mean 'centered'?"),
        (["--backend", "numpi"], "Did you mean 'numpy'?"),
        ([*NUMPY, "--backend", "array-api"], "Did you mean 'array-api-strict'?"),
    ],
)
def test_a_bad_option_is_told_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    # typer takes a longer message apart where the terminal is narrow.
    monkeypatch.setenv("COLUMNS", "500")
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "network" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dropout", "1"], "'--dropout': must be >= 0 and < 1"),
        (["--l2", "-1"], "'--l2': must be >= 0"),
        (["--sizes", "2,99999999,1"], "'--sizes': asks for 399,999,997 numbers at once"),
        (["--batch", "999999999"], "'--batch': asks for 7,999,999,992 numbers at once"),
        (["--loss", "binary_cross_entropy", "--output", "sigmoid"], 'Use output="identity"'),
    ],
)
def test_what_the_library_refuses_is_one_line(arguments: list[str], message: str) -> None:
    result = run(*arguments, *NUMPY)
    assert result.exit_code == 2
    assert re.fullmatch(r"error: [^\n]+\n", result.output)
    assert message in result.output


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_suit_their_loss(loss: str) -> None:
    y = problem(loss).y
    assert y.shape == (50, 3)
    assert y.dtype == np.float64
    if loss == "poisson":
        assert (y >= 1.0).all()
        assert (y == np.round(y)).all()
    elif loss == "binary_cross_entropy":
        assert set(np.unique(y)) == {0.0, 1.0}
    elif loss == "categorical_cross_entropy":
        assert set(np.unique(y)) == {0.0, 1.0}
        assert (y.sum(axis=-1) == 1.0).all()
        assert (y.sum(axis=0) > 0.0).all()
    else:
        assert len(np.unique(y)) == y.size


def test_the_seed_draws_theta_x_and_y() -> None:
    one, again, other = (problem(seed=seed) for seed in (3, 3, 4))
    for name in ("theta", "x", "y"):
        assert (getattr(one, name) == getattr(again, name)).all()
        assert (getattr(one, name) != getattr(other, name)).all()


def test_theta_has_its_initial_weights_and_random_biases() -> None:
    drawn = problem(seed=2, layer_norm=True)
    start = drawn.network.initialize(2, backend="numpy", device="cpu", dtype="float64")
    is_weight = drawn.network.weight_mask(start) == 1.0
    assert (drawn.theta[is_weight] == start[is_weight]).all()
    spread = np.abs(drawn.theta - start)[~is_weight]
    assert spread.min() > 0.0
    assert spread.max() < 0.5


@pytest.mark.float64
def test_every_backend_has_the_same_problem_and_dropout_one_key() -> None:
    drawn = problem("huber", seed=6, dropout=0.5)
    data = (drawn.theta, drawn.x, drawn.y)
    _, expected = drawn.network.loss_and_gradient(*data, rng=6)
    _, undropped = drawn.network.loss_and_gradient(*data)
    assert np.abs(expected - undropped).max() > 0.01
    for name in ("numpy", "array-api-strict"):
        finding = check_on(name, drawn, "float64")
        assert finding.report is not None
        for gradient in (finding.gradient, to_host(finding.report.analytic)):
            np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=ROUNDING)


def test_gradients_are_compared_with_the_first_of_their_dtype() -> None:
    def finding(backend: str, dtype: str, *gradient: float) -> Finding:
        return Finding(backend, dtype=dtype, gradient=np.asarray(gradient, dtype=dtype))

    findings = [
        Finding("a", dtype="float32"),
        finding("b", "float32", 1.0, -4.0),
        finding("c", "float64", 1.0, 1.0),
        finding("d", "float32", 1.0, -3.0),
        finding("e", "float32", 1.5, -4.0),
    ]
    assert differences(findings) == [
        Difference("float32", "b", "d", 0.25),
        Difference("float32", "b", "e", 0.125),
    ]
    zero = finding("f", "float32", 0.0)
    assert differences([zero, zero._replace(backend="g")])[0].relative == 0.0
    diverged = finding("h", "float32", float("nan"))
    assert np.isnan(differences([zero, diverged])[0].relative)


def conformance_rows(output: str) -> dict[str, str]:
    """Return the status of each check in the table of ``--conformance``, by group and name."""
    found, group = {}, ""
    for line in output.splitlines():
        row = re.fullmatch(r"  (\S.{49}) (holds|fails|not applicable)", line)
        if row:
            found[f"{group}: {row[1].rstrip()}"] = row[2]
        elif line and not line.startswith(" "):
            group = line
    return found


def test_conformance_of_the_environments_backend_is_a_table_that_holds(xp: Any) -> None:
    if xp.name == "jax":
        pytest.skip("JAX takes a minute to compile what tests/test_testing.py runs as well")
    device = xp.selection.backend.device_name(xp.selection.device)
    output = passing("--conformance", "--backend", xp.name, "--device", device)
    found = conformance_rows(output)
    assert list(found) == [str(check) for check in testing.checks()]
    held = sum(status == "holds" for status in found.values())
    last = f"{xp.name} on {device}: {held} hold, 0 fail, {len(found) - held} not applicable"
    assert output.splitlines()[-1] == last
    assert max(map(len, output.splitlines())) <= 80


def test_conformance_runs_on_the_environments_device_unless_told_another() -> None:
    chosen = {"BACKPROP_XP_BACKEND": "array-api-strict", "BACKPROP_XP_DEVICE": "device1"}
    for arguments, device in (((), "device1"), (("--device", "no_float64"), "no_float64")):
        output = passing("--conformance", *STRICT, *arguments, **chosen)
        assert f"array-api-strict on {device}: " in output.splitlines()[-1]
    # Of the checks that share a reason, it is told once.
    assert re.search(r"^ +\d\d  no float64 here: ", output, re.M)
    assert output.count("no float64 here") == 1


def test_what_does_not_conform_is_told_in_full_and_the_exit_status_is_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setattr(strict, "expm1", lambda z: strict.exp(z) - 1.0)
    result = run("--conformance", *STRICT)
    assert result.exit_code == 1
    found = conformance_rows(result.output)
    wrong = [check for check, status in found.items() if status == "fails"]
    assert wrong == ["parity: silent faults, float32", "parity: silent faults, float64"]
    assert f": {len(found) - 3} hold, 2 fail, 1 not applicable\n" in result.output
    said = " ".join(result.output.split())
    assert "keep small digits, write in place to no other array: the result[1] is" in said
    assert max(map(len, result.output.splitlines())) <= 80


def test_conformance_is_checked_where_the_environment_says() -> None:
    environment = {"BACKPROP_XP_BACKEND": "array-api-strict", "BACKPROP_XP_DEVICE": "device1"}
    result = run("--conformance", **environment)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("conformance of array-api-strict on device1\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--conformance", *NUMPY, *STRICT], "checks one backend, but 2 are named"),
        (["--conformance", *NUMPY, "--layer-norm", "--l2", "0.5"], "go with --layer-norm, --l2:"),
        (["--conformance", *NUMPY, "--dtype", "float32"], "does not go with --dtype"),
        ([*NUMPY, "--device", "cpu"], "goes with --conformance"),
        (["--conformance", "--backend", "numpi"], "Did you mean 'numpy'?"),
    ],
)
def test_options_that_do_not_go_with_conformance_are_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "holds" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*NUMPY, "--device", "cuda:0"], "device 'cuda:0' is none of the numpy backend's devices"),
        (["--backend", "cupy"], "cannot run here"),
    ],
)
def test_conformance_of_what_cannot_be_had_is_one_line(arguments: list[str], message: str) -> None:
    if "cupy" in arguments and {row.name: row for row in bx.list_backends()}["cupy"].usable:
        pytest.skip("CuPy has a GPU here")
    result = run("--conformance", *arguments)
    assert result.exit_code == (1 if "cupy" in arguments else 2)
    assert re.fullmatch(r"error: [^\n]+\n", result.output)
    assert message in result.output


@pytest.mark.once
def test_a_terminal_is_shown_that_work_is_being_done_and_a_pipe_nothing() -> None:
    pty = pytest.importorskip("pty")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BACKPROP_XP_")}
    environment = {**kept, "PYTHONPATH": str(PACKAGE_FOLDER), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "backprop_xp", "check", *NUMPY]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=100)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "checking on numpy" in shown
    assert "pass" in output
    assert "checking on" not in output
    piped = subprocess.run(command, capture_output=True, env=environment, text=True, check=True)
    assert piped.stderr == ""
