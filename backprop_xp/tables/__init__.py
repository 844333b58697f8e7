"""Tables: reading, preparation, and estimators of tables. Needs the extra ``tables``.

``bx.TabularClassifier`` and ``bx.TabularRegressor`` are the estimators, ``load`` reads one from its
file. ``Preparation`` is the transformer in them, ``read`` the reader of files. The commands
``train``, ``predict``, ``inspect`` and ``export`` use these.

Each folder imports only those above it in this list:

- ``readers``: files and DataFrames become plain columns;
- ``columns``: the kinds of columns, and the features of a network made from them;
- ``model``: the parameters, the network, its training and its file;
- ``export``: a model as a graph of ONNX, and as a file of C;
- ``interface``: the transformer and the estimators, as scikit-learn has them;
- ``report``: a target, a split into parts, the training of the command, and its report.
"""

import contextlib
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from backprop_xp.extras import install_command

if TYPE_CHECKING:
    from backprop_xp.tables.columns.features import described_columns as described_columns
    from backprop_xp.tables.interface.exports import export_c as export_c
    from backprop_xp.tables.interface.preparation import Preparation as Preparation
    from backprop_xp.tables.interface.tabular import (
        TabularClassifier as TabularClassifier,
        TabularRegressor as TabularRegressor,
        load as load,
    )
    from backprop_xp.tables.readers.formats import TableFile as TableFile
    from backprop_xp.tables.readers.table_files import read as read, read_pieces as read_pieces

# Each is imported on first use: pandas takes half a second, scikit-learn seconds.
_MODULES = {
    "Preparation": "interface.preparation",
    "TableFile": "readers.formats",
    "TabularClassifier": "interface.tabular",
    "TabularRegressor": "interface.tabular",
    "described_columns": "columns.features",
    "export_c": "interface.exports",
    "export_onnx": "interface.exports",
    "load": "interface.tabular",
    "read": "readers.table_files",
    "read_pieces": "readers.table_files",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Return a public name; raise ImportError unless the extra is installed."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for library in ("pandas", "pyarrow", "sklearn", "threadpoolctl"):
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(library) is not None:
                continue
        raise ImportError(
            f"bx.tables needs pandas and scikit-learn ({library} is not installed): "
            f"{install_command('tables')}"
        )
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
