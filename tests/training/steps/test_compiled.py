"""Compiled trainings: what compiles anew, and what never does.

Specifies ``closures`` and ``function_cache``.
"""

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from tests.helpers import long
from tests.user_layers import Gated, PassThrough

pytestmark = pytest.mark.core

# Shapes of no other test: JAX keeps what it compiles for a shape as long as the process.
N_IN, ROWS, OTHER_ROWS = 3, 53, 59

generator = np.random.default_rng(38)
_compilations: list[str] = []


def _count(event: str, *_: Any, **__: Any) -> None:
    if event.endswith("backend_compile_duration"):
        _compilations.append(event)


@pytest.fixture(scope="module")
def _listening(jax: Any) -> Iterator[None]:
    jax.monitoring.register_event_duration_secs_listener(_count)
    yield
    jax.monitoring.clear_event_listeners()


@pytest.fixture
def compilations(xp: Any, _listening: None) -> Callable[..., int]:
    """The number of functions that JAX compiles in a call."""
    if xp.name != "jax":
        pytest.skip("JAX alone reports its compilations")

    def count(function: Callable[..., Any], *arguments: Any, **options: Any) -> int:
        _compilations.clear()
        function(*arguments, **options)
        return len(_compilations)

    return count


def _data(xp: Any, rows: int, *, labels: bool = False) -> tuple[Any, Any]:
    x, y = generator.normal(size=(rows, N_IN)), generator.normal(size=(rows, 2))
    if not labels:
        return xp.asarray(x), xp.asarray(y)
    one_hot = np.eye(2)[generator.integers(0, 2, rows)]
    return xp.asarray(x), xp.asarray(one_hot)


# In each kind of training the most that is compiled by: a first fit; the same again; one of more
# epochs; one of many more; one with other numbers of rows. The steps are one function for each
# shape of their batches, the checks of the data another.
KINDS: dict[str, tuple[dict[str, Any], list[int]]] = {
    # The loop, the checks, the sum of the losses of two calls, and the last loss in two steps.
    "full batches": ({}, [5, 0, 0, 0, 2]),
    # Also the smaller last batch, with its indices, the validation set, and the epoch's mean.
    "batches": (
        {"batch_size": 10, "metrics": ["r2"], "early_stopping": bx.EarlyStopping(90)},
        [10, 0, 0, 0, 6],
    ),
    # Also the classes, and the two sets, of rows drawn by class.
    "weights": ({"batch_size": 10, "labels": True, "validation": 0.2}, [13, 0, 0, 0, 9]),
}


@pytest.mark.parametrize("kind", ["full batches", "batches", long("weights")])
def test_no_more_is_compiled_than_before(xp: Any, compilations: Any, kind: str) -> None:
    """A change that adds a compilation in silence costs users a part of a second, or several."""
    given, most = KINDS[kind]
    labels = given.get("labels", False)
    loss = "categorical_cross_entropy" if labels else "mean_squared_error"
    network = bx.mlp([N_IN, 5, 2], hidden="tanh", loss=loss)
    theta = xp.initialize(network)
    sets = {rows: _data(xp, rows, labels=labels) for rows in (ROWS, OTHER_ROWS, 11, 12)}
    weights = {rows: xp.asarray(generator.uniform(size=rows)) for rows in (ROWS, OTHER_ROWS)}

    def fit(epochs: int, rows: int, held_out: int) -> None:
        options = {key: value for key, value in given.items() if key != "labels"}
        if labels:
            options["sample_weight"] = weights[rows]
        elif options:
            options["validation"] = sets[held_out]
        bx.fit(network, theta, *sets[rows], optimizer="adam", epochs=epochs, **options)

    calls = [(20, ROWS, 11), (20, ROWS, 11), (30, ROWS, 11), (600, ROWS, 11), (20, OTHER_ROWS, 12)]
    found = [compilations(fit, *call) for call in calls]
    assert all(n <= m for n, m in zip(found, most, strict=True)), found


# ---- the outer variables of a user's function

_LIMITS: Any = None


def _beyond(predictions: Any, targets: Any, weights: Any) -> Any:
    """A metric that reads a variable of its module."""
    spread = predictions - targets
    limits = _LIMITS["limits"] if isinstance(_LIMITS, dict) else _LIMITS
    return (spread * limits[0]).sum() + 0.0 * limits[1]


