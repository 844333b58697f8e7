"""The commands for tables: ``train``, ``predict``, ``inspect`` and ``export``.

``loss_log`` writes the losses of a training to a file, and ``table_output`` prints metrics.
"""
