"""Points and gradients: any pytree of numbers, in any library's arrays.

Specifies ``structures``.
"""

import dataclasses
import itertools
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted_mistakes import (
    assert_only_right_passes,
    check,
    difference_methods,
    entries_and_directions,
    map_leaves,
)

Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - as users' older code has them


def _leaves(structure: Any) -> list[Any]:
    found: list[Any] = []
    map_leaves(structure, found.append)
    return found


def _cubes(xp: Any, point: Any) -> Any:
    """Return ``sum(p**3)`` over all leaves, with the weights 1, 2, 3."""
    return sum(k * xp.sum(p * p * p) for k, p in enumerate(_leaves(point), start=1))


def _by_hand(point: Any) -> Any:
    counter = itertools.count(1)
    return map_leaves(point, lambda p: 3.0 * next(counter) * p * p)


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "a number's array": lambda a: a(()),
    "a list": lambda a: [a((2, 3)), a(()), a((1, 3))],
    "nested": lambda a: {"a": [a((2,)), (a(()),)], "b": Pair(a((1,)), {"c": a((3,))})},
    "an empty part": lambda a: [a((0, 3)), a((1, 3))],
}


@entries_and_directions
@pytest.mark.parametrize("kind", ARRAYS)
def test_a_point_may_be_any_pytree_of_arrays(xp: Any, kind: str, method: str) -> None:
    draw = np.random.default_rng(51).normal
    point = ARRAYS[kind](lambda shape: xp.asarray(draw(size=shape)))
    case = lambda p: _cubes(xp.namespace, p), _by_hand, point
    assert_only_right_passes(*case, method=method)
    report = check.gradient(*case)
    for found in (report.analytic, report.numeric):
        assert type(found) is type(point)
        for one, other in zip(_leaves(found), _leaves(_by_hand(point)), strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(xp.host(one), xp.host(other), rtol=xp.rounding(1e-13))


NUMBERS: dict[str, Any] = {
    "numbers": (0.5, 2, np.float64(1.5)),
    "nested": [[0.5, -1.0], {"a": 2.0}],
    "lists of several lengths": [[0.5, -1.0], [1.5]],
    "a number beside an array": [np.array([0.5, -1.0]), 2.0],
}


@difference_methods
@pytest.mark.parametrize("kind", NUMBERS)
def test_a_point_may_be_plain_numbers(nothing_chosen: None, kind: str, method: str) -> None:
    case = lambda p: _cubes(np, p), _by_hand, NUMBERS[kind]
    assert_only_right_passes(*case, method=method)


def test_a_masked_array_is_an_error_as_its_mask_would_be_lost() -> None:
    masked = np.ma.array([1.0, 2.0], mask=[True, False])
    with pytest.raises(ValueError, match=r"^point has masked values \(1 of 2\)"):
        check.gradient(np.sum, np.ones_like, masked)
    with pytest.raises(ValueError, match=r"^gradient\(point\) has masked values \(1 of 2\)"):
        check.gradient(np.sum, lambda p: masked, np.ones(2))


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_integers_are_cast_and_the_report_has_a_note(xp: Any, dtype: str) -> None:
    whole = getattr(xp.namespace, dtype)
    point = xp.namespace.astype(xp.asarray([1, 2, 3], dtype=None), whole)
    report = check.gradient(lambda p: xp.namespace.sum(p**3), lambda p: 3.0 * p * p, point)
    assert report.verdict == "pass"
    assert f"the point was cast from {dtype} to floating numbers" in report.notes[0]
    assert report.notes[0] in str(report)


def test_a_pandas_point_stays_a_dataframe_in_the_calls(nothing_chosen: None) -> None:
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([0.5, -1.0, 2.0], index=["a", "b", "c"])
    labels = lambda p: p["a"] * p["b"], lambda p: pandas.Series([p["b"], p["a"], 0.0])
    assert_only_right_passes(*labels, series)
    frame = {"table": pandas.DataFrame({"u": [0.5, 1.0], "v": [-1.0, 2.0]})}
    cubes = lambda p: (p["table"] ** 3).sum().sum(), lambda p: {"table": 3 * p["table"] ** 2}
    assert_only_right_passes(*cubes, frame)
    assert list(check.gradient(*cubes, frame).numeric["table"].columns) == ["u", "v"]


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda g: g.tolist(),
    "a column": lambda g: g[:, None],
    "in float32": lambda g: g.astype(np.float32),
    "whole numbers": lambda g: g.astype(np.int64),
}


@difference_methods
@pytest.mark.parametrize("kind", GRADIENTS)
def test_a_gradient_may_have_another_array_type(kind: str, method: str) -> None:
    value, gradient = lambda p: np.sum(p * p), lambda p: GRADIENTS[kind](2.0 * p)
    for wrong, verdict in ((gradient, "pass"), (lambda p: gradient(2.0 * p), "fail")):
        assert check.gradient(value, wrong, np.array([1.5, -1.0]), method=method).verdict == verdict


