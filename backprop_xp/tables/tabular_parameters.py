"""The parameters of the tabular estimators: their types, checks, defaults and help.

The command line makes its options of them. This module imports none of the extra's libraries.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from backprop_xp.backends import Backend, Device
from backprop_xp.checks import boolean, integer, known, real
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.training.metrics import METRICS
from backprop_xp.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from numpy.random import RandomState

T = TypeVar("T")
Task = Literal["classification", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)
# The names of the tables in ``presets``, which a test compares.
PRESET_NAMES = ("fast", "default", "best")
SCHEDULE_NAMES = ("constant", "cosine", "exponential", "inverse_scaling", "plateau")
DTYPES = ("float32", "float64")
# Metrics of numbers; the others are metrics of classes. A few are better if they are lower.
OF_NUMBERS, LOWER_IS_BETTER = ("r2", "rmse", "mae"), ("rmse", "mae", "log_loss")

# Returns a parameter's value, or raises; called with the value and the name.
Check: TypeAlias = Callable[[Any, str], Any]


def _parameter(default: T, check: Check, summary: str, option: type | None = None) -> T:
    """Return a field whose metadata are ``help``, ``check`` and ``option``.

    ``option`` is the type of the command's option, None for a parameter that is none.
    """
    metadata = {"help": summary, "check": check, "option": option}
    field: T = dataclasses.field(default=default, metadata=metadata)
    return field


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


_share = functools.partial(real, above=0.0, below=1.0)
_rate = functools.partial(real, low=0.0, below=1.0)
_seed = functools.partial(integer, at_least=0)


@dataclass(eq=False, repr=False)
class TabularParameters:
    """The parameters of both tabular estimators; None is the preset's value.

    The metadata of each field are ``help``, a line for the user, ``check``, a function of a value
    and its name that returns the value or raises ValueError or TypeError, and ``option``.
    """

    preset: str = _parameter(
        "default",
        _one_of(PRESET_NAMES),
        "fast, default or best: the values of the other options.",
        str,
    )
    _: KW_ONLY
    hidden_layer_sizes: int | Sequence[int] | None = _parameter(
        None, _or_none(_widths), "Widths of the hidden layers.", str
    )
    activation: str | None = _parameter(
        None, _or_none(_one_of(ACTIVATIONS)), "A name of bx.activations.", str
    )
    solver: str | None = _parameter(
        None, _or_none(_one_of(OPTIMIZERS)), f"{', '.join(OPTIMIZERS)}.", str
    )
    alpha: float | None = _parameter(
        None,
        _or_none(functools.partial(real, low=0.0)),
        "L2 penalty on the weights; with adamw and lion the weight decay.",
        float,
    )
    batch_size: int | None = _parameter(
        None, _or_none(integer), "Maximum rows of a batch; fewer in small tables.", int
    )
    learning_rate: str | None = _parameter(
        None, _or_none(_one_of(SCHEDULE_NAMES)), f"{', '.join(SCHEDULE_NAMES)}.", str
    )
    learning_rate_init: float | None = _parameter(
        None,
        _or_none(functools.partial(real, above=0.0)),
        "The learning rate at its highest.",
        float,
    )
    max_iter: int | None = _parameter(None, _or_none(integer), "Maximum number of epochs.", int)
    dropout: float | None = _parameter(None, _or_none(_rate), "Dropout rate.", float)
    layer_norm: bool | None = _parameter(
        None, _or_none(boolean), "Normalize each hidden layer.", bool
    )
    n_members: int | None = _parameter(
        None, _or_none(integer), "Networks of the ensemble, trained at once and averaged.", int
    )
    n_iter_no_change: int | None = _parameter(
        None, _or_none(integer), "Epochs to wait for a better validation result.", int
    )
    metric: str | None = _parameter(
        None,
        _or_none(_one_of(METRICS)),
        "A metric that ends the training and chooses the epoch. Default: the loss.",
        str,
    )
    validation_fraction: float = _parameter(
        0.15, _share, "The share of the rows that ends the training and chooses the epoch."
    )
    random_state: "int | RandomState | None" = _parameter(
        None, lambda value, name: value, "Seed of the split, the weights and the batches.", int
    )
    backend: str | Backend | None = _parameter(None, _any, "Where to compute, as bx.use_backend.")
    device: Device | None = _parameter(None, _any, "A device of the backend.")
    dtype: str = _parameter("float32", _one_of(DTYPES), " or ".join(DTYPES))
    verbose: bool = _parameter(False, boolean, "Show the progress.")


@dataclass(eq=False, repr=False)
class ClassifierParameters(TabularParameters):
    """The parameters of the classifier."""

    class_weight: str | Mapping[Any, float] | None = _parameter(
        None,
        _or_none(_class_weight),
        "balanced: each class has the same total weight.",
        str,
    )


def check_parameters(parameters: TabularParameters, task: Task) -> None:
    """Raise ValueError or TypeError for a parameter that cannot be used."""
    for field in dataclasses.fields(parameters):
        field.metadata["check"](getattr(parameters, field.name), field.name)
    metrics = [name for name in METRICS if (name in OF_NUMBERS) == (task == "regression")]
    if parameters.metric is not None:
        known(parameters.metric, metrics, "metric")


def described(parameters: type[TabularParameters]) -> str:
    """Return the lines of a docstring about the parameters."""
    fields = dataclasses.fields(parameters)
    return "\n".join(f"- ``{field.name}``: {field.metadata['help']}" for field in fields)
