"""One gradient, checked on several backends: what the command ``check`` computes.

The problem is drawn once, on the host, and each backend is given the same. Nothing is printed here.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import (
    Array,
    BackendUnavailableError,
    DTypeNotKeptError,
    Selection,
    dtype_name,
    in_words,
    registry,
    to_host,
)

# Large enough that no relu is at its kink, small enough that no unit saturates.
_BIAS_SPREAD = 0.1


class Case(NamedTuple):
    """A network with theta ``(P,)``, x and y in float64 on the host, and how it is checked.

    ``seed`` draws the directions of a check, and is the key of the dropout masks.
    """

    network: bx.Network
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    seed: int
    method: str


class Finding(NamedTuple):
    """What came of the check on one backend: a report, or the reason why there is none.

    ``verdict`` is the report's; without one it is ``"not usable"`` (the backend cannot run here),
    ``"not checked"`` (it keeps no such dtype) or ``"error"``. ``gradient`` is the analytic one,
    ``(P,)`` on the host.
    """

    backend: str
    device: str = ""
    dtype: str = ""
    verdict: str = "error"
    reason: str = ""
    report: bx.GradientReport | None = None
    gradient: np.ndarray | None = None
    seconds: float = 0.0

    def failed(self, *, asked: bool) -> bool:
        """Say whether this is a failure; ``asked``, whether the user named the backend."""
        if self.verdict in ("not usable", "not checked"):
            return asked
        return self.report is None or not self.report.passed


class Difference(NamedTuple):
    """How far a backend's gradient is from the first one's in that dtype, as ``relative``.

    That is ``max|other - first| / max|first|``.
    """

    dtype: str
    first: str
    other: str
    relative: float


def draw(
    network: bx.Network, widths: Sequence[int], loss: str, *, batch: int, seed: int, method: str
) -> Case:
    """Draw theta, x, and a y that suits the loss of this name."""
    generator = np.random.default_rng(seed)
    start = network.initialize(seed, backend="numpy", device="cpu", dtype="float64")
    # Biases of 0 would put a sample with x = 0, or one behind dead units, on the kink of a relu.
    # All that is no weight is moved: a LayerNorm's scale as well.
    moves = 1.0 - network.weight_mask(start)
    theta = start + _BIAS_SPREAD * moves * generator.normal(size=start.shape)
    x = generator.normal(size=(batch, widths[0]))
    y = _targets(generator, loss, (batch, widths[-1]))
    return Case(network, theta, x, y, seed, method)


def check_on(backend: str, case: Case, dtype: str | None) -> Finding:
    """Check the gradient on the backend of this name; what goes wrong there is the finding."""
    finding = Finding(backend)
    try:
        place = bx.resolve(backend=backend, dtype="float32")  # which every library keeps
        device = place.backend.device_name(place.device)
        finding = finding._replace(device=device, dtype=dtype or finding.dtype)
        choice = bx.resolve(backend=backend, dtype=dtype)
        finding = finding._replace(dtype=dtype_name(choice.dtype))
        return _check(finding, case, choice)
    except BackendUnavailableError:
        return finding._replace(verdict="not usable", reason=_why_unusable(backend))
    except DTypeNotKeptError as error:
        return finding._replace(verdict="not checked", reason=str(error))
    except Exception as error:  # a library's own kinds too: the other backends are still run
        return finding._replace(reason=in_words(error))


def differences(findings: Sequence[Finding]) -> list[Difference]:
    """Compare the gradients of backends that computed in one dtype with the first one's."""
    first: dict[str, Finding] = {}
    found = []
    for finding in findings:
        if finding.gradient is None:
            continue
        reference = first.setdefault(finding.dtype, finding)
        if reference is not finding and reference.gradient is not None:
            relative = _relative_difference(reference.gradient, finding.gradient)
            found.append(Difference(finding.dtype, reference.backend, finding.backend, relative))
    return found


def _check(finding: Finding, case: Case, choice: Selection) -> Finding:
    theta, x, y = (_put(array, choice) for array in (case.theta, case.x, case.y))
    network, seed = case.network, case.seed
    begin = time.perf_counter()
    report = bx.check_network(network, theta, x, y, rng=seed, method=case.method, seed=seed)
    seconds = time.perf_counter() - begin
    # A report by directions holds no gradient, so it is computed once more.
    _, gradient = network.loss_and_gradient(theta, x, y, rng=seed)
    return finding._replace(
        verdict=report.verdict, report=report, gradient=to_host(gradient), seconds=seconds
    )


def _put(array: np.ndarray, choice: Selection) -> Array:
    return bx.asarray(array, backend=choice.backend, device=choice.device, dtype=choice.dtype)


def _targets(generator: np.random.Generator, loss: str, shape: tuple[int, int]) -> np.ndarray:
    if loss == "poisson":
        return 1.0 + generator.poisson(2.0, shape)
    if loss == "binary_cross_entropy":
        return generator.integers(0, 2, shape).astype(np.float64)
    if loss == "categorical_cross_entropy":
        return np.eye(shape[1])[generator.integers(0, shape[1], shape[0])]
    return generator.normal(size=shape)


def _why_unusable(backend: str) -> str:
    probe = registry.probe(backend)
    return f"{probe.reason}. Try: {probe.hint}"


def _relative_difference(first: np.ndarray, other: np.ndarray) -> float:
    # Of two float32 gradients too the difference is exact in float64.
    first, other = first.astype(np.float64), other.astype(np.float64)
    scale = float(np.max(np.abs(first)))
    return float(np.max(np.abs(other - first))) / (scale or 1.0)
