"""scikit-learn estimators of tables: preparation and network in one."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, get_type_hints

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets

from backprop_xp.backends import Backend, Device
from backprop_xp.checks import plain
from backprop_xp.estimators.bases import ClassifierMixin, RegressorMixin
from backprop_xp.files.container import refusing
from backprop_xp.tables.interface.tabular_base import Callback, Tabular
from backprop_xp.tables.model.model_file import PathLike, read_model
from backprop_xp.tables.model.tabular_parameters import ClassifierParameters, Task, described

Kind = TypeVar("Kind", bound="type[Tabular]")


def _with_parameters(kind: Kind) -> Kind:
    """Give a class's docstring the list of the parameters; its signature shows their types."""
    kind.__init__.__annotations__ = {**get_type_hints(kind.__init__), "return": None}
    kind.__doc__ = inspect.cleandoc(kind.__doc__ or "").replace("{parameters}", described(kind))
    return kind


@_with_parameters
@dataclass(eq=False, repr=False)
class TabularClassifier(ClassifierMixin, Tabular, ClassifierParameters):
    """A classifier of the rows of a table: preparation of the columns, and a network.

    >>> import pandas as pd
    >>> import backprop_xp as bx
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo", None, "Oslo"] * 20, "age": range(80)})
    >>> model = bx.TabularClassifier(random_state=0).fit(table, table["age"] > 40)
    >>> model.score(table, table["age"] > 40) > 0.9
    True

    Its parameters; None is the preset's value. ``class_weight`` may also map classes to weights.

    {parameters}
    """

    _task: ClassVar[Task] = "classification"

    @property
    def classes_(self) -> np.ndarray:
        """The classes, sorted."""
        return np.asarray(self.model_.classes)

    def _targets(self, y: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if classes is None:
            check_classification_targets(y)
            classes, indices = np.unique(y, return_inverse=True)
            if len(classes) < 2:
                raise ValueError(f"y has one class, {plain(classes[0])!r}: a classifier needs two.")
            return indices, classes
        indices = pd.Index(classes).get_indexer(pd.Index(y))
        if (indices < 0).any():
            new = plain(y[indices.argmin()])
            raise ValueError(f"y_val has a class {new!r} that y does not have.")
        return indices, classes

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each row."""
        indices = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[indices])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return each class's probability, ``(rows, classes)``: the mean over the members."""
        return self._outputs(X)[0]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of ``predict_proba``."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))


@_with_parameters
@dataclass(eq=False, repr=False)
class TabularRegressor(RegressorMixin, Tabular):
    """A regressor of the rows of a table: preparation of the columns, and a network.

    The targets are standardized by the training rows, and predictions are in their unit.

    >>> import pandas as pd
    >>> import backprop_xp as bx
    >>> table = pd.DataFrame({"city": ["Rome", "Oslo", None, "Oslo"] * 20, "age": range(80)})
    >>> model = bx.TabularRegressor(random_state=0).fit(table, 2.0 * table["age"])
    >>> model.score(table, 2.0 * table["age"]) > 0.9
    True

    Its parameters; None is the preset's value:

    {parameters}
    """

    _task: ClassVar[Task] = "regression"

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        dy: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        checkpoint: PathLike | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Fit to a table X and y, as ``Tabular.fit`` does; return the estimator.

        ``dy`` are derivatives of y by columns of numbers, which are learned too: a DataFrame or a
        mapping with some of these columns, or an array ``(rows, columns)``, NaN where not known.
        They are in units of y over those of the column, as ``input_gradient`` returns them. Each
        counts as much as a value of y, multiplied by the scale of its column. Those of missing
        numbers are ignored. The validation loss of rows of X has them too, that of ``X_val`` not.
        Raises ValueError for columns of another kind.

        >>> import numpy as np, pandas as pd
        >>> import backprop_xp as bx
        >>> table = pd.DataFrame({"t": np.linspace(0.0, 600.0, 40)})
        >>> model = bx.TabularRegressor(random_state=0)
        >>> model = model.fit(table, np.sin(table["t"] / 100.0), dy=np.cos(table / 100.0) / 100.0)
        >>> model.score(table, np.sin(table["t"] / 100.0)) > 0.99
        True
        """
        rows = X, y, sample_weight, X_val, y_val, sample_weight_val
        options: dict[str, Any] = {"checkpoint": checkpoint, "resume": resume, "dy": dy}
        return self._fit(rows, **options, callbacks=callbacks, metadata=metadata)

    def _targets(self, y: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, None]:
        values = pd.to_numeric(pd.Series(y), errors="coerce").to_numpy()
        wrong = np.isnan(values) if values.dtype.kind in "biuf" else np.ones(len(y), bool)
        if wrong.any():
            first = plain(y[wrong.argmax()])
            raise ValueError(f"y holds {first!r}, but a regressor needs numbers.")
        return values.astype("float64"), None

    def predict(
        self, X: Any, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the value of each row; with ``return_std`` also the members' deviation.

        The deviation is their disagreement, without the noise of the targets, and not an interval.
        """
        values, deviation = self._outputs(X)
        if return_std and self.theta_.ndim == 1:
            raise ValueError(
                "return_std needs several members, such as n_members=8: one network has no spread."
            )
        return (values, deviation) if return_std else values

    def predict_interval(self, X: Any, coverage: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the interval of each row that holds its target with this probability.

        All have one width, a quantile of the errors of the validation rows (split conformal
        prediction, Lei et al. 2018). These rows also ended the training: it can be too small.
        Raises ValueError for a coverage that needs more validation rows.
        """
        values, width = self._outputs(X)[0], self.model_.half_width(coverage)
        return values - width, values + width


def load(
    path: PathLike, *, backend: str | Backend | None = None, device: Device | None = None
) -> TabularClassifier | TabularRegressor:
    """Return the estimator in a file that ``save``, or a training with ``checkpoint``, wrote.

    A training that was interrupted has left its best network so far. Raises CheckpointError, a
    ValueError, for any other file.
    """
    model, _ = read_model(path)
    kind = TabularRegressor if model.classes is None else TabularClassifier
    with refusing(path):
        return kind._of(model, backend, device)
