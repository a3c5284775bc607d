"""Predict with a trained model. Evaluation, batch prediction, golden rows and replicas all use this code."""
