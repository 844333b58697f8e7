"""Write the table of docs/backends.md that says what each backend supports, from test results.

``python docs/support_table.py numpy jax ...`` reads ``.nox/results/numpy.xml`` and so on: pytest's
reports by ``--junitxml``, one for each column. Only tests that run on the suite's backend count.
"""

import ast
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".nox" / "results"
PAGE = ROOT / "docs" / "backends.md"
BEGIN, END = "<!-- support table: begin -->", "<!-- support table: end -->"


class SupportError(Exception):
    """The results make no table; the message says why, and what to do."""


class Outcome(NamedTuple):
    """How the tests of one module went on one backend; ``skipped`` counts the reasons."""

    passed: int
    skipped: Counter[str]


# By the name of a test module: test_losses, for example.
Column = dict[str, Outcome]


def read_column(path: Path) -> Column:
    """Return what one report says of the tests that run on the suite's backend."""
    if not path.exists():
        run = f'nox -s "tests({path.stem})"'
        raise SupportError(f"{path.name} is missing. Make it by {run}, without arguments.")
    column: Column = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 -- of our own tests
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            raise SupportError(f"{path.name} holds a failure: {name}. Repair it, and run it again.")
        if case.find("properties/property[@name='on_backend']") is None:
            continue
        module = str(case.get("classname")).rpartition(".")[2]
        passed, skipped = column.get(module, Outcome(0, Counter()))
        skip = case.find("skipped")
        if skip is None:
            column[module] = Outcome(passed + 1, skipped)
        else:
            column[module] = Outcome(passed, skipped + Counter([str(skip.get("message"))]))
    if not column:
        raise SupportError(f"{path.name} holds no test that runs on the suite's backend.")
    return column


def subject(source: str) -> str:
    """Return what a test module says that it is about: the first line of its docstring."""
    said = ast.get_docstring(ast.parse(source)) or ""
    return said.partition("\n")[0].rstrip(".").replace("``", "`")


def table(columns: Mapping[str, Column], subjects: Mapping[str, str]) -> str:
    """Return the table in Markdown, its footnotes and what was not run."""
    reasons: list[str] = []
    for column in columns.values():
        for outcome in column.values():
            reasons += [reason for reason in outcome.skipped if reason not in reasons]
    lines = [_row(["subject", *columns]), _row(["---", *["---:"] * len(columns)])]
    for module, said in subjects.items():
        outcomes = [column.get(module) for column in columns.values()]
        if any(outcomes):
            lines.append(_row([said, *(_cell(outcome, reasons) for outcome in outcomes)]))
    lines.append(_row(["all", *(_all(column) for column in columns.values())]))
    notes = [_note(number, reason, columns) for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*lines, "", *notes, *[""] * bool(notes), _where(columns)])


def replace(page: str, text: str) -> str:
    """Return the page with ``text`` between its two markers."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise SupportError(f"The page needs one {BEGIN} and, below it, one {END}.")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(outcome: Outcome | None, reasons: Sequence[str]) -> str:
    if outcome is None:
        return "none"
    numbers = ", ".join(str(n) for n, r in enumerate(reasons, start=1) if r in outcome.skipped)
    skipped = f"{outcome.skipped.total()} skipped<sup>{numbers}</sup>"
    if not outcome.skipped:
        return str(outcome.passed)
    return f"{outcome.passed} ({skipped})" if outcome.passed else skipped


def _all(column: Column) -> str:
    skipped = sum(outcome.skipped.total() for outcome in column.values())
    return f"{_passed(column)} ({skipped} skipped)" if skipped else str(_passed(column))


def _passed(column: Column) -> int:
    return sum(outcome.passed for outcome in column.values())


def _note(number: int, reason: str, columns: Mapping[str, Column]) -> str:
    counts = {
        name: sum(outcome.skipped[reason] for outcome in column.values())
        for name, column in columns.items()
    }
    where = ", ".join(f"{count} on {name}" for name, count in counts.items() if count)
    return f"{number}. {where}: {' '.join(reason.split())}"


def _where(columns: Mapping[str, Column]) -> str:
    ran = [name for name, column in columns.items() if _passed(column)]
    on_gpu = [name for name in ran if name.startswith("cupy")]
    idle = [name for name in columns if name not in ran]
    said = [f"Never run, for every test was skipped: {', '.join(idle)}."] if idle else []
    if on_gpu:
        said.append(f"On a GPU ran {', '.join(on_gpu)}; the others on a CPU.")
    else:
        said.append("Everything ran on a CPU: nothing in this table was run on a GPU.")
    return " ".join(said)


def main(names: Sequence[str]) -> None:
    """Rewrite the page with a column for each name."""
    columns = {name: read_column(RESULTS / f"{name}.xml") for name in names}
    sources = sorted((ROOT / "tests").glob("test_*.py"))
    subjects = {path.stem: subject(path.read_text(encoding="utf-8")) for path in sources}
    text = replace(PAGE.read_text(encoding="utf-8"), table(columns, subjects))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SupportError as error:
        sys.exit(str(error))
