"""Model files: a network with its theta, its optimizer and its training's state, in one file.

A file holds names and numbers, and nothing pickled. Reading it runs only what the library, or the
user by ``register``, has put into the registry.
"""

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop_xp.atomic_files import replacing, write
from backprop_xp.backends import (
    Array,
    Backend,
    Device,
    DType,
    Selection,
    array_namespace,
    device_of,
    owner,
    require_like,
    resolve,
    to_host,
)
from backprop_xp.backends.libraries.numpy import compilation
from backprop_xp.checks import integer, stacklevel
from backprop_xp.display.reprs import argument_text
from backprop_xp.files.container import decode, encode, read, refusing
from backprop_xp.files.descriptions import OPTIMIZER_STATES, describe, rebuild
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.states import FitResult, TrainingState
from backprop_xp.training.measures.early_stopping import Best
from backprop_xp.training.measures.plateau import Slowed
from backprop_xp.training.optimizers.first_order import AnyOptimizer, check_state
from backprop_xp.training.rows.preprocessing import Standardized, standardize

if TYPE_CHECKING:
    from backprop_xp.display.summaries import Summary

# The arrays of a state that are on the host wherever a training runs, and those of an estimator.
_ON_HOST = ("state.history.", "state.best.score", "state.best.epoch", "state.slowed.", "estimator.")
# The options of a training that are neither data nor functions.
_STORED = (
    "epochs batch_size accumulate shuffle seed clip l2 early_stopping plateau average "
    "check_every checkpoint_every"
)
_MAPPINGS = ("preparation", "metadata", "options", "estimator")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a model file; None or empty for a part that was not saved.

    To resume a training call ``bx.fit(network, theta, x, y, optimizer=optimizer, start=state,
    epochs=...)`` with the data and options of its beginning. In a file of ``fit`` or ``train``,
    ``options`` are those that a file can hold. ``estimator`` is what an estimator's ``save`` adds
    for its ``load``: NumPy's arrays, numbers and strings.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> bx.save(path, network, network.initialize(), metadata={"unit": "kg"})
    >>> kept = bx.load(path)
    >>> kept.network == network, kept.metadata, kept.predict([[0.0, 0.0]])
    (True, {'unit': 'kg'}, array([[0.]]))
    """

    network: Network
    theta: Array
    optimizer: AnyOptimizer | None = None
    state: TrainingState | None = None
    preparation: Mapping[str, Array] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    estimator: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, x: Array) -> Array:
        """Return the network's predictions for raw x, ``(batch, n_in)``.

        A ``preparation`` of mean and scale standardizes x first; any other is not applied.
        """
        x, _ = self.network.check_inputs(self.theta, x)
        if _prepares(self):
            x = standardize(x, **(self.preparation or {})).x
        return self.network.predict(self.theta, x)

    def __repr__(self) -> str:
        return self.summary().text(most_rows=5)

    def _repr_html_(self) -> str:
        return self.summary().html()

    def summary(self) -> "Summary":
        """Return shapes, the names of all parts, and the last and best losses for people."""
        from backprop_xp.display.summaries import Summary

        theta = argument_text(self.theta)
        sentence = f"of a network with {self.network.size} parameters; theta {theta}"
        remarks = [f"optimizer {argument_text(self.optimizer)}"] * (self.optimizer is not None)
        parts = {name: getattr(self, name) for name in _MAPPINGS if getattr(self, name)}
        names = "; ".join(f"{name} {', '.join(part)}" for name, part in parts.items())
        remarks += [names] * bool(names)
        if self.state is None:
            return Summary("Checkpoint", sentence, [], remarks, "")
        state = self.state.summary()
        remarks += [f"{state.title} {state.sentence}", *state.remarks]
        return state._replace(title="Checkpoint", sentence=sentence, remarks=remarks)


def save(
    path: str | os.PathLike[str],
    network: Network,
    theta: Array,
    *,
    optimizer: AnyOptimizer | None = None,
    state: TrainingState | FitResult | None = None,
    preparation: Standardized | Mapping[str, Array] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a network, its theta and the other arguments to a file; ``load`` reads it.

    ``state`` is a state of ``train`` or a result of ``fit``. ``preparation`` is a result of
    ``data.standardize``, whose mean and scale are stored, or arrays by name. ``metadata`` is
    what JSON can hold, by name: finite numbers, strings, booleans, None, lists and dicts of them.

    The file replaces an older one in one step: a crash leaves the old one intact. Raises TypeError
    for an activation, a layer, an optimizer ... of your own that is not registered.

    >>> import backprop_xp as bx, tempfile, pathlib
    >>> network = bx.mlp([2, 3, 1], hidden="tanh")
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> bx.save(path, network, network.initialize(backend="numpy"), metadata={"of": "today"})
    >>> bx.load(path, backend="numpy").metadata
    {'of': 'today'}
    """
    state = state.state if isinstance(state, FitResult) else state
    if isinstance(preparation, Standardized):
        preparation = {"mean": preparation.mean, "scale": preparation.scale}
    write_checked(path, Checkpoint(network, theta, optimizer, state, preparation, metadata or {}))


