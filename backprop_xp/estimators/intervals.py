"""Prediction intervals of a regressor: from the errors of left-out rows, or from the curvature."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.special import stdtrit

from backprop_xp.backends import Array, array_namespace, gather, to_device_of, to_host
from backprop_xp.estimators.folds import Folds
from backprop_xp.estimators.minimization import Minimization
from backprop_xp.estimators.parameters import Model
from backprop_xp.estimators.samples import Samples
from backprop_xp.networks.chain.batch_rows import row_slices
from backprop_xp.networks.derivatives.row_jacobians import outputs_and_jacobian
from backprop_xp.networks.network import Network

# So many numbers of a block of rows are computed at once.
_NUMBERS_AT_ONCE = 2**22


class Interval(Protocol):
    """What ``fit`` keeps for ``predict_interval``, as arrays of NumPy."""

    def bounds(self, network: Network, theta: Array, x: Array, coverage: float) -> Sequence[Array]:
        """Return the lower and upper bounds for rows of x, each ``(batch, n_outputs)``."""

    def in_units(self, outputs: np.ndarray, theta: np.ndarray) -> "Interval":
        """Return the interval of outputs and of a theta that are multiplied by these units."""


class Conformal(NamedTuple):
    """Each row's error by the networks that have not seen it: CV+ of Barber et al. 2021.

    ``thetas`` ``(folds, members, P)``, ``folds`` ``(batch,)``, ``errors`` ``(batch, n_outputs)``.
    Vovk 2015 introduced cross-conformal prediction. Without assumptions on the network or the
    noise the coverage of new rows from the same distribution is at least
    ``1 - 2 alpha - sqrt(2 / batch)`` for ``alpha = 1 - coverage`` (theorem 4), and typically close
    to ``coverage``.
    """

    thetas: np.ndarray
    folds: np.ndarray
    errors: np.ndarray

    @classmethod
    def measured(cls, model: Model, problem: Minimization, folds: Folds) -> "Conformal":
        """Return the folds' networks with the absolute errors of their left-out rows.

        The errors are those of the values: columns of derivatives follow them in y.
        """
        (x, y, _), n = problem.samples, model.n_outputs_
        found = to_host(_mean_of_members(problem.network, folds.thetas, x))
        errors = np.abs(to_host(y) - found[folds.of_rows, np.arange(y.shape[0]), :])[:, :n]
        return cls(to_host(folds.thetas), folds.of_rows, errors)

    def in_units(self, outputs: np.ndarray, theta: np.ndarray) -> "Conformal":
        """Return the interval of outputs and of a theta that are multiplied by these units."""
        return Conformal(self.thetas * theta, self.folds, self.errors * outputs)

    def check(self, size: int, n_outputs: int) -> None:
        """Raise ValueError unless a fit may have left these arrays, as those of a file."""
        rows, folds = len(self.folds), len(self.thetas)
        _check(self, thetas=(folds, *self.thetas.shape[1:2], size), folds=(rows,))
        _check(self, errors=(rows, n_outputs))
        if self.folds.dtype.kind != "i" or not np.isin(self.folds, np.arange(folds)).all():
            raise ValueError(f"the interval's folds are not integers below {folds}.")

    def bounds(self, network: Network, theta: Array, x: Array, coverage: float) -> Sequence[Array]:
        """Return quantiles of ``f_i(x) -+ error_i`` over the rows i, by the networks of their fold.

        An interval contains the median of ``f_i(x)``. From half of the rows on, its quantiles are
        on either side of it; those of a smaller coverage may be on one side, or change places.
        Raises ValueError if there are too few rows for such a quantile.
        """
        xp, (rows, n_out) = array_namespace(theta), self.errors.shape
        # The product may be a rounding above an integer.
        rank = max(1, math.ceil(coverage * (rows + 1) - 1e-9))
        if rank > rows:
            least = math.ceil(coverage / (1.0 - coverage) - 1e-9)
            raise ValueError(
                f"coverage={coverage:g} needs the errors of at least {least} rows, but the model "
                f"was fitted to {rows}: ask for less."
            )
        thetas, errors = (to_device_of(theta, a, theta.dtype) for a in (self.thetas, self.errors))
        at, errors = to_device_of(theta, self.folds, xp.int32), errors[:, None, :]

        def of_block(part: Array) -> Sequence[Array]:
            values = gather(_mean_of_members(network, thetas, part), at, 0)
            low, high = xp.sort(values - errors, axis=0), xp.sort(values + errors, axis=0)
            lower, upper = low[rows - rank, ...], high[rank - 1, ...]
            if rank > rows // 2:
                return lower, upper
            middle = xp.sort(values, axis=0)[rows // 2, ...]
            return xp.minimum(lower, middle), xp.maximum(upper, middle)

        return _joined(of_block(part) for part in _blocks(x, rows * n_out))


class Laplace(NamedTuple):
    """The linearized network with normal noise: its weights' posterior, and the noise.

    ``factor`` F, ``(P, P)``, has ``F F^T = (J^T J + alpha diag(m))^-1``, as in MacKay 1992; m is 1
    for weights, 0 for other parameters. The prediction's variance is ``s^2 (1 + j F F^T j^T)`` with
    the derivatives j, by theta, of an output in its ``unit``, ``(n_outputs,)`` (Immer et al. 2021).
    An output's ``deviation`` s, ``(n_outputs,)``, has ``freedom`` n - gamma degrees of freedom for
    gamma effective parameters. It is exact for a network without hidden layers: the prior of a
    weight is then normal with variance ``s^2 / alpha``.
    """

    factor: np.ndarray
    deviation: np.ndarray
    freedom: np.ndarray
    unit: np.ndarray

    @classmethod
    def measured(cls, model: Model, problem: Minimization, theta: Array) -> "Laplace":
        """Return the posterior at theta; raise ValueError if the network may fit every row."""
        (x, y, _), rows = problem.samples, problem.samples.y.shape[0]
        _, matrix = problem.network.gauss_newton(theta, x, y, l2=model.alpha / rows)
        factor = _root_of_inverse(to_host(matrix)) / math.sqrt(rows)
        outputs, leverages = map(to_host, _outputs_and_leverages(problem.network, theta, x, factor))
        freedom = rows - leverages.sum(axis=0)
        if freedom.min() < 1.0:
            raise ValueError(
                f"interval='laplace' estimates the noise from the rows that are left, but the "
                f"network's effective parameters are {rows - freedom.min():.1f} and X has {rows} "
                "rows: raise alpha, take fewer hidden units, or interval='conformal'."
            )
        squares = np.sum((to_host(y) - outputs) ** 2, axis=0)
        return cls(factor, np.sqrt(squares / freedom), freedom, np.ones_like(freedom))

    def in_units(self, outputs: np.ndarray, theta: np.ndarray) -> "Laplace":
        """Return the interval of outputs and of a theta that are multiplied by these units."""
        factor, deviation = theta[:, None] * self.factor, outputs * self.deviation
        return Laplace(factor, deviation, self.freedom, outputs * self.unit)

    def check(self, size: int, n_outputs: int) -> None:
        """Raise ValueError unless a fit may have left these arrays, as those of a file."""
        of_outputs = dict.fromkeys(("deviation", "freedom", "unit"), (n_outputs,))
        _check(self, factor=(size, size), **of_outputs)

    def bounds(self, network: Network, theta: Array, x: Array, coverage: float) -> Sequence[Array]:
        """Return the quantiles of Student's t around the outputs."""
        width = stdtrit(self.freedom, 0.5 + 0.5 * coverage) * self.deviation
        outputs, leverages = _outputs_and_leverages(network, theta, x, self.factor)
        unit = to_device_of(theta, self.unit, theta.dtype)
        spread = array_namespace(theta).sqrt(1.0 + leverages / (unit * unit))
        spread = spread * to_device_of(theta, width, theta.dtype)
        return outputs - spread, outputs + spread


