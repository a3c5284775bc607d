"""Everything that an optimiser step changes: the model, its optimiser and what belongs to them. One object a worker.

Letters in shapes: B rows of this worker's part of a pass, C outputs.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainer import adapters, checkpoint
from trainer.data.prepared import Prepared
from trainer.spec import RunSpec
from trainer.training import dropout
from trainer.training.average import Average
from trainer.training.bert_layers import lean
from trainer.training.compact import CompactVocabulary
from trainer.training.feed import Feed, Step
from trainer.training.loss import loss_of
from trainer.training.optimizer import freeze, optimizer, set_rate
from trainer.training.parallel import distributed, like, whole
from trainer.training.place import Place
from trainer.training.precision import Precision, autocast, loss_scaler
from trainer.training.schedule import factor

if TYPE_CHECKING:
    from trainer.tasks.base import Task

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."


class Learner:
    """One training's model while it learns. All ranks make one and call its methods alike."""

    def __init__(
        self,
        task: Task,
        spec: RunSpec,
        prepared: Prepared,
        place: Place,
        feed: Feed,
        precision: Precision,
        n_steps: int,
    ) -> None:
        self._task, self._spec, self._prepared, self._place = task, spec, prepared, place
        self._precision, self._n_steps = precision, n_steps
        self._sharded = spec.cluster.sharding == "fsdp" and place.workers > 1
        seed_everything(spec.train.seed)
        model = task.new_model(prepared.contract, spec)
        self._adapters = adapters.add(model, spec.model.lora) if spec.model.lora else None
        freeze(model, spec.train.freeze)
        if spec.train.gradient_checkpointing:
            _recompute(model)
        self._vocabulary = self._compact(model, feed)
        self._noise = self._by_row(model)
        self.model = model.to(place.device)
        # What is saved of a sharded model is put together in a whole one.
        self._skeleton = copy.deepcopy(self._adapters or model).cpu() if self._sharded else None
        self._stepped = distributed(self.model, place.device, place.workers, spec.cluster.sharding)  # all ranks
        self._optimizer = optimizer(self.model, spec.train)
        self._embedding = self._vocabulary.group_in(self._optimizer)
        self._average = Average(self.model, spec.train.ema_decay)
        self._scaler = loss_scaler(precision, place.device_type)
        self._loss_sum = loss_of(spec.train.loss, task.target)
        found = prepared.summary["class_weights"]
        self._weights = torch.tensor(found, device=place.device) if found else None

    # -- learning

    def rate(self, step: int) -> float:
        """Return the learning rate of `step` (from 0 over all epochs)."""
        return self._spec.train.learning_rate * factor(self._spec.train, step, self._n_steps)

    def step(self, step: Step, epoch: int, number: int, done: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Take optimiser step `number` (from 0) of `epoch`, after `done` in all.

        Returns this worker's summed loss and the norm of the gradient over all workers, both on the device. In fp16 there
        is no norm: a step whose gradient is no number is left out, and the loss is scaled less from then on.
        """
        set_rate(self._optimizer, self._spec.train, done, self._n_steps)
        passes = step.parts(self._spec.train.micro_batch_size, self._place.workers)
        summed = torch.zeros((), device=self._place.device)
        for place, part in enumerate(passes):
            seed_everything(self._seed(epoch, number, place))
            with self._together(last=place == len(passes) - 1):
                summed += self._backward(part, epoch, number, place)
        self._scaler.unscale_(self._optimizer)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._spec.train.max_grad_norm))
        may_be_left_out = self._scaler.is_enabled()
        if not may_be_left_out or bool(torch.isfinite(norm)):
            self._vocabulary.stepped(self._embedding["lr"])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.stepped()
        self._optimizer.zero_grad(set_to_none=True)
        return summed, None if may_be_left_out else norm

    def _backward(self, part: Step, epoch: int, number: int, place: int) -> torch.Tensor:
        """Add one pass's gradients up; returns its summed loss, detached."""
        task, contract, device = self._task, self._prepared.contract, self._place.device
        batch = self._vocabulary.batch(task.collate(contract, part.inputs), task.token_input)
        targets = task.target.tensor(contract.fitted, part.targets)
        batch, targets = task.augment(self._spec, contract, batch, targets, self._seed(epoch, number, place))
        if self._noise is not None:
            self._noise.begin(dropout.row_keys(self._spec.train.seed, epoch, number, part.places))
        with autocast(self._precision, self._place.device_type):
            logits_BC = self._stepped(**{name: value.to(device) for name, value in batch.items()}).logits
        loss = self._loss_sum(logits_BC, targets.to(device), self._weights) * (1.0 if part.counts else 0.0)
        # DDP averages over workers; the loss of a step is the mean over all its rows, however they were shared out.
        self._scaler.scale(loss * (self._place.workers / part.rows)).backward()
        return loss.detach()

    def _together(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients of several passes are averaged over the workers once, with the last one."""
        if last or self._place.workers == 1:
            return contextlib.nullcontext()
        if self._sharded:
            return contextlib.nullcontext()  # each pass adds to this worker's part of them
        found: contextlib.AbstractContextManager[Any] = self._stepped.no_sync()
        return found

    def _seed(self, epoch: int, number: int, place: int) -> int:
        """Return the seed of one pass: of augmentation, and of what torch itself draws on this worker."""
        parts = [self._spec.train.seed, epoch, number, self._place.rank, place]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])

    # -- using what was learned so far

    @contextlib.contextmanager
    def ready(self) -> Iterator[torch.nn.Module]:
        """Give out the model as it is to be judged and kept: its running mean, with the whole word embedding."""
        with self._average.used(), self._vocabulary.whole():
            yield self.model

    def export(self, reached: dict[str, Any]) -> Callable[[Path], None]:
        """Return what writes the model as it is now to a folder, whatever is learned meanwhile. All ranks call this."""
        with self.ready():
            model = self._copied()
        task, prepared = self._task, self._prepared
        save = self._spec.model.lora.save if self._spec.model.lora else "merged"

        def write(folder: Path) -> None:
            if save == "adapter":
                adapters.save(model, self._spec, folder)
                checkpoint.save(folder, task, None, prepared.contract, prepared.folder, reached)
                return
            plain = adapters.merged(model) if self._adapters is not None else model
            checkpoint.save(folder, task, plain, prepared.contract, prepared.folder, reached)

        return write

    def _copied(self) -> Any:
        if self._skeleton is not None:
            full = {name: whole(value).cpu() for name, value in self.model.state_dict().items()}  # all ranks
            base = adapters.inner(self._skeleton) if self._adapters is not None else self._skeleton
            base.load_state_dict(full)
            return self._skeleton
        # On the CPU from the start: there may be no room for a second one on a GPU.
        memo: dict[int, Any] = {
            id(value): torch.nn.Parameter(value.detach().to("cpu", copy=True), requires_grad=False)
            for value in self.model.parameters()
        }
        return copy.deepcopy(self._adapters or self.model, memo).cpu()

    # -- going on

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return every tensor that a step changes, copied to the CPU, and what else belongs to them. All ranks call this."""
        tensors = {f"{_MODEL}{name}": value for name, value in self._changing().items()}
        tensors |= {f"{_AVERAGE}{name}": value for name, value in self._average.weights.items()}
        others: dict[str, Any] = {"kept": self._vocabulary.kept, "scaler": self._scaler.state_dict(), "optimizer": {}}
        for name, parameter in self._learning():
            for key, value in self._optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{_OPTIMIZER}{name}.{key}"] = value
                else:
                    others["optimizer"][f"{name}.{key}"] = value
        return {name: _on_cpu(value) for name, value in tensors.items()}, others

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        """Take over what `state` returned, on as many workers or others. Raises `ValueError` if it is of another model."""
        groups: dict[str, dict[str, torch.Tensor]] = {_MODEL: {}, _AVERAGE: {}, _OPTIMIZER: {}}
        for name, value in tensors.items():
            prefix = name.partition(".")[0] + "."
            groups[prefix][name.removeprefix(prefix)] = value
        changing = self._changing()
        if groups[_MODEL].keys() != changing.keys() or groups[_AVERAGE].keys() != self._average.weights.keys():
            raise ValueError("it is of another model or spec")
        with torch.no_grad():
            for name, value in groups[_MODEL].items():
                changing[name].copy_(like(value, changing[name]))
            for name, value in groups[_AVERAGE].items():
                self._average.weights[name].copy_(like(value, self._average.weights[name]))
        for name, parameter in self._learning():
            state: dict[str, Any] = {}
            for key, value in _below(groups[_OPTIMIZER], name).items():
                # A count of steps is one number on every worker; all else has the parameter's own parts.
                state[key] = like(value, parameter) if value.shape == parameter.shape else value.to(self._place.device)
            state.update(_below(others["optimizer"], name))
            if state:
                self._optimizer.state[parameter] = state
        self._scaler.load_state_dict(others["scaler"])
        self._vocabulary.kept = float(others["kept"])

    def _learning(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, value) for name, value in self.model.named_parameters() if value.requires_grad]

    def _changing(self) -> dict[str, torch.Tensor]:
        """Return the parameters that learn and the buffers that are saved with a model, by name."""
        saved = self.model.state_dict(keep_vars=True)
        fixed = {name for name, value in self.model.named_parameters() if not value.requires_grad}
        return {name: value for name, value in saved.items() if name not in fixed and isinstance(value, torch.Tensor)}

    # -- what pays

    def _compact(self, model: torch.nn.Module, feed: Feed) -> CompactVocabulary:
        known = feed.exact and self._task.token_input and not self._sharded
        parts = [self._prepared.part("train"), self._prepared.part("validation")] if known else None
        pad_id = self._task.pad_id(self._prepared.contract) if self._task.token_input else 0
        return CompactVocabulary(model, parts, pad_id, self._spec.train.weight_decay)

    def _by_row(self, model: torch.nn.Module) -> dropout.Noise | None:
        """On a CPU: dropout by the row, and the layers of a known encoder with less work."""
        if self._place.device_type != "cpu":
            return None
        noise = dropout.by_row(model)
        if self._task.token_input == "input_ids" and not self._sharded and not self._spec.train.gradient_checkpointing:
            lean(model, noise)
        return noise


def seed_everything(seed: int) -> None:
    """Begin all of this process's random numbers anew, so that none of their states has to be stored."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _recompute(model: Any) -> None:
    from cluster.errors import SpecError

    if not getattr(model, "supports_gradient_checkpointing", False):
        raise SpecError("train.gradient_checkpointing: this model cannot do it", "take it out")
    if hasattr(model, "activation_checkpointing_enable"):  # what transformers calls it since 5.2x
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _below(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the entries called `name.<key>`, by key; the keys of an optimiser's state hold no dots."""
    found = {}
    for full, value in values.items():
        owner, _, key = full.rpartition(".")
        if owner == name:
            found[key] = value
    return found


def _on_cpu(value: torch.Tensor) -> torch.Tensor:
    return whole(value.detach()).to("cpu", copy=True).contiguous()
