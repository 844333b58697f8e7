"""The command ``check``: a gradient against numeric derivatives.

The order of reading: ``command`` (the options), ``backend_check`` (a network on each backend),
``function_check`` with ``custom_rules`` (a function of one's own) and ``conformance`` (a backend).
"""
