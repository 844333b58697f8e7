"""The configuration of Sphinx for `nox -s site`. The build uses no network."""

import os
import shutil
import sys
import tempfile
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path

import backprop_xp

sys.path.append(str(Path(__file__).parent / "_extensions"))

project = "backprop_xp"
author = "The backprop_xp developers"
copyright = author  # noqa: A001 - Sphinx's name
version = release = backprop_xp.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_design"]
extensions += ["native_maths", "command_reference", "live_network", "field_words"]
extensions += ["names_reference"]

# An empty IPython profile. Kernels log errors only: each one warns of its TCP ports.
_ipython = tempfile.TemporaryDirectory()
os.environ["IPYTHONDIR"] = _ipython.name
_profile = Path(_ipython.name, "profile_default")
_profile.mkdir()
(_profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n", "utf-8")

# The build runs the pages whose code has changed, and all if the package or a library has. An
# exception in a block ends it.
nb_custom_formats = {".md": "running_pages.read"}
nb_execution_mode = "cache"
_used = sorted(f"{one.name} {one.version}" for one in distributions())
_used += [
    path.read_text("utf-8") for path in sorted(Path(backprop_xp.__file__).parent.rglob("*.py"))
]
_ran = Path(__file__).parents[1] / "site" / "executed"
nb_execution_cache_path = str(_ran / sha256("\n".join(_used).encode()).hexdigest()[:16])
for _old in {*_ran.glob("*")} - {Path(nb_execution_cache_path)}:
    shutil.rmtree(_old)
nb_execution_raise_on_error = True
nb_execution_in_temp = True
# `nox -s clusters mpi wild` runs these pages: their libraries are not installed for the build.
nb_execution_excludepatterns = ["dask_and_ray.md", "scale.md", "check_in_ci.md"]
nb_execution_timeout = 300
nb_merge_streams = True
nb_code_prompt_show = "Code of this plot"
nb_code_prompt_hide = "Code of this plot"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"
# Annotations name objects of other libraries, private ones and type variables: they have no page.
nitpick_ignore_regex = [(r"py:.*", r"(?!bx\.|backprop_xp\.(?!.*\.(_|[A-Z]$))).*")]

html_theme = "pydata_sphinx_theme"
html_math_renderer = "native_maths"
html_title = f"backprop_xp {release}"
templates_path = ["_templates"]
# The sidebar lists all pages in reading order.
html_sidebars = {"**": ["all-pages.html"]}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
