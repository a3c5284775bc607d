"""Build, time and check one engine on held-out texts."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cluster.errors import error_summary, user_error_in
from cluster.files import new_folder
from serve.engines.base import EngineError
from serve.engines.generation.catalog import LoadOwn, LoadSettings, build_engine, load_engine
from serve.engines.generation.held_out import HeldOutTexts, Judgment
from serve.engines.generation.throughput import STREAMS, tokens_per_s
from serve.engines.guard import judge
from trainer.generation.engine import Engine

#: The metric that engines are held to: the negative log-likelihood of a held-out token, in nats.
METRIC = "log_loss"


class GenerationCandidate(NamedTuple):
    """The measurements of one engine."""

    name: str
    tokens_per_s: dict[str, float]
    """Number of answers at a time -> tokens a second of all together. Empty if the engine cannot be used."""
    build_s: float
    refused: str = ""
    """Why it cannot be chosen; empty if it can."""
    metric: float | None = None
    own_metric: float | None = None
    agreement: float | None = None
    """Share of the held-out tokens in whose place engine and model find the same token most probable."""
    rows: int = 0
    """Held-out tokens that were compared."""
    changed: int | None = None
    p_value: float | None = None
    conclusion: str = ""

    @property
    def is_eligible(self) -> bool:
        """Whether it was checked and is as good as the model itself."""
        return not self.refused and self.metric is not None

    @property
    def timing_line(self) -> str:
        """The line that users see after the engine is timed."""
        if not self.tokens_per_s:
            return f"{self.name:<14} left out: {self.refused}"
        speeds = "   ".join(f"{speed:7,.1f} at {streams}" for streams, speed in self.tokens_per_s.items())
        return f"{self.name:<14} tokens/s by answers at a time: {speeds}"

    @property
    def check_line(self) -> str:
        """The line that users see after the engine is checked."""
        return f"{self.name:<14} {'not chosen' if self.refused else 'good enough'}: {self.conclusion}"


class EngineMeasurement:
    """Times and checks engines of one model, all on the same texts."""

    def __init__(
        self, folder: Path, texts: HeldOutTexts, load_own: LoadOwn, settings: LoadSettings, timing_s: float
    ) -> None:
        """`folder` is a transformers folder. Each engine is timed for `timing_s` seconds at each number of answers."""
        self._folder, self._texts, self._load_own = folder, texts, load_own
        self._settings, self._timing_s = settings._replace(has_fallback=False), timing_s
        self._own: Judgment | None = None

    def measure(self, name: str, built: Path, tolerance: float) -> GenerationCandidate:
        """Build an engine into the folder `built`, time it and check it; `tolerance` is that of `serve.engines.guard.judge`.

        The model's own engine comes first. A `UserError` is raised. Any other failure is returned as `refused`.
        """
        started = time.perf_counter()
        engine = None
        try:
            shutil.rmtree(built, ignore_errors=True)
            with new_folder(built) as unfinished:
                build_engine(name, self._folder, unfinished)
            engine = load_engine(name, built, self._settings, self._load_own)
            build_s = round(time.perf_counter() - started, 2)
            speeds = {
                str(streams): round(tokens_per_s(engine, self._texts.prompts, streams, self._timing_s), 1)
                for streams in STREAMS
            }
            return self._check(GenerationCandidate(name, speeds, build_s), engine, tolerance)
        except EngineError as error:
            reason = str(error)
        except Exception as error:  # raised by a library that does not support this model
            mistake = user_error_in(error)
            if mistake is not None:
                raise mistake from error
            reason = error_summary(error)
        finally:
            if engine is not None:
                engine.close()
        return GenerationCandidate(name, {}, round(time.perf_counter() - started, 2), reason)

    def _check(self, candidate: GenerationCandidate, engine: Engine, tolerance: float) -> GenerationCandidate:
        """Return the candidate with the verdict on its probabilities."""
        judgment = self._texts.judge(engine)
        if self._own is None:
            self._own = judgment
            loss = _log_loss(judgment.logprobs)
            return candidate._replace(
                metric=loss,
                own_metric=loss,
                agreement=1.0,
                rows=len(judgment.best),
                changed=0,
                conclusion="the model itself",
            )
        if not np.isfinite(judgment.logprobs).all():
            return candidate._replace(
                refused="its probabilities are not finite", conclusion="its probabilities are not finite"
            )
        changed = judgment.best != self._own.best
        verdict = judge(
            self._own.logprobs,
            judgment.logprobs,
            changed,
            _log_loss,
            name=METRIC,
            higher_is_better=False,
            tolerance=tolerance,
            subject="tokens have another most probable one in their place",
        )
        return candidate._replace(
            metric=verdict.metric,
            own_metric=verdict.own_metric,
            agreement=round(1 - float(changed.mean()), 4),
            rows=verdict.rows,
            changed=verdict.changed,
            p_value=verdict.p_value,
            refused=verdict.refused,
            conclusion=verdict.conclusion,
        )


def _log_loss(logprobs: np.ndarray) -> float:
    return -float(logprobs.mean())
