"""The layers, in the order in which they are read.

``activations`` has the functions and the table of them; ``core`` the layers that most networks are
made of: Dense, Activate, Dropout, LayerNorm. ``columns`` and ``embeddings`` are the first layers of
a network of a table. ``saturation`` measures how many units have a slope of 0.
"""
