"""Files and DataFrames with tables, as DataFrames of plain columns.

The order of reading: ``cells`` (what a string means: a number, a boolean, a missing value),
``frames`` (plain columns from those of any DataFrame), ``delimited`` (text such as CSV),
``formats`` (all formats of files, as Arrow's batches), ``table_files`` (the plain table of a file
or a DataFrame, whole or in pieces) and ``row_groups`` (shares of a Parquet dataset).
"""
