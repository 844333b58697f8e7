"""The conformance kit: it holds on the suite's backend, and finds each fault that is planted."""

import ast
import re
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.backends import Backend
from backprop_xp.testing.standard import FUNCTIONS
from tests import broken_backends as broken
from tests.test_architecture import MATHS, PACKAGE, modules_of, unit_of

GROUPS = ["protocol", "moving data", "the standard", "networks", "trust"]
DTYPES = {"float32", "float64", "complex64", "complex128", "int32"}

# A backend that is no entry of the table is not found by its arrays, nor by its own namespace.
NOT_OF_THE_TABLE = {"protocol: owner"}
OTHER_NAMESPACE = {"protocol: owner", "protocol: namespace"}


def failing(backend: Any, device: Any = None, *groups: str) -> dict[str, str]:
    """Return the details of the checks that fail, by their names."""
    rows = [testing.run(check, backend, device) for check in testing.checks(*groups)]
    return {f"{row.group}: {row.check}": row.detail for row in rows if row.status == "fails"}


# On the suite's backend


@pytest.mark.parametrize("check", testing.checks(), ids=str)
def test_it_holds_where_the_suite_runs(check: testing.Check, xp: Any) -> None:
    check(xp.selection.backend, xp.selection.device)


def test_the_rows_are_the_checks_in_their_order() -> None:
    rows = testing.conformance("numpy", "cpu")
    assert [f"{row.group}: {row.check}" for row in rows] == [str(c) for c in testing.checks()]
    assert not [row for row in rows if row.status == "fails"]
    assert {row.check: row.detail for row in rows if row.status == "not applicable"} == {
        "loop": "no loop() here: steps are taken one by one",
        "memory": "the library cannot tell",
        "doors": "no doors() here: the transfer guard does not watch the library",
        "between devices": "there is one device",
        "mixed libraries": "its arrays are NumPy's",
        "mixed devices": "there is one device",
    }


def test_a_device_without_float64_is_asked_for_no_float64() -> None:
    pytest.importorskip("array_api_strict")
    rows = testing.conformance("array-api-strict", "no_float64")
    assert not [row for row in rows if row.status == "fails"]
    for row in rows:
        wide = row.check.endswith(("float64", "complex128"))
        if wide:
            assert row.status == "not applicable"
            assert "on this device: " in row.detail
    held = {row.group for row in rows if row.status == "holds"}
    assert held == set(GROUPS)


# The list of checks


def test_each_check_has_its_own_name_in_one_of_the_groups() -> None:
    checks = testing.checks()
    assert list(dict.fromkeys(check.group for check in checks)) == GROUPS
    assert len({str(check) for check in checks}) == len(checks)
    for check in checks:
        assert check.sentence
        assert len(check.name) < 50


def test_checks_are_chosen_by_group() -> None:
    assert testing.checks("trust", "protocol") == [
        check for check in testing.checks() if check.group in ("protocol", "trust")
    ]
    with pytest.raises(ValueError, match=r"group 'math' is unknown\. Known: protocol, moving"):
        testing.checks("math")


def test_every_function_that_the_maths_calls_is_checked_and_no_other() -> None:
    called = {
        name
        for module, path in modules_of(PACKAGE).items()
        if unit_of(module) in MATHS
        for name in names_of_namespaces(path.read_text("utf-8"))
    }
    assert called - DTYPES == set(FUNCTIONS)


def test_the_scan_sees_each_way_of_calling_a_function() -> None:
    assert set(
        names_of_namespaces("xp.exp(z)\narray_namespace(z).tanh(z)\n(xp.ones if a else xp.zeros)()")
    ) == {"exp", "tanh", "ones", "zeros"}