def _in_itself() -> list[Any]:
    limits: list[Any] = [0.5, 2.0]
    limits.append(limits)
    return limits


VARIABLES: dict[str, Callable[[Any, float], Any]] = {
    "array": lambda xp, a: xp.asarray(np.asarray([a, 2.0])),
    "NumPy's array": lambda xp, a: np.asarray([a, 2.0]),
    "list": lambda xp, a: [a, 2.0],
    "list that contains itself": lambda xp, a: [a, *_in_itself()[1:]],
    "dict": lambda xp, a: {"limits": (a, np.asarray(2.0)), "names": {"a", "b"}, "rows": slice(2)},
}


@pytest.mark.parametrize("kind", VARIABLES)
def test_a_metric_that_reads_a_variable_of_its_module_is_compiled_once(
    xp: Any, compilations: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = bx.mlp([N_IN, 2])
    theta, data = xp.initialize(network), _data(xp, ROWS)
    last: list[float] = []

    def fit() -> None:
        options: dict[str, Any] = {"optimizer": bx.SGD(0.0), "epochs": 2}
        result = bx.fit(network, theta, *data, metrics={"beyond": _beyond}, **options)
        last.append(float(result.history["beyond"][-1]))

    values = [VARIABLES[kind](xp, first) for first in (0.5, 0.25)]
    monkeypatch.setitem(globals(), "_LIMITS", values[0])
    fit()
    assert compilations(fit) == 0
    # Another value is another function.
    monkeypatch.setitem(globals(), "_LIMITS", values[1])
    assert compilations(fit) > 0
    assert compilations(fit) == 0
    assert last[2] == pytest.approx(0.5 * last[0])
    if kind != "array":  # JAX's own do not change
        part: Any = values[1]["names"] if kind == "dict" else values[1]
        if kind == "dict":
            part.add("c")
        else:
            part[0] = 1.0
        assert compilations(fit) > 0
        assert last[-1] == pytest.approx((0.5 if kind == "dict" else 2.0) * last[0])


def test_a_function_that_is_defined_again_is_not_compiled_again(xp: Any, compilations: Any) -> None:
    """As a lambda in a loop, or in a cell that is run again; what it reads counts."""
    network = bx.mlp([N_IN, 2])
    theta, data = xp.initialize(network), _data(xp, ROWS)
    found: list[float] = []

    def fit(factor: float, power: int = 1, least: float = 0.0) -> None:
        def raised(value: Any) -> Any:
            return factor * value**power

        metrics = {"m": lambda p, t, w, least=least: raised(abs(p - t).sum()) + least}
        options: dict[str, Any] = {"optimizer": bx.SGD(0.0), "epochs": 2, "metrics": metrics}
        found.append(float(bx.fit(network, theta, *data, **options).history["m"][-1]))

    fit(1.0)
    assert compilations(fit, 1.0) == 0
    assert compilations(fit, 3.0) > 0
    assert compilations(fit, 1.0, power=2) > 0
    assert compilations(fit, 1.0, least=5.0) > 0
    first = found[0]
    assert found == pytest.approx([first, first, 3.0 * first, first**2, first + 5.0])


class _Holder:
    """An object has a hash, and attributes that may change."""

    factor = 1.0


HOLDERS: dict[str, Callable[[], Any]] = {
    "object": _Holder,
    "class": lambda: type("Settings", (), {}),
    "module": lambda: types.ModuleType("settings"),
    "function": lambda: lambda: None,
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_a_metric_follows_an_attribute_that_changes(xp: Any, kind: str) -> None:
    network, holder = bx.mlp([N_IN, 2]), HOLDERS[kind]()
    theta, data = xp.initialize(network), _data(xp, ROWS)
    found = []
    for holder.factor in (1.0, 3.0):
        metrics = {"m": lambda p, t, w: holder.factor * array_namespace(p).sum(abs(p - t))}
        options: dict[str, Any] = {"optimizer": bx.SGD(0.0), "epochs": 2, "metrics": metrics}
        found.append(float(bx.fit(network, theta, *data, **options).history["m"][-1]))
    assert found[1] == pytest.approx(3.0 * found[0])


_FACTOR = 1.0


class _Scaled(PassThrough):
    """A layer that reads a variable of its module."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, None]:
        return _FACTOR * x, None

    def backward(
        self, parameters: Any, cache: None, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[()]]:
        return _FACTOR * g, ()


class _ScaledDescent:
    """An optimizer that reads a variable of its module."""

    def initialize(self, theta: Any) -> tuple[()]:
        return ()

    def update(self, theta: Any, gradient: Any, state: Any) -> Any:
        return theta - _FACTOR * gradient, state


def _scaled(predictions: Any, targets: Any, weights: Any, power: int) -> Any:
    return _FACTOR * array_namespace(predictions).sum(abs(predictions - targets) ** power)


READERS: dict[str, tuple[list[Any], Any, Any]] = {
    "layer": ([_Scaled()], bx.SGD(0.1), None),
    "layer in the user's own layer": ([Gated(_Scaled())], bx.SGD(0.1), None),
    "optimizer": ([], _ScaledDescent(), None),
    "partial": ([], bx.SGD(0.0), functools.partial(_scaled, power=2)),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_layer_an_optimizer_and_a_partial_follow_a_variable_of_their_module(
    xp: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, optimizer, metric = READERS[kind]
    network = bx.Network([*layers, bx.Dense(N_IN, 2)], "mean_squared_error")
    theta, data = xp.initialize(network), _data(xp, ROWS)
    measured = {} if metric is None else {"metrics": {"m": metric}}

    options: dict[str, Any] = {"optimizer": optimizer, "epochs": 2, **measured}
    bx.fit(network, theta, *data, **options)
    monkeypatch.setitem(globals(), "_FACTOR", 0.0)
    result = bx.fit(network, theta, *data, **options)
    if kind == "partial":
        assert result.history["m"].tolist() == [0.0, 0.0]
    else:  # no gradient of the weights, and none of theta
        parts = [network.unpack(each)[-1][0] for each in (result.theta, theta)]
        before, after = map(bx.to_host, parts)
        assert (before == after).all()


def test_a_partial_that_is_made_again_is_not_compiled_again(xp: Any, compilations: Any) -> None:
    network = bx.mlp([N_IN, 2])
    theta, data = xp.initialize(network), _data(xp, ROWS)

    def fit(power: int) -> None:
        metrics = {"m": functools.partial(_scaled, power=power)}
        bx.fit(network, theta, *data, optimizer=bx.SGD(0.0), epochs=2, metrics=metrics)

    fit(1)
    assert compilations(fit, 1) == 0
    assert compilations(fit, 3) > 0


class _Opaque:
    """A value that may change, and has no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> float:
        return 0.5


def test_a_variable_whose_changes_cannot_be_noticed_is_named_in_a_warning(
    xp: Any, compilations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = bx.mlp([N_IN, 2])
    theta, data = xp.initialize(network), _data(xp, ROWS)
    monkeypatch.setitem(globals(), "_LIMITS", _Opaque())
    with pytest.warns(UserWarning, match=r"anew at every call: .* reads _LIMITS \(_Opaque\)"):
        bx.fit(network, theta, *data, optimizer="adam", epochs=2, metrics={"beyond": _beyond})
    metrics = {"m": lambda p, t, w, factor=_LIMITS: factor[0] * abs(p - t).sum()}
    with pytest.warns(UserWarning, match=r"anew at every call: .* an argument given before,"):
        bx.fit(network, theta, *data, optimizer="adam", epochs=2, metrics=metrics)


@dataclass
class _Unhashable(PassThrough):
    """A dataclass has no hash if it has a comparison, the default."""

    factor: Any = 1.0


@dataclass
class _Descent:
    """An optimizer with an array."""

    rates: Any

    def initialize(self, theta: Any) -> Any:
        return ()

    def update(self, theta: Any, gradient: Any, state: Any) -> Any:
        return theta - self.rates * gradient, state


@pytest.mark.parametrize("inside", [False, True])
def test_a_layer_without_a_hash_and_an_optimizer_with_an_array_are_compiled_once(
    xp: Any, compilations: Any, inside: bool
) -> None:
    own: Any = _Unhashable(np.ones(2))
    layer = bx.Residual(bx.Dense(4, 4), own) if inside else own
    network = bx.Network([bx.Dense(N_IN, 4), layer, bx.Dense(4, 2)], "mean_squared_error")
    theta, data = xp.initialize(network), _data(xp, ROWS)
    optimizer = _Descent(0.0 * theta + 0.1)
    calls = [
        compilations(bx.fit, network, theta, *data, optimizer=optimizer, epochs=2) for _ in range(2)
    ]
    assert calls[0] > 0
    assert calls[1] == 0
