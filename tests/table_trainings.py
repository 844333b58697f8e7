"""Tables for tests, and short ways to train on them and to prepare them."""

from typing import Any

import numpy as np
import pandas as pd

from backprop_xp import tables
from backprop_xp.tables.columns import feature_records
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.readers import table_files
from backprop_xp.tables.report.problem import ColumnChoice, make_problem
from backprop_xp.tables.report.table_training import train_table
from tests import messy_tables

QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 12, "n_iter_no_change": 50}


def train(data: Any, target: str, **given: Any) -> Any:
    """Return the estimator that the command trains; ``given`` are also its columns and dtype."""
    columns = ColumnChoice(
        **{name: given.pop(name) for name in ColumnChoice._fields if name in given}
    )
    parameters = {"random_state": 0, **given.pop("parameters", {})}
    parameters |= {name: given.pop(name) for name in ("dtype",) if name in given}
    names = ("task", "test", "validation", "cv")
    rows = {name: given.pop(name) for name in names if name in given}
    seed = parameters["random_state"]
    problem = make_problem(data, target, columns, seed=seed, **rows)
    return train_table(problem, parameters, **given)


def predictions(model: Any, data: Any) -> pd.DataFrame:
    """Return what the command predicts for a table or a file."""
    return model.model_.predictions(read_for(data, model.model_.features))


def read_for(data: Any, made: Features) -> pd.DataFrame:
    """Return a table or a file as the features need it."""
    return table_files.as_table(data, texts=made.texts, numbers=made.numbers).frame


def prepare(data: Any, **given: Any) -> Features:
    """Return the features that a preparation learns."""
    return tables.Preparation(random_state=0, **given).fit(data).features_


def reread(made: Features) -> Features:
    """Return features as a file gives them back."""
    return feature_records.from_bytes(feature_records.to_bytes(made))


def kinds_of(made: Features) -> dict[str, str]:
    """Return the kind of each column in use."""
    return {name: column.kind for name, column in made.columns.items()}


def classes_of(model: Any) -> tuple[Any, ...]:
    """Return the classes of a model as Python objects, none for numbers."""
    classes = model.model_.classes
    return () if classes is None else tuple(classes.tolist())


def transform(made: Features, data: Any) -> np.ndarray:
    """Return the features of a table that may have more columns than the training's."""
    return made.transform(read_for(data, made))


def frame(rows: int = 60) -> pd.DataFrame:
    """Return a table of each kind of column; ``a`` and ``b`` determine ``y``."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=rows), draw.choice(["low", "high"], rows)
    table = pd.DataFrame(
        {
            "a": a,
            "b": pd.Series(b).where(draw.random(rows) > 0.1),
            "day": pd.date_range("2020-02-01", periods=rows).strftime("%Y-%m-%d"),
            "text": [
                f"{messy_tables.name(draw)} {messy_tables.name(draw)} {i}" for i in range(rows)
            ],
            "y": np.where(a + (b == "low") > 0.5, "yes", "no"),
        }
    )
    table.loc[3, "a"] = np.nan
    return table
