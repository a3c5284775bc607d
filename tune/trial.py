"""One trial: the training loop in the trial's own actor, or a Ray Train run beside it where it has several workers.

A nested Ray Train run costs about 20 s of start-up on 2 cores and its checkpoints reach Tune only as a path in the
metrics; so a trial with one worker runs the very same loop in the actor that Tune already has (and uses again).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import spec_load, tasks
from trainer.data.prepared import Prepared
from trainer.fit import fit
from trainer.result import read_history
from trainer.training.place import Place
from tune.space import preparation_of

_LOOK_EVERY_S = 0.3


def run_trial(
    values: dict[str, Any], *, base: dict[str, Any], prepared: dict[str, str], folder: str, threads: int
) -> None:
    """Train once with `values` put into the spec `base`; called by Ray Tune inside a trial's actor."""
    import ray.tune

    spec = spec_load.with_values(spec_load.validate(base), values)
    rows = Path(prepared[preparation_of(values)])
    place = Path(folder) / "trials" / ray.tune.get_context().get_trial_id()
    place.mkdir(parents=True, exist_ok=True)
    if spec.cluster.workers == 1:
        device = "cuda" if spec.cluster.gpus_per_worker > 0 else "cpu"
        tasks.get(spec.task).train(spec, Prepared(rows), Place(0, 1, device, threads), _report, place)
    else:
        _train_beside(spec, rows, place, threads)


def _report(figures: dict[str, Any], save: Callable[[Path], None] | None) -> None:
    import ray.tune

    if save is None:
        ray.tune.report(figures)
        return
    with tempfile.TemporaryDirectory() as local:
        save(Path(local))
        ray.tune.report(figures, checkpoint=ray.tune.Checkpoint.from_directory(local))


def _train_beside(spec: Any, rows: Path, place: Path, threads: int) -> None:
    """Run Ray Train with several workers and pass its epochs on to Tune as they come.

    The epochs are read from the history that rank 0 writes; the best checkpoint is handed to Tune at the end, when
    Ray Train has it whole.
    """
    import ray.tune

    outcome: dict[str, Any] = {}

    def body() -> None:
        try:
            outcome["result"] = fit(spec, rows, place, float(threads))
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=body, daemon=True, name="raymill-nested-train")
    thread.start()
    told = 0
    while thread.is_alive():
        thread.join(_LOOK_EVERY_S)
        for epoch in read_history(place)[told:-1]:
            ray.tune.report(epoch)
            told += 1
    if "error" in outcome:
        raise outcome["error"]
    result = outcome["result"]
    for epoch in result.history[told:-1]:
        ray.tune.report(epoch)
    # The last report carries the checkpoint; its figures are the best epoch's, to which the checkpoint belongs.
    checkpoint = ray.tune.Checkpoint.from_directory(str(result.checkpoint))
    ray.tune.report({**result.history[-1], **result.metrics}, checkpoint=checkpoint)
