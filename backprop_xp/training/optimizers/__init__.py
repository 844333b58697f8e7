"""Optimizers, in the order in which they are read.

``protocol`` has the two protocols: one takes a gradient, the other the objective of a full batch.
``first_order`` has the update rules, from SGD to Lion, and the tables of all optimizers, with
``running_means`` and ``hyperparameters`` below it. ``schedules`` are learning rates that change,
which ``learning_rates`` evaluates. ``full_batch`` is the objective that ``lbfgs``, with
``line_search``, and ``levenberg_marquardt`` minimize. ``pytrees`` has functions of nested states.
"""
