"""The settings of a training on a table: their types, defaults, help and checks.

The command line makes its options of the fields. This module imports none of the extra's libraries.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from backprop_xp.checks import boolean, integer, known, real
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.training import schedules
from backprop_xp.training.optimizers import OPTIMIZERS, Optimizer
from backprop_xp.training.schedules import Schedule

T = TypeVar("T")
Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)

# Each takes the learning rate and the number of all updates.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda rate, updates: schedules.constant(rate),
    "cosine": schedules.cosine,
    "exponential": lambda rate, updates: schedules.exponential(rate, 0.01 ** (1.0 / updates)),
    "inverse_scaling": lambda rate, updates: schedules.inverse_scaling(rate),
    "plateau": lambda rate, updates: schedules.plateau(rate, factor=0.3, patience=4),
}
# An epoch has at least about ten updates, also in a small table.
_UPDATES_PER_EPOCH = 10
_MIN_BATCH = 8
# Large tables need fewer epochs: this many updates are enough.
_ENOUGH_UPDATES = 40_000
_MAX_EPOCHS, _MIN_EPOCHS = 200, 10

# Returns a setting's value, or raises; called with the value and the name.
Check: TypeAlias = Callable[[Any, str], Any]


def _setting(default: T, check: Check, summary: str) -> T:
    """Return a field whose metadata are ``help``, one line, and ``check``."""
    field: T = dataclasses.field(default=default, metadata={"help": summary, "check": check})
    return field


def _one_of(names: Collection[str]) -> Check:
    """Return the check of a name; names alone, since a file stores them."""
    return lambda value, name: known(value, names, name)


def _or_none(check: Check) -> Check:
    return lambda value, name: None if value is None else check(value, name)


def _widths(values: Any, name: str) -> tuple[int, ...]:
    return tuple(integer(value, f"{name}[{i}]") for i, value in enumerate(values))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a training on a table.

    ``epochs`` None means 200; in large tables, as many as make 40,000 updates, but at least 10.
    ``batch_size`` is a maximum: in a small table a batch has a tenth of the rows, but at least 8.
    ``class_weight`` None or ``"balanced"`` weights the losses of the training and validation rows.
    ``schedule`` names one of ``SCHEDULES``: ``"cosine"`` falls to 0 over all ``epochs``.

    The metadata of each field are ``help``, a line for the user, and ``check``, a function of a
    value and its name that returns the value or raises ValueError or TypeError.
    """

    sizes: tuple[int, ...] = _setting((64, 32), _widths, "Widths of the hidden layers.")
    hidden: str = _setting("relu", _one_of(ACTIVATIONS), "A name of bx.activations.")
    optimizer: str = _setting("adam", _one_of(OPTIMIZERS), ", ".join(OPTIMIZERS))
    learning_rate: float = _setting(
        0.001, functools.partial(real, above=0.0), "The learning rate at its highest."
    )
    schedule: str = _setting("cosine", _one_of(SCHEDULES), ", ".join(SCHEDULES))
    epochs: int | None = _setting(
        None, _or_none(integer), "Maximum number of epochs. Default: 200, fewer for large tables."
    )
    batch_size: int = _setting(256, integer, "Maximum rows of a batch; fewer in small tables.")
    dropout: float = _setting(0.0, functools.partial(real, low=0.0, below=1.0), "Dropout rate.")
    layer_norm: bool = _setting(False, boolean, "Normalize each hidden layer.")
    l2: float = _setting(1e-4, functools.partial(real, low=0.0), "L2 penalty on the weights.")
    class_weight: str | None = _setting(
        None, _or_none(_one_of(["balanced"])), "balanced: each class has the same total weight."
    )
    patience: int = _setting(10, integer, "Epochs to wait for a lower validation loss.")
    seed: int = _setting(
        0, functools.partial(integer, at_least=0), "Seed of the split, the weights and the batches."
    )
    restarts: int = _setting(1, integer, "Networks to train at once; the best one is kept.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = field.metadata["check"](getattr(self, field.name), field.name)
            object.__setattr__(self, field.name, value)

    def for_rows(self, rows: int) -> "Settings":
        """Return the settings with the epochs and the batch size for so many training rows."""
        size = min(self.batch_size, max(_MIN_BATCH, rows // _UPDATES_PER_EPOCH), rows)
        enough = max(_MIN_EPOCHS, _ENOUGH_UPDATES // math.ceil(rows / size))
        epochs = self.epochs or min(_MAX_EPOCHS, enough)
        return dataclasses.replace(self, batch_size=size, epochs=epochs)

    def make_optimizer(self, rows: int) -> Optimizer:
        """Return the optimizer, with its schedule, for so many training rows."""
        updates = (self.epochs or _MAX_EPOCHS) * math.ceil(rows / self.batch_size)
        return OPTIMIZERS[self.optimizer](SCHEDULES[self.schedule](self.learning_rate, updates))
