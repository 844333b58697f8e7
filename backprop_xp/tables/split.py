"""Which rows train, validate and test, drawn on the host: the same on every backend."""

from collections.abc import Mapping

import numpy as np


def split_rows(
    rows: int, shares: Mapping[str, float], seed: int, *, classes: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the row numbers of ``"training"`` and of each part with a share, in rising order.

    With class numbers ``(rows,)`` each class has its share of each part, to a row, and at least one
    training row: a class of a single row is in no other part. The rows of a part depend on the
    shares of the parts before it, not on those behind it.
    """
    order = np.random.default_rng(np.random.SeedSequence([seed, rows])).permutation(rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
        _, first = np.unique(classes[order], return_index=True)
        order = np.delete(order, first)
    counts = {name: max(1, round(share * rows)) for name, share in shares.items()}
    held_out = sum(counts.values())
    if counts and (rows < 4 or held_out > len(order) or rows - held_out < 2):
        asked = " and ".join(f"a {name} share of {share:g}" for name, share in shares.items())
        raise ValueError(
            f"{rows} rows cannot be split into training rows and {asked}: give more rows, smaller "
            "shares, or tables of their own."
        )
    parts: dict[str, np.ndarray] = {}
    is_training = np.ones(rows, dtype=bool)
    for name, count in counts.items():
        # Evenly spaced in what is sorted by class: each class is met by its share.
        places = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
        parts[name] = np.sort(order[places])
        is_training[parts[name]] = False
        order = np.delete(order, places)
    return {"training": np.flatnonzero(is_training), **parts}
