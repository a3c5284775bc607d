"""The contract between training and serving: how a raw row becomes a model's input."""

from trainer.contract.contract import Contract, Step

__all__ = ["Contract", "Step"]
