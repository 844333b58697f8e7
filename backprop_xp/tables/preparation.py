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
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skrub import DatetimeEncoder, StringEncoder, TableVectorizer

from backprop_xp.tables.encoding import encoded, require_kind
from backprop_xp.tables.reading import as_frame
from backprop_xp.tables.values import is_text, numbers, without_missing

# What a file of a preparation may hold beside scikit-learn's own, which skops trusts.
TRUSTED = [
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.dtype",
    "pandas.DatetimeTZDtype",
    "skrub._datetime_encoder.DatetimeEncoder",
    "skrub._string_encoder.StringEncoder",
    "skrub._to_datetime.ToDatetime",
    "skrub._to_str.ToStr",
]
KINDS = {
    "numeric": "number",
    "datetime": "date",
    "low_cardinality": "category",
    "high_cardinality": "text",
}
# Steps of skrub that do nothing, or what is done here in float64 and for each value by itself.
_IDLE = (
    *("CleanNullStrings", "DropUninformative", "DurationToFloat", "PassThrough"),
    *("ShortReprDict", "ToFloat"),
)
# Texts of fewer values are categories, if each has some ten rows.
_CATEGORIES = 200
# In standard deviations: what is further out would drown everything else.
FAR = 100.0
# Numbers beyond float32 are as good as missing.
_LARGEST = np.finfo(np.float32).max
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

    @property
    def texts(self) -> list[str]:
        """Which columns are texts, and have to be read from a file as they are written there."""
        return [name for name, kind in self.kinds.items() if kind in ("category", "text")]

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
        frame = as_frame(data, texts=self.texts)
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
                require_kind(frame[name], self.steps[name], kind)

    def _columns(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return what is to be standardised, float64, and what is not, ``(rows, n)`` each."""
        scaled = [np.empty((len(frame), 0))]
        plain = [np.empty((len(frame), 0), dtype=np.float32)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unknown categories: they are none of the known ones
            for name, kind in self.kinds.items():
                values = encoded(frame[name], kind, self.steps[name])
                (scaled if self._scaled(name) else plain).append(values)
        found = np.concatenate(scaled, axis=1)
        found[~(np.abs(found) <= _LARGEST)] = np.nan
        return found, np.concatenate(plain, axis=1)

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
    left_out = {name: "a row number" for name in frame if _is_row_number(frame[name])}
    frame = pd.DataFrame({n: _read(frame[n]) for n in frame if n not in left_out})
    vectorizer = TableVectorizer(
        cardinality_threshold=min(_CATEGORIES, max(10, len(frame) // 10)),
        # A two-valued column keeps both of its columns: an unknown value is none of the two.
        low_cardinality=OneHotEncoder(
            handle_unknown="ignore", sparse_output=False, dtype="float32"
        ),
        high_cardinality=StringEncoder(random_state=seed % 2**32),
        datetime=DatetimeEncoder(add_weekday=True),
        drop_if_constant=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # short texts, dates of several formats, ...
        widths = _fitted(vectorizer, frame)
    kinds = {name: KINDS[vectorizer.column_to_kind_[name]] for name in widths}
    left_out |= {
        name: "empty" if frame[name].isna().all() else "the same in all rows"
        for name in frame
        if name not in kinds
    }
    if not kinds:
        raise ValueError("all columns are empty or the same in all rows: nothing to learn from.")
    steps = {name: _kept(vectorizer.all_processing_steps_[name]) for name in kinds}
    scaled = {name: kind for name, kind in kinds.items() if kind in ("number", "date")}
    unscaled = Preparation(scaled, left_out, steps, widths, None)
    return Preparation(kinds, left_out, steps, widths, _scaling(unscaled, frame))


def _fitted(vectorizer: TableVectorizer, frame: pd.DataFrame) -> dict[str, int]:
    """Fit; return how many features each column that is used becomes, in the table's order."""
    vectorizer.fit(frame)
    used = (name for name in frame if name in vectorizer.column_to_kind_)
    return {name: len(vectorizer.input_to_outputs_[name]) for name in used}


def _kept(steps: list[Any]) -> list[Any]:
    """Return the transformers of a column that do something to it."""
    return [step for step in steps if type(step).__name__ not in _IDLE]


def _scaling(preparation: Preparation, frame: pd.DataFrame) -> Pipeline | None:
    blocks = range(0, len(frame), _ROWS)
    numbers = np.concatenate(
        [preparation._columns(frame.iloc[start : start + _ROWS])[0] for start in blocks]
    )
    if not numbers.shape[1]:
        return None
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler()).fit(numbers)


def _is_row_number(column: pd.Series) -> bool:
    """Whether a column is the index that pandas' or R's CSV files have, without a name."""
    nameless = str(column.name).startswith("Unnamed: ")
    return nameless and column.dtype.kind in "iu" and column.is_unique


def _read(column: pd.Series) -> pd.Series:
    """Return a column of texts as numbers if all are, else without those that stand for nothing."""
    if not is_text(column):
        return column
    found, wrong = numbers(column)
    return without_missing(column) if wrong.any() else found
