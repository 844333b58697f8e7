"""The gradient check of users' functions, in any library's arrays, of any size, stacked or not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]
every_method = pytest.mark.parametrize("method", METHODS)

COEFFICIENTS = [[1.0, -2.0, 0.5], [3.0, 1.5, -1.0]]
POINT = [[0.4, -1.1, 0.9], [1.6, 0.2, -0.8]]


# ---- the arrays of each library, with the gradients that it takes itself


class Library(NamedTuple):
    """Where a user computes: the namespace, a way to it, and a value's gradient if it has any."""

    namespace: Any
    array: Callable[[Any], Any]
    differentiate: Callable[[Callable[[Any], Any]], Callable[[Any], Any]] | None = None


def _numpy() -> Library:
    return Library(np, lambda numbers: np.asarray(numbers, dtype=np.float64))


def _strict() -> Library:
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    return Library(strict, lambda numbers: strict.asarray(numbers, device=device))


def _torch() -> Library:
    torch = pytest.importorskip("torch")

    def differentiate(value: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def gradient(point: Any) -> Any:
            leaves = _mapped(point, lambda p: p.detach().clone().requires_grad_(True))
            value(leaves).backward()
            return _mapped(leaves, lambda p: p.grad)

        return gradient

    return Library(
        torch, lambda numbers: torch.asarray(numbers, dtype=torch.float64), differentiate
    )


def _jax() -> Library:
    jax = pytest.importorskip("jax")
    # In float64 if this process has it, else in float32.
    return Library(jax.numpy, lambda numbers: jax.numpy.asarray(np.asarray(numbers)), jax.grad)


LIBRARIES = {"numpy": _numpy, "array-api-strict": _strict, "torch": _torch, "jax": _jax}
every_library = pytest.mark.parametrize("name", LIBRARIES)


def _mapped(structure: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(structure, dict):
        return {key: change(part) for key, part in structure.items()}
    return [change(p) for p in structure] if isinstance(structure, list) else change(structure)


@pytest.mark.parametrize("method", ["auto", "directional", "taylor"])
@pytest.mark.parametrize("axis", [None, (-2, -1)], ids=["one point", "stacks too"])
@every_library
def test_a_function_of_any_library_is_checked_in_its_own_arrays(
    name: str, axis: Any, method: str
) -> None:
    library = LIBRARIES[name]()
    c, point = library.array(COEFFICIENTS), library.array(POINT)

    def value(p: Any) -> Any:
        return library.namespace.sum(c * library.namespace.sin(p) + p * p, axis=axis)

    def by_hand(p: Any) -> Any:
        return c * library.namespace.cos(p) + 2.0 * p

    right = library.differentiate(value) if library.differentiate else by_hand
    good = bx.check_gradient(value, right, point, method=method)
    bad = bx.check_gradient(value, lambda p: 1.1 * right(p), point, method=method)
    assert (good.verdict, bad.verdict) == ("pass", "fail")


@pytest.mark.parametrize("kind", ["dict", "list"])
@every_library
def test_a_dict_or_a_list_of_any_librarys_arrays_is_a_point(name: str, kind: str) -> None:
    library = LIBRARIES[name]()
    arrays = [library.array(POINT), library.array(COEFFICIENTS[0])]
    point: Any = arrays if kind == "list" else dict(zip(["weights", "bias"], arrays, strict=True))

    # By key, not in order: jax.grad sorts a dict, and so may any gradient.
    first, second = ("weights", "bias") if kind == "dict" else (0, 1)

    def value(p: Any) -> Any:
        weights, bias = p[first], p[second]
        return library.namespace.sum(library.namespace.sin(weights) * bias * bias)

    def by_hand(p: Any) -> Any:
        weights, bias = p[first], p[second]
        by_bias = library.namespace.sum(library.namespace.sin(weights), axis=0) * 2.0 * bias
        by_weights = library.namespace.cos(weights) * bias * bias
        return [by_weights, by_bias] if kind == "list" else {second: by_bias, first: by_weights}

    right = library.differentiate(value) if library.differentiate else by_hand
    good = bx.check_gradient(value, right, point)
    bad = bx.check_gradient(value, lambda p: _mapped(right(p), lambda g: -g), point)
    assert (good.verdict, bad.verdict) == ("pass", "fail")
    assert "sign" in str(bad.diagnosis)


@every_library
def test_copies_that_are_coupled_are_found_out_and_taken_one_by_one(name: str) -> None:
    library, shapes = LIBRARIES[name](), []
    sum_, point = library.namespace.sum, library.array(COEFFICIENTS[0])

    def value(p: Any) -> Any:
        shapes.append(tuple(p.shape))
        return sum_(p * p) + sum_(p, axis=-1)

    assert bx.check_gradient(value, lambda p: 2.0 * p + 1.0, point).verdict == "pass"
    assert shapes[-3:] == [(3,)] * 3
    assert bx.check_gradient(value, lambda p: 4.0 * p + 1.0, point).verdict == "fail"


def test_a_tensor_that_wants_a_gradient_is_a_point_too() -> None:
    torch = pytest.importorskip("torch")
    point = torch.tensor(POINT, dtype=torch.float64, requires_grad=True)
    report = bx.check_gradient(lambda p: torch.sum(p**3), lambda p: 3.0 * p.detach() ** 2, point)
    assert report.verdict == "pass"
    assert point.grad is None


# ---- a broken promise of batched


@pytest.mark.parametrize("method", ["auto", "complex_step", "centered"])
def test_batched_copies_that_are_coupled_are_an_error_that_names_batched(
    xp: Any, method: str
) -> None:
    sum_ = xp.namespace.sum
    with pytest.raises(ValueError, match="batched"):
        bx.check_gradient(
            lambda p: sum_(p * p) + sum_(p, axis=-1),
            lambda p: 2.0 * p + 1.0,
            xp.asarray(COEFFICIENTS[0]),
            method=method,
            batched=True,
        )


@every_method
@pytest.mark.parametrize("shape", [(), (1, 1), (2,)])
def test_a_batched_value_of_another_shape_is_an_error_that_names_batched(
    xp: Any, shape: tuple[int, ...], method: str
) -> None:
    with pytest.raises(ValueError, match=r"one number for each is expected.*batched"):
        bx.check_gradient(
            lambda p: xp.namespace.zeros(shape),
            lambda p: p,
            xp.asarray(COEFFICIENTS[0]),
            method=method,
            batched=True,
        )


# ---- a million entries


class Large(NamedTuple):
    """``sum(p**3)`` over a dict of a million numbers; one entry of its gradient may be wrong."""

    namespace: Any
    wrong: tuple[str, tuple[int, ...]] | None = None

    def value(self, p: Any) -> Any:
        return sum(self.namespace.sum(part * part * part) for part in p.values())

    def gradient(self, p: Any) -> Any:
        found = {key: 3.0 * part * part for key, part in p.items()}
        if self.wrong is not None:
            key, index = self.wrong
            host = np.array(bx.backends.to_host(found[key]))
            host[index] += 1.0
            home, device = bx.backends.require_owner(p[key], key), bx.backends.device_of(p[key])
            found[key] = home.from_host(host, p[key].dtype, device)
        return found


def _large_point(xp: Any) -> dict[str, Any]:
    generator = np.random.default_rng(61)
    shapes = {"weights": (900, 1000), "bias": (100_000,)}
    return {key: xp.asarray(generator.normal(size=shape)) for key, shape in shapes.items()}


def test_a_million_entries_are_checked_by_eight_evaluations(xp: Any) -> None:
    problem, calls = Large(xp.namespace), []

    def value(p: Any) -> Any:
        calls.append(p["bias"].shape)
        return problem.value(p)

    report = bx.check_gradient(value, problem.gradient, _large_point(xp))
    assert (report.verdict, report.method) == ("pass", "directional")
    assert report.evaluations == len(calls) <= 8


@pytest.mark.parametrize("wrong", [("weights", (417, 803)), ("bias", (99_999,))])
def test_the_one_wrong_entry_of_a_million_is_found(
    xp: Any, wrong: tuple[str, tuple[int, ...]]
) -> None:
    problem = Large(xp.namespace, wrong)
    report = bx.check_gradient(problem.value, problem.gradient, _large_point(xp))
    assert (report.verdict, report.method) == ("fail", "directional")
    assert report.evaluations <= 8
    assert (report.worst[0].tensor, report.worst[0].index) == (f"[{wrong[0]!r}]", wrong[1])


class _ManyCallsError(Exception):
    pass


@pytest.mark.parametrize(("size", "by_entries"), [(20_000, True), (20_001, False)])
def test_auto_goes_by_directions_above_20000_entries(xp: Any, size: int, by_entries: bool) -> None:
    calls = 0

    def value(p: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 100:  # an end is soon put to a check entry by entry
            raise _ManyCallsError
        return xp.namespace.sum(p * p)

    def check() -> Any:
        point = xp.asarray(np.linspace(-1.0, 1.0, size))
        return bx.check_gradient(value, lambda p: 2.0 * p, point, batched=False)

    if by_entries:
        with pytest.raises(_ManyCallsError):
            check()
    else:
        assert (check().verdict, calls <= 8) == ("pass", True)


# ---- memory


@pytest.mark.parametrize(("method", "bytes_each"), [("complex_step", 16), ("centered", 8)])
@pytest.mark.parametrize("copies", [1, 6, 60])
def test_the_largest_stack_fits_max_memory(
    xp: Any, copies: int, method: str, bytes_each: int
) -> None:
    largest = 0

    def value(p: Any) -> Any:
        nonlocal largest
        largest = max(largest, int(p.shape[0]))
        return xp.namespace.sum(p * p, axis=(-2, -1))

    point = xp.asarray(POINT)
    of_a_copy = bytes_each * 6
    report = bx.check_gradient(
        value, lambda p: 2.0 * p, point, method=method, batched=True,
        max_memory=copies * of_a_copy,
    )  # fmt: skip
    assert report.verdict == "pass"
    assert (1 if copies < 60 else 2) <= largest <= copies


# ---- matrices, of which PyTorch's fast mode takes any gradient at 256 x 256

MATRIX_MISTAKES: dict[str, Callable[[Any], Any]] = {
    "zero": lambda g: 0.0 * g,
    "sign": lambda g: -g,
    "factor 2": lambda g: 2.0 * g,
    "transposed": np.transpose,
    "a tenth of a percent": lambda g: 1.001 * g,
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [8, 64, 256])
def test_a_matrix_of_any_size_takes_eight_evaluations(n: int, dtype: str) -> None:
    generator = np.random.default_rng(n)
    x, y = generator.normal(size=(2, 16, n)).astype(dtype)
    weights = (generator.normal(size=(n, n)) / np.sqrt(n)).astype(dtype)
    right = x.T @ np.tanh(x @ weights - y) / y.size

    def check(gradient: Any, seed: int) -> bx.GradientReport:
        return bx.check_gradient(
            lambda w: np.mean(np.log(np.cosh(x @ w - y))),
            lambda _: gradient,
            weights,
            method="directional",
            seed=seed,
        )

    for seed in range(5):
        reports = {name: check(wrong(right), seed) for name, wrong in MATRIX_MISTAKES.items()}
        assert {report.verdict for report in reports.values()} == {"fail"}
        passed = check(right, seed)
        assert passed.verdict == "pass"
        assert max(r.evaluations for r in [passed, *reports.values()]) <= 8


@pytest.mark.parametrize("method", ["auto", "centered", "directional"])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_a_value_of_few_digits_is_no_proof_of_anything(size: int, method: str) -> None:
    """A value that is rounded to float32 inside shows slopes of 0 to a short step."""
    for seed in range(10):
        point = np.random.default_rng(seed).normal(size=size)
        right, twice = (
            bx.check_gradient(
                lambda p: float(np.sum(np.sin(p.real)).astype(np.float32)),
                lambda p, factor=factor: factor * np.cos(p),
                point,
                method=method,
                seed=seed,
            ).verdict
            for factor in (1.0, 2.0)
        )
        assert right in ("pass", "inconclusive")
        assert twice in ("fail", "inconclusive")