INTERVALS: dict[str, type[Any]] = {"conformal": Conformal, "laplace": Laplace}


def check_interval(model: Model, samples: Samples, *, has_slopes: bool) -> None:
    """Raise ValueError if the samples or the other parameters leave no interval of this kind."""
    if model._interval_kind is None:
        return
    if samples.sample_weight is not None:
        raise ValueError(
            "interval expects equal rows, but there is a sample_weight: leave one of them out."
        )
    if model._interval_kind == "laplace":
        if has_slopes:
            raise ValueError(
                "interval='laplace' assumes one variance of the noise, but the derivatives dy have "
                "another than y: interval='conformal' takes dy."
            )
        expected = {"loss": "squared_error", "n_members": 1}
        for name, value in expected.items():
            if getattr(model, name) != value:
                raise ValueError(
                    f"interval='laplace' needs {name}={value!r}, not {getattr(model, name)!r}: "
                    "interval='conformal' takes any."
                )


def measured(
    model: Model, problem: Minimization, theta: Array, folds: Folds | None
) -> Interval | None:
    """Return what the parameter ``interval`` asks for."""
    if model._interval_kind == "conformal" and folds is not None:
        return Conformal.measured(model, problem, folds)
    return None if model._interval_kind is None else Laplace.measured(model, problem, theta)