def write_checked(path: str | os.PathLike[str], content: Checkpoint) -> None:
    """Write a file, or raise if its parts do not fit one another."""
    _check(content)
    write(path, _encoded(content))


def load(
    path: str | os.PathLike[str],
    *,
    backend: str | Backend | None = None,
    device: Device | None = None,
    dtype: DType | None = None,
) -> Checkpoint:
    """Read a model file, written by any backend and device and in any precision.

    Its arrays go to the backend and device of the arguments, or to the default ones;
    ``dtype`` None keeps the file's precision. Raises CheckpointError, a ValueError, for a file that
    is damaged or has impossible content.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> bx.save(path, network, network.initialize())
    >>> bx.load(path, dtype="float32").theta.dtype
    dtype('float32')
    """
    choice = resolve(backend=backend, device=device, dtype=dtype)
    if not choice.backend.namespace().isdtype(choice.dtype, "real floating"):
        raise ValueError(f"dtype must be a real floating one, not {choice.dtype}.")
    with refusing(path):
        header, tensors = decode(read(path))
    arrays = {
        name: tensor
        if name.startswith(_ON_HOST)
        else _moved(tensor, choice, casts=dtype is not None)
        # safetensors' own order differs by process, and on devices of several a move is collective.
        for name, tensor in sorted(tensors.items())
    }
    with refusing(path):
        return _decoded(header, arrays)


def checkpoint_writer(
    network: Network, start: TrainingState, options: Options
) -> Callable[[Array, TrainingState], None]:
    """Return a function that writes the file of a training, given a theta and a state.

    Content that cannot be written raises now, before the first epoch. A later failure of a write
    is a warning.
    """
    path = Path(options.checkpoint or "").absolute()  # a callback may change the working directory
    stored = {name: getattr(options, name) for name in _STORED.split()}
    stored = {name: value for name, value in stored.items() if not callable(value)}

    def content(theta: Array, state: TrainingState) -> bytes:
        return _encoded(Checkpoint(network, theta, options.optimizer, state, options=stored))

    def write_checkpoint(theta: Array, state: TrainingState) -> None:
        try:
            write(path, content(theta, state))
        except Exception as error:
            warnings.warn(
                f"checkpoint={os.fspath(path)!r} was not written after epoch {state.epoch}: "
                f"{type(error).__name__}: {error}. The training continues, and so do the attempts "
                "to write.",
                RuntimeWarning,
                stacklevel=stacklevel(),
            )

    try:
        with replacing(path, is_trial=True) as file:
            file.write(content(start.theta, start))
    except OSError as error:
        error.add_note(f"checkpoint={os.fspath(path)!r} was tried before the first epoch.")
        raise
    return write_checkpoint


def _encoded(content: Checkpoint) -> bytes:
    """Return the bytes of a file."""
    network, arrays = content.network, dict[str, Array]()
    parts = {part.name: getattr(content, part.name) for part in fields(content)}
    metadata = parts.pop("metadata")
    parts["network"] = {"layers": [*network.layers], "loss": network.loss_function}
    parts["network"]["l2"] = network.l2
    header = {name: describe(part, name, arrays) for name, part in parts.items()}
    package = sys.modules[__name__.partition(".")[0]]  # importing it here would be a cycle
    versions = {"backprop_xp": package.__version__, "numpy": np.__version__}
    header["versions"] = versions | compilation.versions()
    header["metadata"] = dict(metadata)
    return encode(header, {name: _on_host(array, name) for name, array in arrays.items()})


def _on_host(array: Array, name: str) -> np.ndarray:
    home = owner(array)
    host = to_host(array if home is None else home.detach(array))
    if host.dtype.kind not in "biuf" or host.dtype.itemsize > 8:
        raise TypeError(f"{name} is of {host.dtype}, but a file holds real numbers up to float64.")
    return host.astype(host.dtype.newbyteorder("="), copy=False)


def _moved(tensor: np.ndarray, choice: Selection, *, casts: bool) -> Array:
    dtype = choice.dtype if casts and tensor.dtype.kind == "f" else None
    return choice.backend.from_host(tensor, dtype, choice.device)


def _decoded(header: dict[str, object], arrays: dict[str, Array]) -> Checkpoint:
    """Return the content that a header describes, with the checks of ``save``."""
    metadata: Any = header.pop("metadata")
    del header["versions"]
    unused = set(arrays)

    def take(name: str) -> Array:
        unused.discard(name)
        return arrays[name]

    parts: dict[str, Any] = {name: rebuild(part, name, take) for name, part in header.items()}
    if unused:
        raise ValueError(f"nothing refers to the tensor {min(unused)!r}.")
    network = parts.pop("network")
    network = Network(network["layers"], network["loss"], l2=network["l2"])
    content = Checkpoint(network, metadata=metadata, **parts)
    _check(content)
    return content


