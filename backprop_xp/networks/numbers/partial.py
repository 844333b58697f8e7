"""Functions with their last arguments given, as records."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backprop_xp.display.reprs import repr_of


@dataclass(frozen=True)
class WithLast:
    """``function`` with its last arguments given.

    Networks that have it stay equal after pickling, which neither ``functools.partial`` nor a
    closure does.
    """

    function: Callable[..., Any]
    last: tuple[object, ...]

    __repr__ = repr_of

    def __call__(self, *first: object) -> Any:
        """Return the function's value."""
        return self.function(*first, *self.last)
