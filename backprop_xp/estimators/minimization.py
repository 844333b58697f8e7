"""What a solver minimizes: a network's loss on rows, of one estimator or of a stack of several."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from backprop_xp.backends import (
    Array,
    Identity,
    Selection,
    array_namespace,
    gather,
    to_device_of,
)
from backprop_xp.estimators.parameters import Model
from backprop_xp.estimators.samples import Samples, on_device, put
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.optimizers.pytrees import mapped


class Minimization(NamedTuple):
    """A network, and the samples that a solver trains it on and validates it with.

    ``theta`` may be a stack ``(n_members * n_restarts, P)``, member by member: the best network of
    each is kept. Arrays are where the estimator has read them; ``placed`` moves them to the choice.
    The x of a table that is moved by blocks is a ``Table``.
    """

    network: Network
    choice: Selection
    theta: Array
    samples: Samples
    validation: Samples | None
    score: Callable[[Array, Array, Array | None], Array]
    random_state: np.random.RandomState

    def placed(self) -> Self:
        """Return the same on the chosen device."""
        samples, validation = on_device(self.choice, self.samples), self.validation
        if validation is not None:
            validation = on_device(self.choice, validation)
        theta = put(self.choice, self.theta)
        return self._replace(theta=theta, samples=samples, validation=validation)

    def kind(self) -> Hashable:
        """Return what minimizations have in common that ``joined`` can join, None if it cannot."""
        arrays = [self.theta, *self.samples, *(self.validation or [])]
        if any(not isinstance(one, np.ndarray) for one in arrays if one is not None):
            return None
        shapes = tuple(None if one is None else (one.dtype.str, one.shape) for one in arrays)
        backend, device, dtype, _ = self.choice
        return Identity(self.network), Identity(backend), repr(device), repr(dtype), shapes

    @property
    def nbytes(self) -> int:
        """The bytes of theta and of the samples."""
        arrays = [self.theta, *self.samples, *(self.validation or [])]
        return sum(getattr(one, "nbytes", 0) for one in arrays)


def joined(each: Sequence[Minimization]) -> Minimization:
    """Return one minimization of a stack ``(networks, P)``, or the only one as it is.

    Arrays that are equal are shared by the networks. The random state is the first one's.
    """
    first = each[0]
    if len(each) == 1:
        return first

    def all_of(arrays: Sequence[Any]) -> Any:
        one = arrays[0]
        if one is None or all(a is one or np.array_equal(a, one) for a in arrays):
            return one
        return np.stack(arrays)

    def sets_of(sets: Sequence[Any]) -> Samples:
        return Samples(*map(all_of, zip(*sets, strict=True)))

    validation = None if first.validation is None else sets_of([one.validation for one in each])
    return first._replace(
        theta=np.stack([one.theta for one in each]),
        samples=sets_of([one.samples for one in each]),
        validation=validation,
    )


def of_networks(theta: Array, values: Sequence[float]) -> Any:
    """Return one number if all are equal, else ``(networks, 1)`` on theta's device."""
    if all(value == values[0] for value in values):
        return values[0]
    return to_device_of(theta, np.asarray(values, dtype=float)[:, None], theta.dtype)


def strengths(theta: Array, models: Sequence[Model]) -> Any:
    """Return the penalty of each network, ``(networks,)``, or one number if all are equal."""
    each = of_networks(theta, [model.alpha for model in models])
    return each[..., 0] if getattr(each, "shape", ()) else each


def state_of(state: TrainingState, left: np.ndarray) -> TrainingState:
    """Return the state of some networks of a stack; that of one network alone is no stack."""
    index = (int(left[0]) if len(left) == 1 else left,)

    def rows(leaf: Any) -> Any:
        return at_index(leaf, index) if getattr(leaf, "shape", ()) else leaf

    kept, best = mapped(rows, (state.theta, state.optimizer_state)), state.best
    best = None if best is None else mapped(rows, best)
    return TrainingState(state.epoch, state.step, *kept)._replace(best=best)


def has_quarter_ended(is_left: np.ndarray) -> bool:
    """Return whether a stack without the networks that have ended is worth a copy of the others."""
    return bool(4 * is_left.sum() <= 3 * len(is_left))


def index_of_best(values: np.ndarray, members: int = 1) -> tuple[Any, ...]:
    """Return the index of each member's least of ``(members * restarts,)`` values; NaN is greatest.

    It is () for one network, and has an integer for one member and an array for several.
    """
    if not values.shape:
        return ()
    starts = np.where(np.isnan(values), np.inf, values).reshape(members, -1)
    best = np.argmin(starts, axis=-1) + starts.shape[1] * np.arange(members)
    return (best if members > 1 else int(best[0]),)


def at_index(array: Array, index: tuple[Any, ...]) -> Array:
    """Return the entries of a stack at the index of ``index_of_best``, on its device."""
    if not index or isinstance(index[0], int):
        return array[(*index, ...)]
    return gather(array, to_device_of(array, index[0], array_namespace(array).int32), 0)
