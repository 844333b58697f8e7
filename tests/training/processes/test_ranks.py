"""A training on the ranks of a communicator equals the training in one process.

Specifies ``one_process``, ``exchange``, ``member_shares``, ``process_protocol`` and ``row_shares``.
"""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.core import dropped
from backprop_xp.networks.numbers.random_bits import RowKey, fold_in
from backprop_xp.training.processes import row_shares
from backprop_xp.training.processes.exchange import Ranks, described
from backprop_xp.training.processes.row_shares import RowRanks
from tests.thread_ranks import ThreadRank, World, on_ranks
from tests.user_layers import PassThrough, sample_network

pytestmark = pytest.mark.long

# Parts of a sum are added in another order: 1e-16 an update.
SAME = 1e-12
# Sums of rows round by their number of networks, and steps by the loss amplify that a thousandfold.
SAME_STEPS = 1e-7
ROWS, BATCH = 23, 8
# The first row of each rank: ragged shares, and some without a row.
BOUNDS = {1: [0], 2: [0, 9], 3: [0, 0, 14], 5: [0, 2, 2, 11, 22]}
GENERATOR = np.random.default_rng(81)
X, VALIDATION_X = GENERATOR.normal(size=(ROWS, 3)), GENERATOR.normal(size=(11, 3))
LABELS, VALIDATION_LABELS = X[:, 0] + X[:, 1] ** 2 > 0.5, VALIDATION_X[:, 0] > 0.0
WEIGHTS = GENERATOR.uniform(0.0, 2.0, ROWS) * (np.arange(ROWS) % 3 != 1)
BOOTSTRAPS = GENERATOR.integers(0, 3, (3, ROWS)).astype(float)
BOOTSTRAPS[1, :14] = 0.0  # all of the first ranks' rows


class Noise(PassThrough):
    """A user's random layer, which hands its key on."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return (x, None) if rng is None else dropped(x, fold_in(rng, 9), 0.25)

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return g * cache, ()


@dataclasses.dataclass(frozen=True)
class RatedSGD:
    """A user's optimizer, whose fields describe it."""

    learning_rate: float

    def initialize(self, theta: Any) -> tuple[()]:
        return ()

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None) -> Any:
        return theta - learning_rate * gradient, state


class Plain:
    """A user's optimizer without a __dict__."""

    __slots__ = ()

    def initialize(self, theta: Any) -> tuple[()]:
        return ()

    def update(self, theta: Any, gradient: Any, state: Any) -> Any:
        return theta - 0.1 * gradient, state


NETWORK = bx.Network(
    [*sample_network().layers[:-1], Noise(), bx.Dense(4, 2)], "categorical_cross_entropy", l2=0.1
)
STOPPING = bx.EarlyStopping(2, min_delta=1e-3)


bx.register("tests.test_ranks.Noise", Noise)


class Case(dict[str, Any]):
    """The options of a training; ``stack`` and ``split`` among them."""


CASES = {
    "full batch": Case(batch_size=None, metrics=["accuracy"], train_metrics=True),
    "clip": Case(clip=0.1, l2_of_sum=0.3, shuffle=False),
    "own order": Case(shuffle=lambda epoch: (np.arange(ROWS) * 5 + epoch) % ROWS),
    "weights": Case(sample_weight=WEIGHTS, early_stopping=STOPPING),
    "all weights 0 on a rank": Case(sample_weight=WEIGHTS * (np.arange(ROWS) >= 14)),
    "balanced": Case(class_weight="balanced", metrics=["balanced_accuracy"], sample_weight=WEIGHTS),
    "share": Case(validation=0.3, metrics=["accuracy"], early_stopping=STOPPING, epochs=9),
    "sets": Case(
        validation=True, early_stopping=bx.EarlyStopping(1, watch="training_loss"), epochs=9
    ),
    "plateau": Case(optimizer=bx.SGD(0.5), plateau=bx.Plateau(patience=1), average=bx.EMA(0.9)),
    "stack": Case(stack=(2, 2), l2=np.array([[0.0, 0.1], [0.2, 0.3]]), average=bx.SWA(2)),
    "seeds": Case(stack=(3,), seed=(5, 0, 2**40 + 7), sample_weight=WEIGHTS),
    "bootstraps": Case(stack=(3,), seed=(1, 2, 3), sample_weight=BOOTSTRAPS),
}
STACKS = {
    "stack": Case(stack=(5,), clip=0.2, optimizer=Plain()),
    "seeds": Case(stack=(5, 2), seed=np.arange(10).reshape(5, 2).tolist(), validation=True),
    "share": Case(
        stack=(5,),
        validation=0.3,
        optimizer="falling rates",
        early_stopping=bx.EarlyStopping(2),
        class_weight="balanced",
        epochs=9,
    ),
    "own validation rows": Case(
        stack=(5,),
        seed=(1, 2, 3, 4, 5),
        validation=np.arange(10).reshape(5, 2),
        sample_weight=WEIGHTS,
    ),
    "rates": Case(
        stack=(5,),
        optimizer="rates",
        sample_weight=GENERATOR.uniform(size=(5, ROWS)),
        early_stopping=bx.EarlyStopping(1, min_delta=0.02),
        l2=np.linspace(0.0, 0.3, 5),
    ),
}


