"""The files around the package: versions, workflows, and what an index of packages shows."""

import ast
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest

import backprop_xp as bx

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
HOSTS = sorted([*(ROOT / ".github" / "workflows").glob("*.yml"), ROOT / ".readthedocs.yaml"])


def bounds(*lists: list[object]) -> dict[str, set[str]]:
    """Return the requirements of each package, as they are written."""
    found: dict[str, set[str]] = {}
    for text in (text for texts in lists for text in texts if isinstance(text, str)):
        found.setdefault(re.split(r"[\[<>=]", text)[0], set()).add(text)
    return found


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.M) == [bx.__version__]


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    version, when = re.findall(r"^## (\S+) \((.*)\)$", changelog, re.M)[0]
    assert version == bx.__version__
    assert re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", when)


def test_each_python_of_nox_has_a_classifier_and_a_job() -> None:
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    (pythons,) = re.findall(r"^PYTHONS = (\[.*?\])", noxfile, re.M)
    jobs = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    named = [
        text.rpartition(" ")[2]
        for text in PROJECT["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", text)
    ]
    assert named == ast.literal_eval(pythons)
    assert f"python: {pythons}" in jobs
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


def test_ruff_has_one_version() -> None:
    (ruff,) = (text for text in GROUPS["lint"] if text.startswith("ruff"))
    assert re.fullmatch(r"ruff==[\d.]+", ruff)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r"repo: (.*)", hooks) == ["local"]


def test_the_tests_install_the_lowest_versions_of_the_extras() -> None:
    tested = bounds(GROUPS["test"], PROJECT["project"]["dependencies"], *EXTRAS.values())
    assert {name: texts for name, texts in tested.items() if len(texts) > 1} == {}


def test_an_index_shows_the_readme_without_links_to_files_of_the_checkout() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    assert hook["fragments"] == [{"path": "README.md"}]
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    _, pages = text.split("## Documentation")
    assert len(pages.partition("\n## ")[0].split()) < 15  # no list of links without their targets
    assert re.findall(r"!?\[[^\]]*\]\((?!https?://)[^)]*\)", text) == []
    assert "it found 17 mistakes in released versions" in " ".join(text.split())


@pytest.mark.parametrize("path", HOSTS, ids=lambda path: path.name)
def test_a_workflow_runs_sessions_that_nox_has(path: Path) -> None:
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    sessions = {
        one.name
        for one in ast.parse(noxfile).body
        if isinstance(one, ast.FunctionDef)
        and any(ast.unparse(each).startswith("nox.session") for each in one.decorator_list)
    }
    lines = re.findall(r"nox -s (.*)", path.read_text("utf-8"))
    words = [word for line in lines for word in shlex.split(line.partition(" -- ")[0])]
    named = [word.rstrip(")").partition("(") for word in words if not word.startswith("$")]
    assert words
    assert {name for name, *_ in named} <= sessions
    assert [one for *_, one in named if one and f'"{one}"' not in noxfile] == []


def test_each_extra_has_a_part_that_its_session_runs() -> None:
    parts = runpy.run_path(str(ROOT / "tests" / "extra_parts.py"))["PARTS"]
    assert {*parts} == {*EXTRAS}
