"""The command line: its errors, its output streams and its extras.

Specifies ``__main__``, ``arguments`` and ``output``.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import backprop_xp as bx
from backprop_xp.cli import _COMMANDS
from backprop_xp.cli.output import complain, ending_in_one_line, note, say, say_reports
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.training.measures.metrics import METRICS
from tests.commands import (
    NOWHERE,
    NUMPY,
    ONE_LINE,
    on_a_terminal,
    run,
    start,
    start_each,
    start_without,
)
from tests.helpers import thorough

PACKAGE_FOLDER = Path(bx.__file__).parent.parent
TOO_MANY = "asks for 3,999,999,997 numbers at once"

# The command, and words of its one-line error.
REFUSED = [
    ("xor --sizes 3,2,1", "must start with 2 and end with 1"),
    ("xor --sizes 2,2,2", "must start with 2 and end with 1"),
    ("xor --sizes 2", "must start with 2 and end with 1"),
    ("xor --sizes ''", "must start with 2 and end with 1"),
    ("xor --sizes 2,0,1", "not a positive integer"),
    ("xor --sizes 2,-2,1", "not a positive integer"),
    (f"xor --sizes 2,{'9' * 5000},1", "not a positive integer"),
    ("xor --sizes 2,999999999,1", f"'--sizes': {TOO_MANY}"),
    ("xor --restarts 99999999999", "'--restarts': asks for 899,999,999,991 numbers"),
    ("xor --restarts 0", "--restarts"),
    ("xor --epochs 0", "--epochs"),
    ("xor --seed -1", "--seed"),
    ("xor --hidden rellu", "Did you mean 'relu'?"),
    ("xor --loss hubert", "Did you mean 'huber'?"),
    ("xor --loss categorical_cross_entropy", "use binary_cross_entropy"),
    ("xor --learning-rate nan", "'--learning-rate': must be finite and >= 0, not nan."),
    ("xor --learning-rate -1", "'--learning-rate': must be >= 0, not -1."),
    ("xor --backend numpi", "'--backend': 'numpi' is unknown. Did you mean 'numpy'?"),
    ("xor --plot xor.gif", "must end in .png, .svg, .pdf"),
    ("xor --plot no_such_folder/xor.png", "not a folder"),
    ("xor --plot folder.png", "is a folder"),
    ("xor --lost huber", "--lost"),
    ("check --sizes 3", "needs the widths of the inputs and the outputs. Example: 4,8,3."),
    ("check --sizes 4,two", "has an entry that is not a positive integer. Example: 4,8,3."),
    ("check --sizes 4,1 --loss categorical_cross_entropy", "two classes or more"),
    ("check --sizes 2,999999999,1", f"'--sizes': {TOO_MANY}"),
    ("check --batch 999999999", "'--batch': asks for 7,999,999,992 numbers at once"),
    ("check --batch 0", "--batch"),
    ("check --seed -1", "--seed"),
    ("check --hidden rellu", "Did you mean 'relu'?"),
    ("check --output sigmoidal", "Did you mean 'sigmoid'?"),
    ("check --loss hubert", "Did you mean 'huber'?"),
    ("check --loss binary_cross_entropy --output sigmoid", 'Use output="identity"'),
    ("check --dropout 1", "'--dropout': must be >= 0 and < 1"),
    ("check --l2 -1", "'--l2': must be >= 0"),
    ("check --dtype float16", "Known: float64, float32"),
    ("check --method centred", "Did you mean 'centered'?"),
    ("check --backend numpy --backend array-api", "Did you mean 'array-api-strict'?"),
    ("check --backend numpy --device cpu", "goes with --conformance"),
    ("check --conformance --backend numpy --backend jax", "checks one backend, but 2 are named"),
    ("check --conformance --layer-norm --l2 0.5", "cannot be combined with --layer-norm, --l2:"),
    ("check --conformance --backend numpi", "Did you mean 'numpy'?"),
    ("check --conformance --backend numpy --device cuda:0", "'cuda:0' is unknown to the numpy"),
    ("bench --case X", "'X' is unknown. Known: S, D, M, W, E."),
    ("bench --backend numpi", "Did you mean 'numpy'?"),
    ("bench --rounds 1", "--rounds"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words[:50] for words, _ in REFUSED])
def test_a_bad_option_is_a_one_line_error_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, message: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run(*shlex.split(words), **NOWHERE, COLUMNS="40")
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert ONE_LINE.fullmatch(result.output)


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (("xor",), {"BACKPROP_XP_BACKEND": "numpi"}),
        (("xor",), {"BACKPROP_XP_DTYPE": "int32"}),
        (("check", "--conformance", "--backend", "cupy"), {}),
    ],
)
def test_an_unavailable_choice_is_a_one_line_error(
    words: tuple[str, ...], environment: dict[str, str]
) -> None:
    if "cupy" in words and {row.name: row for row in bx.list_backends()}["cupy"].usable:
        pytest.skip("CuPy has a GPU here")
    result = run(*words, **NOWHERE | environment)
    assert (result.exit_code, result.stdout) == (1, "")
    assert ONE_LINE.fullmatch(result.stderr)


def in_a_shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which ``$COMMAND`` is the command."""
    here = {"PYTHONPATH": str(PACKAGE_FOLDER), "COMMAND": f"{sys.executable} -m backprop_xp"}
    environment = {**os.environ, **NOWHERE, **here}
    return subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, env=environment, check=False
    )