def _check(content: Checkpoint) -> None:
    """Raise unless the parts of a file fit one another."""
    optimizer = content.optimizer
    if not isinstance(content.network, Network):
        raise TypeError(
            f"network must be a bx.Network, not a {type(content.network).__name__}: give path, "
            "network, theta."
        )
    content.network.unpack(content.theta)
    if optimizer is not None and (
        isinstance(optimizer, type) or not hasattr(optimizer, "initialize")
    ):
        raise TypeError(f"optimizer must be an object like bx.Adam(), not {optimizer!r}.")
    for name in _MAPPINGS:
        value = getattr(content, name)
        if value is None and name == "preparation":
            continue
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name} must be a mapping with names for keys, not {value!r}.")
    _check_preparation(content)
    try:
        _check_json(dict(content.metadata), "metadata")
    except RecursionError:
        raise TypeError("metadata is nested too deeply.") from None
    if content.state is not None:
        _check_state(content.theta, optimizer, content.state)


def _check_json(value: Any, path: str) -> None:
    """Raise TypeError unless JSON returns an equal value."""
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{path} has the key {key!r}, but the keys in a file are strings: use "
                    f"{str(key)!r}."
                )
            _check_json(part, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            _check_json(part, f"{path}[{i}]")
    else:
        with contextlib.suppress(TypeError, ValueError):
            if json.loads(json.dumps(value, allow_nan=False)) == value:
                return
        shown = repr(value) if isinstance(value, np.generic) else argument_text(value)
        raise TypeError(
            f"{path} is {shown}, but metadata must be what JSON can hold: finite numbers, strings, "
            "booleans, None, and lists and dicts of them."
        )


def _prepares(content: Checkpoint) -> bool:
    """Whether a mean and a scale standardize the rows of ``predict``."""
    return content.preparation is not None and content.preparation.keys() == {"mean", "scale"}


def _check_preparation(content: Checkpoint) -> None:
    """Raise unless a preparation holds arrays, and a mean and a scale fit a row of the network."""
    given, theta, n_in = content.preparation or {}, content.theta, content.network.widths[0]
    for name, value in given.items():
        if owner(value) is None:
            raise TypeError(f"preparation[{name!r}] must be an array, not {value!r}.")
    if _prepares(content) and n_in is not None:
        xp = array_namespace(theta)
        row = xp.zeros((1, n_in), dtype=theta.dtype, device=device_of(theta))
        if standardize(row, **given).x.shape != row.shape:
            shapes = {name: tuple(value.shape) for name, value in given.items()}
            raise ValueError(f"preparation has {shapes}, but the network takes {n_in} features.")


def _check_state(theta: Array, optimizer: AnyOptimizer | None, state: TrainingState) -> None:
    if not isinstance(state, TrainingState):
        raise TypeError(
            f"state must be a state of bx.train or a result of bx.fit, not {type(state).__name__}."
        )
    for name in ("epoch", "step", "batch_size"):
        integer(getattr(state, name), f"state.{name}", at_least=0)
    if state.first is not None:
        integer(state.first, "state.first", at_least=0)
    best = None if state.best is None else Best(*state.best)
    for one in (state, best):
        own = getattr(one, "optimizer_state", None)
        if one is not None and optimizer is not None:
            check_state(optimizer, theta, own)
        if isinstance(own, OPTIMIZER_STATES):
            integer(own.step, "state.step", at_least=0)
    shape, stack = tuple(theta.shape), tuple(theta.shape[:-1])
    arrays = {"theta": (state.theta, shape), "loss": (state.loss, stack)}
    arrays["average"] = state.average, shape
    arrays["validation_loss"] = state.validation_loss, stack
    arrays |= {f"metrics[{name!r}]": (value, stack) for name, value in state.metrics.items()}
    for name, values in state.history.items():
        arrays[f"history[{name!r}]"] = values, (state.epoch, *stack)
    if best is not None:
        if not isinstance(best.watch, str) or best.mode not in ("min", "max"):
            raise TypeError(f"state.best watches {best.watch!r} in mode {best.mode!r}.")
        arrays |= {"best.score": (best.score, stack), "best.epoch": (best.epoch, stack)}
        arrays["best.theta"] = best.theta, shape
    if state.slowed is not None:
        slowed = Slowed(*state.slowed)
        for name in ("score", "epoch", "factor"):
            arrays[f"slowed.{name}"] = getattr(slowed, name), stack
    for name, (value, expected) in arrays.items():
        if value is not None and tuple(value.shape) != expected:
            raise ValueError(f"state.{name} has shape {tuple(value.shape)}, not {expected}.")
    if state.batch_losses is not None and tuple(state.batch_losses.shape[1:]) != stack:
        raise ValueError(f"state.batch_losses has shape {tuple(state.batch_losses.shape)}.")
    require_like(theta, state.theta, "state.theta")
