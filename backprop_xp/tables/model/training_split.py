"""The rows that a training on a table learns from, and those that end it."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.rows import Rows
from backprop_xp.training.rows.preprocessing import split_rows


class Split(NamedTuple):
    """The rows to learn from, and those that end the training; targets are indices or numbers.

    With ``held_out`` the members of an ensemble share the training rows, and each holds out its
    own: the indices ``(n_members, count)`` of the training rows that it does not learn from and
    that end its training. The validation rows are then those that any member holds out. Without it
    they are other rows, and end the training of all.
    """

    training: Rows
    validation: Rows
    classes: np.ndarray | None
    held_out: np.ndarray | None = None

    @property
    def parts(self) -> dict[str, tuple[Rows, np.ndarray | None]]:
        """The training and the validation rows, and which of them each member has.

        These are indices ``(n_members, count)``, or None for all rows.
        """
        if self.held_out is None:
            return {"training": (self.training, None), "validation": (self.validation, None)}
        rows = np.arange(len(self.training.target))
        learnt = np.stack([np.delete(rows, own) for own in self.held_out])
        return {"training": (self.training, learnt), "validation": (self.training, self.held_out)}

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of training and validation rows, of each member if each has its own."""
        rows, validation = len(self.training.target), len(self.validation.target)
        if self.held_out is not None:
            validation = self.held_out.shape[1]
            rows -= validation
        return {"training": rows, "validation": validation}

    def of_first_member(self) -> "Split":
        """Return the split of the first member alone."""
        training, validation = (
            rows if at is None else rows.take(at[0]) for rows, at in self.parts.values()
        )
        return Split(training, validation, self.classes)

    def validation_outputs(self, model: TabularModel, **where: Any) -> np.ndarray:
        """Return the outputs for the validation rows, by members that did not learn from a row.

        ``where`` are the backend and the device, as in ``TabularModel.outputs``.
        """
        features = self.validation.features
        if self.held_out is None:
            return model.outputs(features, **where)[0]
        parts, part_of_member = np.unique(self.held_out, axis=0, return_inverse=True)
        found, at = [], np.searchsorted(np.unique(parts), parts)
        for i, rows in enumerate(at):
            theta = model.theta[part_of_member.reshape(-1) == i]
            found.append(replace(model, theta=theta).outputs(features.iloc[rows], **where)[0])
        return np.concatenate(found)[np.argsort(at, axis=None)]


def drawn_split(
    rows: Rows, classes: np.ndarray | None, share: float, n_members: int, seed: int
) -> Split:
    """Return a split of rows whose seed draws a share, of each class alike, for validation.

    Each member holds out its own share, or less where the shares of all are more than the rows. If
    there are fewer rows than members, some hold out the same.
    """
    labels, count = rows.target.to_numpy(), len(rows.target)
    draw = {"classes": None if classes is None else labels}
    if n_members == 1:
        drawn = split_rows(count, {"validation": share}, seed, **draw)
        return Split(rows.take(drawn["training"]), rows.take(drawn["validation"]), classes)
    spare = max(1, count - max(2, 0 if classes is None else len(classes)))
    different = min(n_members, spare)
    size = min(max(1, round(share * count)), spare // different)
    names = ["validation", *(f"validation {i}" for i in range(1, different))]
    shares = dict.fromkeys(names, size / count)
    drawn = split_rows(count, shares, seed, **draw)
    own = [drawn[name] for name in shares]
    held_out = np.stack([own[i % different] for i in range(n_members)])
    return Split(rows, rows.take(np.unique(held_out)), classes, held_out)
