"""Handwritten digits: an MLP of 64 pixels, 256 hidden units and 10 classes, on any backend.

Run it as it is (NumPy), or with BACKPROP_XP_BACKEND=cupy (jax, torch, array-api-strict) before it.
"""

import time

from sklearn.datasets import load_digits

import backprop_xp as bx
from backprop_xp.backends import to_host

EPOCHS = 60

digits = load_digits()
# Pixels of 0 to 16 become 0 to 1. Standardizing would inflate pixels that are rarely inked.
x, x_test, labels, labels_test = bx.data.split(
    bx.asarray(digits.data / 16), bx.asarray(digits.target), test_size=0.2, seed=0
)
y = bx.data.one_hot(labels, 10)

network = bx.mlp([64, 256, 10], dropout=0.5, loss="categorical_cross_entropy")
theta = network.initialize(seed=0)
where = bx.resolve()
print(f"{network.size} parameters, {x.shape[0]} rows, on {where.backend.name} ({where.device})")

start = time.perf_counter()
result = bx.fit(network, theta, x, y, optimizer=bx.Adam(3e-3), epochs=EPOCHS, batch_size=64, seed=0)
seconds = time.perf_counter() - start
for epoch in (1, 15, 30, 45, EPOCHS):
    print(f"epoch {epoch:>2}  loss {result.history['loss'][epoch - 1]:.4f}")

predicted = to_host(network.predict(result.theta, x_test)).argmax(axis=-1)
accuracy = (predicted == to_host(labels_test)).mean()
print(f"test accuracy {100 * accuracy:.2f} % after {EPOCHS} epochs in {seconds:.1f} s")
