"""A Parquet dataset of some gigabytes, and the memory and the time of its training by MPI's ranks.

``python -m benchmarks.big_table FOLDER --gigabytes 20 --ranks 2 -- --preset fast --max-iter 1``
writes the dataset unless the folder exists, and trains on it. The words behind ``--`` are options
of ``backprop-xp train``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

# float64 columns, of random digits that no compression shortens, and a column of categories.
NUMBERS, CATEGORIES = 20, 50
ROWS_OF_GROUP, GROUPS_OF_FILE = 250_000, 20


def row_group(i: int) -> pa.Table:
    """Return random rows whose target a network can learn: the noise is 0.3 of its deviation."""
    draw = np.random.default_rng([0, i])
    x = draw.normal(size=(NUMBERS, ROWS_OF_GROUP))
    kind = draw.integers(CATEGORIES, size=ROWS_OF_GROUP)
    y = x[0] * x[1] + np.sin(2.0 * x[2]) + np.cos(kind) + 0.4 * draw.normal(size=ROWS_OF_GROUP)
    columns = {f"x{k}": column for k, column in enumerate(x)}
    return pa.table({**columns, "kind": np.char.add("k", kind.astype(str)), "y": y})


def write(folder: Path, gigabytes: float) -> None:
    folder.mkdir(parents=True)
    count, writer, size = 0, None, 0
    while size < gigabytes * 1e9:
        table, path = row_group(count), folder / f"{count // GROUPS_OF_FILE:03}.parquet"
        if writer is None:
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=ROWS_OF_GROUP)
        count += 1
        if count % GROUPS_OF_FILE == 0:
            writer.close()
            writer = None
        size = sum(each.stat().st_size for each in folder.iterdir())
    if writer is not None:
        writer.close()


def train_as_rank(peaks: str, words: list[str]) -> None:
    """Train as one of mpirun's processes, and write its peak memory to a file."""
    from backprop_xp.__main__ import main

    sys.argv[1:] = words
    try:
        main()
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
        Path(peaks, str(os.getpid())).write_text(json.dumps(peak * 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--ranks", type=int, default=2)
    words = [*sys.argv[1:], "--"]
    own, words = words[: words.index("--")], words[words.index("--") + 1 : -1]
    given = parser.parse_args(own)
    if not given.folder.exists():
        write(given.folder, given.gigabytes)
    size = sum(each.stat().st_size for each in given.folder.iterdir())
    with tempfile.TemporaryDirectory() as peaks:
        command = ["train", str(given.folder), "--target", "y", "--parallel"]
        command += ["--out", f"{peaks}/model", *words]
        rank = [sys.executable, __file__, "--as-rank", peaks, *command]
        start = time.perf_counter()
        subprocess.run(["mpirun", "-n", str(given.ranks), *rank], check=True)  # noqa: S607
        seconds = time.perf_counter() - start
        Path(f"{peaks}/model").unlink()
        found = [json.loads(path.read_text()) / 1e9 for path in Path(peaks).iterdir()]
    memory = ", ".join(f"{peak:.2f}" for peak in found)
    print(f"{size / 1e9:.2f} GB of Parquet, {given.ranks} ranks: {seconds:.0f} s")  # noqa: T201
    print(f"peak memory of each rank in GB: {memory}")  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-rank"]:
        train_as_rank(sys.argv[2], sys.argv[3:])
    else:
        main()
