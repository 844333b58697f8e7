"""The command ``check``, in a child process where libraries must be missing.

Specifies ``backend_check``, ``command`` and ``conformance``.
"""

import os
import re
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.backends import to_host
from backprop_xp.cli.check.backend_check import (
    Difference,
    Finding,
    Problem,
    check_on,
    differences,
    draw,
)
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from tests.commands import NOWHERE, NUMPY, STRICT, run, start_without

# Backends sum in different orders; the gradients' entries are near 1.
ROUNDING = 1e-14
WIDTH = 80  # columns
ON_DEVICE1 = {"BACKPROP_XP_BACKEND": "array-api-strict", "BACKPROP_XP_DEVICE": "device1"}


def check(*arguments: str, **environment: str) -> Any:
    return run("check", *arguments, **NOWHERE | environment)


def check_ok(*arguments: str, **environment: str) -> str:
    result = check(*arguments, **environment)
    assert result.exit_code == 0, result.output
    return str(result.output)


def rows(output: str) -> dict[str, list[str]]:
    """Return the words of each backend's row, by the backend's name."""
    block = re.split(r"^backend .*\n", output, flags=re.M)[1].split("\n\n")[0]
    lines = [line.split() for line in block.splitlines() if not line.startswith(" ")]
    return {name: words for name, *words in lines}


def comparison_rows(output: str, dtype: str = "float64") -> float:
    found = re.search(rf"^  {dtype}  numpy and array-api-strict +(\S+)$", output, re.M)
    assert found
    return float(found[1])


