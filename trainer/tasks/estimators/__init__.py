"""Estimators for tables: linear models, trees, boosting, and a small network."""
