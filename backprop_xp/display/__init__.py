"""How objects print: reprs, HTML for notebooks, progress of a training."""
