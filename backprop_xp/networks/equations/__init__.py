"""Layers around a network that return more than its outputs, in the order in which they are read.

``derivative_layers`` return derivatives by x, ``constrained_layers`` a function that keeps
conditions. ``points`` has what a user's equation receives, ``quantity_names`` its checked names,
``equation_layers`` the residuals of a differential equation, and ``group_layers`` several, each on
its rows. ``influence`` is that of noisy readings on what is learned, and ``standard_errors`` follow
from it.
"""
