"""Derivatives with error bars, in the order in which they are read.

``analytic`` has the analytic gradient, and ``lines`` the lines along which both derivatives are
taken. ``noise`` estimates what no polynomial explains. There are two ways to take differences:
``stencils`` of nine values, and ``extrapolation`` over the steps of a ``ladder``, which also finds
kinks and jumps. ``rounding`` measures the rounding of a gradient. ``derivatives`` chooses among
differences and the complex step, and ``analyticity`` decides whether the latter can be trusted.
The numbers that decide in them are in one table, ``constants``.
"""
