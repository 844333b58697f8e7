"""A catalogue of common mistakes in a backward pass, planted in a hand-written MLP.

The network is plain NumPy, independent of the library. ``x (batch, n_in)`` is a layer's input,
``z = x @ weights + bias``, ``a = activation(z)``, and ``g`` the derivative of the loss with respect
to the current quantity. A mistake is the right gradient of another problem, a wrong step of the
backward pass, a wrong change of the finished gradient, or a state that lives between calls.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Parameters = dict[str, Array]  # weights0 (n_in, n_out), bias0 (n_out,), weights1, ...
Function = Callable[[Parameters], Any]


# ---- the network


class Rule(NamedTuple):
    """An activation ``a(z)`` and its slope; or a loss ``(batch, 1)`` of ``(o, t)``."""

    value: Callable[..., Array]
    slope: Callable[[Array, Array], Array]


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def leaky_relu(leak: float) -> Rule:
    def slope(z: Array, a: Any = None) -> Array:
        return leak + (1.0 - leak) * (z.real > 0.0).astype(z.real.dtype)

    return Rule(lambda z: z * slope(z), slope)


def softmax(outputs: Array, axis: int = 1) -> Array:
    e = np.exp(outputs - outputs.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def cross_entropy(outputs: Array, targets: Array) -> Array:
    shift = outputs.real.max(axis=1, keepdims=True)
    total = np.exp(outputs - shift).sum(axis=1, keepdims=True)
    return np.log(total) + shift - (targets * outputs).sum(axis=1, keepdims=True)


ACTIVATIONS = {
    "sigmoid": Rule(sigmoid, lambda z, a: a * (1.0 - a)),
    "tanh": Rule(np.tanh, lambda z, a: 1.0 - a * a),
    "relu": leaky_relu(0.0),
    "leaky_relu": leaky_relu(0.01),
    "softplus": Rule(lambda z: np.log(1.0 + np.exp(z)), lambda z, a: sigmoid(z)),
}
LOSSES = {
    "squared_error": Rule(lambda o, t: 0.5 * ((o - t) ** 2).sum(1)[:, None], lambda o, t: o - t),
    "cross_entropy": Rule(cross_entropy, lambda o, t: softmax(o) - t),
}


class Problem(NamedTuple):
    """A network and its data: everything that the loss depends on, except the parameters."""

    activation: Rule  # of the hidden layers; the outputs are logits
    loss: Rule
    x: Array  # (batch, n_in)
    targets: Array  # (batch, n_out)
    weight: Array  # of the samples, (batch, 1)
    masks: tuple[Array, ...]  # dropout's factors of each hidden layer's activations
    l2: float  # adds l2 / 2 * sum(weights**2)


class Layer(NamedTuple):
    """A layer after the forward pass; ``value`` and ``slope`` are those of its activation."""

    problem: Problem
    number: int  # from 0
    weights: Array
    bias: Array
    x: Array
    z: Array
    a: Array
    mask: Array | float
    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]


def propagate(problem: Problem, parameters: Parameters) -> list[Layer]:
    layers, x, (value, slope) = [], problem.x, problem.activation
    for i, mask in enumerate((*problem.masks, 1.0)):
        weights, bias = parameters[f"weights{i}"], parameters[f"bias{i}"]
        z = x @ weights + bias
        a = value(z) if i < len(problem.masks) else z
        layers.append(Layer(problem, i, weights, bias, x, z, a, mask, value, slope))
        x = a * mask
    return layers


def mean_loss(layers: list[Layer]) -> Any:
    problem, weight = layers[-1].problem, layers[-1].problem.weight
    data = (weight * problem.loss.value(layers[-1].z, problem.targets)).sum() / weight.sum()
    penalty = sum((layer.weights**2).sum() for layer in layers)
    return data + 0.5 * problem.l2 * penalty if problem.l2 else data


# The steps of the backward pass: from a layer's g to its gradients, and to the next layer's g.
STEPS: dict[str, Callable[[Layer, Array], Array]] = {
    "output": lambda s, g: g,
    "weights": lambda s, g: s.x.T @ g,
    "bias": lambda s, g: g.sum(axis=0),
    "inputs": lambda s, g: g @ s.weights.T,
    "activation": lambda s, g: g * s.mask * s.slope(s.z, s.a),
}


def backpropagate(layers: list[Layer], steps: dict[str, Any] = STEPS) -> Parameters:
    problem, last, gradient = layers[-1].problem, layers[-1], {}
    g = problem.loss.slope(last.z, problem.targets) * problem.weight / problem.weight.sum()
    g = steps["output"](last, g)
    for layer in reversed(layers):
        penalty = problem.l2 * layer.weights
        gradient[f"weights{layer.number}"] = steps["weights"](layer, g) + penalty
        gradient[f"bias{layer.number}"] = steps["bias"](layer, g)
        if layer.number:
            g = steps["activation"](layers[layer.number - 1], steps["inputs"](layer, g))
    return gradient


def value_of(problem: Problem) -> Function:
    return lambda parameters: mean_loss(propagate(problem, parameters))


def gradient_of(problem: Problem, steps: dict[str, Any] = STEPS) -> Function:
    return lambda parameters: backpropagate(propagate(problem, parameters), steps)


# ---- the cases


class Case(NamedTuple):
    """A network to plant a mistake in; its second layer, ``weights1``, is square."""

    activation: str
    loss: str
    sizes: tuple[int, ...]
    seed: int
    dtype: str
    steps: int = 0  # of training
    extras: tuple[str, ...] = ()


BATCHES = {(2, 3, 3, 3): 5, (3, 3, 3, 3, 2): 7}
EXTRAS = ("l2", "sample_weight", "class_weight", "dropout")  # a plain network has none of these


def draw(case: Case) -> tuple[Problem, Parameters]:
    """Return a problem and a point with nonzero biases: biases of 0 could hide a wrong rule."""
    generator = np.random.default_rng(case.seed)

    def normal(*shape: int) -> Array:
        return generator.normal(size=shape).astype(case.dtype)

    n_out, batch = case.sizes[-1], BATCHES[case.sizes]
    labels = generator.integers(n_out, size=batch)
    by_row, by_class = (generator.uniform(0.5, 2.0, n) for n in (batch, n_out))
    weight = by_row ** ("sample_weight" in case.extras)
    weight *= by_class[labels] ** ("class_weight" in case.extras)
    problem = Problem(
        ACTIVATIONS[case.activation],
        LOSSES[case.loss],
        normal(batch, case.sizes[0]),
        np.eye(n_out, dtype=case.dtype)[labels] if "entropy" in case.loss else normal(batch, n_out),
        weight[:, None].astype(case.dtype),
        tuple(np.ones((batch, n), dtype=case.dtype) for n in case.sizes[1:-1]),
        0.02 if "l2" in case.extras else 0.0,
    )
    point = {}
    for i, (n_in, n_out) in enumerate(pairwise(case.sizes)):
        point |= {f"weights{i}": normal(n_in, n_out) / n_in**0.5, f"bias{i}": 0.3 * normal(n_out)}
    if "dropout" in case.extras:
        problem = with_other_masks(problem, generator)
    return problem, trained(problem, point, case.steps)


def trained(problem: Problem, point: Parameters, steps: int) -> Parameters:
    """Return the point after some steps of Adam, with a rate that falls to 0."""
    mean, square = ({name: 0.0 * p for name, p in point.items()} for _ in range(2))
    for k in range(1, steps + 1):
        for name, g in gradient_of(problem)(point).items():
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.99 * square[name] + 0.01 * g * g
            size = np.sqrt(square[name] / (1.0 - 0.99**k)) + 1e-12
            rate = 0.05 * (1.0 - k / (steps + 1)) / (1.0 - 0.9**k)
            point = {**point, name: (point[name] - rate * mean[name] / size).astype(g.dtype)}
    return point


def with_other_masks(problem: Problem, generator: np.random.Generator) -> Problem:
    masks = ((generator.random(mask.shape) < 0.7) / 0.7 for mask in problem.masks)
    return problem._replace(masks=tuple(mask.astype(problem.x.dtype) for mask in masks))


def with_rows(problem: Problem, rows: Any) -> Problem:
    of_rows = {name: getattr(problem, name)[rows] for name in ("x", "targets", "weight")}
    return problem._replace(**of_rows, masks=tuple(mask[rows] for mask in problem.masks))


# ---- planting a mistake


class Mistake(NamedTuple):
    """A function that plants it, a word of its diagnosis if there is one, and its networks.

    ``plant`` returns the value of a problem, and the wrong gradient for a check against it.
    """

    plant: Callable[[Problem], tuple[Function, Function]]
    says: str | None = None
    extras: tuple[str, ...] = ()
    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu")
    losses: tuple[str, ...] = tuple(LOSSES)


def another(change: Callable[[Problem], Problem], *says: str, **where: Any) -> Mistake:
    """Plant the right gradient of another problem."""
    return Mistake(lambda p: (value_of(p), gradient_of(change(p))), *says, **where)


def another_loss(slope: Callable[[Array, Array], Array], *says: str, **where: Any) -> Mistake:
    return another(lambda p: p._replace(loss=Rule(p.loss.value, slope)), *says, **where)


def step(name: str, wrong: Any, *says: str, only: Any = None, **where: Any) -> Mistake:
    """Plant a wrong step of the backward pass, in all layers or in one."""

    def beside(s: Layer, g: Array) -> Array:
        return (wrong if only in (None, s.number) else STEPS[name])(s, g)

    steps = {**STEPS, name: beside}
    return Mistake(lambda p: (value_of(p), gradient_of(p, steps)), *says, **where)


def slope(change: Callable[[Layer], Array], *activations: str, **where: Any) -> Mistake:
    """Plant another derivative of the activation."""
    where |= {"activations": activations} if activations else {}
    return step("activation", lambda s, g: g * s.mask * change(s), **where)


def finish(change: Callable[[Parameters], Parameters], *says: str) -> Mistake:
    """Plant a change of the finished gradient."""
    return Mistake(lambda p: (value_of(p), lambda point: change(gradient_of(p)(point))), *says)


def every(change: Callable[[Array], Array], *says: str) -> Mistake:
    return finish(lambda gradient: {name: change(g) for name, g in gradient.items()}, *says)


def one(name: str, change: Callable[[Array], Array], *says: str) -> Mistake:
    return finish(lambda gradient: {**gradient, name: change(gradient[name])}, *says)


def drawn_anew(change: Callable[..., Problem], of: str, **where: Any) -> Mistake:
    """Draw random numbers in each call of gradient, or of value too."""

    def plant(problem: Problem) -> tuple[Function, Function]:
        generator = np.random.default_rng(1)

        def drawn(of: Callable[[Problem], Any]) -> Callable[[Parameters], Any]:
            return lambda parameters: of(change(problem, generator))(parameters)

        return drawn(value_of) if of == "both" else value_of(problem), drawn(gradient_of)

    return Mistake(plant, **where)


def remembering(gradient: Callable[..., Parameters], *says: str) -> Mistake:
    """Plant a gradient that keeps a list between calls, at first an empty one."""

    def plant(problem: Problem) -> tuple[Function, Function]:
        kept: list[Any] = []
        return value_of(problem), lambda point: gradient(problem, point, kept)

    return Mistake(plant, *says)


def elsewhere(point: Parameters) -> Parameters:
    return {name: 0.9 * p + 0.01 for name, p in point.items()}


def stale_cache(problem: Problem) -> tuple[Function, Function]:
    """Use the cache of value's last call, even if the parameters have changed."""
    kept: list[Layer] = []

    def value(parameters: Parameters) -> Any:
        layers = propagate(problem, parameters)
        # A complex point is not cached: a complex gradient would be an error.
        if not np.iscomplexobj(layers[-1].z):
            kept[:] = layers
        return mean_loss(layers)

    return value, lambda parameters: backpropagate(kept or propagate(problem, parameters))


