"""The processes of a training, which act alike or raise alike; others know their protocol.

``one_process`` is the usual one. The ranks of an MPI communicator divide the rows
(``row_shares``) or the networks of a stack (``member_shares``), and ``exchange`` is how they speak.
"""
