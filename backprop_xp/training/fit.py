"""Training: ``train`` yields a state per epoch, ``fit`` runs it to the end and keeps a history.

Each network of a stack is trained by itself: losses are ``(*stack,)``, and so are clipping, early
stopping and plateaus. Losses stay on the device; ``fit`` moves them at the end, or at each epoch if
a callback, a display or a rule needs them.
"""

import contextlib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack, get_type_hints

from backprop_xp.backends import Array, owner
from backprop_xp.checks import boolean, known, nearest, sequence, stacklevel, with_options
from backprop_xp.display.progress import Report, reporting
from backprop_xp.networks.network import Network
from backprop_xp.training.epochs.history import (
    Record,
    Writer,
    checkpoint_writer,
    history_of,
    on_host,
    returned,
    write_if_due,
)
from backprop_xp.training.epochs.loop import EPOCHS_BETWEEN_READS, has_ended, run_epochs
from backprop_xp.training.epochs.set_up import Training, prepare
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import OPTION_NAMES, Batches, Options, TrainingOptions
from backprop_xp.training.interfaces.process_protocol import Processes, Split
from backprop_xp.training.interfaces.states import FitResult, TrainingState
from backprop_xp.training.optimizers.pytrees import copied
from backprop_xp.training.processes.one_process import OneProcess

# Full-batch epochs in one call of ``run_epochs``, which keeps their losses to its end.
_EPOCHS_AT_ONCE = 2000

Function = TypeVar("Function", bound=Callable[..., Any])


def _checked(function: str, options: Mapping[str, Any], *others: str) -> Options:
    """Return the checked options of ``train`` or ``fit``; ``others`` are its other arguments."""
    for name in options:
        if name not in OPTION_NAMES:
            names = [*OPTION_NAMES, *others]
            raise TypeError(f"{function} has no option {name!r}. {nearest(name, names)}")
    for name, example in (("optimizer", "bx.Adam()"), ("epochs", "100")):
        if name not in options:
            raise TypeError(f"{function} needs {name}=, such as {name}={example}.")
    checked, start = Options(**options), options.get("start")
    # A state may be the last one in a file: its program then runs once more.
    if isinstance(start, FitResult) and start.state.epoch == checked.epochs:
        warnings.warn(
            f"Nothing is trained: start has run all epochs={checked.epochs}, which counts from the "
            f"beginning of the training. For {checked.epochs} more, epochs={2 * checked.epochs}.",
            stacklevel=stacklevel(),
        )
    return checked


def _with_options(function: Function) -> Function:
    """Show the options in a function's signature, and explain them in its docstring.

    They come before the keyword arguments of its own: ``optimizer`` and ``epochs`` are required.
    """
    own, types = inspect.signature(function).parameters, get_type_hints(TrainingOptions)
    with_options(
        function,
        (
            parameter.replace(annotation=types[name])
            for name, parameter in inspect.signature(Options).parameters.items()
        ),
    )
    signature = inspect.signature(function)
    parameters = sorted(
        signature.parameters.values(),
        key=lambda parameter: (
            parameter.kind,
            parameter.kind is parameter.KEYWORD_ONLY and parameter.name in own,
        ),
    )
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    explained = inspect.getdoc(Options) or ""
    lines = inspect.cleandoc(function.__doc__ or "").replace(
        "{options}", explained[explained.index("- ``optimizer``") :]
    )
    function.__doc__ = lines
    return function


@_with_options
def train(
    network: Network,
    theta: Array,
    x: Array | Batches,
    y: Array | None = None,
    **options: Unpack[TrainingOptions],
) -> Iterator[TrainingState]:
    """Return an iterator of ``TrainingState``; each time it is advanced, it trains for an epoch.

    ``theta``, ``(*stack, P)``, is copied and never written. ``x`` is ``(batch, n_in)`` or
    ``(*stack, batch, n_in)``, ``y`` likewise with ``n_out``.

    {options}

    The arguments are checked when ``train`` is called.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 4, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]]
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> for state in bx.train(network, theta, x, y, optimizer=bx.Adam(0.1), epochs=200):
    ...     pass
    >>> network.predict(state.theta, x).round().T
    array([[0., 1., 1., 0.]])
    """
    checked = _checked("train", options)
    process = OneProcess()
    training, state = prepare(network, theta, x, y, checked, process)
    return _states(training, state, checkpoint_writer(network, state, checked, process), process)


