"""A model of a table: its parameters, its network, its training and its file.

The order of reading: ``presets`` and ``tabular_parameters`` (the parameters), ``rows`` (rows with
targets and weights), ``fitted_model`` (the model, which predicts), ``training_split``,
``table_network`` (the layers, and the first theta), ``slope_targets`` (derivatives that are learned
too), ``model_file``, ``blas_threads`` and ``model_training``.
"""
