"""The preparation of a table, as a transformer of scikit-learn."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from backprop_xp.backends import owner, refuse_distributed, refuse_masked, to_host
from backprop_xp.checks import integer, known
from backprop_xp.estimators.bases import BaseEstimator, TransformerMixin
from backprop_xp.tables.columns import feature_records
from backprop_xp.tables.columns.detection import detect
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.kinds import checked_kinds, numbers_among
from backprop_xp.tables.columns.scaling import SCALINGS
from backprop_xp.tables.columns.tolerance import warn
from backprop_xp.tables.readers.frames import require_plain, to_pandas
from backprop_xp.tables.readers.table_files import as_table


class Preparation(TransformerMixin, BaseEstimator):
    """A transformer from a table to the features ``(rows, n)`` of a network, float32.

    - ``scaling`` of numbers and dates: ``"standardize"``, or ``"robust"``, by the median and the
      interquartile range, with a smooth limit of 3.
    - ``max_one_hot``: a category of more values is one feature, the index of its value, for a
      ``bx.Embedding``; None makes none, and the 200 most frequent values have a feature each.
    - ``random_state``: an integer makes the coordinates of free text reproducible.
    - ``kinds`` of columns by their names, in place of the detected ones: ``"number"``,
      ``"category"``, ``"date"`` or ``"text"``.

    After ``fit``, ``columns_`` has the kind of each column in use, ``left_out_`` the reason for
    each other one, and ``scaling_`` what was learnt about numbers and dates. The page
    ``docs/table_columns.md`` describes the kinds.

    >>> import pandas as pd
    >>> import backprop_xp as bx
    >>> table = pd.DataFrame({"age": [20, None, 40], "city": ["Rome", "Oslo", "Rome"]})
    >>> preparation = bx.tables.Preparation().fit(table)
    >>> preparation.get_feature_names_out().tolist()
    ['age', 'age missing', 'city=Oslo', 'city=Rome']
    """

    def __init__(
        self,
        *,
        scaling: str = "standardize",
        max_one_hot: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        self.scaling = scaling
        self.max_one_hot = max_one_hot
        self.random_state = random_state
        self.kinds = kinds

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the columns of a table: a pandas or polars DataFrame, or an array ``(rows, n)``.

        ``y`` is not used. A warning names each column that is left out, and each with cells that
        are read as missing. Raises ValueError if no column is left to learn from.
        """
        scaling, most = known(self.scaling, SCALINGS, "scaling"), self.max_one_hot
        if most is not None:
            most = integer(most, "max_one_hot", at_least=0)
        kinds = None if self.kinds is None else checked_kinds(self.kinds, "kinds")
        frame = checked_frame(self, X, numbers=numbers_among(kinds), is_whole=True)
        seed = seed_of(self.random_state)
        require_plain(frame)
        found = detect(frame, kinds=kinds)
        warn(found.lines())
        options: dict[str, Any] = {"scaling": scaling, "max_one_hot": most, "seed": seed}
        return self._adopt(found.learn(frame, None, **options))

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of rows, ``(rows, n)``, float32.

        Raises ValueError, with the column's name, for a string where a number or a date is
        expected. A category that training did not have is encoded as none of the known ones;
        numbers are limited to 100 units of their scale.
        """
        check_is_fitted(self)
        features = self.features_
        return features.transform(checked_frame(self, X, features.seen, texts=features.texts))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the name of each feature; ``input_features`` may repeat the names of columns."""
        check_is_fitted(self)
        if input_features is not None and tuple(input_features) != self.features_.seen:
            raise ValueError("input_features is not equal to feature_names_in_")
        return np.asarray(self.features_.names(), dtype=object)

    def _adopt(self, features: Features) -> Self:
        """Set the attributes of a fitted preparation, and return it."""
        self.features_, self.columns_ = features, features.columns
        self.left_out_, self.scaling_ = features.left_out, features.scaling
        return self

    def to_bytes(self) -> np.ndarray:
        """Return what was learnt as the bytes of a safetensors file."""
        check_is_fitted(self)
        return feature_records.to_bytes(self.features_)

    @classmethod
    def from_bytes(cls, data: np.ndarray) -> Self:
        """Return the preparation of these bytes; raise CheckpointError for any others.

        ``max_one_hot`` and ``random_state`` are the defaults; ``transform`` takes DataFrames.
        """
        return cls.of(feature_records.from_bytes(data))

    @classmethod
    def of(cls, features: Features, *, has_names: bool = True, **parameters: Any) -> Self:
        """Return the fitted preparation with these features, and the parameters that found them.

        ``has_names`` is whether the columns had names that are strings.
        """
        made = cls(scaling=features.scaling.name, **parameters)._adopt(features)
        made.n_features_in_ = len(features.seen)
        if has_names:
            made.feature_names_in_ = np.asarray(features.seen, dtype=object)
        return made

    def __sklearn_tags__(self) -> Tags:
        return tags_of_tables(super().__sklearn_tags__())


def tags_of_tables(tags: Tags) -> Tags:
    """Return the tags of an estimator that takes tables of any kind."""
    tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
    if tags.transformer_tags is not None:
        tags.transformer_tags.preserves_dtype = []
    return tags


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Return an integer as it is, or one that a random state draws."""
    if isinstance(random_state, int | np.integer):
        return integer(random_state, "random_state", at_least=0)
    return int(check_random_state(random_state).randint(2**31 - 1))


def checked_frame(
    estimator: BaseEstimator,
    X: Any,
    names: Sequence[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Return X as a plain table, checked as scikit-learn checks it, but for missing values.

    ``names`` are those of the columns of ``fit``, which calls this without them: scikit-learn
    compares names that are strings, otherwise the position counts. Columns that ``fit`` did not
    have are left out, unless one of its own is missing. ``options`` are those of ``as_table``.
    """
    refuse_distributed(X, "X")
    refuse_masked(X, "X")
    reset = names is None
    if hasattr(X, "to_pandas") or isinstance(X, pd.DataFrame):
        frame = to_pandas(X)
        known = {*getattr(estimator, "feature_names_in_", ())}
        if not reset and known and known <= {*frame.columns}:
            frame = frame.loc[:, frame.columns.isin(known)]
        validate_data(estimator, frame, reset=reset, skip_check_array=True)
        return as_table(frame if reset else frame.set_axis(names, axis=1), **options).frame
    x = X if owner(X) is None else to_host(X)
    x = validate_data(
        estimator,
        x,
        reset=reset,
        dtype=None,
        ensure_all_finite=False,
        ensure_min_samples=2 if reset else 1,
    )
    given = pd.DataFrame(x, columns=names or [f"x{i}" for i in range(x.shape[1])])
    return as_table(given, **options).frame
