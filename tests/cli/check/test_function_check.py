"""The command ``check`` on functions: of a module, of PyTorch, of JAX.

Specifies ``custom_rules``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.commands import ONE_LINE, run

MODEL = """
import numpy as np

print("imported")
seen, number, t = [], 3, np.asarray([0.5, 2.0])
pair, point = (2.0, "sum"), {"a": np.asarray([0.3, -1.2]), "b": 0.7}

def value(p, scale=1.0, *rest):
    print("called")
    seen.append((scale, *rest))
    parts = p.values() if isinstance(p, dict) else [p]
    return np.sum(np.multiply(scale, sum(np.sum(part**3) for part in parts)))

def gradient(p, scale=1.0, *rest):
    found = lambda part: 3 * np.sum(scale) * part**2
    return {name: found(part) for name, part in p.items()} if isinstance(p, dict) else found(p)

def both(p, *rest):
    return value(p, *rest), gradient(p, *rest)

def wrong(p):
    return gradient(p, 2.0)

def wrong_at_3(p):
    return gradient(p) * (1.0 + (p == 3.0))

def nearly(p):
    return 1.001 * gradient(p)

def cubes(p):
    return p**3

def jacobian(p):
    return np.diag(3 * p**2)

def wrong_jacobian(p):
    return np.diag(3 * p**2) + np.eye(2, k=1)

def log(p):
    seen.append(p.copy())
    return float(np.sum(np.log(p)))

def by_log(p):
    return 1.0 / p

border, sides = np.asarray([0.25, 2.0]), (0.25, np.asarray([1.0, 4.0]))

def broken(p):
    raise KeyError("mass")

class Group:
    value = staticmethod(value)
"""

RULES = """
import torch

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, power=2, w=None):
        ctx.save_for_backward(x, w)
        ctx.power = power
        rank = x.argsort()
        ctx.mark_non_differentiable(rank)
        return w * x**power, rank

    @staticmethod
    def backward(ctx, g, _):
        x, w = ctx.saved_tensors
        return g * w * ctx.power * x ** (ctx.power - 1), None, g * x**ctx.power

class Wrong(Square):
    @staticmethod
    def backward(ctx, g, _):
        x, w = ctx.saved_tensors
        return g * w * x, None, g * x**ctx.power

class Twice(torch.autograd.Function):  # it writes into its input
    factor = 2.0

    @staticmethod
    def forward(x, name):
        return x.mul_(2.0)

    @classmethod
    def setup_context(cls, ctx, inputs, output):
        ctx.mark_dirty(inputs[0])

    @staticmethod
    def backward(ctx, g):
        return 2.0 * g, None

    @classmethod
    def jvp(cls, ctx, t, _):
        return t.mul_(cls.factor)

class WrongJvp(Twice):
    factor = 3.0

class NoRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, name):
        return 2.0 * x

class AllWrong(WrongJvp):
    @staticmethod
    def backward(ctx, g):
        return 3.0 * g, None

whole, number = (torch.arange(2), 2, torch.arange(2)), torch.sin
inputs = (torch.ones(2, dtype=torch.float64), 3, torch.full((2,), 0.5, dtype=torch.float64))
x = (torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), "twice")
"""

JAX_RULES = """
import functools, jax, jax.numpy as jnp

def rule(factor):
    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def scaled(p, power, n):
        return {"y": n * p["w"] ** power * p["x"]}
    def forward(p, power, n):
        return scaled(p, power, n), (p, n)
    def backward(power, saved, u):
        p, n = saved
        w = factor * n * power * p["w"] ** (power - 1) * p["x"] * u["y"]
        return {"w": w, "x": n * p["w"] ** power * u["y"]}, None
    scaled.defvjp(forward, backward)
    return scaled

@jax.custom_jvp
def sine(x, a):
    return a * jnp.sin(x)

@sine.defjvp
def sine_jvp(primals, tangents):
    (x, a), (t, s) = primals, tangents
    return a * jnp.sin(x), a * jnp.cos(x) * t + s * jnp.sin(x)

@jax.custom_jvp
def wrong_sine(x, a):
    return a * jnp.sin(x)

@wrong_sine.defjvp
def wrong_sine_jvp(primals, tangents):
    (x, a), (t, s) = primals, tangents
    return a * jnp.sin(x), a * jnp.cos(x) * t - s * jnp.sin(x)

