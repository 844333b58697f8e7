"""Predictions of a stack as one ensemble: mean and spread, and a classifier's uncertainty.

All networks of the stack ``(*stack, P)`` are members, with equal weights. A few of them at a time
compute a batch of rows: memory holds the result, and the activations of at most 4,096 rows, or of
``batch_size`` rows of one member. A member that diverged makes the result NaN: leave it out,
``theta[finite]``.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from backprop_xp.backends import (
    Array,
    array_namespace,
    owner,
    plain_numbers,
    require_floating,
    to_device_of,
)
from backprop_xp.checks import integer
from backprop_xp.display.reprs import argument_text
from backprop_xp.networks.chain.batch_rows import row_slices, rows_at_once
from backprop_xp.networks.layers.activations import sigmoid
from backprop_xp.networks.losses.loss import TO_PROBABILITIES
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import HostArray


class Prediction(NamedTuple):
    """The mean of the members' predictions, and their standard deviation: each ``(batch, n_out)``.

    The deviation divides by the number of members: it is 0 for a single one.
    """

    mean: Array
    standard_deviation: Array


class Uncertainty(NamedTuple):
    """The uncertainty of each row's class in nats, ``(batch,)``: ``total`` is the sum of the parts.

    - ``total`` is the entropy of the members' mean probabilities.
    - ``expected`` is the mean of the members' entropies: the data's part (aleatoric).
    - ``mutual_information`` of class and member is their disagreement (epistemic), at least 0.

    With several sigmoid outputs each label has its own: ``(batch, n_out)``.
    """

    total: Array
    expected: Array
    mutual_information: Array


def predict(
    network: Network, theta: Array, x: Array, *, batch_size: int | None = None
) -> Prediction:
    """Return the mean and the standard deviation over the members of ``network.predict``.

    ``x`` is ``(batch, n_in)``. NumPy's arrays, also a ``numpy.memmap``, move to theta's device and
    dtype batch by batch. A classifier's mean is the ensemble's probabilities (Lakshminarayanan et
    al. 2017, section 2.4).

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> theta = bx.asarray([[1.0, 0.0], [3.0, 0.0]])    # two members: x and 3 x
    >>> bx.ensemble.predict(network, theta, [[1.0], [2.0]])
    Prediction(mean=array([[2.],
           [4.]]), standard_deviation=array([[1.],
           [2.]]))
    """
    inverse_link = network.loss_function.inverse_link
    batches = _outputs(network, theta, x, batch_size)
    mean, variance = _joined(_moments(map(inverse_link, passes)) for passes in batches)
    return Prediction(mean, array_namespace(theta).sqrt(variance))


def uncertainty(
    network: Network, theta: Array, x: Array, *, batch_size: int | None = None
) -> Uncertainty:
    """Return the uncertainty of a classifier's predictions, and its two parts.

    The decomposition is that of Depeweg et al. 2018. ``predict`` explains ``x``. The network
    has one sigmoid output for two classes, or a softmax. Raises ValueError for a loss without
    probabilities.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1], loss="binary_cross_entropy")
    >>> theta = bx.asarray([[50.0, 0.0], [-50.0, 0.0]])    # sure members that disagree at x = 1
    >>> found = bx.ensemble.uncertainty(network, theta, [[0.0], [1.0]])
    >>> found.total.round(3), found.mutual_information.round(3)
    (array([0.693, 0.693]), array([0.   , 0.693]))
    """
    inverse_link = network.loss_function.inverse_link
    if inverse_link not in TO_PROBABILITIES:
        raise ValueError(
            f"uncertainty needs probabilities, which {argument_text(network.loss_function)} does "
            "not predict: train with a cross-entropy or bx.losses.focal(), or take the standard "
            "deviation of bx.ensemble.predict."
        )

    def probabilities(outputs: Array) -> Array:
        """Return ``(members, rows, labels, classes)``: one label of all classes for a softmax."""
        if inverse_link is sigmoid.value or outputs.shape[-1] == 1:
            # 1 - p would round a small probability of the other class to 0.
            return array_namespace(outputs).stack(
                [inverse_link(-outputs), inverse_link(outputs)], axis=-1
            )
        return inverse_link(outputs)[..., None, :]

    batches = _outputs(network, theta, x, batch_size)
    expected, information = _joined(_entropies(map(probabilities, passes)) for passes in batches)
    if expected.shape[-1] == 1:
        expected, information = expected[..., 0], information[..., 0]
    return Uncertainty(expected + information, expected, information)


def mean_slopes(network: Network, theta: Array, x: Array) -> Array:
    """Return the derivatives of the members' mean prediction by x, ``(batch, n_out, n_in)``."""
    found = network.input_jacobian(theta, x, predict=True)
    return found if len(theta.shape) == 1 else array_namespace(found).mean(found, axis=0)


