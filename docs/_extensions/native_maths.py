"""Formulas as MathML, which browsers render without scripts, fonts or network."""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_LOGGER = logging.getLogger(__name__)


def _visit(translator: Any, node: nodes.Element) -> None:
    is_block = isinstance(node, nodes.math_block)
    try:
        translator.body.append(str(tex2mathml(node.astext(), as_block=is_block)))
    except MathError as error:
        _LOGGER.warning("%s in the formula %s", error, node.astext(), location=node)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; ``html_math_renderer`` selects it."""
    app.add_html_math_renderer("native_maths", (_visit, None), (_visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