def names_of_namespaces(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = node.value
            function = of.func if isinstance(of, ast.Call) else of
            if isinstance(function, ast.Name) and function.id in ("xp", "array_namespace"):
                yield node.attr


# Planted faults


@pytest.mark.parametrize(
    ("kind", "check", "message"),
    [
        (broken.DropsDtype, "moving data: cast to int32", "int64 as int32 is .*int64"),
        (broken.DropsDevice, "moving data: float32", "is on .*CPU_DEVICE.*not on .*device1"),
        (broken.ReturnsFloat64, "moving data: float32", "float32 comes back as float64"),
        (broken.RoundsOnTheWay, "moving data: float64", "from_host is 0.10000000149.* at"),
        (broken.LosesStrides, "moving data: layout: transposed", r"is 1.0 at \[0, 1\], but 4.0"),
        (broken.WritesToTheHost, "moving data: int32", "is 0 at .* but 1 on NumPy"),
        (broken.KeepsNoFloat64, "moving data: float64", "float64 silently became .*float32"),
        (broken.OwnsEverything, "protocol: owns", "owns is True for a builtins.list"),
        (broken.TakesAnyDevice, "protocol: unknown devices", "'nonesuch'.*ValueError is expected"),
        (
            broken.NamesNoDevices,
            "protocol: unknown devices",
            "does not tell of .*device1",
        ),
        (broken.OneNameForAll, "protocol: devices", "two devices have one name"),
        (broken.AnotherDeviceByDefault, "protocol: first device", "goes to .*by default"),
        (broken.ProbeRaises, "protocol: probe", "ImportError: no driver"),
        (broken.ProbeComplains, "protocol: probe", "complains: slow"),
        (broken.IntegersByDefault, "protocol: default dtype", "int32, which is not real floating"),
        (broken.CompilesWrongly, "protocol: compile", r"has shape \(5,\), but \(3,\) on NumPy"),
        (broken.ReusesWhatIsNotDonated, "protocol: donate", r"result\[0\] is .* on NumPy"),
        (broken.LoopsOnceTooOften, "protocol: loop", r"\[0\] is 12.5 at \[1\], but 12.0"),
        (broken.LacksFloat64, "protocol: require_dtype", "lets float64 pass, but .*ValueError"),
        (broken.HasNoFloatDoor, "protocol: doors", r"float\(x\[0\]\) is not refused"),
        (broken.LeavesUnmarked, "protocol: doors", "TransferError: .*__dlpack__"),
        (broken.TellsNumbers, "protocol: details", "no dict of strings"),
        (broken.UsesMoreThanThereIs, "protocol: memory", "2 bytes are in use of 1"),
        (broken.HandsOutTheDevice, "protocol: synchronize", "returns "),
        (broken.AsksForMore, "protocol: methods", "needs a default for its own pinned"),
        (broken.ReplacesByAnother, "protocol: replacements", "takes .*'theta', 'gradient'"),
        (broken.Nameless, "protocol: name", "no name"),
        (broken.NewNamespaces, "protocol: namespace", "another object at each call"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_of_the_backend_is_found_by_its_check(
    kind: type[Backend], check: str, message: str
) -> None:
    pytest.importorskip("array_api_strict")
    device = bx.get_backend("array-api-strict").device("device1")
    found = failing(kind(), device, check.partition(":")[0])
    assert check in found
    assert re.search(message, found[check]), found[check]


def test_a_sound_backend_that_is_not_in_the_table_fails_where_it_is_not_known() -> None:
    pytest.importorskip("array_api_strict")
    assert set(failing(broken.WithFunctions(), "device1", "the standard", "trust")) == set()
    found = failing(broken.WithFunctions(), "device1", "protocol")
    assert set(found) == OTHER_NAMESPACE
    assert "taken for the backend array-api-strict's" in found["protocol: owner"]
    assert set(failing(broken.WithArrays(broken.Unfaithful))) == NOT_OF_THE_TABLE


def ignoring_nan(x: Any, y: Any) -> Any:
    import array_api_strict as xp

    larger = xp.maximum(x, y)
    return xp.where(xp.isnan(larger), xp.zeros_like(larger), larger)


def without_keepdims(x: Any, **options: Any) -> Any:
    import array_api_strict as xp

    return xp.sum(x, axis=options.get("axis"))


def by_float32(x: Any, **options: Any) -> Any:
    import array_api_strict as xp

    narrow = xp.astype(x, xp.float32) if x.dtype == xp.float64 else x
    return xp.astype(xp.sum(narrow, **options), x.dtype)


def from_the_first_axis(x: Any, indices: Any, *, axis: int) -> Any:
    import array_api_strict as xp

    return xp.take(x, indices, axis=max(axis, 0))


def losing_the_imaginary_part(z: Any) -> Any:
    import array_api_strict as xp

    # What a formula by magnitudes does to an imaginary part of 1e-12.
    return xp.exp(xp.astype(xp.real(z), z.dtype) if xp.isdtype(z.dtype, "complex floating") else z)


def by_exp(z: Any) -> Any:
    import array_api_strict as xp

    return xp.exp(z) - 1.0


def on_the_default_device(*arguments: Any, **options: Any) -> Any:
    import array_api_strict as xp

    return xp.ones(*arguments, dtype=options["dtype"])


FLOATS, COMPLEX = {"float32", "float64"}, {"complex64", "complex128"}


@pytest.mark.parametrize(
    ("name", "function", "dtypes"),
    [
        ("maximum", ignoring_nan, FLOATS),
        ("sum", by_float32, {"float64"}),
        ("sum", without_keepdims, FLOATS | COMPLEX),
        ("take", from_the_first_axis, FLOATS | COMPLEX | {"int32"}),
        ("exp", losing_the_imaginary_part, COMPLEX),
        ("expm1", by_exp, FLOATS),
        ("ones", on_the_default_device, FLOATS),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_a_function_that_is_subtly_wrong_fails_alone(
    name: str, function: Any, dtypes: set[str]
) -> None:
    pytest.importorskip("array_api_strict")
    found = failing(broken.WithFunctions(**{name: function}), "device1", "the standard")
    assert set(found) == {f"the standard: {name}, {dtype}" for dtype in dtypes}


# What they return is a number of few digits, or none that is floating.
EXACT = {"all", "arange", "argmax", "finfo", "iinfo", "isdtype", "isfinite"}
EXACT |= {"isnan", "ones", "ones_like", "sign", "zeros", "zeros_like", "real", "full_like"}


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - EXACT))
def test_a_function_that_rounds_to_float32_fails_in_float64(name: str) -> None:
    xp = pytest.importorskip("array_api_strict")

    def rounding(*arguments: Any, **options: Any) -> Any:
        result = getattr(xp, name)(*arguments, **options)
        is_wide = result.dtype == xp.float64
        return xp.astype(xp.astype(result, xp.float32), xp.float64) if is_wide else result

    found = failing(broken.WithFunctions(**{name: rounding}), "device1", "the standard")
    # What brings data there, or is called along with others, takes more with it.
    assert f"the standard: {name}, float64" in found
    assert not [check for check in found if check.endswith("32")]


NUMBERS = {"finfo", "iinfo", "isdtype"}


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - NUMBERS))
def test_a_function_whose_result_leaves_the_device_fails(name: str) -> None:
    xp = pytest.importorskip("array_api_strict")

    def leaving(*arguments: Any, **options: Any) -> Any:
        return getattr(xp, name)(*arguments, **options).to_device(xp.Device("device2"))

    found = failing(broken.WithFunctions(**{name: leaving}), "device1", "the standard")
    expected = {str(c) for c in testing.checks("the standard") if c.name.startswith(f"{name}, ")}
    assert expected
    assert expected <= set(found)


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        (broken.Widens, {"the standard: Python numbers, float32", "networks: SGD, float32"}),
        (broken.Saturates, {"the standard: int32", "networks: random bits"}),
        (
            broken.HalfPrecision,
            {
                "protocol: full precision",
                "the standard: @, float32",
                "networks: network with Dense, float32",
            },
        ),
        (broken.ReturnsItself, {"the standard: own arrays alone"}),
    ],
)
def test_an_operator_that_is_subtly_wrong_is_found(kind: Any, checks: set[str]) -> None:
    found = failing(broken.WithArrays(kind))
    assert checks <= set(found)
    others = {check for check in found if check.startswith(("moving data", "protocol"))} - checks
    assert others <= {"protocol: owner"}


