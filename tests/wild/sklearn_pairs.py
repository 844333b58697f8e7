"""Hand-written gradients of scikit-learn (looked at: 1.9.1)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import pdist, squareform
from sklearn import datasets
from sklearn._loss import loss as losses
from sklearn.gaussian_process import GaussianProcessRegressor, kernels as k
from sklearn.linear_model import _sgd_fast as sgd
from sklearn.linear_model._linear_loss import LinearModelLoss
from sklearn.manifold import _t_sne as tsne
from sklearn.neighbors import NearestNeighbors, NeighborhoodComponentsAnalysis
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.neural_network._multilayer_perceptron import _pack
from sklearn.preprocessing import scale
from sklearn.utils._testing import ignore_warnings

import backprop_xp as bx

from .pairs import OPTIMUM, STATIONARY, Array, Case, Pair, elementwise, normal


def data(name: str, rows: int = 300) -> tuple[Array, Array]:
    """Return standardized features and targets of every k-th row, so that all classes appear."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    step = max(1, len(x) // rows)
    return scale(x[::step].astype(np.float64)), y[::step].astype(np.float64)


def linear(loss: Any, name: str, height: float, far: float, second: str = "") -> Case:
    """LinearModelLoss around an intercept, and ``far`` from it, with a penalty."""
    x, y = data(name)
    model, args = LinearModelLoss(loss, fit_intercept=True), (x, y, None, 1e-3)
    start = model.init_zero_coef(x, dtype=np.float64).ravel(order="F")
    start[-1] = height
    options = {"maxiter": 1000, "gtol": 1e-9, "ftol": 1e-15}
    best = minimize(model.loss_gradient, start, args, "L-BFGS-B", jac=True, options=options).x
    points = {"zeros": start, "random": start + 0.3 * normal(start.size), "optimum": best}
    points["far"] = start + far * normal(start.size, seed=1)
    expected = {"optimum": OPTIMUM}
    if far < 1e-6:
        expected["far"] = "inconclusive: the value hardly changes over entries of 1e-8"
    if second:
        derivative, entrance = {
            "hessian": (lambda w, *args: model.gradient_hessian(w, *args)[1], bx.check_hessian),
            "products": (
                lambda w, p, *args: model.gradient_hessian_product(w, *args)[1](p), bx.check_hvp,
            ),
        }[second]  # fmt: skip
        del points["zeros"]
        if far > 1.0 and second == "hessian":  # it is not computed if most curvatures are 0
            del points["far"]
        return Case(model.gradient, derivative, points, args, entrance, expected=expected)
    return Case(model.loss, model.gradient, points, args, expected=expected)


def perceptron(network: Any, name: str) -> Case:
    """The loss that L-BFGS minimizes, at an untrained, a trained and a saturated network."""
    x, y = data(name, 60)
    ignore_warnings(network.set_params(solver="lbfgs", random_state=0).fit)(x, y)
    classes = getattr(network, "_label_binarizer", None)
    y = y[:, None] if classes is None else classes.transform(y)
    trained, layers = _pack(network.coefs_, network.intercepts_), len(network.coefs_)
    empty = [[np.empty_like(p) for p in ps] for ps in (network.coefs_, network.intercepts_)]
    args = (x, y, None, [x, *[None] * layers], [None] * layers, *empty)
    points = {"random": 0.3 * normal(trained.size), "optimum": trained}
    if classes is not None and network.activation != "relu":
        points["saturated"] = 30 * normal(trained.size)
    return Case(network._loss_grad_lbfgs, True, points, args, expected=CLIPPED)


def process(kernel: Any) -> Case:
    """The log marginal likelihood of a regression."""
    x, y = data("diabetes", 40)
    model, y, kernel = GaussianProcessRegressor, scale(y), kernel + k.WhiteKernel(0.5)
    trained = ignore_warnings(model(kernel, random_state=0).fit)(x, y)
    points = {"start": kernel.theta, "optimum": trained.kernel_.theta}
    points["random"] = kernel.theta + normal(kernel.theta.size)
    value = model(kernel, optimizer=None).fit(x, y).log_marginal_likelihood
    bounds, optimum = tuple(kernel.bounds.T), {"optimum": OPTIMUM}
    return Case(value, True, points, (True,), bounds=bounds, expected=optimum)


def kernel_gradient(kernel: Any, **more: Any) -> Case:
    """Every entry of a kernel matrix by the logarithms of the kernel's parameters."""
    x, _ = data("iris", 6)

    def values(theta: Array, part: int = 0) -> Array:
        both = kernel.clone_with_theta(theta)(x, eval_gradient=True)
        return np.reshape(both[part], (36, -1) if part else 36)

    points = {"start": kernel.theta, "short": kernel.theta - 1.5, "long": kernel.theta + 3.0}
    return Case(values, lambda theta: values(theta, 1), points, entrance=bx.check_jacobian, **more)


def components() -> Case:
    x, y = data("iris", 50)
    model = NeighborhoodComponentsAnalysis()
    model.n_iter_ = 0
    points = {"random": normal(8), "tiny": 1e-6 * normal(8), "saturated": 20 * normal(8)}
    few = {"tiny": "inconclusive: the slope is as small as the last of the 14 digits of the value"}
    return Case(model._loss_grad_lbfgs, True, points, (x, y[:, None] == y, -1.0), expected=few)


