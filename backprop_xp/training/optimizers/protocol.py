"""The protocol of an optimizer, and the parts that the built-in ones share."""

import functools
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeAlias

from backprop_xp.backends import Array, dispatch, require_floating
from backprop_xp.checks import boolean, check_arguments, integer
from backprop_xp.display.reprs import call_hash, is_same_call, repr_of
from backprop_xp.training.optimizers.full_batch import Objective
from backprop_xp.training.optimizers.hyperparameters import (
    check_alike,
    check_hyperparameters,
    hyperparameter,
    placed,
)
from backprop_xp.training.optimizers.pytrees import Pytree, zeros_like
from backprop_xp.training.optimizers.schedules import LearningRate, rate_at


class Optimizer(Protocol):
    """The protocol of an optimizer.

    The state is any pytree. Built-in states count their updates in an int ``step``.

    ``train`` evaluates the attribute ``learning_rate``, if there is one, on the host, and passes it
    to ``update``. On JAX ``update`` is compiled: the state must consist of tuples, lists and dicts,
    its numbers are 0-d arrays inside, and an update keeps its structure, shapes and dtypes.

    Optional attributes of the class allow a training to be faster. They hold for that class alone,
    not for its subclasses, and are False where a class does not state them:

    - ``is_elementwise``: an entry of the next theta and state depends on that entry of theta,
      gradient, state and rate, and on no other entry. ``update`` reads no other array as long as
      theta. On JAX, theta is then updated parameter by parameter.
    - ``works_in_place``: ``update`` keeps no gradient, in the state or elsewhere, and raises before
      it writes to an array, if at all. All gradients then share one buffer where slices are views,
      and no copy of theta is made to undo an update that fails.
    - ``shares_code``: the class is a dataclass, and its methods depend on its fields and their
      arguments alone. On JAX, optimizers of the class then share one compiled function: floats
      other than 0 and arrays are 0-d arrays and arrays inside.
    """

    def initialize(self, theta: Array) -> Pytree:
        """Return the state before the first update."""
        ...

    def update(
        self,
        theta: Array,
        gradient: Array,
        state: Pytree,
        *,
        learning_rate: LearningRate | None = None,
    ) -> tuple[Array, Pytree]:
        """Return theta and the state after one update.

        ``learning_rate`` None is the optimizer's own at ``state.step``.
        """
        ...


class ObjectiveOptimizer(Protocol):
    """The protocol of an optimizer that evaluates the objective itself, at points of its own.

    The training then takes one full batch in an epoch, and ``advance`` one step. ``objective`` is a
    ``training.optimizers.full_batch.Objective``: ``loss(theta)``, ``loss_and_gradient(theta)`` and
    ``gauss_newton(theta)``. The state is a pytree, as that of ``Optimizer``, and nothing may be
    written in place. Networks of a stack are independent: choose between two arrays by ``where``,
    never by ``if``. On JAX ``advance`` is compiled.

    Optional methods: ``begin(theta, objective)`` returns the theta of the first step.
    ``has_converged(state)`` returns booleans, one for each network. The training reads them every
    20 epochs, not before the first ones, and ends if all are True.

    A class with both ``advance`` and ``update`` states which one a training calls by a boolean
    ``takes_objective``. ``shares_code`` is that of ``Optimizer``.
    """

    def initialize(self, theta: Array) -> Pytree:
        """Return the state before the first step."""
        ...

    def advance(
        self, theta: Array, state: Pytree, objective: Objective
    ) -> tuple[Array, Pytree, Array]:
        """Return theta and the state after a step, and the loss before it, ``(*stack,)``."""
        ...


AnyOptimizer: TypeAlias = Optimizer | ObjectiveOptimizer


class Traits(NamedTuple):
    """How an optimizer runs, as ``Optimizer`` and ``ObjectiveOptimizer`` explain.

    The defaults are safe for any optimizer.
    """

    takes_objective: bool
    is_elementwise: bool = False
    works_in_place: bool = False
    shares_code: bool = False


def traits_of(optimizer: Any) -> Traits:
    """Return how an optimizer runs, by the attributes of its class.

    An optimizer with ``advance`` takes the objective unless it states otherwise. The others are not
    inherited: the methods of a subclass may be of another kind.
    """
    kind, own = type(optimizer).__name__, vars(type(optimizer))
    takes = getattr(optimizer, "takes_objective", hasattr(optimizer, "advance"))
    stated = {"takes_objective": takes, **{n: own[n] for n in Traits._fields[1:] if n in own}}
    traits = Traits(**{name: boolean(value, f"{kind}.{name}") for name, value in stated.items()})
    if traits.shares_code and not is_dataclass(optimizer):
        raise TypeError(f"{kind}.shares_code is True, but {kind} is no dataclass.")
    return traits


