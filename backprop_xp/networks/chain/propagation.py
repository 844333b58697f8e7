"""The protocol of a layer, and the passes forward and backward through a chain of layers.

``x`` is a layer's input, ``g = dL/dy`` the gradient by its output.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from backprop_xp.backends import Array, replaced_layers
from backprop_xp.networks.numbers.initializers import Generator, HostArray
from backprop_xp.networks.numbers.random_bits import Key, fold_in

# Whatever a layer's forward keeps for its backward.
Cache: TypeAlias = Any
Parameters: TypeAlias = Sequence[Array]
# Arrays into which a layer writes its gradients, one per parameter; None for a new array.
Buffers: TypeAlias = Sequence[Array | None]
# dL/dx (None if not wanted) and dL/dparameters.
Gradients: TypeAlias = tuple[Array | None, tuple[Array, ...]]


class Layer(Protocol):
    """The interface of a layer; your own layer works everywhere a built-in one does.

    ``names`` and ``shapes`` are those of its parameters, without the stack. L2 and weight decay
    apply to parameters named ``weights``. ``rng`` is None in inference, else a key of random bits.
    A layer must not change after a network has it: JAX compiles it once.

    Optional attributes: with ``n_in`` and ``n_out``, a network checks that neighbours fit. With
    ``keeps_width`` True, the output has as many features as the input. With ``is_random`` False,
    ``forward`` gets None for ``rng``. With ``writes`` True, ``backward`` may get ``out``, an array
    per parameter: it writes the gradient into each and returns it. With ``skips`` True,
    ``backward`` may get ``wants_parameters=False``: it returns dL/dx and ``()``. ``codes`` of a
    first layer has the number of codes in each column of x, 0 for numbers: a network refuses
    others. With ``returns_codes`` False, no layer with ``codes`` may follow.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The parameters' shapes, without the stack."""

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the parameters on the host, in float64."""

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the output, and what ``backward`` needs."""

    def backward(
        self, parameters: Parameters, cache: Cache, g: Array, *, wants_input: bool = True
    ) -> Gradients:
        """Return dL/dx (None if not wanted) and dL/dparameters, from ``g`` = dL/dy."""


class Link(NamedTuple):
    """A layer of a chain with all that its passes need, looked up once.

    ``forward(x, rng)`` and ``backward(cache, g)`` are the layer's, or what replaces them, with its
    parameters and options. ``backward`` is None where no gradient goes. ``buffers`` are None for
    new arrays.
    """

    number: int
    layer: Layer
    parameters: Parameters
    is_random: bool
    forward: Callable[[Array, Key | None], tuple[Array, Cache]]
    backward: Callable[[Cache, Array], Gradients] | None
    wants_input: bool
    wants_parameters: bool
    buffers: Buffers | None


def linked(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    *,
    wants_input: bool = True,
    wants_parameters: bool = True,
    out: Sequence[Buffers] | None = None,
    start: int = 0,
) -> list[Link]:
    """Return the links of a chain, for passes as long as the replacements of now hold.

    Without ``wants_input`` dL/dx is computed only as far back as a layer with parameters needs it.
    Without ``wants_parameters`` the gradients are ``()``, which takes half the time. With ``out``
    the gradients are written into its arrays, layer by layer. The layers are numbered from
    ``start``, in their keys and in the notes of errors.
    """
    first = 0 if wants_input else next((i for i, layer in enumerate(layers) if layer.names), 0)
    replaced, links = replaced_layers(), list[Link]()
    for i, (layer, own) in enumerate(zip(layers, parameters, strict=True)):
        functions: Any = replaced.get(id(layer), layer) if replaced else layer
        buffers, wanted, backward = None if out is None else out[i], wants_input or i > first, None
        if i >= first:
            options: dict[str, Any] = {"wants_input": wanted}
            if buffers is not None and getattr(layer, "writes", False):
                options["out"] = buffers
            if not wants_parameters and getattr(layer, "skips", False):
                options["wants_parameters"] = False
            backward = functools.partial(functions.backward, own, **options)
        forward = functools.partial(functions.forward, own)
        passes = is_random(layer), forward, backward, wanted, wants_parameters, buffers
        links.append(Link(start + i, layer, own, *passes))
    return links


def forward_through(
    chain: Sequence[Link], x: Array, rng: Key | None, caches: list[Cache] | None = None
) -> Array:
    """Return the last layer's output; each layer's input shape and cache go into ``caches``."""
    for link in chain:
        shape = x.shape
        try:
            key = fold_in(rng, link.number) if rng is not None and link.is_random else None
            found = link.forward(x, key)
            if not isinstance(found, tuple) or len(found) != 2:
                raise _no_pair(found, "forward", "the output and a cache, or None")
        except Exception as error:
            error.add_note(f"In layers[{link.number}] ({type(link.layer).__name__}).forward.")
            raise
        x, cache = found
        if caches is not None:
            caches.append((shape, cache))
        del found, cache  # before the next layer makes its own
    return x


def backward_through(
    chain: Sequence[Link], caches: Sequence[Cache], g: Array
) -> tuple[Array | None, list[tuple[Array, ...]]]:
    """Return dL/dx and each layer's gradients, from ``g`` = dL/dy of the last layer."""
    gradients: list[tuple[Array, ...]] = [()] * len(chain)
    # A list, emptied at each call: a layer can free the gradient that it no longer needs.
    upstream: list[Array | None] = [g]
    del g
    for i in reversed(range(len(chain))):
        link, (shape, cache) = chain[i], caches[i]
        if link.backward is None:
            break
        try:
            found = link.backward(cache, upstream.pop())
            if not isinstance(found, tuple) or len(found) != 2:
                raise _no_pair(found, "backward", "dL/dx and a tuple of the parameters' gradients")
            back, own = found
            del found
            if link.wants_input and getattr(back, "shape", None) != shape:
                raise _wrong_shape(link, "for its input", back, shape)
            if link.wants_parameters:
                gradients[i] = _checked(link, own)
        except Exception as error:
            error.add_note(f"In layers[{link.number}] ({type(link.layer).__name__}).backward.")
            raise
        upstream.append(back)
        del back
    return (upstream.pop() if not chain or chain[0].wants_input else None), gradients


