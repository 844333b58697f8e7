"""Losses: each is a value, its derivatives, and the inverse link, from outputs to predictions.

``o`` are the network's raw outputs, ``(..., batch, n_out)``, and ``t`` the targets, ``(..., batch,
n_out)`` but for losses that have several outputs for each target. A value is ``(..., batch)``, one
per sample: the *mean* over the outputs, but for the losses of several classes the *sum* over the
classes. The gradient belongs to each sample's own loss; the network takes the mean over the batch.
The formulas are in ``rules``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from backprop_xp.backends import Array, array_namespace, columns_of
from backprop_xp.checks import choose, integer, real
from backprop_xp.display.reprs import (
    argument_text,
    entry_of,
    register_table,
    remember_call,
    repr_of,
)
from backprop_xp.networks.chain.propagation import Layer
from backprop_xp.networks.layers.activations import identity, sigmoid, softmax
from backprop_xp.networks.layers.core import Activate, Dense, Dropout
from backprop_xp.networks.losses import rules
from backprop_xp.networks.losses.rules import Curvature, OutputRule, Rule
from backprop_xp.networks.numbers.partial import WithLast


@dataclass(frozen=True)
class Loss:
    """``value(outputs, targets)``, its derivatives, and ``inverse_link(outputs)``.

    ``value`` returns ``(..., batch)``, ``gradient`` its derivative by the outputs, ``(..., batch,
    n_out)``, and ``inverse_link`` the predictions, ``(..., batch, n_out)``, made from the outputs:
    what is called so in generalized linear models.
    ``targets`` are the smallest and the largest valid target, ``least_outputs`` is the smallest
    valid number of outputs: training refuses others. With ``labels`` a network also takes integer
    class labels as targets, and makes them one-hot. With ``outputs_per_target`` k the targets have
    ``n_out / k`` columns, and ``point`` is the number, from 0, of the block of predictions that the
    metrics of numbers compare with them, None if there is none.

    ``curvature(outputs, targets)`` is what the Gauss-Newton matrix needs: the second derivative by
    the outputs, ``(..., batch, n_out)`` for each output alone or ``(..., batch, n_out, n_out)``.
    It must be positive semidefinite. For a loss whose second derivative vanishes it may be the
    weight W of ``gradient = W (outputs - targets)`` (Holland and Welsch 1977). None if the loss has
    neither.

    >>> import backprop_xp as bx
    >>> from backprop_xp.backends import array_namespace
    >>> quartic = bx.Loss(
    ...     value=lambda o, t: array_namespace(o).sum((o - t) ** 4, axis=-1),
    ...     gradient=lambda o, t: 4.0 * (o - t) ** 3,
    ...     curvature=lambda o, t: 12.0 * (o - t) ** 2,
    ... )
    >>> bx.check_loss(quartic, [[0.3, -2.0]], [[0.0, 1.0]]).verdict
    'pass'
    """

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    inverse_link: Callable[[Array], Array] = identity.value
    targets: tuple[float, float] = (-math.inf, math.inf)
    least_outputs: int = 1
    labels: bool = False
    outputs_per_target: int = 1
    point: int | None = None
    curvature: Curvature | None = None

    __repr__ = repr_of

    def __post_init__(self) -> None:
        low, high = self.targets
        vars(self).update(targets=(low, high))  # a list has no hash
        last = self.outputs_per_target - 1
        if self.point is not None and integer(self.point, "point", at_least=0) > last:
            raise ValueError(
                f"point is {self.point}, but outputs_per_target={last + 1}: blocks are numbered "
                f"from 0, the last is {last}."
            )


@dataclass(frozen=True)
class _Part:
    """The value, or the gradient, that a rule yields."""

    rule: Rule
    name: Literal["value", "gradient"]

    def __call__(self, o: Array, t: Array) -> Array:
        parts = iter(self.rule(o, t, 1.0))
        value = next(parts)
        return value if self.name == "value" else next(parts)

    def __repr__(self) -> str:
        return f"{argument_text(self.rule)}.{self.name}"


@entry_of("losses")
def over_outputs(
    each: OutputRule, blocks: int = 1, *, is_curved: bool = False, **more: Any
) -> Loss:
    """Return a loss that treats each output separately and takes the mean over the outputs.

    ``each(outputs, targets)`` returns or yields two arrays ``(..., batch, n_out)``: its values and
    their derivatives. With ``is_curved`` the third is its curvature, as that of ``Loss``. With
    several ``blocks`` of outputs, each as wide as the targets, it is ``each(first, second, ...,
    targets)``, and yields a derivative by each block. ``more`` are the ``inverse_link`` and other
    arguments of ``Loss``.
    """
    rule = WithLast(rules.mean_over_outputs, (each, blocks))
    if is_curved:
        if blocks > 1:
            raise ValueError(f"is_curved=True needs blocks=1, not {blocks}: give curvature=.")
        more["curvature"] = WithLast(rules.mean_curvature, (each,))
    return loss_of_rule(
        remember_call(rule, over_outputs, each, blocks), outputs_per_target=blocks, **more
    )


def loss_of_rule(rule: Rule, **more: Any) -> Loss:
    """Return the loss of a rule; ``more`` are ``inverse_link`` and other arguments of ``Loss``."""
    return Loss(_Part(rule, "value"), _Part(rule, "gradient"), **more)


def sample_losses(loss: Loss, o: Array, t: Array) -> Array:
    """Return a loss's value, checked to be one number per sample."""
    value = loss.value(o, t)
    if getattr(value, "shape", None) != o.shape[:-1]:
        raise _wrong_shape(loss, "value", value, o.shape[:-1])
    return value


