"""The inputs of a check, in the order in which they are read.

``structures`` takes containers of arrays apart, and ``points`` makes one vector of them.
``problems`` has the problem that a check solves, and its options. ``functions`` has the functions
of a problem around its point: every call of the caller's code is there. ``first_calls`` detects
faults that need no numeric derivative.
"""
