"""The errors of what jets cannot do, each with its way out."""

from collections.abc import Callable
from typing import Any, NoReturn

_XP = "Here xp is array_namespace(x); in the residual of an Equation it is s.xp."


class NotLinearError(TypeError):
    """A backward rule does something to g which is not linear."""

    def __init__(self, what: str) -> None:
        must = "it must be linear in g: a sum of products of g with arrays that do not depend on g"
        super().__init__(f"A backward rule {what}, but {must}.")


class NoDerivativeError(TypeError):
    """A layer does not have a derivative, on arrays of any kind."""


def not_plain(what: str) -> TypeError:
    """Return the error of a function that would return a number or an array without derivatives."""
    return TypeError(
        f"{what} would lose the derivatives by the inputs, which are computed on jets. Take the "
        "function from the namespace of its argument: xp = array_namespace(x), then xp.sin(x). In "
        "the residual of an Equation it is s.xp.sin(s.u)."
    )


def jumping(what: str) -> TypeError:
    """Return the error of a function with jumps."""
    return TypeError(
        f"The derivatives by the inputs have no rule for {what}, which jumps. Choose in each row "
        "by xp.where(x < 1.0, a, b), or compute it beforehand and give it as a column of x, by "
        f"given= of an Equation. {_XP}"
    )


def not_a_condition(what: str) -> TypeError:
    """Return the error of numbers where booleans are expected."""
    return TypeError(
        f"{what} takes conditions such as x > 0.0, not numbers. Comparisons beside &, | and ~ need "
        "parentheses: (x > 0.0) & (x < 1.0)."
    )


def _not_one(what: str) -> TypeError:
    return TypeError(
        f"{what} takes one boolean, but the inputs have many rows, each with a value of its own. "
        "Choose in each row: xp.where(x > 0.0, a, b) for an if, xp.maximum(a, b) for max(a, b), "
        f"(x > 0.0) & (x < 1.0) for 0.0 < x < 1.0. {_XP}"
    )


def _not_a_sequence(what: str) -> TypeError:
    return TypeError(
        f"{what} is not possible for a jet, an array with its derivatives by the inputs. Take "
        "x[..., 0] for a column, xp.sum(x, axis=-1) for sum(x), and x.shape[-1] for a length. "
        f"{_XP}"
    )


def _not_callable(what: str) -> TypeError:
    return TypeError(
        f"{what} is not possible: a quantity such as s.u has its value at the point of the row. "
        "A residual of several points, such as t and t - 1, is that of an Equation with points=2, "
        "whose rows of x have both: lambda s: s[0].u_t + s[1].u."
    )


def _not_writable(what: str) -> TypeError:
    return TypeError(
        "The derivatives by the inputs are computed on jets, which nothing can be written into. "
        f"Make the array by xp.concat or xp.where instead of {what}."
    )


# The functions of the standard that jump, as an error names them.
JUMPS = {
    "remainder": "x % y (remainder)",
    "floor_divide": "x // y (floor_divide)",
    **{name: name for name in ("floor", "ceil", "round", "trunc")},
}
# The methods that jets refuse: what an error names, and the error.
REFUSED: dict[str, tuple[str, Callable[[str], TypeError]]] = {
    **dict.fromkeys(("__mod__", "__rmod__"), (JUMPS["remainder"], jumping)),
    **dict.fromkeys(("__floordiv__", "__rfloordiv__"), (JUMPS["floor_divide"], jumping)),
    **dict.fromkeys(("__divmod__", "__rdivmod__"), ("divmod", jumping)),
    **{f"__{name}__": (name, jumping) for name in ("round", "trunc", "floor", "ceil")},
    "__float__": ("float(...), or a function of the module math,", not_plain),
    "__int__": ("int(...)", not_plain),
    "__complex__": ("complex(...)", not_plain),
    "__index__": ("An integer, such as an index,", not_plain),
    "__array__": ("Conversion to an array", not_plain),
    "__iter__": ("Iteration", _not_a_sequence),
    "__len__": ("len(...)", _not_a_sequence),
    "__contains__": ('"in"', _not_a_sequence),
    "__setitem__": ("x[...] = value", _not_writable),
    "__call__": ("A call such as s.u(s.t - 1.0)", _not_callable),
    "__bool__": ('"if", "and", "or", "not", max(...), min(...) or bool(...)', _not_one),
}


def refusal(name: str) -> Callable[..., NoReturn]:
    """Return a method that raises the error of ``REFUSED``."""
    what, error = REFUSED[name]

    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise error(what)

    return refuse