def value_and_gradient(loss: Loss, o: Array, t: Array, share: Array) -> tuple[Array, Array]:
    """Return a loss's value, and its gradient times each sample's share, a number or an array."""
    value, gradient = loss.value, loss.gradient
    if isinstance(value, _Part) and isinstance(gradient, _Part) and value.rule is gradient.rule:
        each, g = value.rule(o, t, share)
    else:
        each, g = value(o, t), gradient(o, t)
        # Its product with the share could have the outputs' shape.
        g = g * share if getattr(g, "shape", None) == o.shape else g
    if getattr(each, "shape", None) != o.shape[:-1]:
        raise _wrong_shape(loss, "value", each, o.shape[:-1])
    if getattr(g, "shape", None) != o.shape:
        raise _wrong_shape(loss, "gradient", g, o.shape)
    return each, g


def curvature_of(loss: Loss, o: Array, t: Array) -> Array:
    """Return a loss's curvature, ``(..., batch, n_out)`` or ``(..., batch, n_out, n_out)``."""
    if loss.curvature is None:
        raise ValueError(
            f"{argument_text(loss)} has no curvature, which the Gauss-Newton matrix needs: take "
            "another loss, such as huber for mean_absolute_error, or an optimizer that needs only "
            "the gradient, such as bx.Adam(). A loss of your own has it by bx.Loss(curvature=...)."
        )
    curvature, shapes = loss.curvature(o, t), (o.shape, (*o.shape, o.shape[-1]))
    if getattr(curvature, "shape", None) not in shapes:
        raise _wrong_shape(loss, "curvature", curvature, *shapes)
    return curvature


