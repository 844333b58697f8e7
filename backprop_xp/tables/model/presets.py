"""The presets of the tabular estimators: a recipe for each name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from backprop_xp.backends import Array
from backprop_xp.training.measures.plateau import Plateau
from backprop_xp.training.optimizers import schedules
from backprop_xp.training.optimizers.first_order import OPTIMIZERS, Optimizer
from backprop_xp.training.optimizers.schedules import Schedule

# An epoch has at least about ten updates, also in a small table.
_UPDATES_PER_EPOCH, _MIN_BATCH, _MIN_EPOCHS = 10, 8, 10
# The penalty of a solver without weight decay, whose strength has another meaning.
_L2 = 1e-4

# Each takes the learning rate and the number of all updates.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda rate, updates: schedules.constant(rate),
    "cosine": schedules.cosine,
    "exponential": lambda rate, updates: schedules.exponential(rate, 0.01 ** (1.0 / updates)),
    "inverse_scaling": lambda rate, updates: schedules.inverse_scaling(rate),
    "plateau": lambda rate, updates: schedules.constant(rate),  # lowered by ``Recipe.plateau``
}


class NumericFeatures(NamedTuple):
    """The arguments of ``bx.NumericEmbedding`` ("pbld") for numbers and dates."""

    n_out: int
    n_frequencies: int
    frequency_scale: float


class CategoryFeatures(NamedTuple):
    """An embedding of ``n_out`` features for each category of more than ``above`` values."""

    above: int
    n_out: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete choice of what a training on a table needs.

    The first fields have the names and the meaning of ``TabularParameters``. ``scaling`` is that of
    ``Preparation``. ``max_updates`` limits the epochs of a large table, to at least 10. ``decay``
    is that of ``bx.EMA``, the average of theta that is measured and kept; 0 means theta itself.
    """

    hidden_layer_sizes: tuple[int, ...]
    activation: str
    solver: str
    alpha: float
    batch_size: int
    learning_rate: str
    learning_rate_init: float
    max_iter: int
    dropout: float
    layer_norm: bool
    n_members: int
    n_iter_no_change: int
    max_updates: int
    scaling: str
    numeric: NumericFeatures | None
    category: CategoryFeatures | None
    decay: float

    def optimizer(self, rows: int, mask: Array) -> Optimizer:
        """Return the optimizer, with its schedule, for so many training rows.

        Its weight decay is ``alpha`` if it has one, for the entries of theta that ``mask`` selects.
        """
        updates = self.max_iter * math.ceil(rows / self.batch_size)
        rate = SCHEDULES[self.learning_rate](self.learning_rate_init, updates)
        decay = {"weight_decay": self.alpha, "mask": mask} if self.decays else {}
        return OPTIMIZERS[self.solver](rate, **decay)

    @property
    def plateau(self) -> Plateau | None:
        """The rule that lowers the rate of the schedule "plateau"."""
        return Plateau(factor=0.3, patience=4) if self.learning_rate == "plateau" else None

    @property
    def decays(self) -> bool:
        """Whether ``alpha`` is the weight decay of the optimizer, instead of an L2 penalty."""
        return hasattr(OPTIMIZERS[self.solver], "weight_decay")


# The scaling and the numeric embedding are RealMLP's (Holzmüller et al. 2024, "Better by default").
# The values were chosen on the tuning half of the tables of ``benchmarks/tables.py``.
_DEFAULT = Recipe(
    hidden_layer_sizes=(128, 128),
    activation="silu",
    solver="adamw",
    alpha=0.1,
    batch_size=128,
    learning_rate="cosine",
    learning_rate_init=3e-3,
    max_iter=200,
    dropout=0.0,
    layer_norm=False,
    n_members=4,
    n_iter_no_change=7,
    max_updates=16_000,
    scaling="robust",
    numeric=NumericFeatures(n_out=4, n_frequencies=16, frequency_scale=0.5),
    category=CategoryFeatures(above=20, n_out=8),
    decay=0.99,
)
PRESETS: dict[str, Recipe] = {
    "fast": replace(_DEFAULT, n_members=1, max_iter=100, max_updates=6_000, n_iter_no_change=5),
    "default": _DEFAULT,
    "best": replace(_DEFAULT, n_members=8, max_updates=30_000, n_iter_no_change=20),
}


def recipe_for(parameters: Mapping[str, Any], rows: int) -> Recipe:
    """Return the preset's recipe with the parameters that are not None, for so many training rows.

    In a small table a batch has a tenth of the rows, but at least 8. In a very large table the
    preset's batch is larger, so that ten epochs have ``max_updates`` updates.
    """
    preset = PRESETS[parameters["preset"]]
    chosen = {name: value for name, value in parameters.items() if value is not None}
    given = {name: chosen[name] for name in vars(preset).keys() & chosen.keys()}
    recipe = replace(preset, **given)
    if recipe.decays != preset.decays and "alpha" not in given:
        recipe = replace(recipe, alpha=_L2)
    size = recipe.batch_size
    if "batch_size" not in given:
        size = max(size, math.ceil(_MIN_EPOCHS * rows / recipe.max_updates))
    size = min(size, max(_MIN_BATCH, rows // _UPDATES_PER_EPOCH), rows)
    enough = max(_MIN_EPOCHS, recipe.max_updates // math.ceil(rows / size))
    epochs = recipe.max_iter if "max_iter" in given else min(recipe.max_iter, enough)
    return replace(recipe, batch_size=size, max_iter=epochs)
