"""What a file tells of a training, and whether a training that is to go on is the same."""

import dataclasses
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from backprop_xp.backends import Selection, dtype_name
from backprop_xp.checkpoint import Checkpoint, load
from backprop_xp.model_files import CheckpointError
from backprop_xp.tables.model import TOLD, model_of
from backprop_xp.tables.problem import Problem
from backprop_xp.tables.settings import Settings

# What has to be as a file has it, beside the settings, and what is said where it is not.
_DIFFERS = {
    "where": "its training ran on another backend, or in another dtype",
    "target": "the target is another, or its classes are",
    "data": "the rows or the columns are others than those of its training",
}


def told_of(problem: Problem, settings: Settings, where: Selection) -> dict[str, Any]:
    """Return what a file tells of a training from its beginning, as it will be read."""
    told = {
        "target": problem.target._asdict(),
        "settings": dataclasses.asdict(settings),
        "data": problem.fingerprint(),
        "where": {"backend": where.backend.name, "dtype": dtype_name(where.dtype)},
        "rows": {
            "training": len(problem.training.target),
            "validation": len(problem.held_out.target),
        },
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
        faults = _differences(kept.metadata[TOLD], told)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{os.fspath(out)}: what it tells of its training lacks {error}, as a file of another "
            "version does: leave --resume out to start anew."
        ) from error
    if faults:
        raise ValueError(
            f"{os.fspath(out)} cannot be resumed: {faults[0]}. Give what it began with, or leave "
            "--resume out to start anew."
        )
    return kept


def _differences(written: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """Return what is other in a file's training than in one that is told of."""
    settings = written["settings"]
    faults = [
        f"{name} is {_plain(value)}, but the file's training has {_plain(settings[name])}"
        for name, value in told["settings"].items()
        if settings[name] != value
    ]
    # Whether a task was found or told is no difference.
    told = {**told, "target": {**told["target"], "reason": written["target"]["reason"]}}
    return faults + [fault for name, fault in _DIFFERS.items() if written[name] != told[name]]


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
