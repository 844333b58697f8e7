"""The parameters of the tabular estimators: their types, checks, defaults and help.

The command line makes its options of them. This module imports none of the extra's libraries.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from backprop_xp.backends import Backend, Device
from backprop_xp.checks import boolean, integer, known, real
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.tables.presets import PRESETS, SCHEDULES
from backprop_xp.training.metrics import METRICS
from backprop_xp.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from numpy.random import RandomState

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)
DTYPES = ("float32", "float64")
# Metrics of numbers; the others are metrics of classes. A few are better if they are lower.
OF_NUMBERS, LOWER_IS_BETTER = ("r2", "rmse", "mae"), ("rmse", "mae", "log_loss")

# Returns a parameter's value, or raises; called with the value and the name.
Check: TypeAlias = Callable[[Any, str], Any]


class Parameter(NamedTuple):
    """A check, a line of help, and the type of the command's option, None for no option."""

    check: Check
    help: str
    option: type | None = None


def _one_of(names: Collection[str]) -> Check:
    """Return the check of a name; names alone, since a file stores them."""
    return lambda value, name: known(value, names, name)


def _or_none(check: Check) -> Check:
    return lambda value, name: None if value is None else check(value, name)


def _widths(values: Any, name: str) -> tuple[int, ...]:
    given = values if isinstance(values, Sequence) else [values]
    return tuple(integer(value, f"{name}[{i}]") for i, value in enumerate(given))


def _any(value: Any, name: str) -> Any:
    return value


def _class_weight(value: Any, name: str) -> Any:
    return value if isinstance(value, Mapping) else known(value, ["balanced"], name)


_positive = functools.partial(real, above=0.0)
_not_negative = functools.partial(real, low=0.0)
_share = functools.partial(real, above=0.0, below=1.0)
_rate = functools.partial(real, low=0.0, below=1.0)

# The parameters of the estimators, by name.
PARAMETERS: dict[str, Parameter] = {
    "preset": Parameter(
        _one_of(PRESETS), f"{', '.join(PRESETS)}: the values of the other options.", str
    ),
    "hidden_layer_sizes": Parameter(_or_none(_widths), "Widths of the hidden layers.", str),
    "activation": Parameter(_or_none(_one_of(ACTIVATIONS)), "A name of bx.activations.", str),
    "solver": Parameter(_or_none(_one_of(OPTIMIZERS)), f"{', '.join(OPTIMIZERS)}.", str),
    "alpha": Parameter(
        _or_none(_not_negative), "L2 penalty; with adamw and lion the weight decay.", float
    ),
    "batch_size": Parameter(
        _or_none(integer), "Maximum rows of a batch; fewer in small tables.", int
    ),
    "learning_rate": Parameter(_or_none(_one_of(SCHEDULES)), f"{', '.join(SCHEDULES)}.", str),
    "learning_rate_init": Parameter(
        _or_none(_positive), "The learning rate at its highest.", float
    ),
    "max_iter": Parameter(_or_none(integer), "Maximum number of epochs.", int),
    "dropout": Parameter(_or_none(_rate), "Dropout rate.", float),
    "layer_norm": Parameter(_or_none(boolean), "Normalize each hidden layer.", bool),
    "n_members": Parameter(
        _or_none(integer), "Networks of the ensemble, trained at once and averaged.", int
    ),
    "n_iter_no_change": Parameter(
        _or_none(integer), "Epochs to wait for a better validation result.", int
    ),
    "metric": Parameter(
        _or_none(_one_of(METRICS)),
        "A name of bx.metrics that ends the training and chooses the epoch. Default: the loss.",
        str,
    ),
    "class_weight": Parameter(
        _or_none(_class_weight), "balanced: each class has the same total weight.", str
    ),
    "validation_fraction": Parameter(_share, "The share of the rows that does so."),
    "random_state": Parameter(_any, "Seed of the split, the weights and the batches.", int),
    "backend": Parameter(_any, "Where to compute, as in bx.use_backend."),
    "device": Parameter(_any, "A device of the backend."),
    "dtype": Parameter(_one_of(DTYPES), f"{' or '.join(DTYPES)}."),
    "verbose": Parameter(boolean, "Show the progress."),
}


@dataclass(eq=False, repr=False)
class TabularParameters:
    """The parameters of both tabular estimators; None is the preset's value."""

    preset: str = "default"
    _: KW_ONLY
    hidden_layer_sizes: int | Sequence[int] | None = None
    activation: str | None = None
    solver: str | None = None
    alpha: float | None = None
    batch_size: int | None = None
    learning_rate: str | None = None
    learning_rate_init: float | None = None
    max_iter: int | None = None
    dropout: float | None = None
    layer_norm: bool | None = None
    n_members: int | None = None
    n_iter_no_change: int | None = None
    metric: str | None = None
    validation_fraction: float = 0.15
    random_state: "int | RandomState | None" = None
    backend: str | Backend | None = None
    device: Device = None
    dtype: str = "float32"
    verbose: bool = False


@dataclass(eq=False, repr=False)
class ClassifierParameters(TabularParameters):
    """The parameters of the classifier."""

    class_weight: str | Mapping[Any, float] | None = None


def checked_parameters(parameters: TabularParameters, task: Task) -> dict[str, Any]:
    """Return the values; raise ValueError or TypeError for one that cannot be used."""
    values = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    metrics = [name for name in METRICS if (name in OF_NUMBERS) == (task == "regression")]
    if parameters.metric is not None:
        known(parameters.metric, metrics, "metric")
    return {name: PARAMETERS[name].check(value, name) for name, value in values.items()}


def described(parameters: type[TabularParameters]) -> str:
    """Return the lines of a docstring about the parameters."""
    names = [field.name for field in fields(parameters)]
    return "\n".join(f"- ``{name}``: {PARAMETERS[name].help}" for name in names)
