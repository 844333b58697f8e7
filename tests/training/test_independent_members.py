"""Networks of a stack with a seed each are those trained alone with that seed.

Specifies ``orders``.
"""

import signal
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.core import dropped
from backprop_xp.networks.numbers.random_bits import fold_in
from tests.helpers import long
from tests.user_layers import PassThrough, sample_network

# A product of a stack and one of its member sum in different orders: 1e-16 an update.
SAME = 1e-12
ROWS, BATCH = 11, 4  # three updates an epoch, the last of three rows
STACKS = {(): 5, (3,): [5, 0, 2**40 + 7], (2, 2): [[1, 2], [3, 2]]}


class Noise(PassThrough):
    """A random layer of one's own, which reads its key as the protocol hands it over."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        self.keys.append(rng)
        return (x, None) if rng is None else dropped(x, fold_in(rng, 9), 0.25)

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return g * cache, ()


def _network() -> bx.Network:
    return bx.Network([*sample_network().layers[:-1], Noise(), bx.Dense(4, 2)], "huber", l2=0.1)


def _rows(*axes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(51)
    return generator.normal(size=(*axes, ROWS, 3)), generator.normal(size=(*axes, ROWS, 2))


def _members(stack: tuple[int, ...], seed: Any) -> list[tuple[tuple[int, ...], int]]:
    return [(i, int(np.asarray(seed, dtype=object)[i])) for i in np.ndindex(stack)]


def _assert_member(xp: Any, together: Any, i: tuple[int, ...], alone: Any) -> None:
    """Compare a network of a stack's result with that of the network alone, which may be short."""
    xp.assert_close(together.theta[(*i, ...)], alone.theta, SAME)
    for name, values in alone.history.items():
        xp.assert_close(together.history[name][(slice(len(values)), *i)], values, SAME)


def _drawn_weights(kind: str, stack: tuple[int, ...]) -> np.ndarray | None:
    """Return no weights, those of the rows, or how often each network's bootstrap drew a row."""
    generator = np.random.default_rng(52)
    if kind == "bootstraps":
        draws = generator.integers(0, ROWS, (*stack, ROWS))
        return (draws[..., None] == np.arange(ROWS)).sum(axis=-2).astype(float)
    return generator.uniform(0.0, 2.0, ROWS) * (np.arange(ROWS) != 2) if kind == "rows" else None


@pytest.mark.long
@pytest.mark.parametrize(
    ("stack", "stacked", "weighted", "batch_size"),
    [
        ((3,), False, "no", BATCH),
        ((3,), False, "bootstraps", BATCH),
        long((3,), True, "rows", BATCH),
        long((3,), True, "bootstraps", BATCH),
        long((3,), False, "rows", None),
        ((2, 2), False, "rows", BATCH),
        long((2, 2), True, "bootstraps", BATCH),
    ],
)
def test_a_network_with_its_own_seed_is_the_one_trained_alone_with_it(
    xp: Any, stack: tuple[int, ...], stacked: bool, weighted: str, batch_size: int | None
) -> None:
    network, seed = _network(), STACKS[stack]
    (x, y), host = _rows(*stack * stacked), _drawn_weights(weighted, stack)
    if weighted == "rows":
        x[..., 2, :] = (
            1e300 if xp.dtype == "float64" else 1e38
        )  # of weight 0: nothing of it may overflow
    theta, (x, y) = xp.initialize(network, stack=stack), xp.put(x, y)
    weight = None if host is None else xp.asarray(host)
    rates = xp.asarray(np.linspace(0.02, 0.05, len(_members(stack, seed))).reshape(*stack, 1))
    options: dict[str, Any] = {
        "epochs": 3,
        "batch_size": batch_size,
        "clip": 0.5,
        "validation": xp.put(*_rows()),
        "metrics": {"r2": bx.metrics.r2},
    }
    options["plateau"] = bx.Plateau(factor=0.5, patience=1)
    of_rates = (lambda rate: bx.AdamW(0.1, weight_decay=rate), bx.Adam)
    for make in of_rates if weighted == "no" else of_rates[1:]:
        data = {"sample_weight": weight, "seed": seed, "optimizer": make(rates)}
        together = bx.fit(network, theta, x, y, **data, **options)
        for i, own_seed in _members(stack, seed):
            own = [a[(*i, ...)] if stacked else a for a in (x, y)]
            if host is not None:
                data["sample_weight"] = xp.asarray(host[i] if host.ndim > 1 else host)
            data |= {"seed": own_seed, "optimizer": make(float(xp.host(rates)[(*i, 0)]))}
            alone = bx.fit(network, theta[(*i, ...)], *own, **data, **options)
            _assert_member(xp, together, i, alone)


