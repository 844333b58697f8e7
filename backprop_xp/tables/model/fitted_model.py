"""A fitted model of a table: a record that predicts without scikit-learn."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, Backend, Device, array_namespace, resolve, to_host
from backprop_xp.checks import real
from backprop_xp.networks import ensemble
from backprop_xp.networks.chain.batch_rows import row_slices, rows_at_once
from backprop_xp.networks.derivatives.input_derivatives import slopes_through
from backprop_xp.networks.network import Network
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.model.tabular_parameters import Task


class TargetScale(NamedTuple):
    """The mean and the standard deviation by which numbers are standardized."""

    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class TabularModel:
    """What a training on a table has learnt: features, network, and the meaning of its outputs.

    - ``has_names`` is whether the columns had names.
    - ``theta`` is ``(P,)``, or ``(n_members, P)``, on the host.
    - ``classes`` are sorted, None for a number, which ``scale`` puts back into its unit.
    - ``target`` is the name of the target column, if it had one.
    - ``record`` is JSON: ``parameters`` of the estimator, ``recipe`` (the values that were used),
      ``seed``, ``rows`` and ``data`` (the SHA-256) of the training and validation rows, ``where``,
      ``versions``, ``epoch``, ``best_epoch``, ``best`` (the validation result there) and
      ``decimal``.
    - ``history`` has the losses and the metric, ``(epochs,)`` or ``(epochs, n_members)``.
    - ``metadata`` is what the caller of ``fit`` adds, as JSON.
    - ``residuals`` ``(rows, 2)`` has the absolute error of each validation row and its weight; None
      for classes, and before the training has ended. ``test_residuals`` has those of test rows,
      which the command ``train`` adds.
    """

    has_names: bool
    features: Features
    network: Network
    theta: np.ndarray
    classes: np.ndarray | None
    scale: TargetScale
    target: str | None
    record: Mapping[str, Any]
    history: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]
    residuals: np.ndarray | None = None
    test_residuals: np.ndarray | None = None

    @property
    def task(self) -> Task:
        """The task: a model without classes predicts a number."""
        return "regression" if self.classes is None else "classification"

    @property
    def decimal(self) -> str | None:
        """The decimal sign of training's file of text, None for another table or an older model."""
        sign: str | None = self.record.get("decimal")
        return sign

    def outputs(
        self,
        frame: pd.DataFrame,
        *,
        backend: str | Backend | None = None,
        device: Device | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs for a plain table, and the members' standard deviation.

        They are probabilities ``(rows, classes)``, or numbers ``(rows,)``: float64, on the host.
        """
        x = self.features.transform(frame)
        if not len(x):
            nothing = np.empty((0,) if self.classes is None else (0, len(self.classes)))
            return nothing, nothing
        choice = resolve(backend=backend, device=device, dtype=self.record["where"]["dtype"])
        theta = choice.backend.from_host(self.theta, choice.dtype, choice.device)
        found = ensemble.predict(self.network, theta, x)
        mean, deviation = (to_host(values).astype("float64") for values in found)
        values = self.in_unit(mean)
        if self.classes is None:
            return values, deviation[:, 0] * self.scale.scale
        return values, np.broadcast_to(deviation, values.shape)

    def input_gradient(
        self,
        frame: pd.DataFrame,
        *,
        backend: str | Backend | None = None,
        device: Device | None = None,
    ) -> pd.DataFrame:
        """Return the derivatives of the outputs by each column of numbers; NaN where it is missing.

        They are in the unit of a regression's value. For classes each has all columns, side by
        side.
        """
        indices, own = self.features.feature_indices(), self.features.slopes(frame)
        names = [*own]
        columns: Any = names
        if self.classes is not None:
            columns = pd.MultiIndex.from_product([self.classes, names], names=["class", "column"])
        if not names or not len(frame):
            return pd.DataFrame(index=frame.index, columns=columns, dtype="float64")
        x, widths = self.features.transform(frame), [len(one.T) for one in own.values()]
        at = [i for name, width in zip(names, widths, strict=True) for i in indices[name][:width]]
        choice = resolve(backend=backend, device=device, dtype=self.record["where"]["dtype"])
        theta = choice.backend.from_host(self.theta, choice.dtype, choice.device)
        parts = []
        for rows in row_slices(len(x), rows_at_once(theta)):
            part = choice.backend.from_host(x[rows], choice.dtype, choice.device)
            mean, _ = ensemble.predict(self.network, theta, part)
            slopes = ensemble.mean_slopes(self.network, theta, part)
            y, dy = (to_host(array).astype("float64") for array in (mean, slopes))
            parts.append(slopes_through(self.in_unit, y, dy[..., at]))
        by_feature, slopes = np.concatenate(parts), np.concatenate([*own.values()], axis=1)
        found = by_feature * slopes.reshape(len(x), *(1,) * (by_feature.ndim - 2), -1)
        # A column of several features has the sum over them.
        found = np.add.reduceat(found, np.cumsum([0, *widths[:-1]]), axis=-1)
        return pd.DataFrame(found.reshape(len(x), -1), columns=columns, index=frame.index)

    def in_unit(self, mean: Array) -> Array:
        """Return the outputs that the members' mean ``(rows, n_out)`` stands for."""
        xp = array_namespace(mean)
        if self.classes is None:
            return mean[:, 0] * self.scale.scale + self.scale.mean
        if len(self.classes) == 2:
            return xp.concat([1.0 - mean, mean], axis=1)
        return mean / xp.sum(mean, axis=1, keepdims=True)

    def predictions(self, frame: pd.DataFrame, coverage: float | None = None) -> pd.DataFrame:
        """Return ``prediction`` for each row; for classes ``probability_<class>`` follow.

        With a coverage the ends of the interval follow, ``low`` and ``high``.
        """
        width = None if coverage is None else self.half_width(coverage)
        outputs, _ = self.outputs(frame)
        if self.classes is None:
            ends = {} if width is None else {"low": outputs - width, "high": outputs + width}
            return pd.DataFrame({"prediction": outputs, **ends})
        columns = {f"probability_{c}": outputs[:, i] for i, c in enumerate(self.classes.tolist())}
        # A Series, since an array of no strings has no type.
        chosen = pd.Series(self.classes).iloc[outputs.argmax(axis=1)].array
        return pd.DataFrame({"prediction": chosen, **columns})

    def half_width(self, coverage: float) -> float:
        """Return the half of the width of the intervals that have this coverage.

        It is the quantile ``coverage (n + 1) / n`` of the absolute errors of n validation rows:
        split conformal prediction (Lei et al. 2018, "Distribution-Free Predictive Inference for
        Regression", section 2.2). Raises ValueError for classes, for a training that has not ended,
        and for too few rows.
        """
        coverage = real(coverage, "coverage", above=0.0, below=1.0)
        if self.classes is not None:
            raise ValueError("intervals are for numbers, but the model predicts classes.")
        if self.residuals is None:
            raise ValueError("the training was interrupted: resume it, intervals need its end.")
        errors, weights = self.residuals.T
        n = np.count_nonzero(weights)
        needed = math.ceil(coverage / (1.0 - coverage) - 1e-9)  # without its rounding error
        if n < needed:
            raise ValueError(
                f"intervals of coverage {coverage:g} need {needed} validation rows, but the "
                f"training had {n}."
            )
        level = min(1.0, coverage * (n + 1) / n)
        return float(np.quantile(errors, level, weights=weights, method="inverted_cdf"))

    def coverage_on_test(self, coverage: float) -> float | None:
        """Return the share of the test rows in their intervals of this coverage, by weight.

        It is None without test rows. Raises ValueError as ``half_width`` does.
        """
        width = self.half_width(coverage)
        if self.test_residuals is None:
            return None
        errors, weights = self.test_residuals.T
        return float(np.average(errors <= width, weights=weights))


def residuals_of(y: np.ndarray, values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the absolute error of each row's value, and the row's weight, ``(rows, 2)``."""
    return np.stack([np.abs(y - values), np.ones(len(y)) if weights is None else weights], axis=1)
