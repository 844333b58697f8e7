"""scikit-learn's base classes, for type checkers too.

scikit-learn declares no types. With a base of unknown type, a type checker would accept any
argument of an estimator's constructor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class BaseEstimator:
        """The base class, whose methods and fitted attributes have no types."""

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
        def __sklearn_tags__(self) -> Any: ...

    class ClassifierMixin:
        """The methods of a classifier."""

    class RegressorMixin:
        """The methods of a regressor."""

    class TransformerMixin:
        """The methods of a transformer."""

    class CallbackSupportMixin:
        """The methods of an estimator that takes callbacks."""

else:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
    from sklearn.callback import CallbackSupportMixin

__all__ = [
    "BaseEstimator",
    "CallbackSupportMixin",
    "ClassifierMixin",
    "RegressorMixin",
    "TransformerMixin",
]