def test_networks_of_one_seed_each_have_other_rows_and_masks(xp: Any) -> None:
    """From one theta: without own orders, and without own masks, all would end the same."""
    for network, size in ((bx.mlp([3, 4, 2]), BATCH), (bx.mlp([3, 4, 2], dropout=0.5), None)):
        theta = xp.asarray(np.tile(xp.host(xp.initialize(network)), (3, 1)))
        options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 2, "batch_size": size}
        first, second, third = xp.host(
            bx.fit(network, theta, *xp.put(*_rows()), seed=(1, 2, 1), **options).theta
        )
        np.testing.assert_array_equal(first, third)
        assert np.abs(first - second).max() > 1e-3


def test_a_layer_of_ones_own_is_given_a_key_for_each_network(xp: Any) -> None:
    network = _network()
    noise = network.layers[-2]
    assert isinstance(noise, Noise)
    case = network, xp.initialize(network, stack=3), *xp.put(*_rows())
    bx.fit(*case, optimizer=bx.SGD(0.1), epochs=1, seed=range(3))
    shapes = {tuple(getattr(key, "shape", ())) for key in noise.keys if key is not None}
    assert shapes == {(3, 1, 1)}


@pytest.mark.parametrize("kind", ["range", "array", "of its library", "numbers of NumPy"])
def test_seeds_are_ints_in_whatever_holds_them(xp: Any, kind: str) -> None:
    network = bx.mlp([3, 4, 2], dropout=0.5)
    case = network, xp.initialize(network, stack=3), *xp.put(*_rows())
    seeds: Any = {
        "range": range(3),
        "array": np.arange(3, dtype=np.uint8),
        "of its library": xp.namespace.asarray([0, 1, 2]),
        "numbers of NumPy": [np.int64(0), np.int8(1), 2],
    }[kind]
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 2, "batch_size": BATCH}
    found, expected = (bx.fit(*case, seed=seed, **options).theta for seed in (seeds, (0, 1, 2)))
    xp.assert_equal(found, expected)


SEEDS: list[tuple[Any, Any, str]] = [
    ((0, 1), ValueError, r"^seed has shape \(2,\), but theta is stacked \(3,\): one int for all"),
    ([[0, 1, 2]], ValueError, r"^seed has shape \(1, 3\), but theta is stacked \(3,\)"),
    ([], ValueError, r"^seed has shape \(0,\), but theta is stacked \(3,\)"),
    ((0, 1, -2), ValueError, r"^seed\[2\] must be an integer of at least 0, not -2\."),
    ((0, True, 2), TypeError, r"^seed\[1\] must be an integer .* not True \(bool\)"),
    (np.asarray([True, False, True]), TypeError, r"^seed\[0\] must be an integer .* not True"),
    (
        np.asarray([0.0, 1.0, 2.0]),
        TypeError,
        r"^seed\[0\] must be an integer .* not 0\.0 \(float\)",
    ),
    ([0, [1, 2], 3], TypeError, r"^seed\[1\] must be an integer .* not \[1, 2\] \(list\)"),
    ("012", TypeError, r"^seed must be an integer of at least 0, not '012'"),
    (None, TypeError, r"^seed must be an integer of at least 0, not None"),
]


@pytest.mark.parametrize("function", [bx.fit, bx.train])
@pytest.mark.parametrize(("seed", "error", "message"), SEEDS)
def test_seeds_that_do_not_fit_are_refused(
    xp: Any, function: Any, seed: Any, error: Any, message: str
) -> None:
    network = bx.mlp([3, 4, 2])
    case = network, xp.initialize(network, stack=3), *xp.put(*_rows())
    with pytest.raises(error, match=message):
        function(*case, optimizer=bx.SGD(0.1), epochs=1, seed=seed)
    with pytest.raises(ValueError, match=r"seed has shape \(1,\), but theta is stacked \(\)"):
        function(network, case[1][0, ...], *case[2:], optimizer=bx.SGD(0.1), epochs=1, seed=[3])


# ---- early stopping and resuming


