"""The loops of kernels in C, and the expressions in them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backprop_xp.files.c_export.c_source import TYPES, Source, Text, literal
from backprop_xp.files.c_export.elementwise import BODIES, EXPRESSIONS, INTEGER_BODIES
from backprop_xp.files.c_export.lazy_arrays import LazyArray, Shape, c_strides
from backprop_xp.files.c_export.plan import REDUCTIONS, Kernel, Place, operands


def kernel_lines(kernel: Kernel, places: Mapping[LazyArray, Place], source: Source) -> list[str]:
    """Return the lines of a kernel."""
    if kernel.node.operation == "product":
        return _product_lines(kernel, places, source)
    kept = range(len(kernel.source.shape))
    is_reduction = kernel.node.operation in REDUCTIONS
    reduced = kernel.node.detail if is_reduction else ()
    arrays = {kernel.target: None} | dict.fromkeys(operands(kernel))
    outer = Nest.of(kernel.source.shape, [i for i in kept if i not in reduced], arrays)
    inner = Nest.of(kernel.source.shape, reduced, arrays, first=len(outer.lengths))
    memory = Memory(places, source, {a: (*outer.terms(a), *inner.terms(a)) for a in arrays})
    lines, value = _expression(kernel, memory, source)
    target, kind = memory.entry(kernel.target), kernel.node.dtype
    if is_reduction:
        start, step = _reduction(kernel.node.operation, kind, source, value)
        sums = inner.around([*lines, f"s = {step};"], source)
        lines, value = [f"{TYPES[str(kind)]} s = {start};", *sums], Text("s")
    if kind.kind == "b":
        value = Text(f"(unsigned char)({value})")
    lines = outer.around([*lines, f"{target} = {value};"], source)
    # A block for the variables of an iteration that is the only one.
    return lines if outer.lengths or len(lines) == 1 else _block("", lines)


def _block(head: str, lines: Sequence[str]) -> list[str]:
    """Return lines in braces."""
    return [f"{head}{{", *(f"    {line}" for line in lines), "}"]


@dataclass(frozen=True)
class Nest:
    """Nested loops over some axes; axes that all arrays pass through in one go are one loop."""

    lengths: list[int]
    steps: Mapping[LazyArray, list[int]]
    first: int = 0

    @classmethod
    def of(
        cls, shape: Shape, axes: Sequence[int], arrays: Mapping[LazyArray, Any], first: int = 0
    ) -> "Nest":
        """Return the loops over axes of a shape that all arrays have, or have length 1 in."""
        lengths = list[int]()
        columns = list[list[int]]()
        for axis in axes:
            n = shape[axis]
            column = [_strides(array)[axis] for array in arrays]
            if n == 1:
                continue
            if columns and all(b == n * s for b, s in zip(columns[-1], column, strict=True)):
                lengths[-1], columns[-1] = lengths[-1] * n, column
            else:
                lengths.append(n)
                columns.append(column)
        steps = {array: [column[i] for column in columns] for i, array in enumerate(arrays)}
        return cls(lengths, steps, first)

    @property
    def variables(self) -> list[str]:
        """The names of the loops' variables."""
        return [f"i{self.first + i}" if self.first + i else "i" for i in range(len(self.lengths))]

    def terms(self, array: LazyArray) -> list[tuple[str, int]]:
        """Return the variables with an array's strides."""
        return [*zip(self.variables, self.steps[array], strict=True)]

    def around(self, lines: Sequence[str], source: Source) -> list[str]:
        """Return lines within the loops."""
        result = [*lines]
        for variable, n in reversed([*zip(self.variables, self.lengths, strict=True)]):
            head = f"for ({source.index} {variable} = 0; {variable} < {n}; ++{variable}) "
            result = _block(head, result)
        return result


def _strides(array: LazyArray) -> Shape:
    """Return an array's strides, 0 along axes of length 1."""
    strides = array.layout[2]
    return tuple(0 if n == 1 else s for n, s in zip(array.shape, strides, strict=True))


@dataclass(frozen=True)
class Memory:
    """The places of arrays in memory, and the loops' variables with the strides of each view."""

    places: Mapping[LazyArray, Place]
    source: Source
    terms: Mapping[LazyArray, Sequence[tuple[str, int]]]

    def entry(self, array: LazyArray, more: str = "") -> Text:
        """Return the entry of a view in the current iteration; ``more`` is added to its index."""
        base = array.layout[0]
        if base.operation == "constant" and base.size == 1:
            return literal(base.detail.reshape(-1)[0], base.dtype)
        name, offset = self.start(array)
        return Text(f"{name}[{_sum(offset, self.terms[array], more)}]")

    def start(self, array: LazyArray) -> tuple[str, int]:
        """Return the name of an array's memory, and the index of its first entry."""
        base, offset, _ = array.layout
        if base.operation == "input":
            return base.detail, offset
        if base.operation == "constant":
            return self.source.constant(base.detail), offset
        place = self.places[base]
        return place.name, place.offset + offset

    def pointer(self, array: LazyArray) -> str:
        """Return the address of the entry of a view in the current iteration."""
        name, offset = self.start(array)
        index = _sum(offset, self.terms[array])
        return name if index == "0" else f"{name} + {index}"


