"""The base class of the estimators of tables: the order of a fit, predictions, and files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np
import pandas as pd
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from backprop_xp.backends import Backend, Device, resolve
from backprop_xp.estimators.bases import BaseEstimator
from backprop_xp.files.container import refusing
from backprop_xp.tables.columns.detection import Detected, Place, detect
from backprop_xp.tables.columns.kinds import numbers_among
from backprop_xp.tables.columns.tolerance import (
    filled,
    in_row,
    line_about,
    warn,
    without_bad_values,
)
from backprop_xp.tables.interface.estimator_rows import checked_rows
from backprop_xp.tables.interface.preparation import (
    Preparation,
    checked_frame,
    seed_of,
    tags_of_tables,
)
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.model_file import (
    PathLike,
    read_model,
    write_model,
)
from backprop_xp.tables.model.model_training import Learned, Source, learn, prepared, started
from backprop_xp.tables.model.presets import PRESETS
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.model.tabular_parameters import (
    TabularParameters,
    Task,
    Values,
    checked,
    checked_parameters,
)
from backprop_xp.tables.model.training_split import Split, drawn_split
from backprop_xp.training.interfaces.states import TrainingState

Callback: TypeAlias = Callable[[TrainingState], bool | None]


class Given(NamedTuple):
    """Rows to learn from, a validation set or None, and the classes, None for numbers."""

    rows: Rows
    held_out: Rows | None
    classes: np.ndarray | None


class Tabular(BaseEstimator, TabularParameters):
    """The base class of both estimators; a subclass defines its targets."""

    _task: ClassVar[Task]
    _keeps_interrupted = True  # the command ends at Ctrl-C

    def _targets(self, y: np.ndarray, classes: np.ndarray | None) -> tuple[np.ndarray, Any]:
        """Return targets as indices of classes or as numbers, and the classes or None."""
        raise NotImplementedError

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        checkpoint: PathLike | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Fit to a table X, a pandas or polars DataFrame or an array, and y; return the estimator.

        ``X_val``, ``y_val`` and ``sample_weight_val`` are a validation set, which ends the training
        of all members and chooses the epoch. Without it each member holds out its own
        ``validation_fraction`` of the rows, or an equal part of them if the members are more.

        ``checkpoint`` is the path of a model file, written about every second with the best network
        so far, which ``load`` reads. With ``resume`` the training in it continues, to the same
        theta bit for bit; a ValueError names what differs from that training. A larger ``max_iter``
        may: also a training that has ended at its last epoch continues. Without a file the training
        begins. Ctrl-C is raised after a last write to the file. Without ``checkpoint`` it ends the
        training with a warning, and the estimator has the best network so far. ``callbacks`` are
        those of ``bx.fit``. ``metadata`` is JSON by name, which files keep, and which a resumed
        training must have too.

        Rows of weight 0 are left out, but their labels are classes. All other rows, ``X_val``
        included, decide the kinds of the columns. A warning names each column that is left out, and
        each with odd cells, which are read as missing.
        """
        rows = X, y, sample_weight, X_val, y_val, sample_weight_val
        options: dict[str, Any] = {"checkpoint": checkpoint, "resume": resume}
        return self._fit(rows, **options, callbacks=callbacks, metadata=metadata)

    def _fit(
        self,
        rows: Sequence[Any],
        detected: Detected | None = None,
        classes: np.ndarray | None = None,
        *,
        dy: Any = None,
        checkpoint: PathLike | None = None,
        resume: bool = False,
        callbacks: Sequence[Callback] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Fit to the arguments ``rows`` of ``fit``; an error leaves the estimator as it was.

        Without ``detected`` the rows decide the kinds of the columns, with warnings, and without
        ``classes`` y has them all.
        """
        before = dict(vars(self))
        try:
            is_there = checkpoint is not None and Path(checkpoint).exists()
            file = checkpoint if resume and is_there else None
            options = file, checkpoint, callbacks, dict(metadata or {})
            values = checked_parameters(self, self._task)
            given = self._checked(values, classes, *rows, dy=dy, is_whole=detected is None)
            found = self._train(values, given, detected, *options)
        except BaseException:
            self.__dict__ = before
            raise
        self._adopt(found.model)
        if checkpoint is not None and not found.is_written:
            write_model(checkpoint, found.model, found.optimizer, found.state)
        return self

    def _checked(
        self,
        values: Values,
        classes: np.ndarray | None,
        X: Any,
        y: Any,
        sample_weight: Any,
        X_val: Any,
        y_val: Any,
        sample_weight_val: Any,
        *,
        dy: Any,
        is_whole: bool,
    ) -> Given:
        """Return the arguments of ``fit``, checked as scikit-learn does, without rows of weight 0.

        Labels without weight are classes, too. ``is_whole`` is as in ``as_table``.
        """
        if X_val is None and not y_val is sample_weight_val is None:
            raise ValueError("y_val and sample_weight_val belong to a validation set: X_val.")
        numbers, held_out = numbers_among(values["kinds"]), None
        given: dict[str, Any] = {"numbers": numbers, "is_whole": is_whole}
        rows, labels = checked_rows(self, X, y, sample_weight, dy=dy, **given)
        if X_val is not None:
            parts, names = (X_val, y_val, sample_weight_val), [*rows.features]
            held_out, _ = checked_rows(self, *parts, names, numbers=numbers, table="X_val")
        return self._given(rows, held_out, self._targets(labels, classes)[1])

    def _given(self, rows: Rows, held_out: Rows | None, classes: np.ndarray | None = None) -> Given:
        """Return rows for a training, with indices of classes or numbers as their targets."""
        targets, classes = self._targets(rows.target.to_numpy(), classes)
        rows = rows._replace(target=pd.Series(targets, name=rows.target.name))
        if held_out is not None:
            found, _ = self._targets(held_out.target.to_numpy(), classes)
            held_out = held_out._replace(target=pd.Series(found))
        return Given(rows, held_out, classes)

    def _detect(self, given: Given, kinds: Mapping[str, str] | None) -> Detected:
        """Return the kinds of the columns, with a warning for each that is not read as it is."""
        tables = [one.features for one in (given.rows, given.held_out) if one is not None]
        places: list[Place] = [in_row, partial(in_row, table="X_val")]
        detected = detect(*tables, kinds=kinds, places=places[: len(tables)])
        warn(detected.lines())
        return detected

    def _adopt(self, model: TabularModel) -> Self:
        """Set the attributes of a fitted estimator, and return it."""
        self.model_, self.metadata_ = model, dict(model.metadata)
        category = model.record["recipe"]["category"]
        self.preparation_ = Preparation.of(
            model.features,
            has_names=model.has_names,
            max_one_hot=category and category[0],
            random_state=model.record["seed"],
            kinds=model.record["parameters"].get("kinds"),
        )
        self.network_, self.theta_, self.history_ = model.network, model.theta, dict(model.history)
        self.n_iter_, self.best_iter_ = model.record["epoch"], model.record["best_epoch"]
        self.validation_score_ = model.record["best"]
        self.n_features_in_ = len(model.features.seen)
        if model.has_names:
            self.feature_names_in_ = np.asarray(model.features.seen, dtype=object)
        return self

    def _train(
        self,
        values: Values,
        given: Given,
        detected: Detected | None,
        file: PathLike | None,
        checkpoint: PathLike | None,
        callbacks: Sequence[Callback],
        metadata: dict[str, Any],
    ) -> Learned:
        """Return the trained model; the training in ``file`` continues."""
        choice = resolve(backend=self.backend, device=self.device, dtype=values["dtype"])
        written = None if file is None else (file, *read_model(file, choice))
        saved = None if written is None else written[1]
        draws = not isinstance(self.random_state, int | np.integer)
        seed = saved.record["seed"] if saved and draws else seed_of(self.random_state)
        known = saved.features if saved else detected or self._detect(given, values["kinds"])
        split = self._split(given, seed)
        if isinstance(known, Detected):
            known = prepared(known, split.training, PRESETS[values["preset"]], seed)
        source = Source(known, split, split.counts)
        start = started(
            values,
            source,
            choice,
            written,
            seed=seed,
            has_names=hasattr(self, "feature_names_in_"),
            target=given.rows.target.name,
            metadata=metadata,
        )
        if start.is_over:
            return Learned(start.model, is_written=True)
        self.model_ = start.model  # callbacks may look at the preparation
        keeps = self._keeps_interrupted and checkpoint is None
        options: dict[str, Any] = {"callbacks": callbacks, "keeps_interrupted": keeps}
        return learn(values, source, choice, start, checkpoint=checkpoint, **options)

    def _split(self, given: Given, seed: int) -> Split:
        rows, held_out, classes = given
        if held_out is not None:
            return Split(rows, held_out, classes)
        n_members = self.n_members or PRESETS[self.preset].n_members
        return drawn_split(rows, classes, self.validation_fraction, n_members, seed)

    def _outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        check_is_fitted(self)
        return self.model_.outputs(self._plain(X), backend=self.backend, device=self.device)

    def _plain(self, X: Any) -> pd.DataFrame:
        """Return the rows to predict as a plain table; warn about what is read as missing."""
        features, given, lines = self.model_.features, X, list[str]()
        fills = checked(self.on_missing_column, "on_missing_column") == "missing"
        if fills and self.model_.has_names:  # otherwise the positions count
            given, absent = filled(X, features.seen)
            lines += filter(None, [line_about(absent, features)])
        try:
            frame = checked_frame(self, given, features.seen, texts=features.texts)
        except ValueError as error:
            names = () if fills or not self.model_.has_names else features.seen
            _, absent = filled(X, names)
            if not 0 < len(absent) < len(names):
                raise
            raise ValueError(
                f'{error}set_params(on_missing_column="missing") reads the values of a missing '
                "column as missing."
            ) from error
        if checked(self.on_bad_value, "on_bad_value") == "missing":
            frame, found = without_bad_values(frame, features)
            lines += [one.at(in_row(one.row)) for one in found]
        warn(lines)
        return frame

    def _export_c(self, path: PathLike, options: Any) -> None:
        """Write the fitted estimator as a file of C, for ``bx.export_c``."""
        from backprop_xp.tables.export.c_table import export_model

        check_is_fitted(self)
        for name, default in options._field_defaults.items():
            if name not in ("name", "test") and getattr(options, name) is not default:
                raise ValueError(
                    f"{name} is an option of a network's file: that of a table's model has the "
                    "dtype and the preparation of its training, and no derivatives."
                )
        rows = None if options.test is None else self._plain(options.test)
        export_model(path, self.model_, options.name, rows)

    def __sklearn_tags__(self) -> Tags:
        return tags_of_tables(super().__sklearn_tags__())

    def input_gradient(self, X: Any) -> pd.DataFrame:
        """Return the derivatives of ``predict`` by each column of numbers, for each row.

        They are in units of the target over units of the column: the mean over the members. A
        missing number has NaN; categories, dates and texts have no column. The index is X's. A
        classifier's are those of ``predict_proba``: ``found[label]`` has the columns of a class.
        """
        check_is_fitted(self)
        found = self.model_.input_gradient(self._plain(X), backend=self.backend, device=self.device)
        return found.set_axis(X.index, axis=0) if isinstance(X, pd.DataFrame) else found

    def save(self, path: PathLike) -> None:
        """Write the fitted estimator to a model file, without pickle; ``load`` reads it.

        ``random_state`` is kept if it is an integer. ``backend``, ``device``, ``on_bad_value`` and
        ``on_missing_column`` are not kept.
        """
        check_is_fitted(self)
        write_model(path, self.model_)

    @classmethod
    def load(
        cls, path: PathLike, *, backend: str | Backend | None = None, device: Device | None = None
    ) -> Self:
        """Return the estimator that ``save``, or a training with ``checkpoint``, wrote to a file.

        Raises CheckpointError, a ValueError, for any other file.
        """
        model, _ = read_model(path)
        with refusing(path):
            if model.task != cls._task:
                raise ValueError(f"its task is {model.task}, not {cls._task}.")
            return cls._of(model, backend, device)

    @classmethod
    def _of(cls, model: TabularModel, backend: str | Backend | None, device: Device | None) -> Self:
        return cls(**model.record["parameters"], backend=backend, device=device)._adopt(model)