@pytest.mark.long
@pytest.mark.parametrize("restore_best", [True, False])
def test_each_network_stops_by_itself(xp: Any, restore_best: bool) -> None:
    """Some end long before the others, and would become better in the epochs after that."""
    network, seeds = bx.mlp([3, 4, 2], hidden="tanh", loss="huber", dropout=0.3), [3, 1, 4, 2]
    case = xp.initialize(network, stack=4), *xp.put(*_rows())
    options: dict[str, Any] = {
        "optimizer": bx.Adam(0.2),
        "epochs": 60,
        "batch_size": BATCH,
        "validation": case[1:],
        "early_stopping": bx.EarlyStopping(patience=3, restore_best=restore_best),
    }
    together, ends = bx.fit(network, *case, seed=seeds, **options), []
    for i, seed in enumerate(seeds):
        alone = bx.fit(network, case[0][i, ...], *case[1:], seed=seed, **options)
        _assert_member(xp, together, (i,), alone)
        xp.assert_close(together.optimizer_state[-1][i, ...], alone.optimizer_state[-1], SAME)
        ends.append(alone.epochs)
    assert 60 > together.epochs == max(ends) > min(ends) + 9


@pytest.mark.parametrize("stop", [1, 3])
def test_independent_networks_are_taken_up_from_a_file(xp: Any, stop: int, tmp_path: Path) -> None:
    network, path = bx.mlp([3, 4, 2], dropout=0.3), tmp_path / "members.safetensors"
    case = network, xp.initialize(network, stack=3), *xp.put(*_rows())
    options: dict[str, Any] = {"optimizer": bx.Adam(0.05), "epochs": 5, "batch_size": BATCH}
    whole = bx.fit(*case, seed=(7, 8, 9), **options)
    bx.fit(*case, seed=(7, 8, 9), checkpoint=path, **{**options, "epochs": stop})
    selection = xp.selection
    kept = bx.load(path, backend=selection.backend, device=selection.device)
    assert kept.options["seed"] == [7, 8, 9]
    resumed = bx.fit(*case, seed=kept.options["seed"], start=kept.state, **options)
    xp.assert_close(resumed.theta, whole.theta, SAME)


@pytest.mark.parametrize("epoch", [1, 2])
def test_independent_networks_go_on_in_the_middle_of_an_epoch(xp: Any, epoch: int) -> None:
    """Rates are asked for before the updates: Ctrl-C waits for the first of them."""
    network = bx.mlp([3, 4, 2], dropout=0.3)
    case = network, xp.initialize(network, stack=3), *xp.put(*_rows())

    def pressing(step: int) -> float:
        if step == 3 * (epoch - 1):
            signal.raise_signal(signal.SIGINT)
        return 0.05

    options: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "seed": (7, 8, 9)}
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, optimizer=bx.Adam(pressing), **options)
    assert 0 < caught.value.state.step - 3 * (epoch - 1) < 3
    options["optimizer"] = bx.Adam(0.05)
    resumed = bx.fit(*case, start=caught.value.state, **options)
    xp.assert_close(resumed.theta, bx.fit(*case, **options).theta, SAME)


# ---- own rows for validation


HELD_OUT = np.asarray([[0, 7], [10, 3], [5, 7]])


@pytest.mark.parametrize(
    ("stacked", "weighted", "more"),
    [
        (False, "rows", {"batch_size": BATCH}),
        long(True, "bootstraps", {"batch_size": BATCH}),
        long(False, "bootstraps", {"batch_size": None}),
        long(False, "no", {"batch_size": 2, "accumulate": 2}),
        long(False, "rows", {"batch_size": BATCH, "augment": lambda x, y, w, seed: (x, y, w)}),
    ],
)
def test_a_network_with_its_own_validation_rows_is_the_one_trained_alone_without_them(
    xp: Any, stacked: bool, weighted: str, more: dict[str, Any]
) -> None:
    network, seeds, host = _network(), STACKS[(3,)], _drawn_weights(weighted, (3,))
    x, y = _rows(*(3,) * stacked)
    theta = xp.initialize(network, stack=3)
    options: dict[str, Any] = {
        "optimizer": bx.Adam(0.05),
        "epochs": 3,
        "metrics": {"rmse": bx.metrics.rmse},
        "train_metrics": True,
        "early_stopping": bx.EarlyStopping(3),
    }
    options |= more
    weight = None if host is None else xp.asarray(host)
    data: dict[str, Any] = {"sample_weight": weight, "seed": seeds, "validation": HELD_OUT}
    together = bx.fit(network, theta, *xp.put(x, y), **data, **options)
    for i, held_out in enumerate(HELD_OUT):
        own = [a[i] if stacked else a for a in (x, y)]
        if host is not None:
            own.append(host[i] if host.ndim > 1 else host)
        learnt = xp.put(*(np.delete(a, held_out, axis=0) for a in own))
        data = dict(zip(("x", "y", "sample_weight"), learnt, strict=False))
        data |= {"seed": seeds[i], "validation": xp.put(*(a[held_out] for a in own))}
        alone = bx.fit(network, theta[i, ...], **data, **options)
        _assert_member(xp, together, (i,), alone)