def _states(
    training: Training, state: TrainingState, write: Writer | None, process: Processes
) -> Iterator[TrainingState]:
    options, record = training.options, Record(state)
    interrupt = Interrupt()  # not entered: Ctrl-C raises at any time
    while not has_ended(record.state, options):
        state, measures, _ = run_epochs(training, record.state, 1, interrupt)
        interrupt.raise_error()
        if write is None:
            measures = {}  # no history is needed
        record.add(state, measures)
        if measures:
            write_if_due(write, record, options, process, ends=has_ended(state, options))
        yield state


@_with_options
def fit(
    network: Network,
    theta: Array,
    x: Array | Batches,
    y: Array | None = None,
    *,
    callbacks: Sequence[Callable[[TrainingState], bool | None]] = (),
    progress: bool = False,
    communicator: Any = None,
    split: Split = "rows",
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Train a network, and return theta, the history and the optimizer's state.

    ``theta``, ``(*stack, P)``, is copied and never written. ``x`` is ``(batch, n_in)`` or
    ``(*stack, batch, n_in)``, ``y`` likewise with ``n_out``. JAX may divide their rows over the
    devices of a mesh that replicates theta.

    {options}

    - ``callbacks`` are functions that receive the ``TrainingState`` after every epoch. True ends
      the training; TypeError or ValueError is raised for anything but a boolean or None.
    - ``progress`` shows two live lines on a terminal and in a notebook if rich is installed, and
      otherwise writes plain lines to stderr.
    - ``communicator`` is one of mpi4py, such as ``MPI.COMM_WORLD``, whose ranks call ``fit`` alike.
      With ``split="rows"`` each passes its own rows, which may be none. Joined in the order of the
      ranks they are one training's data, whose result every rank gets to rounding. ``batch_size``
      and ``validation``, a share or each rank's own rows, count the rows of all ranks; batches that
      x gives are joined, one of each rank. With ``split="stack"`` each passes all data and trains
      a part of the stack. The first rank's theta, ``start``, checkpoint and progress count. A
      callback sees the networks of its rank. An error or Ctrl-C on one rank ends all.

    Ctrl-C ends the training between two updates. Its KeyboardInterrupt, and every other exception,
    has an attribute ``state``: the last whole state with the history so far. ``start=error.state``
    resumes from it. Before the first epoch it is ``start``, or None.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> result = bx.fit(network, theta, [[0], [1]], [[1], [3]], optimizer=bx.SGD(0.3), epochs=200)
    >>> result.theta.round(6), result.history["loss"].shape
    (array([2., 1.]), (200,))
    """
    reached = _Reached()
    try:
        with Interrupt() as interrupt:
            interrupt.busy = True  # Ctrl-C is delayed until the other processes can be told
            processes = _processes_of(communicator, split)
            interrupt.tell_by(processes.tell)
            with _ending_together(processes, interrupt, reached):
                checked = _checked("fit", options, "callbacks", "progress", "communicator", "split")
                reached.start = checked.start
                callbacks = sequence(callbacks, "callbacks", "(print,)")
                shown = boolean(progress, "progress") and processes.is_first
                display = reporting(checked.epochs) if shown else contextlib.nullcontext(None)
                theta, x, y, checked = processes.begin(network, theta, x, y, checked)
                training, state = prepare(network, theta, x, y, checked, processes)
                write = checkpoint_writer(network, state, checked, processes)
                record = reached.record = Record(state)
                with display as report:
                    _run(training, record, write, callbacks, report, interrupt, processes)
                    interrupt.busy = True  # Ctrl-C is delayed until the result is made
                    state = record.completed()  # an asynchronous library is waited for here
                state = processes.whole(state) or state
                del training  # with its buffers, before copies are made
                reached.result = result = _result(state, record, checked)
        return result
    except KeyboardInterrupt as error:
        # Also of one that comes while the handler before the training is restored.
        last = reached.start if reached.result is None else reached.result.state
        error.state = getattr(error, "state", last)  # type: ignore[attr-defined]
        raise


@dataclass
class _Reached:
    """What a call of ``fit`` has reached: errors get its state."""

    start: TrainingState | None = None
    record: Record | None = None
    result: FitResult | None = None


@contextlib.contextmanager
def _ending_together(
    processes: Processes, interrupt: Interrupt, reached: _Reached
) -> Generator[None]:
    """End every process if one has an error, which gets the state that was reached."""
    try:
        yield
        processes.agree()
        interrupt.release()
    except BaseException as error:
        interrupt.busy = True
        processes.agree(error)
        record = reached.record
        whole = processes.whole(None if record is None else record.completed())  # all exchange it
        error.state = reached.start if record is None else whole  # type: ignore[attr-defined]
        raise


def _processes_of(communicator: Any, split: Split) -> Processes:
    """Return the processes of a communicator, or this one for None."""
    known(split, ("rows", "stack"), "split")
    if communicator is None:
        return OneProcess()
    from backprop_xp.training.processes import member_shares, row_shares  # which few trainings need

    if split == "rows":
        return row_shares.RowRanks(communicator)
    return member_shares.MemberRanks(communicator)


def _result(state: TrainingState, record: Record, options: Options) -> FitResult:
    """Return the result of a training that ended in this state.

    Theta and the optimizer's state are copies: a training that resumes from it writes over neither.
    """
    best = returned(state, options)
    theta, optimizer_state = copied((best.theta, best.optimizer_state))
    history = history_of(state, record, options)
    return FitResult(theta, history, optimizer_state, state.epoch, state)


def _run(
    training: Training,
    record: Record,
    write: Writer | None,
    callbacks: Sequence[Callable[[TrainingState], bool | None]],
    report: Report | None,
    interrupt: Interrupt,
    processes: Processes,
) -> None:
    """Run the epochs that are left; Ctrl-C raises after a whole step."""
    options, state = training.options, record.state
    by_epoch = report is not None or bool(callbacks) or not processes.is_alone
    ends = processes.end(state.theta, has_ended=has_ended(state, options))
    while not ends:
        interrupt.busy = True
        epochs = _epochs_at_once(options, record.state, by_epoch=by_epoch)
        state, measures, _ = run_epochs(training, record.state, epochs, interrupt)
        record.add(state, measures)
        interrupt.release()
        if not measures:  # Ctrl-C cut the epoch short, and its handler did not raise
            continue
        if report is not None:
            report(state.epoch, functools.partial(on_host, [(1, measures)]))
        # All callbacks are called, also after one that ends the training.
        stops = True in [_ends(call(state), i) for i, call in enumerate(callbacks)]
        ends = processes.end(state.theta, has_ended=has_ended(state, options), stops=stops)
        write_if_due(write, record, options, processes, ends=ends)


def _epochs_at_once(options: Options, state: TrainingState, *, by_epoch: bool) -> int:
    """Return how many epochs to run before a callback, display or rule reads the state."""
    if by_epoch or options.rules:
        return 1
    left = options.epochs - state.epoch
    # Nearly equal numbers, two at most: a compiler makes a function for each.
    epochs = math.ceil(left / math.ceil(left / _EPOCHS_AT_ONCE))
    if hasattr(options.optimizer, "has_converged"):
        epochs = min(epochs, EPOCHS_BETWEEN_READS - state.epoch % EPOCHS_BETWEEN_READS)
    if options.checkpoint is None:
        return epochs
    return min(epochs, options.checkpoint_every - state.epoch % options.checkpoint_every)


def _ends(answer: Any, i: int) -> bool:
    """Whether a callback's answer ends the training: True, or an array of one True."""
    if answer is None or isinstance(answer, bool):
        return bool(answer)
    expected = "but True, which ends the training, or False is expected"
    backend = owner(answer)
    if backend is None or not backend.namespace().isdtype(answer.dtype, "bool"):
        raise TypeError(
            f"callbacks[{i}] returned {answer!r} ({type(answer).__name__}), {expected}. A callback "
            "that has nothing to report returns None."
        )
    if math.prod(answer.shape) != 1:
        raise ValueError(
            f"callbacks[{i}] returned an array of shape {tuple(answer.shape)}, {expected}: reduce "
            "it over the stack with the library's all or any."
        )
    return bool(answer)
