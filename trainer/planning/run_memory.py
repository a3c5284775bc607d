"""The memory of every stage of a run."""

from __future__ import annotations

from typing import NamedTuple

from trainer.models.base_model import locate_base_model
from trainer.planning.encoder_shape import WeightCounts, count_weights
from trainer.planning.preparing_memory import preparing_memory
from trainer.planning.row_facts import RowFacts
from trainer.planning.serving_memory import replica_memory
from trainer.planning.term import Estimate, Term, times, without_empty
from trainer.planning.training_memory import LIBRARIES, WorkerMemory, why_size_is_unknown, worker_memory
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog


class RunMemory(NamedTuple):
    """The memory of one process of each stage; of preparing, on one node."""

    prepare: Estimate
    train: WorkerMemory
    evaluate: Estimate
    serve: Estimate

    @classmethod
    def unknown(cls) -> RunMemory:
        """Return a memory of which nothing is known."""
        return cls(Estimate(), WorkerMemory(Estimate()), Estimate(), Estimate())


def run_memory(
    spec: RunSpec, facts: RowFacts, *, cpus: float = 1, with_ray: bool = False, trace: bool = True
) -> RunMemory:
    """Return the memory of the stages of a run of `spec`.

    `cpus` are the cores of a node that prepares rows, with Ray Data if `with_ray`. `trace` is that of `worker_memory`.
    """
    weights = weights_of_base(spec, facts)
    return RunMemory(
        prepare=preparing_memory(cpus, with_ray=with_ray),
        train=worker_memory(spec, facts, trace=trace),
        evaluate=_evaluation_memory(weights),
        serve=replica_memory(spec.serve, weights),
    )


def weights_of_base(spec: RunSpec, facts: RowFacts) -> WeightCounts | None:
    """Return the numbers of weights of `model.base`; None if there is no base, or its size is not known."""
    is_table = task_catalog.get_task(spec.task).learns_from_features
    if spec.model.base is None or is_table or why_size_is_unknown(spec):
        return None
    return count_weights(locate_base_model(spec.model.base), spec, facts.outputs)


def _evaluation_memory(weights: WeightCounts | None) -> Estimate:
    libraries = Term("Python, torch and transformers", "measured before a model is loaded", "", LIBRARIES, is_base=True)
    model = times("weights", "4 bytes x weights", 4, weights.all if weights else 0)
    return Estimate(without_empty((libraries, model)))