def add_tanh(monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> None:
    """Add tanh to the activations under a name; ``change(z)`` multiplies its gradient."""
    tanh = bx.activations.tanh
    rule = lambda g, z, a: change(a) * tanh.vjp(g, z, a)  # noqa: E731
    monkeypatch.setitem(ACTIVATIONS, name, bx.Activation(tanh.value, rule, from_output=True))


def test_a_right_gradient_passes_and_the_backends_are_compared() -> None:
    output = check_ok(*NUMPY, *STRICT, *NUMPY)  # a backend that is named twice is checked once
    found = rows(output)
    assert list(found) == ["numpy", "array-api-strict"]
    assert [words[0] for words in found.values()] == ["cpu", "CPU_DEVICE"]
    for words in found.values():
        assert words[1:4] == ["float64", "pass", "complex_step"]
        assert float(words[4]) <= float(words[5])
    assert comparison_rows(output) < ROUNDING
    assert "gradient check:" not in output
    assert output.count("complex_step") == 2
    assert max(map(len, output.splitlines())) <= WIDTH
    assert "largest difference" not in check_ok(*NUMPY)


@pytest.mark.long
def test_the_environments_backend_passes_on_its_device(xp: Any) -> None:
    environment = {name: os.environ.get(name, "") for name in NOWHERE}
    words = rows(check_ok("--backend", xp.name, **environment))[xp.name]
    assert words[0] == xp.selection.backend.device_name(xp.selection.device)
    assert words[1] in str(xp.selection.dtype)
    assert words[2] == "pass"


def test_the_environments_device_is_used_for_its_backend_only() -> None:
    found = rows(check_ok(*NUMPY, *STRICT, **ON_DEVICE1))
    assert [words[0] for words in found.values()] == ["cpu", "device1"]
    unknown = check(*NUMPY, *STRICT, BACKPROP_XP_BACKEND="numpy", BACKPROP_XP_DEVICE="gpu7")
    assert unknown.exit_code == 1
    assert re.search(r"^numpy +error\n +ValueError: device 'gpu7' is unknown", unknown.output, re.M)
    assert rows(unknown.output)["array-api-strict"][2] == "pass"


@pytest.mark.parametrize("words", [(), ("--backend", "cupy", *NUMPY)])
def test_an_unusable_backend_is_reported_and_a_failure_only_if_it_was_requested(
    words: tuple[str, ...],
) -> None:
    done = start_without("cupy", "jax", "torch", words=("check", *words))
    assert (done.returncode, done.stderr) == (1 if words else 0, "")
    found, every = rows(done.stdout), [row.name for row in bx.list_backends()]
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    assert list(found) == (["cupy", "numpy"] if words else every)
    assert found["numpy"][2] == "pass"
    for name, library in (("cupy", "CuPy"), ("jax", "JAX"), ("torch", "PyTorch")):
        pattern = rf"^{name} +not usable\n +{library} is not installed\. Try: pip "
        assert name not in found or re.search(pattern, done.stdout, re.M)


@pytest.mark.long
def test_a_missing_dtype_is_reported_and_a_failure_only_if_the_backend_was_requested(
    jax: Any,
) -> None:
    words = ("check", "--dtype", "float64")
    requested = start_without(words=(*words, "--backend", "jax"), JAX_ENABLE_X64="0")
    unrequested = start_without("cupy", "torch", words=words, JAX_ENABLE_X64="0")
    errors = requested.stderr + unrequested.stderr
    assert (requested.returncode, unrequested.returncode) == (1, 0), errors
    for done in (requested, unrequested):
        text = " ".join(done.stdout.split())
        assert re.search(r" jax cpu:0 float64 not checked .*JAX has no float64.*X64=1", text)
    assert rows(unrequested.stdout)["numpy"][1:3] == ["float64", "pass"]


@pytest.mark.parametrize(
    ("library", "wrong"),
    [("", ["numpy", "array-api-strict"]), ("array_api_strict", ["array-api-strict"])],
)
def test_a_wrong_gradient_fails_with_its_report_on_each_backend_where_it_is_wrong(
    monkeypatch: pytest.MonkeyPatch, library: str, wrong: list[str]
) -> None:
    add_tanh(monkeypatch, "wrong", lambda a: 2.0 if library in type(a).__module__ else 1.0)
    result = check("--hidden", "wrong", *NUMPY, *STRICT)
    assert result.exit_code == 1
    assert [name for name, words in rows(result.output).items() if words[2] == "fail"] == wrong
    assert (comparison_rows(result.output) > 0.01) == (len(wrong) == 1)
    reports = result.output.split("largest difference")[1].split("\n\n")[1:]
    assert [report.splitlines()[0] for report in reports] == [f"{w}, float64" for w in wrong]
    for report in reports:
        assert "gradient check: fail" in report
        assert "layers[0].weights[" in report


def test_a_backend_that_raises_is_a_one_line_error_and_the_others_run(
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
    result = check("--hidden", "broken", *STRICT, *NUMPY)
    assert result.exit_code == 1
    pattern = r"^array-api-strict CPU_DEVICE +float64 +error\n    LibrarysOwnError: no such kernel$"
    assert re.search(pattern, result.output, re.M)
    assert rows(result.output)["numpy"][2] == "pass"
    assert "largest difference" not in result.output


def test_options_set_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--sizes", "3 6,2", "--layer-norm", "--dropout", "0.25", "--l2", "0.5")
    output = check_ok(*options, "--loss", "huber", "--hidden", "gelu", "--output", "tanh", *NUMPY)
    expected = bx.mlp([3, 6, 2], hidden="gelu", output="tanh", layer_norm=True, dropout=0.25)
    for line in expected.describe().splitlines():
        assert f"  {line}\n" in output
    assert "network 3-6-2, loss huber, 5 rows, seed 0\n" in output
    assert "activations: hidden gelu, output tanh; l2 0.5, dropout 0.25" in output
    add_tanh(monkeypatch, "wrong", lambda a: 2.0)
    result = check("--output", "wrong", *NUMPY)
    assert result.exit_code == 1
    assert "layers[1].weights[" in result.output


def test_the_batch_and_the_seed_set_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs: list[Any] = []
    add_tanh(monkeypatch, "watched", lambda a: inputs.append(a) or 1.0)
    first = []
    for seed in ("3", "3", "4"):
        output = check_ok("--hidden", "watched", "--seed", seed, "--batch", "7", *NUMPY)
        assert f", 7 rows, seed {seed}\n" in output
        assert {a.shape[-2] for a in inputs} == {7}
        first.append(inputs[0])
        inputs.clear()
    assert (first[0] == first[1]).all()
    assert not (first[0] == first[2]).any()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dtype_holds_for_every_backend_and_method_for_the_check(dtype: str) -> None:
    options = ("--dtype", dtype, "--method", "centered")
    output = check_ok(*options, *NUMPY, *STRICT, BACKPROP_XP_DTYPE="float32")
    for words in rows(output).values():
        assert words[1:4] == [dtype, "pass", "centered"]
    assert comparison_rows(output, dtype) < {"float64": ROUNDING, "float32": 1e-5}[dtype]


def problem(loss: str = "mean_squared_error", seed: int = 0, **options: Any) -> Problem:
    network = bx.mlp([4, 8, 3], loss=loss, **options)
    return draw(network, [4, 8, 3], loss, batch=50, seed=seed, method="auto")


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_are_valid_for_their_loss(loss: str) -> None:
    if loss == "gaussian_nll":
        drawn = draw(bx.mlp([4, 8, 6], loss=loss), [4, 8, 6], loss, batch=50, seed=0, method="auto")
    else:
        drawn = problem(loss)
    y = drawn.y
    assert (y.shape, y.dtype) == ((50, 3), np.float64)
    if loss == "poisson":
        assert (y >= 1.0).all()
        assert (y == np.round(y)).all()
    elif loss.endswith("cross_entropy") or loss == "hinge":
        assert set(np.unique(y)) == {0.0, 1.0}
        if not loss.startswith("binary"):
            assert (y.sum(axis=-1) == 1.0).all()
            assert (y.sum(axis=0) > 0.0).all()
    else:
        assert len(np.unique(y)) == y.size


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

    first = finding("b", "float32", 1.0, -4.0)
    other_dtype = finding("c", "float64", 1.0, 1.0)
    close, far = finding("d", "float32", 1.0, -3.0), finding("e", "float32", 1.5, -4.0)
    assert differences([Finding("a", dtype="float32"), first, other_dtype, close, far]) == [
        Difference("float32", "b", "d", 0.25),
        Difference("float32", "b", "e", 0.125),
    ]
    zero, diverged = finding("f", "float32", 0.0), finding("h", "float32", float("nan"))
    equal, unequal = differences([zero, zero._replace(backend="g"), diverged])
    assert equal.relative == 0.0
    assert np.isnan(unequal.relative)


# The conformance of a backend


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


@pytest.mark.long
def test_conformance_of_the_environments_backend_is_a_table_without_failures(xp: Any) -> None:
    device = xp.selection.backend.device_name(xp.selection.device)
    output = check_ok("--conformance", "--backend", xp.name, "--device", device)
    found = conformance_rows(output)
    assert list(found) == [str(check) for check in testing.checks()]
    held = sum(status == "holds" for status in found.values())
    last = f"{xp.name} on {device}: {held} hold, 0 fail, {len(found) - held} not applicable"
    assert output.splitlines()[-1] == last
    assert max(map(len, output.splitlines())) <= 80


def test_conformance_runs_on_the_environments_device_unless_an_option_names_another() -> None:
    # The next test has no option: it runs on device1.
    output = check_ok("--conformance", *STRICT, "--device", "no_float64", **ON_DEVICE1)
    assert "array-api-strict on no_float64: " in output.splitlines()[-1]
    # The reason that several checks share is printed once.
    assert re.search(r"^ +\d\d  no float64 here: ", output, re.M)
    assert output.count("no float64 here") == 1


def test_failures_of_conformance_are_printed_in_full_and_the_exit_status_is_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.setattr(strict, "expm1", lambda z: strict.exp(z) - 1.0)
    result = check("--conformance", **ON_DEVICE1)
    assert result.exit_code == 1
    assert result.output.startswith("conformance of array-api-strict on device1\n")
    found = conformance_rows(result.output)
    wrong = [check for check, status in found.items() if status == "fails"]
    assert wrong == ["parity: silent faults, float32", "parity: silent faults, float64"]
    held = sum(status == "holds" for status in found.values())
    assert f": {held} hold, 2 fail, {len(found) - 2 - held} not applicable\n" in result.output
    output = " ".join(result.output.split())
    assert "writes reach one array alone: the result[1] is" in output
    assert max(map(len, result.output.splitlines())) <= 80
