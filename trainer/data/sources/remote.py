"""Files at s3://, gs:// and hdfs:// addresses, through pyarrow's file systems.

Options stand behind the address, as `s3://bucket/part-*.csv?endpoint_override=host:9000&scheme=http`. Credentials never
do: they come from where the provider's own tools look (environment, configuration files, the machine's role).
"""

from __future__ import annotations

import functools
import glob
import os
import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.fs as fs

from cluster.errors import DataError, nearest
from trainer.data.sources import pattern as source_pattern

_OPTIONS = {
    "s3": ("region", "scheme", "endpoint_override", "anonymous"),
    "gs": ("scheme", "endpoint_override", "anonymous", "project_id"),
    "hdfs": ("user",),
}
# A `?` is also a glob's sign for one character; options begin with a word and `=`.
_QUERY = re.compile(r"\?(?=[A-Za-z_]+=)(?!.*\?[A-Za-z_]+=)")
_SECRET = re.compile(r"key|secret|token|pass|credential|signature", re.IGNORECASE)
# Also one that `_QUERY` does not take for an option, as X-Amz-Signature of a signed address.
_SECRET_OPTION = re.compile(rf"[?&][^?&=/]*(?:{_SECRET.pattern})[^?&=/]*=", re.IGNORECASE)
_ATTEMPTS, _CONNECT_S, _REQUEST_S = 2, 5, 30
_RETRY_S = 5


class Found(NamedTuple):
    """One remote file."""

    path: str
    """Its address with the options."""
    size: int
    """Bytes."""


def is_remote(path: str) -> bool:
    """Whether `path` is an address rather than a local path."""
    return "://" in path


def check(given: str, part: str) -> None:
    """Raise `DataError` for an address that is wrong or holds a secret; nothing is connected to."""
    _address(given, f"data.{part}")


def without_options(path: str) -> str:
    """Return the address without `?option=value`; a local path comes back as it is."""
    return _QUERY.split(path)[0] if is_remote(path) else path


def expand(pattern: str, part: str, *, folder: str | None = None) -> list[Found]:
    """Return the files that an address or a pattern names, sorted; with `folder`, a folder's format, the one folder.

    Raises `DataError` if there is none, or the file system says no.
    """
    where = _address(pattern, f"data.{part}")
    system = filesystem(pattern, f"data.{part}")
    try:
        [info] = system.get_file_info([where.path])
        if info.type == fs.FileType.Directory:
            if folder:
                return [Found(pattern, 0)]
            raise DataError(
                f"data.{part}={pattern!r} is a folder",
                f"name its files, as {where.shown(where.path.rstrip('/') + '/*.csv')}; where each file is a row, "
                "set data.format to text or images",
            )
        if info.type == fs.FileType.File:
            if folder:
                raise no_folder(pattern, folder, part)
            return [Found(pattern, info.size)]
        return _matching(system, where, pattern, part)
    except OSError as error:
        raise refused(pattern, error) from error


def no_folder(path: str, kind: str, part: str) -> DataError:
    """Return the error for a file where `data.format`=`kind` wants a folder."""
    return DataError(
        f"data.format={kind} goes with a folder whose files are the rows, but data.{part} names the file {path}",
        "name the folder that holds a folder for each class",
    )


def stamp(path: str) -> str:
    """Return what tells one state of a remote file from another: its address, size and time of change."""
    where = _address(path, path)
    try:
        [info] = filesystem(path, path).get_file_info([where.path])
    except OSError as error:
        raise refused(path, error) from error
    return f"{without_options(path)} {info.size} {info.mtime_ns}"


def inside(folder: str) -> list[tuple[str, str, str]]:
    """Return (relative path, address, stamp) of all files below a remote folder."""
    where = _address(folder, folder)
    root = where.path.rstrip("/") + "/"
    try:
        infos = filesystem(folder, folder).get_file_info(fs.FileSelector(where.path, recursive=True))
    except OSError as error:
        raise refused(folder, error) from error
    return [
        (info.path.removeprefix(root), where.shown(info.path), f"{info.size} {info.mtime_ns}")
        for info in infos
        if info.type == fs.FileType.File
    ]


def open_stream(path: str) -> pa.NativeFile:
    """Return the raw bytes of a remote file, to be read from the beginning. Raises `DataError`."""
    try:
        return filesystem(path, path).open_input_stream(_address(path, path).path, compression=None)
    except OSError as error:
        raise refused(path, error) from error


def open_file(path: str) -> pa.NativeFile:
    """Return a remote file that can be read from any place. Raises `DataError`."""
    try:
        return filesystem(path, path).open_input_file(_address(path, path).path)
    except OSError as error:
        raise refused(path, error) from error


def filesystem(path: str, what: str) -> fs.FileSystem:
    """Return the file system of an address; `what` names the address in messages. Raises `DataError`."""
    where = _address(path, what)
    bucket = where.path.split("/")[0]
    try:
        return _connected(where.scheme, bucket if where.scheme == "s3" else where.host, where.options)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise refused(path, error) from error


def refused(path: str, error: BaseException) -> DataError:
    """Return the one-line error for what a file system said about `path`."""
    said = " ".join(str(error).splitlines()[:1])
    for sign, problem, fix in _KNOWN_ANSWERS:
        if re.search(sign, said, re.IGNORECASE):
            return DataError(f"{path}: {problem}", fix)
    return DataError(f"{path} cannot be read: {said[:300]}", "check the address, the network and your rights")


