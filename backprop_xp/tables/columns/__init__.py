"""The kinds of columns of a table, and the features of a network made from them."""
