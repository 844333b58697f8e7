"""A fitted model of a table: a record that predicts without scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, Backend, Device, array_namespace, resolve, to_host
from backprop_xp.networks import ensemble
from backprop_xp.networks.network import Network
from backprop_xp.tables.features import Features
from backprop_xp.tables.tabular_parameters import Task


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
      ``versions``, ``epoch``, ``best_epoch`` and ``best`` (the validation result there).
    - ``history`` has the losses and the metric, ``(epochs,)`` or ``(epochs, n_members)``.
    - ``metadata`` is what the caller of ``fit`` adds, as JSON.
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

    @property
    def task(self) -> Task:
        """The task: a model without classes predicts a number."""
        return "regression" if self.classes is None else "classification"

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
        choice = resolve(backend=backend, device=device, dtype=self.record["where"]["dtype"])
        theta = choice.backend.from_host(self.theta, choice.dtype, choice.device)
        found = ensemble.predict(self.network, theta, self.features.transform(frame))
        mean, deviation = (to_host(values).astype("float64") for values in found)
        values = self.in_unit(mean)
        if self.classes is None:
            return values, deviation[:, 0] * self.scale.scale
        return values, np.broadcast_to(deviation, values.shape)

    def in_unit(self, mean: Array) -> Array:
        """Return the outputs that the members' mean ``(rows, n_out)`` stands for."""
        xp = array_namespace(mean)
        if self.classes is None:
            return mean[:, 0] * self.scale.scale + self.scale.mean
        if len(self.classes) == 2:
            return xp.concat([1.0 - mean, mean], axis=1)
        return mean / xp.sum(mean, axis=1, keepdims=True)

    def predictions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return ``prediction`` for each row; for classes ``probability_<class>`` follow."""
        outputs, _ = self.outputs(frame)
        if self.classes is None:
            return pd.DataFrame({"prediction": outputs})
        columns = {f"probability_{c}": outputs[:, i] for i, c in enumerate(self.classes.tolist())}
        return pd.DataFrame({"prediction": self.classes[outputs.argmax(axis=1)], **columns})
