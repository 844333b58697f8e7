"""The conformance kit: what an array library must do to be a backend, as a table and as tests.

``conformance(backend)`` runs every check and returns what came of each; ``checks()`` are the same
checks one by one, for pytest::

    @pytest.mark.parametrize("check", testing.checks(), ids=str)
    def test_conformance(check):
        check("my-backend", "cuda:0")

Import it as ``from backprop_xp import testing``: ``import backprop_xp`` alone leaves it out.
"""

from typing import Any

from backprop_xp.backends import Backend, get_backend
from backprop_xp.testing import arithmetic, contract, moving, networks, standard, trust
from backprop_xp.testing.kit import Check, NotApplicable, Outcome, run

__all__ = ["Check", "NotApplicable", "Outcome", "checks", "conformance", "run"]

_MODULES = (contract, moving, standard, arithmetic, networks, trust)


def checks(*groups: str) -> list[Check]:
    """Return the checks of these groups, of all where none is named.

    The groups are ``"protocol"``, ``"moving data"``, ``"the standard"``, ``"networks"`` and
    ``"trust"``. An unknown one is a ValueError.
    """
    found = [check for module in _MODULES for check in module.CHECKS]
    known = list(dict.fromkeys(check.group for check in found))
    unknown = [group for group in groups if group not in known]
    if unknown:
        raise ValueError(f"group {unknown[0]!r} is unknown. Known: {', '.join(known)}.")
    return [check for check in found if not groups or check.group in groups]


def conformance(backend: str | Backend, device: Any = None) -> list[Outcome]:
    """Run every check on a backend and return what came of each; a failure stops nothing.

    ``backend`` is a name or the object itself; ``device`` a name or the library's own object, None
    for the first one. Raises only where no backend of that name can run here.

    >>> from backprop_xp import testing
    >>> sorted({found.status for found in testing.conformance("numpy")})
    ['holds', 'not applicable']
    """
    home = get_backend(backend) if isinstance(backend, str) else backend
    return [run(check, home, device) for check in checks()]
