"""The package's public names: ``dir``, completion and a star import.

Specifies ``backprop_xp``.
"""

import re
import rlcompleter
from pathlib import Path
from typing import Any

import pytest

import backprop_xp as bx
from backprop_xp.extras import install_command
from tests.helpers import python

CHECKS = ["check_gradient", "check_hessian", "check_hvp", "check_jacobian", "check_jvp"]
CHECKS += ["check_layer", "check_least_squares", "check_loss", "check_minimize", "check_network"]
CHECKS += ["check_root", "check_vjp"]
MODULES = ["activations", "backends", "data", "ensemble", "gradient_check", "initializers"]
MODULES += ["losses", "metrics", "optimizers", "plots", "schedules", "tables", "testing"]
WITH_EXTRAS = {"MLPClassifier": "sklearn", "MLPRegressor": "sklearn", "stacked": "sklearn"}
WITH_EXTRAS |= {"TabularClassifier": "tables", "TabularRegressor": "tables"}

# Hide the libraries of all extras.
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "sklearn", "scipy", "pandas", "pyarrow", "safetensors", "matplotlib", "typer",
            "rich", "onnx", "ndonnx", "jax", "torch", "dpnp", "cupy", "array_api_strict",
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def completions(text: str) -> list[str]:
    """Return the completions of Python's own completer, without brackets."""
    completer, found = rlcompleter.Completer({"bx": bx}), list[str]()
    while (one := completer.complete(text, len(found))) is not None:
        found.append(one.rstrip("()"))
    return found


def test_dir_has_the_public_names_and_no_others() -> None:
    names = dir(bx)
    assert names == sorted(set(names))
    assert {*bx.__all__, *MODULES} <= {*names}
    assert {*names} - {*bx.__all__} <= {*WITH_EXTRAS, *MODULES}
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_completion_of_a_module_offers_its_public_names_alone(name: str) -> None:
    module, reference = getattr(bx, name), Path(bx.__file__).parents[1] / "docs" / "reference"
    documented = "".join(page.read_text("utf-8") for page in reference.glob("*.md"))
    names = dir(module)
    assert len(names) == len({*names}) > 1
    if f"automodule:: backprop_xp.{name}\n" not in documented:
        assert [one for one in names if not re.search(rf"\b{one}\b", documented)] == []
    assert not {"Any", "math", "np"} & {*names}


def test_every_public_function_and_class_has_an_example() -> None:
    objects = {name: getattr(bx, name) for name in dir(bx) if name not in MODULES}
    assert [name for name, each in objects.items() if ">>>" not in (each.__doc__ or "")] == []


def test_completion_offers_the_checks() -> None:
    assert completions("bx.check") == [f"bx.{name}" for name in CHECKS]


def test_a_module_is_an_attribute_without_an_import_of_it() -> None:
    program = f"""
import sys
for name in {MODULES}:
    for module in [m for m in sys.modules if m.partition(".")[0] == "backprop_xp"]:
        del sys.modules[module]
    import backprop_xp as bx
    print(name, type(getattr(bx, name)).__name__)
"""
    done = python(program)
    assert done.stdout.splitlines() == [f"{name} module" for name in MODULES], done.stderr


def test_a_star_import_needs_no_extra() -> None:
    done = python(f"{BLOCKED}\nfrom backprop_xp import *\nprint(*sorted(vars()))")
    assert {*bx.__all__} <= {*done.stdout.split()}, done.stderr
    assert not {*WITH_EXTRAS} & {*done.stdout.split()}


def test_without_extras_completion_and_help_still_work() -> None:
    program = f"""{BLOCKED}
import pydoc, rlcompleter, backprop_xp as bx
names = rlcompleter.Completer({{"bx": bx}})
print(*(names.complete("bx.", i) for i in range(100)))
print(pydoc.plain(pydoc.render_doc(bx)).splitlines()[0])
for name in {[*WITH_EXTRAS]!r}:
    try:
        getattr(bx, name)
    except ImportError as error:
        print(error)
"""
    offered, title, *errors = python(program).stdout.splitlines()
    assert {*bx.__all__} <= {word.partition("(")[0].removeprefix("bx.") for word in offered.split()}
    assert title == "Python Library Documentation: package backprop_xp"
    for (name, extra), error in zip(WITH_EXTRAS.items(), errors, strict=True):
        assert error.startswith(f"bx.{name if extra == 'sklearn' else extra} needs")
        assert error.endswith(f": {install_command(extra)}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    missing: Any = "no_such_name"
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(bx, missing)
