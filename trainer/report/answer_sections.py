"""Report sections about the answers that a model wrote to held-out prompts."""

from __future__ import annotations

from pathlib import Path

from trainer.charts.section import ReportSection, TableColumn
from trainer.inference.answers import ANSWERS_FILE, CHAMPION_ANSWERS_FILE, read_answers
from trainer.spec.answers import AnswersSpec

_MAX_CHARS = 600


def answer_sections(folder: Path, spec: AnswersSpec | None) -> list[ReportSection]:
    """Return a section with the first answers in the run's `folder`, beside the rows' own and the champion's."""
    ours = read_answers(folder / ANSWERS_FILE) if spec else {}
    if spec is None or not ours or not spec.shown:
        return []
    champions = read_answers(folder / CHAMPION_ANSWERS_FILE)
    columns = ["prompt", "answer", "the row's own answer", *(["champion's answer"] if champions else [])]
    rows = []
    for number, samples in list(ours.items())[: spec.shown]:
        first = samples[0]
        cells = [_end(first.prompt), _start(first.answer), _start(first.reference)]
        champion = champions.get(number)
        rows.append([*cells, *([_start(champion[0].answer) if champion else ""] if champions else [])])
    note = f"The first {len(rows)} of {len(ours):,} answers; all of them are in {ANSWERS_FILE} in the run's folder."
    return [ReportSection("Answers", columns=[TableColumn(name) for name in columns], rows=rows, note=note)]


def _start(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + " …"


def _end(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else "… " + text[-_MAX_CHARS:]
