"""What a file tells of a training, and whether a training that is to go on is the same."""

import dataclasses
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from backprop_xp.backends import Selection, dtype_name
from backprop_xp.files.checkpoint import Checkpoint, load
from backprop_xp.files.container import CheckpointError
from backprop_xp.tables.model import TOLD, model_of
from backprop_xp.tables.problem import Problem
from backprop_xp.tables.settings import Settings


def told_of(problem: Problem, settings: Settings, where: Selection) -> dict[str, Any]:
    """Return what a file tells of a training from its beginning, as it will be read."""
    told = {
        "target": problem.target._asdict(),
        "settings": dataclasses.asdict(settings),
        "data": problem.data,
        "held_out": problem.held_out,
        "where": {"backend": where.backend.name, "dtype": dtype_name(where.dtype)},
        "rows": {name: len(part.target) for name, part in problem.parts.items()},
        "versions": {
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "pandas": pd.__version__,
            "scikit-learn": sklearn.__version__,
            "skrub": importlib.metadata.version("skrub"),
        },
    }
    as_read: dict[str, Any] = json.loads(json.dumps(told))
    return as_read


def training_in(
    out: str | os.PathLike[str], told: dict[str, Any], where: Selection
) -> Checkpoint | None:
    """Return the training that a file holds, None without a file.

    Raises ValueError, with what differs, unless it is of the problem and the settings told.
    """
    if not Path(out).exists():
        return None
    kept = load(out, backend=where.backend, device=where.device)
    model_of(kept, out)  # what is no model of a table is told
    try:
        fault = next(_differences(kept.metadata[TOLD], told), None)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{os.fspath(out)}: what it tells of its training lacks {error}, as a file of another "
            "version does: leave --resume out to start anew."
        ) from error
    if fault is not None:
        raise ValueError(
            f"{os.fspath(out)} cannot be resumed: {fault}. Give what it began with, or leave "
            "--resume out to start anew."
        )
    return kept


def _differences(written: dict[str, Any], told: dict[str, Any]) -> Iterator[str]:
    """Yield how a training differs from a file's, causes before what is derived from them."""
    names = [given["target"]["name"] for given in (told, written)]
    if names[0] != names[1]:
        yield "the target is {!r}, but the file's training has {!r}".format(*names)
    if written["data"] != told["data"]:
        yield "its training had other data: the rows, the columns or their values have changed"
    for part in ("held_out", "settings"):
        for name, value in told[part].items():
            before = written[part][name]
            if before == value:
                continue
            if isinstance(value, dict) and isinstance(before, dict):
                yield f"its training had other {name} rows"
            else:
                yield f"{name} is {_plain(value)}, but the file's training has {_plain(before)}"
    # Whether a task was found or told is no difference.
    if {**told["target"], "reason": ""} != {**written["target"], "reason": ""}:
        yield f"the task is {told['target']['task']}, but the file's is {written['target']['task']}"
    if written["where"] != told["where"]:
        yield "its training ran on another backend, or in another dtype"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "a table of its own"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
