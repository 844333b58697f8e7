"""The functions that one calls, in the order in which they are read.

``api`` has the checks of functions. ``products`` makes a problem of a product with a Jacobian, and
``jacobians`` one of a whole Jacobian. ``optimization`` checks the problems of SciPy. ``numeric``
needs no analytic derivative. ``network_checks`` has the checks of networks, layers and losses, with
three parts: ``perturbed_losses`` (the losses of many perturbed networks), ``together`` (two cases
in one call) and ``curvatures`` (second derivatives of losses).
"""
