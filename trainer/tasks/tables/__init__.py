"""Tasks on tables: columns of mixed kinds, with an estimator as the model."""
