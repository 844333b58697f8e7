"""The trainings that ``small_fits.py`` compares: a function for each, in the table ``CONTENDERS``.

A function gets a problem, a seed and the CPU time it may take. It returns the training losses with
their CPU times, and a function from x to predictions. The loss is the mean squared error. Imports
and JAX's compilation do not count. All but pyrenn and scikit-learn, which draw their own, begin at
the same parameters.
"""

import contextlib
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from small_fit_problems import Problem

import backprop_xp as bx

Fit: TypeAlias = tuple[list[tuple[float, float]], Callable[[np.ndarray], np.ndarray]]


class OutOfTimeError(Exception):
    """The CPU time is spent."""


class Clock:
    """CPU seconds since the beginning, and the lowest losses by then with their parameters."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.trace, self.best = seconds, list[tuple[float, float]](), (np.inf, None)
        self.start = time.process_time()

    def add(self, loss: float, parameters: Any = None) -> None:
        """Record a loss; raise OutOfTimeError after the end, without it."""
        passed = time.process_time() - self.start
        if passed > self.seconds:
            raise OutOfTimeError
        if loss < self.best[0]:
            self.best = (loss, parameters)
            self.trace.append((passed, float(loss)))


def network_of(problem: Problem) -> bx.Network:
    return bx.mlp(problem.widths, hidden="tanh", loss="mean_squared_error")


def ours(optimizer: Any) -> Callable[[Problem, int, float], Fit]:
    """Return a training by one of our optimizers, on NumPy; its epochs take equal times."""

    def fit(problem: Problem, seed: int, seconds: float) -> Fit:
        network = network_of(problem)
        theta = network.initialize(seed=seed, backend="numpy")

        def run(epochs: int) -> tuple[float, Any]:
            start = time.process_time()
            options = {"optimizer": optimizer, "epochs": epochs}
            result = bx.fit(network, theta, problem.x, problem.y, **options)
            return time.process_time() - start, result

        epoch = run(20)[0] / 20
        passed, result = run(max(int(seconds / epoch), 1))
        losses = result.history["loss"][1:].tolist()  # each is that before the epoch's step
        times = np.linspace(0.0, passed, result.epochs + 1)[1:-1].tolist()
        trace = list(zip(times, losses, strict=True))
        return trace, lambda x: network.predict(result.theta, x)

    return fit


def compiled(fit: Callable[[Problem, int, float], Fit]) -> Callable[[Problem, int, float], Fit]:
    """Return the training with loops that Numba compiles."""

    def run(problem: Problem, seed: int, seconds: float) -> Fit:
        os.environ["BACKPROP_XP_COMPILE"] = "1"
        return fit(problem, seed, seconds)

    return run


class Perceptron:
    """Residuals, Jacobian and gradient of ``[n, hidden, 1]`` with tanh, as a user writes them."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.x, self.y, (self.n, self.hidden, _) = problem.x, problem.y[:, 0], problem.widths
        self.theta = network_of(problem).initialize(seed=seed, backend="numpy")

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        n, k = self.n * self.hidden, self.hidden
        return theta[:n].reshape(-1, k), theta[n : n + k], theta[n + k : n + 2 * k], theta[-1]

    def outputs(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights, bias, second, last = self.parts(theta)
        a = np.tanh(x @ weights + bias)
        return a, a @ second + last

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        return self.outputs(theta, self.x)[1] - self.y

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        a, _ = self.outputs(theta, self.x)
        d = (1.0 - a * a) * self.parts(theta)[2]
        first = (self.x[:, :, None] * d[:, None, :]).reshape(len(self.x), -1)
        return np.concatenate([first, d, a, np.ones((len(a), 1))], axis=1)

    def loss_and_gradient(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        a, outputs = self.outputs(theta, self.x)
        r = (outputs - self.y) * (2.0 / len(self.x))
        d = (1.0 - a * a) * (r[:, None] * self.parts(theta)[2])
        parts = [(self.x.T @ d).reshape(-1), d.sum(0), a.T @ r, [r.sum()]]
        return float(np.mean((outputs - self.y) ** 2)), np.concatenate(parts)

    def predict(self, theta: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: self.outputs(theta, x)[1][:, None]


def scipy_least_squares(method: str) -> Callable[[Problem, int, float], Fit]:
    def fit(problem: Problem, seed: int, seconds: float) -> Fit:
        from scipy.optimize import least_squares

        model = Perceptron(problem, seed)
        clock = Clock(seconds)

        def residuals(theta: np.ndarray) -> np.ndarray:
            r = model.residuals(theta)
            clock.add(np.mean(r * r), theta.copy())
            return r

        if method == "lm" and len(problem.x) < len(model.theta):
            return [], model.predict(model.theta)  # it takes no fewer rows than parameters
        options = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 10**6}
        with contextlib.suppress(OutOfTimeError):
            least_squares(residuals, model.theta, model.jacobian, method=method, **options)
        return clock.trace, model.predict(clock.best[1])

    return fit


def scipy_lbfgs(problem: Problem, seed: int, seconds: float) -> Fit:
    from scipy.optimize import minimize

    model = Perceptron(problem, seed)
    clock = Clock(seconds)

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = model.loss_and_gradient(theta)
        clock.add(loss, theta.copy())
        return loss, gradient

    options = {"maxiter": 10**6, "maxfun": 10**6, "ftol": 0.0, "gtol": 0.0}
    with contextlib.suppress(OutOfTimeError):
        minimize(value, model.theta, jac=True, method="L-BFGS-B", options=options)
    return clock.trace, model.predict(clock.best[1])


def torch_levenberg_marquardt(problem: Problem, seed: int, seconds: float) -> Fit:
    import torch
    from torch_levenberg_marquardt.training import LevenbergMarquardtModule

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    n, hidden, _ = problem.widths
    start = Perceptron(problem, seed)
    first, bias, second, last = start.parts(start.theta)
    model = torch.nn.Sequential(
        torch.nn.Linear(n, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)
    )
    given = [first.T, bias, second[None, :], np.asarray([last])]
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), given, strict=True):
            parameter.copy_(torch.tensor(np.ascontiguousarray(values)))
    x, y = torch.tensor(problem.x), torch.tensor(problem.y)
    trainer = LevenbergMarquardtModule(model)
    clock = Clock(seconds)
    try:
        for _ in range(10**6):
            _, loss, stop, _ = trainer.training_step(x, y)
            clock.add(float(loss))
            if stop:
                break
    except OutOfTimeError:
        pass
    return clock.trace, lambda x: model(torch.tensor(x)).detach().numpy()


