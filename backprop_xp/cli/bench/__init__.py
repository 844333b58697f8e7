"""The command ``bench``: the time of an update of Adam, beside other libraries.

The order of reading: ``race`` (processes that take turns), ``contenders`` (the training of each
library) and ``comparison`` (the command). ``benchmarks/`` times other things by the same race.
"""
