"""A chain of layers, in the order in which it is read.

``propagation`` has the protocol of a layer and the passes through a chain, ``layout`` the slice of
theta that belongs to each parameter, and ``batch_rows`` the rows that pass through. ``containers``
has layers made of layers, and ``array_checks`` the checks of what a network is given.
"""
