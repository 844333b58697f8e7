"""The layer whose outputs have given values where a factor is 0, such as at a boundary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from backprop_xp.backends import Array, array_namespace, device_of, get_backend
from backprop_xp.checks import sequence
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain.containers import Chain
from backprop_xp.networks.chain.propagation import Cache, Gradients, Layer, Parameters
from backprop_xp.networks.jets.errors import NoDerivativeError
from backprop_xp.networks.jets.jet import Jet
from backprop_xp.networks.jets.passes import seeded, unit_directions, whole
from backprop_xp.networks.numbers.random_bits import Key


@dataclass(frozen=True, init=False)
class Constrained(Chain):
    """``value(x) + factor(x) * u(x)`` of layers u: equal to ``value`` where ``factor`` is 0.

    Boundary conditions thus hold exactly, and an equation of this layer needs no rows for them.
    Both functions take x ``(..., batch, n_in)`` and return ``(..., batch, n_out)``, ``(..., batch,
    1)`` or a number, by functions of ``array_namespace(x)``; ``value`` None is 0. The parameters
    are those of the layers. Raises ValueError for a function that mixes rows of x.

    >>> import backprop_xp as bx
    >>> layers = bx.mlp([2, 8, 1], hidden="tanh").layers
    >>> ends = lambda x: x[..., 1:] * (1.0 - x[..., 1:])  # u(t, 0) = u(t, 1) = 0
    >>> u = bx.Constrained(layers, ends)
    >>> heat = bx.Equation([u], lambda s: s.u_t - s.u_xx, "tx")
    >>> theta = heat.network.initialize(seed=0)
    >>> at_ends = heat.network.predict(theta, [[0.3, 0.0], [0.7, 1.0]])
    >>> bool((at_ends == 0.0).all())
    True
    """

    goes_back_once: ClassVar[bool] = True
    factor: Callable[[Any], Any]
    value: Callable[[Any], Any] | None

    __repr__ = repr_of

    def __init__(
        self,
        layers: Sequence[Layer],
        factor: Callable[[Any], Any],
        value: Callable[[Any], Any] | None = None,
    ) -> None:
        layers = tuple(sequence(layers, "layers", 'bx.mlp([2, 16, 1], hidden="tanh").layers'))
        for name, function in {"factor": factor, "value": value or factor}.items():
            if not callable(function):
                raise TypeError(f"{name} must be a function of x, not {function!r}.")
        super().__init__(*layers)
        if self.n_in is not None:
            _refuse_mixed_rows("factor", factor, self.n_in)
            _refuse_mixed_rows("value", value or factor, self.n_in)
        vars(self).update(factor=factor, value=value)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return ``value(x) + factor(x) * u(x)``."""
        u, caches = super().forward(parameters, x, rng)
        factor = self.factor(x)
        y = factor * u if self.value is None else self.value(x) + factor * u
        if y.shape != u.shape:
            raise ValueError(
                f"factor and value of shape {tuple(u.shape)} or with one column are expected, as "
                f"the layers return, but they make {tuple(y.shape)}."
            )
        return y, (x, u, factor, caches)

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return dL/dx, through the layers and both functions, and the layers' gradients."""
        x, u, factor, caches = cache
        back, gradients = super().backward(parameters, caches, g * factor, **options)
        return (None if back is None else back + self._through_functions(x, u, g)), gradients

    def _through_functions(self, x: Array, u: Array, g: Array) -> Array:
        """Return dL/dx through ``factor`` and ``value`` alone."""
        if isinstance(x, Jet):
            raise NoDerivativeError(
                "An Equation or Derivatives of Constrained has no derivatives by x: its functions "
                "have first derivatives alone on the way back. The network of u alone, such as "
                "equation.network, has input_jacobian, input_hessian and "
                "bx.export_c(derivatives=True)."
            )
        xp, n = array_namespace(x), x.shape[-1]
        jet = seeded(x, unit_directions(x, range(n)), ())

        def slopes_of(function: Callable[[Any], Any]) -> Array:
            made = function(jet)
            if isinstance(made, Jet):
                return whole(made, made.first, n)
            return xp.zeros((n, *u.shape), dtype=u.dtype, device=device_of(u))

        slopes = slopes_of(self.factor) * u
        if self.value is not None:
            slopes = slopes + slopes_of(self.value)
        return xp.moveaxis(xp.sum(slopes * g, axis=-1), 0, -1)


def _refuse_mixed_rows(name: str, function: Callable[[Any], Any], n_in: int) -> None:
    """Raise ValueError if one of two rows of a function of x changes with the other row."""
    xp = get_backend("numpy").namespace()
    x = xp.reshape(xp.linspace(0.31, 0.73, 2 * n_in, device="cpu"), (2, n_in))
    is_row = xp.asarray([[[True], [False]], [[False], [True]]], device="cpu")
    # The changed row is smaller than the other one, so that an extreme of both changes too.
    changed = [(i, xp.where(is_row[i, ...], 0.1, x)) for i in (0, 1)]
    try:
        with xp.errstate(all="ignore"):
            made = xp.asarray(function(x), device="cpu")
            others = [(i, xp.asarray(function(y), device="cpu")) for i, y in changed]
    except Exception:  # of a function for another library's arrays, which cannot be tried
        return
    for i, other in others:
        has_rows = made.ndim > 1 and made.shape[-2] == 2
        before, after = (v[..., 1 - i, :] if has_rows else v for v in (made, other))
        if xp.any((before != after) & (before == before)):  # not a NaN
            raise ValueError(
                f"{name} must make each row of that row of x alone and keep its axis: sums and "
                "means over the rows of x are not possible, since a training takes some rows at a "
                "time."
            )
