"""Pack files into one zip file for Ray's job server. The same files give the same bytes, so they are uploaded once."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from cluster.errors import ResourceError
from cluster.jobs.working_files import LeftOut
from cluster.text import format_bytes, list_some

#: Bytes of all files of a package. Ray holds packages in the memory of the head.
MAX_PACKAGE_BYTES = 100_000_000

_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16
_SHOWN = 4


def check_package_size(sizes: Mapping[str, int], root: Path) -> int:
    """Return the sum of the files' sizes in bytes. Raises `ResourceError` if it is over `MAX_PACKAGE_BYTES`."""
    total = sum(sizes.values())
    if total > MAX_PACKAGE_BYTES:
        folders: Counter[str] = Counter()
        for path, size in sizes.items():
            folders[_top(path)] += size
        largest = ", ".join(f"{name} {format_bytes(size)}" for name, size in folders.most_common(_SHOWN))
        raise ResourceError(
            f"the working directory {root} has {format_bytes(total)} to send, over {format_bytes(MAX_PACKAGE_BYTES)}; "
            f"the largest: {largest}",
            "move data to a folder that all nodes see or to s3://, and name what the run does not need in .rayignore, as "
            "in .gitignore",
        )
    return total


def write_package(target: Path, files: Mapping[str, Path | bytes]) -> int:
    """Write a zip file of `files` (path in it -> a file, or its content) and return its size in bytes.

    Raises `ResourceError` if a file can no longer be read.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, _MODE
            if isinstance(source, bytes):
                archive.writestr(entry, source)
                continue
            try:
                with source.open("rb") as reader, archive.open(entry, "w", force_zip64=True) as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
            except OSError as error:
                raise ResourceError(
                    f"{source} cannot be packed: {error.strerror or error}", "check the file, and submit again"
                ) from error
    return target.stat().st_size


def describe_left_out(left_out: list[LeftOut], max_file_bytes: int) -> list[str]:
    """Return one line for each reason why files do not travel, with some of them."""
    by_reason: dict[str, list[LeftOut]] = {}
    for item in left_out:
        by_reason.setdefault(item.reason, []).append(item)
    lines = []
    for reason, items in by_reason.items():
        largest = sorted(items, key=lambda item: -item.size)
        names = [item.path + (f" ({format_bytes(item.size)})" if item.size else "") for item in largest]
        label = f"over {format_bytes(max_file_bytes)}" if reason == "too large" else reason
        lines.append(f"left out, {label}: {list_some(names, _SHOWN)}")
    return lines


def _top(path: str) -> str:
    """Return the first folder of a path, or the file itself."""
    parts = PurePosixPath(path).parts
    return f"{parts[0]}/" if len(parts) > 1 else parts[0]
