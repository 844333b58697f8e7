"""The argument of a differential equation's residual: its quantities, by name.

Each quantity is ``(..., batch, 1)``: an output of layers or a derivative of it, a column of x, or
an unknown coefficient. A residual with several points gets a sequence of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from backprop_xp.backends import Array, array_namespace
from backprop_xp.checks import nearest
from backprop_xp.networks.jets.functions import JetNamespace
from backprop_xp.networks.jets.jet import Jet
from backprop_xp.networks.jets.passes import Term


@dataclass(frozen=True)
class Quantity:
    """An output with its derivatives' term, a column of x or an unknown, by its number.

    An output and a column are those of a point of the row.
    """

    kind: str
    number: int
    term: Term = ()
    point: int = 0


@dataclass(frozen=True)
class Point:
    """The argument of a residual, ``s``: ``s.u``, ``s.u_xx``, ``s.x``, ``s.kappa``, ``s.xp``.

    ``xp`` is the array namespace of the quantities.
    """

    xp: JetNamespace
    _names: Mapping[str, Quantity]
    _variables: tuple[str, ...]
    _value_of: Callable[[Quantity], Jet]

    def __getattr__(self, name: str) -> Jet:
        """Return a quantity, or a derivative by variables of one letter: ``s.u_tx``."""
        output, _, letters = name.partition("_")
        if name in self._names:
            return self._value_of(self._names[name])
        if not letters or self._kind(output) != "output" or {*letters} - {*self._variables}:
            known = [*self._names, *(f"{u}_{v}" for u in self._outputs for v in self._variables)]
            raise AttributeError(
                f"The equation has no {name!r}. {nearest(name, known)} Derivatives by names of "
                'several letters are s.d("u", "time", "time").'
            )
        return self.d(output, *letters)

    def __getitem__(self, i: int) -> NoReturn:
        raise TypeError(
            f"The residual gets one point s, without s[{i!r}]. Several points in a row of x, such "
            "as 2, are points=2 of the Equation."
        )

    def d(self, output: str, *variables: str) -> Jet:
        """Return the derivative of an output by variables, of the first or the second order."""
        self._check(output, variables)
        if len(variables) > 2:
            raise AttributeError(
                f"A derivative of {output} by {', '.join(variables)} is of order "
                f"{len(variables)}, but the first and the second are possible. A further output "
                "that equals a derivative makes a system of lower order."
            )
        term = tuple(sorted(map(self._variables.index, variables)))
        return self._value_of(replace(self._names[output], term=term))

    def laplacian(self, output: str, *variables: str) -> Jet:
        """Return the sum of an output's second derivatives by each variable: ``u_xx + u_yy``.

        It costs one second derivative. Without variables it is that by all.
        """
        self._check(output, variables)
        columns = sorted(map(self._variables.index, variables or self._variables))
        term = tuple(column for column in columns for _ in range(2))
        return self._value_of(replace(self._names[output], term=term))

    def _check(self, output: str, variables: Sequence[str]) -> None:
        """Raise AttributeError for what is no output or no variable."""
        if self._kind(output) != "output":
            raise AttributeError(f"{output!r} is not an output. {nearest(output, self._outputs)}")
        for variable in variables:
            if variable not in self._variables:
                raise AttributeError(
                    f"{variable!r} is not a variable. {nearest(variable, [*self._variables])}"
                )

    def _kind(self, name: str) -> str | None:
        return self._names[name].kind if name in self._names else None

    @property
    def _outputs(self) -> list[str]:
        return [name for name, quantity in self._names.items() if quantity.kind == "output"]


class Points(tuple[Point, ...]):
    """The argument of a residual with several points: ``s[0].u``, ``s[1].u_x``."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"The residual gets a sequence of {len(self)} points, which has no {name!r}. Take that "
            f"of one point: s[0].{name}."
        )


def of_width(array: Array, width: int) -> Array:
    """Return rows of this width: points side by side below each other, or the inverse."""
    shape = (*array.shape[:-2], -1, width)
    return array if array.shape[-1] == width else array_namespace(array).reshape(array, shape)
