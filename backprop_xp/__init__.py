"""Neural networks whose backpropagation is written by hand, once, for every array library."""

import importlib
from typing import TYPE_CHECKING, Any

from backprop_xp import activations, data, initializers, losses, metrics, schedules
from backprop_xp.activations import Activation
from backprop_xp.backends import (
    BackendUnavailableError,
    TransferError,
    asarray,
    get_backend,
    list_backends,
    resolve,
    set_default_backend,
    to_host,
    transfer_guard,
    use_backend,
)
from backprop_xp.early_stopping import EarlyStopping
from backprop_xp.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.losses import Loss
from backprop_xp.network import Network
from backprop_xp.optimizers import SGD, Adam, AdamW, RMSProp
from backprop_xp.options import FitResult, TrainingState
from backprop_xp.perceptron import mlp
from backprop_xp.training import fit, train

if TYPE_CHECKING:
    from backprop_xp import plots
    from backprop_xp.checkpoint import Checkpoint, load, save
    from backprop_xp.descriptions import register
    from backprop_xp.estimators import MLPClassifier, MLPRegressor
    from backprop_xp.export import export_onnx
    from backprop_xp.gradient_check import (
        GradientCheckError,
        GradientReport,
        assert_gradient,
        check_gradient,
        check_jacobian,
        check_layer,
        check_loss,
        check_network,
    )
    from backprop_xp.model_files import CheckpointError

__version__ = "0.1.0.dev0"

__all__ = [
    "SGD",
    "Activate",
    "Activation",
    "Adam",
    "AdamW",
    "BackendUnavailableError",
    "Checkpoint",
    "CheckpointError",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "FitResult",
    "GradientCheckError",
    "GradientReport",
    "LayerNorm",
    "Loss",
    "MLPClassifier",
    "MLPRegressor",
    "Network",
    "RMSProp",
    "Residual",
    "TrainingState",
    "TransferError",
    "activations",
    "asarray",
    "assert_gradient",
    "check_gradient",
    "check_jacobian",
    "check_layer",
    "check_loss",
    "check_network",
    "data",
    "export_onnx",
    "fit",
    "get_backend",
    "initializers",
    "list_backends",
    "load",
    "losses",
    "metrics",
    "mlp",
    "plots",
    "register",
    "resolve",
    "save",
    "schedules",
    "set_default_backend",
    "to_host",
    "train",
    "transfer_guard",
    "use_backend",
]


# What few need of modules that take milliseconds to import.
_LATER = dict.fromkeys(("Checkpoint", "load", "save"), "checkpoint")
_LATER |= dict.fromkeys(("MLPClassifier", "MLPRegressor"), "estimators")
_LATER |= {"register": "descriptions", "CheckpointError": "model_files", "export_onnx": "export"}
_LATER["plots"] = "plots"


# What modules need that are not installed with the package, and the extra that brings it.
_EXTRAS = {
    "estimators": ("scikit-learn 1.9 or later", "sklearn", ("sklearn", "scipy")),
    "tables": (
        "pandas and skrub",
        "tables",
        ("pandas", "pyarrow", "sklearn", "skrub"),
    ),
}


def __getattr__(name: str) -> Any:
    """Return a name that is imported on first use: most are gradient_check's, which takes 25 ms."""
    if name in __all__ or name in ("gradient_check", "tables"):
        home = "tables" if name == "tables" else _LATER.get(name, "gradient_check")
        try:
            module = importlib.import_module(f"{__name__}.{home}")
        except ModuleNotFoundError as error:
            needed, extra, libraries = _EXTRAS.get(home, ("", "", ()))
            if str(error.name).partition(".")[0] not in libraries:
                raise
            raise ImportError(
                f"bx.{name} needs {needed}: pip install 'backprop_xp[{extra}]'."
            ) from error
        return module if name == home else getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
