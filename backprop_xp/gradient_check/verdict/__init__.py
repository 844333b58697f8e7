"""The verdict of a check and its report, in the order in which they are read.

``judge`` compares derivatives along lines, and ``comparison`` takes as many evaluations as the
verdict needs. ``directions`` does so along random directions. ``diagnosis`` names the mistake, and
``report`` shows the result. ``run`` is a check from start to end, and ``several_points`` repeats it
at other points.
"""
