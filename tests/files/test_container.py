"""Damaged and hostile files: one clear error each, and no object is made from their content."""

import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.files import container, descriptions

pytest.importorskip("safetensors")

# The memory for reading a small file beyond its own size: tables, messages, parsed JSON.
SLACK = 2**20


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with all parts."""
    path = tmp_path_factory.mktemp("files") / "model"
    network = bx.mlp([3, 6, 2], hidden="tanh", layer_norm=True)
    x = np.random.default_rng(0).normal(size=(9, 3))
    bx.fit(
        network,
        network.initialize(backend="numpy"),
        x,
        x[:, :2],
        optimizer=bx.Adam(bx.schedules.warmup(0.1, 2)),
        plateau=bx.Plateau(),
        epochs=3,
        early_stopping=bx.EarlyStopping(),
        checkpoint=path,
    )
    return path.read_bytes()


def _load_error(path: Path, data: bytes) -> str:
    """Return the error of loading the file, which allocates little memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(bx.CheckpointError) as caught:
            bx.load(path, backend="numpy")
        assert tracemalloc.get_traced_memory()[1] < 30 * len(data) + SLACK
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    return str(caught.value)


def _split(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return the container's table, its header and the data."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    return table, json.loads(table.pop("__metadata__")["backprop_xp"]), data[8 + length :]


def _join(table: dict[str, Any], header: Any, data: bytes) -> bytes:
    """Return a file with a correct checksum, as an attacker would write it."""
    blank = "0" * 64
    text = header if isinstance(header, str) else json.dumps({**header, "checksum": blank})
    table = {"__metadata__": {"backprop_xp": text}, **table}
    head = json.dumps(table).encode()
    whole = len(head).to_bytes(8, "little") + head + data
    if blank.encode() not in whole:
        return whole
    position = whole.index(blank.encode())
    return whole.replace(blank.encode(), container._checksum(whole, position), 1)


def test_a_file_that_is_split_and_joined_again_loads(valid: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(_join(*_split(valid)))
    assert bx.load(tmp_path / "m", backend="numpy").state.epoch == 3


def test_300_mutated_files_are_errors(valid: bytes, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    header = int.from_bytes(valid[:8], "little")
    for i in range(300):
        data = bytearray(valid)
        position = int(generator.integers(0, len(data) if i % 2 else header + 8))
        match i % 3:
            case 0:
                data[position] ^= 1 << int(generator.integers(8))
            case 1:
                data = data[:position]
            case 2:
                other = int(generator.integers(0, len(data) - 16))
                data[other : other + 8] = generator.bytes(8)
        if data != valid:
            _load_error(tmp_path / "m", bytes(data))


def test_swapped_tensors_are_an_error(valid: bytes, tmp_path: Path) -> None:
    table, header, data = _split(valid)
    mean, square = (f"state.optimizer_state.{name}" for name in ("mean", "square"))
    table[mean], table[square] = table[square], table[mean]
    text = json.dumps(header)  # with the old checksum
    assert "checksum" in _load_error(tmp_path / "m", _join(table, text, data))


HOSTILE_TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "huge": ({"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}, "does not read it"),
    "overflow": (
        {"dtype": "F64", "shape": [2**40, 2**40], "data_offsets": [0, 8]},
        "does not read it",
    ),
    "huger": ({"dtype": "F64", "shape": [2**70, 0], "data_offsets": [0, 0]}, "does not read it"),
    "negative": ({"dtype": "F64", "shape": [-1], "data_offsets": [8, 0]}, "does not read it"),
    "offsets": ({"dtype": "F64", "shape": [1], "data_offsets": [-8, 0]}, "does not read it"),
    "alias": ({"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}, "does not read it"),
    "dtype": ({"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}, "does not read it"),
    "axes": ({"dtype": "F64", "shape": [1] * 99, "data_offsets": [0, 8]}, "does not read it"),
    "floats": ({"dtype": "F64", "shape": [1.0], "data_offsets": [0, 8]}, "does not read it"),
    "nothing": ({}, "does not read it"),
    "unused": ({"dtype": "F64", "shape": [0], "data_offsets": [0, 0]}, "nothing refers to"),
    "complex": ({"dtype": "C64", "shape": [0], "data_offsets": [0, 0]}, "the dtype complex64"),
}


@pytest.mark.parametrize("name", HOSTILE_TABLES)
def test_a_hostile_tensor_is_an_error(valid: bytes, name: str, tmp_path: Path) -> None:
    table, header, data = _split(valid)
    entry, message = HOSTILE_TABLES[name]
    assert message in _load_error(tmp_path / "m", _join({**table, "evil": entry}, header, data))


def _nested(depth: int) -> Any:
    layer: Any = {"call": "Dense", "with": {"n_in": 3, "n_out": 3}}
    for _ in range(depth):
        layer = _of("Residual", layer)
    return layer


def _of(name: str, *layers: Any) -> Any:
    return {"call": name, "with": {"layers": {"tuple": [*layers]}}}


def _dense(**arguments: Any) -> Any:
    return {"call": "Dense", "with": {"n_in": 3, "n_out": 2, **arguments}}


HOSTILE_LAYERS: dict[str, tuple[Any, str]] = {
    "unknown": ({"call": "os.system", "with": {"command": "true"}}, "There is no 'os.system'"),
    "unregistered": ({"registered": "Bomb", "with": {}}, "Nothing is registered as 'Bomb'"),
    "enormous": (_dense(n_in=10**12, n_out=10**12), "theta"),
    "digits": (_dense(n_in=10**400), "n_in must be an integer of at most 63 bits"),
    "columns": (
        {
            "call": "Columns",
            "with": {"layers": {"tuple": [{"call": "Scale", "with": {"n": 10**12}}]}},
        },
        "theta",
    ),
    "negative": (_dense(n_in=-3), "n_in must be an integer of at least 1"),
    "text": (_dense(n_out="many"), "n_out must be an integer"),
    "argument": (_dense(evil=1), "'evil' that is not known"),
    "activation": (_dense(activation={"name": "activations.evil"}), "no 'activations.evil'"),
    "kind": (_dense(activation={"name": "losses.huber"}), "activation must be"),
    "array": (_dense(n_in={"array": "nowhere"}), "nowhere"),
    "no layer": (3, "not a layer"),
    "shape": ({"tuple": [], "dict": {}}, "describes an unknown object"),
    "deep": (_nested(200), ""),
}


@pytest.mark.parametrize("name", HOSTILE_LAYERS)
def test_a_hostile_layer_is_an_error(valid: bytes, name: str, tmp_path: Path) -> None:
    table, header, data = _split(valid)
    layer, message = HOSTILE_LAYERS[name]
    header["network"]["dict"]["layers"] = [layer]
    assert message in _load_error(tmp_path / "m", _join(table, header, data))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["estimator"], None, "estimator must be a mapping"),
        (["metadata"], None, "metadata must be a mapping"),
        (["network"], {"array": "theta"}, ""),
        (["state", "with", "best", "with", "watch"], [], "state.best watches [] in mode 'min'"),
        (["preparation"], {"dict": {"mean": {"array": "theta"}, "scale": {"array": "theta"}}}, ""),
    ],
)
def test_a_part_that_fails_in_use_is_an_error(
    valid: bytes, path: list[str], value: Any, message: str, tmp_path: Path
) -> None:
    table, header, data = _split(valid)
    *homes, last = path
    home = header
    for name in homes:
        home = home[name]
    home[last] = value
    assert message in _load_error(tmp_path / "m", _join(table, header, data))


def test_a_number_beyond_float64_is_an_error(valid: bytes, tmp_path: Path) -> None:
    table, header, data = _split(valid)
    header["network"]["dict"]["l2"] = 10**400
    assert "l2 must be finite" in _load_error(tmp_path / "m", _join(table, header, data))


def test_a_file_may_name_a_registered_object_but_not_call_it(
    valid: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setitem(descriptions.REGISTRY, "registered", {"own": called.append})
    table, header, data = _split(valid)
    layer = {"registered": "own", "with": {"object": 3}}
    header["network"]["dict"]["layers"] = [layer]
    assert "not as a class" in _load_error(tmp_path / "m", _join(table, header, data))
    assert not called


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", -1, "state.step must be"),
        ("epoch", "three", "state.epoch must be"),
        ("best", 3, ""),
        ("batch_losses", 3, ""),
        ("theta", None, ""),
        ("metrics", 3, ""),
        ("history", {"dict": {"loss": {"array": "theta"}}}, ""),
        ("optimizer_state", None, "nothing refers to the tensor"),
    ],
)
def test_a_hostile_state_is_an_error(
    valid: bytes, name: str, value: Any, message: str, tmp_path: Path
) -> None:
    table, header, data = _split(valid)
    header["state"]["with"][name] = value
    assert message in _load_error(tmp_path / "m", _join(table, header, data))


@pytest.mark.parametrize("of_best", [False, True])
@pytest.mark.parametrize("step", [-1, "x", 1e30, 3.0, None, True, [3], {"array": "theta"}])
def test_a_hostile_step_of_an_optimizer_is_an_error(
    valid: bytes, step: Any, of_best: bool, tmp_path: Path
) -> None:
    table, header, data = _split(valid)
    state = header["state"]["with"]
    held = state["best"]["with"] if of_best else state
    held["optimizer_state"]["with"]["step"] = step
    assert "state.step must be" in _load_error(tmp_path / "m", _join(table, header, data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"format": 1, "format": 2}', "an object has a key twice"),
        ("[1]", "not a JSON object"),
        ('{"format": ' + "9" * 10_000 + "}", "not JSON"),
        ('{"format": 1}', "another version of the format"),
        ('{"format": 2}', "checksum"),
        ('{"format": 2, "checksum": 3}', "checksum"),
        ("\ud800", "not JSON"),
        ('{"format": 2, "checksum": "' + "\ud800" * 64 + '"}', "checksum"),
    ],
)
def test_a_hostile_header_is_an_error(
    valid: bytes, text: str, message: str, tmp_path: Path
) -> None:
    table, _, data = _split(valid)
    assert message in _load_error(tmp_path / "m", _join(table, text, data))


@pytest.mark.parametrize("missing", ["network", "theta", "state", "metadata", "versions"])
def test_a_header_without_a_part_is_an_error(valid: bytes, missing: str, tmp_path: Path) -> None:
    table, header, data = _split(valid)
    del header[missing]
    _load_error(tmp_path / "m", _join(table, header, data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",
        b"PK\x03\x04" * 9,
        b"\xff" * 64,
        (2**62).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_file_that_is_no_model_is_an_error(data: bytes, tmp_path: Path) -> None:
    assert "not a model file" in _load_error(tmp_path / "m", data)


@pytest.mark.parametrize("length", [0, 2, 1000, 2**27, 2**62])
def test_a_large_file_that_is_no_model_is_not_read(length: int, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    os.truncate(path, 2**28)  # sparse: it takes no space
    assert not container.is_model_file(path)
    tracemalloc.start()
    with pytest.raises(bx.CheckpointError):
        bx.load(path, backend="numpy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SLACK


def test_a_model_file_is_known_by_its_beginning(valid: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m"
    for data, expected in ((valid, True), (valid[:-8], True), (valid[:99], False), (b"", False)):
        path.write_bytes(data)
        assert container.is_model_file(path) == expected
    assert not container.is_model_file(Path(os.devnull))


def test_a_safetensors_file_of_another_program_is_an_error(tmp_path: Path) -> None:
    import safetensors.numpy

    data = safetensors.numpy.save({"theta": np.ones(3)})
    assert "bx.save did not write it" in _load_error(tmp_path / "m", data)


def test_a_header_that_is_too_large_is_not_saved(tmp_path: Path) -> None:
    network = bx.mlp([3, 2])
    theta = network.initialize(backend="numpy")
    with pytest.raises(ValueError, match="Make metadata shorter, or use fewer columns"):
        bx.save(tmp_path / "m", network, theta, metadata={"x": "y" * 2**22})


@pytest.mark.parametrize(("library", "extra"), [("safetensors", "files"), ("ndonnx", "onnx")])
def test_a_missing_library_is_an_error_with_the_install_command(
    library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = bx.mlp([3, 2])
    write = {"files": bx.save, "onnx": bx.export_onnx}[extra]
    for module in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install '{library}>="):
        write(tmp_path / "m", network, network.initialize(backend="numpy"))
