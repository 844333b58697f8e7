"""The command that installs the packages of an extra, from a wheel's metadata or a checkout."""

import runpy
import shlex
import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from backprop_xp import extras

CHECKOUT = Path(extras.__file__).parents[1]
PYPROJECT = CHECKOUT / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return the words of each extra's command where only this folder has packages."""
    (folder / "backprop_xp").mkdir()
    path = shutil.copy(extras.__file__, folder / "backprop_xp")
    monkeypatch.setattr(sys, "path", [str(folder), sysconfig.get_path("stdlib")])
    found = runpy.run_path(path)["install_command"]
    return {extra: shlex.split(found(extra)) for extra in EXTRAS}


@pytest.mark.parametrize("quote", ["'", '"'])
def test_an_installed_package_has_the_commands_of_its_metadata(
    quote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["Metadata-Version: 2.4", "Name: backprop_xp", "Version: 1", "Requires-Dist: numpy>=2"]
    for extra, packages in EXTRAS.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {one}; extra == {quote}{extra}{quote}" for one in packages]
    (tmp_path / "backprop_xp-1.dist-info").mkdir()
    (tmp_path / "backprop_xp-1.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")
    expected = {extra: ["pip", "install", *packages] for extra, packages in EXTRAS.items()}
    assert commands(tmp_path, monkeypatch) == expected


def test_a_checkout_has_the_commands_of_its_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PYPROJECT, tmp_path)
    expected = {extra: ["pip", "install", *packages] for extra, packages in EXTRAS.items()}
    assert commands(tmp_path, monkeypatch) == expected


@pytest.mark.parametrize("text", ["", "[project]\nname = 'another'\n"])
def test_a_copy_in_another_project_names_the_extra(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    found = commands(tmp_path, monkeypatch)["plot"]
    assert found == shlex.split("install the extra plot of backprop_xp")


def test_no_message_installs_this_package_from_an_index() -> None:
    for path in (CHECKOUT / "backprop_xp").rglob("*.py"):
        assert "backprop_xp[" not in path.read_text("utf-8"), path
