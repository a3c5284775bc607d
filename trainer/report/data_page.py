"""The report on data: one HTML file about prepared rows, to read before training on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cluster.progress import Progress
from trainer.charts.style import PART_COLORS
from trainer.data.folder import FILES_LEFT_OUT
from trainer.data.parts import PARTS
from trainer.data.prepared import Prepared
from trainer.report.data_charts import draw_class_sizes, draw_length_histogram
from trainer.report.data_facts import (
    UsableRows,
    collect_rows,
    count_bad_rows,
    count_classes,
    describe_lengths,
    find_typical_words,
)
from trainer.report.data_findings import Finding, bad_row_findings, clip, describe_source, file_findings, leak_findings
from trainer.report.duplicates import (
    DEGREES,
    NEAR_SIMILARITY,
    count_duplicates,
    find_contradictions,
    find_leaks,
    find_repeated,
    group_duplicates,
)
from trainer.report.html import render_page
from trainer.report.suspects import Suspects, find_suspects
from trainer.tasks.catalog import task_of_contract

DATA_REPORT_FILE = "data.html"
# With more classes, only the largest and the smallest are listed.
_MAX_CLASSES = 300
# Up to this many classes are shown as a table with bars. More get a chart, and the table is collapsed.
_MAX_TABLE_CLASSES = 30
_MAX_CONTRADICTIONS = 20


class DataFacts(NamedTuple):
    """All facts that the page shows."""

    rows: UsableRows
    classes: list[dict[str, Any]]
    lengths: list[dict[str, Any]]
    max_length: int | None
    bad: list[dict[str, Any]]
    left_out: dict[str, int]
    """Step of the spec -> rows it removed."""
    files_left_out: dict[str, dict[str, Any]]
    """Extension -> `files` and `examples` of files without rows."""
    duplicates: list[dict[str, Any]]
    repeated: list[dict[str, Any]]
    contradictions: list[dict[str, Any]]
    leaks: list[dict[str, Any]]
    not_compared: int
    suspects: Suspects
    words: dict[str, list[str]]

    def summary(self) -> dict[str, Any]:
        """Return the numbers that `--json` prints."""
        return {
            "rows": {part: len(self.rows.rows_of(part)) for part in PARTS},
            "classes": len(self.classes),
            "bad_rows": {entry["reason"]: entry["rows"] for entry in self.bad},
            "left_out": self.left_out,
            "files_left_out": self.files_left_out,
            "at_limit": {entry["part"]: entry["at_limit"] for entry in self.lengths},
            "duplicates": {entry.pop("part"): entry for entry in map(dict, self.duplicates)},
            "contradictions": len(self.contradictions),
            "leaks": {
                f"{leak['source']} in {leak['part']}": {degree: leak[degree] for degree in DEGREES}
                for leak in self.leaks
            },
            "suspected_labels": self.suspects.n_suspects,
            "baseline_accuracy": self.suspects.accuracy if self.suspects.rows else None,
        }


def collect_facts(prepared: Prepared, on_progress: Callable[[Progress], None]) -> DataFacts:
    """Return the facts about prepared rows; `on_progress` is called before each step."""
    from trainer.tasks.text.profile import max_length_of

    def start_step(number: int, note: str) -> None:
        on_progress(Progress(done=number, total=5, unit="steps", note=note))

    start_step(0, "reading rows")
    rows = collect_rows(prepared)
    train = rows.rows_of("train")
    max_length = max_length_of(prepared.contract)
    start_step(1, "finding duplicates")
    groups = group_duplicates(rows.texts)
    start_step(2, "finding leaks")
    leaks = find_leaks(rows, groups)
    start_step(3, "finding wrong labels")
    suspects = find_suspects(
        [rows.texts[row] for row in train], [rows.labels[row] for row in train], groups.case[train]
    )
    start_step(4, "counting words")
    return DataFacts(
        rows=rows,
        classes=count_classes(rows, task_of_contract(prepared.contract).target.labels(prepared.contract.fitted)),
        lengths=describe_lengths(rows, max_length),
        max_length=max_length,
        bad=count_bad_rows(prepared.folder, list(prepared.summary["left_out"])),
        left_out=dict(prepared.summary.get("left_out", {})),
        files_left_out=prepared.summary.get(FILES_LEFT_OUT, {}),
        duplicates=count_duplicates(rows, groups),
        repeated=find_repeated(rows, groups),
        contradictions=find_contradictions(rows, groups),
        leaks=leaks,
        not_compared=groups.not_compared,
        suspects=suspects,
        words=find_typical_words(rows),
    )


def write_data_page(path: Path, facts: DataFacts, *, title: str, prepared: Prepared, spec_text: str = "") -> None:
    """Write the page to `path`."""
    from markupsafe import Markup

    classes = facts.classes
    classes_left_out = max(0, len(classes) - _MAX_CLASSES)
    if classes_left_out:
        classes = classes[: _MAX_CLASSES // 2] + classes[-_MAX_CLASSES // 2 :]
    as_table = len(facts.classes) <= _MAX_TABLE_CLASSES
    lengths = {part: facts.rows.lengths[facts.rows.rows_of(part)] for part in PARTS}
    render_page(
        path,
        "data_template.html",
        title=title,
        subtitle=f"{len(facts.rows):,} usable rows in {len(facts.classes):,} classes",
        parts=PARTS,
        facts=facts,
        tiles=_tiles(facts),
        findings=list_findings(facts),
        class_chart=None if as_table else Markup(draw_class_sizes(facts.classes)),
        classes=classes,
        classes_left_out=classes_left_out,
        largest=max((entry["rows"] for entry in facts.classes), default=0) or 1,
        colors=PART_COLORS,
        length_chart=Markup(draw_length_histogram(lengths, facts.max_length)),
        contradictions=facts.contradictions[:_MAX_CONTRADICTIONS],
        near=NEAR_SIMILARITY,
        clip=clip,
        source=describe_source(prepared),
        spec=spec_text,
    )


def list_findings(facts: DataFacts) -> list[Finding]:
    """Return the findings, most serious first. If nothing stands out, a single finding says so."""
    findings = [
        *leak_findings(facts),
        *_contradiction_findings(facts),
        *bad_row_findings(facts),
        *file_findings(facts),
        *_suspect_findings(facts),
        *_length_findings(facts),
        *_balance_findings(facts),
    ]
    if not findings:
        return [Finding("good", "Nothing stands out: no leaks, no contradictions, no unusable rows", "classes")]
    return sorted(findings, key=lambda finding: ("bad", "note").index(finding.grade))


def _contradiction_findings(facts: DataFacts) -> list[Finding]:
    count = len(facts.contradictions)
    if not count:
        return []
    texts = "1 text has" if count == 1 else f"{count:,} texts have"
    return [Finding("bad", f"{texts} more than one label", "duplicates")]


def _suspect_findings(facts: DataFacts) -> list[Finding]:
    suspects = facts.suspects
    if not suspects.n_suspects:
        return []
    labels = "1 label looks" if suspects.n_suspects == 1 else f"{suspects.n_suspects:,} labels look"
    model = f"a simple model with an accuracy of {suspects.accuracy:.0%}"
    return [Finding("note", f"{labels} wrong to {model}, among {suspects.rows:,} training rows", "suspects")]


def _length_findings(facts: DataFacts) -> list[Finding]:
    return [
        Finding(
            "note", f"{entry['at_limit']:.1%} of {entry['part']} rows are cut at {facts.max_length} tokens", "lengths"
        )
        for entry in facts.lengths
        if entry["at_limit"]
    ]


def _balance_findings(facts: DataFacts) -> list[Finding]:
    sizes = [entry["train"] for entry in facts.classes]
    if not sizes or max(sizes) <= 10 * max(1, min(sizes)):
        return []
    text = f"The largest class has {max(sizes):,} training rows, the smallest {min(sizes):,}"
    return [Finding("note", text, "classes")]


def _tiles(facts: DataFacts) -> list[tuple[str, str, str]]:
    """Return (value, name, anchor) of each number at the top of the page."""
    tiles = [(f"{len(facts.rows.rows_of(part)):,}", f"{part} rows", "classes") for part in PARTS]
    test_leaks = next(leak["exact"] + leak["case"] for leak in facts.leaks if leak["part"] == "test")
    tiles += [
        (f"{len(facts.classes):,}", "classes", "classes"),
        (f"{sum(entry['rows'] for entry in facts.bad):,}", "unusable rows", "bad"),
        (f"{sum(entry['exact'] + entry['case'] for entry in facts.duplicates):,}", "duplicates", "duplicates"),
        (f"{test_leaks:,}", "test rows in train", "leaks"),
    ]
    if facts.suspects.rows:
        tiles.append((f"{facts.suspects.n_suspects:,}", "doubtful labels", "suspects"))
    return tiles
