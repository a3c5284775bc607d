"""A model that training starts from, and its origin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from trainer.contract.user_code import UserSource


@dataclass(frozen=True)
class FactoryOrigin:
    """The user's function that built a model (`model.factory`), and its arguments."""

    source: UserSource
    base: Path | None
    """The folder of the base model, if the spec names one."""
    n_outputs: int


@dataclass(frozen=True)
class NewModel:
    """A torch model and its origin. If `Task.new_model` returns a `NewModel`, `Task.save_model` receives one too."""

    module: torch.nn.Module
    new_parameters: tuple[str, ...] = ()
    """Names of the parameters without pre-trained values, such as those of a new head."""
    origin: FactoryOrigin | None = None
    """How a user's function built the model; None for all other models."""


def as_new_model(model: Any) -> NewModel:
    """Return a `NewModel` for the result of `Task.new_model`, which may be a `NewModel` or a plain module."""
    return model if isinstance(model, NewModel) else NewModel(model)


def replace_module(model: Any, module: torch.nn.Module) -> Any:
    """Return `model` with another module in it: a `NewModel` if `model` is one, else the module itself."""
    return replace(model, module=module) if isinstance(model, NewModel) else module
