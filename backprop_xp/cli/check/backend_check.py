"""One gradient, checked on several backends: the computation of the command ``check``.

The problem is drawn once, on the host; each backend has the same. Nothing is printed here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import DTypeNotKeptError, Selection, dtype_name, registry, text_of
from backprop_xp.gradient_check.inputs.problems import Method
from backprop_xp.networks.losses.loss import LOSSES

# Large enough that no relu is at its kink, small enough that no unit saturates.
_BIAS_SPREAD = 0.1


class Problem(NamedTuple):
    """A network with theta ``(P,)``, x and y in float64 on the host, and the method of the check.

    ``seed`` draws the directions of the check and the dropout masks.
    """

    network: bx.Network
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    seed: int
    method: Method


class Finding(NamedTuple):
    """The result of the check on one backend: a report, or the reason why there is none.

    ``verdict`` is the report's. Without a report it is ``"not usable"`` (the backend cannot run
    here), ``"not checked"`` (it lacks the dtype) or ``"error"``. ``gradient`` is the analytic one,
    ``(P,)`` on the host.
    """

    backend: str
    device: str = ""
    dtype: str = ""
    verdict: str = "error"
    reason: str = ""
    report: bx.GradientReport | None = None
    gradient: np.ndarray | None = None

    def failed(self, *, is_named: bool) -> bool:
        """Whether this is a failure; ``is_named``: the user named the backend."""
        if self.verdict in ("not usable", "not checked"):
            return is_named
        return self.report is None or not self.report.passed


class Difference(NamedTuple):
    """``max|other - first| / max|first|``: ``first`` is the first backend with this dtype."""

    dtype: str
    first: str
    other: str
    relative: float


def draw(
    network: bx.Network, widths: Sequence[int], loss: str, *, batch: int, seed: int, method: Method
) -> Problem:
    """Draw theta, x, and targets that suit the loss."""
    generator = np.random.default_rng(seed)
    start = network.initialize(seed, backend="numpy", device="cpu", dtype="float64")
    # A bias of 0 puts a sample with x = 0, or one behind dead units, on the kink of a relu.
    # Everything but the weights is moved: a LayerNorm's scale as well.
    moves = 1.0 - network.weight_mask(start)
    theta = start + _BIAS_SPREAD * moves * generator.normal(size=start.shape)
    x = generator.normal(size=(batch, widths[0]))
    y = _targets(generator, loss, (batch, widths[-1]))
    return Problem(network, theta, x, y, seed, method)


def check_on(backend: str, problem: Problem, dtype: str | None) -> Finding:
    """Check the gradient on the backend of this name; an error becomes part of the finding."""
    finding = Finding(backend)
    try:
        selection = bx.resolve(backend=backend, dtype="float32")  # which every library has
        device = selection.backend.device_name(selection.device)
        finding = finding._replace(device=device, dtype=dtype or "")
        selection = bx.resolve(backend=backend, dtype=dtype)
        finding = finding._replace(dtype=dtype_name(selection.dtype))
        return _check(finding, problem, selection)
    except bx.BackendUnavailableError:
        probe = registry.probe(backend)
        return finding._replace(verdict="not usable", reason=f"{probe.reason}. Try: {probe.hint}")
    except DTypeNotKeptError as error:
        return finding._replace(verdict="not checked", reason=str(error))
    except Exception as error:  # also a library's own classes: the other backends are still run
        return finding._replace(reason=text_of(error))


def differences(findings: Sequence[Finding]) -> list[Difference]:
    """Compare the gradient of each backend with that of the first one in the same dtype."""
    first: dict[str, tuple[str, np.ndarray]] = {}
    found = []
    for finding in findings:
        dtype, gradient = finding.dtype, finding.gradient
        if gradient is None:
            continue
        if dtype in first:
            name, reference = first[dtype]
            relative = _relative_difference(reference, gradient)
            found.append(Difference(dtype, name, finding.backend, relative))
        first.setdefault(dtype, (finding.backend, gradient))
    return found


def _check(finding: Finding, problem: Problem, selection: Selection) -> Finding:
    where = {"backend": selection.backend, "device": selection.device, "dtype": selection.dtype}
    network, seed = problem.network, problem.seed
    theta, x, y = (bx.asarray(array, **where) for array in (problem.theta, problem.x, problem.y))
    report = bx.check_network(network, theta, x, y, rng=seed, method=problem.method, seed=seed)
    # A report by directions has no gradient: compute it once more.
    _, gradient = network.loss_and_gradient(theta, x, y, rng=seed)
    return finding._replace(verdict=report.verdict, report=report, gradient=bx.to_host(gradient))


def _targets(generator: np.random.Generator, loss: str, shape: tuple[int, int]) -> np.ndarray:
    if loss == "poisson":
        return 1.0 + generator.poisson(2.0, shape)
    if LOSSES[loss].labels and shape[1] > 1:
        return np.eye(shape[1])[generator.integers(0, shape[1], shape[0])]
    if LOSSES[loss].targets == (0.0, 1.0):
        return generator.integers(0, 2, shape).astype(np.float64)
    return generator.normal(size=(shape[0], shape[1] // LOSSES[loss].outputs_per_target))


def _relative_difference(first: np.ndarray, other: np.ndarray) -> float:
    # In float64 the difference of two float32 gradients is exact.
    first, other = first.astype(np.float64), other.astype(np.float64)
    scale = float(np.max(np.abs(first)))
    return float(np.max(np.abs(other - first))) / (scale or 1.0)
