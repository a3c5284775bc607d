"""Files at s3://, gs:// and hdfs:// addresses, through pyarrow's file systems.

Options follow the address, for example `s3://bucket/part-*.csv?endpoint_override=host:9000&scheme=http`. An address
never holds credentials: they come from where the provider's own tools look (environment, configuration files, the
machine's role).
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

from cluster.errors import DataError, suggest
from trainer.data.sources.pattern import compile_glob

_OPTIONS = {
    "s3": ("region", "scheme", "endpoint_override", "anonymous"),
    "gs": ("scheme", "endpoint_override", "anonymous", "project_id"),
    "hdfs": ("user",),
}
# In a glob, `?` stands for one character; options begin with a word and `=`.
_QUERY = re.compile(r"\?(?=[A-Za-z_]+=)(?!.*\?[A-Za-z_]+=)")
_SECRET = re.compile(r"key|secret|token|pass|credential|signature", re.IGNORECASE)
# Also matches options that `_QUERY` does not recognize, for example X-Amz-Signature of a signed address.
_SECRET_OPTION = re.compile(rf"[?&][^?&=/]*(?:{_SECRET.pattern})[^?&=/]*=", re.IGNORECASE)
_ATTEMPTS, _CONNECT_S, _REQUEST_S = 2, 5, 30
_RETRY_S = 5


class RemoteFile(NamedTuple):
    """A file in an object store or on HDFS."""

    path: str
    """Address with its options."""
    size: int
    """Size in bytes."""
    is_folder: bool = False
    """Whether the address names a folder."""


def is_remote(path: str) -> bool:
    """Whether `path` is an address rather than a local path."""
    return "://" in path


def check_address(address: str, part: str) -> None:
    """Raise `DataError` for an address that is wrong or holds a secret. Does not connect."""
    _parse_address(address, f"data.{part}")


def without_options(path: str) -> str:
    """Return the address without `?option=value`; a local path is returned unchanged."""
    return _QUERY.split(path)[0] if is_remote(path) else path


def list_remote_files(pattern: str, part: str, *, folder_format: str | None = None) -> list[RemoteFile]:
    """Return the files that an address or a glob names, sorted by path.

    A folder is returned as itself. With `folder_format` (text or images: each file is a row), the address must name
    one. Raises `DataError` if no file matches or the file system reports an error.
    """
    address = _parse_address(pattern, f"data.{part}")
    system = connect_filesystem(pattern, f"data.{part}")
    try:
        [info] = system.get_file_info([address.path])
        if info.type == fs.FileType.Directory:
            return [RemoteFile(pattern, 0, is_folder=True)]
        if info.type == fs.FileType.File:
            if folder_format:
                raise not_a_folder_error(pattern, folder_format, part)
            return [RemoteFile(pattern, info.size)]
        return _match_files(system, address, pattern, part)
    except OSError as error:
        raise remote_error(pattern, error) from error


def not_a_folder_error(path: str, folder_format: str, part: str) -> DataError:
    """Return the error for a file where `data.format` needs a folder."""
    return DataError(
        f"data.format={folder_format} needs a folder whose files are the rows, but data.{part} names the file {path}",
        "name the folder that holds a subfolder for each class",
    )


def remote_stamp(path: str) -> str:
    """Return the address, size and modification time of a remote file, which differ when its content changes."""
    address = _parse_address(path, path)
    try:
        [info] = connect_filesystem(path, path).get_file_info([address.path])
    except OSError as error:
        raise remote_error(path, error) from error
    return f"{without_options(path)} {info.size} {info.mtime_ns}"


def list_remote_folder(folder: str) -> list[tuple[str, str, str]]:
    """Return (relative path, address, stamp) of all files below a remote folder."""
    address = _parse_address(folder, folder)
    root = address.path.rstrip("/") + "/"
    try:
        infos = connect_filesystem(folder, folder).get_file_info(fs.FileSelector(address.path, recursive=True))
    except OSError as error:
        raise remote_error(folder, error) from error
    return [
        (info.path.removeprefix(root), address.with_path(info.path), f"{info.size} {info.mtime_ns}")
        for info in infos
        if info.type == fs.FileType.File
    ]


def open_remote_stream(path: str) -> pa.NativeFile:
    """Open a remote file to read its raw bytes from the beginning. Raises `DataError`."""
    try:
        return connect_filesystem(path, path).open_input_stream(_parse_address(path, path).path, compression=None)
    except OSError as error:
        raise remote_error(path, error) from error


def open_remote_file(path: str) -> pa.NativeFile:
    """Open a remote file to read from any offset. Raises `DataError`."""
    try:
        return connect_filesystem(path, path).open_input_file(_parse_address(path, path).path)
    except OSError as error:
        raise remote_error(path, error) from error


def connect_filesystem(path: str, name: str) -> fs.FileSystem:
    """Return the file system of an address; messages call the address `name`. Raises `DataError`."""
    address = _parse_address(path, name)
    bucket = address.path.split("/")[0]
    try:
        return _connect(address.scheme, bucket if address.scheme == "s3" else address.host, address.options)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise remote_error(path, error) from error


def remote_error(path: str, error: BaseException) -> DataError:
    """Return the one-line error for a file system's error about `path`."""
    message = " ".join(str(error).splitlines()[:1])
    for pattern, problem, fix in _KNOWN_ERRORS:
        if re.search(pattern, message, re.IGNORECASE):
            return DataError(f"{path}: {problem}", fix)
    return DataError(f"{path} cannot be read: {message[:300]}", "check the address, the network and your access rights")