def one_call_behind(problem: Problem, point: Parameters, kept: list[Any]) -> Parameters:
    kept += [propagate(problem, p) for p in ([point] if kept else [elsewhere(point), point])]
    return backpropagate(kept.pop(0))


def kept_in_a_buffer(decay: float, *says: str) -> Mistake:
    """Add to the gradient of the last call, and return the same arrays each time."""

    def gradient(problem: Problem, point: Parameters, kept: list[Any]) -> Parameters:
        if not kept:
            kept.append({name: np.zeros_like(p) for name, p in point.items()})
        for name, g in gradient_of(problem)(point).items():
            kept[0][name] *= decay
            kept[0][name] += g
        return kept[0]

    return remembering(gradient, *says)


def step_as_well(problem: Problem, point: Parameters, kept: list[Any]) -> Parameters:
    """Write into the parameters, and return the right gradient."""
    right = gradient_of(problem)(point)
    for name, g in right.items():
        point[name] -= 0.1 * g
    return right


# ---- the catalogue


L2, DROPOUT, WEIGHTED = ({"extras": (extra,)} for extra in ("l2", "dropout", "sample_weight"))
SQUARES, CLASSES = ({"losses": (loss,)} for loss in LOSSES)
SMOOTH = ("sigmoid", "tanh", "softplus")
TANH, SIGMOID, RELU = (ACTIVATIONS[name] for name in ("tanh", "sigmoid", "relu"))

