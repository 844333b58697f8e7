"""The training of the command ``train``: the problem of a target, and the report on it.

The order of reading: ``target`` (its task), ``split`` (the parts of the rows), ``problem`` (both,
with the kinds of the columns), ``column_warnings``, ``other_models`` (of scikit-learn),
``evaluation`` (metrics beside theirs) and ``table_training``; for datasets larger than memory
``shares`` (of the row groups), ``totals`` (of pieces of rows) and ``parallel_training``.
"""
