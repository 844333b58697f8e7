"""Neural networks with hand-written backpropagation, once for every array library."""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from backprop_xp import backends as backends
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
from backprop_xp.extras import install_command
from backprop_xp.networks import ensemble
from backprop_xp.networks.chain.containers import Chain, Residual
from backprop_xp.networks.equations.constrained_layers import Constrained
from backprop_xp.networks.equations.derivative_layers import Derivatives
from backprop_xp.networks.equations.equation_layers import Equation
from backprop_xp.networks.equations.group_layers import Groups, group_rows
from backprop_xp.networks.equations.standard_errors import standard_errors
from backprop_xp.networks.layers import activations
from backprop_xp.networks.layers.activations import Activation
from backprop_xp.networks.layers.columns import Columns, Scale, Standardize
from backprop_xp.networks.layers.core import Activate, Dense, Dropout, LayerNorm
from backprop_xp.networks.layers.embeddings import Embedding, NumericEmbedding
from backprop_xp.networks.losses import loss as losses
from backprop_xp.networks.losses.loss import Loss
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers import initializers
from backprop_xp.training.epochs.history import Writer, write_checkpoints_with
from backprop_xp.training.fit import fit, train
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.interfaces.states import FitResult, TrainingState
from backprop_xp.training.measures import metrics
from backprop_xp.training.measures.averages import EMA, SWA
from backprop_xp.training.measures.early_stopping import EarlyStopping
from backprop_xp.training.measures.plateau import Plateau
from backprop_xp.training.optimizers import first_order as optimizers, schedules
from backprop_xp.training.optimizers.first_order import (
    LBFGS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    LevenbergMarquardt,
    Lion,
    Nadam,
    RMSProp,
)
from backprop_xp.training.rate_range import find_learning_rate
from backprop_xp.training.rows import preprocessing as data

if TYPE_CHECKING:
    from backprop_xp import (
        gradient_check as gradient_check,
        plots,
        tables as tables,
        testing as testing,
    )
    from backprop_xp.estimators.perceptrons import (
        MLPClassifier as MLPClassifier,
        MLPRegressor as MLPRegressor,
    )
    from backprop_xp.estimators.search_stacks import stacked as stacked
    from backprop_xp.files.c_export.c_file import export_c
    from backprop_xp.files.checkpoint import Checkpoint, load, save
    from backprop_xp.files.container import CheckpointError
    from backprop_xp.files.descriptions import register
    from backprop_xp.files.onnx import export_onnx
    from backprop_xp.gradient_check import (
        GradientCheckError,
        GradientReport,
        ProblemReport,
        assert_gradient,
        check_gradient,
        check_hessian,
        check_hvp,
        check_jacobian,
        check_jvp,
        check_layer,
        check_least_squares,
        check_loss,
        check_minimize,
        check_network,
        check_root,
        check_vjp,
        numeric_gradient,
        numeric_hessian,
        numeric_jacobian,
    )
    from backprop_xp.tables.interface.tabular import (
        TabularClassifier as TabularClassifier,
        TabularRegressor as TabularRegressor,
    )

__version__ = "0.1.0"

# These names need no extra: ``from backprop_xp import *`` works wherever the package does.
# fmt: off
__all__ = [
    "EMA", "LBFGS", "SGD", "SWA", "Activate", "Activation", "Adagrad", "Adam", "AdamW",
    "BackendUnavailableError", "Chain", "Checkpoint", "CheckpointError", "Columns", "Constrained",
    "Dense", "Derivatives", "Dropout", "EarlyStopping", "Embedding", "Equation", "FitResult",
    "GradientCheckError", "GradientReport", "Groups", "LayerNorm", "LevenbergMarquardt", "Lion",
    "Loss", "Nadam", "Network", "NumericEmbedding", "Plateau", "ProblemReport", "RMSProp",
    "Residual", "Scale", "Standardize", "TrainingState", "TransferError", "activations", "asarray",
    "assert_gradient", "check_gradient", "check_hessian", "check_hvp", "check_jacobian",
    "check_jvp", "check_layer", "check_least_squares", "check_loss", "check_minimize",
    "check_network", "check_root", "check_vjp", "data", "ensemble", "export_c", "export_onnx",
    "find_learning_rate", "fit", "get_backend", "group_rows", "initializers", "list_backends",
    "load", "losses", "metrics", "mlp", "numeric_gradient", "numeric_hessian", "numeric_jacobian",
    "optimizers", "plots", "register", "resolve", "save", "schedules", "set_default_backend",
    "standard_errors", "to_host", "train", "transfer_guard", "use_backend",
]
# fmt: on

# The other public names: some need an extra.
_PERCEPTRONS = ("MLPClassifier", "MLPRegressor", "stacked")
_ESTIMATORS = (*_PERCEPTRONS, "TabularClassifier", "TabularRegressor")
_MORE = (*_ESTIMATORS, "backends", "gradient_check", "tables", "testing")

# The modules of the names that are imported on first use. The others are gradient_check's.
_MODULES = {name: name for name in ("backends", "gradient_check", "plots", "tables", "testing")}
_MODULES |= dict.fromkeys(("Checkpoint", "load", "save"), "files.checkpoint")
_MODULES |= dict.fromkeys(_PERCEPTRONS, "estimators")
_MODULES |= dict.fromkeys(_ESTIMATORS[3:], "tables")
_MODULES |= {"register": "files.descriptions", "CheckpointError": "files.container"}
_MODULES |= {"export_c": "files.c_export.c_file", "export_onnx": "files.onnx"}

# What the estimators need, which the extras ``sklearn`` and ``tables`` install.
_LIBRARIES = ("sklearn", "scipy")
_NEEDED: dict[str, tuple[str, ...]] = dict.fromkeys(_PERCEPTRONS, _LIBRARIES)
_NEEDED |= dict.fromkeys(_ESTIMATORS[3:], (*_LIBRARIES, "pandas", "pyarrow", "threadpoolctl"))


def __dir__() -> list[str]:
    """Return the public names; the estimators only if what they need is installed.

    Python's completion evaluates each name: one ImportError would leave it without any.
    """
    more = [name for name in _MORE if all(map(_is_installed, _NEEDED.get(name, ())))]
    return sorted([*__all__, *more])


def _is_installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:
        return False


if not TYPE_CHECKING:  # so that a type checker knows the names above and rejects others

    def __getattr__(name: str) -> object:
        """Return a name that is imported on first use: gradient_check alone takes 25 ms."""
        if name not in __all__ and name not in _MORE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        path = _MODULES.get(name, "gradient_check")
        try:
            module = importlib.import_module(f"{__name__}.{path}")
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in _LIBRARIES or path != "estimators":
                raise
            raise ImportError(
                f"bx.{name} needs scikit-learn 1.9 or later: {install_command('sklearn')}"
            ) from error
        return module if name == path else getattr(module, name)


def _checkpoint_writer(network: Network, start: TrainingState, options: Options) -> Writer:
    """Return the function that writes a training's checkpoint; imports files on first use."""
    from backprop_xp.files.checkpoint import checkpoint_writer

    return checkpoint_writer(network, start, options)


# Training calls files without importing them, because files import training.
write_checkpoints_with(_checkpoint_writer)
