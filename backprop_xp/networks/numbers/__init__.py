"""The numbers that the maths starts from, in any order.

``complex_safe`` has functions that stay analytic for complex numbers, ``random_bits`` the bits of
dropout's masks, ``initializers`` the first weights, and ``partial`` functions with bound arguments.
"""