right, wrong, jitted = rule(1.0), rule(2.0), jax.jit(rule(2.0), static_argnums=1)
inputs = ({"w": jnp.asarray([0.5, 2.0]), "x": jnp.asarray([1.0, -1.0])}, 3.0, 2)
whole = (1, 2)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with modules and points."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = {"model": MODEL, "torch_rules": RULES, "jax_rules": JAX_RULES}
    modules |= {"exits": "raise SystemExit(0)", "typo": "x = = 1", "needs": "import no_such_one"}
    for name, text in modules.items():
        tmp_path.joinpath(f"{name}.py").write_text(text, "utf-8")
    np.save("point.npy", np.asarray([0.3, -1.2]))
    np.savez("one.npz", np.asarray([0.3, -1.2]))
    np.savez("two.npz", a=np.asarray([0.3, -1.2]), b=0.7)
    np.savez("none.npz")
    np.save("objects.npy", np.asarray([object()]), allow_pickle=True)
    np.savez("named.npz", w=np.asarray([2.0, 3.0]), x=np.asarray([0.5, -1.0]))
    np.savez("twice.npz", name=2, x=np.asarray([0.5, -1.0]))
    np.savez("unnamed.npz", np.asarray([0.5, -1.0]), np.asarray([2.0, 3.0]))
    tmp_path.joinpath("no_zip.npz").write_bytes(b"PK\x03\x04 no zip")
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("point", ["point.npy", "one.npz", "two.npz", "model:point"])
@pytest.mark.parametrize("gradient", ["model:gradient", "model.py:wrong"])
def test_the_exit_status_is_the_verdict_of_a_function_at_its_point(
    point: str, gradient: str
) -> None:
    result = run("check", "model:Group.value", "--gradient", gradient, "--point", point)
    is_right = gradient == "model:gradient"
    assert result.exit_code == (0 if is_right else 1), result.output
    title, first, *rest = result.stdout.splitlines()
    assert title == "model:Group.value"
    assert first.startswith(f"  gradient check: {'pass' if is_right else 'fail'} (")
    assert is_right or any("a constant factor of 2" in line for line in rest)
    assert "called" in result.stderr


def test_json_is_the_report_alone_and_method_and_seed_are_those_of_the_check() -> None:
    words = ("--gradient", "model:wrong", "--point", "two.npz", "--json", "--seed", "5")
    result = run("check", "model:value", *words, "--method", "directional")
    assert result.exit_code == 1
    model = sys.modules["model"]
    point = dict(np.load("two.npz"))
    expected = bx.check_gradient(model.value, model.wrong, point, method="directional", seed=5)
    assert json.loads(result.stdout) == json.loads(json.dumps(expected.to_dict()))


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("both", "gradient check: pass"),
        ("cubes --jacobian jacobian", "Jacobian check: pass"),
        ("cubes --jacobian model.py:wrong_jacobian", "Jacobian check: fail"),
        ("value --gradient gradient", "gradient check: pass"),
        ("value --gradient wrong", "gradient check: fail"),
        ("Group.value --gradient gradient", "gradient check: pass"),
        ("value --gradient gradient --args pair", "gradient check: pass"),
        ("both --args 2.0", "gradient check: pass"),
        ("value --gradient nearly", "gradient check: fail"),
        ("value --gradient nearly --tolerance 0.01", "gradient check: pass"),
        ("value --gradient wrong_at_3", "gradient check: pass"),
        ("value --gradient wrong_at_3 --bounds 3,inf --point border", "outside of its bounds"),
        ("log --gradient by_log --samples 4 --point border", "gradient check: pass"),
    ],
)
@pytest.mark.parametrize("place", ["model", "model.py"])
def test_a_name_alone_is_looked_up_in_the_module_of_the_function(
    words: str, verdict: str, place: str
) -> None:
    point = () if "--point" in words else ("--point", "point.npy")
    result = run("check", *f"{place}:{words}".split(), *point)
    assert verdict in result.output
    assert result.exit_code == (0 if "pass" in verdict else 1 if "fail" in verdict else 2)


