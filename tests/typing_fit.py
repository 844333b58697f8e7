"""Calls for mypy: the types that it infers for ``fit``, ``train`` and estimators, and its errors.

The session typecheck reads this file; an ignore that hides no error is an error itself.
"""

from collections.abc import Iterator
from typing import assert_type

import backprop_xp as bx

network = bx.mlp([2, 4, 1])
theta = network.initialize(seed=0)
x, y = bx.asarray([[0.0, 1.0]]), bx.asarray([[1.0]])

result = bx.fit(
    network,
    theta,
    x,
    y,
    optimizer=bx.Adam(0.1),
    epochs=3,
    metrics={"accuracy": bx.metrics.accuracy},
    early_stopping=bx.EarlyStopping(2),
    callbacks=[lambda state: state.epoch > 2],
)
assert_type(result, bx.FitResult)
assert_type(result.state, bx.TrainingState)
assert_type(
    bx.train(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3), Iterator[bx.TrainingState]
)
bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, start=result)
bx.fit(
    network,
    theta,
    x,
    y,
    optimizer="adam",
    epochs=3,
    metrics=["accuracy", bx.metrics.top_k(3)],
    validation=0.2,
    class_weight="balanced",
    train_metrics=True,
)
bx.fit(network, theta, x, y, optimizer=bx.Lion(), epochs=3, average=bx.EMA(0.9))
bx.fit(network, theta, x, y, optimizer="adam", epochs=3, plateau=bx.Plateau(0.5, watch="loss"))
bx.fit(network, theta, x, y, optimizer=bx.LevenbergMarquardt(), epochs=3).best_member()
bx.train(network, theta, x, y, optimizer=bx.Nadam(), epochs=3, batch_size=8, accumulate=4)
bx.find_learning_rate(network, theta, x, y, optimizer=bx.Adagrad())

bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, seed=range(3))
bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, seed=[(1, 2), (3, 4)])

bx.fit(network, theta, [(x, y)], optimizer=bx.SGD(0.1), epochs=3)
bx.fit(network, theta, lambda epoch: [(x, y, x)], optimizer=bx.SGD(0.1), epochs=3)
bx.train(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, augment=lambda x, y, w, s: (x, y))

bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, augment=0.1)  # type: ignore[arg-type]
bx.fit(network, theta, x, y, optimzer=3, epochs="x")  # type: ignore[call-arg, arg-type]
bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1))  # type: ignore[call-arg]
bx.fit(network, theta, x, y, optimizer=3, epochs=3)  # type: ignore[arg-type]
bx.train(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, clip="1")  # type: ignore[arg-type]
bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, average=0.9)  # type: ignore[arg-type]
bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=3, plateau=0.5)  # type: ignore[arg-type]
losses = result.losses  # type: ignore[attr-defined]

bx.MLPClassifier((32, 16), "tanh", alpha=1e-3, class_weight="balanced")
bx.TabularRegressor("fast", hidden_layer_sizes=64, max_iter=10)
bx.MLPClassifier(alfa=1e-3)  # type: ignore[call-arg]
bx.MLPRegressor("huber", 16, alpha=None)  # type: ignore[arg-type]
bx.TabularClassifier(alpha="1")  # type: ignore[arg-type]
bx.TabularRegressor(class_weight="balanced")  # type: ignore[call-arg]
