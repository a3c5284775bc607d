"""Features of tables: columns of mixed kinds, fitted in one pass, applied alike in training and serving.

`fit` runs the pass over Ray Data, `fitted` holds what goes into the contract and encodes rows, and `profile` describes the
training rows for measuring drift. The rules a spec may state are in `trainer.spec.features`. See docs/features.md.
"""