class Configured:
    """The methods that the built-in optimizers share: each has its own kind of state."""

    kind_of_state: ClassVar[Any]

    def __new__(cls, *_: object, **given: object) -> Self:
        """Refuse an unknown argument before the constructor does, with the nearest known one."""
        check_arguments(cls.__name__, cls.__init__, given)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    def unused(self) -> str:
        """Return the field of its state that is None with these options, if any."""
        return ""

    def shape_of(self, name: str, theta: Array) -> tuple[int, ...]:
        """Return the shape of a field of its state: theta's."""
        return tuple(theta.shape)

    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash


class BuiltIn(Configured):
    """The methods that the built-in optimizers with an ``update`` share.

    Each has a ``rule``: it returns what ``update`` does, unchecked, with hyperparameters on theta's
    device.
    """

    learning_rate: LearningRate
    rule: Callable[..., tuple[Array, Pytree]]

    def initialize(self, theta: Array) -> Pytree:
        """Return the state before the first update, of zeros."""
        require_floating(theta, "theta")
        kind, zeros = self.kind_of_state, dispatch(zeros_like, theta)
        unused = self.unused()
        return kind(0, *(None if name == unused else zeros(theta) for name in kind._fields[1:]))

    def update(
        self,
        theta: Array,
        gradient: Array,
        state: Pytree,
        *,
        learning_rate: LearningRate | None = None,
    ) -> tuple[Array, Pytree]:
        """Return theta and the state after one update."""
        require_floating(theta, "theta")
        check_state(self, theta, state)
        check_alike(theta, gradient, "gradient")
        alpha = self.learning_rate if learning_rate is None else learning_rate
        alpha = rate_at(alpha, state.step) if callable(alpha) else alpha
        alpha = hyperparameter(theta, alpha, "learning_rate")
        return dispatch(type(self).rule, theta)(placed(self, theta), theta, gradient, state, alpha)


_BEGIN = "Begin with state = optimizer.initialize(theta)."


def _kind_of_state(optimizer: Any) -> Any:
    """Return the class of an optimizer's state, None for a user's own optimizer.

    A subclass that inherits ``update`` has the same state.
    """
    update = getattr(type(optimizer), "update", None)
    is_ours = isinstance(optimizer, Configured) and update in (None, BuiltIn.update)
    return optimizer.kind_of_state if is_ours else None


def rule_of(optimizer: Optimizer, theta: Array) -> Callable[..., tuple[Array, Pytree]] | None:
    """Return the rule of a built-in optimizer, or the faster one that holds for theta now.

    It is called with ``(theta, gradient, state, learning_rate)``. None for a user's own optimizer.
    """
    if _kind_of_state(optimizer) is None:
        return None
    kind: Any = type(optimizer)
    return functools.partial(dispatch(kind.rule, theta), optimizer)


def optimizer_on_device(optimizer: AnyOptimizer, theta: Array) -> AnyOptimizer:
    """Return the optimizer with its arrays on theta's device, in its dtype, and checked to fit.

    The learning rate stays as it is, and so does a user's own optimizer.
    """
    return optimizer if _kind_of_state(optimizer) is None else placed(optimizer, theta)


def check_state(optimizer: AnyOptimizer, theta: Array, state: Pytree) -> None:
    """Raise TypeError or ValueError unless a state fits this optimizer and theta.

    The state of a user's own optimizer is not checked.
    """
    kind = _kind_of_state(optimizer)
    if kind is None:
        return
    if not isinstance(state, kind):
        raise TypeError(
            f"state is {type(state).__name__}, but {type(optimizer).__name__} resumes from "
            f"{kind.__name__}. {_BEGIN}"
        )
    if not hasattr(state.step, "shape"):  # an array in a compiled update
        integer(state.step, "state.step", at_least=0)
    own: Any = optimizer  # a Configured one, by its state
    for name, value in zip(kind._fields[1:], state[1:], strict=True):
        if value is not None:
            shape = own.shape_of(name, theta)
            check_alike(theta, value, f"state.{name}", f" {_BEGIN}", shape=shape)
        elif name != own.unused():
            raise ValueError(
                f"state has no {name}, but {optimizer!r} needs one, by its options. {_BEGIN}"
            )
