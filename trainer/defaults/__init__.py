"""Defaults that depend on the rows and on the model: what a spec's `auto` stands for."""
