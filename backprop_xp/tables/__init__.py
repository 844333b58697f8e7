"""Tables of data: read, prepared, learnt and predicted. Needs the extra ``tables``.

``train`` makes a model of a table and one of its columns, ``load`` reads it from its file again;
``read`` and ``prepare`` are their parts. The command line's ``train``, ``predict`` and ``inspect``
are made of these.
"""

from backprop_xp.tables.describing import described_columns as described_columns
from backprop_xp.tables.importances import importances as importances
from backprop_xp.tables.learning import train as train
from backprop_xp.tables.model import TableModel as TableModel, load as load
from backprop_xp.tables.preparation import Preparation as Preparation, prepare as prepare
from backprop_xp.tables.reading import read as read
from backprop_xp.tables.settings import Settings as Settings

__all__ = [
    "Preparation",
    "Settings",
    "TableModel",
    "described_columns",
    "importances",
    "load",
    "prepare",
    "read",
    "train",
]
