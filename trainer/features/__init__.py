"""Features of tables: columns of mixed kinds, fitted in one pass, applied alike in training and serving.

`columns` are the rules a spec may state, `fit` is the pass over Ray Data, `fitted` what goes into the contract and turns
rows into numbers, `profile` what drift is measured against. See docs/features.md.
"""