def point_of(loss: Loss, predictions: Array) -> Array:
    """Return the predictions that are compared with targets: all, or the means or medians."""
    count, n_out = loss.outputs_per_target, predictions.shape[-1]
    if count == 1:
        return predictions
    if loss.point is None:
        raise ValueError(
            f"{argument_text(loss)} predicts {count} numbers for each target, none of which is to "
            "be compared with it. Give quantile the level 0.5, the median; give a loss of your own "
            "point=, the number of the block of outputs; or pass a metric of your own."
        )
    return columns_of(predictions, [n_out // count] * count)[loss.point]


def _wrong_shape(loss: Loss, part: str, array: Array, *shapes: tuple[int, ...]) -> ValueError:
    """Return the error for a part of a loss without one of its shapes: it could broadcast."""
    found = getattr(array, "shape", None)
    return ValueError(
        f"The {part} of {argument_text(loss)} has shape {tuple(found or ())}, but "
        f"{' or '.join(str(tuple(shape)) for shape in shapes)} is expected: a loss's value is "
        "one number per sample, (..., batch), its gradient one for each output, (..., batch, "
        "n_out)."
    )


@entry_of("losses")
def huber_with(delta: float) -> Loss:
    """Return half the square of a residual up to ``delta``, and a line with that slope beyond it.

    Huber 1964, in PyTorch's form: for a large ``delta`` it is ``half_squared_error``.
    """
    delta = real(delta, "delta", above=0.0)
    rule = WithLast(rules.huber, (delta,))
    return remember_call(over_outputs(rule, is_curved=True), huber_with, delta)


@entry_of("losses")
def quantile(*levels: float) -> Loss:
    """Return the pinball loss of one or several quantiles (Koenker and Bassett 1978).

    At the level q it is ``q (t - o)`` above the output and ``(1 - q) (o - t)`` below it: least
    where a share q of the targets lies below. For n targets and k levels a network has ``k n``
    outputs: n of the first level, n of the second, and so on. The loss is their mean. Quantiles of
    separate levels may cross. The metrics ``mae``, ``r2`` and ``rmse`` take the level 0.5.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([4, 16, 3], loss=bx.losses.quantile(0.1, 0.5, 0.9))  # of one target
    """
    if not levels:
        raise ValueError("quantile needs at least one level, such as quantile(0.1, 0.5, 0.9).")
    checked = tuple(
        real(level, f"levels[{i}]", above=0.0, below=1.0) for i, level in enumerate(levels)
    )
    median = checked.index(0.5) if 0.5 in checked else None
    rule = WithLast(rules.quantiles, (checked,))
    loss = over_outputs(rule, blocks=len(checked), point=median)
    return remember_call(loss, quantile, *checked)


@entry_of("losses")
def tweedie(power: float = 1.5) -> Loss:
    """Return Tweedie's negative log-likelihood, for targets that are 0 or positive numbers.

    The mean is exp(o), the inverse link; the variance grows with the mean to the ``power``, from 1
    (Poisson) to 2 (gamma, whose targets are above 0). Between them it is the likelihood of a sum of
    a Poisson number of gamma variables (Jorgensen 1987). Terms of the targets alone are left out,
    so that the loss of exp(o) = 1 is 0.
    """
    power = real(power, "power", low=1.0, high=2.0)
    # Gamma's likelihood has no maximum for a target of 0.
    least = 0.0 if power < 2.0 else rules.TINY
    rule = WithLast(rules.tweedie, (power,))
    loss = over_outputs(rule, is_curved=True, inverse_link=rules.exp, targets=(least, math.inf))
    return remember_call(loss, tweedie, power)


@entry_of("losses")
def focal(gamma: float = 2.0) -> Loss:
    """Return cross-entropy with terms multiplied by ``(1 - p)**gamma``: Lin et al. 2017, eq. 4.

    p is the probability of the target's class. One output is the logit of class 1 (targets from 0
    to 1, predictions by the sigmoid). Several outputs are the logits of as many classes (labels or
    one-hot targets, predictions by the softmax). For the paper's alpha use ``class_weight={0: 1 -
    alpha, 1: alpha}``.
    """
    gamma = real(gamma, "gamma", low=0.0)
    both = WithLast(rules.binary_focal, (gamma,)), WithLast(rules.categorical_focal, (gamma,))
    rule = WithLast(rules.one_or_several, both)
    loss = loss_of_rule(rule, inverse_link=_probabilities, targets=(0.0, 1.0), labels=True)
    return remember_call(loss, focal, gamma)


@entry_of("losses")
def smoothed(loss: "str | Loss", smoothing: float) -> Loss:
    """Return a loss of classes with label smoothing (Szegedy et al. 2016, section 7).

    Each row's targets are multiplied by ``1 - smoothing``, and the rest is spread evenly over the
    classes: over all of them, or over 0 and 1 for a single output and ``binary_cross_entropy``.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([4, 16, 3], loss=bx.losses.smoothed("categorical_cross_entropy", 0.1))
    """
    loss, smoothing = choose(LOSSES, loss, "loss"), real(smoothing, "smoothing", low=0.0, below=1.0)
    if not isinstance(loss.value, _Part) or not (loss.labels or loss.targets == (0.0, 1.0)):
        raise ValueError(
            f"{argument_text(loss)} is not one of the losses of classes in bx.losses: for another "
            "loss smooth the targets themselves, (1 - smoothing) * y + smoothing / n_classes."
        )
    rule = WithLast(rules.smoothed, (loss.value.rule, smoothing, loss.labels))
    made = replace(loss, value=_Part(rule, "value"), gradient=_Part(rule, "gradient"))
    if loss.curvature is not None:
        of_targets = loss.curvature, smoothing, loss.labels
        made = replace(made, curvature=WithLast(rules.smoothed_curvature, of_targets))
    return remember_call(made, smoothed, loss, smoothing)


def _probabilities(o: Array) -> Array:
    """Return the probability of class 1 for a single logit, or that of each class."""
    return (sigmoid if o.shape[-1] == 1 else softmax).value(o)


def _margin(o: Array) -> Array:
    # On the scale of the targets: margins of -1 and 1 are the classes 0 and 1.
    return 0.5 * (1.0 + o) if o.shape[-1] == 1 else o


def _mean_and_deviation(o: Array) -> Array:
    xp, (mean, log_variance) = array_namespace(o), columns_of(o, [o.shape[-1] // 2] * 2)
    return xp.concat([mean, xp.exp(0.5 * log_variance)], axis=-1)


# The inverse links that return probabilities, and all that take raw outputs: a network must not
# apply them to probabilities.
TO_PROBABILITIES = (sigmoid.value, softmax.value, _probabilities)
INVERSE_LINKS = (*TO_PROBABILITIES, rules.exp, _margin, _mean_and_deviation)

mean_squared_error = over_outputs(rules.squared, is_curved=True)
half_squared_error = over_outputs(rules.half_squared, is_curved=True)
mean_absolute_error = over_outputs(rules.absolute)
huber = huber_with(1.0)
log_cosh = over_outputs(rules.log_cosh, is_curved=True)
poisson = over_outputs(
    rules.poisson, is_curved=True, inverse_link=rules.exp, targets=(0.0, math.inf)
)
binary_cross_entropy = over_outputs(
    rules.binary_cross_entropy, is_curved=True, inverse_link=sigmoid.value, targets=(0.0, 1.0)
)
# The softmax of one output is always 1.
categorical_cross_entropy = loss_of_rule(
    rules.categorical,
    inverse_link=softmax.value,
    targets=(0.0, math.inf),
    least_outputs=2,
    labels=True,
    curvature=rules.categorical_curvature,
)
# Half of log(variance) + (t - mean)^2 / variance. For n targets the first n outputs are the means,
# the next n the log-variances; the inverse link returns means and standard deviations.
gaussian_nll = over_outputs(rules.gaussian_nll, blocks=2, inverse_link=_mean_and_deviation, point=0)
# One output: max(0, 1 - o) for class 1, max(0, 1 + o) for class 0. Several: Crammer and Singer
# 2001, max(0, 1 + the largest other output - the output of the class).
hinge = loss_of_rule(
    WithLast(rules.one_or_several, (rules.binary_hinge, rules.categorical_hinge)),
    inverse_link=_margin,
    targets=(0.0, 1.0),
    labels=True,
)

LOSSES: dict[str, Loss] = register_table(
    "losses", {name: value for name, value in list(globals().items()) if isinstance(value, Loss)}
)


def refuse_second_inverse_link(layers: Sequence[Layer], loss: Loss) -> None:
    """Raise ValueError if the last activation makes probabilities, and the loss does too."""
    # A Dropout or an identity after the last activation does not change this.
    others = (layer for layer in reversed(layers) if not isinstance(layer, Dropout))
    last = next((layer for layer in others if layer != Activate(identity)), None)
    value = last.activation.value if isinstance(last, Dense | Activate) else identity.value
    if value is loss.inverse_link and value is not identity.value:
        fault = "the same function: it would be applied twice"
    elif value in TO_PROBABILITIES and loss.inverse_link in INVERSE_LINKS:
        fault = "another: probabilities would be taken for raw outputs"
    else:
        return
    raise ValueError(
        "The loss makes predictions of raw outputs itself, by its inverse link, and the last layer "
        f'applies {fault}. Use output="identity" (network.predict applies the inverse link).'
    )


def __dir__() -> list[str]:
    return [
        *LOSSES,
        "Loss",
        "focal",
        "huber_with",
        "over_outputs",
        "quantile",
        "smoothed",
        "tweedie",
    ]
