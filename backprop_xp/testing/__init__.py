"""The conformance kit: the requirements of a backend, as a table and as tests.

``conformance(backend)`` runs every check and returns the outcomes; ``checks()`` returns the same
checks one by one, for pytest::

    @pytest.mark.parametrize("check", testing.checks(), ids=str)
    def test_conformance(check):
        check("my-backend", "cuda:0")

``bx.testing`` is imported on first use.
"""

from backprop_xp.backends import Backend, get_backend
from backprop_xp.checks import known
from backprop_xp.testing.kit import Check, NotApplicable, Outcome, run

__all__ = ["Check", "NotApplicable", "Outcome", "checks", "conformance", "run"]


def checks(*groups: str) -> list[Check]:
    """Return the checks of some groups, or all.

    The groups are "protocol", "moving data", "parity", "parts" and "trust".
    """
    # The pytest plugin is in this package: every run of pytest imports it.
    from backprop_xp.testing import contract, parity, parts, trust

    every = [*contract.CHECKS, *parity.CHECKS, *parts.CHECKS, *trust.CHECKS]
    for group in groups:
        known(group, list(dict.fromkeys(check.group for check in every)), "group")
    return [check for check in every if not groups or check.group in groups]


def conformance(backend: str | Backend, device: object = None) -> list[Outcome]:
    """Run every check on a backend, and return the outcomes.

    ``backend`` is a name or the object itself; ``device`` a name or the library's own object, None
    for the first one. Raises only if no backend of that name can run here.

    >>> from backprop_xp import testing
    >>> sorted({outcome.status for outcome in testing.conformance("numpy")})
    ['holds', 'not applicable']
    """
    found = get_backend(backend) if isinstance(backend, str) else backend
    return [run(check, found, device) for check in checks()]


def __dir__() -> list[str]:
    return __all__
