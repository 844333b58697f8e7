"""Models of tables: reading, preparation, training and prediction. Needs the extra ``tables``.

``train`` returns a model of a table and its target column; ``load`` reads one from its file.
``read`` and ``prepare`` are steps of ``train``. The commands ``train``, ``predict`` and ``inspect``
use these functions.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backprop_xp.tables.detection import prepare as prepare
    from backprop_xp.tables.evaluation import importances as importances
    from backprop_xp.tables.model import TableModel as TableModel, load as load
    from backprop_xp.tables.model_training import train as train
    from backprop_xp.tables.preparation import (
        Preparation as Preparation,
        described_columns as described_columns,
    )
    from backprop_xp.tables.readers import TableFile as TableFile, read as read
    from backprop_xp.tables.settings import Settings as Settings

# Each is imported on first use: pandas takes half a second, scikit-learn seconds.
_MODULES = {
    "Preparation": "preparation",
    "Settings": "settings",
    "TableFile": "readers",
    "TableModel": "model",
    "described_columns": "preparation",
    "importances": "evaluation",
    "load": "model",
    "prepare": "detection",
    "read": "readers",
    "train": "model_training",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Return a public name; raise ImportError unless the extra is installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for library in ("pandas", "pyarrow", "sklearn", "skrub"):
        if importlib.util.find_spec(library) is None:
            raise ImportError(
                f"bx.tables needs pandas and skrub ({library} is not installed): "
                "pip install 'backprop_xp[tables]'."
            )
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