@dataclasses.dataclass(frozen=True)
class Frozen:
    w: Any
    steps: int
    name: str
    solver: Callable[..., Any]


class Slots:
    """An attrs class, as far as a check sees it."""

    __slots__ = ("name", "w")
    __attrs_attrs__ = (SimpleNamespace(name="w"), SimpleNamespace(name="name"))

    def __init__(self, w: Any, name: str) -> None:
        self.w, self.name = w, name


class Bunch(dict[str, Any]):
    """scikit-learn's: a dict with attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


GENERATOR = np.random.default_rng(0)
CONSTANTS = {"steps": 3, "name": "oak", "rng": GENERATOR, "mask": np.array([True]), "none": None}
RECORDS: dict[str, Callable[[Any], Any]] = {
    "a frozen dataclass": lambda w: Frozen(w, 3, "oak", np.tanh),
    "an attrs class": lambda w: Slots(w, "oak"),
    "a SimpleNamespace": lambda w: SimpleNamespace(w=w, **CONSTANTS),
    "an OrderedDict": lambda w: OrderedDict(CONSTANTS, w=w),
    "a defaultdict": lambda w: defaultdict(list, CONSTANTS, w=w),
    "a Bunch": lambda w: Bunch(CONSTANTS, w=w),
    "a mapping proxy": lambda w: MappingProxyType({**CONSTANTS, "w": w}),
    "a named tuple": lambda w: Pair(w, "oak"),
    "nested": lambda w: {"a": [Frozen(SimpleNamespace(w=w), 3, "oak", np.tanh), "oak"], "k": 2},
}


def _only(structure: Any) -> Any:
    """Return the only floating array or number of a structure."""
    if isinstance(structure, Mapping):
        parts = list(structure.values())
    elif isinstance(structure, list | tuple):
        parts = list(structure)
    elif isinstance(structure, Frozen | SimpleNamespace):
        parts = list(vars(structure).values())
    elif isinstance(structure, Slots):
        parts = [structure.w, structure.name]
    else:
        return structure if getattr(structure, "dtype", None) == np.float64 else None
    return next((found for part in parts if (found := _only(part)) is not None), None)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_keeps_its_type(nothing_chosen: None, kind: str) -> None:
    point, types = RECORDS[kind](np.array([0.5, -1.5])), set()

    def value(p: Any) -> float:
        types.add(type(p))
        return float(np.sum(_only(p) ** 3))

    for factor, verdict in ((3.0, "pass"), (6.0, "fail")):

        def gradient(p, factor=factor):
            return RECORDS[kind](factor * _only(p) ** 2)

        report = check.gradient(value, gradient, point)
        assert report.verdict == verdict
        assert type(report.numeric) is type(point)
    assert types == {type(point)}


def test_constants_are_passed_as_they_are_and_need_no_derivative(nothing_chosen: None) -> None:
    point = {**CONSTANTS, "w": 0.5}

    def value(p: dict[str, Any]) -> float:
        assert all(p[name] is constant for name, constant in CONSTANTS.items())
        return p["w"] ** p["steps"]

    assert check.gradient(value, lambda p: {"w": 3 * p["w"] ** 2}, point).verdict == "pass"
    with pytest.raises(ValueError, match=r"the keys \['steps', .*not the keys \['name'\]"):
        check.gradient(value, lambda p: {"name": 0.0}, point)


def test_a_pytree_of_jax_keeps_its_type_and_a_meta_field_is_constant(jax: Any) -> None:

    class Tree:
        def __init__(self, w: Any, power: int) -> None:
            self.w, self.power = w, power

    jax.tree_util.register_pytree_node(
        Tree, lambda t: ((t.w,), t.power), lambda power, children: Tree(children[0], power)
    )
    point = Tree(np.array([0.5, -1.5]), 3)
    keys = {"x": jax.numpy.asarray([0.5, 2.0]), "key": jax.random.key(0)}  # of a dtype of JAX's own
    found = check.gradient(
        lambda p: jax.numpy.sum(p["x"] ** 2 * jax.random.uniform(p["key"])),
        lambda p: {"x": 2 * p["x"] * jax.random.uniform(p["key"])},
        keys,
    )
    assert found.verdict == "pass"

    def value(t):
        return np.sum(t.w**t.power)

    for factor, verdict in ((1.0, "pass"), (2.0, "fail")):

        def gradient(t, f=factor):
            return Tree(f * t.power * t.w ** (t.power - 1), t.power)

        assert check.gradient(value, gradient, point).verdict == verdict


@entries_and_directions
def test_argnums_choose_arguments_and_integers_among_them_are_cast(xp: Any, method: str) -> None:
    def value(k, w, n, name):
        return k * xp.namespace.sum(w**n)

    def by_k(k, w, n, name):
        return xp.namespace.sum(w**n)

    def by_w(k, w, n, name):
        return k * n * w ** (n - 1)

    args = (xp.asarray([0.5, 1.5]), 3, "name")

    def check_at(gradient: Any, argnums: Any) -> Any:
        return check.gradient(value, gradient, 2, args=args, argnums=argnums, method=method)

    assert check_at(by_w, 1).verdict == "pass"
    assert check_at(lambda *a: 2.0 * by_w(*a), 1).verdict == "fail"
    assert check_at(by_k, 0).verdict == "pass"
    assert check_at(lambda *a: (by_w(*a), by_k(*a)), (1, 0)).verdict == "pass"
    assert check_at(lambda *a: (by_w(*a), value(*a)), (1, 0)).verdict == "fail"
    with pytest.raises(ValueError, match=r"argnums must be positions .* from 0 to 3, not 4"):
        check_at(by_k, 4)
    with pytest.raises(TypeError, match="holds no real or complex numbers: it is str"):
        check_at(by_k, 3)


@difference_methods
def test_a_complex_number_has_the_gradient_of_pytorch_and_jax_the_conjugate(
    method: str, torch: Any
) -> None:
    z = np.array([0.5 - 1.0j, 2.0 + 0.25j])

    def value(z: np.ndarray) -> float:
        return float(np.sum(np.abs(z) ** 4 + z.real * z.imag**2))

    def gradient(z: np.ndarray) -> np.ndarray:
        t = torch.tensor(z, requires_grad=True)
        torch.sum(torch.abs(t) ** 4 + t.real * t.imag**2).backward()
        return t.grad.numpy()

    assert check.gradient(value, gradient, z, method=method).verdict == "pass"
    report = check.gradient(value, lambda z: np.conj(gradient(z)), z, method=method)
    assert report.verdict == "fail"
    assert report.worst[0].tensor == ".imag"


def test_the_gradient_of_another_library_is_checked_at_numpys_points(torch: Any) -> None:

    def gradient(p: np.ndarray, factor: float = 1.0) -> Any:
        t = torch.tensor(p, requires_grad=True)
        torch.sum(torch.sin(t)).backward()
        return factor * t.grad

    def value(p):
        return torch.sum(torch.sin(torch.as_tensor(p)))

    for factor, verdict in ((1.0, "pass"), (1.1, "fail")):
        found = check.gradient(value, lambda p, f=factor: gradient(p, f), np.array([0.5, 2.0]))
        assert found.verdict == verdict


def test_a_tensor_that_requires_grad_still_does_in_the_callers_functions(torch: Any) -> None:

    def value(p: Any) -> Any:
        return torch.sum(p["w"] ** 3) + torch.sum(p["c"])

    def slope(w: Any) -> Any:
        return torch.autograd.grad(torch.sum(w**3), w, create_graph=True)[0]

    w = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    point = {"w": w, "c": torch.ones(2, dtype=torch.float64)}
    for factor, verdict in ((1.0, "pass"), (1.5, "fail")):
        gradient = lambda p, k=factor: {"w": k * slope(p["w"]), "c": torch.ones(2)}  # noqa: E731
        report = check.gradient(value, gradient, point, samples=2, points=[point])
        assert report.verdict == verdict
        assert not any(part.requires_grad for part in report.numeric.values())
    seen: list[bool] = []
    check.gradient(lambda p: seen.append(p["c"].requires_grad) or value(p), gradient, point)
    assert not any(seen)
    assert bx.check_hessian(slope, lambda w: torch.diag(6.0 * w), w).verdict == "pass"
    assert bx.check_hvp(slope, lambda w, v: 6.0 * w * v, w).verdict == "pass"
    assert bx.check_vjp(slope, lambda w, u: torch.autograd.grad(slope(w), w, u)[0], w).passed
    assert not bx.numeric_gradient(lambda w: slope(w).sum(), w).value.requires_grad


def test_tables_of_polars_keep_their_type_and_names() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"u": [1.0, 2.0, 3.0], "v": [4.0, 5.0, 6.0]})

    def value(p: Any) -> float:
        assert isinstance(p["frame"], polars.DataFrame)
        assert p["row"].name == "w"
        return float((p["frame"]["u"] ** 2 * p["frame"]["v"]).sum() + (p["row"] ** 3).sum())

    def gradient(p: Any, factor: float = 2.0) -> Any:
        u, v = p["frame"]["u"], p["frame"]["v"]
        frame = polars.DataFrame({"u": factor * u * v, "v": u**2})
        return {"frame": frame, "row": 3.0 * p["row"] ** 2}

    point = {"frame": frame, "row": polars.Series("w", [1.0, 2.0])}
    for method in ("auto", "directional"):
        assert bx.check_gradient(value, gradient, point, method=method).passed
        wrong = bx.check_gradient(value, lambda p: gradient(p, 2.1), point, method=method)
        assert wrong.verdict == "fail"
        assert wrong.worst[0].name.startswith("['frame'][")
