"""Which rows train and which are held out, drawn on the host: the same on every backend."""

import numpy as np


def split_rows(
    rows: int, share: float, seed: int, *, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the training rows and of those held out, each in rising order.

    With class numbers ``(rows,)`` each class has its share of both, to a row, and at least one
    training row: of a class of a single row nothing can be held out.
    """
    order = np.random.default_rng(np.random.SeedSequence([seed, rows])).permutation(rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
        _, first = np.unique(classes[order], return_index=True)
        order = np.delete(order, first)
    count = max(1, round(share * rows))
    if rows < 4 or count > len(order) or rows - count < 2:
        raise ValueError(
            f"{rows} rows cannot be split into training rows and a share of {share:g} that is held "
            "out: give more rows, or held-out rows of their own."
        )
    # Evenly spaced in what is sorted by class: each class is met by its share.
    held_out = order[((np.arange(count) + 0.5) * len(order) / count).astype(int)]
    training = np.delete(np.arange(rows), held_out)
    return training, np.sort(held_out)
