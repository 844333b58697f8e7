"""A catalogue of the mistakes that people make in a backward pass, planted in an MLP by hand.

The network is plain NumPy, independent of the library's. ``x (batch, n_in)`` is a layer's input,
``z = x @ weights + bias``, ``a = activation(z)``, and ``g`` the derivative of the loss with respect
to what is at hand. A mistake is the right gradient of another problem, a wrong step of the backward
pass, a gradient spoiled when it was finished, or a state that lives from call to call.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Parameters = dict[str, Array]  # weights0 (n_in, n_out), bias0 (n_out,), weights1, ...
Value = Callable[[Parameters], Any]
Gradient = Callable[[Parameters], Parameters]


# ---- the network


class Activation(NamedTuple):
    """``a = value(z)``, and ``slope(z, a)``, its derivative."""

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]


class Loss(NamedTuple):
    """Of outputs and targets ``(batch, n_out)``: the value ``(batch, 1)`` and its gradient."""

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]


def sigmoid(z: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-z)))


def leaky_relu(leak: float) -> Activation:
    def slope(z: Array) -> Array:
        return leak + (1.0 - leak) * (z.real > 0.0).astype(z.real.dtype)

    return Activation(lambda z: z * slope(z), lambda z, a: slope(z))


def softmax(outputs: Array, axis: int = 1) -> Array:
    e = np.exp(outputs - outputs.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def cross_entropy(outputs: Array, targets: Array) -> Array:
    shift = outputs.real.max(axis=1, keepdims=True)
    total = np.exp(outputs - shift).sum(axis=1, keepdims=True)
    return np.asarray(np.log(total) + shift - (targets * outputs).sum(axis=1, keepdims=True))


ACTIVATIONS = {
    "sigmoid": Activation(sigmoid, lambda z, a: a * (1.0 - a)),
    "tanh": Activation(np.tanh, lambda z, a: 1.0 - a * a),
    "relu": leaky_relu(0.0),
    "leaky_relu": leaky_relu(0.01),
    "softplus": Activation(lambda z: np.log(1.0 + np.exp(z)), lambda z, a: sigmoid(z)),
}
LOSSES = {
    "half_squared_error": Loss(
        lambda o, t: 0.5 * ((o - t) ** 2).sum(axis=1, keepdims=True), lambda o, t: o - t
    ),
    "cross_entropy": Loss(cross_entropy, lambda o, t: softmax(o) - t),
}


@dataclass(frozen=True)
class Problem:
    """A network and its data: all that the loss depends on, except for the parameters."""

    activation: Activation  # of the hidden layers; the outputs are logits
    loss: Loss
    x: Array  # (batch, n_in)
    targets: Array  # (batch, n_out)
    sample_weight: Array  # (batch, 1)
    masks: tuple[Array, ...]  # dropout's factors of each hidden layer's activations
    l2: float  # adds l2 / 2 * sum(weights**2)


class Layer(NamedTuple):
    """A layer after the forward pass."""

    problem: Problem
    number: int  # from 0
    weights: Array
    bias: Array
    x: Array
    z: Array
    a: Array

    @property
    def activation(self) -> Activation:
        return self.problem.activation

    @property
    def mask(self) -> Array:
        return self.problem.masks[self.number]


def propagate(problem: Problem, parameters: Parameters) -> list[Layer]:
    if parameters["weights0"].ndim != 2:
        raise ValueError("One network at a time.")
    layers, x = [], problem.x
    for i in range(len(parameters) // 2):
        weights, bias = parameters[f"weights{i}"], parameters[f"bias{i}"]
        z = x @ weights + bias
        hidden = i < len(problem.masks)
        a = problem.activation.value(z) if hidden else z
        layers.append(Layer(problem, i, weights, bias, x, z, a))
        x = a * problem.masks[i] if hidden else a
    return layers


def mean_loss(layers: list[Layer]) -> Any:
    problem, outputs = layers[-1].problem, layers[-1].z
    weight = problem.sample_weight
    data = (weight * problem.loss.value(outputs, problem.targets)).sum() / weight.sum()
    if not problem.l2:
        return data
    return data + 0.5 * problem.l2 * sum((layer.weights**2).sum() for layer in layers)


def output_gradient(s: Layer) -> Array:
    weight = s.problem.sample_weight
    return np.asarray(s.problem.loss.gradient(s.z, s.problem.targets) * weight / weight.sum())


def weight_gradient(s: Layer, g: Array) -> Array:
    return np.asarray(s.x.T @ g)


def bias_gradient(s: Layer, g: Array) -> Array:
    return np.asarray(g.sum(axis=0))


def input_gradient(s: Layer, g: Array) -> Array:
    return np.asarray(g @ s.weights.T)


def activation_gradient(s: Layer, g: Array) -> Array:
    return g * s.mask * s.activation.slope(s.z, s.a)


class Steps(NamedTuple):
    """The steps of the backward pass: the right ones, unless one is replaced."""

    output: Callable[[Layer], Array] = output_gradient
    weights: Callable[[Layer, Array], Array] = weight_gradient
    bias: Callable[[Layer, Array], Array] = bias_gradient
    inputs: Callable[[Layer, Array], Array] = input_gradient
    activation: Callable[[Layer, Array], Array] = activation_gradient


RIGHT_STEPS = Steps()


def backpropagate(layers: list[Layer], steps: Steps = RIGHT_STEPS) -> Parameters:
    gradient, g = {}, steps.output(layers[-1])
    for layer in reversed(layers):
        penalty = layer.problem.l2 * layer.weights
        gradient[f"weights{layer.number}"] = steps.weights(layer, g) + penalty
        gradient[f"bias{layer.number}"] = steps.bias(layer, g)
        if layer.number:
            g = steps.activation(layers[layer.number - 1], steps.inputs(layer, g))
    return gradient


def value_of(problem: Problem) -> Value:
    return lambda parameters: mean_loss(propagate(problem, parameters))


def gradient_of(problem: Problem, steps: Steps = RIGHT_STEPS) -> Gradient:
    return lambda parameters: backpropagate(propagate(problem, parameters), steps)


# ---- the cases


class Case(NamedTuple):
    """A network to plant a mistake in; its second layer, ``weights1``, is square."""

    activation: str
    loss: str
    sizes: tuple[int, ...]
    seed: int
    dtype: str


BATCHES = {(3, 4, 4, 3): 5, (4, 3, 3, 3, 2): 7}
# What a network may have that a plain one has not.
EXTRAS = ("l2", "sample_weight", "class_weight", "dropout")


def draw(case: Case, extras: tuple[str, ...] = ()) -> tuple[Problem, Parameters]:
    """Return a problem and a point, the biases away from 0, where a wrong rule could hide."""
    generator = np.random.default_rng(case.seed)
    n_out, batch = case.sizes[-1], BATCHES[case.sizes]
    labels = generator.integers(n_out, size=batch)
    weight = np.ones(batch)
    if "sample_weight" in extras:
        weight *= generator.uniform(0.5, 2.0, batch)
    if "class_weight" in extras:
        weight *= generator.uniform(0.5, 2.0, n_out)[labels]
    one_hot, numbers = np.eye(n_out)[labels], generator.normal(size=(batch, n_out))
    problem = Problem(
        ACTIVATIONS[case.activation],
        LOSSES[case.loss],
        generator.normal(size=(batch, case.sizes[0])).astype(case.dtype),
        (one_hot if case.loss == "cross_entropy" else numbers).astype(case.dtype),
        weight[:, None].astype(case.dtype),
        tuple(np.ones((batch, n), dtype=case.dtype) for n in case.sizes[1:-1]),
        0.1 if "l2" in extras else 0.0,
    )
    point = {}
    for i, (n_in, n_out) in enumerate(pairwise(case.sizes)):
        point[f"weights{i}"] = generator.normal(0.0, n_in**-0.5, (n_in, n_out)).astype(case.dtype)
        point[f"bias{i}"] = generator.normal(0.0, 0.3, n_out).astype(case.dtype)
    return with_other_masks(problem, generator) if "dropout" in extras else problem, point


def with_other_masks(problem: Problem, generator: np.random.Generator) -> Problem:
    masks = ((generator.random(mask.shape) < 0.7) / 0.7 for mask in problem.masks)
    return replace(problem, masks=tuple(mask.astype(problem.x.dtype) for mask in masks))


def with_rows(problem: Problem, rows: Any) -> Problem:
    return replace(
        problem,
        x=problem.x[rows],
        targets=problem.targets[rows],
        sample_weight=problem.sample_weight[rows],
        masks=tuple(mask[rows] for mask in problem.masks),
    )


def with_a_sample(problem: Problem, generator: np.random.Generator) -> Problem:
    return with_rows(problem, generator.permutation(len(problem.x))[:-2])


# ---- how a mistake is planted


# Of a problem and a point: the value, and the wrong gradient that is to be checked against it.
Plant = Callable[[Problem, Parameters], tuple[Value, Gradient]]


def another(change: Callable[[Problem], Problem]) -> Plant:
    """Plant the right gradient of another problem."""
    return lambda problem, point: (value_of(problem), gradient_of(change(problem)))


def another_loss(gradient: Callable[[Array, Array], Array]) -> Plant:
    return another(lambda problem: replace(problem, loss=Loss(problem.loss.value, gradient)))


def step(only: int | None = None, **wrong: Callable[..., Array]) -> Plant:
    """Plant wrong steps of the backward pass, by their names, in all layers or in one."""

    def beside(right: Callable[..., Array], wrong: Callable[..., Array]) -> Callable[..., Array]:
        return lambda s, *g: (wrong if only in (None, s.number) else right)(s, *g)

    steps = Steps(**{name: beside(getattr(RIGHT_STEPS, name), wrong[name]) for name in wrong})
    return lambda problem, point: (value_of(problem), gradient_of(problem, steps))


def finish(change: Callable[[Parameters], Parameters]) -> Plant:
    """Plant a change of the finished gradient."""
    return lambda problem, point: (value_of(problem), lambda p: change(gradient_of(problem)(p)))


def every(change: Callable[[Array], Array]) -> Plant:
    return finish(lambda gradient: {name: change(g) for name, g in gradient.items()})


def one(name: str, change: Callable[[Array], Array]) -> Plant:
    return finish(lambda gradient: {**gradient, name: change(gradient[name])})


# ---- what goes wrong, where a line does not say it


def transpose_forgotten(s: Layer, g: Array) -> Array:
    square = s.weights.shape[0] == s.weights.shape[1]
    return np.asarray(g @ (s.weights if square else s.weights.T))


def derivative_at_a(s: Layer, g: Array) -> Array:
    return g * s.mask * s.activation.slope(s.a, s.activation.value(s.a))


def derivative_at_the_output(s: Layer) -> Array:
    return output_gradient(s) * s.activation.slope(s.z, s.activation.value(s.z))


def derivative_of(name: str) -> Plant:
    other = ACTIVATIONS[name]
    return step(activation=lambda s, g: g * s.mask * other.slope(s.z, s.a))


def clip_the_norm(gradient: Parameters) -> Parameters:
    norm = sum(float((g * g).sum()) for g in gradient.values()) ** 0.5
    return {name: min(1.0, 0.1 / norm) * g for name, g in gradient.items()}


def zero_one_element(g: Array) -> Array:
    return np.asarray(g * (np.arange(g.size).reshape(g.shape) != 1))


def zero_the_last_row(g: Array) -> Array:
    return np.concatenate([g[:-1], 0.0 * g[-1:]])


def swap_two_rows(g: Array) -> Array:
    return g[[1, 0, *range(2, len(g))]]


def forget_the_weights(problem: Problem) -> Problem:
    return replace(problem, sample_weight=np.ones_like(problem.sample_weight))


def shift_the_targets(problem: Problem) -> Problem:
    return replace(problem, targets=np.roll(problem.targets, 1, axis=0))


# ---- states that live from call to call


def elsewhere(point: Parameters) -> Parameters:
    return {name: 0.9 * p + 0.01 for name, p in point.items()}


def stale_cache(problem: Problem, point: Parameters) -> tuple[Value, Gradient]:
    """Use what the last call of value left behind, whatever the parameters are by now."""
    kept: list[Layer] = []

    def value(parameters: Parameters) -> Any:
        layers = propagate(problem, parameters)
        # A complex point leaves nothing behind: the gradient would be complex, and be refused.
        if not np.iscomplexobj(layers[-1].z):
            kept[:] = layers
        return mean_loss(layers)

    return value, lambda parameters: backpropagate(kept or propagate(problem, parameters))


def one_call_behind(problem: Problem, point: Parameters) -> tuple[Value, Gradient]:
    """Use what the last call of gradient left behind, the first of them at another point."""
    kept = [propagate(problem, elsewhere(point))]

    def gradient(parameters: Parameters) -> Parameters:
        kept.append(propagate(problem, parameters))
        return backpropagate(kept.pop(0))

    return value_of(problem), gradient


def kept_in_a_buffer(decay: float) -> Plant:
    """Add to what was returned before, and return the same arrays each time."""

    def plant(problem: Problem, point: Parameters) -> tuple[Value, Gradient]:
        buffer = {name: np.zeros_like(p) for name, p in point.items()}

        def gradient(parameters: Parameters) -> Parameters:
            for name, g in gradient_of(problem)(parameters).items():
                buffer[name] *= decay
                buffer[name] += g
            return buffer

        return value_of(problem), gradient

    return plant


def written_into_the_parameters(problem: Problem, point: Parameters) -> tuple[Value, Gradient]:
    """Take a step as well, in the arrays that were given, and return the right gradient."""

    def gradient(parameters: Parameters) -> Parameters:
        right = gradient_of(problem)(parameters)
        for name, g in right.items():
            parameters[name] -= 0.1 * g
        return right

    return value_of(problem), gradient


def drawn_anew(change: Callable[[Problem, np.random.Generator], Problem]) -> Plant:
    """Draw in each call, of value as well as of gradient."""

    def plant(problem: Problem, point: Parameters) -> tuple[Value, Gradient]:
        generator = np.random.default_rng(1)
        return (
            lambda parameters: value_of(change(problem, generator))(parameters),
            lambda parameters: gradient_of(change(problem, generator))(parameters),
        )

    return plant


def gradient_drawn_anew(problem: Problem, point: Parameters) -> tuple[Value, Gradient]:
    return value_of(problem), drawn_anew(with_other_masks)(problem, point)[1]


# ---- the catalogue


class Mistake(NamedTuple):
    """How it is planted, a word of its diagnosis where one is due, and in which networks."""

    plant: Plant
    says: str | None = None
    extras: tuple[str, ...] = ()
    activations: tuple[str, ...] = ("sigmoid", "tanh", "relu")
    losses: tuple[str, ...] = tuple(LOSSES)


L2, DROPOUT, WEIGHTED = ("l2",), ("dropout",), ("sample_weight",)
SATURATING, SMOOTH, LEAKY = ("sigmoid", "tanh"), ("sigmoid", "tanh", "softplus"), ("leaky_relu",)
SQUARES, CLASSES = ("half_squared_error",), ("cross_entropy",)

MISTAKES = {
    # a factor
    "factor 2": Mistake(every(lambda g: 2.0 * g), "factor"),
    "factor 1/2": Mistake(every(lambda g: 0.5 * g), "factor"),
    "sign": Mistake(every(lambda g: -g), "factor"),
    "sign lost": Mistake(every(np.abs)),
    "missing 1/N": Mistake(step(output=lambda s: output_gradient(s) * len(s.z)), "factor"),
    "missing 1/N beside a penalty": Mistake(
        step(output=lambda s: output_gradient(s) * len(s.z)), extras=L2
    ),
    "doubled 1/N": Mistake(step(output=lambda s: output_gradient(s) / len(s.z)), "factor"),
    "1/2 of the loss forgotten": Mistake(
        another_loss(lambda o, t: 2.0 * (o - t)), "factor", losses=SQUARES
    ),
    "clipped norm": Mistake(finish(clip_the_norm)),
    "clipped entries": Mistake(every(lambda g: np.clip(g, -0.01, 0.01))),
    "a tenth of a percent off everywhere": Mistake(every(lambda g: 1.001 * g)),
    "a tenth of a percent off in one tensor": Mistake(one("weights1", lambda g: 1.001 * g)),
    # the penalty
    "missing penalty": Mistake(another(lambda p: replace(p, l2=0.0)), "penalty", L2),
    "doubled penalty": Mistake(another(lambda p: replace(p, l2=2.0 * p.l2)), "penalty", L2),
    "halved penalty": Mistake(another(lambda p: replace(p, l2=0.5 * p.l2)), "penalty", L2),
    "penalty's sign": Mistake(another(lambda p: replace(p, l2=-p.l2)), extras=L2),
    "penalty on biases too": Mistake(
        step(bias=lambda s, g: bias_gradient(s, g) + s.problem.l2 * s.bias), extras=L2
    ),
    # rows and columns
    "transposed gradient": Mistake(one("weights1", np.transpose), "transpose"),
    "W for its transpose": Mistake(step(inputs=transpose_forgotten)),
    "flattened in another order": Mistake(one("weights0", lambda g: g.T.reshape(g.shape))),
    "swapped rows": Mistake(one("weights1", swap_two_rows), "row"),
    "permuted rows": Mistake(one("weights0", lambda g: np.roll(g, 1, axis=0)), "row"),
    "permuted columns": Mistake(one("weights1", lambda g: np.roll(g, 1, axis=1))),
    # the activation
    "tanh's derivative": Mistake(
        derivative_of("tanh"), activations=("sigmoid", "relu", "softplus")
    ),
    "sigmoid's derivative": Mistake(
        derivative_of("sigmoid"), activations=("tanh", "relu", "softplus")
    ),
    "relu's derivative": Mistake(
        derivative_of("relu"), activations=("sigmoid", "tanh", "leaky_relu")
    ),
    "wrong leaky slope": Mistake(
        step(activation=lambda s, g: g * s.mask * leaky_relu(0.1).slope(s.z, s.a)),
        activations=LEAKY,
    ),
    "derivative left out": Mistake(step(activation=lambda s, g: g * s.mask)),
    "derivative taken twice": Mistake(
        step(activation=lambda s, g: g * s.mask * s.activation.slope(s.z, s.a) ** 2),
        activations=SMOOTH,
    ),
    "derivative at z instead of a": Mistake(
        step(activation=lambda s, g: g * s.mask * s.activation.slope(s.z, s.z)),
        activations=SATURATING,
    ),
    "derivative at a instead of z": Mistake(step(activation=derivative_at_a), activations=SMOOTH),
    "derivative at the output too": Mistake(step(output=derivative_at_the_output)),
    # the loss
    "softmax over the wrong axis": Mistake(
        another_loss(lambda o, t: softmax(o, axis=0) - t), losses=CLASSES
    ),
    "softmax taken twice": Mistake(
        another_loss(lambda o, t: softmax(softmax(o)) - t), losses=CLASSES
    ),
    "softmax forgotten": Mistake(another_loss(lambda o, t: o - t), losses=CLASSES),
    "sign of the error beside a penalty": Mistake(
        step(output=lambda s: -output_gradient(s)), extras=L2
    ),
    # the batch
    "mean for the sum in a bias": Mistake(
        step(only=1, bias=lambda s, g: np.mean(g, axis=0)), "mean"
    ),
    "mean for the sum in weights": Mistake(
        step(only=1, weights=lambda s, g: weight_gradient(s, g) / len(g)), "mean"
    ),
    "one sample for the sum in biases": Mistake(step(bias=lambda s, g: g[0])),
    "last sample left out": Mistake(another(lambda p: with_rows(p, slice(-1)))),
    "targets out of step": Mistake(another(shift_the_targets)),
    "sample weight ignored": Mistake(another(forget_the_weights), extras=WEIGHTED),
    "sample weights normalised by N": Mistake(
        step(output=lambda s: output_gradient(s) * s.problem.sample_weight.mean()), extras=WEIGHTED
    ),
    "class weight ignored": Mistake(
        another(forget_the_weights), extras=("class_weight",), losses=CLASSES
    ),
    # what is missing, or taken from elsewhere
    "bias gradients zero": Mistake(step(bias=lambda s, g: 0.0 * s.bias), "zero"),
    "one layer's gradient zero": Mistake(
        step(only=1, weights=lambda s, g: 0.0 * s.weights, bias=lambda s, g: 0.0 * s.bias), "zero"
    ),
    "nothing passed to the layers below": Mistake(step(inputs=lambda s, g: 0.0 * s.x), "zero"),
    "upstream gradient ignored": Mistake(step(inputs=lambda s, g: np.ones_like(s.x) / len(g))),
    "layer skipped on the way back": Mistake(step(only=1, inputs=lambda s, g: g)),
    "bias gradient of another layer": Mistake(finish(lambda g: {**g, "bias1": g["bias0"]})),
    "a layer's output for its input": Mistake(step(only=1, weights=lambda s, g: s.a.T @ g)),
    "one element zero": Mistake(one("weights1", zero_one_element)),
    "last row zero": Mistake(one("weights1", zero_the_last_row)),
    # dropout
    "another mask": Mistake(
        another(lambda p: with_other_masks(p, np.random.default_rng(1))), extras=DROPOUT
    ),
    "mask ignored on the way back": Mistake(
        step(activation=lambda s, g: g * s.activation.slope(s.z, s.a)), extras=DROPOUT
    ),
    "a new mask in each call": Mistake(drawn_anew(with_other_masks), extras=DROPOUT),
    "a new mask in each gradient": Mistake(gradient_drawn_anew, extras=DROPOUT),
    # state
    "a new batch in each call": Mistake(drawn_anew(with_a_sample)),
    "stale cache": Mistake(stale_cache),
    "one call behind": Mistake(one_call_behind),
    "accumulated gradient": Mistake(kept_in_a_buffer(decay=1.0), "accumul"),
    "momentum left on": Mistake(kept_in_a_buffer(decay=0.9)),
    "written into the parameters": Mistake(written_into_the_parameters),
    "weights stepped before they are used": Mistake(
        step(inputs=lambda s, g: g @ (s.weights - 0.1 * weight_gradient(s, g)).T)
    ),
}
