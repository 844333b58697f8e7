"""Losses, in the order in which they are read.

``rules`` has the maths: each rule yields a loss, its gradient and its curvature. ``loss`` makes
losses of them and has their table. ``column_weights`` and ``targets`` bring weights and targets
into the forms that losses take.
"""
