"""The kinds of columns of a table, and the features of a network made from them.

The order of reading: ``scaling`` (of numbers and dates), ``counts`` and ``sample`` (what pieces of
rows teach, and which values they have), ``column`` (the methods of a kind), ``kinds`` (the table of
the kinds, and those that a user chooses), then the kinds ``number``, ``category``, ``date`` with
``date_formats``, and ``text``; ``features`` (all columns together), ``tolerance`` (what is read as
missing), ``detection`` (the kinds of a table's columns) and ``feature_records`` (features in
files).
"""
