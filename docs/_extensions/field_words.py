"""The field's words in the index of the site, so that its search finds their pages first.

Each word is a main entry of the index, at the top of its page or at a heading of it.
"""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

_LOGGER = logging.getLogger(__name__)

# A page, or "page#heading": its words.
WORDS = {
    "equations": (
        *("PINN", "PINNs", "physics-informed", "physics-informed neural network"),
        *("differential equation", "partial differential equation", "PDE", "ODE", "collocation"),
        *("inverse problem",),
    ),
    "conditions_between_points": ("periodic boundary", "delay", "integral"),
    "equation_recipes": ("boundary condition", "initial condition", "adaptive collocation"),
    "equation_recipes#noisy-readings-their-weight-and-a-coefficient-with-bounds": (
        *("noisy readings", "noisy data", "noisy observations", "observations", "measurements"),
        *("parameter estimation", "parameter identification"),
    ),
    "learning_from_derivatives": (
        *("Sobolev", "Sobolev training", "gradient-enhanced", "energies and forces"),
    ),
    "sensitivities": (
        *("sensitivity", "sensitivity analysis", "surrogate", "surrogate model", "Jacobian"),
        *("input gradient", "Laplacian", "error propagation"),
    ),
    "simulator": ("adjoint", "adjoint method"),
    "gradient_check": ("gradient check", "gradient checking", "gradcheck", "finite differences"),
    "gradient_check#numeric-derivatives": ("numerical derivative", "numeric derivative"),
    "check_in_ci": (
        *("CI", "continuous integration", "custom_vjp", "torch.autograd.Function", "Equinox"),
        *("nn.Module", "GitHub Actions"),
    ),
    "training#optimizers": ("weight decay", "AdamW", "optimizer", "Levenberg-Marquardt", "L-BFGS"),
    "training_runs#restarts-and-hyperparameter-sweeps": (
        *("sweep", "hyperparameter", "hyperparameter sweep", "restarts", "random restarts"),
    ),
    "training#schedules": ("learning rate schedule", "warmup"),
    "training#find-a-learning-rate": ("learning rate finder", "range test"),
    "training#validation-and-metrics": ("early stopping", "validation", "metrics"),
    "training_runs#gradient-accumulation": ("gradient accumulation",),
    "training_runs#averages-of-theta": (
        *("exponential moving average", "stochastic weight averaging"),
    ),
    "training_runs#resume-a-training": ("resume", "checkpoint"),
    "training#weights": ("sample weight", "class weight"),
    "networks": ("layer", "activation", "residual", "layer norm"),
    "networks#dropout": ("dropout",),
    "networks#tables-codes-and-numbers": ("embedding",),
    "ensembles": ("ensemble", "uncertainty", "aleatoric", "epistemic", "bootstrap"),
    "tables": ("tabular", "DataFrame", "CSV", "gradient boosting"),
    "tables#intervals": ("prediction interval", "conformal"),
    "table_columns#missing-values": ("missing value", "imputation"),
    "estimators": ("scikit-learn", "MLPClassifier", "MLPRegressor"),
    "fit_a_curve": ("curve fitting", "nonlinear regression", "least squares"),
    "scale": ("MPI", "distributed training", "data parallel"),
    "gpu_report": ("GPU", "CUDA", "CuPy"),
    "deploy": ("deployment", "microcontroller", "embedded", "C code"),
    "files#onnx": ("ONNX",),
    "files": ("safetensors", "model file"),
    "moving_over": ("migrating", "PyTorch", "Keras"),
    "tutorial": ("backpropagation", "XOR", "chain rule"),
    "benchmarks": ("benchmark", "speed"),
    "backends": ("array API", "backend", "device"),
}


class FieldWords(SphinxTransform):
    """Add the words to each page as it is read, before the index domain reads its entries."""

    default_priority = 800

    def apply(self, **kwargs: Any) -> None:
        """Insert a node of the index into the sections."""
        page = self.env.current_document.docname
        sections = {i: one for one in self.document.findall(nodes.section) for i in one["ids"]}
        for place, words in WORDS.items():
            name, _, heading = place.partition("#")
            if name != page:
                continue
            target = heading or next(iter(sections))
            if target not in sections:
                _LOGGER.warning("%s has no heading %s for %s", page, heading, words)
                continue
            entries = [("single", word, target, "main", None) for word in words]
            sections[target].insert(1, addnodes.index(entries=entries, inline=False))


def setup(app: Any) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(FieldWords)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
