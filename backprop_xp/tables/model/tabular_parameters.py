"""The parameters of the tabular estimators: their types, checks, defaults and help.

The command line makes its options of them. This module imports none of the extra's libraries.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from backprop_xp.backends import Backend, Device, dtype_name
from backprop_xp.checks import boolean, integer, known, real
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.tables.model.presets import PRESETS, SCHEDULES
from backprop_xp.training.metrics import METRICS
from backprop_xp.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from numpy.random import RandomState

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)
DTYPES = ("float32", "float64")
# Metrics of numbers; the others are metrics of classes.
OF_NUMBERS = ("r2", "rmse", "mae")
_OF_CLASSES = tuple(name for name in METRICS if name not in OF_NUMBERS)

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


def _widths(values: Any, name: str) -> tuple[int, ...]:
    given = values if np.iterable(values) else [values]
    return tuple(integer(value, f"{name}[{i}]") for i, value in enumerate(given))


def _dtype(value: Any, name: str) -> str:
    """Return the name of a dtype, also of one of an array library."""
    short = value if isinstance(value, str) else dtype_name(value)
    return short if short in DTYPES else known(value, DTYPES, name)


def _switch(value: Any, name: str) -> bool:
    """Return a boolean; as in scikit-learn, an integer above 0 is True."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return integer(int(value), name, at_least=0) > 0
    return boolean(value, name)


def _any(value: Any, name: str) -> Any:
    return value


def _class_weight(value: Any, name: str) -> Any:
    return value if isinstance(value, Mapping) else known(value, ["balanced"], name)


def _parameter(default: Any, check: Check, text: str, option: type | None = None) -> Any:
    return field(default=default, metadata={"parameter": Parameter(check, text, option)})


def _optional(check: Check, text: str, option: type) -> Any:
    """Return a parameter whose default, None, is the preset's value."""
    return _parameter(None, lambda v, name: None if v is None else check(v, name), text, option)


@dataclass(eq=False, repr=False)
class TabularParameters:
    """The parameters of both tabular estimators; None is the preset's value."""

    preset: str = _parameter(
        "default", _one_of(PRESETS), f"{', '.join(PRESETS)}: the values of the other options.", str
    )
    _: KW_ONLY
    hidden_layer_sizes: int | Sequence[int] | None = _optional(
        _widths, "Widths of the hidden layers.", str
    )
    activation: str | None = _optional(_one_of(ACTIVATIONS), f"{', '.join(ACTIVATIONS)}.", str)
    solver: str | None = _optional(_one_of(OPTIMIZERS), f"{', '.join(OPTIMIZERS)}.", str)
    alpha: float | None = _optional(
        partial(real, low=0.0), "L2 penalty; with adamw and lion the weight decay.", float
    )
    batch_size: int | None = _optional(
        integer, "Rows of a batch; fewer in small tables. Default: more in very large ones.", int
    )
    learning_rate: str | None = _optional(_one_of(SCHEDULES), f"{', '.join(SCHEDULES)}.", str)
    learning_rate_init: float | None = _optional(
        partial(real, above=0.0), "The learning rate at its highest.", float
    )
    max_iter: int | None = _optional(integer, "Maximum number of epochs.", int)
    dropout: float | None = _optional(partial(real, low=0.0, below=1.0), "Dropout rate.", float)
    layer_norm: bool | None = _optional(boolean, "Normalize each hidden layer.", bool)
    n_members: int | None = _optional(
        integer, "Networks of the ensemble, trained at once and averaged.", int
    )
    n_iter_no_change: int | None = _optional(
        integer, "Epochs to wait for a better validation result.", int
    )
    metric: str | None = _optional(
        _one_of(METRICS),
        f"{', '.join(_OF_CLASSES)}; for numbers {', '.join(OF_NUMBERS)}. It ends the training and "
        "chooses the epoch. Default: the loss.",
        str,
    )
    validation_fraction: float = _parameter(
        0.15, partial(real, above=0.0, below=1.0), "The share of the rows that does so."
    )
    random_state: "int | RandomState | None" = _parameter(
        None, _any, "Seed of the split, the weights and the batches.", int
    )
    backend: str | Backend | None = _parameter(
        None, _any, "Where to compute, as in bx.use_backend."
    )
    device: Device = _parameter(None, _any, "A device of the backend.")
    dtype: str = _parameter("float32", _dtype, f"{' or '.join(DTYPES)}.")
    verbose: bool = _parameter(False, _switch, "Show the progress.")


@dataclass(eq=False, repr=False)
class ClassifierParameters(TabularParameters):
    """The parameters of the classifier."""

    class_weight: str | Mapping[Any, float] | None = _optional(
        _class_weight, "balanced: each class has the same total weight.", str
    )


# The parameters of the estimators, by name.
PARAMETERS: dict[str, Parameter] = {
    one.name: one.metadata["parameter"] for one in fields(ClassifierParameters)
}


def checked_parameters(parameters: TabularParameters, task: Task) -> dict[str, Any]:
    """Return the values; raise ValueError or TypeError for one that cannot be used."""
    values = {one.name: getattr(parameters, one.name) for one in fields(parameters)}
    if parameters.metric is not None:
        known(parameters.metric, OF_NUMBERS if task == "regression" else _OF_CLASSES, "metric")
    return {name: PARAMETERS[name].check(value, name) for name, value in values.items()}


def described(parameters: type[TabularParameters]) -> str:
    """Return the lines of a docstring about the parameters."""
    names = [one.name for one in fields(parameters)]
    return "\n".join(f"- ``{name}``: {PARAMETERS[name].help}" for name in names)