_KNOWN_ANSWERS = [
    (r"NO_SUCH_BUCKET|bucket .*(not found|does not exist)", "there is no such bucket", "correct the bucket's name"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|HTTP status 40[13]|PERMISSION_DENIED",
        "access is denied",
        "give credentials through the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role), or ask for the right to read",
    ),
    (
        r"HTTP status 301|PERMANENT_REDIRECT",
        "the bucket is in another region",
        "add its region to the address: ?region=eu-central-1",
    ),
    (
        r"access token|OAuth2|default credentials",
        "there are no Google credentials, or they cannot be fetched",
        "run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or add ?anonymous=true",
    ),
    (
        r"NETWORK_CONNECTION|UNAVAILABLE|Could not resolve|Could not connect|timed? ?out",
        "the server cannot be reached",
        "check the network, the address and its endpoint_override",
    ),
    (
        r"libjvm|libhdfs",
        "hdfs:// needs Hadoop's client libraries on each node",
        "install Java and Hadoop and set JAVA_HOME, HADOOP_HOME and CLASSPATH, or copy the file elsewhere",
    ),
    (r"not found|NO_SUCH_KEY|RESOURCE_NOT_FOUND|Path does not exist", "there is no such file", "correct the address"),
]


class _Address(NamedTuple):
    scheme: str
    host: str
    """hdfs: host and port; else empty."""
    path: str
    """As the file system takes it: bucket/key, or /path on hdfs."""
    options: tuple[tuple[str, str], ...]
    query: str

    def shown(self, path: str) -> str:
        """Return the address of another path in the same file system."""
        return f"{self.scheme}://{self.host}{path}" + (f"?{self.query}" if self.query else "")


def _address(given: str, what: str) -> _Address:
    scheme, _, rest = given.partition("://")
    if scheme not in _OPTIONS:
        fix = "download it first" if scheme in ("http", "https", "ftp") else "copy it to a folder that every node sees"
        raise DataError(f"{what}: {scheme}:// addresses are not read", f"use s3://, gs://, hdfs:// or hf://, or {fix}")
    plain, *after = _QUERY.split(rest, maxsplit=1)
    query = after[0] if after else ""
    options = tuple(parse_qsl(query, keep_blank_values=True))
    authority, slash, below = plain.partition("/")
    user, at, host = authority.rpartition("@")
    # The given text must not be shown: it holds a secret.
    in_front = ":" in user if scheme == "hdfs" else at or ":" in authority
    inside = any(_SECRET.search(name) or re.search(r":.*@", value) for name, value in options)
    if in_front or inside or _SECRET_OPTION.search(rest):
        raise DataError(
            f"{what} holds a secret in its {scheme}:// address",
            "take it out: credentials come from the environment (as AWS_ACCESS_KEY_ID), a profile or the machine's role",
        )
    for name, _ in options:
        if name not in _OPTIONS[scheme]:
            raise DataError(f"{what}={given!r}: {scheme}:// takes no option '{name}'", nearest(name, _OPTIONS[scheme]))
    if not host and scheme != "hdfs":
        raise DataError(f"{what}={given!r} names no bucket", f"write {scheme}://BUCKET/PATH")
    if glob.has_magic(host):
        raise DataError(f"{what}={given!r} has a pattern for its bucket", "name the bucket")
    if scheme == "hdfs":
        return _Address(scheme, authority, "/" + below, options, query)
    return _Address(scheme, "", f"{host}{slash}{below}", options, query)


@functools.lru_cache(maxsize=16)
def _connected(scheme: str, where: str, options: tuple[tuple[str, str], ...]) -> fs.FileSystem:
    given: dict[str, Any] = dict(options)
    given["anonymous"] = given.get("anonymous", "false").lower() in ("true", "1")
    if scheme == "s3":
        # pyarrow's own reading of addresses has no limits on time: an address that nobody answers took minutes.
        return fs.S3FileSystem(
            **{**given, "region": given.get("region") or _region(where, given)},
            connect_timeout=_CONNECT_S,
            request_timeout=_REQUEST_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        )
    if scheme == "gs":
        return fs.GcsFileSystem(**given, retry_time_limit=timedelta(seconds=_RETRY_S))
    user = f"?user={given['user']}" if "user" in given else ""
    return fs.HadoopFileSystem.from_uri(f"hdfs://{where or 'default'}/{user}")


def _region(bucket: str, given: dict[str, Any]) -> str | None:
    told = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if "endpoint_override" in given or any(os.environ.get(name) for name in told):
        return None
    region: str = fs.resolve_s3_region(bucket)
    return region


def _matching(system: fs.FileSystem, where: _Address, pattern: str, part: str) -> list[Found]:
    name = PurePosixPath(where.path)
    if not glob.has_magic(where.path):
        beside = _listed(system, str(name.parent), recursive=False)
        names = [PurePosixPath(info.path).name for info in beside]
        hint = f" ({nearest(name.name, names)})" if 0 < len(names) <= 50 else ""
        raise DataError(f"data.{part}={pattern!r}: there is no such file{hint}", "correct the address")
    parts = where.path.split("/")
    fixed = next(at for at, piece in enumerate(parts) if glob.has_magic(piece))
    matches = source_pattern.compiled(parts).fullmatch
    infos = _listed(system, "/".join(parts[:fixed]) or "/", recursive=fixed < len(parts) - 1 or "**" in parts)
    found = [info for info in infos if info.type == fs.FileType.File and matches(info.path)]
    if not found:
        raise DataError(f"data.{part}={pattern!r} matches no file", "correct the pattern")
    return [Found(where.shown(info.path), info.size) for info in sorted(found, key=lambda info: info.path)]


def _listed(system: fs.FileSystem, folder: str, *, recursive: bool) -> list[fs.FileInfo]:
    infos: list[fs.FileInfo] = system.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=recursive))
    return infos
