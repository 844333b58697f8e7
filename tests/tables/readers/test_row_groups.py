"""The row groups of a Parquet dataset: shares of processes, and rows in pieces."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
from pyarrow import parquet

from backprop_xp.tables.readers.row_groups import RowGroup, pieces, row_groups, share_of


def groups_of(rows: np.ndarray) -> list[RowGroup]:
    firsts = np.cumsum(rows) - rows
    return [RowGroup(Path("a"), i, *pair) for i, pair in enumerate(zip(firsts, rows, strict=True))]


@pytest.mark.parametrize("seed", range(20))
def test_each_process_has_a_row_group_and_all_have_them_in_order(seed: int) -> None:
    draw = np.random.default_rng(seed)
    groups = groups_of(draw.integers(1, 1000, draw.integers(1, 30)) ** 2)
    for size in range(1, len(groups) + 1):
        shares = [share_of(groups, rank, size) for rank in range(size)]
        assert all(shares)
        assert [group for share in shares for group in share] == groups


def test_the_shares_have_nearly_equal_rows() -> None:
    groups = groups_of(np.random.default_rng(0).integers(900, 1100, 100))
    counts = [sum(one.rows for one in share_of(groups, rank, 7)) for rank in range(7)]
    assert max(counts) - min(counts) < 2 * 1100


def test_pieces_have_the_numbers_of_their_rows(tmp_path: Path) -> None:
    for i, size in enumerate((7, 20_000)):
        table = pa.table({"n": np.arange(30_000) + 30_000 * i, "other": np.zeros(30_000)})
        parquet.write_table(table, tmp_path / f"{i}.parquet", row_group_size=size * 100)
    groups, schema = row_groups(str(tmp_path))
    assert schema.names == ["n", "other"]
    assert sum(group.rows for group in groups) == 60_000
    found = list(pieces([groups[-1], *groups[2:4]], ["n"]))
    for numbers, batch in found:
        np.testing.assert_array_equal(batch.column("n").to_numpy(), numbers)
        assert len(batch) <= 2**14
    assert sum(len(batch) for _, batch in found) == 30_000 + 2 * 700


def test_what_is_no_dataset_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a \.parquet file, or a folder of such"):
        row_groups(str(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"a\.parquet: .*Parquet"):
        row_groups(str(tmp_path))
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"x": [1.5]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: its columns or types differ"):
        row_groups(str(tmp_path))


def test_fewer_row_groups_than_processes_is_an_error_with_the_repair() -> None:
    with pytest.raises(ValueError, match=r"has 2 row groups, but 3 .*row_group_size=100_000"):
        share_of(groups_of(np.asarray([5, 5])), 0, 3)
