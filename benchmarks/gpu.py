"""The library on a CUDA GPU, beside the GPU's own limits and beside PyTorch and JAX.

``python benchmarks/gpu.py --out gpu.jsonl`` writes a line of JSON as soon as a result is known.
``python benchmarks/gpu.py --table gpu.jsonl`` prints the lines as Markdown. The script needs CuPy
and this checkout on the path; the rows of PyTorch and JAX need these libraries.

Each part and each training has a process of its own. They run in order of importance until the time
is used up. The trainings of a case take turns; R is the median ratio to the time of the step's
matrix products in the same round. Times are medians of rounds, with the ends of their middle half.
``--quick`` uses tiny sizes to test that everything runs; its times mean nothing.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from gpu_parts import Line, digits
from gpu_trainings import TRAININGS, cases

from backprop_xp.cli.bench.race import Child, Entrant, Outcome, race, start_children

ROUNDS = 7
FLOOR = "products, CuPy"
PARTS = [
    ("limits", "float32"),
    ("correctness", "float32"),
    ("trainings", "float32"),
    ("steps", "float32"),
    ("gradient_check", "float64"),
    ("crossover", "float32"),
    ("limits", "tf32"),
    ("correctness", "tf32"),
    ("trainings", "tf32"),
]


def entrant(name: str, maker: str, *arguments: str, precision: str, ends: float) -> Entrant:
    """Return a function ``"module:function"`` in a process of its own."""
    environment = {
        "CUPY_TF32": str(int(precision == "tf32")),  # which CuPy reads once per process
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # other threads would outlive a killed process
    }
    limit = max(1.0, ends - time.monotonic())
    return Entrant(name, maker, arguments, environment, limit)


def measure(lines: IO[str], seconds: float, quick: str) -> None:
    """Measure the parts in order, and write a line for each one that is left out."""
    ends = time.monotonic() + seconds
    with Child(Entrant("header", "gpu_parts:header")) as child:
        about = child.description
    if "missing" in about and not quick:
        sys.exit(f"gpu.py measures a CUDA GPU, and there is none: {about['missing']}")
    write(lines, about | {"quick": bool(quick)})
    for part, precision in PARTS:
        measured = trainings if part == "trainings" else results
        for line in measured(part, precision, quick, about, ends):
            write(lines, {"part": part, "precision": precision, **line})


def write(lines: IO[str], line: Line) -> None:
    lines.write(json.dumps(line, allow_nan=False) + "\n")
    lines.flush()


def reason_to_skip(module: str, precision: str, about: Line, ends: float) -> str:
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    if "missing" in about and (module == "cupy" or precision == "tf32"):
        return f"no GPU: {about['missing']}"
    if precision == "tf32" and about["compute_capability"] < 8.0:
        return "this GPU has no TF32"
    return "no time was left" if ends <= time.monotonic() else ""


def results(part: str, precision: str, quick: str, about: Line, ends: float) -> Iterator[Line]:
    """Yield the lines of a part that CuPy runs."""
    if reason := reason_to_skip("cupy", precision, about, ends):
        yield {"left_out": reason}
        return
    words = (part, precision, quick)
    with Child(entrant(part, "gpu_parts:part", *words, precision=precision, ends=ends)) as child:
        while time.monotonic() < ends:
            answer = child.turn()
            if "error" in answer:
                yield {"left_out": answer["error"]}
            if not answer.get("turn"):
                return
            yield answer["turn"]
    yield {"left_out": "no time was left"}


def trainings(part: str, precision: str, quick: str, about: Line, ends: float) -> Iterator[Line]:
    """Yield the times of the trainings of each case; the trainings take turns."""
    entrants = []
    for what, (module, _) in TRAININGS.items():
        if reason := reason_to_skip(module, precision, about, ends):
            yield {"what": what, "left_out": reason}
            continue
        words = (what, precision, quick)
        entrants.append(
            entrant(what, "gpu_trainings:training", *words, precision=precision, ends=ends)
        )
    with start_children(entrants) as children:
        for name, case in cases(quick).items():
            words = {"case": f"{name}: {case}"}
            if ends <= time.monotonic():
                yield {**words, "left_out": "no time was left"}
                continue
            outcome = race(children, name, 2 if quick else ROUNDS)
            yield from (words | line for line in figures(outcome))


def figures(outcome: Outcome) -> Iterator[Line]:
    for what in outcome.times:
        median, low, high = map(digits, outcome.time(what))
        line: Line = {"what": what, "microseconds": median, "low": low, "high": high}
        if FLOOR in outcome.times:
            line["R"] = digits(outcome.ratio(what, FLOOR).median)
        yield line
    yield from ({"what": what, "left_out": why} for what, why in outcome.left_out.items())


def table(path: Path) -> str:
    """Return the lines of a file as Markdown: times side by side, then the parts' figures."""
    first, *lines = map(json.loads, path.read_text().splitlines())
    more = first.pop("CUDA", {}) | first.pop("versions")
    texts = [", ".join(f"{name}: {text}" for name, text in (first | more).items())]
    rows: dict[tuple[str, str], Line] = {}
    for line in lines:
        if "microseconds" in line:
            median, low, high = (f"{line[name]:.3g}" for name in ("microseconds", "low", "high"))
            where = line["case"], line["precision"]
            row = rows.setdefault(where, dict(zip(("case", "precision"), where, strict=True)))
            row[line["what"]] = f"{median} ({low} to {high}), R {line.get('R', '-')}"
    texts += ["## Microseconds of an update", markdown(list(rows.values()))]
    for part in dict.fromkeys(part for part, _ in PARTS if part != "trainings"):
        own = [line for line in lines if line["part"] == part and "left_out" not in line]
        texts += [f"## {part}", markdown(own, "part")]
    left_out = [line for line in lines if "left_out" in line]
    return "\n\n".join([*texts, "## Left out", markdown(left_out)])


def markdown(rows: Sequence[Line], *hidden: str) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row if name not in hidden))
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [names, ["---"] * len(names), *cells]
    )


def cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="the file to write; default: stdout")
    parser.add_argument("--seconds", type=float, default=540, help="the time to use; default: 540")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few rounds")
    parser.add_argument("--table", type=Path, help="print this file as Markdown instead")
    options = parser.parse_args()
    quick = "quick" if options.quick else ""
    if options.table:
        sys.stdout.write(table(options.table) + "\n")
    elif options.out:
        with options.out.open("w") as lines:
            measure(lines, options.seconds, quick)
    else:
        measure(sys.stdout, options.seconds, quick)


if __name__ == "__main__":
    main()
