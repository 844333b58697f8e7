"""Files forged from a good one: each is refused by a CheckpointError, or it loads and predicts.

A forged file is a valid container, with a correct checksum, whose header or tensors were changed.
"""

import copy
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.files import container
from tests.helpers import thorough

pytest.importorskip("safetensors")

# The functions that load a file and use the model in it.
LoadAndUse: TypeAlias = tuple[Callable[[Path], Any], Callable[[Any], object]]

ROWS = 80

# What stands in place of an entry of a header.
_VALUES: list[Any] = [None, True, False, -1, 0, 1, 2, 0.5, 1e308, 10**12, 10**400, "", "x", [], {}]
_VALUES += [{"array": "theta"}, {"array": "x"}, {"tuple": []}, {"tuple": [1]}, {"dict": {}}]
_VALUES += [{"float": "nan"}, {"float": "-inf"}, {"name": "activations.softmax"}]
_VALUES += [[[[[[[[]]]]]]], "\ud800", "a" * 5000, [1] * 5000]
_DTYPES = ["uint8", "int64", "float16", "float32", "float64", "bool"]
_NUMBERS = [np.nan, np.inf, -1.0, 0.0, 1.0, 1e30, 1e300]
# Loading holds the bytes, the tensors, and the header's JSON about twenty times, twice.
MOST_MEMORY = 60
# A first error imports modules: their code takes this much.
SLACK = 2**20


