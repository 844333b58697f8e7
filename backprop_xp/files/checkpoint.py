"""Model files: a network with its theta, its optimiser, its training's state, in one file.

Everything is written by name and number, nothing is pickled: reading a file runs nothing but what
the library, or the user by ``register``, has put into a table.
"""

import contextlib
import json
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backprop_xp.backends import Array, Selection, owner, require_like, resolve, to_host
from backprop_xp.checks import integer
from backprop_xp.files.container import CheckpointError, packed, read, unpacked, write
from backprop_xp.files.descriptions import described, remade
from backprop_xp.networks.network import Network
from backprop_xp.training.data import Standardized, standardize
from backprop_xp.training.early_stopping import Best, Slowed
from backprop_xp.training.optimizers import (
    AdamState,
    Optimizer,
    RMSPropState,
    SGDState,
    check_state,
)
from backprop_xp.training.options import FitResult, Options, TrainingState

# What is on the host wherever a training runs.
_ON_THE_HOST = (
    *("state.history.", "state.best.score", "state.best.epoch", "state.slowed."),
    "estimator.",
)
# The options of a training that are no data and no functions.
_KEPT = (
    *("epochs", "batch_size", "shuffle", "seed", "clip", "l2"),
    *("early_stopping", "check_every", "checkpoint_every"),
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is in a model file; None and empty where nothing was saved.

    A training goes on by ``bx.fit(network, theta, x, y, optimizer=optimizer, start=state,
    epochs=...)``, given the data and the options that it began with: ``options`` are those that a
    file can hold, in a file that ``fit`` or ``train`` wrote. ``estimator`` is what an estimator's
    ``save`` keeps beside its network: NumPy's arrays, numbers and words, for its ``load``.
    """

    network: Network
    theta: Array
    optimizer: Optimizer | None = None
    state: TrainingState | None = None
    preparation: Mapping[str, Array] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    estimator: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, x: Array) -> Array:
        """Return the network's predictions for x as it came, ``(batch, n_in)``.

        It is standardised first where ``preparation`` has a mean and a scale. Another preparation
        is its maker's to apply.
        """
        x, _ = self.network.check_inputs(self.theta, x)
        if self.preparation is not None and self.preparation.keys() == {"mean", "scale"}:
            x = standardize(x, **self.preparation).x
        return self.network.predict(self.theta, x)


def save(
    path: str | os.PathLike[str],
    network: Network,
    theta: Array,
    *,
    optimizer: Optimizer | None = None,
    state: TrainingState | FitResult | None = None,
    preparation: Standardized | Mapping[str, Array] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a network and its theta to a file, and what else is given; ``load`` reads it.

    ``state`` is one of ``train``, or a result of ``fit``. ``preparation`` is what
    ``data.standardize`` returned, of which mean and scale are kept, or arrays by names.
    ``metadata`` is what JSON can hold, by names.

    The file takes the place of an older one in one step: a crash leaves the old one whole. Raises
    TypeError for an activation, a layer, an optimiser ... of one's own that is not registered.

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


def write_checked(path: str | os.PathLike[str], given: Checkpoint) -> None:
    """Write a file of parts that fit one another, or raise."""
    _check(given)
    write(path, _packed(given))


def load(
    path: str | os.PathLike[str], *, backend: Any = None, device: Any = None, dtype: Any = None
) -> Checkpoint:
    """Read a model file, whichever backend, device and precision wrote it.

    Its arrays go where backend and device, or the choice without them, say; ``dtype`` None keeps
    the file's precision. Raises CheckpointError, a ValueError, for a file that is damaged or
    holds what cannot be.
    """
    choice = resolve(backend=backend, device=device, dtype=dtype)
    if not choice.backend.namespace().isdtype(choice.dtype, "real floating"):
        raise ValueError(f"dtype must be a real floating one, not {choice.dtype}.")
    try:
        header, tensors = unpacked(read(path))
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error
    arrays = {
        name: tensor
        if name.startswith(_ON_THE_HOST)
        else _placed(tensor, choice, casts=dtype is not None)
        for name, tensor in tensors.items()
    }
    try:
        return _made(header, arrays)
    except RecursionError:
        raise CheckpointError(f"{os.fspath(path)}: it is nested too deeply.") from None
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error


def keeper(
    network: Network, start: TrainingState, options: Options
) -> Callable[[Array, TrainingState], None]:
    """Return what writes the file of a training from a start, of a theta and a state.

    What cannot be written is refused now, before the first epoch. A write that fails later warns.
    """
    given = {name: getattr(options, name) for name in _KEPT}
    kept = {name: value for name, value in given.items() if not callable(value)}
    path = Path(options.checkpoint or "").absolute()  # a callback may go to another folder

    def content(theta: Array, state: TrainingState) -> bytes:
        return _packed(Checkpoint(network, theta, options.optimizer, state, options=kept))

    def keep(theta: Array, state: TrainingState) -> None:
        try:
            write(path, content(theta, state))
        except Exception as error:
            warnings.warn(
                f"checkpoint={os.fspath(path)!r} was not written after epoch {state.epoch}: "
                f"{type(error).__name__}: {error}. The training goes on, and the next write is "
                "tried again.",
                RuntimeWarning,
                stacklevel=4,
            )

    _try(path, content(start.theta, start))
    return keep


def _try(path: Path, data: bytes) -> None:
    """Raise OSError unless a file of these bytes can be put at a path; none is left behind."""
    named, target = f"checkpoint={os.fspath(path)!r}", Path(os.path.realpath(path))
    trial = target.with_name(f".backprop_xp-{secrets.token_hex(8)}.tmp")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{named} is in a folder that is not there.")
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(target.stat().st_mode):
                raise IsADirectoryError(f"{named} is a folder or a device. Name a file.")
        trial.write_bytes(data)
    except OSError as error:
        error.add_note(f"{named} was tried before the first epoch.")
        raise
    finally:
        trial.unlink(missing_ok=True)


def _packed(given: Checkpoint) -> bytes:
    arrays: dict[str, Array] = {}
    network = {
        "layers": [*given.network.layers],
        "loss": given.network.loss_function,
        "l2": given.network.l2,
    }
    parts = {"theta": given.theta, "network": network, "optimizer": given.optimizer}
    parts |= {"state": given.state, "preparation": given.preparation, "options": given.options}
    parts["estimator"] = given.estimator
    header = {name: described(part, name, arrays) for name, part in parts.items()}
    package = sys.modules[__name__.partition(".")[0]]  # importing it here would be a cycle
    header["versions"] = {"backprop_xp": package.__version__, "numpy": np.__version__}
    header["metadata"] = dict(given.metadata)
    return packed(header, {name: _plain(array, name) for name, array in arrays.items()})


def _plain(array: Array, name: str) -> np.ndarray:
    home = owner(array)
    host = to_host(array if home is None else home.detached(array))
    if host.dtype.kind not in "biuf" or host.dtype.itemsize > 8:
        raise TypeError(f"{name} is of {host.dtype}, but a file holds real numbers up to float64.")
    return host.astype(host.dtype.newbyteorder("="), copy=False)


def _placed(tensor: np.ndarray, choice: Selection, *, casts: bool) -> Array:
    kind = choice.dtype if casts and tensor.dtype.kind == "f" else None
    return choice.backend.from_host(tensor, kind, choice.device)


def _made(header: dict[str, Any], arrays: dict[str, Array]) -> Checkpoint:
    """Return what a header describes, checked as what is saved is."""
    metadata, _ = header.pop("metadata"), header.pop("versions")
    left = set(arrays)

    def take(name: str) -> Array:
        left.discard(name)
        return arrays[name]

    parts = {name: remade(part, name, take) for name, part in header.items()}
    if left:
        raise ValueError(f"nothing is said of the tensor {min(left)!r}.")
    network = parts.pop("network")
    network = Network(network["layers"], network["loss"], l2=network["l2"])
    made = Checkpoint(network, metadata=metadata, **parts)
    _check(made)
    return made


def _check(given: Checkpoint) -> None:
    """Raise unless the parts of a file fit one another."""
    if not isinstance(given.network, Network):
        raise TypeError(f"network must be a bx.Network, not {given.network!r}.")
    if owner(given.theta) is None:
        raise TypeError(f"theta must be an array, not {given.theta!r}.")
    given.network.unpack(given.theta)
    is_one = hasattr(given.optimizer, "initialize") and not isinstance(given.optimizer, type)
    if given.optimizer is not None and not is_one:
        raise TypeError(f"optimizer must be one such as bx.Adam(), not {given.optimizer!r}.")
    for name in ("preparation", "metadata", "options", "estimator"):
        value = getattr(given, name)
        if not isinstance(value, Mapping | None) or not all(
            isinstance(k, str) for k in value or ()
        ):
            raise TypeError(f"{name} must be a mapping with names for keys, not {value!r}.")
    for name, value in (given.preparation or {}).items():
        if owner(value) is None:
            raise TypeError(f"preparation[{name!r}] must be an array, not {value!r}.")
    try:
        json.dumps(given.metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata must be what JSON can hold: {error}.") from None
    if given.state is not None:
        _check_state(given.theta, given.optimizer, given.state)


def _check_state(theta: Array, optimizer: Optimizer | None, state: TrainingState) -> None:
    if not isinstance(state, TrainingState):
        raise TypeError(
            f"state must be one of bx.train or a result of bx.fit, not {type(state).__name__}."
        )
    for name in ("epoch", "step", "batch_size"):
        integer(getattr(state, name), f"state.{name}", at_least=0)
    best = None if state.best is None else Best(*state.best)
    for held in (state, best):
        if held is not None:
            _check_optimizer_state(theta, optimizer, held.optimizer_state)
    shape, stack = tuple(theta.shape), tuple(theta.shape[:-1])
    expected = {"theta": (state.theta, shape), "loss": (state.loss, stack)}
    expected["validation_loss"] = state.validation_loss, stack
    expected |= {f"metrics[{name!r}]": (value, stack) for name, value in state.metrics.items()}
    for name, values in state.history.items():
        expected[f"history[{name!r}]"] = values, (state.epoch, *stack)
    if best is not None:
        expected |= {"best.score": (best.score, stack), "best.epoch": (best.epoch, stack)}
        expected["best.theta"] = best.theta, shape
    if state.slowed is not None:
        slowed = Slowed(*state.slowed)
        for name in ("score", "epoch", "factor"):
            expected[f"slowed.{name}"] = getattr(slowed, name), stack
    for name, (value, wanted) in expected.items():
        if value is not None and tuple(value.shape) != wanted:
            raise ValueError(f"state.{name} has shape {tuple(value.shape)}, not {wanted}.")
    if state.batch_losses is not None and tuple(state.batch_losses.shape[1:]) != stack:
        raise ValueError(f"state.batch_losses has shape {tuple(state.batch_losses.shape)}.")
    require_like(theta, state.theta, "state.theta")


def _check_optimizer_state(theta: Array, optimizer: Optimizer | None, state: Any) -> None:
    if optimizer is not None:
        check_state(optimizer, theta, state)
    if isinstance(state, SGDState | RMSPropState | AdamState):
        integer(state.step, "state.step", at_least=0)
