"""The report on data: one HTML file about prepared rows, to be read before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cluster.progress import Progress
from trainer.charts import style
from trainer.data.prepared import Prepared
from trainer.report import data_charts, data_facts, html, suspects, twins
from trainer.report.data_facts import PARTS, AllRows
from trainer.report.suspects import Suspects
from trainer.tasks import catalog as task_catalog

FILE = "data.html"
# More classes than that are shown from both ends: the largest and the smallest.
_CLASSES_SHOWN = 300
# As many are shown as a table with bars; more get a chart, and the table is folded.
_FEW_CLASSES = 30
_CONTRADICTIONS_SHOWN = 20
_TEXT_SHOWN = 400


class Facts(NamedTuple):
    """Everything the page shows."""

    rows: AllRows
    classes: list[dict[str, Any]]
    lengths: list[dict[str, Any]]
    max_length: int | None
    bad: list[dict[str, Any]]
    left_out: dict[str, int]
    """Step of the spec -> rows it left out."""
    duplicates: list[dict[str, Any]]
    repeated: list[dict[str, Any]]
    contradictions: list[dict[str, Any]]
    leaks: list[dict[str, Any]]
    not_compared: int
    suspects: Suspects
    words: dict[str, list[str]]

    def summary(self) -> dict[str, Any]:
        """Return the figures that `--json` prints."""
        return {
            "rows": {part: len(self.rows.of(part)) for part in PARTS},
            "classes": len(self.classes),
            "bad_rows": {entry["reason"]: entry["rows"] for entry in self.bad},
            "left_out": self.left_out,
            "at_limit": {entry["part"]: entry["at_limit"] for entry in self.lengths},
            "duplicates": {entry.pop("part"): entry for entry in map(dict, self.duplicates)},
            "contradictions": len(self.contradictions),
            "leaks": {f"{leak['of']} in {leak['into']}": {d: leak[d] for d in twins.DEGREES} for leak in self.leaks},
            "suspected_labels": self.suspects.found,
            "baseline_accuracy": self.suspects.accuracy if self.suspects.rows else None,
        }


def gather(prepared: Prepared, tell: Callable[[Progress], None]) -> Facts:
    """Return what there is to say about prepared rows; `tell` hears what is being looked at."""
    from trainer.tasks.text.profile import max_length_of

    def step(number: int, what: str) -> None:
        tell(Progress(done=number, total=5, unit="steps", note=what))

    step(0, "reading rows")
    rows = data_facts.collect(prepared)
    train = rows.of("train")
    max_length = max_length_of(prepared.contract)
    step(1, "looking for equal texts")
    same = twins.find(rows.texts)
    step(2, "looking for leaks")
    leaks = twins.leaks(rows, same)
    step(3, "looking for wrong labels")
    doubts = suspects.find([rows.texts[at] for at in train], [rows.labels[at] for at in train], same.case[train])
    step(4, "counting words")
    return Facts(
        rows=rows,
        classes=data_facts.classes(rows, task_catalog.of(prepared.contract).target.labels(prepared.contract.fitted)),
        lengths=data_facts.lengths(rows, max_length),
        max_length=max_length,
        bad=data_facts.bad_rows(prepared.folder, list(prepared.summary["left_out"])),
        left_out=dict(prepared.summary.get("left_out", {})),
        duplicates=twins.duplicates(rows, same),
        repeated=twins.repeated(rows, same),
        contradictions=twins.contradictions(rows, same),
        leaks=leaks,
        not_compared=same.left_out,
        suspects=doubts,
        words=data_facts.typical_words(rows),
    )


def write(path: Path, facts: Facts, *, title: str, prepared: Prepared, spec_text: str = "") -> None:
    """Write the page."""
    from markupsafe import Markup

    classes = facts.classes
    left_out = max(0, len(classes) - _CLASSES_SHOWN)
    if left_out:
        classes = classes[: _CLASSES_SHOWN // 2] + classes[-_CLASSES_SHOWN // 2 :]
    few = len(facts.classes) <= _FEW_CLASSES
    lengths = {part: facts.rows.lengths[facts.rows.of(part)] for part in PARTS}
    html.write(
        path,
        "data_template.html",
        title=title,
        subtitle=f"{len(facts.rows):,} usable rows in {len(facts.classes):,} classes",
        parts=PARTS,
        facts=facts,
        tiles=_tiles(facts),
        findings=findings(facts),
        class_chart=None if few else Markup(data_charts.class_sizes(facts.classes)),
        classes=classes,
        classes_left_out=left_out,
        largest=max((entry["rows"] for entry in facts.classes), default=0) or 1,
        colours=style.OF_PART,
        length_chart=Markup(data_charts.length_histogram(lengths, facts.max_length)),
        contradictions=facts.contradictions[:_CONTRADICTIONS_SHOWN],
        near=twins.NEAR,
        clip=_clip,
        origin=_origin(prepared),
        spec=spec_text,
    )


def findings(facts: Facts) -> list[dict[str, str]]:
    """Return what deserves a look, gravest first: {grade, text, where}; `grade` is bad, note or good."""
    found: list[dict[str, str]] = []

    def say(grade: str, text: str, where: str) -> None:
        found.append({"grade": grade, "text": text[:1].upper() + text[1:], "where": where})

    for leak in facts.leaks:
        into, of = leak["into"], leak["of"]
        if leak["exact"] + leak["case"]:
            same = _count(leak["exact"] + leak["case"], "row")
            but = "" if leak["exact"] else ", but for case and punctuation"
            say("bad", f"{into} holds {same} that {of} has too{but}: figures on them flatter", "leaks")
        if leak["near"] and into == "test":
            share = leak["near"] / max(1, len(facts.rows.of(into)))
            say("note", f"{into} holds {_count(leak['near'], 'row')} ({share:.1%}) nearly the same as in {of}", "leaks")
    if facts.contradictions:
        say("bad", f"{_count(len(facts.contradictions), 'text')} with more than one label", "duplicates")
    bad = sum(entry["rows"] for entry in facts.bad)
    if bad:
        reasons = ", ".join(f"{entry['rows']:,} {entry['reason']}" for entry in facts.bad[:3])
        more = ", …" if len(facts.bad) > 3 else ""
        say("bad", f"{_count(bad, 'row')} that cannot be used ({reasons}{more})", "bad")
    doubts = facts.suspects
    if doubts.found:
        judge = f"by a simple model that is right on {doubts.accuracy:.0%}"
        among = f"among {doubts.rows:,} training rows"
        say("note", f"{_count(doubts.found, 'doubtful label')} {among}, {judge}", "suspects")
    for entry in facts.lengths:
        if entry["at_limit"]:
            say("note", f"{entry['at_limit']:.1%} of {entry['part']} are cut at {facts.max_length} tokens", "lengths")
    sizes = [entry["train"] for entry in facts.classes]
    if sizes and max(sizes) > 10 * max(1, min(sizes)):
        say("note", f"the largest class has {max(sizes):,} training rows, the smallest {min(sizes):,}", "classes")
    if not found:
        say("good", "nothing stands out: no leaks, no contradictions, no unusable rows", "classes")
    return sorted(found, key=lambda entry: ("bad", "note", "good").index(entry["grade"]))


def _tiles(facts: Facts) -> list[tuple[str, str, str]]:
    """Return (value, name, anchor) of the figures at the top."""
    tiles = [(f"{len(facts.rows.of(part)):,}", f"{part} rows", "classes") for part in PARTS]
    into_test = next(leak["exact"] + leak["case"] for leak in facts.leaks if leak["into"] == "test")
    tiles += [
        (f"{len(facts.classes):,}", "classes", "classes"),
        (f"{sum(entry['rows'] for entry in facts.bad):,}", "unusable rows", "bad"),
        (f"{sum(e['exact'] + e['case'] for e in facts.duplicates):,}", "duplicates", "duplicates"),
        (f"{into_test:,}", "test rows in train", "leaks"),
    ]
    if facts.suspects.rows:
        tiles.append((f"{facts.suspects.found:,}", "doubtful labels", "suspects"))
    return tiles


def _origin(prepared: Prepared) -> list[tuple[str, str]]:
    steps = [step.name for step in prepared.contract.steps]
    return [
        ("prepared data", str(prepared.folder)),
        ("contract fingerprint", prepared.contract.fingerprint),
        ("columns", ", ".join(f"{role}: {column}" for role, column in prepared.contract.columns.items())),
        ("steps", ", ".join(steps)),
    ]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _clip(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}…"
