"""One module or package for each array library."""
