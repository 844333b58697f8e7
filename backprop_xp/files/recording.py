"""What the exports share: the checks of a network, and the errors of a recorded pass."""

import contextlib
from collections.abc import Iterator

import numpy as np

from backprop_xp.backends import Array, text_of, to_host
from backprop_xp.networks.jets.errors import NoDerivativeError
from backprop_xp.networks.network import Network

_RULE = 'docs/extending.md has the rule, under "A layer".'


def exported(network: Network, theta: Array, *, stack: bool = False) -> np.ndarray:
    """Return theta ``(P,)`` on the host, or with ``stack`` ``(..., P)``.

    Raises TypeError for anything but a network, and ValueError for another stack and for a network
    that does not define its number of features.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"network must be a bx.Network, not a {type(network).__name__}: give path, network, "
            "theta."
        )
    network.check_theta(theta)
    if len(theta.shape) != 1 and not stack:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network ({network.size},) is exported: "
            "choose one of the stack, such as theta[0, :]."
        )
    if network.widths[0] is None:
        raise ValueError(
            "The network does not define its number of features, which the input of an exported "
            f"file needs: give its first layer of another width the attribute n_in. {_RULE}"
        )
    return to_host(theta)


def in_precision(values: np.ndarray, name: str, dtype: str) -> np.ndarray:
    """Return values in the dtype of a file; raise ValueError if one is beyond its range."""
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if np.any(np.isfinite(values) & ~np.isfinite(found)):
        raise ValueError(f"{name} has numbers beyond the range of {dtype}: use dtype='float64'.")
    return found


@contextlib.contextmanager
def recording(
    language: str, arrays: str, elsewhere: str = "In the loss's inverse link."
) -> Iterator[None]:
    """Make an error of the block a TypeError with the layer, and what it runs on: ``arrays``.

    A derivative that layers do not have is missing on any arrays.
    """
    try:
        yield
    except NoDerivativeError:
        raise
    except Exception as error:
        where = " ".join(getattr(error, "__notes__", [elsewhere]))
        raise TypeError(
            f"The network cannot be recorded for {language}: {text_of(error)}. {where} It "
            f"runs on arrays {arrays}: use functions of the array API standard only. {_RULE}"
        ) from error
