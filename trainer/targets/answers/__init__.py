"""Metrics of written answers, such as BLEU and exact match."""
