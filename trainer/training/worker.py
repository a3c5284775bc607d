"""What a process that trains runs, whether Ray Train started it beside others or it is alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import errors
from cluster.errors import UserError
from cluster.files import read_json, write_json
from trainer.data.prepared import Prepared
from trainer.inference import golden
from trainer.optim.distributed.worker_context import Place
from trainer.runs import journal
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import Cleaner
from trainer.tasks import catalog as task_catalog
from trainer.tasks import resolve
from trainer.training.callbacks import Frozen, Save
from trainer.training.checkpoint.background_writer import Background
from trainer.training.checkpoint.best_model import BestModels
from trainer.training.feed import Feed, StreamFeed
from trainer.training.run import run

#: A mistake of the user's that a worker found. Another attempt would find it again, so there is none.
FAILURE = "failure.json"

Tell = Callable[[dict[str, Any]], None]


def work(config: dict[str, Any], rank: int, workers: int, device: str, tell: Tell, shard: Any = None) -> None:
    """Train as `config` says and keep the best model in the run's folder; `tell` hears of every epoch on every rank.

    A mistake of the user's is written to the folder and raised, so that workers that wait for this one are stopped; in
    the attempt after that nothing is done.
    """
    folder = Path(config["folder"])
    if (folder / FAILURE).is_file():
        return
    try:
        _train(config, folder, Place(rank, workers, device, config["threads"]), tell, shard)
    except UserError as error:
        note_failure(folder, error)
        raise


def note_failure(folder: Path, error: UserError) -> None:
    """Write a mistake to the folder."""
    write_json(folder / FAILURE, {"kind": type(error).__name__, "problem": error.problem, "fix": error.fix})


def failure(folder: Path) -> UserError | None:
    """Return the mistake that a worker wrote to the folder, if there is one."""
    if not (folder / FAILURE).is_file():
        return None
    found = read_json(folder / FAILURE)
    kind = getattr(errors, found["kind"], UserError)
    error: UserError = kind(found["problem"], found["fix"])
    return error


def _train(config: dict[str, Any], folder: Path, place: Place, tell: Tell, shard: Any) -> None:
    spec = resolve.validate(config["spec"])
    prepared = Prepared(Path(config["prepared"]))
    if place.rank == 0:
        _library_agrees(prepared)
    models = BestModels(folder, Background(lambda text: journal.notice(folder, text)))
    report = _Keeping(models, place, tell)
    stream = _stream(spec, prepared, place, shard)
    run(task_catalog.get(spec.task), spec, prepared, place, report, folder, stream)
    if place.rank == 0:
        models.write_rest()
        models.settle()
        models.keep_only_the_newest()


class _Keeping:
    """Keeps the best epoch's model in the run's folder, and tells of every epoch."""

    def __init__(self, models: BestModels, place: Place, tell: Tell) -> None:
        self._models, self._place, self._tell = models, place, tell

    def __call__(self, figures: dict[str, Any], save: Save | None, state: Save | None = None) -> None:
        if self._place.rank == 0:
            if save is not None:
                self._models.keep(int(figures["epoch"]), save, deferred=isinstance(save, Frozen))
            else:
                self._models.write_rest()
        self._tell(figures)

    def settle(self) -> None:
        """Return when the newest model is on storage, or could not be written."""
        self._models.settle()


def _stream(spec: RunSpec, prepared: Prepared, place: Place, shard: Any) -> Feed | None:
    if shard is None:
        return None
    n_rows = prepared.summary["rows"]["train"]
    seed, size = spec.train.seed, spec.train.batch_size
    return StreamFeed(shard, prepared.contract, n_rows, seed, size, place.rank, place.workers)


def _library_agrees(prepared: Prepared) -> None:
    """Raise `ModelError` now, and not after training, where the model's own library gives other inputs than ours."""
    rows, contract = prepared.part("test"), prepared.contract
    task = task_catalog.of(contract)
    raw = {role: rows.raw(role, golden.ROWS) for role in task.subjects(contract)}
    columns, _ = Cleaner(contract).columns(raw, task.texts)
    inputs = [rows.inputs(at) for at in range(min(golden.ROWS, len(rows)))]
    task.library_agrees(contract, prepared.folder, columns, inputs)