def optimistix(problem: Problem, seed: int, seconds: float) -> Fit:
    import equinox
    import jax
    import optimistix as optx

    jax.config.update("jax_enable_x64", True)
    start = Perceptron(problem, seed)
    x, y, np_ = jax.numpy.asarray(problem.x), jax.numpy.asarray(problem.y[:, 0]), jax.numpy

    def residuals(theta: Any, args: Any) -> tuple[Any, None]:
        weights, bias, second, last = start.parts(theta)
        return np_.tanh(x @ weights + bias) @ second + last - y, None

    solver = optx.LevenbergMarquardt(rtol=1e-15, atol=1e-15)
    theta = np_.asarray(start.theta)
    out = jax.ShapeDtypeStruct(y.shape, y.dtype)
    given = {"options": {}, "tags": frozenset()}

    def step(theta: Any, state: Any) -> Any:
        theta, state, _ = solver.step(residuals, theta, None, state=state, **given)
        ended, _ = solver.terminate(residuals, theta, None, state=state, **given)
        return theta, state, ended

    step = equinox.filter_jit(step)
    loss_of = jax.jit(lambda theta: np_.mean(residuals(theta, None)[0] ** 2))
    state = solver.init(residuals, theta, None, f_struct=out, aux_struct=None, **given)
    step(theta, state), loss_of(theta)
    clock = Clock(seconds)
    try:
        for _ in range(10**6):
            theta, state, ended = step(theta, state)
            clock.add(float(loss_of(theta)), np.asarray(theta))
            if ended:
                break
    except OutOfTimeError:
        pass
    return clock.trace, start.predict(clock.best[1])