MISTAKES = {
    # a factor
    "factor 2": every(lambda g: 2.0 * g, "factor"),
    "factor 1/2": every(lambda g: 0.5 * g, "factor"),
    "sign": every(lambda g: -g, "factor"),
    "sign lost": every(np.abs),
    "missing 1/N": step("output", lambda s, g: g * len(s.z), "factor"),
    "missing 1/N beside a penalty": step("output", lambda s, g: g * len(s.z), **L2),
    "doubled 1/N": step("output", lambda s, g: g / len(s.z), "factor"),
    "1/2 of the loss forgotten": another_loss(lambda o, t: 2.0 * (o - t), "factor", **SQUARES),
    "clipped norm": finish(
        lambda g: {
            k: g[k] * min(1.0, 0.1 / sum(np.vdot(v, v) for v in g.values()) ** 0.5) for k in g
        }
    ),
    "clipped entries": every(lambda g: np.clip(g, -0.01, 0.01)),
    "a tenth of a percent off everywhere": every(lambda g: 1.001 * g),
    "a tenth of a percent off in one tensor": one("weights1", lambda g: 1.001 * g),
    # the penalty
    "missing penalty": another(lambda p: p._replace(l2=0.0), "penalty", **L2),
    "doubled penalty": another(lambda p: p._replace(l2=2.0 * p.l2), "penalty", **L2),
    "halved penalty": another(lambda p: p._replace(l2=0.5 * p.l2), "penalty", **L2),
    "penalty's sign": another(lambda p: p._replace(l2=-p.l2), **L2),
    "penalty on biases too": step("bias", lambda s, g: g.sum(axis=0) + s.problem.l2 * s.bias, **L2),
    # rows and columns
    "transposed gradient": one("weights1", np.transpose, "transpose"),
    "W for its transpose": step("inputs", lambda s, g: g @ s.weights, only=1),
    "flattened in another order": one("weights0", lambda g: g.T.reshape(g.shape)),
    "swapped rows": one("weights1", lambda g: g[[1, 0, *range(2, len(g))]], "row"),
    "permuted rows": one("weights0", lambda g: np.roll(g, 1, axis=0), "row"),
    "permuted columns": one("weights1", lambda g: np.roll(g, 1, axis=1)),
    # the activation
    "tanh's derivative": slope(lambda s: TANH.slope(s.z, s.a), "sigmoid", "relu", "softplus"),
    "sigmoid's derivative": slope(lambda s: SIGMOID.slope(s.z, s.a), "tanh", "relu", "softplus"),
    "relu's derivative": slope(lambda s: RELU.slope(s.z, s.a), "sigmoid", "tanh", "leaky_relu"),
    "wrong leaky slope": slope(lambda s: leaky_relu(0.1).slope(s.z, s.a), "leaky_relu"),
    "derivative left out": slope(lambda s: np.ones_like(s.z)),
    "derivative taken twice": slope(lambda s: s.slope(s.z, s.a) ** 2, *SMOOTH),
    "derivative at z instead of a": slope(lambda s: s.slope(s.z, s.z), "sigmoid", "tanh"),
    "derivative at a instead of z": slope(lambda s: s.slope(s.a, s.value(s.a)), *SMOOTH),
    "derivative at the output too": step("output", lambda s, g: g * s.slope(s.z, s.value(s.z))),
    # the loss
    "softmax over the wrong axis": another_loss(lambda o, t: softmax(o, axis=0) - t, **CLASSES),
    "softmax taken twice": another_loss(lambda o, t: softmax(softmax(o)) - t, **CLASSES),
    "softmax forgotten": another_loss(lambda o, t: o - t, **CLASSES),
    "sign of the error beside a penalty": step("output", lambda s, g: -g, **L2),
    # the batch
    "mean for the sum in a bias": step("bias", lambda s, g: np.mean(g, axis=0), "mean", only=1),
    "mean for the sum in weights": step("weights", lambda s, g: s.x.T @ g / len(g), "mean", only=1),
    "one sample for the sum in biases": step("bias", lambda s, g: g[0]),
    "last sample left out": another(lambda p: with_rows(p, slice(-1))),
    "targets out of step": another(lambda p: p._replace(targets=np.roll(p.targets, 1, axis=0))),
    "sample weight ignored": another(lambda p: p._replace(weight=p.weight**0.0), **WEIGHTED),
    "weights normalized by N": step("output", lambda s, g: g * s.problem.weight.mean(), **WEIGHTED),
    "class weight ignored": another(
        lambda p: p._replace(weight=p.weight**0.0),
        extras=("class_weight",),
        **CLASSES,
    ),
    # missing or misplaced terms
    "bias gradients zero": step("bias", lambda s, g: 0.0 * s.bias, "zero"),
    "one layer's gradient zero": finish(
        lambda g: {**g, "weights1": 0.0 * g["weights1"], "bias1": 0.0 * g["bias1"]}, "zero"
    ),
    "nothing passed to the layers below": step("inputs", lambda s, g: 0.0 * s.x, "zero"),
    "upstream gradient ignored": step("inputs", lambda s, g: np.ones_like(s.x) / len(g)),
    "layer skipped on the way back": step("inputs", lambda s, g: g, only=1),
    "bias gradient of another layer": finish(lambda g: {**g, "bias1": g["bias0"]}),
    "a layer's output for its input": step("weights", lambda s, g: s.a.T @ g, only=1),
    "one element zero": one("weights1", lambda g: g * (np.arange(g.size).reshape(g.shape) != 1)),
    "last row zero": one("weights1", lambda g: np.concatenate([g[:-1], 0.0 * g[-1:]])),
    # dropout
    "another mask": another(lambda p: with_other_masks(p, np.random.default_rng(1)), **DROPOUT),
    "mask ignored backwards": step("activation", lambda s, g: g * s.slope(s.z, s.a), **DROPOUT),
    "a new mask in each call": drawn_anew(with_other_masks, "both", **DROPOUT),
    "a new mask in each gradient": drawn_anew(with_other_masks, "gradient", **DROPOUT),
    # state
    "a new batch in each call": drawn_anew(
        lambda p, g: with_rows(p, g.permutation(len(p.x))[:-2]), "both"
    ),
    "stale cache": Mistake(stale_cache),
    "one call behind": remembering(one_call_behind),
    "accumulated gradient": kept_in_a_buffer(1.0, "accumul"),
    "momentum left on": kept_in_a_buffer(0.9),
    "written into the parameters": remembering(step_as_well),
    "weights stepped too early": step("inputs", lambda s, g: g @ (s.weights - 0.1 * s.x.T @ g).T),
}
