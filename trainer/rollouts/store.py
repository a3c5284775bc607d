"""The sampled answers of a training, in its folder: for people to read, and for a run that resumes.

    rollouts.jsonl   one line for each step that sampled answers

A run that resumes from a checkpoint reads the answers of the steps after it again, so they have the same rewards even if
a reward of the user's own does not give the same number twice.
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster.files import append_line, write_bytes
from trainer.rollouts.sample import SampledAnswer
from trainer.runs.journal import read_json_lines

ROLLOUTS_FILE = "rollouts.jsonl"


class RolloutStore:
    """The sampled answers of one training, by epoch and number of the step in it. Only the first rank has one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ROLLOUTS_FILE
        lines = read_json_lines(self._path)
        if lines:  # without a line that was cut when the machine stopped: nothing after it would be read
            write_bytes(self._path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        self._stored = {(line["epoch"], line["number"]): line["answers"] for line in lines}

    def take(self, epoch: int, number: int) -> list[SampledAnswer] | None:
        """Return the answers of a step that were stored before this process began; None if there are none."""
        answers = self._stored.pop((epoch, number), None)
        return None if answers is None else [SampledAnswer(**answer) for answer in answers]

    def add(self, epoch: int, number: int, answers: list[SampledAnswer]) -> None:
        """Store the answers of a step."""
        line = {"epoch": epoch, "number": number, "answers": [answer._asdict() for answer in answers]}
        append_line(self._path, json.dumps(line))
