"""The public names and their arguments: what a release promises."""

import re

import pytest

from tests import public_signatures as public

CHANGELOG = (
    "# Changelog\n\n## 0.2.0\n\n### Signatures\n\n- `fit`: what is new.\n\n## 0.1.0\n\n`mlp`\n"
)
KEPT = {"fit": "(x)", "mlp": "(sizes)"}


def test_the_changelog_names_every_signature_that_has_changed() -> None:
    changelog = (public.ROOT / "CHANGELOG.md").read_text("utf-8")
    kept = public.read(public.KEPT.read_text("utf-8"))
    names = public.unnamed(public.signatures(), kept, changelog)
    assert not names, f"name them in the changelog; python -m tests.public_signatures: {names}"


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (KEPT, []),
        (KEPT | {"fit": "(x, y)"}, []),
        (KEPT | {"mlp": "(sizes, *, hidden)"}, ["mlp"]),
        (KEPT | {"save": "(path)"}, ["save"]),
        ({"fit": "(x)"}, ["mlp"]),
    ],
)
def test_a_change_needs_its_name_below_signatures(now: dict[str, str], names: list[str]) -> None:
    assert public.unnamed(now, KEPT, CHANGELOG) == names


def test_the_page_of_the_promise_has_every_public_name_once() -> None:
    page = (public.ROOT / "docs" / "stability.md").read_text("utf-8")
    rows = re.findall(r"^\| `(bx[\w.]*)` \| (.*) \| (.*) \|$", page, re.M)
    listed = [
        f"{module}.{name}".removeprefix("bx.")
        for module, *cells in rows
        for name in re.findall(r"`(\w+)`", " ".join(cells))
    ]
    assert sorted(listed) == [*public.public_names()]
