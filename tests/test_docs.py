"""Every code block, command and example of the README and docs/ runs."""

import ast
import inspect
import os
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backprop_xp as bx
from tests.helpers import HANGING

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# Installation, and commands that need a GPU or a network; .ci/run and nox run them.
NOT_RUN = (
    "pip ",
    "mpirun ",
    "python3 -m venv",
    "nox",
    "BACKPROP_XP_BACKEND=cupy",
    ".venv/bin/",
    "git ",
)
# Commands that train for seconds.
SLOW = r"bench|--restarts|--plot"
# The packages that a page needs beyond those of the tests.
NEEDED = {
    ROOT / "docs" / "dask_and_ray.md": ("distributed", "dask_ml", "ray"),
    ROOT / "docs" / "scale.md": ("mpi4py", "jax"),
    ROOT / "docs" / "check_in_ci.md": ("torch", "jax", "equinox"),
}
# A block of these pages depends on the files of earlier blocks, in both languages.
IN_ORDER = [
    ROOT / "docs" / name
    for name in (
        *("gradient_check.md", "simulator.md", "tables.md", "table_workflows.md"),
        *("messy_table.md",),
    )
]


def blocks(page: Path, languages: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block."""
    return re.findall(rf"^```({languages})\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands_in(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(NOT_RUN)]


def run_python(*arguments: Any, **options: Any) -> str:
    """Run Python on this checkout and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    options |= {"capture_output": True, "text": True, "env": environment, "timeout": HANGING}
    done = subprocess.run([sys.executable, *arguments], check=False, **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture
def _closed_figures() -> Iterator[None]:
    """Close the figures of a page, whose number pyplot limits, as a build of the page does."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.usefixtures("_closed_figures")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_blocks_of_a_page_run_in_order(
    page: Path, xp: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in NEEDED.get(page, ()):
        pytest.importorskip(package, reason=f"nox -s clusters, mpi or wild runs {page.name}")
    monkeypatch.chdir(tmp_path)
    languages = "python|sh" if page in IN_ORDER else "python"
    namespace: dict[str, object] = {"__name__": "__page__"}
    for language, block in blocks(page, languages):
        if language == "python":
            exec(compile(block, str(page), "exec"), namespace)  # noqa: S102 - our own pages
        for command in commands_in(block) if language == "sh" else ():
            run_command(command, tmp_path, monkeypatch)


def test_the_test_files_of_the_page_on_ci_pass_and_a_wrong_rule_fails(
    xp: Any, tmp_path: Path
) -> None:
    if xp.name != "numpy":
        pytest.skip("the arrays are those of PyTorch and JAX")
    page = ROOT / "docs" / "check_in_ci.md"
    for package in NEEDED[page]:
        pytest.importorskip(package, reason="nox -s wild runs check_in_ci.md")
    files = {block.splitlines()[0].removeprefix("# "): block for _, block in blocks(page, "python")}
    right = files["test_swish.py"]
    files["test_wrong.py"] = right.replace("g * (s + beta * x * slope)", "g * (s + x * slope)")
    assert files["test_wrong.py"] != right
    for name, block in files.items():
        (tmp_path / name).write_text(block, "utf-8")
    words = ["-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:xdist", "-p", "no:randomly"]
    run = [sys.executable, *words, "--gradient-html", "gradients.html"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "1"}
    options = {"capture_output": True, "text": True, "env": environment, "timeout": HANGING}
    printed = subprocess.run(run, check=False, cwd=tmp_path, **options).stdout
    assert re.search(r"^1 failed, 4 passed", printed, re.M), printed
    assert "FAILED test_wrong.py::test_swish" in printed
    ((_, shown),) = blocks(page, "text")
    names = re.findall(r"^  (u\^T J.*?|d out.*?)   ", shown, re.M)
    assert len(names) == 2
    assert [name for name in names if name not in printed] == []
    assert (tmp_path / "gradients.html").exists()


COMMANDS = [
    pytest.param(
        command,
        marks=[pytest.mark.thorough] if re.search(SLOW, command) else [],
        id=f"{page.name}: {command}",
    )
    for page in PAGES
    if page not in IN_ORDER
    for _, block in blocks(page, "sh")
    for command in commands_in(block)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_a_page_run(
    command: str, xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if xp.name != "numpy":
        pytest.skip("the commands are run on NumPy alone")
    run_command(command, tmp_path, monkeypatch)


def run_command(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command of a page in this process, in a folder."""
    from tests.commands import run  # it skips the test without typer

    words = shlex.split(command, comments=True)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *arguments = words[len(settings) :]
    assert program == "backprop-xp", "a page shows a command that no test runs"
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a command adds the folder of a module
    done = run(*arguments, **settings)
    assert done.exit_code == 0, done.output


def test_the_losses_on_the_page_of_tables_are_those_of_the_benchmark() -> None:
    tables, benchmarks = (
        (ROOT / "docs" / name).read_text("utf-8") for name in ("tables.md", "benchmarks_tables.md")
    )
    shown = re.findall(r"^\| [^|]* \| (?:log loss|RMSE) \| (.*) \|$", tables, re.M)
    others = benchmarks.partition("## Sixteen tables of 442")[2]
    block = others[others.index("| table | loss | `best`") :].partition("\n\n")[0]
    titles, _, *rows = (line.strip("| ").split(" | ") for line in block.splitlines())
    at = [titles.index(name) for name in ("`default`", "HistGB", "linear")]
    measured = [" | ".join(row[i] for i in at).replace("*", "") for row in rows]
    assert len(shown) == 6
    assert {line.replace("*", "") for line in shown} <= {*measured}


def test_the_digits_example_reaches_an_accuracy_of_97_percent(xp: Any) -> None:
    pytest.importorskip("sklearn")
    output = run_python("-W", "error", str(ROOT / "examples" / "digits.py"))
    assert f"on {xp.name} (" in output
    assert float(re.findall(r"test accuracy ([\d.]+) %", output)[0]) >= 97.0
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", output)]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 10


def test_the_pages_mention_every_public_name() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    missing = [name for name in bx.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []
    for name in ("FitResult", "TrainingState", "BackendUnavailableError", "to_host"):
        assert f"bx.{name}" in text


def test_the_reference_has_every_public_name() -> None:
    text = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    missing = [name for name in bx.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_the_reference_of_the_command_has_every_option() -> None:
    pytest.importorskip("typer")
    from tests.commands import run

    mark, text = map(
        runpy.run_path(str(ROOT / "docs" / "_extensions" / "command_reference.py")).get,
        ("MARK", "reference"),
    )
    assert mark in (ROOT / "docs" / "command.md").read_text("utf-8")
    sections = dict(re.findall(r"^## `backprop-xp (\w+)`\n(.*?)(?=^## |\Z)", text(), re.M | re.S))
    listed = run("--help").output.partition("Commands:")[2]
    assert list(sections) == re.findall(r"^  (\w+) ", listed, re.M)
    for command, section in sections.items():
        options = re.findall(r"^  (--[a-z0-9-]+)", run(command, "--help").output, re.M)
        missing = [o for o in options if not re.search(rf"^`.*{o}\b.*`$", section, re.M)]
        assert missing == ["--help"]


def test_every_page_is_in_the_index() -> None:
    listed = (ROOT / "docs" / "index.md").read_text("utf-8").splitlines()
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages - set(listed) == set()


def test_the_tutorial_quotes_the_librarys_lines() -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
    quoted = re.findall(r"^\|.*\| `(.*)` \| `([\w/]+\.py)` \|$", page, re.M)
    assert len(quoted) > 5
    for line, module in quoted:
        assert line in (ROOT / "backprop_xp" / module).read_text("utf-8")


def test_the_pages_pictures_equal_the_plots_of_their_code() -> None:
    pictures = ROOT / "docs" / "pictures"
    drawn = runpy.run_path(str(pictures / "draw.py"))["pictures"]()
    kept = {path.name: path.read_text("utf-8") for path in pictures.glob("*.svg")}
    assert kept == drawn, "python docs/pictures/draw.py draws them anew"


def test_the_gallery_has_the_code_of_the_front_pages_picture(
    xp: Any,
) -> None:
    if xp.name != "numpy":
        pytest.skip("the picture is NumPy's")
    pytest.importorskip("matplotlib").use("agg")
    _, theta, x, _ = runpy.run_path(str(ROOT / "docs" / "pictures" / "draw.py"))["moons"]()
    namespace: dict[str, Any] = {}
    _, code = blocks(ROOT / "docs" / "gallery.md", "python")[0]
    exec(code, namespace)  # noqa: S102 - our own page
    assert (namespace["X"] == x).all()
    assert (namespace["result"].theta == theta).all()
    call = "plots.decision_surface(network, x, y, theta=result.theta)"
    assert call in code
    assert f"`bx.{call}` draws" in (ROOT / "README.md").read_text("utf-8")


def test_each_example_of_the_gallery_has_a_card_with_its_picture() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "pictures" / "draw.py"))["gallery"]()
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    cards = re.findall(r"^:img-top: (pictures/gallery_(\w+)\.png)$", page, re.M)
    assert [slug for _, slug in cards] == [*drawn]
    assert [path for path, _ in cards if not (ROOT / "docs" / path).exists()] == []
    links = re.findall(r"^:link: \"#(.+)\"$", page, re.M)
    assert [link.replace("-", "_") for link in links] == [*drawn]


def test_the_reference_begins_with_a_line_for_each_public_name() -> None:
    extension = runpy.run_path(str(ROOT / "docs" / "_extensions" / "names_reference.py"))
    page = (ROOT / "docs" / "reference" / "index.md").read_text("utf-8")
    assert extension["MARK"] in page
    lines = extension["reference"](ROOT / "docs" / "reference").splitlines()
    rows = dict(re.findall(r"^\| \{py:obj\}`bx\.(.+?) <.+?>` \| (.+) \|$", "\n".join(lines), re.M))
    modules = {name for name in bx.__all__ if inspect.ismodule(getattr(bx, name))}
    assert {*bx.__all__} - modules - {*rows} == set()
    assert {name for name in modules if not any(row.startswith(f"{name}.") for row in rows)} <= {
        *("activations", "data", "losses", "optimizers"),
    }
    assert [name for name, line in rows.items() if not line.endswith((".", ":"))] == []


def test_an_extra_installs_the_backend_that_the_pages_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (needed,) = project["project"]["optional-dependencies"]["strict"]
    assert needed in project["dependency-groups"]["test"]
    assert "pip install '.[strict]'" in (ROOT / "docs" / "backends.md").read_text("utf-8")


def test_contributing_names_the_module_of_the_table_of_backends() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (module,) = re.findall(r"one line of the table\s+`BUILT_IN` in\s+`(backends/\w+\.py)`", text)
    assert re.search(r"^BUILT_IN\b.* = ", (ROOT / "backprop_xp" / module).read_text("utf-8"), re.M)


def test_the_names_in_the_descriptions_of_the_code_exist() -> None:
    page = (ROOT / "docs" / "how_it_is_built.md").read_text("utf-8")
    names = re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", page)
    assert len(names) > 20
    for name in names:
        if not name.startswith(("bx.", "network.")):
            pkgutil.resolve_name(f"backprop_xp.{name}")
    walks = page.split("\n## ")[1:]
    counts = [len(re.findall(r"^\d+\. ", walk, re.M)) for walk in walks]
    assert sum(map(bool, counts)) == 3
    assert max(counts) <= 8


def test_the_listings_of_the_code_are_functions_and_that_of_a_step_has_at_most_60_lines() -> None:
    page = (ROOT / "docs" / "how_it_is_built.md").read_text("utf-8")
    listing = r"^```{literalinclude} (\S+)\n:language: python\n:pyobject: (\S+)\n```$"
    found = re.findall(listing, page, re.M)
    assert len(found) == page.count("{literalinclude}") > 6
    lengths = {}
    for path, name in found:
        nodes = ast.parse((ROOT / "docs" / path).read_text("utf-8")).body
        for part in name.split("."):
            (node,) = (each for each in nodes if getattr(each, "name", None) == part)
            nodes = getattr(node, "body", [])
        lengths[name] = (node.end_lineno or 0) - node.lineno + 1
    assert lengths["step"] + lengths["descend"] + lengths["_of_rows"] <= 60
    assert max(lengths.values()) <= 60
