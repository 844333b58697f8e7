"""Free text: coordinates of groups of letters. scikit-learn counts and decomposes them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.counts import Counts
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.columns.scaling import Scaling, Weights
from backprop_xp.tables.readers.cells import as_strings, distinct

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

# The options of scikit-learn's vectorizer: groups of 3 and 4 letters within words, the most
# frequent ones. The groups and the number of coordinates are those of skrub's ``StringEncoder``.
# With the coordinates, 2**14 groups take 2 MB of a model's file.
_LETTERS: dict[str, Any] = {"ngram_range": (3, 4), "analyzer": "char_wb", "max_features": 2**14}
_COORDINATES = 30
# The analysis is learnt from at most about so many rows, which bounds its memory.
_ROWS = 2**15
# The groups of letters of training rows without a text: no text has it.
_NO_TEXT = ("\0\0\0",)


@dataclass(frozen=True, eq=False)
class Text(Column):
    """Free text: coordinates of a latent semantic analysis of groups of 3 and 4 letters, float32.

    ``pieces`` are the groups, ``idf`` their inverse document frequencies, ``axes``
    ``(pieces, width)``. ``repeats`` is whether a string has more than two rows on average: then
    the coordinates are scaled as numbers are, so that an embedding can tell the strings apart.
    ``of_numbers`` is whether training had numbers or booleans, as in ``as_strings``.
    """

    pieces: tuple[str, ...] = _NO_TEXT
    idf: np.ndarray = field(default_factory=lambda: np.ones(1))
    axes: np.ndarray = field(default_factory=lambda: np.ones((1, 1), np.float32))
    repeats: bool = False
    of_numbers: bool = False
    kind: ClassVar[str] = "text"
    has_graph: ClassVar[bool] = False
    has_numbers: ClassVar[bool] = False
    unwritten: ClassVar[Mapping[str, Any]] = {"repeats": False, "of_numbers": False}

    @classmethod
    def detect(cls, sample: Sample) -> "Text | str":
        """Return strings of many values, but different words are identifiers, and left out."""
        pairs = [*zip(sample.strings, sample.counts, strict=True), *Counter(sample.drawn).items()]
        if all(count == 1 and len(string.split()) == 1 for string, count in pairs if string):
            return "an identifier"
        return cls.chosen(sample)

    @classmethod
    def chosen(cls, sample: Sample) -> "Text":
        return cls(of_numbers=sample.column.dtype.kind in "iufb")

    def count(self, column: pd.Series, weights: Weights) -> Counts:
        strings, rows = distinct(as_strings(column, of_numbers=self.of_numbers))
        return Counts(strings=tuple(strings[row] or "" for row in rows))

    def finish(self, counts: Counts, *, above: int | None, seed: int) -> "Text":
        given = counts.strings
        present = [string for string in given if string]
        if not present:
            return self
        repeats = 2 * len({*present}) < len(present)
        spaced = (rows[:: -(-len(rows) // _ROWS)] for rows in (given, present))
        # A column of few strings may have none in the rows that are evenly spaced.
        made = self._learn(next(rows for rows in spaced if any(rows)), seed)
        return replace(made, repeats=repeats, of_numbers=self.of_numbers)

    @classmethod
    def _learn(cls, strings: Sequence[str], seed: int) -> "Text":
        """Return the latent semantic analysis, divided by the root of its total variance."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(**_LETTERS)
        counts = vectorizer.fit_transform(strings).astype("float32")
        # Few strings have no decomposition: their first groups of letters are the coordinates.
        axes = np.eye(counts.shape[1], min(_COORDINATES, counts.shape[1]))
        if min(counts.shape) > _COORDINATES:
            svd = TruncatedSVD(_COORDINATES, random_state=seed % 2**32).fit(counts)
            axes = svd.components_.T
        deviation = np.sqrt((counts @ axes).var(axis=0, dtype="float64").sum())
        axes = axes / (deviation if deviation > 0.0 else 1.0)
        pieces = tuple(vectorizer.get_feature_names_out().tolist())
        return cls(pieces, vectorizer.idf_, axes.astype("float32"))

    def check(self) -> None:
        n, idf, axes = len(self.pieces), self.idf, self.axes
        is_right = 0 < len({*self.pieces}) == n
        is_right &= (idf.shape, axes.shape) == ((n,), (n, *axes.shape[1:2]))
        is_right &= (idf.dtype.name, axes.dtype.name, axes.ndim) == ("float64", "float32", 2)
        self._require(is_right and bool(np.isfinite(idf).all() and np.isfinite(axes).all()))

    @property
    def is_scaled(self) -> bool:
        return self.repeats

    @property
    def width(self) -> int:
        return len(self.axes.T)

    @property
    def from_strings(self) -> bool:
        return True

    def names(self, name: str) -> list[str]:
        return [f"{name} {i}" for i in range(self.width)]

    @cached_property
    def vectorizer(self) -> "TfidfVectorizer":
        """The vectorizer that counts the groups of letters."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes two seconds

        indices = {piece: i for i, piece in enumerate(self.pieces)}
        vectorizer = TfidfVectorizer(**_LETTERS, vocabulary=indices)
        vectorizer.idf_ = self.idf
        return vectorizer

    def encode(self, column: pd.Series) -> np.ndarray:
        strings, rows = distinct(as_strings(column, of_numbers=self.of_numbers))
        counts = self.vectorizer.transform([string or "" for string in strings])
        return np.take(counts.astype(np.float32) @ self.axes, rows, axis=0).astype(np.float32)

    def describe(self, scaling: Scaling, first: int) -> dict[str, Any]:
        return {"pieces": len(self.pieces)}

    @staticmethod
    def summary(described: Mapping[str, Any]) -> str:
        return (
            f"text: {described['features']} coordinates of {described['pieces']} groups of letters"
        )
