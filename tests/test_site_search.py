"""The search of the built site: the field's words find the right page first.

Node.js runs the site's own scripts on its own index. ``nox -s site`` builds the site, and runs this
test with its folder in BACKPROP_XP_SITE. The build must be a fresh one: Sphinx drops the entries of
the index of pages that it does not read again.
"""

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import HANGING

DOCS = Path(__file__).parents[1] / "docs"

# What people type, and the pages of which one must be the first result.
QUERIES = {
    "PINN": "equations",
    "physics-informed": "equations",
    "physics-informed neural network": "equations",
    "partial differential equation": "equations",
    "PDE": "equations",
    "inverse problem": "equations",
    "collocation": "equations",
    "boundary condition": "equation_recipes",
    "noisy readings": "equation_recipes",
    "noisy observations": "equation_recipes",
    "parameter estimation": "equation_recipes",
    "periodic boundary": "conditions_between_points",
    "Sobolev": "learning_from_derivatives",
    "Sobolev training": "learning_from_derivatives",
    "gradient-enhanced": "learning_from_derivatives",
    "surrogate": "sensitivities",
    "sensitivity": "sensitivities",
    "sensitivity analysis": "sensitivities",
    "Laplacian": "sensitivities",
    "input gradient": "sensitivities",
    "error propagation": "sensitivities",
    "adjoint": "simulator",
    "weight decay": "training",
    "sweep": "training_runs",
    "hyperparameter": "training_runs",
    "early stopping": "training",
    "learning rate finder": "training",
    "checkpoint": "training_runs",
    "class weight": "training",
    "Levenberg-Marquardt": "training",
    "dropout": "networks",
    "embedding": "networks",
    "ensemble": "ensembles",
    "uncertainty": "ensembles",
    "prediction interval": "tables",
    "missing value": "table_columns",
    "DataFrame": "tables",
    "gradient check": "gradient_check",
    "finite differences": "gradient_check",
    "custom_vjp": "check_in_ci",
    "torch.autograd.Function": "check_in_ci",
    "Equinox": "check_in_ci",
    "continuous integration": "check_in_ci",
    "curve fitting": "fit_a_curve",
    "nonlinear regression": "fit_a_curve",
    "MPI": "scale",
    "CUDA": "gpu_report",
    "GPU": "gpu_report",
    "microcontroller": "deploy",
    "ONNX": "files",
    "migrating": "moving_over",
    "Keras": "moving_over",
    "backpropagation": "tutorial",
    "XOR": "tutorial",
    "benchmark": "benchmarks",
    "array API": "backends",
}

# The scripts of a page expect a browser: this is what they touch before the first search.
SEARCH = """
const fs = require("fs"), vm = require("vm");
const [folder, queries] = process.argv.slice(1);
const nothing = { addEventListener() {}, getElementById: () => null, readyState: "loading" };
nothing.documentElement = { dataset: {} };
global.window = global;
global.document = nothing;
global.localStorage = { setItem() {} };
global.SPHINX_HIGHLIGHT_ENABLED = false;
global._ = (text) => text;
global._ready = () => {};
const names = ["base-stemmer", "english-stemmer", "language_data", "searchtools"];
const files = [...names.map((name) => `_static/${name}.js`), "searchindex.js"];
const there = files.map((file) => `${folder}/${file}`).filter((file) => fs.existsSync(file));
const code = there.map((file) => fs.readFileSync(file, "utf-8"));
code.push(`Search.first = (query) => {
  const found = Search._performSearch(...Search._parseQuery(query));
  return found.length ? found[found.length - 1][0] : null;
};
globalThis.first = Search.first;`);
vm.runInThisContext(code.join(";\\n"));
console.log(JSON.stringify(JSON.parse(queries).map(first)));
"""


@pytest.mark.once
def test_a_search_finds_the_right_page_first() -> None:
    site, node = os.environ.get("BACKPROP_XP_SITE"), shutil.which("node")
    if not site or not node:
        pytest.skip("needs Node.js and BACKPROP_XP_SITE, the folder of a built site")
    run = [node, "-e", SEARCH, str(Path(site).resolve()), json.dumps([*QUERIES])]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=HANGING)
    first = dict(zip(QUERIES, json.loads(done.stdout), strict=True))
    wrong = {word: page for word, page in first.items() if page != QUERIES[word]}
    assert wrong == {}
    assert len(QUERIES) >= 40


def test_a_word_of_the_index_has_one_page_that_exists() -> None:
    pytest.importorskip("sphinx", reason="nox -s site has Sphinx")
    words = runpy.run_path(str(DOCS / "_extensions" / "field_words.py"))["WORDS"]
    pages = {place.partition("#")[0] for place in words}
    assert {page for page in pages if not (DOCS / f"{page}.md").exists()} == set()
    every = [word.lower() for listed in words.values() for word in listed]
    assert len(every) == len(set(every))
