"""Predictions of a stack as one ensemble: mean and spread, and a classifier's uncertainty.

The members are all networks of the stack ``(*stack, P)``, with equal weights. They compute
``batch_size`` rows at a time, by default 4,096 divided by their number, but at least 32: only the
result grows with the data. A member that diverged makes the result NaN: leave it out by
``theta[finite]``.
"""

from collections.abc import Callable
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
from backprop_xp.networks.activations import sigmoid
from backprop_xp.networks.inputs import row_slices, rows_at_once
from backprop_xp.networks.losses import TO_PROBABILITIES
from backprop_xp.networks.network import Network

# Products with fewer rows take longer to read the weights than to multiply.
_ROWS = 32


class Prediction(NamedTuple):
    """The mean of the members' predictions, and their standard deviation: each ``(batch, n_out)``.

    The deviation divides by the number of members: it is 0 for a single one.
    """

    mean: Array
    standard_deviation: Array


class Uncertainty(NamedTuple):
    """The uncertainty of each row's class in nats, ``(batch,)``: ``total`` is the sum of the parts.

    - ``total`` is the entropy of the mean of the members' probabilities.
    - ``expected`` is the mean of the members' entropies: that of the data (aleatoric).
    - ``mutual_information`` of class and member is their disagreement (epistemic), at least 0.

    With several sigmoid outputs, labels of which each is judged by itself, each is ``(batch,
    n_out)``.
    """

    total: Array
    expected: Array
    mutual_information: Array


def predict(
    network: Network, theta: Array, x: Array, *, batch_size: int | None = None
) -> Prediction:
    """Return the mean and the standard deviation over the members of ``network.predict``.

    ``x`` is ``(batch, n_in)``. An array of NumPy, ``numpy.memmap`` too, is moved to theta's device
    and cast to its dtype batch by batch. The mean of a classifier has the ensemble's probabilities
    (Lakshminarayanan et al. 2017, section 2.4).

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> theta = bx.asarray([[1.0, 0.0], [3.0, 0.0]])    # two members: x and 3 x
    >>> bx.ensemble.predict(network, theta, [[1.0], [2.0]])
    Prediction(mean=array([[2.],
           [4.]]), standard_deviation=array([[1.],
           [2.]]))
    """
    link = network.loss_function.link

    def moments(outputs: Array) -> tuple[Array, Array]:
        xp, values = array_namespace(outputs), link(outputs)
        return xp.mean(values, axis=-3), xp.std(values, axis=-3)

    return Prediction(*_by_batches(moments, network, theta, x, batch_size))


def uncertainty(
    network: Network, theta: Array, x: Array, *, batch_size: int | None = None
) -> Uncertainty:
    """Return the uncertainty of a classifier's predictions, and its two parts.

    The decomposition is that of Depeweg et al. 2018, equation 2. ``x`` is that of ``predict``. The
    network has one sigmoid output for two classes, or a softmax. Raises ValueError for a loss
    without probabilities.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1], loss="binary_cross_entropy")
    >>> theta = bx.asarray([[50.0, 0.0], [-50.0, 0.0]])    # sure members that disagree at x = 1
    >>> found = bx.ensemble.uncertainty(network, theta, [[0.0], [1.0]])
    >>> found.total.round(3), found.mutual_information.round(3)
    (array([0.693, 0.693]), array([0.   , 0.693]))
    """
    link = network.loss_function.link
    if link not in TO_PROBABILITIES:
        raise ValueError(
            f"uncertainty needs probabilities, but the predictions of "
            f"{argument_text(network.loss_function)} are none: train with binary_cross_entropy or "
            "categorical_cross_entropy, or take the standard deviation of bx.ensemble.predict."
        )

    def entropies(outputs: Array) -> tuple[Array, Array]:
        """Return the members' mean entropy, and the mutual information, ``(rows, labels)``."""
        # p is (members, rows, labels, classes): a softmax has one label of all classes.
        if link is sigmoid.value or outputs.shape[-1] == 1:
            # 1 - p would round a small probability of the other class to 0.
            p = array_namespace(outputs).stack([link(-outputs), link(outputs)], axis=-1)
        else:
            p = link(outputs)[..., None, :]
        xp = array_namespace(p)
        entropy = -xp.sum(p * xp.log(xp.maximum(p, _tiny(p))), axis=-1)
        # The members' mean divergence from their mean: the difference of two entropies would lose
        # the digits of a small one.
        divergence = _divergence(p, xp.mean(p, axis=-4, keepdims=True))
        return xp.mean(entropy, axis=-3), xp.maximum(xp.mean(divergence, axis=-3), 0.0)

    expected, information = _by_batches(entropies, network, theta, x, batch_size)
    if expected.shape[-1] == 1:
        expected, information = expected[..., 0], information[..., 0]
    return Uncertainty(expected + information, expected, information)


def _by_batches(
    function: Callable[[Array], tuple[Array, ...]],
    network: Network,
    theta: Array,
    x: Any,
    batch_size: int | None,
) -> list[Array]:
    """Return the results for all rows of a function of raw outputs, ``(members, rows, n_out)``."""
    xp = require_floating(theta, "theta")
    members = xp.reshape(theta, (-1, theta.shape[-1]))
    size = max(_ROWS, rows_at_once(members))
    if batch_size is not None:
        size = integer(batch_size, "batch_size")
    home = owner(x)
    x = plain_numbers(x, "x") if home is None else x
    if len(x.shape) != 2 or not x.shape[0]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but (batch, n_in) is expected: rows that all members "
            "share."
        )
    found = []
    for rows in row_slices(x.shape[0], size):
        part = x[rows, :]
        if home is None or home.name == "numpy":
            part = to_device_of(theta, plain_numbers(part, "x"), theta.dtype)
        found.append(function(network.forward(members, part)))
    return [xp.concat(parts, axis=-2) for parts in zip(*found, strict=True)]


def _divergence(p: Array, q: Array) -> Array:
    """Return the Kullback-Leibler divergence of p from q, probabilities along the last axis."""
    xp, difference = array_namespace(q), p - q
    # p log(p / q) - (p - q): the differences sum to 0, and each term is at least 0. Where p is 0
    # the logarithm is cut off, and the term is q.
    relative = xp.maximum(difference / xp.maximum(q, _tiny(q)), float(xp.finfo(q.dtype).eps) - 1.0)
    return xp.sum(p * xp.log1p(relative) - difference, axis=-1)


def _tiny(p: Array) -> float:
    return float(array_namespace(p).finfo(p.dtype).smallest_normal)
