"""From columns to numbers: what is done with each column of a table, learnt from training rows.

skrub decides what a column is and how it becomes numbers; scikit-learn fills what is missing and
standardises. What was learnt is kept as the transformers of each column: a fitted
``TableVectorizer`` itself says everything ten times over, and takes ten times as long.
"""

import warnings
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skrub import DatetimeEncoder, StringEncoder, TableVectorizer

from backprop_xp.tables.reading import as_frame

# What a file of a preparation may hold beside scikit-learn's own, which skops trusts.
TRUSTED = [
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.dtype",
    "pandas.DatetimeTZDtype",
    "skrub._clean_null_strings.CleanNullStrings",
    "skrub._datetime_encoder.DatetimeEncoder",
    "skrub._duration_to_float.DurationToFloat",
    "skrub._string_encoder.StringEncoder",
    "skrub._to_datetime.ToDatetime",
    "skrub._to_float.ToFloat",
    "skrub._to_str.ToStr",
]
KINDS = {
    "numeric": "number",
    "datetime": "date",
    "low_cardinality": "category",
    "high_cardinality": "text",
}
# Texts that stand for nothing, beside those that skrub knows: N/A, null, ? and their like.
_MISSING = ["-", "--", "n.a.", "N.A."]
# Texts of fewer values are categories, if each has some ten rows.
_CATEGORIES = 200
# In standard deviations: what is further out would drown everything else.
FAR = 100.0
# Rows that are prepared at once: enough to be fast, few enough for copies to be small.
_ROWS = 2**14


