"""Row groups of a Parquet dataset: shares for several processes, which read them in pieces."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from backprop_xp.tables.readers.formats import checked, naming

# Rows of a piece, which is decoded at once.
_ROWS = 2**14


class RowGroup(NamedTuple):
    """A row group: its file, its index there, the number of its first row, and of all its rows."""

    path: Path
    i: int
    first: int
    rows: int


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    options: dict[str, Any] = {"buffer_size": 2**16, "pre_buffer": False}  # less memory
    with naming(path), parquet.ParquetFile(path, **options) as file:
        yield file


def row_groups(source: str) -> tuple[list[RowGroup], pa.Schema]:
    """Return the row groups of a Parquet file, or of all those in a folder, and their columns."""
    folder, groups, first, schema = Path(source), list[RowGroup](), 0, None
    paths = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder]
    if not paths or paths[0].suffix != ".parquet":
        raise ValueError(f"{source} must be a .parquet file, or a folder of such files.")
    for path in paths:
        with _opened(path) as file:
            schema = schema or file.schema_arrow
            if not schema.equals(file.schema_arrow):
                raise ValueError(f"its columns or types differ from those of {paths[0]}.")
            for i in range(file.num_row_groups):
                rows = file.metadata.row_group(i).num_rows
                groups += [RowGroup(path, i, first, rows)] if rows else []
                first += rows
    return groups, schema


def share_of(groups: Sequence[RowGroup], rank: int, size: int) -> list[RowGroup]:
    """Return the contiguous row groups of one of ``size`` processes, which get nearly equal rows.

    Raises ValueError for fewer row groups than processes.
    """
    if len(groups) < size:
        raise ValueError(
            f"the dataset has {len(groups)} row groups, but {size} processes need at least one "
            "each: write it anew with smaller ones, DataFrame.to_parquet(path, "
            "row_group_size=100_000) in pandas, or start fewer processes."
        )
    middles = np.asarray([group.first + group.rows / 2.0 for group in groups])
    total, ranks = groups[-1].first + groups[-1].rows, np.arange(size + 1)
    before = np.searchsorted(middles, total / size * ranks) - ranks
    # Not negative and not decreasing: each process has a row group.
    cuts = np.clip(np.maximum.accumulate(before), 0, len(groups) - size) + ranks
    return list(groups[cuts[rank] : cuts[rank + 1]])


def pieces(
    groups: Iterable[RowGroup], columns: Sequence[str]
) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
    """Yield the columns of row groups in pieces, with the number of each row in the dataset."""
    for group in groups:
        first, wanted = group.first, {"columns": columns, "row_groups": [group.i]}
        with _opened(group.path) as file:
            for batch in checked(file.iter_batches(_ROWS, use_threads=False, **wanted)):
                yield np.arange(first, first + len(batch)), batch
                first += len(batch)
