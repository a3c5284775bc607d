"""Draft a spec from data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.paths import expand_home

if TYPE_CHECKING:
    from trainer.draft.draft import SpecDraft


def init(
    data: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    target: str | None = None,
    task: str | None = None,
    base: str | None = None,
    format: str | Mapping[str, Any] | Sequence[str] = "auto",
    force: bool = False,
) -> SpecDraft:
    """Return a drafted spec for `data`, and write it to `output` if that is given.

    `data` is a csv, tsv, jsonl, parquet or arrow file, several of them, a glob, or a folder: of such files, of images
    or of texts with a subfolder for each class. Only a sample of a large file is read. `target` (a column), `task` and
    `base` (a base model) overrule the guesses; `format` says how the files are read, like `data.format` of a spec.
    Paths in the spec are relative to the folder of `output`, or else to the working directory.

    The result has the `text` of the spec, the `spec`, `columns`, and the sentences `assumed` and `unsure`. Raises
    `DataError` if no spec can be written for the data, and `SpecError` if `output` exists, unless `force` is set.
    """
    from cluster.errors import SpecError
    from cluster.files import write_bytes
    from trainer.draft.draft import draft_spec
    from trainer.spec.format_option import read_format

    path = None if output is None else expand_home(output).absolute()
    if path is not None and path.exists() and not (force and path.is_file()):
        raise SpecError(f"{output} exists already", "name another file with -o, or overwrite it with --force")
    sources = [data] if isinstance(data, (str, Path)) else list(data)
    draft = draft_spec(
        [str(source) for source in sources],
        folder=path.parent if path else Path.cwd(),
        target=target,
        task=task,
        base=base,
        reading=read_format(format),
    )
    if path is not None:
        write_bytes(path, draft.text.encode())
    return draft
