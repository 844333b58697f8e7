"""Weights of classes, and the weight of each row by its class.

Targets are ``(..., batch, n)``: one-hot rows or probabilities, or a single column of class 1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from backprop_xp.backends import Array, array_namespace, device_of, like, sum_at
from backprop_xp.checks import plain, real, sequence
from backprop_xp.networks.chain.batch_rows import entries_at
from backprop_xp.networks.losses.loss import Loss

ClassWeight: TypeAlias = Mapping[int, float] | Sequence[float] | Literal["balanced"]


def has_classes(loss: Loss, n: int) -> bool:
    """Whether targets of ``n`` columns are classes that exclude one another."""
    return loss.labels or (n == 1 and loss.targets == (0.0, 1.0))


def check_classes(loss: Loss, n: int) -> None:
    """Raise ValueError unless targets of ``n`` columns are such classes."""
    if not has_classes(loss, n):
        raise ValueError(
            "class_weight is for losses of classes, such as categorical_cross_entropy, or "
            "binary_cross_entropy with a single output. Weigh the rows of another by sample_weight."
        )


def weights_by_class(
    class_weight: Any,
    y: Array,
    sample_weight: Array | None,
    classes: Sequence[Any] | None = None,
    total: Callable[[Array], Array] = lambda totals: totals,
) -> Array:
    """Return the weight of each class, ``(..., classes)``, from targets.

    A mapping has the names in ``classes``, by default the numbers from 0. ``total`` adds the sums
    of rows that other processes have.

    ``"balanced"`` gives all classes the same total weight: that of the rows over the number of
    classes that occur and the class's own, as in scikit-learn.
    """
    shares = class_shares(y)
    if not isinstance(class_weight, str):
        return like(y, _numbers(class_weight, shares.shape[-1], classes), "class_weight")
    weighted = shares if sample_weight is None else shares * sample_weight[..., None]
    return _balanced(class_weight, total(array_namespace(y).sum(weighted, axis=-2)))


def weights_by_label(
    theta: Array,
    class_weight: Any,
    y: Array,
    sample_weight: Array | None,
    n: int,
    *,
    total: Callable[[Array], Array],
) -> Array:
    """Return what ``weights_by_class`` does, from labels of ``n`` classes, an integer column."""
    if not isinstance(class_weight, str):
        return like(theta, _numbers(class_weight, n, None), "class_weight")
    xp, labels, each = array_namespace(theta), y[..., 0], sample_weight
    if each is None:
        each = xp.ones(labels.shape, dtype=theta.dtype, device=device_of(theta))
    if len(labels.shape) > 1:
        each, labels = xp.broadcast_arrays(each, labels)
    return _balanced(class_weight, total(sum_at(each[..., None], labels, n)[..., 0]))


def _balanced(class_weight: str, totals: Array) -> Array:
    """Return the weights that give all classes of these total weights the same one."""
    if class_weight != "balanced":
        raise ValueError(f'class_weight must be "balanced" or numbers, not {class_weight!r}.')
    xp = array_namespace(totals)
    occurs = xp.astype(totals > 0.0, totals.dtype)
    mean = xp.sum(totals, axis=-1, keepdims=True) / xp.sum(occurs, axis=-1, keepdims=True)
    return occurs * mean / (totals + (1.0 - occurs))


def weights_of_rows(by_class: Array, y: Array, sample_weight: Array | None) -> Array:
    """Return each row's weight, ``(..., batch)``: that of its class times its own."""
    weights = array_namespace(y).sum(class_shares(y) * by_class[..., None, :], axis=-1)
    return weights if sample_weight is None else weights * sample_weight


def weights_of_labels(by_class: Array, y: Array, sample_weight: Array | None) -> Array:
    """Return what ``weights_of_rows`` does, from labels, an integer column."""
    weights = entries_at(by_class, y[..., 0])
    return weights if sample_weight is None else weights * sample_weight


def class_shares(y: Array) -> Array:
    """Return the share of each class in each row, ``(..., batch, classes)``: two for one column."""
    return y if y.shape[-1] > 1 else array_namespace(y).concat([1.0 - y, y], axis=-1)


def _numbers(class_weight: Any, count: int, classes: Sequence[Any] | None) -> list[float]:
    """Return a number for each class, 1 for a class that a mapping lacks."""
    example = '{0: 1.0, 1: 5.0}, [1.0, 5.0] or "balanced"'
    if isinstance(class_weight, Mapping):
        names, known = classes or range(count), classes or f"0 ... {count - 1}"
        unknown = [plain(name) for name in class_weight if name not in names]
        if unknown:
            raise ValueError(f"class_weight has {unknown}, but the classes are {known}.")
        values = [class_weight.get(name, 1.0) for name in names]
    else:
        values = sequence(class_weight, "class_weight", example)
    if len(values) != count:
        raise ValueError(f"class_weight has {len(values)} weights, but there are {count} classes.")
    weights = [real(value, f"class_weight[{k}]", low=0.0) for k, value in enumerate(values)]
    if not any(weights):
        raise ValueError("class_weight must not be 0 for all classes.")
    return weights