def _sum(offset: int, terms: Sequence[tuple[str, int]], more: str = "") -> str:
    """Return the text of an index."""
    parts = [name if step == 1 else f"{step} * {name}" for name, step in terms if step]
    if offset or not (parts or more):
        parts.insert(0, str(offset))
    return " + ".join([*parts, *filter(None, [more])]).replace("+ -", "- ")


def _expression(kernel: Kernel, memory: Memory, source: Source) -> tuple[list[str], Text]:
    """Return the lines that compute a kernel's source in one iteration, and its value."""
    lines, texts = list[str](), dict[LazyArray, Text]()
    uses = Counter(one for array in kernel.fused for one in array.inputs)

    def text_of(array: LazyArray) -> Text:
        return texts[array] if array in texts else memory.entry(array)

    for array in kernel.fused:
        if array.operation == "take":
            step, count = array.detail
            at = f"{source.call('index', np.dtype('int64'))}({text_of(array.inputs[1])}, {count})"
            text = memory.entry(array.inputs[0], at if step == 1 else f"{step} * {at}")
        else:
            text = _operation(array, [*map(text_of, array.inputs)], source)
        if array is not kernel.source and (len(text) > 60 or uses[array] > 1):
            lines.append(f"const {TYPES[str(array.dtype)]} v{len(lines)} = {text};")
            text = Text(f"v{len(lines) - 1}")
        texts[array] = text
    return lines, text_of(kernel.source)


def _operation(array: LazyArray, operands: Sequence[Text], source: Source) -> Text:
    """Return the expression of an operation on the expressions of its inputs."""
    name, dtype = array.operation, array.inputs[0].dtype
    if name == "cast" and array.dtype.kind == "b":
        return Text(f"{operands[0].within(1)} != 0", 0)
    if name == "cast" and array.dtype.kind == "i" and dtype.kind == "f":
        text = f"{source.call('to_integer', dtype)}({operands[0]})"
        return Text(text if array.dtype.itemsize == 8 else f"(long){text}")
    if name in BODIES or (dtype.kind in "bi" and name in INTEGER_BODIES):
        return Text(f"{source.call(name, dtype)}({', '.join(operands)})")
    template, kind = EXPRESSIONS[name], TYPES[str(array.dtype)]
    fill = {"T": kind, "f": "f" if kind == "float" else ""}
    if template.endswith(")") or name == "copy":
        return Text(template.format(*operands, **fill))
    sign = template.replace("{0}", "").replace("{1}", "").strip()
    level = {"+": 1, "-": 1, "*": 2, "/": 2}.get(sign, 0)
    if len(operands) == 1:
        return Text(template.format(operands[0].within(3)), 2)
    first, *others = operands
    return Text(
        template.format(first.within(max(level, 1)), *(x.within(level + 1) for x in others)), level
    )


def _reduction(name: str, dtype: np.dtype[Any], source: Source, value: Text) -> tuple[str, str]:
    """Return where a reduction starts, and the expression of a step with a value."""
    if name in ("sum", "prod"):
        sign = "+" if name == "sum" else "*"
        return str(int(name == "prod")), f"s {sign} {value.within(2)}"
    if dtype.kind == "b":
        sign = "||" if name == "max" else "&&"
        return str(int(name == "min")), f"s {sign} {value.within(3)}"
    limits = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    start = literal(limits[name == "min"], dtype)
    function = source.call({"max": "maximum", "min": "minimum"}[name], dtype)
    return start, f"{function}(s, {value})"


def _product_lines(kernel: Kernel, places: Mapping[LazyArray, Place], source: Source) -> list[str]:
    """Return the lines of a matrix product, row by row."""
    a, b = kernel.node.inputs
    (*shape, n), k = kernel.node.shape, a.shape[-1]
    down, along = b.layout[2][-2:]
    is_by_rows = along == 1 and n > 1
    steps = {a: _strides(a)[:-1], b: (*_strides(b)[:-2], 0)}
    steps[kernel.target] = c_strides(kernel.node.shape)[:-1]
    outer = _rows(shape, steps)
    memory = Memory(places, source, {one: outer.terms(one) for one in steps})
    function = "product" if is_by_rows else "product_by_columns"
    pointers = ", ".join(memory.pointer(one) for one in (a, b, kernel.target))
    step = down if is_by_rows else along
    call = f"{source.call(function, kernel.node.dtype)}({pointers}, {k}, {n}, {step or k});"
    return outer.around([call], source)


def _rows(shape: Sequence[int], steps: Mapping[LazyArray, Shape]) -> Nest:
    """Return the loops over all axes of length 2 or more, with these strides."""
    axes = [i for i, n in enumerate(shape) if n > 1]
    return Nest([shape[i] for i in axes], {a: [s[i] for i in axes] for a, s in steps.items()})