def test_samples_are_drawn_inside_of_the_bounds() -> None:
    words = ("check", "model:log", "--gradient", "by_log", "--point", "border", "--samples", "4")
    for text, low, high in (
        ("0.25,4", 0.25, 4.0),
        ("-1,inf", -1.0, np.inf),
        ("null,[1,4]", -np.inf, [1.0, 4.0]),
        ("sides", 0.25, [1.0, 4.0]),
        ("model:sides", 0.25, [1.0, 4.0]),
        ("sides.npy", 0.2, [1.0, 4.0]),
    ):
        np.save("sides.npy", [[0.2, 0.2], [1.0, 4.0]])
        result = run(*words, "--bounds", text)
        assert result.exit_code == 0, result.output
        seen = np.stack(sys.modules["model"].seen)
        assert np.all((low <= seen) & (seen <= high))
        assert " points; this report is about " in result.stdout
        sys.modules["model"].seen.clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", (2,)),
        ('-0.5, "mean", true', (-0.5, "mean", True)),
        ("[1.0, 2.0], null", ([1.0, 2.0], None)),
        ("model:pair", (2.0, "sum")),
        ("model:number", (3,)),
    ],
)
def test_args_are_json_values_or_an_object(text: str, expected: tuple[Any, ...]) -> None:
    words = ("--gradient", "model:gradient", "--point", "point.npy", "--args", text)
    assert run("check", "model:value", *words).exit_code == 0
    assert set(map(repr, sys.modules["model"].seen)) == {repr(expected)}


def test_an_array_of_a_file_or_a_module_is_one_argument() -> None:
    words = ("--gradient", "model:gradient", "--point", "point.npy", "--args")
    for text in ("model:t", "point.npy", "one.npz"):
        assert run("check", "model:value", *words, text).exit_code == 0
        (last,) = sys.modules["model"].seen[-1]
        assert last.shape == (2,)


GRADIENT = "--gradient model:gradient"
POINT = "--point point.npy"
REFUSED = [
    (f"model {GRADIENT} {POINT}", "'MODULE:VALUE': 'model' is not module:name."),
    (f"modle:value {GRADIENT} {POINT}", "'modle:value': there is no module 'modle' in "),
    (f"modle.py:value {GRADIENT} {POINT}", "there is no module 'modle' in "),
    (f"model.core:value {GRADIENT} {POINT}", "there is no module 'model.core' in "),
    (f"needs:value {GRADIENT} {POINT}", "its import raises ModuleNotFoundError: No module named"),
    (f"typo:value {GRADIENT} {POINT}", "its import raises SyntaxError: invalid syntax"),
    (f"exits:value {GRADIENT} {POINT}", "its import raises SystemExit: 0"),
    (f"model:valu {GRADIENT} {POINT}", "there is no 'valu' in model. Did you mean 'value'?"),
    (f"model:value --gradient model:number {POINT}", "'model:number' is not a function, but int."),
    (f"model:value {POINT}", "model:value must return (value, gradient) without --gradient or"),
    (f"model:value {GRADIENT}", "'--point': is missing. Example: backprop-xp check model:value"),
    (f"model:value {GRADIENT} {POINT} --jacobian jacobian", "'--jacobian': cannot be combined"),
    (f"model:value {GRADIENT} {POINT} --tolerance 0", "'--tolerance': must be > 0, not 0"),
    (f"model:value {GRADIENT} {POINT} --samples -1", "'--samples'"),
    (f"model:value {GRADIENT} {POINT} --bounds 1", "bounds must be (low, high), not (1.0,)"),
    (f"model:value {GRADIENT} {POINT} --bounds 0,", "'0,' is not module:name, .npz, .npy or JSON"),
    (f"model:value --gradient grad {POINT}", "there is no 'grad' in model. Did you mean 'gradi"),
    (f"model:value {GRADIENT} --point pont.npy", "No such file or directory: 'pont.npy'"),
    (f"model:value {GRADIENT} --point 0.5", "'--point': '0.5' is not module:name, .npz or .npy."),
    (f"model:value {GRADIENT} --point none.npz", "'none.npz' has no arrays."),
    (f"model:value {GRADIENT} --point objects.npy", "it holds Python objects"),
    (f"model:value {GRADIENT} --point no_zip.npz", "'no_zip.npz' cannot be read: "),
    (f"model:value {GRADIENT} --point model:value", "point"),
    (
        f"model:value {GRADIENT} {POINT} --args 0.5;",
        "'0.5;' is not module:name, .npz, .npy or JSON",
    ),
    (f"model:broken {GRADIENT} {POINT}", "error: KeyError: 'mass'"),
    (f"model:value {GRADIENT} {POINT} --sizes 2,1 --conformance", "--sizes, --conformance: it"),
    (f"--torch a:b --jax a:b {POINT}", "'--torch': cannot be combined with --jax"),
    (f"--jax a:b {POINT} {GRADIENT}", "'--jax': cannot be combined with --gradient"),
    ("--torch a:b", "'--point': is missing"),
    (GRADIENT, "'--gradient': needs a function to check. Example: "),
    ("--json --backend numpy", "'--json': needs a function to check."),
    ("--samples 3", "'--samples': needs a function to check."),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words[:60] for words, _ in REFUSED])