XOR = "$COMMAND xor --backend numpy --epochs 20"


@pytest.mark.skipif(os.name == "nt", reason="it is about a Unix shell")
@pytest.mark.parametrize(
    "command", [f"{XOR} | head -1", thorough(f"{XOR} | true"), "$COMMAND --version | true"]
)
def test_a_closed_pipe_ends_the_command_silently(command: str) -> None:
    done = in_a_shell(command)
    assert done.stderr == ""
    assert bool(done.stdout) == ("head" in command)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("command", "where", "reason"),
    [
        (XOR, ">/dev/full", "space"),
        ("$COMMAND --version", ">&-", "closed"),
        thorough(XOR, ">&-", "closed"),
        thorough("$COMMAND --version", ">/dev/full", "space"),
    ],
)
def test_output_that_cannot_be_written_is_a_one_line_error(
    command: str, where: str, reason: str
) -> None:
    done = in_a_shell(f"{command} {where}")
    assert done.returncode == 1
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert reason in done.stderr


def test_characters_that_stdout_cannot_encode_are_a_one_line_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended, ending_in_one_line():
        "é".encode("ascii")
    assert ended.value.code == 1
    assert ONE_LINE.fullmatch(capsys.readouterr().err)


@pytest.mark.parametrize("words", [("xor", "--help"), thorough(("info",))])
def test_help_and_output_fit_the_columns_of_the_environment(words: tuple[str, ...]) -> None:
    narrow, wide = (run(*words, COLUMNS=c).stdout.splitlines() for c in ("40", "200"))
    # A word that is longer than its column is not broken.
    assert [line for line in narrow if len(line) > 40 and len(line.split()[-1]) < 16] == []
    assert 40 < max(map(len, wide)) <= 80


def test_help_lists_the_names_that_an_option_takes_and_whole_summaries() -> None:
    shown = {words: " ".join(run(words, "--help").stdout.split()) for words in ("train", "xor")}
    shown["check"] = " ".join(run("check", "--help").stdout.split())
    assert ", ".join(ACTIVATIONS) in shown["train"]
    assert ", ".join(ACTIVATIONS) in shown["check"]
    assert ", ".join(LOSSES) in shown["check"]
    assert {*METRICS} <= {*re.findall(r"\w+", shown["train"])}
    assert "A name of" not in "".join(shown.values())
    alone = [name for name in LOSSES if run("xor", "--loss", name, "--epochs", "1").exit_code < 2]
    assert f"--loss <str> {', '.join(alone)};" in shown["xor"]
    listed = " ".join(run("--help").stdout.split())
    for command in _COMMANDS:
        summary, *_ = str(command.__doc__).split("\n\n")
        assert f"{command.__name__} {' '.join(summary.split())}" in listed


