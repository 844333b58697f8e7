"""The epochs of a training, in the order in which they are read.

``set_up`` composes a training once, from the checked arguments. ``loop`` runs its epochs.
``history`` keeps their measures, and writes checkpoints.
"""