def test_a_backend_that_lacks_methods_is_told_which() -> None:
    class Half:
        """An object that keeps half of the protocol."""

        name = "half"
        devices, device = (getattr(bx.get_backend("numpy"), m) for m in ("devices", "device"))

    found = failing(Half(), "cpu", "protocol")
    assert found["protocol: methods"] == "the method probe is missing"


def test_a_backend_where_nothing_works_fails_everywhere_and_raises_nowhere() -> None:
    rows = testing.conformance(broken.NothingWorks())
    assert len(rows) == len(testing.checks())
    assert {row.status for row in rows} == {"fails"}
    assert rows[0].detail == "RuntimeError: devices: no library here"


def test_an_unknown_device_fails_each_check_and_says_why() -> None:
    found = failing("numpy", "cuda:7", "protocol")
    assert len(found) == len(testing.checks("protocol"))
    assert "device 'cuda:7' is none of the numpy backend's devices: cpu" in found["protocol: name"]


def test_a_check_that_does_not_apply_skips_under_pytest_and_unittest() -> None:
    (check,) = [check for check in testing.checks() if check.name == "mixed libraries"]
    with pytest.raises(unittest.SkipTest, match="its arrays are NumPy's"):
        check("numpy")
    with pytest.raises(testing.NotApplicable):
        check(bx.get_backend("numpy"), "cpu")


def test_a_name_of_no_backend_is_an_error() -> None:
    with pytest.raises(ValueError, match="'numpi'"):
        testing.conformance("numpi")