@pytest.mark.parametrize(
    "library", ["typer", *map(thorough, ["backprop_xp.cli.table.train", "pydantic"]), "pandas"]
)
def test_ctrl_c_during_the_imports_ends_the_command_without_a_traceback(library: str) -> None:
    program = f"""
import sys
from backprop_xp.__main__ import main

class Press:
    def find_spec(self, name, *rest):
        if name == {library!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Press())
sys.argv[1:] = ["train", "table.csv", "--target", "y"]
main()
"""
    done = start("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_module_runs_the_command() -> None:
    assert "Usage: backprop-xp xor" in start("-m", "backprop_xp", "xor", "--help").stdout
    assert "Usage: backprop-xp [OPTIONS] COMMAND" in run().output
    assert run("--version").stdout == f"backprop-xp {bx.__version__}\n"


@pytest.mark.parametrize(
    ("missing", "words", "extra"),
    [("typer", "--version", "cli"), ("matplotlib", "xor", "plot")],
)
def test_a_missing_extra_is_one_line_with_the_install_command(
    tmp_path: Path, missing: str, words: str, extra: str
) -> None:
    plot = ("--plot", str(tmp_path / "xor.png")) if extra == "plot" else ()
    done = start_without(missing, words=(words, *plot))
    assert (done.returncode, done.stdout) == (1, "")
    assert ONE_LINE.fullmatch(done.stderr)
    assert missing in done.stderr
    assert re.search(rf"pip install .*'{missing}>=", done.stderr)


@pytest.mark.installed
def test_no_command_imports_an_array_library_that_it_does_not_use() -> None:
    heavy = ("matplotlib", "sklearn", "torch", "jax", "cupy", "array_api_strict")
    commands = (["info"], ["check", *NUMPY], ["xor", "--epochs", "2"])
    assert start_each(*commands, report=f"{{*{heavy}}} & {{*sys.modules}}") == ["0 set()"] * 3


def test_a_pipe_gets_plain_lines_even_where_colours_are_forced() -> None:
    forced = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    done = start("-m", "backprop_xp", "xor", *NUMPY, "--epochs", "20", **forced)
    assert (done.returncode, done.stderr) == (0, "")
    assert not set("\x1b\r") & set(done.stdout)
    wrong = start("-m", "backprop_xp", "xor", "--sizes", "9", **forced)
    assert "\x1b" not in wrong.stdout + wrong.stderr


def test_a_terminal_shows_progress_and_the_same_lines() -> None:
    trained = on_a_terminal("xor", "--epochs", "2000", *NUMPY)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", trained)
    cost = "     2000    0.00942946"
    for words in ("epoch 2000/2000", cost, "gradient check: pass", "solved: all four"):
        assert words in plain
    assert "gradient check: \x1b[32mpass\x1b[0m (" in trained
    assert "\x1b[" in trained
    assert "\x1b[?25l" in trained  # the display hides the cursor
    checked = on_a_terminal("check", *NUMPY)
    assert "checking on numpy" in checked
    assert "complex_step" in checked


def test_a_verdict_has_a_colour_on_a_terminal_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = "a: fail (is the user's\ngradient check: fail (1)\n  Jacobian check: inconclusive (2)"
    say_reports(reports)
    assert capsys.readouterr().out == f"{reports}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    say_reports(reports)
    red, yellow = "\x1b[31mfail\x1b[0m", "\x1b[33minconclusive\x1b[0m"
    expected = reports.replace("check: fail", f"check: {red}").replace("inconclusive", yellow)
    assert capsys.readouterr().out == f"{expected}\n"
    monkeypatch.setenv("NO_COLOR", "1")
    say_reports(f"{reports}\x1b[0m")
    assert capsys.readouterr().out == f"{reports}\\x1b[0m\n"


def test_output_to_a_file_does_not_contain_the_terminals_display(tmp_path: Path) -> None:
    lines = run("xor", "--epochs", "200", **NOWHERE).stdout
    with (tmp_path / "lines.txt").open("w") as file:
        output = on_a_terminal("xor", "--epochs", "200", stdout=file.fileno())
    assert (tmp_path / "lines.txt").read_text() == lines
    assert "epoch" in output
    assert "gradient check" not in output


def test_lines_have_escapes_in_place_of_codes(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\N{GREEK SMALL LETTER BETA}\x1b[2J\x9b\u202e\udcff\t1\n2"
    escaped = "\N{GREEK SMALL LETTER BETA}\\x1b[2J\\x9b\\u202e\\udcff"
    say(text)
    assert capsys.readouterr().out == f"{escaped}\\t1\n2\n"
    note(text)
    complain(text)
    assert capsys.readouterr().err == f"{escaped} 1 2\nerror: {escaped} 1 2\n"
