"""The rows of a training, in the order in which they pass.

``preprocessing`` has the public functions for a user's data. ``data_checks`` checks x, y and the
weights, ``training_set`` makes the training set and the validation set of them, ``batches`` draws
the rows of each batch, and ``sources`` reads batches that x gives.
"""
