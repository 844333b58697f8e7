"""A peer for the benchmarks: the tutorial's algorithm with its bias columns, in plain NumPy.

Parameters are one matrix per layer, ``(n_out, n_in + 1)``, the bias in column 0.
"""

import itertools

import numpy as np

EPSILON = 0.01  # of its centred differences


def start(sizes: list[int], seed: int) -> list[np.ndarray]:
    """Draw the parameters from [-1, 1)."""
    generator = np.random.default_rng(seed)
    return [
        generator.uniform(-1.0, 1.0, (n_out, n_in + 1)) for n_in, n_out in itertools.pairwise(sizes)
    ]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z: np.ndarray) -> np.ndarray:
    return sigmoid(z) * (1.0 - sigmoid(z))


def forward(thetas: list[np.ndarray], x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the activations, all but the last with a column of ones, and the logits."""
    ones = np.ones((x.shape[0], 1))
    activations, logits = [np.hstack((ones, x))], []
    for theta in thetas:
        logits.append(activations[-1] @ theta.T)
        activations.append(np.hstack((ones, sigmoid(logits[-1]))))
    activations[-1] = activations[-1][:, 1:]
    return activations, logits


def cost(thetas: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    return float(((forward(thetas, x)[0][-1] - y) ** 2).mean())


def step(thetas: list[np.ndarray], x: np.ndarray, y: np.ndarray, eta: float) -> None:
    """Run one epoch as the tutorial does: deltas with bias columns and an update, but no cost."""
    activations, logits = forward(thetas, x)
    error = activations[-1] - y
    deltas = [error * sigmoid_prime(logits[-1])]
    for i in range(len(thetas) - 1, 0, -1):
        upstream = deltas[0] if i == len(thetas) - 1 else deltas[0][:, 1:]
        ones = np.ones((x.shape[0], 1))
        deltas.insert(0, upstream @ thetas[i] * np.hstack((ones, sigmoid_prime(logits[i - 1]))))
    for i in range(len(thetas)):
        delta = deltas[i] if i == len(thetas) - 1 else deltas[i][:, 1:]
        thetas[i] = thetas[i] - eta * (delta.T @ activations[i])


def numeric_gradient(thetas: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Return the cost's gradient by two evaluations for every entry of every matrix."""
    gradients = [np.zeros_like(theta) for theta in thetas]
    for theta, gradient in zip(thetas, gradients, strict=True):
        for i in range(theta.shape[0]):
            for j in range(theta.shape[1]):
                theta[i, j] += EPSILON
                above = cost(thetas, x, y)
                theta[i, j] -= 2.0 * EPSILON
                gradient[i, j] = (above - cost(thetas, x, y)) / (2.0 * EPSILON)
                theta[i, j] += EPSILON
    return gradients