def test_input_that_cannot_be_used_is_a_one_line_error_with_status_2(
    words: str, message: str
) -> None:
    result = run("check", *words.split())
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    error = "".join(line for line in result.stderr.splitlines(True) if line[:5] == "error")
    assert message in error
    assert ONE_LINE.fullmatch(error)


def for_its_library(*cases: tuple[str, Any]) -> list[Any]:
    """Return the cases with the mark of the library that their first word names."""
    return [
        pytest.param(*case, marks=getattr(pytest.mark, case[0].split()[0][2:])) for case in cases
    ]


# PyTorch's own, at the first dual number of a process.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(
    ("words", "verdicts"),
    for_its_library(
        ("--torch torch_rules:Square --point torch_rules:inputs", {"vjp": "pass"}),
        ("--torch torch_rules:Square --point named.npz", {"vjp": "pass"}),
        ("--torch torch_rules:Wrong --point torch_rules:inputs", {"vjp": "fail"}),
        ("--torch torch_rules:Square --point inputs --samples 2", {"vjp": "pass"}),
        ("--torch torch_rules:Wrong --point inputs --tolerance 0.9", {"vjp": "pass"}),
        ("--torch torch_rules:Twice --point torch_rules:x", {"vjp": "pass", "jvp": "pass"}),
        ("--torch torch_rules:WrongJvp --point twice.npz", {"vjp": "pass", "jvp": "fail"}),
        ("--torch torch_rules:AllWrong --point twice.npz", {"vjp": "fail"}),
        ("--jax jax_rules:right --point jax_rules:inputs", {"vjp": "pass"}),
        ("--jax jax_rules:wrong --point jax_rules:inputs", {"vjp": "fail"}),
        ("--jax jax_rules:jitted --point jax_rules:inputs", {"vjp": "fail"}),
        ("--jax jax_rules:sine --point unnamed.npz", {"jvp": "pass"}),
        ("--jax jax_rules:wrong_sine --point unnamed.npz", {"jvp": "fail"}),
    ),
)
def test_the_rules_of_a_custom_function_are_checked(words: str, verdicts: dict[str, str]) -> None:
    name = words.split()[1]
    result = run("check", *words.split())
    assert result.exit_code == (1 if "fail" in verdicts.values() else 0), result.output
    subjects = {"vjp": "vector-Jacobian product", "jvp": "Jacobian-vector product"}
    for kind, verdict in verdicts.items():
        assert f"{name}, {kind}\n  {subjects[kind]} check: {verdict} (" in result.stdout
    assert result.stdout.count(" check: ") == len(verdicts)


@pytest.mark.parametrize(
    ("words", "message"),
    for_its_library(
        ("--torch torch_rules:Square --point two.npz", "missing a required argument: 'x'"),
        ("--torch torch_rules:NoRule --point torch_rules:x", "neither a backward nor a jvp"),
        ("--torch torch_rules:number --point two.npz", "is not a torch.autograd.Function"),
        ("--torch torch_rules:Square --point torch_rules:whole", "has a gradient by a floating"),
        ("--jax jax_rules:sine --point two.npz", "missing a required argument: 'x'"),
        ("--jax jax_rules:sine --point jax_rules:whole", "no floating input to differentiate by"),
    ),
)
def test_inputs_that_a_custom_function_cannot_take_are_a_one_line_error(
    words: str, message: str
) -> None:
    result = run("check", *words.split())
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert message in result.stderr
    assert ONE_LINE.fullmatch(result.stderr)
