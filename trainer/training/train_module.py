"""The train module: everything that an optimizer step changes, such as the model, its optimizer and its EMA.

Letters in shapes: B rows of this worker's part of a pass, C outputs.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.models import lora
from trainer.models.gradient_checkpointing import enable_gradient_checkpointing
from trainer.models.new_model import as_new_model, replace_module
from trainer.optim.activation_offload import offload_activations
from trainer.optim.bert.dropout import install_row_dropout, make_row_keys
from trainer.optim.bert.encoder import install_bert_layers
from trainer.optim.distributed.parallel import distribute_model, full_tensor, reshard, shard_like
from trainer.optim.ema import EMA
from trainer.optim.flat_updater import FlatUpdater
from trainer.optim.lr_schedule import lr_factor
from trainer.optim.muon_updater import MuonUpdater
from trainer.optim.optimizer import freeze_parameters
from trainer.optim.precision import Precision, autocast
from trainer.optim.torch_internals import is_running_norm
from trainer.optim.torch_updater import TorchUpdater
from trainer.optim.updater import Updater
from trainer.training.batch_source import BatchSource, BatchStep
from trainer.training.checkpoint.export import export_model
from trainer.training.compact_vocabulary import CompactVocabulary
from trainer.training.context import TrainContext
from trainer.training.loss import make_objective

_MODEL, _AVERAGE, _UPDATER = "model.", "average.", "updater."


class TrainModule:
    """The model of one training while it learns. Every rank has one; all ranks call its methods in the same order."""

    def __init__(self, context: TrainContext, batches: BatchSource, precision: Precision, n_steps: int) -> None:
        task, spec, worker = context.task, context.spec, context.worker
        self._task, self._spec, self._prepared, self._worker = task, spec, context.prepared, worker
        self._precision, self._n_steps = precision, n_steps
        self._is_sharded = spec.cluster.strategy == "fsdp" and worker.workers > 1
        seed_everything(spec.train.seed)
        self._start = task.new_model(self._prepared.contract, spec)
        start = as_new_model(self._start)
        model, self._new_parameters = start.module, start.new_parameters
        self._adapters = lora.add_adapters(model, spec.model.lora, self._new_parameters) if spec.model.lora else None
        freeze_parameters(model, spec.train.freeze)
        if spec.train.gradient_checkpointing:
            enable_gradient_checkpointing(model)
        self._vocabulary = self._compact_vocabulary(model, batches)
        on_cpu = worker.device_type == "cpu"
        self._masks = install_row_dropout(model) if on_cpu else None
        self.model = model.to(worker.device)
        # Rank 0 gathers the weights of a sharded model into this copy to save them.
        gathers = self._is_sharded and worker.rank == 0
        self._skeleton = copy.deepcopy(self._adapters or model).cpu() if gathers else None
        if spec.train.optimizer == "muon":
            self._forward = self.model
            self._updater: Updater = MuonUpdater(self.model, spec.train, n_steps, worker.workers, self._new_parameters)
        elif on_cpu and not self._is_sharded and precision != "fp16":
            self._forward = self.model
            self._updater = self._flat_updater()
        else:
            strategy = spec.cluster.strategy
            self._forward = distribute_model(self.model, worker.device, worker.workers, strategy)  # all ranks
            self._updater = TorchUpdater(
                self.model,
                spec.train,
                n_steps,
                worker.workers,
                precision,
                worker.device_type,
                self._new_parameters,
            )
        # Keyed by parameter, not by name: the full word embedding has the same name as the compact embedding.
        parameters = dict(self.model.named_parameters())
        self._masters = {id(parameters[name]): value for name, value in self._updater.values.items()}
        norms = [module for module in self.model.modules() if is_running_norm(module)]
        self._statistics = [buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()]
        self._ema = EMA(self._updater, spec.train.ema_decay)
        self._objective = make_objective(context)

    def _flat_updater(self) -> FlatUpdater:
        """Return the updater for CPUs. Install the faster BERT layers if the model supports them."""
        train, layers = self._spec.train, None
        if self._masks is not None and self._task.token_input == "input_ids" and not train.gradient_checkpointing:
            layers = install_bert_layers(self.model, self._masks)
        direct = layers.direct_parameters() if layers else []
        dtype = torch.bfloat16 if self._precision == "bf16" else torch.float32
        workers, new = self._worker.workers, self._new_parameters
        updater = FlatUpdater(self.model, train, self._n_steps, workers, direct, dtype, new)
        if layers:
            layers.attach(updater)
        return updater

    def _compact_vocabulary(self, model: torch.nn.Module, batches: BatchSource) -> CompactVocabulary:
        # The spec decides, not the current number of workers: a checkpoint may be resumed on any number of workers.
        is_known = batches.is_exact and self._task.token_input and self._spec.cluster.strategy != "fsdp"
        parts = [self._prepared.part("train"), self._prepared.part("validation")] if is_known else None
        pad_id = self._task.pad_id(self._prepared.contract) if self._task.token_input else 0
        # Muon's updater decays no embedding.
        weight_decay = 0.0 if self._spec.train.optimizer == "muon" else self._spec.train.weight_decay
        return CompactVocabulary(model, parts, pad_id, weight_decay)

    # -- steps

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step` (from 0 over all epochs)."""
        return self._spec.train.peak_learning_rate * lr_factor(self._spec.train, step, self._n_steps)

    def train_step(
        self, step: BatchStep, epoch: int, number: int, total_steps: int
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Take optimizer step `number` (from 0) of `epoch`, after `total_steps` steps over all epochs.

        Returns this worker's summed loss, and the norm of the gradient that `Updater.update` returned.
        """
        self._updater.set_learning_rates(total_steps)
        passes = step.passes()
        summed = torch.zeros((), device=self._worker.device)
        for index, part in enumerate(passes):
            seed_everything(self._seed(epoch, number, index))
            with self._without_sync(index < len(passes) - 1):
                loss = self._loss(part, epoch, number, index)
                self._updater.backward(loss, part.divisor, more=len(passes) > 1)
            summed += loss.detach()
        norm = self._updater.update()
        embedding = self._vocabulary.weight
        if embedding is not None and not self._updater.was_skipped():
            self._vocabulary.on_step(self._updater.learning_rate_of(embedding))
        self._ema.update()
        self._average_buffers()
        return summed, norm

    def _average_buffers(self) -> None:
        """Set running statistics, such as those of batch norm, to their mean over the workers. All ranks call this."""
        if self._worker.workers > 1:
            for buffer in self._statistics:
                torch.distributed.all_reduce(buffer)
                buffer /= self._worker.workers

    def _loss(self, part: BatchStep, epoch: int, number: int, index: int) -> torch.Tensor:
        """Return the loss of pass `index` of a step, summed over its rows."""
        task, contract, device = self._task, self._prepared.contract, self._worker.device
        batch = self._vocabulary.remap(task.collate(contract, part.inputs), task.token_input)
        targets = task.target.tensor(contract.fitted, part.targets)
        batch, targets = task.augment(self._spec, contract, batch, targets, self._seed(epoch, number, index))
        if self._masks is not None:
            self._masks.set_rows(make_row_keys(self._spec.train.seed, epoch, number, part.positions))
        batch = {name: value.to(device) for name, value in batch.items()}
        loss = self._objective.loss_sum(self._autocast_forward, batch, targets.to(device))
        return loss * (1.0 if part.has_rows else 0.0)

    def _autocast_forward(self, **batch: Any) -> Any:
        offload = self._spec.train.offload_activations
        saved = offload_activations(self.model) if offload else contextlib.nullcontext()
        with saved, autocast(self._precision, self._worker.device_type):
            return self._forward(**batch)

    def _without_sync(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Return DDP's `no_sync` for all passes but the last, so that workers average gradients once per step."""
        no_sync = getattr(self._forward, "no_sync", None) if more else None
        manager: contextlib.AbstractContextManager[Any] = no_sync() if no_sync else contextlib.nullcontext()
        return manager

    def _seed(self, epoch: int, number: int, index: int) -> int:
        """Return the seed of pass `index` of a step, for augmentation and for torch's own generator on this worker."""
        parts = [self._spec.train.seed, epoch, number, self._worker.rank, index]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])

    # -- evaluation and saving

    @contextlib.contextmanager
    def evaluation_model(self) -> Iterator[torch.nn.Module]:
        """Yield the model for evaluation and saving: with EMA weights and the full embedding."""
        try:
            with self._ema.swapped_in(), self._vocabulary.full_embedding():
                reshard(self.model)
                yield self.model
        finally:
            reshard(self.model)  # weights gathered for evaluation are not those of the next step

    def make_writer(self, metrics: dict[str, Any]) -> Callable[[Path], None]:
        """Copy the current model, and return a function that writes the copy to a folder at any later time.

        All ranks call this.
        """
        with self.evaluation_model():
            model = self._copy_model()
        task, prepared, start = self._task, self._prepared, self._start
        save = self._spec.model.lora.save if self._spec.model.lora else "merged"

        def write(folder: Path) -> None:
            if save == "adapter":
                lora.save_adapter(model, self._spec, folder)
                export_model(folder, task, None, prepared.contract, prepared.folder, metrics)
                return
            plain = lora.merge_adapters(model) if self._adapters is not None else model
            trained = replace_module(start, plain)
            export_model(folder, task, trained, prepared.contract, prepared.folder, metrics)

        return write

    def _copy_model(self) -> Any:
        if self._is_sharded:
            full = self._gather_on_first(self.model.state_dict())
            if self._skeleton is None:
                return None
            model = copy.deepcopy(self._skeleton)  # a background write may still read the previous copy
            (lora.base_module(model) if self._adapters is not None else model).load_state_dict(full)
            return model
        # Copied straight to the CPU (a GPU may have no memory for a second model), and in fp32.
        memo: dict[int, Any] = {
            id(parameter): torch.nn.Parameter(
                self._masters.get(id(parameter), parameter).detach().to("cpu", copy=True), requires_grad=False
            )
            for parameter in self.model.parameters()
        }
        return copy.deepcopy(self._adapters or self.model, memo).cpu()

    # -- checkpoints

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return every tensor that a step changes, copied to the CPU, and the rest of the state as JSON values.

        All ranks call this; the tensors are on rank 0 only.
        """
        updater_tensors, updater_others = self._updater.state()
        tensors = {f"{_MODEL}{name}": value for name, value in self._changing_tensors().items()}
        tensors |= {f"{_AVERAGE}{name}": value for name, value in self._ema.weights.items()}
        tensors |= {f"{_UPDATER}{name}": value for name, value in updater_tensors.items()}
        return self._gather_on_first(tensors), {"kept": self._vocabulary.decay_factor, "updater": updater_others}

    def _gather_on_first(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return full copies of `tensors` on rank 0's CPU; nothing on the other ranks. All ranks call this.

        One tensor after the other: a device has no room for the optimizer's whole state, nor has a machine with eight
        ranks for eight copies of it.
        """
        copies = {}
        for name, value in tensors.items():
            full = full_tensor(value.detach())  # all ranks
            if self._worker.rank == 0:
                copies[name] = full.to("cpu", copy=True).contiguous()
        return copies

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        """Load what `state` returned, on any number of workers. Raises `ValueError` if it belongs to another model."""
        parts: dict[str, dict[str, torch.Tensor]] = {_MODEL: {}, _AVERAGE: {}, _UPDATER: {}}
        for name, value in tensors.items():
            prefix = name.partition(".")[0] + "."
            parts[prefix][name.removeprefix(prefix)] = value
        changing, averages = self._changing_tensors(), self._ema.weights
        if parts[_MODEL].keys() != changing.keys() or parts[_AVERAGE].keys() != averages.keys():
            raise ValueError("the state belongs to another model or spec")
        with torch.no_grad():
            for saved, current in ((parts[_MODEL], changing), (parts[_AVERAGE], averages)):
                for name, value in saved.items():
                    current[name].copy_(shard_like(value, current[name]))
        self._updater.restore(parts[_UPDATER], others["updater"])
        self._updater.sync_model()
        self._vocabulary.decay_factor = float(others["kept"])

    def _changing_tensors(self) -> dict[str, torch.Tensor]:
        """Return the trainable parameters in fp32, and the buffers that are saved with a model, by name."""
        parameters = {name for name, _ in self.model.named_parameters()}
        saved = self.model.state_dict(keep_vars=True)
        buffers = {name: value for name, value in saved.items() if name not in parameters}
        return {**self._updater.values, **{n: v for n, v in buffers.items() if isinstance(v, torch.Tensor)}}


def seed_everything(seed: int) -> None:
    """Seed all random number generators of this process, so that none of their states has to be stored."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
