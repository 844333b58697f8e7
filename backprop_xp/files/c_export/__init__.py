"""C: the layers' own functions run on arrays that record them, and the record becomes one file."""
