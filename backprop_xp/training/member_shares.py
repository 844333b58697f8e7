"""A training whose networks are divided among ranks: each trains a part of the stack by itself.

A result does not depend on the other networks of its stack, so that the ranks exchange nothing but
the end of each epoch. ``joined_state`` joins their parts.
"""

import copy
from dataclasses import replace
from typing import Any, NamedTuple

from backprop_xp.backends import Array
from backprop_xp.networks.inputs import Rows
from backprop_xp.training.batches import joined
from backprop_xp.training.options import Options
from backprop_xp.training.pytrees import Pytree, mapped
from backprop_xp.training.ranks import Ranks, packed, unpacked
from backprop_xp.training.schedules import Plateau, rate_at, with_batches
from backprop_xp.training.states import TrainingState


class Members(NamedTuple):
    """The networks of a stack that a rank trains: a slice of its first axis."""

    stack: tuple[int, ...]
    part: slice

    def of(self, value: Any, axes: int) -> Any:
        """Return their part of an array whose last ``axes`` axes follow the stack's.

        Numbers, None and arrays that all networks share are returned as they are.
        """
        if len(getattr(value, "shape", ())) != len(self.stack) + axes:
            return value
        return value[self.part, ...] if value.shape[0] > 1 else value

    def of_rows(self, rows: Rows | None) -> Rows | None:
        """Return their rows, with the weights."""
        if rows is None:
            return None
        x, y = self.of(rows.x, 2), self.of(rows.y, 2)
        return rows._replace(x=x, y=y, sample_weight=self.of(rows.sample_weight, 1))

    def of_options(self, options: Options, batches: int | None) -> Options:
        """Return options with their seeds, hyperparameters and start."""
        own, optimizer = copy.copy(options), copy.copy(options.optimizer)
        for name, value in getattr(optimizer, "__dict__", {}).items():
            if name == "learning_rate" and callable(value):
                vars(optimizer)[name] = self._of_schedule(with_batches(value, batches))
            else:
                vars(optimizer)[name] = self.of(value, 1)
        seed = options.seed if isinstance(options.seed, int) else options.seed[self.part]
        start = None if options.start is None else self._of_state(options.start)
        vars(own).update(optimizer=optimizer, seed=seed, start=start)
        return own

    def _of_schedule(self, schedule: Any) -> Any:
        if isinstance(schedule, Plateau):
            return replace(schedule, schedule=self._of_schedule(schedule.schedule))
        return lambda step: self.of(rate_at(schedule, step), 1)

    def _of_state(self, state: TrainingState) -> TrainingState:
        own: TrainingState = mapped(
            lambda leaf: leaf[self.part, ...] if _has(leaf, 0, self.stack) else leaf, state
        )
        losses, history = state.batch_losses, state.history
        return own._replace(
            batch_losses=None if losses is None else losses[:, self.part, ...],
            history={name: values[:, self.part, ...] for name, values in history.items()},
        )


def members_of(ranks: Ranks, theta: Array) -> Members:
    """Return the networks that this rank trains."""
    stack = tuple(theta.shape[:-1])
    if not stack or stack[0] < ranks.size:
        raise ValueError(
            f'split="stack" divides the first axis of theta\'s stack {stack} among {ranks.size} '
            "ranks: stack at least as many networks, or take fewer ranks."
        )
    return Members(
        stack, slice(*(stack[0] * i // ranks.size for i in (ranks.rank, ranks.rank + 1)))
    )


def joined_state(ranks: Ranks, state: TrainingState | None, theta: Array) -> TrainingState | None:
    """Return the state of all networks; None if some rank has none of the same epoch."""
    if not (ranks.shares_stack and ranks.have_begun):
        return state
    sent = ranks.exchange(packed(state))
    if len({each and (each.epoch, each.step) for each in sent}) > 1 or sent[0] is None:
        return None
    states = [unpacked(each, theta) for each in sent]
    stack = tuple(states[0].theta.shape[:-1])

    # A count that all networks share is that of the latest best epoch, as in one process.
    epochs = [0 if each.best is None else each.best.epoch.max() for each in states]
    latest = epochs.index(max(epochs))

    def along(axis: int, *leaves: Any) -> Any:
        return joined(leaves, axis) if _has(leaves[0], axis, stack) else leaves[latest]

    series = [{"batch_losses": each.batch_losses, "history": dict(each.history)} for each in states]
    others = [each._replace(batch_losses=None, history={}) for each in states]
    whole: TrainingState = mapped(lambda *leaves: along(0, *leaves), *others)
    return whole._replace(**mapped(lambda *leaves: along(1, *leaves), *series))


def _has(leaf: Pytree, axis: int, stack: tuple[int, ...]) -> bool:
    """Whether a leaf has a stack from an axis on."""
    return tuple(getattr(leaf, "shape", ()))[axis : axis + len(stack)] == stack