def embedding(dimensions: int, **more: Any) -> Case:
    x, _ = data("iris", 30)
    together = tsne._joint_probabilities(squareform(pdist(x)).astype(np.float32) ** 2, 8.0, 0)
    points = {"start": 1e-4, "random": 1.0, "wide": 30.0}
    where = {label: size * normal(30 * dimensions) for label, size in points.items()}
    args = (together, max(dimensions - 1, 1), 30, dimensions)
    return Case(tsne._kl_divergence, True, where, args, **more)


def barnes_hut() -> Case:
    x, _ = data("iris", 50)
    graph = NearestNeighbors(n_neighbors=20).fit(x).kneighbors_graph(mode="distance")
    graph.data **= 2
    args = (tsne._joint_probabilities_nn(graph, 8.0, 0), 1, 50, 2)
    points, noisy = {"random": normal(100)}, {"random": NOISY}
    return Case(tsne._kl_divergence_bh, True, points, args, wrong=LUMPED, expected=noisy)


def margin(loss: Any, target: float, **expected: str) -> Callable[[], Case]:
    value, slope = (np.vectorize(f, otypes=[float]) for f in (loss.py_loss, loss.py_dloss))
    points = {"random": [-2.3, 0.2, 3.1], "tiny": [-1e-8], "huge": [-1e8, 1e8], "corner": [1.0]}
    return elementwise(value, slope, points, target, expected=expected)


CLIPPED = {"saturated": "fail: the loss clips probabilities at eps, its gradient does not"}
CLIPPED |= {"optimum": OPTIMUM}
KINK = "kink: the loss has a corner"
ROOT = "(1 + d / 2)^-1.5 instead of (1 + d / 2)^-1 in every entry, 40 to 85 % off in norm (1.9.1)"
LUMPED = "an approximation by design, in float32: it groups far points (1.9.1)"
STEP = "a forward difference of step 1e-10: an error of 1e-6, as large as its noise (1.9.1)"
NOISY = "inconclusive: float32 hides it along a direction"
NEAR = {"start": "pass: 1 + d / 2 is 1 up to 1e-8"}
LINEAR = {
    "multinomial, iris": (losses.HalfMultinomialLoss(n_classes=3), "iris", 0.0, 100.0),
    "multinomial, digits": (losses.HalfMultinomialLoss(n_classes=10), "digits", 0.0, 1e-8),
    "binomial": (losses.HalfBinomialLoss(), "breast_cancer", 0.0, 1e8),
    "Poisson": (losses.HalfPoissonLoss(), "diabetes", 0.0, 1e-8),
}
NETWORKS = {
    "classifier, relu": (MLPClassifier((8,)), "digits"),
    "classifier, tanh": (MLPClassifier((6, 5), "tanh", alpha=0.1), "iris"),
    "Poisson regressor, logistic": (MLPRegressor("poisson", (5,), "logistic"), "diabetes"),
}
KERNELS = {
    "RBF": k.RBF(0.8),
    "Matern 1.5": k.Matern(nu=1.5),
    "anisotropic Matern 2.5": k.Matern([0.5, 1.0, 2.0, 4.0], nu=2.5),
    "rational quadratic": k.RationalQuadratic(1.3, 0.7),
    "ExpSineSquared": k.ExpSineSquared(1.2, 2.5),
    "dot product": k.DotProduct(0.7) ** 2,
    "sum and product": k.ConstantKernel(2.0) * k.RBF(0.8) + k.WhiteKernel(0.1),
}
SINGLE = ("RBF", "Matern 1.5", "rational quadratic", "dot product")
OTHERS: dict[str, Callable[[], Case]] = {
    **{f"LinearModelLoss, {name}": partial(linear, *row) for name, row in LINEAR.items()},
    **{
        f"LinearModelLoss, {name}, {second}": partial(linear, *row, second)
        for name, row in LINEAR.items()
        for second in ("hessian", "products")
        if "digits" not in name
    },
    **{f"MLP {name}": partial(perceptron, *row) for name, row in NETWORKS.items()},
    **{f"kernel, {name}": partial(kernel_gradient, kernel) for name, kernel in KERNELS.items()},
    "kernel, pairwise": partial(kernel_gradient, k.PairwiseKernel(metric="rbf"), noise=STEP),
    **{f"GaussianProcessRegressor, {n}": partial(process, KERNELS[n]) for n in SINGLE},
    "NeighborhoodComponentsAnalysis": components,
    "exact t-SNE, 2 components": partial(embedding, 2),
    "exact t-SNE, 3 components": partial(embedding, 3, wrong=ROOT, expected=NEAR),
    "Barnes-Hut t-SNE": barnes_hut,
    "SGD's hinge": margin(sgd.Hinge(1.0), 1.0, corner=KINK),
    "SGD's squared hinge": margin(sgd.SquaredHinge(1.0), 1.0, corner=STATIONARY),
    "SGD's epsilon insensitive": margin(sgd.EpsilonInsensitive(0.5), 1.5, corner=KINK),
}
PAIRS = [Pair(f"scikit-learn: {name}", call) for name, call in OTHERS.items()]