def forgeries(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield files with one to three changes of a good one, each with a correct checksum."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        header, tensors = container.decode(data)
        for _ in range(draw.integers(1, 4)):
            if draw.random() < 0.7:
                _change_header(header, draw)
            else:
                _change_tensor(tensors, draw)
        yield container.encode(header, tensors)


def _change_header(header: dict[str, Any], draw: np.random.Generator) -> None:
    """Replace, remove, repeat or exchange an entry anywhere in a header."""
    places = [*_places(header)]
    home, key = places[draw.integers(len(places))]
    other, name = places[draw.integers(len(places))]
    match draw.integers(6):
        case 0 | 1:
            home[key] = copy.deepcopy(_VALUES[draw.integers(len(_VALUES))])
        case 2:
            del home[key]
        case 3:
            home[key] = copy.deepcopy(other[name])
        case 4 if isinstance(home[key], int | float):
            home[key] = home[key] + draw.choice([-1, 1]).item()
        case 4 if isinstance(home[key], str):
            home[key] = home[key][1:]
        case 5 if isinstance(home, list):
            home.insert(0, copy.deepcopy(home[key]))
        case _:
            home[key] = [copy.deepcopy(home[key])]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a value with each of its keys or indices."""
    for key in [*value] if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _change_tensor(tensors: dict[str, np.ndarray], draw: np.random.Generator) -> None:
    """Change the shape, the dtype or the numbers of a tensor, or remove it."""
    name = draw.choice([*tensors])
    tensor = tensors[name].copy()
    with warnings.catch_warnings(action="ignore"):  # numbers that a dtype lacks
        match draw.integers(6):
            case 0:
                tensor = tensor.reshape([(-1,), (1, -1), (-1, 1)][draw.integers(3)])
            case 1:
                tensor = tensor[: draw.integers(len(tensor) + 1)] if tensor.ndim else tensor[None]
            case 2:
                tensor = np.concatenate([np.atleast_1d(tensor)] * 2)
            case 3:
                tensor = tensor.astype(draw.choice(_DTYPES))
            case 4:
                number = np.asarray(draw.choice(_NUMBERS)).astype(tensor.dtype)
                tensor.reshape(-1)[: draw.integers(tensor.size + 1)] = number
            case 5:
                del tensors[name]
                return
    tensors[name] = tensor


def peak_of_loading(load: Callable[[Path], Any], path: Path) -> tuple[Any, int]:
    """Return the model in a file, None for a refused one, and the memory that loading took."""
    tracemalloc.start()
    try:
        return load(path), tracemalloc.get_traced_memory()[1]
    except bx.CheckpointError as error:
        if str(path) not in str(error):
            raise
        return None, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def network_and_its_use(path: Path) -> LoadAndUse:
    """Write a file with all parts; return the functions that load such files and predict."""
    x = np.random.default_rng(0).normal(size=(9, 3))
    network, rows = bx.mlp([3, 4, 2], hidden="tanh", layer_norm=True), bx.data.standardize(x)
    theta, optimizer = network.initialize(backend="numpy"), bx.Adam(bx.schedules.warmup(0.1, 2))
    options: dict[str, Any] = {"optimizer": optimizer, "early_stopping": bx.EarlyStopping()}
    options["plateau"] = bx.Plateau()
    state = bx.fit(network, theta, rows.x, x[:, :2], epochs=3, **options)
    more = {"optimizer": optimizer, "preparation": rows, "metadata": {"of": ["today"]}}
    bx.save(path, network, state.theta, state=state, **more)

    def use(model: bx.Checkpoint) -> None:
        n_in = model.network.widths[0] or 3
        assert model.predict(np.ones((4, n_in))).shape[-2] == 4
        assert repr(model)

    return lambda path: bx.load(path, backend="numpy"), use


def perceptron_and_its_use(kind: str, path: Path) -> LoadAndUse:
    """Do as ``network_and_its_use`` for an estimator of arrays."""
    draw = np.random.default_rng(0)
    x, labels = draw.normal(size=(ROWS, 3)), draw.integers(0, 3, ROWS)
    model = getattr(bx, kind)(
        hidden_layer_sizes=(3, 2), layer_norm=True, max_iter=2, random_state=0
    )
    model.fit(x, labels if kind == "MLPClassifier" else x[:, :2]).save(path)

    def use(model: Any) -> None:
        x = np.ones((4, model.n_features_in_))
        if hasattr(model, "feature_names_in_"):
            pandas = pytest.importorskip("pandas")
            x = pandas.DataFrame(x, columns=model.feature_names_in_)
        assert len(model.predict(x)) == 4

    return type(model).load, use


def table_and_its_use(kind: str, path: Path) -> LoadAndUse:
    """Do as ``network_and_its_use`` for an estimator of tables with each kind of column."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    from backprop_xp.tables.readers import table_files

    draw = np.random.default_rng(0)
    days = pd.date_range("2020-02-01", periods=ROWS)
    table = pd.DataFrame(
        {
            "number": np.where(np.arange(ROWS) % 9, draw.normal(size=ROWS), np.nan),
            "money": [f"{i},5" for i in range(ROWS)],
            "date": days.strftime("%d/%m/%Y"),
            "city": [["Oslo", "Rome", None][i % 3] for i in range(ROWS)],
            "code": [f"k{i % 25}" for i in range(ROWS)],
            "text": [f"word{i} other{i * 7 % 11}" for i in range(ROWS)],
            "constant": 1,
        }
    )
    y = np.arange(ROWS) if kind == "TabularRegressor" else np.arange(ROWS) % 2 > 0
    model = getattr(bx, kind)(hidden_layer_sizes=4, max_iter=2, n_members=2, random_state=0)
    model.fit(table, y).save(path)
    cells = {"number": [1.5, np.nan, -3e300, 0.0], "date": days[:4]}
    others = pd.Series(["Oslo", "x y z", None, "k3"], dtype="str")

    def use(model: Any) -> None:
        features = model.model_.features
        kinds = {name: features.columns[name].kind for name in features.columns}
        names = [*features.seen]
        table = pd.DataFrame({name: cells.get(kinds.get(name, ""), others) for name in names})
        assert len(model.predict(table)) == 4
        assert (
            len(model.model_.predictions(table_files.as_table(table, texts=features.texts).frame))
            == 4
        )
        strings = table.astype("str")
        try:
            features.transform(strings)
        except ValueError as error:
            if "is expected, as in training" not in str(error):
                raise

    return bx.tables.load, use


USES: dict[str, Callable[[Path], LoadAndUse]] = {
    "network": network_and_its_use,
    **{kind: partial(perceptron_and_its_use, kind) for kind in ("MLPClassifier", "MLPRegressor")},
    **{
        kind: partial(table_and_its_use, kind) for kind in ("TabularClassifier", "TabularRegressor")
    },
}


@pytest.mark.once
@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize("count", [100, thorough(3000)])
def test_a_forged_file_is_refused_or_predicts_and_takes_little_memory(
    tmp_path: Path, kind: str, count: int
) -> None:
    path, used = tmp_path / "model", 0
    if kind != "network":
        pytest.importorskip("sklearn")
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        load, use = USES[kind](path)
        for data in forgeries(path.read_bytes(), count, seed=count):
            path.write_bytes(data)
            model, memory = peak_of_loading(load, path)
            assert memory < MOST_MEMORY * len(data) + SLACK
            if model is not None:
                use(model)
                used += 1
    # A tenth was measured for estimators of tables: the chance that none of 100 is used is 1e-4.
    assert 0 < used < 0.5 * count