def _check(interval: Any, **shapes: tuple[int, ...]) -> None:
    """Raise ValueError if arrays do not have these shapes."""
    for name, shape in shapes.items():
        found = getattr(interval, name).shape
        if found != shape:
            raise ValueError(f"the interval's {name} has shape {found}, not {shape}.")


def _mean_of_members(network: Network, thetas: Array, x: Array) -> Array:
    """Return the predictions of each fold, ``(folds, batch, n_outputs)``."""
    return array_namespace(thetas).mean(network.predict(thetas, x), axis=-3)


def _outputs_and_leverages(
    network: Network, theta: Array, x: Array, factor: np.ndarray
) -> Sequence[Array]:
    """Return the outputs, and ``j F F^T j^T`` for each, ``(batch, n_outputs)``."""
    xp, root = array_namespace(theta), to_device_of(theta, factor, theta.dtype)

    def of_block(part: Array) -> Sequence[Array]:
        outputs, jacobian = outputs_and_jacobian(network.definition, theta, part)
        along = jacobian @ root
        return outputs, xp.sum(along * along, axis=-1)

    n_out = network.outputs_shape(theta, x)[-1]
    return _joined(of_block(part) for part in _blocks(x, n_out * network.size))


def _root_of_inverse(matrix: np.ndarray) -> np.ndarray:
    """Return F with ``F F^T`` the inverse; a direction without curvature has a large variance.

    The matrix is scaled to a diagonal of 1, so that the units of theta do not count.
    """
    scale = np.sqrt(np.diagonal(matrix))
    scale = np.where(scale == 0.0, 1.0, scale)
    values, vectors = np.linalg.eigh(matrix / (scale * scale[:, None]))
    least = len(matrix) * np.finfo(matrix.dtype).eps
    root: np.ndarray = vectors / np.sqrt(np.maximum(values, least)) / scale[:, None]
    return root


def _blocks(x: Array, numbers: int) -> Iterable[Array]:
    """Yield blocks of x, given the numbers that a row takes."""
    at_once = max(1, _NUMBERS_AT_ONCE // numbers)
    return (x[rows, :] for rows in row_slices(x.shape[-2], at_once))


def _joined(blocks: Iterable[Sequence[Array]]) -> Sequence[Array]:
    """Return each array of all rows, from those of each block."""
    parts = [*zip(*blocks, strict=True)]
    return [array_namespace(part[0]).concat(part, axis=-2) for part in parts]
