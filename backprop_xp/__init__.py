"""Neural networks whose backpropagation is written by hand, once, for every array library."""

import importlib
from typing import TYPE_CHECKING, Any

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
from backprop_xp.networks import activations, initializers, losses
from backprop_xp.networks.activations import Activation
from backprop_xp.networks.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.networks.losses import Loss
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.training import data, metrics, optimizers, schedules
from backprop_xp.training.early_stopping import EarlyStopping
from backprop_xp.training.fit import fit, train
from backprop_xp.training.history import Writer, write_checkpoints_with
from backprop_xp.training.optimizers import SGD, Adam, AdamW, RMSProp
from backprop_xp.training.options import Options
from backprop_xp.training.states import FitResult, TrainingState

if TYPE_CHECKING:
    from backprop_xp import plots
    from backprop_xp.estimators.perceptrons import MLPClassifier, MLPRegressor
    from backprop_xp.files.checkpoint import Checkpoint, load, save
    from backprop_xp.files.container import CheckpointError
    from backprop_xp.files.descriptions import register
    from backprop_xp.files.onnx import export_onnx
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
    "optimizers",
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


def _checkpoint_writer(network: Network, start: TrainingState, options: Options) -> Writer:
    """Return the writer of a training's checkpoint; files are imported by who asks for one."""
    from backprop_xp.files.checkpoint import keeper

    return keeper(network, start, options)


write_checkpoints_with(_checkpoint_writer)


# What few need of modules that take milliseconds to import.
_LATER = dict.fromkeys(("Checkpoint", "load", "save"), "files.checkpoint")
_LATER |= dict.fromkeys(("MLPClassifier", "MLPRegressor"), "estimators")
_LATER |= {"register": "files.descriptions", "CheckpointError": "files.container"}
_LATER["export_onnx"] = "files.onnx"
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
