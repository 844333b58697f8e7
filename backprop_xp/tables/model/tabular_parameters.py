"""The parameters of the tabular estimators: their types, checks, defaults and help.

The options of the command ``train`` have the same checks and help. This module imports none of the
extra's libraries.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from backprop_xp.backends import Backend, Device, dtype_name
from backprop_xp.checks import boolean, integer, known, real
from backprop_xp.files.json_values import from_json, to_json
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.tables.columns.kinds import FAULT_ACTIONS, KINDS, checked_kinds
from backprop_xp.tables.model.presets import PRESETS, SCHEDULES
from backprop_xp.training.measures.metrics import METRICS
from backprop_xp.training.optimizers.first_order import OPTIMIZERS

Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)
DTYPES = ("float32", "float64")
# Metrics of numbers; the others are metrics of classes.
OF_NUMBERS = ("r2", "rmse", "mae")
# A file has no parameters that choose nothing about the result.
NOT_STORED = ("backend", "device", "verbose", "on_bad_value", "on_missing_column")
_OF_CLASSES = tuple(name for name in METRICS if name not in OF_NUMBERS)

# The checked parameters of a training, by name.
Values: TypeAlias = Mapping[str, Any]
# Returns a parameter's value, or raises; called with the value and the name.
Check: TypeAlias = Callable[[Any, str], Any]


class Parameter(NamedTuple):
    """A check, and a line of help, also that of the command's option."""

    check: Check
    help: str


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


@dataclass(eq=False, repr=False)
class TabularParameters:
    """The parameters of both tabular estimators; None is the preset's value.

    Each has its type, its check and a line of help.
    """

    preset: Annotated[
        str, _one_of(PRESETS), f"{', '.join(PRESETS)}: the values of the other options."
    ] = "default"
    _: KW_ONLY
    hidden_layer_sizes: Annotated[
        int | Sequence[int] | None, _widths, "Widths of the hidden layers."
    ] = None
    activation: Annotated[str | None, _one_of(ACTIVATIONS), f"{', '.join(ACTIVATIONS)}."] = None
    solver: Annotated[str | None, _one_of(OPTIMIZERS), f"{', '.join(OPTIMIZERS)}."] = None
    alpha: Annotated[
        float | None,
        partial(real, low=0.0),
        "L2 penalty; with adamw and lion the weight decay.",
    ] = None
    batch_size: Annotated[
        int | None,
        integer,
        "Rows of a batch; fewer in small tables. Default: more in very large ones.",
    ] = None
    learning_rate: Annotated[str | None, _one_of(SCHEDULES), f"{', '.join(SCHEDULES)}."] = None
    learning_rate_init: Annotated[
        float | None, partial(real, above=0.0), "The learning rate at its highest."
    ] = None
    max_iter: Annotated[int | None, integer, "Maximum number of epochs."] = None
    dropout: Annotated[float | None, partial(real, low=0.0, below=1.0), "Dropout rate."] = None
    layer_norm: Annotated[bool | None, boolean, "Normalize each hidden layer."] = None
    n_members: Annotated[
        int | None, integer, "Networks of the ensemble, trained at once and averaged."
    ] = None
    n_iter_no_change: Annotated[
        int | None, integer, "Epochs to wait for a better validation result."
    ] = None
    metric: Annotated[
        str | None,
        _one_of(METRICS),
        f"{', '.join(_OF_CLASSES)}; for numbers {', '.join(OF_NUMBERS)}. It ends the training and "
        "chooses the epoch. Default: the loss.",
    ] = None
    kinds: Annotated[
        Mapping[str, str] | None,
        checked_kinds,
        f"Kinds of columns in place of the detected ones, such as zip=category; may be repeated. "
        f"{', '.join(KINDS)}.",
    ] = None
    on_bad_value: Annotated[
        str,
        _one_of(FAULT_ACTIONS),
        f"{' or '.join(FAULT_ACTIONS)}: predictions refuse a string in a column of numbers or "
        "dates, or read it as missing, with a warning.",
    ] = "error"
    on_missing_column: Annotated[
        str,
        _one_of(FAULT_ACTIONS),
        f"{' or '.join(FAULT_ACTIONS)}: predictions refuse a DataFrame that lacks a column, or "
        "read its values as missing, with a warning.",
    ] = "error"
    validation_fraction: Annotated[
        float,
        partial(real, above=0.0, below=1.0),
        "The share of the rows that end the training of a member, less if the members are many.",
    ] = 0.15
    random_state: Annotated[
        int | np.random.RandomState | None,
        _any,
        "Seed of the split, the weights and the batches.",
    ] = None
    backend: Annotated[str | Backend | None, _any, "Where to compute, as in bx.use_backend."] = None
    device: Annotated[Device, _any, "A device of the backend."] = None
    dtype: Annotated[str, _dtype, f"{' or '.join(DTYPES)}."] = "float32"
    verbose: Annotated[bool, _switch, "Show the progress."] = False


@dataclass(eq=False, repr=False)
class ClassifierParameters(TabularParameters):
    """The parameters of the classifier."""

    class_weight: Annotated[
        str | Mapping[Any, float] | None,
        _class_weight,
        "balanced: each class has the same total weight.",
    ] = None


# The parameters of the estimators, by name.
PARAMETERS: dict[str, Parameter] = {
    one.name: Parameter(*one.type.__metadata__)  # type: ignore[union-attr]
    for one in fields(ClassifierParameters)
}


def checked(value: Any, name: str) -> Any:
    """Return a parameter's value; None, if that is the default, needs no check."""
    is_default = value is None and getattr(ClassifierParameters, name) is None
    return None if is_default else PARAMETERS[name].check(value, name)


def checked_parameters(parameters: TabularParameters, task: Task) -> Values:
    """Return the values, as a file keeps them; ValueError or TypeError for one that is impossible.

    A training calls this once.
    """
    values = {one.name: getattr(parameters, one.name) for one in fields(parameters)}
    if parameters.metric is not None:
        known(parameters.metric, OF_NUMBERS if task == "regression" else _OF_CLASSES, "metric")
    found = {name: checked(value, name) for name, value in values.items()}
    return {name: v if name in NOT_STORED else from_json(to_json(v)) for name, v in found.items()}


def described(parameters: type[TabularParameters]) -> str:
    """Return the lines of a docstring about the parameters."""
    names = [one.name for one in fields(parameters)]
    return "\n".join(f"- ``{name}``: {PARAMETERS[name].help}" for name in names)