def mean_curvatures(network: Network, theta: Array, x: Array) -> Array:
    """Return the second derivatives of the members' mean prediction by x.

    They are ``(batch, n_out, n_in, n_in)``.
    """
    outputs, xp = range(network.outputs_shape(theta, x)[-1]), array_namespace(theta)
    each = [network.input_hessian(theta, x, output=k, predict=True) for k in outputs]
    found = xp.stack(each, axis=-3)
    return found if len(theta.shape) == 1 else xp.mean(found, axis=0)


def _outputs(
    network: Network, theta: Array, x: Any, batch_size: int | None
) -> Iterator[Iterator[Array]]:
    """Yield for each batch the raw outputs ``(members, rows, n_out)``, of a few members each."""
    members = require_floating(theta, "theta").reshape(theta, (-1, theta.shape[-1]))
    at_once = rows_at_once(members[0, :])
    size = at_once if batch_size is None else integer(batch_size, "batch_size")
    x = plain_numbers(x, "x") if owner(x) is None else x
    if len(x.shape) != 2 or not x.shape[0]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but (batch, n_in) is expected: rows that all members "
            "share."
        )
    for rows in row_slices(x.shape[0], size):
        part = x[rows, :]
        if isinstance(part, HostArray):
            part = to_device_of(theta, plain_numbers(part, "x"), theta.dtype)
        some = row_slices(members.shape[0], max(1, at_once // part.shape[0]))
        yield (network.forward(members[each, :], part) for each in some)


def _joined(batches: Iterable[tuple[Array, Array]]) -> Iterator[Array]:
    """Yield each statistic of all rows, from those of each batch."""
    for parts in zip(*batches, strict=True):
        yield array_namespace(parts[0]).concat(parts, axis=-2)


def _moments(passes: Iterator[Array]) -> tuple[Array, Array]:
    """Return the mean and the variance over members, from passes ``(some members, ...)``.

    Chan, Golub and LeVeque 1979: each pass is added by its own mean, so that nothing cancels.
    """
    count, mean, squares = 0, 0.0, 0.0
    for values in passes:
        xp, some = array_namespace(values), values.shape[0]
        own = xp.mean(values, axis=-3)
        shift, centred = own - mean, values - own
        count += some
        mean = mean + shift * (some / count)
        squares = squares + xp.sum(centred * centred, axis=-3)
        squares = squares + shift * (shift * ((count - some) * some / count))
    return mean, squares / count


def _entropies(passes: Iterator[Array]) -> tuple[Array, Array]:
    """Return the members' mean entropy, and the mutual information, ``(rows, labels)``.

    The mutual information is the members' mean divergence from their mean. It is updated as a
    variance is: the difference of two entropies would lose the digits of a small one.
    """
    count, mean, entropy, divergence = 0, 0.0, 0.0, 0.0
    for p in passes:
        xp, some = array_namespace(p), p.shape[0]
        own = xp.mean(p, axis=-4)
        merged = mean + (own - mean) * (some / (count + some))
        divergence = divergence + xp.sum(_divergence(p, own), axis=-3)
        divergence = divergence + some * _divergence(own, merged)
        if count:
            divergence = divergence + count * _divergence(mean, merged)
        entropy = entropy - xp.sum(p * xp.log(xp.maximum(p, _tiny(p))), axis=(-4, -1))
        count, mean = count + some, merged
    return entropy / count, xp.maximum(divergence / count, 0.0)


def _divergence(p: Array, q: Array) -> Array:
    """Return the Kullback-Leibler divergence of p from q, probabilities along the last axis."""
    xp, difference = array_namespace(q), p - q
    # p log(p / q) - (p - q): the differences sum to 0, and each term is at least 0. Where p is 0
    # the logarithm is cut off, and the term is q.
    relative = xp.maximum(difference / xp.maximum(q, _tiny(q)), float(xp.finfo(q.dtype).eps) - 1.0)
    return xp.sum(p * xp.log1p(relative) - difference, axis=-1)


def _tiny(p: Array) -> float:
    return float(array_namespace(p).finfo(p.dtype).smallest_normal)


def __dir__() -> list[str]:
    return ["Prediction", "Uncertainty", "predict", "uncertainty"]
