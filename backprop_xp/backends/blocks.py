"""Values that hold inside a ``with``, in its thread or task.

Where the ``with`` stands in a generator, they hold while the generator runs. A context variable
alone would hold for the caller too while the generator is suspended, and would stay set for good if
generators ended in another order than they began.
"""

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
# Generators run by these hand their ``with`` on to whoever uses the context manager or fixture.
_HAND_ON = ("contextlib", "_pytest.fixtures")


@dataclasses.dataclass(eq=False)
class _Block:
    """A ``with`` that was entered, and the frame of the generator that it stands in, if any."""

    value: Any
    frame: FrameType | None
    is_open: bool = True

    def holds(self) -> bool:
        """Say whether it is open and its generator, if any, runs: a suspended one has no caller."""
        return self.is_open and (self.frame is None or self.frame.f_back is not None)


_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("backprop_xp.blocks", default=())


def standing(kind: type[T]) -> list[T]:
    """Return the values of a type whose blocks hold here, the innermost first."""
    return [
        block.value
        for block in reversed(_blocks.get())
        if isinstance(block.value, kind) and block.holds()
    ]


class Blocks:
    """The blocks of one context manager, which threads and generators enter and leave at will."""

    def __init__(self) -> None:
        self._open: list[_Block] = []

    def enter(self, value: Any) -> None:
        """Let a value stand; to be called by ``__enter__``."""
        block = _Block(value, _generator())
        self._open.append(block)
        _blocks.set((*_blocks.get(), block))

    def leave(self) -> None:
        """End the innermost block of this generator, or else of this thread or task."""
        frame, here = _generator(), _blocks.get()
        ended = max(reversed(self._open), key=lambda block: (block.frame is frame, block in here))
        ended.is_open = False
        self._open.remove(ended)
        _blocks.set(tuple(block for block in here if block.is_open))


class BlockDecorator(contextlib.ContextDecorator):
    """A context manager that decorates functions too, but none that runs after its call."""

    def __call__(self, function: Function) -> Function:
        """Return the function in a block of its own at each call."""
        kinds = (
            (inspect.iscoroutinefunction, "an async function"),
            (inspect.isasyncgenfunction, "an async generator"),
            (inspect.isgeneratorfunction, "a generator"),
        )
        for is_one, kind in kinds:
            if is_one(function):
                name = type(self).__name__
                raise TypeError(
                    f"@{name} decorates {function.__name__}, {kind}: it would end before any of it "
                    f"runs. Put `with {name}(...):` inside."
                )
        return super().__call__(function)


def _generator() -> FrameType | None:
    """Return the frame of the generator in which a ``with`` is entered or left, if it is in one."""
    frame: FrameType | None = sys._getframe(3)  # behind enter and __enter__
    while frame is not None:
        caller, module = frame.f_back, frame.f_globals.get("__name__")
        if frame.f_code.co_flags & _GENERATORS:
            if caller is None or caller.f_globals.get("__name__") not in _HAND_ON:
                return frame
        elif module != "contextlib":
            return None
        frame = caller
    return None
