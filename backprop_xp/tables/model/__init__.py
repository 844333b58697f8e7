"""The estimators of tables: parameters, network, training and file."""
