"""The study of a target of a table: its parts, the training of the command, and its report."""