def _no_pair(result: Any, method: str, expected: str) -> TypeError:
    """Return the error for a method whose result is not a tuple of two.

    An array of two rows would be unpacked as well.
    """
    kind = type(result).__name__
    what = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {kind}"
    return TypeError(f"{method} returned {what}, but a tuple of two is expected: {expected}.")


def _checked(link: Link, gradients: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return a layer's gradients, copied into the buffers that it did not write itself.

    Raises ValueError unless each has its parameter's shape.
    """
    layer, parameters, buffers = link.layer, link.parameters, link.buffers
    if gradients is buffers:
        return gradients
    if len(gradients) != len(parameters):
        raise ValueError(
            f"{type(layer).__name__}.backward returned {len(gradients)} gradients, but one for "
            f"each of its parameters {tuple(layer.names)} is expected."
        )
    if buffers is not None and all(map(operator.is_, gradients, buffers)):
        return tuple(buffers)
    results = []
    for i, gradient in enumerate(gradients):
        buffer, shape = None if buffers is None else buffers[i], parameters[i].shape
        if gradient is not buffer:
            if getattr(gradient, "shape", None) != shape:
                raise _wrong_shape(link, f"for {layer.names[i]!r}", gradient, shape)
            if buffer is not None:
                buffer[...] = gradient
        results.append(gradient if buffer is None else buffer)
    return tuple(results)


def _wrong_shape(link: Link, role: str, gradient: Any, shape: tuple[int, ...]) -> ValueError:
    """Return the error for a gradient without its shape: another one could broadcast."""
    found = getattr(gradient, "shape", None)
    return ValueError(
        f"{type(link.layer).__name__}.backward returned a gradient of shape "
        f"{found and tuple(found)} {role}, but {tuple(shape)} is expected."
    )


def is_random(layer: Layer) -> bool:
    """Whether a layer's forward depends on its key: yes, unless its ``is_random`` is False."""
    return bool(getattr(layer, "is_random", True))


def defines(layer: Layer, name: str) -> bool:
    """Whether a layer's own class has a method or an attribute that says how it runs.

    A class that inherits it may have other rules.
    """
    return name in vars(type(layer))


def require_layer(layer: object, name: str) -> None:
    """Raise TypeError unless an object has the methods of a layer."""
    methods = ("initialize", "forward", "backward")
    if isinstance(layer, type) or not all(hasattr(layer, method) for method in methods):
        raise TypeError(
            f"{name} is {layer!r}, which is not a layer: an object with {', '.join(methods)} is "
            "expected, such as bx.Dense(2, 1). bx.Activate makes a layer of an activation."
        )


def takes_codes(layer: Layer) -> bool:
    """Whether a layer takes codes of categories in some columns of x."""
    return any(getattr(layer, "codes", ()))


def returns_codes(layer: Layer) -> bool:
    """Whether a layer may return codes of categories: yes, unless ``returns_codes`` is False."""
    return bool(getattr(layer, "returns_codes", True))


def every_layer(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield layers, and those that they are made of."""
    for layer in layers:
        yield layer
        yield from every_layer(layers_in(layer))


def layers_in(layer: Layer) -> Sequence[Layer]:
    """Return the layers that a layer is made of, such as those of a ``Chain``; none of others."""
    inner: Sequence[Layer] = getattr(layer, "layers", ())
    return inner


def differentiates(layer: Layer) -> bool:
    """Whether a layer, or one in it, returns derivatives by its input."""
    return getattr(layer, "differentiates", False) or any(map(differentiates, layers_in(layer)))


def goes_back_once(layer: Layer) -> bool:
    """Whether a layer, or one in it, has first derivatives alone on the way back."""
    return getattr(layer, "goes_back_once", False) or any(map(goes_back_once, layers_in(layer)))


def check_chain(layers: Sequence[Layer]) -> tuple[int | None, int | None]:
    """Return the numbers of features that a chain takes and gives; None if no layer defines one.

    Raises ValueError if a layer takes another number than the layer before it gives, or takes codes
    behind a layer that returns none.
    """
    for i, (before, layer) in enumerate(itertools.pairwise(layers)):
        if takes_codes(layer) and not returns_codes(before):
            raise ValueError(
                f"layer {i + 1} ({type(layer).__name__}) takes codes of categories, but layer {i} "
                f"({type(before).__name__}) returns other numbers. Make it the first layer; "
                "bx.Columns has other layers beside it, on columns of their own."
            )
    widths = [
        (i, getattr(layer, "n_in", None), getattr(layer, "n_out", None))
        for i, layer in enumerate(layers)
        if not getattr(layer, "keeps_width", False)
    ]
    for (_, _, n_out), (i, n_in, _) in itertools.pairwise(widths):
        if None not in (n_out, n_in) and n_out != n_in:
            raise ValueError(
                f"layer {i} ({type(layers[i]).__name__}) takes {n_in} features, but the layers "
                f"before it give {n_out}."
            )
    return (widths[0][1], widths[-1][2]) if widths else (None, None)