#: (pattern of a file system's message, problem, fix); the first that matches is shown.
_KNOWN_ERRORS = [
    (r"NO_SUCH_BUCKET|bucket .*(not found|does not exist)", "there is no such bucket", "correct the bucket's name"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|HTTP status 40[13]|PERMISSION_DENIED",
        "access is denied",
        "give credentials through the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role), or ask for read access",
    ),
    (
        r"HTTP status 301|PERMANENT_REDIRECT",
        "the bucket is in another region",
        "add the bucket's region to the address: ?region=eu-central-1",
    ),
    (
        r"access token|OAuth2|default credentials",
        "there are no Google credentials, or they cannot be fetched",
        "run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, or add ?anonymous=true",
    ),
    (
        r"NETWORK_CONNECTION|UNAVAILABLE|Could not resolve|Could not connect|timed? ?out",
        "the server cannot be reached",
        "check the network, the address and its option `endpoint_override`",
    ),
    (
        r"libjvm|libhdfs",
        "hdfs:// needs Hadoop's client libraries on each node",
        "install Java and Hadoop and set JAVA_HOME, HADOOP_HOME and CLASSPATH, "
        "or copy the file to a folder that every node sees",
    ),
    (r"not found|NO_SUCH_KEY|RESOURCE_NOT_FOUND|Path does not exist", "there is no such file", "correct the address"),
]


class _Address(NamedTuple):
    scheme: str
    host: str
    """Host and port on hdfs; empty for other schemes."""
    path: str
    """Path in the file system: bucket/key, or /path on hdfs."""
    options: tuple[tuple[str, str], ...]
    query: str

    def with_path(self, path: str) -> str:
        """Return the address of another path in the same file system."""
        return f"{self.scheme}://{self.host}{path}" + (f"?{self.query}" if self.query else "")


def _parse_address(text: str, name: str) -> _Address:
    """Return the parts of an address; messages call it `name`. Raises `DataError` if it is wrong or holds a secret."""
    scheme, _, rest = text.partition("://")
    if scheme not in _OPTIONS:
        fix = "download it first" if scheme in ("http", "https", "ftp") else "copy it to a folder that every node sees"
        raise DataError(
            f"{name}: {scheme}:// addresses are not supported", f"use s3://, gs://, hdfs:// or hf://, or {fix}"
        )
    plain, *after = _QUERY.split(rest, maxsplit=1)
    query = after[0] if after else ""
    options = tuple(parse_qsl(query, keep_blank_values=True))
    authority, slash, below = plain.partition("/")
    host = authority.rpartition("@")[2]
    if _holds_secret(scheme, authority, options) or _SECRET_OPTION.search(rest):
        raise DataError(  # does not show the address: it holds the secret
            f"{name} holds a secret in its {scheme}:// address",
            "remove the secret: credentials come from the environment (AWS_ACCESS_KEY_ID ...), a profile or the "
            "machine's role",
        )
    for option, _ in options:
        if option not in _OPTIONS[scheme]:
            raise DataError(
                f"{name}={text!r}: {scheme}:// takes no option '{option}'", suggest(option, _OPTIONS[scheme])
            )
    if not host and scheme != "hdfs":
        raise DataError(f"{name}={text!r} names no bucket", f"write {scheme}://BUCKET/PATH")
    if glob.has_magic(host):
        raise DataError(f"{name}={text!r} has a glob pattern in its bucket", "write the bucket's full name")
    if scheme == "hdfs":
        return _Address(scheme, authority, "/" + below.rstrip("/"), options, query)
    return _Address(scheme, "", f"{host}{slash}{below}".rstrip("/"), options, query)


