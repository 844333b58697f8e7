"""Jets: arrays that carry their first and second derivatives by a network's input.

A layer computes with jets as with arrays, so that its derivatives by x need no rules of their own.
The order of reading: ``parts`` (the arrays of a jet), ``jet`` (its arithmetic), ``chain_rule`` (the
derivatives of exp, log and the others), ``functions`` (a namespace whose functions take jets) and
``passes`` (jets through a chain of layers, forwards and backwards). ``errors`` has the refusals.
"""
