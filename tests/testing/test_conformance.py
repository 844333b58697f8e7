"""The conformance kit: it passes on the suite's backend, and notices each planted fault.

Specifies ``array_api_strict``, ``contract``, ``kit``, ``numpy``, ``parity``, ``parts``,
``protocol``, ``testing`` and ``trust``.
"""

import ast
import re
import unittest
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.testing.kit import require_values
from backprop_xp.testing.parts import ARGUMENTS, FUNCTIONS, member
from tests import broken_backends as broken

GROUPS = ["protocol", "moving data", "parity", "parts", "trust"]


def failures(backend: Any, device: Any = None, *groups: str) -> dict[str, str]:
    """Return the details of the failing checks, by name."""
    rows = [testing.run(check, backend, device) for check in testing.checks(*groups)]
    return {f"{row.group}: {row.check}": row.detail for row in rows if row.status == "fails"}


# JAX compiles each check's operations, those of a gradient check up to 50 s. Its default session
# has no gradient check, of the parity in single precision a training alone, and no parts.
SINGLE = re.compile(r"parity: (?!training, AdamW).*(float32|complex64)|parts: .*float(32|64)")
CHECKS = [
    pytest.param(
        check,
        marks=[pytest.mark.core]
        * ("gradient check" not in str(check) and SINGLE.fullmatch(str(check)) is None),
    )
    for check in testing.checks()
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_every_check_passes_on_the_suites_backend(check: testing.Check, xp: Any) -> None:
    check(xp.selection.backend, xp.selection.device)


@pytest.mark.core
def test_the_suite_uses_float64_except_where_it_is_missing(xp: Any) -> None:
    """Otherwise the tests of float64 would skip without notice."""
    x64 = xp.name != "jax" or str(xp.namespace.asarray(1.0).dtype) == "float64"
    keeps = x64 and not re.search("no_float64|no_x64", str(xp.selection.device))
    assert xp.dtype == ("float64" if keeps else "float32")


def test_the_rows_are_the_checks_in_their_order() -> None:
    rows = testing.conformance("numpy", "cpu")
    assert [f"{row.group}: {row.check}" for row in rows] == [str(c) for c in testing.checks()]
    assert {row.check: row.detail for row in rows if row.status != "holds"} == {
        "loop": "no loop() here: steps are taken one by one",
        "scatter add": "no scatter_add() here: rows are added by a product",
        "transfers": "host_conversions() is empty: a transfer guard watches none",
    }


@pytest.mark.thorough  # the session no_float64 runs each check on that device
def test_no_check_uses_float64_on_a_device_without_it() -> None:
    pytest.importorskip("array_api_strict")
    rows = testing.conformance("array-api-strict", "no_float64")
    assert not [row for row in rows if row.status == "fails"]
    for row in rows:
        if row.check.endswith(("float64", "complex128")):
            assert row.status == "not applicable"
            assert re.match(r"no \w+ here: DTypeNotKeptError: .* on no_float64\.", row.detail)
    assert {row.group for row in rows if row.status == "holds"} == set(GROUPS)


def test_each_check_has_its_own_name_in_one_of_the_groups_by_which_they_are_chosen() -> None:
    checks = testing.checks()
    assert list(dict.fromkeys(check.group for check in checks)) == GROUPS
    assert len({str(check) for check in checks}) == len(checks)
    assert all(check.sentence and len(check.name) < 50 for check in checks)
    assert testing.checks("trust", "protocol") == [
        check for check in checks if check.group in ("protocol", "trust")
    ]
    with pytest.raises(ValueError, match=r"group 'math' is unknown\. Known: protocol, moving"):
        testing.checks("math")


PACKAGE = Path(bx.__file__).parent
# What computes on a backend; the others read, write and show.
COMPUTING = ("backends", "networks", "training", "gradient_check", "estimators")


def _is_namespace(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in ("array_namespace", "namespace_of")
    return getattr(node, "id", getattr(node, "attr", "")) in ("xp", "namespace")


def _dotted(node: ast.AST) -> str:
    """Return ``sum`` for ``xp.sum`` and ``linalg.solve`` for ``xp.linalg.solve``, else nothing."""
    if not isinstance(node, ast.Attribute):
        return ""
    owner = node.value
    if isinstance(owner, ast.Attribute) and owner.attr == "linalg" and _is_namespace(owner.value):
        return f"linalg.{node.attr}"
    return node.attr if _is_namespace(owner) else ""


def _functions_called() -> dict[str, set[str]]:
    """Return the functions of the standard that the package calls, with their arguments by name."""
    strict = pytest.importorskip("array_api_strict")
    found = defaultdict[str, set[str]](set)
    files = [path for unit in COMPUTING for path in (PACKAGE / unit).rglob("*.py")]
    for path in (path for path in files if "libraries" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found[_dotted(node)] |= set()
            if isinstance(node, ast.Call):
                found[_dotted(node.func)] |= {word.arg for word in node.keywords if word.arg}
    return {name: words for name, words in found.items() if callable(member(strict, name))}


def test_the_tables_have_each_function_that_the_library_calls_once_with_its_arguments() -> None:
    names = " ".join(FUNCTIONS.values()).split()
    assert len(set(names)) == len(names)
    called = _functions_called()
    assert called.keys() == set(names)
    assert {name: set(words.split()) for name, words in ARGUMENTS.items()} == {
        name: arguments for name, arguments in called.items() if arguments
    }


def test_missing_functions_are_named_with_the_parts_that_need_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(broken.XP, "argsort")
    monkeypatch.setattr(broken.XP, "linalg", SimpleNamespace(svd=broken.XP.linalg.svd))
    found = failures(broken.STRICT, "device1", "parts")
    assert found["parts: functions"] == (
        "the namespace lacks functions of Levenberg-Marquardt and L-BFGS: linalg.diagonal, "
        "linalg.solve; of metrics: argsort"
    )
    kinds = {name.partition(",")[0] for name in found}
    assert kinds == {"parts: functions", "parts: second order", "parts: metrics"}


def test_functions_without_an_argument_of_the_standard_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as their signatures show."""
    monkeypatch.setattr(broken.XP, "sum", lambda x, axis=None, keepdim=False: x)
    monkeypatch.setattr(broken.XP, "argmax", lambda x, axis, keepdims, /: x)
    monkeypatch.setattr(broken.XP, "eye", lambda n, **options: n)
    monkeypatch.setattr(broken.XP, "zeros", dict)  # has no signature
    found = failures(broken.STRICT, "device1", "parts")["parts: functions"]
    assert found == "the namespace lacks the arguments argmax(axis, keepdims), sum(keepdims)"


# Planted faults


@pytest.mark.parametrize(("member", "wrong", "check", "message"), broken.FAULTS)
def test_a_wrong_method_fails_its_check(member: str, wrong: Any, check: str, message: str) -> None:
    backend = type("Faulty", (type(broken.STRICT),), {member: wrong})()
    (chosen,) = [one for one in testing.checks() if str(one) == check]
    device = broken.STRICT.device("device1")
    outcome = testing.run(chosen, backend, device)
    assert outcome.status == "fails"
    assert re.search(message, outcome.detail), outcome.detail
    assert testing.run(chosen, broken.STRICT, device).status != "fails"


@pytest.mark.parametrize(("name", "wrong", "check"), broken.FUNCTIONS)
def test_a_slightly_wrong_function_of_the_standard_fails_its_check(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any, check: str
) -> None:
    monkeypatch.setattr(broken.XP, name, wrong(getattr(broken.XP, name)))
    (chosen,) = [one for one in testing.checks("parity") if str(one) == check]
    assert testing.run(chosen, broken.STRICT, broken.STRICT.device("device1")).status == "fails"


@pytest.mark.parametrize("kind", broken.OPERATORS)
def test_a_slightly_wrong_operator_fails_its_check(kind: Any) -> None:
    found = failures(broken.WithArrays(kind), None, "protocol", "moving data", "parity")
    assert broken.OPERATORS[kind] in found
    assert all(check.startswith(("parity", "protocol: owner")) for check in found)


@pytest.mark.parametrize(("backend", "message"), broken.VIEWS)
def test_slices_that_are_no_views_fail_their_check(backend: Any, message: str) -> None:
    found = failures(backend, None, "protocol")
    assert re.search(message, found["protocol: slices are views"]), found


@pytest.fixture
def copying_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """array-api-strict with slices that are copies, as the standard allows."""
    kind = type(broken.XP.ones(1))
    taken = kind.__getitem__
    copy = lambda array, key: broken.XP.asarray(taken(array, key), copy=True)  # noqa: E731
    monkeypatch.setattr(kind, "__getitem__", copy)


@pytest.fixture
def new_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """array-api-strict whose arithmetic in place makes new arrays, as the standard allows."""
    kind = type(broken.XP.ones(1))
    for name in ("add", "sub", "mul", "truediv", "pow"):
        monkeypatch.setattr(kind, f"__i{name}__", getattr(kind, f"__{name}__"))


@pytest.mark.parametrize("library", ["copying_slices", "new_arrays"])
def test_a_library_with_copies_where_numpy_has_views_passes(
    library: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(library)
    assert not failures("array-api-strict", "device1")


@pytest.mark.usefixtures("copying_slices")
def test_a_training_on_copies_that_should_be_views_fails_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(broken.STRICT), "slices_are_views", True)
    found = failures("array-api-strict", "device1", "protocol", "parity")
    assert len(found) == 5
    assert all("slices are copies, but slices_are_views is True" in text for text in found.values())
    assert "no step sees the last one) is 1.2" in found["parity: training, AdamW, float64"]


@pytest.mark.parametrize(
    ("there", "off", "cause"),
    [
        (np.ones(3), 1e-7, r"1e-12 of the largest: computed in float32\?"),
        (np.ones(3, "f4"), 1e-3, "of the largest: computed in TF32 or half precision"),
        (np.ones(3), 1e-3, r"of the largest\)"),
        (np.array([1.0, np.inf]), np.nan, r"of the largest\)"),
        (np.ones(3, int), 1, r"differ by more than 0 of the largest\)"),
    ],
)
def test_an_error_of_the_size_of_a_lower_precision_is_said_to_come_from_it(
    there: Any, off: float, cause: str
) -> None:
    with pytest.raises(AssertionError, match=cause):
        require_values(there + off, there, "y")


class HalfBackend:
    """An object with half of the protocol."""

    name = "half"
    devices, device = (getattr(bx.get_backend("numpy"), m) for m in ("devices", "device"))


def test_a_missing_method_fails_its_check() -> None:
    found = failures(broken.WithoutFloat(broken.Unfaithful), None, "trust")
    assert "float(x[0, 0]) is not refused" in found["trust: transfers"]
    found = failures(HalfBackend(), "cpu", "protocol")
    assert found["protocol: methods"] == "the method probe is missing"


def test_a_correct_but_unregistered_backend_fails_only_the_lookup_checks() -> None:
    found = failures(broken.WithArrays(broken.Unfaithful), None, "protocol", "moving data")
    assert set(found) == {"protocol: owner"}
    assert "its arrays lead to the backend numpy" in found["protocol: owner"]


def test_a_backend_that_always_raises_fails_every_check_without_an_error() -> None:
    rows = testing.conformance(broken.NothingWorks())
    assert len(rows) == len(testing.checks())
    assert {row.status for row in rows} == {"fails"}
    assert rows[0].detail == "RuntimeError: devices: no library here"
    found = failures("numpy", "cuda:7", "protocol")  # an unknown device gives a failure too
    assert len(found) == len(testing.checks("protocol"))
    message = "device 'cuda:7' is unknown to the numpy backend. Known: cpu"
    assert message in found["protocol: methods"]
    with pytest.raises(ValueError, match="'numpi'"):
        testing.conformance("numpi")


def test_a_check_that_does_not_apply_skips_under_pytest_and_unittest() -> None:
    (check,) = [check for check in testing.checks() if check.name == "loop"]
    with pytest.raises(unittest.SkipTest, match="steps are taken one by one"):
        check("numpy")
    with pytest.raises(testing.NotApplicable):
        check(bx.get_backend("numpy"), "cpu")
