"""Write the table of docs/gradients_in_the_wild.md anew: ``python -m tests.wild.table``."""

import warnings
from pathlib import Path

from tests.wild.pairs import METHODS, Pair, all_pairs
from tests.wild.test_wild import verdict

PAGE = Path(__file__).parents[2] / "docs" / "gradients_in_the_wild.md"
BEGIN = "<!-- python -m tests.wild.table writes what follows -->\n\n"


def row(pair: Pair) -> str:
    """Return what is checked, where, its verdicts by method, and the reasons where not all pass."""
    case = pair.call()
    found = {
        method: {label: verdict(case, label, method) for label in case.points} for method in METHODS
    }
    cells = []
    for verdicts in found.values():
        kinds = {
            kind: [label for label in verdicts if verdicts[label] == kind]
            for kind in verdicts.values()
        }
        many = len(kinds) > 1
        cells.append(
            "; ".join(kind + many * f" ({', '.join(labels)})" for kind, labels in kinds.items())
        )
    reasons = [case.wrong] if case.wrong else []
    for label, said in case.expected.items():
        named, _, reason = said.partition(": ")
        if any(verdicts.get(label) == named for verdicts in found.values()):
            reasons.append(f"{label}: {reason}")
    return (
        f"| {pair.name} | {', '.join(case.points)} | {' | '.join(cells)} | {'; '.join(reasons)} |"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the libraries' own
    rows = ["| gradient | points | auto | directional | why not pass |", "|---|---|---|---|---|"]
    text = PAGE.read_text("utf-8").partition(BEGIN)[0] + BEGIN
    PAGE.write_text(text + "\n".join([*rows, *map(row, all_pairs())]) + "\n", "utf-8")
