"""A training whose networks are divided among ranks: each trains a part of the stack by itself.

A result does not depend on the other networks of its stack, so that the ranks exchange nothing but
the end of each epoch. ``MemberRanks.begin`` cuts theta, data and seeds, ``MemberRanks.whole`` joins
the states.
"""

import copy
from typing import Any, NamedTuple

from backprop_xp.backends import Array, checksum
from backprop_xp.networks.chain.batch_rows import Rows, rows_at
from backprop_xp.networks.losses.column_weights import targets_of, without_shares
from backprop_xp.networks.network import Network
from backprop_xp.training.epochs.set_up import check_strength
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.orders import keys_of
from backprop_xp.training.interfaces.states import TrainingState, check_training
from backprop_xp.training.optimizers.first_order import optimizer_on_device
from backprop_xp.training.optimizers.pytrees import Pytree, mapped
from backprop_xp.training.optimizers.schedules import rate_at, with_batches
from backprop_xp.training.processes.exchange import Ranks, packed, refuse, unpacked
from backprop_xp.training.processes.one_process import AllRows
from backprop_xp.training.rows.batches import concat
from backprop_xp.training.rows.training_set import batches_of, check_data


class MemberRanks(Ranks, AllRows):
    """Ranks of which each has all rows, and trains some networks of the stack."""

    split = "stack"

    def begin(
        self, network: Network, theta: Array, x: Any, y: Any, options: Options
    ) -> tuple[Array, Any, Any, Options]:
        """Return the part of the arguments that belongs to this rank's networks, checked before."""
        theta, x, y, options = super().begin(network, theta, x, y, options)
        refuse((y is None, "x that gives batches", "give all rows, x and y"))
        self.check_options(theta, y, options)
        given = x, y, options.sample_weight
        rows, validation = check_data(network, theta, given, options, self)
        assert rows is not None  # noqa: S101 - given
        data = dict(zip(("x", "y", "sample_weight"), rows, strict=False))
        self.require_alike({**data, "validation": validation})
        l2, l2_of_sum = (check_strength(theta, options, name) for name in ("l2", "l2_of_sum"))
        keys_of(options.seed, theta)
        optimizer_on_device(options.optimizer, theta)
        start = options.start
        if start is not None:
            check_training(theta, start)
        self._theta, self._first = theta, checksum(theta) if start is None else start.first
        own = _members_of(self, theta)
        _, batches = batches_of(options, rows.y.shape[-2])
        options = own.of_options(options, batches)
        n = targets_of(network.loss_function, network.outputs_shape(theta, rows.x)[-1])
        x, y, weight = own.of_rows(rows, n)
        vars(options).update(sample_weight=weight, class_weight=None)
        vars(options).update(l2=own.of(l2, 0), l2_of_sum=own.of(l2_of_sum, 0))
        if validation is not None:
            vars(options).update(validation=own.of_rows(validation, n))
        return own.of(theta, 1), x, y, options

    def check_loops(self, *, are_compiled: bool) -> None:
        """Take loops of both kinds: each rank trains networks of its own."""

    def whole(self, state: TrainingState | None) -> TrainingState | None:
        """Return the state of all networks; None if some rank has none of the same epoch."""
        if not self.have_begun:
            return state
        sent = self.exchange(packed(state))
        if len({each and (each.epoch, each.step) for each in sent}) > 1 or sent[0] is None:
            return None
        states = [unpacked(each, self._theta) for each in sent]
        stack = tuple(states[0].theta.shape[:-1])

        # A count that all networks share is that of the latest best epoch, as in one process.
        epochs = [0 if each.best is None else each.best.epoch.max() for each in states]
        latest = epochs.index(max(epochs))

        def along(axis: int, *leaves: Any) -> Any:
            return concat(leaves, axis) if _has(leaves[0], axis, stack) else leaves[latest]

        names = "batch_losses", "history"
        series = [{name: getattr(each, name) for name in names} for each in states]
        others = [each._replace(batch_losses=None, history={}) for each in states]
        made: TrainingState = mapped(lambda *leaves: along(0, *leaves), *others)
        made = made._replace(**mapped(lambda *leaves: along(1, *leaves), *series))
        return made._replace(first=self._first)


class _Members(NamedTuple):
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

    def of_rows(self, rows: Rows, n: int) -> tuple[Array, Array, Array | None]:
        """Return their x, y of n columns, and weights."""
        y, weight = self.of(rows.y, 2), self.of(rows.sample_weight, 1)
        x, at = self.of(rows.x, 2), rows.at
        x = x if at is None else rows_at(x, self.of(at, 1))
        return x, *without_shares(y, weight, n)

    def of_options(self, options: Options, batches: int) -> Options:
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
        return lambda step: self.of(rate_at(schedule, step), 1)

    def _of_state(self, state: TrainingState) -> TrainingState:
        own: TrainingState = mapped(
            lambda leaf: leaf[self.part, ...] if _has(leaf, 0, self.stack) else leaf, state
        )
        losses, history = state.batch_losses, state.history
        return own._replace(
            batch_losses=None if losses is None else losses[:, self.part, ...],
            history={name: values[:, self.part, ...] for name, values in history.items()},
            first=None,  # that of all networks
        )


def _members_of(ranks: MemberRanks, theta: Array) -> _Members:
    """Return the networks that a rank trains."""
    stack = tuple(theta.shape[:-1])
    if not stack or stack[0] < ranks.size:
        raise ValueError(
            f'split="stack" divides the first axis of theta\'s stack {stack} among {ranks.size} '
            "ranks: stack at least as many networks, or take fewer ranks."
        )
    return _Members(
        stack, slice(*(stack[0] * i // ranks.size for i in (ranks.rank, ranks.rank + 1)))
    )


def _has(leaf: Pytree, axis: int, stack: tuple[int, ...]) -> bool:
    """Whether a leaf has a stack from an axis on."""
    return tuple(getattr(leaf, "shape", ()))[axis : axis + len(stack)] == stack
