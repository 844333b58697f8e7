"""A layer's protocol, and the way through a chain of layers and back.

``x`` is a layer's input, ``g = dL/dy`` the gradient by its output.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from backprop_xp.backends import Array
from backprop_xp.networks.initializers import Generator, HostArray
from backprop_xp.networks.random_bits import fold_in

Cache: TypeAlias = Any
Parameters: TypeAlias = Sequence[Array]
# Where the gradients of a layer's parameters are to be written; None makes an array for one.
Places: TypeAlias = Sequence[Array | None]


class Layer(Protocol):
    """What a layer must offer; one of your own works everywhere a built-in one does.

    ``names`` and ``shapes`` are those of its parameters, without the stack. L2 and weight decay
    apply to parameters named ``weights``. ``rng`` is None in inference, else a key of ``random``.
    A layer is not changed once a network has it: JAX trains it as it was compiled.

    It may say more by attributes. Where it has ``n_in`` and ``n_out``, a network checks that
    neighbours fit; with ``keeps_width`` True it gives as many features as it takes. With
    ``is_random`` False its ``forward`` is given None for ``rng``. With ``writes`` True its
    ``backward`` may be given ``out``, an array for each parameter, into which it writes that one's
    gradient and which it returns for it.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""
        ...

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The parameters' shapes, without the stack."""
        ...

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the parameters on the host, in float64."""
        ...

    def forward(self, parameters: Parameters, x: Array, rng: Any) -> tuple[Array, Cache]:
        """Return the output, and what ``backward`` needs."""
        ...

    def backward(
        self, parameters: Parameters, cache: Cache, g: Array, *, wants_input: bool = True
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """Return dL/dx (None where not wanted) and dL/dparameters, from ``g`` = dL/dy."""
        ...


def forward_through(
    layers: Sequence[Layer], parameters: Sequence[Parameters], x: Array, rng: Any
) -> tuple[Array, list[Cache]]:
    """Send x forward through a chain of layers: the last output, and what the way back needs.

    For each layer that is its input's shape and its cache.
    """
    caches: list[Cache] = []
    for i, layer in enumerate(layers):
        shape = x.shape
        x, cache = _forward(layer, i, parameters[i], x, rng)
        caches.append((shape, cache))
    return x, caches


def output_of(
    layers: Sequence[Layer], parameters: Sequence[Parameters], x: Array, rng: Any
) -> Array:
    """Send x forward through a chain of layers and keep no cache: nothing will be sent back."""
    for i, layer in enumerate(layers):
        x = _forward(layer, i, parameters[i], x, rng)[0]
    return x


def _forward(
    layer: Layer, i: int, parameters: Parameters, x: Array, rng: Any
) -> tuple[Array, Cache]:
    try:
        key = fold_in(rng, i) if rng is not None and is_random(layer) else None
        return layer.forward(parameters, x, key)
    except Exception as error:
        error.add_note(f"In layers[{i}] ({type(layer).__name__}).forward.")
        raise


def backward_through(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    caches: Sequence[Cache],
    g: Array,
    *,
    wants_input: bool = True,
    out: Sequence[Places] | None = None,
) -> tuple[Array | None, list[tuple[Array, ...]]]:
    """Send g = dL/dy back through a chain of layers: dL/dx, and each layer's gradients.

    Without ``wants_input`` dL/dx is computed only as far back as a layer with parameters needs it.
    If ``out`` is given, the gradients are written into its arrays, layer by layer.
    """
    first = 0 if wants_input else next((i for i, layer in enumerate(layers) if layer.names), 0)
    gradients: list[tuple[Array, ...]] = [() for _ in layers]
    # Handed over, not held here too: a layer that is done with it lets it go.
    upstream: list[Array | None] = [g]
    del g
    for i in reversed(range(first, len(layers))):
        layer: Any = layers[i]
        shape, cache = caches[i]
        wanted = wants_input or i > first
        more = {"out": out[i]} if out is not None and getattr(layer, "writes", False) else {}
        try:
            back, found = layer.backward(
                parameters[i], cache, upstream.pop(), wants_input=wanted, **more
            )
            if wanted:
                _check_shape(layer, "for its input", back, shape)
            gradients[i] = _put_into(None if out is None else out[i], layer, parameters[i], found)
        except Exception as error:
            error.add_note(f"In layers[{i}] ({type(layer).__name__}).backward.")
            raise
        upstream.append(back)
        del back
    return upstream.pop(), gradients


def _put_into(
    places: Places | None, layer: Layer, parameters: Parameters, gradients: Sequence[Array]
) -> tuple[Array, ...]:
    """Return a layer's gradients, copied into ``places``, if given, where it did not write there.

    Raises ValueError unless each has its parameter's shape.
    """
    if len(gradients) != len(parameters):
        raise ValueError(
            f"{type(layer).__name__}.backward returned {len(gradients)} gradients, but one for "
            f"each of its parameters {tuple(layer.names)} is expected."
        )
    kept = []
    for i, gradient in enumerate(gradients):
        place = None if places is None else places[i]
        if gradient is not place:
            _check_shape(layer, f"for {layer.names[i]!r}", gradient, parameters[i].shape)
            if place is not None:
                place[...] = gradient
        kept.append(gradient if place is None else place)
    return tuple(kept)


def _check_shape(layer: Layer, what: str, gradient: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a gradient has a shape: broadcast, it would be a wrong one."""
    found = getattr(gradient, "shape", None)
    if found != shape:
        raise ValueError(
            f"{type(layer).__name__}.backward returned a gradient of shape "
            f"{found and tuple(found)} {what}, but {tuple(shape)} is expected."
        )


def is_random(layer: Layer) -> bool:
    """Say whether a layer's forward depends on its key: yes, unless its ``is_random`` is False."""
    return bool(getattr(layer, "is_random", True))


def require_layer(layer: Any, name: str) -> None:
    """Raise TypeError unless ``layer`` is an object with the methods of a layer."""
    methods = ("initialize", "forward", "backward")
    if isinstance(layer, type) or not all(hasattr(layer, method) for method in methods):
        raise TypeError(
            f"{name} is {layer!r}, which is no layer: an object with {', '.join(methods)} is "
            "expected, such as bx.Dense(2, 1); an activation becomes one by bx.Activate."
        )


def check_chain(layers: Sequence[Layer]) -> tuple[int | None, int | None]:
    """Return the widths that a chain of layers takes and gives, None where no layer says.

    Raises ValueError where one layer gives another width than the next takes.
    """
    sized = [
        (i, getattr(layer, "n_in", None), getattr(layer, "n_out", None))
        for i, layer in enumerate(layers)
        if not getattr(layer, "keeps_width", False)
    ]
    if not sized:
        return None, None
    for (_, _, given), (i, taken, _) in itertools.pairwise(sized):
        if None not in (given, taken) and given != taken:
            raise ValueError(
                f"layer {i} ({type(layers[i]).__name__}) takes {taken} features, but the layers "
                f"before it give {given}."
            )
    return sized[0][1], sized[-1][2]
