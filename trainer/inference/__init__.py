"""Predictions of a trained model: one path for evaluation, batch prediction, golden rows and replicas."""
