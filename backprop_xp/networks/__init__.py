"""Networks: layers, losses, and the forward and backward passes through them.

A network is a chain of layers and a loss; all its parameters are one array, theta. To learn how it
works, read ``chain.propagation``, ``layers.core``, ``losses.rules``, ``losses.loss`` and
``derivatives.objective``, and then ``network``. The folders, each of which imports only those
before it:

- ``numbers``: complex-safe functions, random bits, initial values;
- ``chain``: the protocol of a layer, the two passes, theta's layout, the rows of a batch;
- ``layers``: activations and the layers made of them;
- ``losses``: the loss of each sample, its gradient, and the forms of targets and weights;
- ``jets``: values that carry their derivatives by x;
- ``derivatives``: the loss of a batch with its gradient, Jacobians, the Gauss-Newton matrix;
- the modules ``network``, ``mlp`` and ``ensemble``;
- ``equations``: layers that return derivatives, and residuals of differential equations.
"""
