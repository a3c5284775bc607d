"""Write the files of a manifest into a folder, and check the files of a folder."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import SpecError
from cluster.files import write_bytes
from cluster.manifests.documents import to_yaml
from cluster.manifests.inputs import ManifestInputs
from cluster.manifests.kinds import get_kind

_NOTICE = (
    "# Written by `raymill manifest --kind {kind}` from the spec of {name}. Change the spec, and write it again.\n"
)


def render_manifest(kind: str, inputs: ManifestInputs) -> dict[str, str]:
    """Return the files of a kind: name -> text. Raises `SpecError` if the kind's own checks refuse what it wrote."""
    chosen = get_kind(kind)
    notice = _NOTICE.format(kind=kind, name=inputs.spec.name)
    files = {
        name: content if isinstance(content, str) else notice + to_yaml(content)
        for name, content in chosen.render(inputs).items()
    }
    raise_problems(chosen.check(files))
    return files


def write_manifest(files: dict[str, str], folder: Path) -> list[Path]:
    """Write files into a folder and return their paths. Files of other names there stay."""
    paths = []
    for name, text in files.items():
        write_bytes(folder / name, text.encode())
        if text.startswith("#!"):
            (folder / name).chmod(0o755)
        paths.append(folder / name)
    return paths


def check_folder(kind: str, folder: Path) -> list[Path]:
    """Check the files of a folder as a manifest of a kind, and return them. Raises `SpecError` with every problem."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not paths:
        raise SpecError(
            f"{folder} has no files", f"write them first: `raymill manifest SPEC --kind {kind} -o {folder}`"
        )
    texts = {}
    for path in paths:
        try:
            texts[str(path.relative_to(folder))] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"{path} cannot be read: {error}", "check the file") from error
    raise_problems(get_kind(kind).check(texts))
    return paths


def raise_problems(problems: list[str]) -> None:
    """Raise `SpecError` with all problems if there are any."""
    if problems:
        count = f"{len(problems)} problems:\n  " if len(problems) > 1 else ""
        raise SpecError(
            f"the manifest is not valid: {count}" + "\n  ".join(problems), "change the files, or the spec's `deploy:`"
        )
