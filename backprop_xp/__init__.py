"""Neural networks whose backpropagation is written by hand, once, for every array library."""

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
    from backprop_xp.estimators import MLPClassifier, MLPRegressor
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
    "fit",
    "get_backend",
    "initializers",
    "list_backends",
    "losses",
    "metrics",
    "mlp",
    "resolve",
    "schedules",
    "set_default_backend",
    "to_host",
    "train",
    "transfer_guard",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    """Return a name of what takes long to import, for who asks for one.

    That is gradient_check, 25 ms, and the estimators, which need scikit-learn.
    """
    if name in ("MLPClassifier", "MLPRegressor"):
        try:
            import backprop_xp.estimators as estimators
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in ("sklearn", "scipy"):
                raise
            raise ImportError(
                f"bx.{name} needs scikit-learn 1.9 or later: pip install 'backprop_xp[sklearn]'."
            ) from error
        return getattr(estimators, name)
    if name in __all__ or name == "gradient_check":
        import backprop_xp.gradient_check as checks

        return checks if name == "gradient_check" else getattr(checks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
