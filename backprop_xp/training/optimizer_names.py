"""The names of the optimizers, for ``fit``, tables and the command line."""

from collections.abc import Callable
from typing import Any

from backprop_xp.checks import nearest
from backprop_xp.training.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    Nadam,
    Optimizer,
    RMSProp,
)

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    "lion": Lion,
    "nadam": Nadam,
    "rmsprop": RMSProp,
    "sgd": SGD,
}


def named_optimizer(optimizer: Any) -> Any:
    """Return the optimizer of a name with its defaults, and any other object unchanged."""
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer {optimizer!r} is unknown. {nearest(optimizer, OPTIMIZERS)}")
    if optimizer == "sgd":
        raise ValueError("SGD has no default learning rate: give optimizer=bx.SGD(0.1), say.")
    return OPTIMIZERS[optimizer]()
