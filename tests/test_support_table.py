"""The table of what each backend supports is made of reports, and refuses incomplete ones."""

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "docs" / "support_table.py"


@pytest.fixture(scope="module")
def support() -> ModuleType:
    spec = importlib.util.spec_from_file_location("support_table", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ON_BACKEND = '<properties><property name="on_backend" value="numpy"/></properties>'


def _case(module: str, inside: str = "", *, on_backend: bool = True) -> str:
    properties = ON_BACKEND if on_backend else ""
    return f'<testcase classname="tests.{module}" name="test_it[a]">{properties}{inside}</testcase>'


def _skip(reason: str) -> str:
    return f'<skipped type="pytest.skip" message="{reason}">where</skipped>'


def _report(folder: Path, name: str, *cases: str) -> Path:
    path = folder / f"{name}.xml"
    text = f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_column_counts_what_passed_and_why_the_rest_was_skipped(
    support: ModuleType, tmp_path: Path
) -> None:
    cases = [_case("test_a"), _case("test_a", _skip("slow")), _case("test_a"), _case("test_b")]
    column = support.read_column(_report(tmp_path, "numpy", *cases))
    assert column == {"test_a": (2, Counter(slow=1)), "test_b": (1, Counter())}


def test_a_test_that_does_not_depend_on_the_backend_is_not_counted(
    support: ModuleType, tmp_path: Path
) -> None:
    cases = [_case("test_a"), _case("test_a", on_backend=False), _case("test_b", on_backend=False)]
    column = support.read_column(_report(tmp_path, "numpy", *cases))
    assert column == {"test_a": (1, Counter())}


@pytest.mark.parametrize("inside", ["<failure message='no'/>", "<error message='no'/>"])
@pytest.mark.parametrize("on_backend", [True, False])
def test_a_report_that_holds_a_failure_is_refused(
    support: ModuleType, tmp_path: Path, inside: str, on_backend: bool
) -> None:
    path = _report(tmp_path, "jax", _case("test_a"), _case("test_b", inside, on_backend=on_backend))
    with pytest.raises(support.SupportError, match=r"jax\.xml holds a failure: tests\.test_b::"):
        support.read_column(path)


def test_a_report_that_is_missing_or_empty_is_refused(support: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(support.SupportError, match=r'missing.*nox -s "tests\(torch\)"'):
        support.read_column(tmp_path / "torch.xml")
    with pytest.raises(support.SupportError, match="no test"):
        support.read_column(_report(tmp_path, "torch", _case("test_a", on_backend=False)))


def test_the_table_has_a_row_for_each_subject_and_a_footnote_for_each_reason(
    support: ModuleType,
) -> None:
    columns = {
        "numpy": {"test_a": support.Outcome(3, Counter())},
        "jax": {
            "test_a": support.Outcome(2, Counter(slow=1)),
            "test_b": support.Outcome(1, Counter()),
        },
        "cupy": {"test_a": support.Outcome(0, Counter({"no GPU": 3}))},
    }
    subjects = {"test_a": "Losses", "test_b": "Layers", "test_c": "Nothing of a backend"}
    assert support.table(columns, subjects).splitlines() == [
        "| subject | numpy | jax | cupy |",
        "| --- | ---: | ---: | ---: |",
        "| Losses | 3 | 2 (1 skipped<sup>1</sup>) | 3 skipped<sup>2</sup> |",
        "| Layers | none | 1 | none |",
        "| all | 3 | 3 (1 skipped) | 0 (3 skipped) |",
        "",
        "1. 1 on jax: slow",
        "2. 3 on cupy: no GPU",
        "",
        "Never run, for every test was skipped: cupy. "
        "Everything ran on a CPU: nothing in this table was run on a GPU.",
    ]


def test_what_ran_on_cupy_ran_on_a_gpu(support: ModuleType) -> None:
    ran = {"test_a": support.Outcome(3, Counter())}
    text = support.table({"numpy": ran, "cupy": ran}, {"test_a": "Losses"})
    assert text.endswith("\n\nOn a GPU ran cupy; the others on a CPU.")


def test_a_subject_is_the_first_line_of_a_docstring(support: ModuleType) -> None:
    assert support.subject('"""The command ``check``: a row.\n\nMore of it.\n"""') == (
        "The command `check`: a row"
    )


def test_only_what_stands_between_the_markers_is_replaced(support: ModuleType) -> None:
    page = f"above\n\n{support.BEGIN}\nold\n{support.END}\n\nbelow\n"
    once = support.replace(page, "new")
    assert once == page.replace("old", "new")
    assert support.replace(once, "new") == once
    for broken in ("no markers", f"{support.END}\n{support.BEGIN}", page + page):
        with pytest.raises(support.SupportError, match="The page needs one"):
            support.replace(broken, "new")


def test_the_page_has_the_markers_and_every_test_module_a_subject(support: ModuleType) -> None:
    assert support.replace(support.PAGE.read_text(encoding="utf-8"), "new")
    for path in Path(__file__).parent.glob("test_*.py"):
        assert support.subject(path.read_text(encoding="utf-8")), path.name