@dataclass(frozen=True, eq=False)
class Preparation:
    """What makes a table's columns the features ``(rows, n)`` of a network, float32.

    ``kinds`` says of each column that is used whether it is a number, a date, a category or a text,
    ``left_out`` of the others why; ``steps`` are its transformers. Numbers and dates come first,
    what is missing among them filled by the median, with an indicator, then standardised
    (``scaling``, None if there are none); categories are 0 and 1; texts are coordinates of their
    latent semantic analysis.
    """

    kinds: dict[str, str]
    left_out: dict[str, str]
    steps: dict[str, list[Any]]
    widths: dict[str, int]
    scaling: Pipeline | None

    @property
    def n_features(self) -> int:
        """How many features a row has."""
        return sum(len(places) for places in self.places().values())

    def places(self) -> dict[str, list[int]]:
        """Return which of the features each column became, indicators included."""
        found: dict[str, list[int]] = {name: [] for name in self.kinds}
        scaled = [name for name in self.kinds for _ in range(self._scaled(name))]
        for place, name in enumerate(scaled):
            found[name].append(place)
        missing = [] if self.scaling is None else self.scaling[0].indicator_.features_
        for i, place in enumerate(missing):
            found[scaled[place]].append(len(scaled) + i)
        end = len(scaled) + len(missing)
        for name, width in self.widths.items():
            if not self._scaled(name):
                found[name] += range(end, end + width)
                end += width
        return found

    def _scaled(self, name: str) -> int:
        """Return how many features of a column are standardised: all of them or none."""
        return self.widths[name] if self.kinds[name] in ("number", "date") else 0

    def transform(self, data: Any) -> np.ndarray:
        """Return the features of a table's rows, ``(rows, n)``, float32.

        ``data`` is a path, a pandas or a polars frame; columns that are not used may be there or
        not. Raises ValueError, naming the column, for one that is missing and for texts where
        numbers or dates are expected; a category that training had not is none of the known ones,
        and a number beyond 100 standard deviations is there.
        """
        frame = as_frame(data)
        self._check(frame)
        out = np.empty((len(frame), self.n_features), dtype=np.float32)
        for start in range(0, len(frame), _ROWS):
            block = frame.iloc[start : start + _ROWS]
            scaled, plain = self._columns(block)
            end = 0
            if self.scaling is not None:
                made = self.scaling.transform(scaled)
                end = made.shape[1]
                np.clip(made, -FAR, FAR, out=out[start : start + _ROWS, :end])
            out[start : start + _ROWS, end:] = plain
        return out

    def _check(self, frame: pd.DataFrame) -> None:
        missing = [name for name in self.kinds if name not in frame]
        if missing:
            others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
            raise ValueError(f"there is no column {missing[0]!r}{others}, which the model needs.")
        for name, kind in self.kinds.items():
            if kind in ("number", "date"):
                _require_kind(frame[name], self.steps[name], kind)

    def _columns(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return what is to be standardised and what is not, ``(rows, n)`` each."""
        scaled = [np.empty((len(frame), 0), dtype=np.float32)]
        plain = scaled.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown categories: they are none of the known ones
            for name, kind in self.kinds.items():
                values = _made(frame[name], kind, self.steps[name])
                (scaled if self._scaled(name) else plain).append(values)
        numbers = np.concatenate(scaled, axis=1)
        numbers[~np.isfinite(numbers)] = np.nan  # also what float32 cannot hold
        return numbers, np.concatenate(plain, axis=1)

    def to_bytes(self) -> np.ndarray:
        """Return what ``from_bytes`` makes the preparation of: bytes by skops, without pickle."""
        # Deflated: what skops writes of a vocabulary is long, and repeats itself.
        data = skops.io.dumps(vars(self), compression=zipfile.ZIP_DEFLATED)
        return np.frombuffer(data, dtype=np.uint8)

    @classmethod
    def from_bytes(cls, data: np.ndarray) -> "Preparation":
        """Return the preparation of bytes; types beyond a fixed list are a ValueError."""
        try:
            return cls(**skops.io.loads(data.tobytes(), trusted=TRUSTED))
        except (TypeError, KeyError, zipfile.BadZipFile, AttributeError) as error:
            raise ValueError(f"the preparation cannot be read: {error}") from error


def prepare(data: Any, *, seed: int = 0) -> Preparation:
    """Return the preparation that the training rows of a table ask for.

    ``data`` is a path, a pandas or a polars frame. Columns that are empty or the same in all rows
    are left out; ValueError if none is left.
    """
    frame = as_frame(data)
    vectorizer = TableVectorizer(
        cardinality_threshold=min(_CATEGORIES, max(10, len(frame) // 10)),
        high_cardinality=StringEncoder(random_state=seed),
        datetime=DatetimeEncoder(add_weekday=True),
        drop_if_constant=True,
        null_strings=_MISSING,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short texts, dates of several formats, ...
        widths = _fitted(vectorizer, frame)
    kinds = {name: KINDS[vectorizer.column_to_kind_[name]] for name in widths}
    left_out = {
        name: "empty" if frame[name].isna().all() else "the same in all rows"
        for name in frame
        if name not in kinds
    }
    if not kinds:
        raise ValueError("all columns are empty or the same in all rows: nothing to learn from.")
    steps = {name: _kept(vectorizer.all_processing_steps_[name]) for name in kinds}
    unscaled = Preparation(kinds, left_out, steps, widths, None)
    return Preparation(kinds, left_out, steps, widths, _scaling(unscaled, frame))


def _fitted(vectorizer: TableVectorizer, frame: pd.DataFrame) -> dict[str, int]:
    """Fit; return how many features each column that is used becomes, in the table's order."""
    vectorizer.fit(frame)
    used = (name for name in frame if name in vectorizer.column_to_kind_)
    return {name: len(vectorizer.input_to_outputs_[name]) for name in used}


def _kept(steps: list[Any]) -> list[Any]:
    """Return the transformers of a column that do something to it."""
    idle = ("DropUninformative", "PassThrough", "ShortReprDict")
    return [step for step in steps if type(step).__name__ not in idle]


def _scaling(preparation: Preparation, frame: pd.DataFrame) -> Pipeline | None:
    blocks = range(0, len(frame), _ROWS)
    numbers = np.concatenate(
        [preparation._columns(frame.iloc[start : start + _ROWS])[0] for start in blocks]
    )
    if not numbers.shape[1]:
        return None
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler()).fit(numbers)


def _made(column: pd.Series, kind: str, steps: list[Any]) -> np.ndarray:
    """Return what the transformers make of a column, ``(rows, n)``, float32."""
    made: Any = column
    if kind in ("category", "text"):
        made = _texts(column)
    for step in steps:
        # skrub's take a column, scikit-learn's a table of one.
        made = step.transform(
            made if type(step).__module__.startswith("skrub") else made.to_frame()
        )
    return np.asarray(made, dtype=np.float32).reshape(len(column), -1)


def _texts(column: pd.Series) -> pd.Series:
    """Return a column as texts: a file may have numbers where training rows had texts."""
    if column.dtype.kind == "f" and (column.isna() | (column == np.floor(column))).all():
        column = column.astype("Int64")  # 3, not 3.0
    return column.astype("str")


def _require_kind(column: pd.Series, steps: list[Any], kind: str) -> None:
    """Raise ValueError for the first text of a column that should be a number or a date."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in (
        "fiub" if kind == "number" else "Mm"
    ):
        return
    made: Any = column
    for step in steps:
        if type(step).__name__ in ("CleanNullStrings", "ToDatetime", "ToFloat"):
            wanted, made = made, step.transform(made)
    lost = (wanted.notna() & pd.isna(made)).to_numpy()
    if lost.any():
        raise ValueError(
            f"the column {str(column.name)!r} has {wanted[lost].iloc[0]!r} (row {lost.argmax()}), "
            f"but a {kind} is expected, as in training: correct it, or leave it empty."
        )
