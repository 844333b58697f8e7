"""A model of a table in other languages: the library's own functions, recorded.

The order of reading: ``graph`` (ONNX); ``c_row`` (the type of a row in C), ``c_table_program`` (a
test in C) and ``c_table`` (the file of C).
"""
