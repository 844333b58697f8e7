"""What the later folders share, in the order in which it is read.

``options`` are the arguments of a training, ``states`` what it yields and returns, ``orders`` the
seeds and the orders of rows. ``interrupt`` delays Ctrl-C to the end of a step.
``process_protocol`` is the protocol by which one process, or several, take part.
"""
