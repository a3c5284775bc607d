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

from trainer.data.prepared import Prepared
from trainer.models import lora
from trainer.optim.bert import dropout
from trainer.optim.bert.encoder import lean
from trainer.optim.distributed.parallel import distributed, like, reshard, whole
from trainer.optim.distributed.worker_context import Place
from trainer.optim.ema import Average
from trainer.optim.flat_updater import FlatUpdater
from trainer.optim.lr_schedule import factor
from trainer.optim.optimizer import freeze
from trainer.optim.precision import Precision, autocast
from trainer.optim.torch_updater import TorchUpdater
from trainer.optim.updater import Updater
from trainer.spec.run import RunSpec
from trainer.training.checkpoint import export
from trainer.training.compact_vocabulary import CompactVocabulary
from trainer.training.feed import Feed, Step
from trainer.training.loss import loss_of

if TYPE_CHECKING:
    from trainer.tasks.base import Task

_MODEL, _AVERAGE, _UPDATER = "model.", "average.", "updater."


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
        self._adapters = lora.add(model, spec.model.lora) if spec.model.lora else None
        freeze(model, spec.train.freeze)
        if spec.train.gradient_checkpointing:
            _recompute(model)
        self._vocabulary = self._compact(model, feed)
        on_cpu = place.device_type == "cpu"
        self._noise = dropout.by_row(model) if on_cpu else None
        self.model = model.to(place.device)
        # What is saved of a sharded model is put together in a whole one.
        self._skeleton = copy.deepcopy(self._adapters or model).cpu() if self._sharded else None
        if on_cpu and not self._sharded and precision != "fp16":
            self._forward = self.model
            self._updater: Updater = self._flat_updater()
        else:
            self._forward = distributed(self.model, place.device, place.workers, spec.cluster.sharding)  # all ranks
            self._updater = TorchUpdater(self.model, spec.train, n_steps, place.workers, precision, place.device_type)
        # By the parameter and not by its name: the whole word embedding has the name of the one that learns.
        parameters = dict(self.model.named_parameters())
        self._values = {id(parameters[name]): value for name, value in self._updater.values.items()}
        norms = [m for m in self.model.modules() if isinstance(m, torch.nn.modules.batchnorm._NormBase)]
        self._statistics = [buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()]
        self._average = Average(self._updater, spec.train.ema_decay)
        self._loss_sum = loss_of(spec.train.loss, task.target)
        found = prepared.summary["class_weights"]
        self._weights = torch.tensor(found, device=place.device) if found else None

    def _flat_updater(self) -> FlatUpdater:
        """On a CPU: the encoder's layers with less work, where the model has some that are known."""
        train, place, layers = self._spec.train, self._place, None
        if self._noise is not None and self._task.token_input == "input_ids" and not train.gradient_checkpointing:
            layers = lean(self.model, self._noise)
        direct = layers.direct() if layers else []
        dtype = torch.bfloat16 if self._precision == "bf16" else torch.float32
        updater = FlatUpdater(self.model, train, self._n_steps, place.workers, direct, dtype)
        if layers:
            layers.use(updater)
        return updater

    # -- learning

    def rate(self, step: int) -> float:
        """Return the learning rate of `step` (from 0 over all epochs)."""
        return self._spec.train.learning_rate * factor(self._spec.train, step, self._n_steps)

    def step(self, step: Step, epoch: int, number: int, done: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Take optimiser step `number` (from 0) of `epoch`, after `done` in all.

        Returns this worker's summed loss, and what `Updater.update` does.
        """
        self._updater.set_rates(done)
        passes = step.parts(self._spec.train.micro_batch_size, self._place.workers)
        summed = torch.zeros((), device=self._place.device)
        for place, part in enumerate(passes):
            seed_everything(self._seed(epoch, number, place))
            with self._apart(place < len(passes) - 1):
                loss = self._loss(part, epoch, number, place)
                self._updater.backward(loss, part.rows, more=len(passes) > 1)
            summed += loss.detach()
        norm = self._updater.update()
        embedding = self._vocabulary.weight
        if embedding is not None and not self._updater.was_left_out():
            self._vocabulary.stepped(self._updater.rate_of(embedding))
        self._average.updated()
        self._share_buffers()
        return summed, norm

    def _share_buffers(self) -> None:
        """Make running statistics, as a batch norm has them, the mean over the workers; all ranks call this."""
        if self._place.workers > 1:
            for buffer in self._statistics:
                torch.distributed.all_reduce(buffer)
                buffer /= self._place.workers

    def _loss(self, part: Step, epoch: int, number: int, place: int) -> torch.Tensor:
        """Return the loss of one pass, summed over its rows."""
        task, contract, device = self._task, self._prepared.contract, self._place.device
        batch = self._vocabulary.batch(task.collate(contract, part.inputs), task.token_input)
        targets = task.target.tensor(contract.fitted, part.targets)
        batch, targets = task.augment(self._spec, contract, batch, targets, self._seed(epoch, number, place))
        if self._noise is not None:
            self._noise.begin(dropout.row_keys(self._spec.train.seed, epoch, number, part.places))
        with autocast(self._precision, self._place.device_type):
            logits_BC = self._forward(**{name: value.to(device) for name, value in batch.items()}).logits
        return self._loss_sum(logits_BC, targets.to(device), self._weights) * (1.0 if part.counts else 0.0)

    def _apart(self, comes_more: bool) -> contextlib.AbstractContextManager[Any]:
        """With DDP, gradients of several passes are averaged over the workers once, with the last one."""
        apart = getattr(self._forward, "no_sync", None) if comes_more else None
        found: contextlib.AbstractContextManager[Any] = apart() if apart else contextlib.nullcontext()
        return found

    def _seed(self, epoch: int, number: int, place: int) -> int:
        """Return the seed of one pass: of augmentation, and of what torch itself draws on this worker."""
        parts = [self._spec.train.seed, epoch, number, self._place.rank, place]
        return int(np.random.SeedSequence(parts).generate_state(1)[0])

    # -- using what was learned so far

    @contextlib.contextmanager
    def ready(self) -> Iterator[torch.nn.Module]:
        """Give out the model as it is to be judged and kept: its running mean, with the whole word embedding."""
        try:
            with self._average.used(), self._vocabulary.whole():
                reshard(self.model)
                yield self.model
        finally:
            reshard(self.model)  # what was gathered for judging is not what the next step begins with

    def export(self, reached: dict[str, Any]) -> Callable[[Path], None]:
        """Return what writes the model as it is now to a folder, whatever is learned meanwhile. All ranks call this."""
        with self.ready():
            model = self._copied()
        task, prepared = self._task, self._prepared
        save = self._spec.model.lora.save if self._spec.model.lora else "merged"

        def write(folder: Path) -> None:
            if save == "adapter":
                lora.save(model, self._spec, folder)
                export.save(folder, task, None, prepared.contract, prepared.folder, reached)
                return
            plain = lora.merged(model) if self._adapters is not None else model
            export.save(folder, task, plain, prepared.contract, prepared.folder, reached)

        return write

    def _copied(self) -> Any:
        if self._skeleton is not None:
            full = {name: whole(value).cpu() for name, value in self.model.state_dict().items()}  # all ranks
            if self._place.rank != 0:
                return None
            made = copy.deepcopy(self._skeleton)  # it is written, and merged, while the next one is made
            (lora.inner(made) if self._adapters is not None else made).load_state_dict(full)
            return made
        # On the CPU from the start (there may be no room for a second one on a GPU), and in fp32.
        memo: dict[int, Any] = {
            id(parameter): torch.nn.Parameter(
                self._values.get(id(parameter), parameter).detach().to("cpu", copy=True), requires_grad=False
            )
            for parameter in self.model.parameters()
        }
        return copy.deepcopy(self._adapters or self.model, memo).cpu()

    # -- going on

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return every tensor that a step changes, copied to the CPU, and what else belongs to them. All ranks call this."""
        of_updater, others = self._updater.state()
        tensors = {f"{_MODEL}{name}": value for name, value in self._changing().items()}
        tensors |= {f"{_AVERAGE}{name}": value for name, value in self._average.weights.items()}
        tensors |= {f"{_UPDATER}{name}": value for name, value in of_updater.items()}
        held = {name: whole(value.detach()).to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        return held, {"kept": self._vocabulary.kept, "updater": others}

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        """Take over what `state` returned, on as many workers or others. Raises `ValueError` if it is of another model."""
        parts: dict[str, dict[str, torch.Tensor]] = {_MODEL: {}, _AVERAGE: {}, _UPDATER: {}}
        for name, value in tensors.items():
            prefix = name.partition(".")[0] + "."
            parts[prefix][name.removeprefix(prefix)] = value
        changing, means = self._changing(), self._average.weights
        if parts[_MODEL].keys() != changing.keys() or parts[_AVERAGE].keys() != means.keys():
            raise ValueError("it is of another model or spec")
        with torch.no_grad():
            for held, into in ((parts[_MODEL], changing), (parts[_AVERAGE], means)):
                for name, value in held.items():
                    into[name].copy_(like(value, into[name]))
        self._updater.restore(parts[_UPDATER], others["updater"])
        self._updater.publish()
        self._vocabulary.kept = float(others["kept"])

    def _changing(self) -> dict[str, torch.Tensor]:
        """Return the parameters that learn, in fp32, and the buffers that are saved with a model, by name."""
        parameters = {name for name, _ in self.model.named_parameters()}
        saved = self.model.state_dict(keep_vars=True)
        buffers = {name: value for name, value in saved.items() if name not in parameters}
        return {**self._updater.values, **{n: v for n, v in buffers.items() if isinstance(v, torch.Tensor)}}

    # -- what pays

    def _compact(self, model: torch.nn.Module, feed: Feed) -> CompactVocabulary:
        # By the spec, not by how many workers there are now: a checkpoint goes from any number of them to any other.
        known = feed.exact and self._task.token_input and self._spec.cluster.sharding != "fsdp"
        parts = [self._prepared.part("train"), self._prepared.part("validation")] if known else None
        pad_id = self._task.pad_id(self._prepared.contract) if self._task.token_input else 0
        return CompactVocabulary(model, parts, pad_id, self._spec.train.weight_decay)


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
