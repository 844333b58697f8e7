"""Files and DataFrames with tables, as DataFrames of plain columns."""
