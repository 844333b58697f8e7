"""The transformer and the estimators of tables, as scikit-learn has them.

The order of reading: ``preparation`` (the transformer), ``estimator_rows`` (the arguments of
``fit``), ``tabular_base`` (the order of a fit), ``tabular`` (the estimators) and ``exports``.
"""
