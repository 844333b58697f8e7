"""The commands for tables: ``train``, ``predict``, ``inspect`` and ``export``.

``training_options`` has the options of ``train``. ``loss_log`` writes the losses of a training to a
file, and ``table_output`` prints metrics.
"""
