"""The report on the data of a language model: what is learned of each row, tokens, steps, leaks, unusable rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cluster.progress import Progress
from trainer.data.folder import FILES_LEFT_OUT
from trainer.data.parts import PARTS
from trainer.data.prepared import Prepared
from trainer.report.data_charts import draw_length_histogram
from trainer.report.data_facts import UsableRows, count_bad_rows
from trainer.report.data_findings import (
    Finding,
    bad_row_findings,
    clip,
    describe_source,
    file_findings,
    leak_findings,
)
from trainer.report.duplicates import DEGREES, NEAR_SIMILARITY, count_duplicates, find_leaks, group_duplicates
from trainer.report.html import render_page
from trainer.report.token_facts import collect_token_rows, cut_length, describe_steps, describe_tokens, show_samples
from trainer.spec.run import RunSpec

# Below this share of learned tokens, most of the work of a training is reading.
_LITTLE = 0.05


class TokenFacts(NamedTuple):
    """All facts that the page shows."""

    rows: UsableRows
    samples: list[dict[str, Any]]
    tokens: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    bad: list[dict[str, Any]]
    left_out: dict[str, int]
    files_left_out: dict[str, dict[str, Any]]
    duplicates: list[dict[str, Any]]
    leaks: list[dict[str, Any]]
    not_compared: int

    def summary(self) -> dict[str, Any]:
        """Return the numbers that `--json` prints."""
        return {
            "rows": {part: len(self.rows.rows_of(part)) for part in PARTS},
            "tokens": {entry["part"]: entry["tokens"] for entry in self.tokens},
            "learned_tokens": {entry["part"]: entry["learned"] for entry in self.tokens},
            "at_limit": {entry["part"]: entry["at_limit"] for entry in self.tokens},
            "steps": {entry["tokens_per_step"]: entry["steps"] for entry in self.steps},
            "bad_rows": {entry["reason"]: entry["rows"] for entry in self.bad},
            "left_out": self.left_out,
            "files_left_out": self.files_left_out,
            "duplicates": {entry.pop("part"): entry for entry in map(dict, self.duplicates)},
            "leaks": {
                f"{leak['source']} in {leak['part']}": {degree: leak[degree] for degree in DEGREES}
                for leak in self.leaks
            },
        }


def collect_facts(prepared: Prepared, spec: RunSpec, on_progress: Callable[[Progress], None]) -> TokenFacts:
    """Return the facts about prepared rows; `on_progress` is called before each step."""

    def start_step(number: int, note: str) -> None:
        on_progress(Progress(done=number, total=3, unit="steps", note=note))

    start_step(0, "reading rows")
    token_rows = collect_token_rows(prepared)
    rows = token_rows.rows
    start_step(1, "finding duplicates")
    groups = group_duplicates(rows.texts)
    start_step(2, "finding leaks")
    budget = spec.train.tokens_per_step
    return TokenFacts(
        rows=rows,
        samples=show_samples(prepared),
        tokens=describe_tokens(token_rows, cut_length(prepared)),
        steps=describe_steps(token_rows, spec.train.seed, budget if isinstance(budget, int) else None),
        bad=count_bad_rows(prepared.folder, list(prepared.summary["left_out"])),
        left_out=dict(prepared.summary.get("left_out", {})),
        files_left_out=prepared.summary.get(FILES_LEFT_OUT, {}),
        duplicates=count_duplicates(rows, groups),
        leaks=find_leaks(rows, groups),
        not_compared=groups.not_compared,
    )


def write_page(path: Path, facts: TokenFacts, *, title: str, prepared: Prepared, spec_text: str = "") -> None:
    """Write the page to `path`."""
    from markupsafe import Markup

    lengths = {part: facts.rows.lengths[facts.rows.rows_of(part)] for part in PARTS}
    n_tokens = sum(entry["tokens"] for entry in facts.tokens)
    render_page(
        path,
        "token_template.html",
        title=title,
        subtitle=f"{len(facts.rows):,} usable rows with {n_tokens:,} tokens",
        facts=facts,
        tiles=_tiles(facts),
        findings=list_findings(facts),
        length_chart=Markup(draw_length_histogram(lengths, None)),
        near=NEAR_SIMILARITY,
        clip=clip,
        source=describe_source(prepared),
        spec=spec_text,
    )


def list_findings(facts: TokenFacts) -> list[Finding]:
    """Return the findings, most serious first. If nothing stands out, a single finding says so."""
    findings = [*leak_findings(facts), *bad_row_findings(facts), *file_findings(facts)]
    findings += [*_cut_findings(facts), *_learned_findings(facts)]
    if not findings:
        return [Finding("good", "Nothing stands out: no leaks, no unusable rows", "learned")]
    return sorted(findings, key=lambda finding: ("bad", "note").index(finding.grade))


def _cut_findings(facts: TokenFacts) -> list[Finding]:
    return [
        Finding(
            "note",
            f"{entry['at_limit']:,} {entry['part']} rows ({entry['at_limit'] / entry['rows']:.1%}) are as long as "
            "data.max_length allows: nearly all of them were cut",
            "tokens",
        )
        for entry in facts.tokens
        if entry["at_limit"]
    ]


def _learned_findings(facts: TokenFacts) -> list[Finding]:
    train = facts.tokens[0]
    share = train["learned"] / max(1, train["tokens"])
    if share >= _LITTLE:
        return []
    return [Finding("note", f"Only {share:.1%} of the training tokens are learned; the others are only read", "tokens")]


def _tiles(facts: TokenFacts) -> list[tuple[str, str, str]]:
    """Return (value, name, anchor) of each number at the top of the page."""
    train = facts.tokens[0]
    test_leak = next(leak for leak in facts.leaks if (leak["source"], leak["part"]) == ("train", "test"))
    return [
        *[(f"{len(facts.rows.rows_of(part)):,}", f"{part} rows", "tokens") for part in PARTS],
        (f"{train['tokens']:,}", "training tokens", "tokens"),
        (f"{train['learned'] / max(1, train['tokens']):.0%}", "of them learned", "learned"),
        (f"{sum(entry['rows'] for entry in facts.bad):,}", "unusable rows", "bad"),
        (f"{test_leak['rows']:,}", "test rows near training", "leaks"),
    ]
