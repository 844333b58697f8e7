"""Tables of data: read, prepared, learnt and predicted. Needs the extra ``tables``.

``train`` makes a model of a table and one of its columns, ``load`` reads it from its file again;
``read`` and ``prepare`` are their parts. The command line's ``train``, ``predict`` and ``inspect``
are made of these.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from backprop_xp.tables.column_descriptions import described_columns as described_columns
from backprop_xp.tables.model import TableModel as TableModel, load as load
from backprop_xp.tables.preparation import Preparation as Preparation
from backprop_xp.tables.readers import TableFile as TableFile, read as read
from backprop_xp.tables.settings import Settings as Settings

if TYPE_CHECKING:
    from backprop_xp.tables.detection import prepare
    from backprop_xp.tables.permutation_importance import importances
    from backprop_xp.tables.workflow import train

# Some of the extra's libraries are imported on first use: which one is missing is told at once.
for _library in ("skrub", "sklearn"):
    if importlib.util.find_spec(_library) is None:
        raise ModuleNotFoundError(f"No module named {_library!r}", name=_library)

__all__ = [
    "Preparation",
    "Settings",
    "TableFile",
    "TableModel",
    "described_columns",
    "importances",
    "load",
    "prepare",
    "read",
    "train",
]

# What needs scikit-learn, which takes seconds to import: a prediction does without.
_LATER = {"importances": "permutation_importance", "prepare": "detection", "train": "workflow"}


def __getattr__(name: str) -> Any:
    """Return a name that is imported on first use."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
