"""Write the tables of docs/gradients_in_the_wild.md: ``python -m tests.wild.table``."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.wild.pairs import METHODS, Pair, all_pairs
from tests.wild.test_wild import verdict

PAGE = Path(__file__).parents[2] / "docs" / "gradients_in_the_wild.md"
BEGIN = "<!-- python -m tests.wild.table writes what follows -->\n\n"


class Finding(NamedTuple):
    """The verdicts on one gradient, ``{method: {point: verdict}}``, and the reasons for them."""

    name: str
    verdicts: dict[str, dict[str, str]]
    reasons: list[str]

    @property
    def points(self) -> str:
        return ", ".join(self.verdicts[METHODS[0]])

    @property
    def passes(self) -> bool:
        found = {kind for at_points in self.verdicts.values() for kind in at_points.values()}
        return found == {"pass"} and not self.reasons


def finding(pair: Pair) -> Finding:
    """Return the verdicts on a gradient at each of its points, by each method."""
    case = pair.call()
    found = {
        method: {label: verdict(case, label, method) for label in case.points} for method in METHODS
    }
    reasons = [reason for reason in (case.wrong, case.noise) if reason]
    for label, expected in case.expected.items():
        named, _, reason = expected.partition(": ")
        if any(verdicts.get(label) == named for verdicts in found.values()):
            reasons.append(f"{label}: {reason}")
    return Finding(pair.name, found, reasons)


def verdicts(found: Finding) -> str:
    """Return the verdicts with their points, of both methods at once if they agree."""
    cells = {}
    for method, at_points in found.verdicts.items():
        kinds = {
            kind: [label for label in at_points if at_points[label] == kind]
            for kind in at_points.values()
        }
        cells[method] = "; ".join(f"{kind} ({', '.join(at)})" for kind, at in kinds.items())
    if len({*cells.values()}) == 1:
        return cells[METHODS[0]]
    return "; ".join(f"{method}: {cell}" for method, cell in cells.items())


def other_rows(findings: Iterable[Finding]) -> list[str]:
    """Return a row for the gradients with the same verdicts and reasons."""
    rows: dict[str, list[str]] = {}
    for found in findings:
        row = f"{verdicts(found)} | {'; '.join(found.reasons)}"
        rows.setdefault(row, []).append(found.name)
    return [f"| {'<br>'.join(names)} | {row} |" for row, names in rows.items()]


def passing_rows(findings: Iterable[Finding]) -> list[str]:
    """Return a row for each library and set of points: the gradients that pass at all of them.

    The last parts of a name are in parentheses, after all the names that have them.
    """
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for found in findings:
        library, _, name = found.name.partition(": ")
        shared, _, last = name.rpartition(", ")
        names = rows.setdefault((library, found.points), {}).setdefault(shared or last, [])
        names.append(last if shared else "itself")
    return [
        f"| {library} | {points} | {'<br>'.join(_groups(names))} |"
        for (library, points), names in rows.items()
    ]


def _groups(names: dict[str, list[str]]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for name, ends in names.items():
        groups.setdefault(", ".join(ends), []).append(name)
    for ends, alike in groups.items():
        yield "; ".join(alike) + f" ({ends})" * (ends != "itself")


def tables(findings: list[Finding]) -> str:
    """Return both tables: the gradients with another verdict than pass, then the others."""
    lines = ["| gradient | verdict (points) | reason |", "|---|---|---|"]
    lines += other_rows(found for found in findings if not found.passes)
    lines += ["", "These gradients pass at all of their points, by both methods."]
    lines += ["Parentheses apply to all names of their line.", ""]
    lines += ["| library | points | gradients |", "|---|---|---|"]
    lines += passing_rows(found for found in findings if found.passes)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the libraries' own
    text = PAGE.read_text("utf-8").partition(BEGIN)[0] + BEGIN
    PAGE.write_text(text + tables([finding(pair) for pair in all_pairs()]), "utf-8")
