"""Training: optimizers, and the loop that takes their steps.

``steps.step`` is a whole step; to learn how a training works, read it, ``optimizers.first_order``,
``steps.eager``, ``epochs.loop`` and then ``fit``. The folders, each of which imports only those
before it:

- ``optimizers``: update rules, their learning rates, and optimizers that evaluate a full batch;
- ``measures``: metrics, and the rules that follow them: early stopping, plateaus, averages;
- ``interfaces``: the options of a training, its states, Ctrl-C, the protocol of its processes;
- ``rows``: from x and y as they are given to the rows of a batch;
- ``steps``: one step, and the two ways to take many: one by one, or in one compiled call;
- ``epochs``: the loop over epochs, and the history;
- ``processes``: one process, or the ranks of an MPI communicator;
- the modules ``fit`` and ``rate_range``.
"""
