"""The command that installs the packages of an extra, for messages."""

import contextlib
import re
from pathlib import Path


def install_command(extra: str, *more: str) -> str:
    """Return the command that installs the packages of an extra and others by their own names.

    It does not name this package, which an index of packages may not have.

    >>> install_command("mpi", "mpich")
    "pip install 'mpi4py>=4.1' mpich"
    """
    import shlex

    packages = _requirements(extra)
    if not packages:
        return f"install the extra {extra!r} of backprop_xp"
    return f"pip install {shlex.join([*packages, *more])}"


def _requirements(extra: str) -> list[str]:
    """Return what the metadata of the installed package, or else the checkout, requires."""
    from importlib import metadata  # 15 ms

    try:
        lines = metadata.requires("backprop_xp") or []
    except metadata.PackageNotFoundError:
        return _requirements_of_checkout(extra)
    matches = (re.fullmatch(rf"(\S+) *; *extra == ['\"]{extra}['\"]", line) for line in lines)
    return [found[1] for found in matches if found]


def _requirements_of_checkout(extra: str) -> list[str]:
    """Return the list in ``pyproject.toml`` beside the package, empty if there is none."""
    import tomllib

    with contextlib.suppress(OSError, KeyError):
        text = Path(__file__).resolve().parents[1].joinpath("pyproject.toml").read_text("utf-8")
        packages: list[str] = tomllib.loads(text)["project"]["optional-dependencies"][extra]
        return packages
    return []