def doubling(seconds: float, fit: Callable[[int], tuple[float, Any]]) -> tuple[list[Any], Any]:
    """Return the losses, and the last model or None, of fits of 4, 8, 16, ... iterations."""
    trace, last = list[tuple[float, float]](), None

    def end(*_: Any) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGPROF, end)
    for power in range(2, 17):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of CPU: pyrenn may try steps for ever
        start = time.process_time()
        try:
            loss, last = fit(2**power)
        except OutOfTimeError:
            break
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        trace.append((time.process_time() - start, loss))
    return trace, last


def scikit_learn(problem: Problem, seed: int, seconds: float) -> Fit:
    from sklearn.neural_network import MLPRegressor

    def fit(iterations: int) -> tuple[float, Any]:
        options = {"solver": "lbfgs", "alpha": 0.0, "tol": 0.0, "max_fun": 10**6}
        options |= {"hidden_layer_sizes": problem.widths[1:2], "activation": "tanh"}
        model = MLPRegressor(max_iter=iterations, random_state=seed, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(problem.x, problem.y[:, 0])
        return float(np.mean((model.predict(problem.x) - problem.y[:, 0]) ** 2)), model

    trace, model = doubling(seconds, fit)
    return trace, lambda x: model.predict(x)[:, None]


def pyrenn(problem: Problem, seed: int, seconds: float) -> Fit:
    import io

    import pyrenn as library

    def fit(iterations: int) -> tuple[float, Any]:
        np.random.seed(seed)  # noqa: NPY002 - pyrenn draws from it
        net = library.CreateNN(problem.widths)
        with contextlib.redirect_stdout(io.StringIO()):
            net = library.train_LM(problem.x.T, problem.y.T, net, k_max=iterations, E_stop=0.0)
        found = library.NNOut(problem.x.T, net)
        return float(np.mean((found - problem.y[:, 0]) ** 2)), net

    trace, net = doubling(seconds, fit)
    return trace, lambda x: library.NNOut(x.T, net)[:, None]


CONTENDERS: dict[str, Callable[[Problem, int, float], Fit]] = {
    "LevenbergMarquardt": ours(bx.LevenbergMarquardt(tolerance=0.0)),
    "LBFGS": ours(bx.LBFGS(tolerance=0.0)),
    "Adam": ours(bx.Adam(1e-2)),
    "Adam, compiled": compiled(ours(bx.Adam(1e-2))),
    "SciPy lm": scipy_least_squares("lm"),
    "SciPy trf": scipy_least_squares("trf"),
    "SciPy L-BFGS-B": scipy_lbfgs,
    "scikit-learn lbfgs": scikit_learn,
    "torch-levenberg-marquardt": torch_levenberg_marquardt,
    "optimistix": optimistix,
    "pyrenn": pyrenn,
}

# The libraries that some of them need.
LIBRARIES = {
    "Adam, compiled": "numba",
    "torch-levenberg-marquardt": "torch_levenberg_marquardt",
    "optimistix": "optimistix",
    "pyrenn": "pyrenn",
}


def fits(name: str, problem: Problem, seeds: Iterator[int], seconds: float) -> Iterator[Fit]:
    """Run a contender for each seed, after a short fit that warms it up."""
    fit = CONTENDERS[name]
    with np.errstate(all="ignore"):
        fit(problem, 0, 0.02)
        for seed in seeds:
            yield fit(problem, seed, seconds)
