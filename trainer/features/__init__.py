"""Features of tables: columns of mixed kinds, fitted in one pass, encoded by the same code in training and serving.

`fit` runs the pass over Ray Data. `fitted` holds the fitted values that the contract stores, and encodes rows.
`profile` describes the training rows for measuring drift. The rules that a spec can set for a column are in
trainer/spec/features.py. See docs/reference/features.md.
"""
