"""A network, or a fitted estimator, as one file of C99 with its interface as comments."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from backprop_xp.backends import Array, DType, dtype_name, owner, to_host
from backprop_xp.checks import boolean, known
from backprop_xp.files.c_export import c_ensemble, c_functions
from backprop_xp.files.c_export.c_functions import Function, Recorded, Scaling
from backprop_xp.files.c_export.c_self_test import test_program
from backprop_xp.files.c_export.c_source import Source, in_comment
from backprop_xp.files.c_export.c_text import check_name, check_tested, file_text, write_files
from backprop_xp.files.c_export.lazy_functions import argument
from backprop_xp.files.recording import exported, in_precision
from backprop_xp.networks.network import Network
from backprop_xp.training.rows.preprocessing import Standardized


class Options(NamedTuple):
    """The options of ``export_c``, with its defaults."""

    name: str = "network"
    dtype: DType = "float32"
    derivatives: bool = False
    gradient: bool = False
    preparation: Standardized | Mapping[str, Array] | None = None
    test: Any = None


@runtime_checkable
class Estimator(Protocol):
    """The interface of an estimator that can be exported."""

    def _export_c(self, path: str | os.PathLike[str], options: Options) -> None:
        """Write the fitted estimator as a file of C."""


def export_c(
    path: str | os.PathLike[str],
    network: Network | Estimator,
    theta: Array | None = None,
    *,
    name: str = "network",
    dtype: DType = "float32",
    derivatives: bool = False,
    gradient: bool = False,
    preparation: Standardized | Mapping[str, Array] | None = None,
    test: Array | None = None,
) -> None:
    """Write a network with its theta ``(P,)`` as a file of C99, which is C++ too.

    ``bx.export_c(path, estimator)`` writes the network of a fitted MLPClassifier or MLPRegressor,
    or as ``bx.tables.export_c`` the estimator of a table; a comment explains the classes.

    ``NAME_predict(x, y)`` is ``network.predict`` of one row, and ``NAME_outputs(x, y)`` the outputs
    before the loss's inverse link. For a stack ``(..., P)``, ``NAME_predict(x, mean, deviation)``
    is ``bx.ensemble.predict``. The file needs ``<math.h>`` alone, allocates no memory and has no
    state; its comments are the interface. ``dtype`` is the precision of its numbers. Two files of
    one program need two names.

    - With ``derivatives``, ``NAME_jacobian(x, jacobian)`` is the derivative of each output by each
      feature. Of a stack, ``NAME_jacobian(x, mean, deviation)`` is that of ``NAME_predict``.
    - With ``gradient``, a device can go on training: ``NAME_gradient(theta, x, targets, gradient)``
      returns the loss of one row and computes its gradient. ``theta`` is then the first argument of
      all functions, and ``NAME_start(theta)`` fills it. Of a stack, the gradient is one member's.
    - With ``preparation``, as of ``bx.save``, x is a raw row: mean and scale standardize it first.
      Where a mean is some thousand times as large as its scale, use float64: float32 has seven
      digits.
    - With ``test``, rows of x, a second file is written: ``network_test.c`` for ``network.c``. Its
      program returns 0 if the results of the first 32 rows are right where it runs.

    The layers' own functions run once on arrays that record them, so your own layers are exported
    too. Raises ValueError for a network that does not define its number of features, for numbers
    that ``dtype`` cannot hold and for a name that cannot begin names in C; TypeError for a layer of
    your own that cannot be recorded.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> path = os.path.join(tempfile.mkdtemp(), "network.c")
    >>> bx.export_c(path, network, network.initialize())
    """
    options = Options(name, dtype, derivatives, gradient, preparation, test)
    if isinstance(network, Network) and theta is not None and _is_path(path):
        export_network(path, network, theta, options)
    else:
        _estimator(path, network, theta)._export_c(path, options)


def export_network(
    path: str | os.PathLike[str],
    network: Network,
    theta: Array,
    options: Options,
    notes: Sequence[str] = (),
) -> None:
    """Write a network; ``notes`` are sentences on x and y, for the interface."""
    check_name(options.name)
    precision = known(dtype_name(options.dtype), ("float32", "float64"), "dtype")
    wanted = boolean(options.derivatives, "derivatives"), boolean(options.gradient, "gradient")
    host = in_precision(exported(network, theta, stack=True), "theta", precision)
    given = options.preparation
    scaling = None if given is None else _scaling(network, given, precision)
    one, made = _functions(network, host, options.name, scaling, wanted)
    text, test = file_text(one, host, made, [f"/* {in_comment(each)} */" for each in notes]), None
    if options.test is not None:
        check_tested(Path(path))
        test = test_program(one, host, options.test, Path(path).name)
    write_files(Path(path), text, test)


def _is_path(path: object) -> bool:
    return isinstance(path, str | os.PathLike)


def _estimator(path: object, given: object, theta: object) -> Estimator:
    """Return the given estimator; raise TypeError, with the order of the arguments, for others."""
    order = "The arguments are bx.export_c(path, network, theta) or bx.export_c(path, estimator)."
    if not _is_path(path):
        raise TypeError(f"path must be the name of a file, not a {type(path).__name__}. {order}")
    if isinstance(given, Network):
        raise TypeError(f"theta is missing: a network holds no parameters. {order}")
    if isinstance(given, type) or not isinstance(given, Estimator):
        kind = type(given).__name__
        what = f"the class {given.__name__}" if isinstance(given, type) else f"a {kind}"
        raise TypeError(
            "network must be a bx.Network or a fitted estimator of this library, not "
            f"{what}. {order} A model file and a training have both. Instead of a Pipeline give "
            "its last step, with preparation={'mean': scaler.mean_, 'scale': scaler.scale_}."
        )
    if theta is not None:
        raise TypeError(f"an estimator has its own theta: leave it out. {order}")
    return given


def _scaling(network: Network, given: Standardized | Mapping[str, Array], dtype: str) -> Scaling:
    """Return a preparation's mean and scale on the host.

    Raises TypeError unless they are arrays, and ValueError unless they fit a row.
    """
    parts = given._asdict() if isinstance(given, Standardized) else given
    if not isinstance(parts, Mapping) or any(owner(one) is None for one in parts.values()):
        raise TypeError(
            "preparation must be a result of bx.data.standardize, or a mapping with its arrays "
            f"mean and scale, not {given!r}."
        )
    n_in, names = network.widths[0], ("mean", "scale")
    shapes = {name: tuple(parts[name].shape) for name in names if name in parts}
    if any(shapes.get(name) not in ((n_in,), (1, n_in)) for name in names):
        raise ValueError(
            f"preparation has the arrays {shapes}, but mean and scale (1, {n_in}) are expected, as "
            "of bx.data.standardize."
        )
    mean, scale = (in_precision(to_host(parts[name]).reshape(1, -1), name, dtype) for name in names)
    if not np.all(scale):
        at = int(np.argmin(scale != 0))
        raise ValueError(f"scale[{at}] is 0 in {dtype}: a constant feature has the scale 1.")
    return Scaling(mean, scale)


def _functions(
    network: Network,
    theta: np.ndarray,
    name: str,
    scaling: Scaling | None,
    wanted: tuple[bool, bool],
) -> tuple[Recorded, list[Function]]:
    """Return the recorded network or stack, and the functions of its file.

    ``wanted`` are whether derivatives and the gradient are.
    """
    source, is_stack = Source.of(network, theta, name), theta.ndim > 1
    derivatives, gradient = wanted
    public, own = f"{{}} {name}_{{}}", "theta" if gradient else f"{name}_theta"
    vector = argument("theta" if is_stack else own, (network.size,), theta.dtype)
    form = f"static {public}_of_member" if is_stack else public
    one = c_functions.recorded(network, vector, source, form, scaling)
    every = c_ensemble.stack_of(one, theta.size // network.size, public, own)
    outputs = c_functions.outputs(one)
    made = [outputs, predict := c_functions.predict(one, outputs)]
    if is_stack:
        made.append(c_ensemble.predict(every, one, predict))
    if derivatives:
        made.append(slopes := c_functions.jacobian(one, predict=is_stack))
        made += [c_ensemble.jacobian(every, one, slopes)] if is_stack else []
    if gradient:
        found = c_functions.gradient(one._replace(form=public))
        made += [c_functions.start(every), c_ensemble.of_member(found) if is_stack else found]
    return every, made
