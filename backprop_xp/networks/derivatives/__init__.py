"""What is computed with a whole network, in the order in which it is read.

``definition`` is the record that all of it takes. ``objective`` has the loss of a batch and its
gradients by the parameters, ``bound`` the gradient by theta, in one buffer. ``row_jacobians`` has
the Jacobian of the outputs by theta, ``gauss_newton`` the quadratic model made of it, and
``input_derivatives`` the derivatives by x.
"""
