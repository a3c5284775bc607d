"""Findings that the data reports of all kinds of tasks share: leaks, unusable rows, files left out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from trainer.data.prepared import Prepared
from trainer.report.data_facts import UsableRows

_MAX_TEXT = 400


class SharedFacts(Protocol):
    """The facts that every data report has."""

    @property
    def rows(self) -> UsableRows:
        """The usable rows."""

    @property
    def bad(self) -> list[dict[str, Any]]:
        """As `count_bad_rows` returns them."""

    @property
    def files_left_out(self) -> dict[str, dict[str, Any]]:
        """Extension -> `files` and `examples` of files without rows."""

    @property
    def leaks(self) -> list[dict[str, Any]]:
        """As `find_leaks` returns them."""


class Finding(NamedTuple):
    """One sentence about a problem in the data, or that nothing stands out."""

    grade: str
    """bad, note or good."""
    text: str
    anchor: str
    """The id of the section of the page that shows the details."""


def leak_findings(facts: SharedFacts) -> list[Finding]:
    """Return findings about rows of one part that are also in another part."""
    findings = []
    for leak in facts.leaks:
        part, source = leak["part"], leak["source"]
        same = leak["exact"] + leak["case"]
        if same:
            rows, are = ("row", "is") if same == 1 else ("rows", "are")
            different = "" if leak["exact"] else ", with other case or punctuation"
            text = f"{same:,} {part} {rows} {are} also in {source}{different}: the {part} metrics are too optimistic"
            findings.append(Finding("bad", text, "leaks"))
        if leak["near"] and part == "test":
            share = leak["near"] / max(1, len(facts.rows.rows_of(part)))
            rows, have = ("row", "has") if leak["near"] == 1 else ("rows", "have")
            text = f"{leak['near']:,} {part} {rows} ({share:.1%}) {have} a near-duplicate in {source}"
            findings.append(Finding("note", text, "leaks"))
    return findings


def bad_row_findings(facts: SharedFacts) -> list[Finding]:
    """Return a finding about rows that cannot be used, if there are any."""
    count = sum(entry["rows"] for entry in facts.bad)
    if not count:
        return []
    rows = "row" if count == 1 else "rows"
    reasons = ", ".join(f"{entry['rows']:,} {entry['reason']}" for entry in facts.bad[:3])
    more = ", …" if len(facts.bad) > 3 else ""
    return [Finding("bad", f"{count:,} {rows} cannot be used ({reasons}{more})", "bad")]


def file_findings(facts: SharedFacts) -> list[Finding]:
    """Return a finding about files without rows, if there are any."""
    count = sum(entry["files"] for entry in facts.files_left_out.values())
    if not count:
        return []
    endings = ", ".join(f"{entry['files']:,} {ending}" for ending, entry in list(facts.files_left_out.items())[:3])
    return [Finding("note", f"{count:,} {'file holds' if count == 1 else 'files hold'} no rows ({endings})", "bad")]


def describe_source(prepared: Prepared) -> list[tuple[str, str]]:
    """Return names and values that say where prepared rows come from."""
    steps = [step.name for step in prepared.contract.steps]
    return [
        ("prepared folder", str(prepared.folder)),
        ("contract fingerprint", prepared.contract.fingerprint),
        ("columns", ", ".join(f"{role}: {column}" for role, column in prepared.contract.columns.items())),
        ("steps", ", ".join(steps)),
    ]


def clip(text: str) -> str:
    """Return the start of a text for a table."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
