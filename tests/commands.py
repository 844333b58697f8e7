"""Calls of the command line: in this process, in a child process, on a terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import backprop_xp as bx

pytest.importorskip("typer")

from typer.testing import CliRunner

from backprop_xp import cli

PACKAGE_FOLDER = Path(bx.__file__).parent.parent
# An environment that chooses nothing.
NOWHERE = {f"BACKPROP_XP_{what}": "" for what in ("BACKEND", "DEVICE", "DTYPE")}
NUMPY = ("--backend", "numpy")
STRICT = ("--backend", "array-api-strict")
ONE_LINE = re.compile(r"error: [^\n]+\n")


def run(*arguments: str, stdin: str = "", **environment: str) -> Any:
    """Run a command in this process, by default on the backend of the suite's environment."""
    words, name = list(arguments), "backprop-xp"
    options = {"input": stdin, "env": environment, "prog_name": name, "color": False}
    return CliRunner().invoke(cli.app, words, **options)


def start(*arguments: str, path: str = "", **environment: str) -> Any:
    """Run the package in a child process without a chosen backend; ``path`` comes first."""
    folders = os.pathsep.join(filter(None, [path, str(PACKAGE_FOLDER)]))
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **NOWHERE, "PYTHONPATH": folders, **environment},
        check=False,
    )


def start_each(*commands: list[str], report: str) -> list[str]:
    """Run commands one after another in a child; return their exit status and an expression."""
    program = (
        "import sys; from backprop_xp.__main__ import main\n"
        f"for words in {commands!r}:\n"
        "    sys.argv[1:] = words\n"
        "    try:\n        main()\n"
        f"    except SystemExit as end:\n        print(end.code, {report}, file=sys.stderr)"
    )
    return list(start("-c", program).stderr.splitlines())


def start_without(*missing: str, words: tuple[str, ...], **environment: str) -> Any:
    """Run a command in a process where some libraries are not installed."""
    program = (
        "import sys; from importlib.machinery import PathFinder; find = PathFinder.find_spec\n"
        f"hide = lambda name, *rest: None if name in {missing!r} else find(name, *rest)\n"
        "PathFinder.find_spec = hide\n"
        f"sys.argv[1:] = {list(words)!r}\n"
        "from backprop_xp.__main__ import main; main()"
    )
    return start("-c", program, **environment)


def on_a_terminal(*arguments: str, stdout: int | None = None) -> str:
    """Return the output of a command on a terminal of 100 columns, with its control codes.

    ``stdout`` is a file that replaces the terminal as the standard output.
    """
    pty = pytest.importorskip("pty")
    environment = {**os.environ, **NOWHERE, "TERM": "xterm", "COLUMNS": "100"}
    environment |= {"PYTHONPATH": str(PACKAGE_FOLDER)}
    command = [sys.executable, "-m", "backprop_xp", *arguments]
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs if stdout is None else stdout, "stderr": theirs}
    with subprocess.Popen(command, env=environment, **streams) as process:
        os.close(theirs)
        output = b""
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # Linux raises it when the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, output
    return output.decode()
