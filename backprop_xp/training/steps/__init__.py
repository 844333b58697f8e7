"""The steps of a training, in the order in which they are read.

``step`` is one step, a pure function, and the evaluation of theta. ``accumulation`` and
``gradient_monitor`` are parts that a training may add. ``eager`` takes steps one by one, in Python.
``traced`` prepares steps for a compiler of whole loops, ``function_cache`` keeps its functions, and
``compiled`` takes many steps in one call of them.
"""
