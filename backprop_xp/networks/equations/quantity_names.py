"""The names of an equation's quantities: outputs, variables, given columns and unknowns."""

from collections.abc import Mapping, Sequence

from backprop_xp.checks import real, sequence

_RESERVED = ("d", "laplacian", "xp", "weights")


def names_of(given: str | Sequence[str], argument: str) -> tuple[str, ...]:
    """Return names; those of a string are its letters."""
    return tuple(given if isinstance(given, str) else sequence(given, argument, '["time", "x1"]'))


def starts_of(unknown: Mapping[str, float]) -> dict[str, float]:
    """Return the start of each unknown coefficient."""
    if not isinstance(unknown, Mapping):
        raise TypeError(f'unknown must be a dictionary such as {{"k": 1.0}}, not {unknown!r}.')
    return {name: real(start, f"unknown[{name!r}]") for name, start in unknown.items()}


def output_names(
    widths: tuple[int | None, int | None],
    variables: tuple[str, ...],
    outputs: str | Sequence[str] | None,
) -> tuple[str, ...]:
    """Return a name for each output of the layers, of these widths."""
    n_in, n_out = widths
    if n_in not in (None, len(variables)):
        raise ValueError(
            f"The layers take {n_in} columns, but there are {len(variables)} variables: "
            f"{', '.join(variables)}. Further columns of x are given=."
        )
    names = names_of(outputs or "uvw"[: n_out or 1], "outputs")
    if n_out is not None and len(names) != n_out:
        raise ValueError(
            f"The layers have {n_out} outputs, but {len(names)} names: {', '.join(names)}. Name "
            'all by outputs=, such as outputs=["u", "v", "w", "p"].'
        )
    return names


def check_names(outputs: Sequence[str], variables: Sequence[str], others: Sequence[str]) -> None:
    """Raise ValueError for names of quantities that a residual could not use."""
    names = [*outputs, *variables, *others]
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
            raise ValueError(
                f"{name!r} cannot be the name of a quantity: an identifier is expected, other than "
                f"{', '.join(_RESERVED)}."
            )
        if name in names[:i]:
            raise ValueError(f"{name!r} is the name of two quantities of the equation.")
    for name in others:
        output, _, letters = name.partition("_")
        if output in outputs and letters and not {*letters} - {*variables}:
            raise ValueError(
                f"{name!r} cannot be the name of a quantity: it is a derivative of {output}."
            )