def test_validation_rows_of_all_networks_may_be_given_by_their_indices(xp: Any) -> None:
    network, (x, y), at = _network(), _rows(), HELD_OUT[0]
    theta = xp.initialize(network, stack=2)
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 2, "batch_size": BATCH}
    found = bx.fit(network, theta, *xp.put(x, y), validation=at, **options)
    learnt = xp.put(*(np.delete(a, at, axis=0) for a in (x, y)))
    expected = bx.fit(network, theta, *learnt, validation=xp.put(x[at], y[at]), **options)
    xp.assert_close(found.theta, expected.theta, SAME)
    for name in ("loss", "validation_loss"):
        xp.assert_close(found.history[name], expected.history[name], SAME)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "validation has float64, but row indices are integers"),
        ([[0], [1]], ValueError, r"shape \(2, 1\), but some of the 11 rows .* the stack \(3,\)"),
        ([*range(ROWS)], ValueError, "but some of the 11 rows are expected"),
        ([0, -1], ValueError, "validation has the index -1, but x has 11 rows"),
        ([[0, 1], [11, 1], [0, 1]], ValueError, "validation has the index 11, but x has 11 rows"),
        ([[0, 1], [1, 1], [0, 1]], ValueError, "validation has the index of a row twice"),
    ],
)
def test_validation_by_impossible_indices_is_an_error(
    xp: Any, wrong: Any, error: type[Exception], message: str
) -> None:
    network = _network()
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1, "validation": np.array(wrong)}
    with pytest.raises(error, match=message):
        bx.fit(network, xp.initialize(network, stack=3), *xp.put(*_rows()), **options)


# ---- costs


def test_networks_with_their_own_validation_rows_share_x() -> None:
    """On NumPy: beside x there are indices, and a y and a weight for each row and network."""
    rows, width, members, batch = 20000, 64, 8, 100
    x, network = np.zeros((rows, width)), bx.mlp([width, 1])
    theta = network.initialize(stack=members, backend="numpy")
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1, "batch_size": batch}
    held_out = np.arange(members * 1000).reshape(members, 1000)
    tracemalloc.start()
    bx.fit(network, theta, x, x[:, :1], seed=range(members), validation=held_out, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * rows * members + 2**21 < members * x.nbytes / 6


def test_independent_networks_copy_no_more_rows_than_a_batch_of_each() -> None:
    """On NumPy: beside the rows there are orders of 4 bytes a row, and batches."""
    rows, width, members, batch = 20000, 32, 20, 100
    x, network = np.zeros((rows, width)), bx.mlp([width, 1])
    theta = network.initialize(stack=members, backend="numpy")
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1, "batch_size": batch}
    tracemalloc.start()
    bx.fit(network, theta, x, x[:, :1], seed=range(members), **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    orders, batches = 4 * rows * members, 8 * members * batch * width
    assert peak <= 3 * orders + 3 * batches + x.nbytes + 2**20 < members * x.nbytes / 5


def test_stacked_rows_in_another_order_of_memory_are_the_same(xp: Any) -> None:
    network, (x, y) = bx.mlp([3, 4, 2]), _rows(3)
    theta = xp.initialize(network, stack=3)
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 2, "batch_size": BATCH}
    swapped = xp.namespace.moveaxis(xp.asarray(np.moveaxis(x, 0, 1).copy()), 0, 1)
    thetas = [
        bx.fit(network, theta, each, xp.asarray(y), seed=range(3), **options).theta
        for each in (xp.asarray(x), swapped)
    ]
    xp.assert_equal(*thetas)


def test_a_share_for_validation_and_a_seed_for_each_network_are_an_error(xp: Any) -> None:
    network = bx.mlp([2, 1])
    x, y = xp.asarray(np.ones((10, 2))), xp.asarray(np.ones((10, 1)))
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1, "validation": 0.2}
    with pytest.raises(ValueError, match=r"validation is a share, .* bx\.data\.split\(x, y\)"):
        bx.fit(network, xp.initialize(network, stack=2), x, y, seed=(1, 2), **options)
