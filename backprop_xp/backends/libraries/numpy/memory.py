"""The memory of the arrays that a training takes and frees at each step."""

import functools

import numpy as np

# Freed once, it makes glibc keep up to twice as much.
_LARGEST = 2**23


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep memory that NumPy frees, once for the process.

    glibc returns free memory to the system above a limit that grows with the largest block freed so
    far (mallopt(3), M_MMAP_THRESHOLD). In a process that has freed small arrays only, each step of
    a training would get its memory anew, and page faults took up to a third of it.
    """
    np.empty(_LARGEST, np.uint8)  # its pages are never used
