"""How a network is trained on a table: options checked together, and kept in the model's file."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from backprop_xp.checks import integer, nearest, real
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.training import schedules
from backprop_xp.training.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from backprop_xp.training.schedules import Schedule

OPTIMIZERS: dict[str, Any] = {"adam": Adam, "adamw": AdamW, "rmsprop": RMSProp, "sgd": SGD}
# Each is given the learning rate and the number of all updates, of which the last ends at 0.
SCHEDULES: dict[str, Any] = {
    "constant": lambda rate, updates: schedules.constant(rate),
    "cosine": schedules.cosine,
    "exponential": lambda rate, updates: schedules.exponential(rate, 0.01 ** (1.0 / updates)),
    "inverse_scaling": lambda rate, updates: schedules.inverse_scaling(rate),
    "plateau": lambda rate, updates: schedules.plateau(rate, factor=0.3, patience=4),
}
_NAMES = {"hidden": ACTIVATIONS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES}
# Small tables are not taken in one bite: an epoch has some ten updates at least.
_UPDATES = 10
_FEWEST_ROWS = 8
# Large tables have been seen often enough after so many updates, if they are seen a few times.
_ALL_UPDATES = 40_000
_MOST_EPOCHS, _FEWEST_EPOCHS = 200, 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a training on a table.

    ``epochs`` None is 200, or for large tables as many as make 40,000 updates, 10 at least.
    ``batch_size`` is the most rows of a batch: of a small table it is a tenth of the rows, 8 at
    least. ``class_weight`` is None or ``"balanced"``, for the loss of the training rows and of the
    validation rows. ``patience`` counts epochs without a lower validation loss; the best of
    ``restarts`` networks, by that loss, is kept. ``schedule`` is a name of ``SCHEDULES``: a cosine
    falls to 0 over all ``epochs``.
    """

    sizes: tuple[int, ...] = (64, 32)
    hidden: str = "relu"
    optimizer: str = "adam"
    learning_rate: float = 0.001
    schedule: str = "cosine"
    epochs: int | None = None
    batch_size: int = 256
    dropout: float = 0.0
    layer_norm: bool = False
    l2: float = 1e-4
    class_weight: str | None = None
    patience: int = 10
    seed: int = 0
    restarts: int = 1

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "sizes": tuple(integer(size, f"sizes[{i}]") for i, size in enumerate(self.sizes)),
            "learning_rate": real(self.learning_rate, "learning_rate", above=0.0),
            "dropout": real(self.dropout, "dropout", low=0.0, below=1.0),
            "l2": real(self.l2, "l2", low=0.0),
            "seed": integer(self.seed, "seed", at_least=0),
        }
        for name in ("epochs", "batch_size", "patience", "restarts"):
            if (value := getattr(self, name)) is not None:
                checked[name] = integer(value, name)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        for name, table in _NAMES.items():
            if (value := getattr(self, name)) not in table:  # names alone: a file keeps them
                raise ValueError(f"{name} {value!r} is unknown. {nearest(str(value), table)}")
        if self.class_weight not in (None, "balanced"):
            raise ValueError(f'class_weight must be "balanced" or None, not {self.class_weight!r}.')

    def for_rows(self, rows: int) -> "Settings":
        """Return the settings with the epochs and the batches that so many training rows have."""
        size = min(self.batch_size, max(_FEWEST_ROWS, rows // _UPDATES), rows)
        enough = max(_FEWEST_EPOCHS, _ALL_UPDATES // math.ceil(rows / size))
        epochs = self.epochs or min(_MOST_EPOCHS, enough)
        return dataclasses.replace(self, batch_size=size, epochs=epochs)

    def make_optimizer(self, rows: int) -> Optimizer:
        """Return the optimiser, its learning rate on its schedule, for so many training rows."""
        updates = (self.epochs or _MOST_EPOCHS) * math.ceil(rows / self.batch_size)
        rate: Schedule = SCHEDULES[self.schedule](self.learning_rate, updates)
        made: Optimizer = OPTIMIZERS[self.optimizer](rate)
        return made