def _labels(xp: Any, labels: np.ndarray) -> Any:
    """Return class labels; a column, since labels without rows are not known to be integers."""
    return xp.asarray(labels[:, None].astype("int32"), dtype=None)


def _options(xp: Any, case: Case) -> dict[str, Any]:
    options = {"optimizer": bx.Adam(0.05), "epochs": 4, "batch_size": BATCH, "seed": 3, **case}
    options.pop("stack", None)
    if options.get("validation") is True:
        options["validation"] = xp.asarray(VALIDATION_X), _labels(xp, VALIDATION_LABELS)
    if options["optimizer"] == "falling rates":
        options["optimizer"] = bx.Adam(xp.asarray(np.linspace(0.9, 0.01, 5)[:, None]))
    if options["optimizer"] == "rates":
        rates = bx.schedules.cosine(xp.asarray(np.linspace(0.01, 0.3, 5)[:, None]), 9)
        options["optimizer"] = bx.SGD(rates, momentum=0.9)
    for name in ("sample_weight", "l2"):
        if isinstance(options.get(name), np.ndarray):
            options[name] = xp.asarray(options[name])
    return options


def _share(size: int, rank: int, rows: int = ROWS) -> slice:
    bounds = [bound * rows // ROWS for bound in [*BOUNDS[size], ROWS]]
    return slice(bounds[rank], bounds[rank + 1])


def _case(xp: Any, case: Case, split: str = "rows") -> tuple[Any, dict[str, Any]]:
    if xp.name == "jax" and split == "rows":
        pytest.skip("JAX divides rows by its own sharding")
    return xp.initialize(NETWORK, stack=case.get("stack", ())), _options(xp, case)


def _of_rank(options: dict[str, Any], size: int, rank: int) -> dict[str, Any]:
    """Return the options that a rank gives: its own rows' weights and validation."""
    own, weight = dict(options), options.get("sample_weight")
    if weight is not None:
        own["sample_weight"] = weight[..., _share(size, rank)]
    if isinstance(options.get("validation"), tuple):
        x, y = options["validation"]
        part = _share(size, rank, len(VALIDATION_X))
        own["validation"] = x[part, :], y[part, :]
    return own


def _fit(xp: Any, theta: Any, rows: slice, options: dict[str, Any]) -> bx.FitResult:
    return bx.fit(NETWORK, theta, xp.asarray(X[rows]), _labels(xp, LABELS[rows]), **options)


def _on_ranks(xp: Any, size: int, theta: Any, options: dict[str, Any], **more: Any) -> list[Any]:
    """Train on ranks; all but the first have another theta, which does not count."""

    def call(communicator: Any, rank: int) -> bx.FitResult:
        mine = theta if rank == 0 else theta * 0.5
        own = {**_of_rank(options, size, rank), **more, "communicator": communicator}
        return _fit(xp, mine, _share(size, rank), own)

    return on_ranks(xp, size, call)


def _assert_same(xp: Any, result: Any, alone: bx.FitResult) -> None:
    if isinstance(result, BaseException):
        raise result
    assert (result.epochs, result.state.step) == (alone.epochs, alone.state.step)
    assert result.history.keys() == alone.history.keys()
    for name, values in alone.history.items():
        xp.assert_close(result.history[name], values, SAME)
    for name in ("theta", "state"):
        found, expected = (getattr(each, name) for each in (result, alone))
        found, expected = (getattr(each, "theta", each) for each in (found, expected))
        xp.assert_close(found, expected, SAME)
    for found, expected in zip(result.optimizer_state, alone.optimizer_state, strict=True):
        if hasattr(expected, "shape"):
            xp.assert_close(found, expected, SAME)
        else:
            assert found == expected


@pytest.mark.parametrize("name", CASES)
def test_ranks_that_share_the_rows_train_as_one_process(xp: Any, name: str) -> None:
    theta, options = _case(xp, CASES[name])
    alone = _fit(xp, theta, slice(None), options)
    for size in BOUNDS if xp.name == "numpy" else (3,):
        results = _on_ranks(xp, size, theta, options)
        for result in results:
            _assert_same(xp, result, alone)
            xp.assert_equal(result.theta, results[0].theta)


def test_ranks_with_compiled_loops_and_without_are_refused(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([None, {}])  # of one rank alone
    backend = type(bx.get_backend(xp.name))
    monkeypatch.setattr(backend, "training_replacements", lambda *arguments: next(found))
    theta, options = _case(xp, CASES["full batch"])
    for error in _on_ranks(xp, 2, theta, options):
        assert isinstance(error, ValueError)
        assert "BACKPROP_XP_COMPILE: compiled loops is " in str(error)


@pytest.mark.parametrize("name", STACKS)
def test_ranks_that_share_a_stack_train_each_network_to_the_bit(xp: Any, name: str) -> None:
    theta, options = _case(xp, STACKS[name], "stack")
    alone = _fit(xp, theta, slice(None), options)
    options["split"] = "stack"

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = {**options, "communicator": communicator}
        return _fit(xp, theta if rank == 0 else theta * 0.5, slice(None), own)

    for size in (1, 2, 5) if xp.name == "numpy" else (2,):
        for result in on_ranks(xp, size, call):
            _assert_same(xp, result, alone)
            if xp.name != "jax":  # compiled anew for each number of networks
                xp.assert_equal(result.theta, alone.theta)


@pytest.mark.parametrize("kind", [bx.LevenbergMarquardt, bx.LBFGS])
def test_ranks_that_share_a_stack_end_when_all_its_networks_have_converged(
    xp: Any, kind: Any
) -> None:
    """The tolerances end the first rank's networks within 20 epochs, the last ones later."""
    network = bx.mlp([3, 4, 1], hidden="tanh", l2=0.01)
    theta, tolerance = xp.initialize(network, stack=4), np.array([0.5, 0.5, 1e-3, 1e-4])
    optimizer = kind(tolerance=xp.asarray(tolerance[:, None]))
    given = theta, *xp.put(X, np.sin(3.0 * X[:, :1]))
    options: dict[str, Any] = {"optimizer": optimizer, "epochs": 1000, "validation": 0.3}
    options |= {"l2": xp.asarray(np.geomspace(1e-3, 0.1, 4))}
    alone = bx.fit(network, *given, **options)
    assert 20 < alone.epochs < 1000

    def call(communicator: Any, rank: int) -> bx.FitResult:
        return bx.fit(network, *given, **options, split="stack", communicator=communicator)

    for result in on_ranks(xp, 2, call):
        if isinstance(result, BaseException):
            raise result
        assert result.epochs == alone.epochs
        for name in ("loss", "validation_loss"):
            xp.assert_close(result.history[name], alone.history[name], SAME_STEPS)


@pytest.mark.parametrize("split", ["rows", "stack"])
def test_ranks_resume_from_the_first_ranks_file(xp: Any, split: str, tmp_path: Path) -> None:
    case = Case(stack=(4,), average=bx.EMA(0.9), early_stopping=STOPPING)
    theta, options = _case(xp, case, split)
    alone = _fit(xp, theta, slice(None), options)
    path = tmp_path / "model.safetensors"

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = {**options, "split": split, "communicator": communicator}
        rows = _share(3, rank) if split == "rows" else slice(None)
        at_path = {"checkpoint": path, "epochs": 2}
        _fit(xp, theta, rows, {**own, **at_path})
        home = xp.selection
        start = bx.load(path, backend=home.backend, device=home.device).state if rank == 0 else None
        return _fit(xp, theta, rows, {**own, "start": start})

    for result in on_ranks(xp, 3, call):
        _assert_same(xp, result, alone)


@pytest.mark.parametrize("weighted", [False, True])
def test_batches_of_the_ranks_are_joined(xp: Any, weighted: bool) -> None:
    theta, options = _case(xp, Case(stack=(2,) if weighted else (), batch_size=None))
    weights = GENERATOR.integers(1, 3, (2, ROWS)).astype(float)
    weights[:, 4:9] = 0.0  # all of a rank's part
    bounds = [[(0, 4), (4, 9)], [(9, 10), (10, 15), (15, 20)], [(20, 20), (20, 23)]]

    def batch(rows: Any) -> tuple[Any, ...]:
        rest = (xp.asarray(weights[..., rows]),) if weighted else ()
        return xp.asarray(X[rows]), _labels(xp, LABELS[rows]), *rest

    def joined(epoch: int) -> list[Any]:
        pieces = [[np.arange(*own[i]) for own in bounds if i < len(own)] for i in range(3)]
        return [batch(np.concatenate(piece)) for piece in pieces]

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = [batch(np.arange(*one)) for one in bounds[rank]]
        return bx.fit(NETWORK, theta, lambda epoch: own, communicator=communicator, **options)

    alone = bx.fit(NETWORK, theta, joined, **options)
    for result in on_ranks(xp, 3, call):
        _assert_same(xp, result, alone)


@pytest.mark.parametrize("split", ["rows", "stack"])
def test_values_that_only_one_rank_lacks_have_the_weight_0(xp: Any, split: str) -> None:
    if xp.name == "jax" and split == "rows":
        pytest.skip("JAX divides rows by its own sharding")
    network = bx.mlp([3, 4, 2], hidden="tanh")
    y = np.concatenate([X[:, :1], np.where(np.arange(ROWS)[:, None] < 9, X[:, 1:2], np.nan)], -1)
    theta = xp.initialize(network, stack=(2,))
    options = {"optimizer": bx.Adam(0.05), "epochs": 3, "batch_size": 8, "metrics": ["rmse"]}
    alone = bx.fit(network, theta, *xp.put(X, y), **options)

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = _share(2, rank) if split == "rows" else slice(None)
        data = xp.put(X[own], y[own])
        return bx.fit(network, theta, *data, **options, communicator=communicator, split=split)

    for result in on_ranks(xp, 2, call):
        _assert_same(xp, result, alone)


def test_a_row_of_weight_0_is_left_out_on_its_rank_even_if_it_overflows(xp: Any) -> None:
    theta, options = _case(xp, Case(stack=(3,), seed=(5, 0, 1)))
    weights = np.where(np.isin(np.arange(ROWS), (0, 2, 9, 11, 14, 22)), 0.0, 1.0 + BOOTSTRAPS)
    weights[1, 14:] = 0.0  # all of a rank's rows
    options["sample_weight"] = xp.asarray(weights)
    x = np.where(weights[0, :, None] == 0.0, float(np.finfo(xp.dtype).max), X)
    alone = bx.fit(NETWORK, theta, xp.asarray(x), _labels(xp, LABELS), **options)

    def call(communicator: Any, rank: int) -> bx.FitResult:
        rows, own = _share(3, rank), _of_rank(options, 3, rank)
        data = xp.asarray(x[rows]), _labels(xp, LABELS[rows])
        return bx.fit(NETWORK, theta, *data, communicator=communicator, **own)

    for result in on_ranks(xp, 3, call):
        _assert_same(xp, result, alone)


def _fails_at(epoch: int) -> Any:
    def callback(state: bx.TrainingState) -> None:
        if state.epoch == epoch:
            raise ZeroDivisionError("in a callback")

    return callback


class _FailingSGD:
    """A user's optimizer that fails at its fifth update."""

    learning_rate = 0.1

    def __init__(self) -> None:
        self.updates = 0

    def initialize(self, theta: Any) -> tuple[()]:
        return ()

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any) -> Any:
        self.updates += 1
        if self.updates == 5 and self.fails:
            raise MemoryError("in an update")
        return theta - learning_rate * gradient, state

    fails = False


class _Failing(_FailingSGD):
    fails = True


def _bad_metric(predictions: Any, targets: Any, weights: Any) -> Any:
    raise ZeroDivisionError("in a metric")


FAULTS = {
    "a value": ({"x": np.where(np.arange(ROWS)[:, None] == 15, np.nan, X)}, "ValueError: x has"),
    "no x beside y": ({"x": X[:0]}, "ValueError: x has no rows"),
    "an option": ({"batchsize": 3}, "TypeError: fit has no option 'batchsize'"),
    "a callback": ({"callbacks": [_fails_at(2)]}, "ZeroDivisionError: in a callback"),
    "a metric": ({"metrics": {"m": _bad_metric}}, "ZeroDivisionError: in a metric"),
    "an update": ({"optimizer": _Failing()}, "MemoryError: in an update"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_on_one_rank_raises_on_all(xp: Any, name: str) -> None:
    fault, message = FAULTS[name]
    theta, options = _case(xp, Case())

    def good(predictions: Any, targets: Any, weights: Any) -> Any:
        return bx.metrics.accuracy(predictions, targets, weights)

    good.__module__, good.__qualname__ = _bad_metric.__module__, _bad_metric.__qualname__
    alike = {"metrics": {"m": good}, "optimizer": _FailingSGD()}
    _Failing.__name__ = "_FailingSGD"

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = {**options, **{key: alike[key] for key in alike if key in fault}}
        own |= fault if rank == 2 else {}
        x = own.pop("x", X)[_share(3, rank)]
        y = _labels(xp, LABELS[_share(3, rank)])
        return bx.fit(NETWORK, theta, x=xp.asarray(x), y=y, communicator=communicator, **own)

    *others, failed = on_ranks(xp, 3, call)
    kind, _, text = message.partition(": ")
    assert type(failed).__name__ == kind
    assert str(failed).startswith(text)
    assert "On rank 2 of 3." in failed.__notes__
    for other in others:
        assert isinstance(other, RuntimeError)
        assert str(other).startswith(f"Rank 2 of 3 raised {message}")
    assert [hasattr(error, "state") for error in (*others, failed)] == [True] * 3


class _UnprintableError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_error_that_cannot_be_printed_leaves_no_rank_waiting(xp: Any) -> None:
    theta, options = _case(xp, Case())

    def callback(state: bx.TrainingState) -> None:
        raise _UnprintableError

    def call(communicator: Any, rank: int) -> bx.FitResult:
        fault = {"callbacks": [callback]} if rank == 1 else {}
        return _fit(xp, theta, _share(2, rank), {**options, **fault, "communicator": communicator})

    other, failed = on_ranks(xp, 2, call)
    assert isinstance(failed, _UnprintableError)
    with pytest.raises(RuntimeError, match=r"Rank 1 of 2 raised .*_UnprintableError: <exception"):
        raise other


DIFFERENCES = {
    "epochs": ({"epochs": 5}, "epochs is 5 on rank 1, but 4 on rank 0."),
    "optimizer": ({"optimizer": bx.Adam(0.06)}, "optimizer is"),
    "a field": (
        {"optimizer": RatedSGD(0.06)},
        r"optimizer is RatedSGD\(\{'learning_rate': 0\.06\}\) on rank 1",
    ),
    "weights": (
        {"sample_weight": WEIGHTS},
        r"sample_weight has the shape \(\) on rank 1",
    ),
    "network": ({"network": bx.mlp([3, 2])}, "network is"),
    "split": ({"split": "stack"}, "split is 'stack' on rank 1, but 'rows'"),
    "batches": ({"x": lambda epoch: [], "y": None}, "y is False on rank 1, but True"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_arguments_that_differ_are_refused_on_all_ranks(xp: Any, name: str) -> None:
    other, message = DIFFERENCES[name]
    theta, options = _case(xp, Case())

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = {"network": NETWORK, **options, **(other if rank == 1 else {})}
        if name == "a field" and rank == 0:
            own["optimizer"] = RatedSGD(0.05)
        network, rows = own.pop("network"), _share(2, rank)
        if "sample_weight" in own:
            own["sample_weight"] = xp.asarray(WEIGHTS[rows])
        data = {"x": xp.asarray(X[rows]), "y": _labels(xp, LABELS[rows])}
        return bx.fit(network, theta, communicator=communicator, **{**data, **own})

    for error in on_ranks(xp, 2, call):
        assert isinstance(error, ValueError)
        with pytest.raises(ValueError, match=message):
            raise error


def test_where_each_rank_has_all_data_their_values_are_compared(xp: Any) -> None:
    theta, options = _case(xp, Case(stack=(2,), split="stack"), "stack")

    def results(shift: float) -> list[Any]:
        def call(communicator: Any, rank: int) -> bx.FitResult:
            x = X + shift * rank
            # NumPy's objects have another address on each rank.
            x = x.astype(object) if xp.name == "numpy" else xp.asarray(x)
            y = _labels(xp, LABELS)
            return bx.fit(NETWORK, theta, x, y, communicator=communicator, **options)

        return on_ranks(xp, 2, call)

    assert [result.epochs for result in results(0.0)] == [4, 4]
    for error in results(1.0):
        with pytest.raises(ValueError, match=r"x is float\d\d \(23, 3\) #\w* on rank 1, but"):
            raise error


def test_orders_that_differ_are_refused_on_all_ranks(xp: Any) -> None:
    orders = iter([np.arange(ROWS), np.arange(ROWS)[::-1]])
    theta, options = _case(xp, Case(shuffle=lambda epoch: next(orders)))
    for error in _on_ranks(xp, 2, theta, options):
        with pytest.raises(ValueError, match="the order that shuffle returns is"):
            raise error


def test_theta_that_differs_in_its_last_bit_ends_the_training(xp: Any) -> None:
    theta, options = _case(xp, Case())

    class Drifting(_FailingSGD):
        def __init__(self, rank: int) -> None:
            self.drift = 1.0 + 4.0 * float(np.finfo(xp.dtype).eps) * (rank == 1)

        def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any) -> Any:
            return (theta - learning_rate * gradient) * self.drift, state

    def call(communicator: Any, rank: int) -> bx.FitResult:
        own = {**options, "optimizer": Drifting(rank), "communicator": communicator}
        return _fit(xp, theta, _share(2, rank), own)

    for error in on_ranks(xp, 2, call):
        with pytest.raises(RuntimeError, match="theta on rank 1 differs from that on rank 0"):
            raise error


def test_a_callback_of_one_rank_ends_the_training_on_all(xp: Any) -> None:
    theta, options = _case(xp, Case())

    def call(communicator: Any, rank: int) -> bx.FitResult:
        stops = {"callbacks": [lambda state: state.epoch == 2]} if rank == 1 else {}
        return _fit(xp, theta, _share(2, rank), {**options, **stops, "communicator": communicator})

    assert [result.epochs for result in on_ranks(xp, 2, call)] == [2, 2]


def test_an_interrupt_of_one_rank_ends_all_at_the_same_step(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads get no signals: the fourth exchange of gradients stands for one on rank 1."""
    theta, options = _case(xp, Case())
    alone = _fit(xp, theta, slice(None), options)
    add, sums = RowRanks.sum, []

    def interrupted(self: Any, array: Any) -> Any:
        if self.rank == 1:
            sums.append(array)
            self.interrupted |= len(sums) == 5
        return add(self, array)

    monkeypatch.setattr(RowRanks, "sum", interrupted)
    errors = _on_ranks(xp, 2, theta, options)
    monkeypatch.undo()
    for error in errors:
        assert isinstance(error, KeyboardInterrupt)
        assert str(error) == "Rank 1 of 2 received Ctrl-C."
        assert (error.state.epoch, error.state.step) == (1, 4)  # type: ignore[attr-defined]
    state = errors[0].state
    for result in _on_ranks(xp, 2, theta, options, start=state):
        _assert_same(xp, result, alone)


@pytest.mark.once
@pytest.mark.parametrize("split", ["rows", "stack"])
def test_an_interrupt_while_the_ranks_are_set_up_is_told_to_all(xp: Any, split: str) -> None:
    """One that raised at once would leave the other ranks waiting in their first exchange."""

    class Pressing(ThreadRank):
        def Get_rank(self) -> int:  # noqa: N802
            signal.raise_signal(signal.SIGINT)
            return super().Get_rank()

    theta, options = _case(xp, Case(stack=(3,)) if split == "stack" else Case(), split)
    options |= {"communicator": Pressing(World(1), 0), "split": split}
    with pytest.raises(KeyboardInterrupt, match=r"^Rank 0 of 1 received Ctrl-C\.$") as caught:
        _fit(xp, theta, slice(None), options)
    assert caught.value.state is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_of_ranks_that_share_a_stack_waits_for_the_epoch(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theta, options = _case(xp, Case(stack=(3,)), "stack")
    alone = _fit(xp, theta, slice(None), options)
    end = Ranks.end

    def interrupted(self: Any, *args: Any, **more: Any) -> Any:
        self.ends = getattr(self, "ends", 0) + 1
        self.interrupted |= self.rank == 1 and self.ends == 4
        return end(self, *args, **more)

    def call(communicator: Any, rank: int, **more: Any) -> bx.FitResult:
        own = {**options, "split": "stack", "communicator": communicator, **more}
        return _fit(xp, theta, slice(None), own)

    monkeypatch.setattr(Ranks, "end", interrupted)
    errors = on_ranks(xp, 2, call)
    monkeypatch.undo()
    for error in errors:
        assert isinstance(error, KeyboardInterrupt)
        state = error.state  # type: ignore[attr-defined]
        assert (state.epoch, tuple(state.theta.shape)) == (3, tuple(theta.shape))
        _assert_same(xp, _fit(xp, theta, slice(None), {**options, "start": state}), alone)


@pytest.mark.timed
@pytest.mark.parametrize("name", ["checkpoint", "start"])
def test_an_error_before_the_first_epoch_on_one_rank_leaves_no_rank_waiting(
    xp: Any, name: str, tmp_path: Path
) -> None:
    theta, options = _case(xp, Case(stack=(3,)), "stack")
    state = bx.TrainingState(0, 0, theta, lambda: "no pickle of it")
    at_path = {"checkpoint": tmp_path / "no folder" / "model.safetensors"}
    options |= {"split": "stack", **(at_path if name == "checkpoint" else {"start": state})}
    errors = on_ranks(
        xp,
        2,
        lambda communicator, rank: _fit(
            xp, theta, slice(None), {**options, "communicator": communicator}
        ),
    )
    assert "On rank 0 of 2." in errors[0].__notes__
    assert "Rank 0 of 2 raised " in str(errors[1])
    assert f"{type(errors[0]).__name__}: " in str(errors[1])
    assert [error.state for error in errors] == [options.get("start")] * 2


def test_a_start_of_another_stack_is_refused_before_it_is_divided(xp: Any) -> None:
    theta, options = _case(xp, Case(stack=(4,)), "stack")
    options |= {"split": "stack", "start": bx.TrainingState(0, 0, theta[:2, :], ())}
    for error in on_ranks(
        xp, 2, lambda own, rank: _fit(xp, theta, slice(None), {**options, "communicator": own})
    ):
        with pytest.raises(ValueError, match="start belongs to another network or another stack"):
            raise error


REFUSED = {
    "augment": ({"augment": lambda x, y, weight, seed: (x, y)}, "augment is not for"),
    "check_every": ({"check_every": 1}, "check_every is not for"),
    "accumulate": ({"accumulate": 2}, "multiply batch_size"),
    "indices": ({"validation": np.arange(2)}, "validation by indices is not for"),
    "LevenbergMarquardt": (
        {"optimizer": bx.LevenbergMarquardt(), "batch_size": None},
        r'LevenbergMarquardt is not for .*divide the stack, split="stack"',
    ),
    "stack": ({"split": "stack"}, r"the first axis of theta's stack \(\) among 1"),
    "split": ({"split": "columns"}, "split 'columns' is unknown"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_ranks_do_not_take_are_refused(xp: Any, name: str) -> None:
    option, message = REFUSED[name]
    theta, options = _case(xp, Case(), "stack" if "split" in option else "rows")
    (error,) = on_ranks(
        xp,
        1,
        lambda communicator, rank: _fit(
            xp, theta, slice(None), {**options, **option, "communicator": communicator}
        ),
    )
    with pytest.raises(ValueError, match=message):
        raise error


@pytest.mark.parametrize("split", ["rows", "stack"])
def test_targets_beside_a_function_of_batches_are_refused(xp: Any, split: str) -> None:
    theta, options = _case(xp, Case(stack=(2,), split=split), split)

    def call(communicator: Any, rank: int) -> bx.FitResult:
        y = _labels(xp, LABELS)
        return bx.fit(NETWORK, theta, lambda epoch: [], y, communicator=communicator, **options)

    for error in on_ranks(xp, 2, call):
        with pytest.raises(TypeError, match=r"x is a function, .*: omit y"):
            raise error


def test_what_is_no_communicator_is_refused(xp: Any) -> None:
    theta, options = _case(xp, Case(), "stack")
    with pytest.raises(TypeError, match=r"one of mpi4py, such as mpi4py\.MPI\.COMM_WORLD, not 3"):
        _fit(xp, theta, slice(None), {**options, "communicator": 3})


@pytest.mark.parametrize("is_aware", [False, True])
def test_an_mpi_that_reads_gpu_memory_gets_the_arrays_themselves(
    xp: Any, is_aware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPI itself has not been tried on a card: threads stand for its ranks."""
    if xp.name != "cupy":
        pytest.skip("only CuPy's arrays lie in a GPU's memory")
    monkeypatch.setattr(row_shares, "takes_gpu_arrays", lambda: is_aware)
    theta, options = _case(xp, Case())
    kinds, add = set(), ThreadRank.Allreduce

    def recorded(self: Any, part: Any, total: Any) -> None:
        kinds.update({type(part).__module__ for _ in range(part.size > 1)})
        add(self, part, total)

    monkeypatch.setattr(ThreadRank, "Allreduce", recorded)
    alone = _fit(xp, theta, slice(None), options)
    for result in _on_ranks(xp, 2, theta, options):
        _assert_same(xp, result, alone)
    assert kinds == {"cupy" if is_aware else "numpy"}


def test_rows_of_a_part_draw_the_bits_of_the_whole_batch(xp: Any) -> None:
    x = xp.asarray(GENERATOR.normal(size=(2, ROWS, 3)))
    keys = xp.asarray(np.arange(2, dtype=np.int32).reshape(2, 1, 1), dtype="int32")
    positions = np.array([[3, 7, 20], [0, 7, 22]], dtype=np.int32)
    moved = xp.asarray(positions, dtype="int32")
    taken = np.take_along_axis(xp.host(x), positions[..., None], axis=-2)
    for key in (5, keys):
        whole = xp.host(dropped(x, fold_in(key, 4), 0.5)[0])
        part, _ = dropped(xp.asarray(taken), fold_in(RowKey(key, moved), 4), 0.5)
        xp.assert_equal(part, np.take_along_axis(whole, positions[..., None], axis=-2))


def test_a_description_depends_on_the_values_of_an_object(xp: Any) -> None:
    values = [bx.Adam(0.1), bx.Adam(0.2), bx.Adam(xp.asarray([0.1])), bx.Adam(xp.asarray([0.2]))]
    values += [bx.mlp([1, 1]), bx.mlp([1, 2]), None, {"a": 1}, {"a": 2.0}, bx.metrics.accuracy, [1]]
    assert len({described(value) for value in values}) == len(values)
    assert described(bx.Adam(0.1)) == described(dataclasses.replace(bx.Adam(0.1)))


def test_a_description_does_not_depend_on_what_an_object_has_cached(xp: Any) -> None:
    """A rank without rows has done less with its network than the others."""
    network = bx.mlp([2, 2, 1])
    before, theta = described(network), xp.initialize(network)
    x, y = xp.asarray(np.ones((3, 2))), xp.asarray(np.ones((3, 1)))
    bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=1)
    assert described(network) == before
