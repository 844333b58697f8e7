"""An array library that no built-in backend owns: array-api-strict's files, loaded a second time.

Its classes are other classes, of modules of another name, so nothing that knows array-api-strict
knows these.
"""

import importlib.util
import sys
from typing import Any

_original = importlib.util.find_spec("array_api_strict")
_spec = importlib.util.spec_from_file_location(
    __name__, _original.origin, submodule_search_locations=_original.submodule_search_locations
)
_copy = importlib.util.module_from_spec(_spec)
sys.modules[__name__] = _copy  # from here on, this is what an import of the name gives
_spec.loader.exec_module(_copy)


def _namespace(self: Any, /, *, api_version: str | None = None) -> Any:
    return _copy


# These two name array_api_strict outright.
_copy._array_object.Array.__array_namespace__ = _namespace
_copy._flags.array_api_strict = _copy