def _holds_secret(scheme: str, authority: str, options: tuple[tuple[str, str], ...]) -> bool:
    """Whether the address has a password before its host, or an option that looks like a secret."""
    user, at_sign, _ = authority.rpartition("@")
    in_authority = ":" in user if scheme == "hdfs" else bool(at_sign) or ":" in authority
    return in_authority or any(_SECRET.search(name) or re.search(r":.*@", value) for name, value in options)


@functools.lru_cache(maxsize=16)
def _connect(scheme: str, host: str, options: tuple[tuple[str, str], ...]) -> fs.FileSystem:
    arguments: dict[str, Any] = dict(options)
    arguments["anonymous"] = arguments.get("anonymous", "false").lower() in ("true", "1")
    if scheme == "s3":
        # pyarrow's `from_uri` sets no time limits: an address that does not answer would take minutes.
        return fs.S3FileSystem(
            **{**arguments, "region": arguments.get("region") or _region(host, arguments)},
            connect_timeout=_CONNECT_S,
            request_timeout=_REQUEST_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        )
    if scheme == "gs":
        return fs.GcsFileSystem(**arguments, retry_time_limit=timedelta(seconds=_RETRY_S))
    user = f"?user={arguments['user']}" if "user" in arguments else ""
    return fs.HadoopFileSystem.from_uri(f"hdfs://{host or 'default'}/{user}")


def _region(bucket: str, arguments: dict[str, Any]) -> str | None:
    """Return the bucket's region, or None if the address or the environment sets the region or the endpoint."""
    variables = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if "endpoint_override" in arguments or any(os.environ.get(name) for name in variables):
        return None
    region: str = fs.resolve_s3_region(bucket)
    return region


def _match_files(system: fs.FileSystem, address: _Address, pattern: str, part: str) -> list[RemoteFile]:
    """Return the files that a glob matches. Raises `DataError` if there are none."""
    if not glob.has_magic(address.path):
        path = PurePosixPath(address.path)
        siblings = [PurePosixPath(info.path).name for info in _list(system, str(path.parent), recursive=False)]
        hint = f" ({suggest(path.name, siblings)})" if 0 < len(siblings) <= 50 else ""
        raise DataError(f"data.{part}={pattern!r}: there is no such file{hint}", "correct the address")
    parts = address.path.split("/")
    escaped, n_fixed = _escape_folders(system, parts)
    matches = compile_glob(escaped).fullmatch
    infos = _list(system, "/".join(parts[:n_fixed]) or "/", recursive=n_fixed < len(parts) - 1 or "**" in parts)
    files = [info for info in infos if info.type == fs.FileType.File and matches(info.path)]
    if not files:
        raise DataError(f"data.{part}={pattern!r} matches no file", "correct the pattern")
    return [RemoteFile(address.with_path(info.path), info.size) for info in sorted(files, key=lambda info: info.path)]


def _escape_folders(system: fs.FileSystem, parts: list[str]) -> tuple[list[str], int]:
    """Return the parts of a pattern with folders that exist as names, not patterns, and the index of the first pattern.

    The same rule as in `local_pattern`: a name that exists is that name.
    """
    escaped = list(parts)
    for index, part in enumerate(parts[:-1]):
        if glob.has_magic(part):
            [info] = system.get_file_info(["/".join(parts[: index + 1])])
            if info.type != fs.FileType.Directory:
                return escaped, index
            escaped[index] = glob.escape(part)
    return escaped, len(parts) - 1


def _list(system: fs.FileSystem, folder: str, *, recursive: bool) -> list[fs.FileInfo]:
    infos: list[fs.FileInfo] = system.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=recursive))
    return infos
