"""Rows in a bucket of a real S3 server on this machine."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from cluster.ports import free_port
from trainer.data.readers.read import BLOCK_ROWS, read_blocks
from trainer.data.sources import source_files
from trainer.data.sources.source_file import SourceFile

COLUMNS = {"text": "body", "label": "kind"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def options() -> Iterator[str]:
    """Start an S3 server; yield the query string that points an address to it."""
    port = free_port()
    program = Path(sys.executable).with_name("moto_server")
    server = subprocess.Popen([program, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/data.json", server)
        yield f"?endpoint_override=127.0.0.1:{port}&scheme=http"
    finally:
        server.terminate()
        server.wait(timeout=20)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _wait_for(url: str, server: subprocess.Popen[bytes], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            continue
    raise AssertionError(f"no answer from {url}; the server's exit code: {server.poll()}")


@pytest.fixture(scope="module")
def bucket(options: str) -> str:
    """A bucket with rows in every format; returns the query string of its server."""
    endpoint = options.split("=")[1].split("&")[0]
    system = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", allow_bucket_creation=True)
    system.create_dir("rows")
    table = pa.table({"body": [f"text {n}" for n in range(40_000)], "kind": ["x", "y"] * 20_000})
    lines = "".join(json.dumps(row) + "\n" for row in table.slice(0, 5).to_pylist()).encode()
    for name, content in {
        "csv/part-1.csv": b"body,kind\na,x\nb,y\n",
        "csv/part-2.csv": b"body,kind\nc,x\n",
        "csv/other.txt": b"no rows",
        "csv/deep/part-3.csv": b"body,kind\nd,x\n",
        "rows.jsonl.gz": gzip.compress(lines),
        "cut.csv.gz": gzip.compress(b"body,kind\n" + b"a,b\n" * 9)[:-9],
        "empty.csv": b"",
        "bare/a.md": b"no rows",
        "by [kind]/kind=x%2F/part-1.csv": b"body\ne\n",
        "by [kind]/kind=y/part-2.csv": b"body\nf\n",
        "by [kind]/_SUCCESS": b"",
        "texts/pos/a.txt": b"good",
        "texts/neg/a.txt": b"bad",
    }.items():
        with system.open_output_stream(f"rows/{name}", compression=None) as sink:
            sink.write(content)
    pq.write_table(table, "rows/rows.parquet", filesystem=system, row_group_size=7000)
    with system.open_output_stream("rows/rows.arrow") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.slice(0, 3))
    return options


def read(address: str, options: str, file_format: str = "auto") -> list[dict[str, object]]:
    """Return the rows, read as in a Ray worker, which gets each file as a dict."""
    rows = []
    for file in source_files.find_source_files(address + options, "train", file_format):
        for block in read_blocks(SourceFile(**json.loads(json.dumps(file._asdict()))), COLUMNS):
            rows += block.to_pylist()
    return rows


def test_files_patterns_and_formats(bucket: str) -> None:
    assert [row["text"] for row in read("s3://rows/csv/part-?.csv", bucket)] == ["a", "b", "c"]
    assert [row["text"] for row in read("s3://rows/**/part-*.csv", bucket)] == ["e", "f", "d", "a", "b", "c"]
    assert [row["text"] for row in read("s3://rows/rows.jsonl.gz", bucket)] == [f"text {n}" for n in range(5)]
    assert [row["label"] for row in read("s3://rows/rows.arrow", bucket)] == ["x", "y", "x"]
    for folder in ("s3://rows/csv", "s3://rows/csv/"):
        assert [row["text"] for row in read(folder, bucket)] == ["d", "a", "b", "c"]
    for address in ("s3://rows/by [kind]", "s3://rows/by [kind]/*/part-?.csv"):
        assert [(row["text"], row["label"]) for row in read(address, bucket)] == [("e", "x/"), ("f", "y")]
    [beside] = source_files.list_left_out(f"s3://rows/by [kind]{bucket}", "train")
    assert beside.relative == "_SUCCESS"
    [file] = source_files.find_source_files(f"s3://rows/rows.parquet{bucket}", "train")
    assert [len(block) for block in read_blocks(file, COLUMNS)] == [BLOCK_ROWS, BLOCK_ROWS, 40_000 - 2 * BLOCK_ROWS]


def test_a_folder_of_texts(bucket: str) -> None:
    rows = read("s3://rows/texts", bucket, "text")
    assert [(row["text"], row["label"], row["path"]) for row in rows] == [
        ("bad", "neg", "s3://rows/texts/neg/a.txt"),
        ("good", "pos", "s3://rows/texts/pos/a.txt"),
    ]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://rows/csv/part-9.csv", r"no such file \(did you mean 'part-[12].csv'"),
        ("s3://rows/csv/*.jsonl", "matches no file"),
        ("s3://rows/bare", r"is a folder without rows that raymill reads \(1 with .md\)"),
        ("s3://rows/csv/other.txt", "has the extension '.txt'"),
        ("s3://rows/empty.csv", "is empty"),
        ("s3://rows/cut.csv.gz", "is not a complete gzip file"),
        ("s3://nowhere/a.csv", "no such (bucket|file)"),
        ("s3://nowhere/*.csv", "no such bucket|matches no file"),
    ],
)
def test_errors_have_one_line(bucket: str, address: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(address, bucket)
    assert "\n" not in caught.value.problem


def test_the_digest_depends_on_address_size_and_time(bucket: str) -> None:
    one, two = (
        source_files.digest_files(source_files.find_source_files(f"s3://rows/csv/part-{n}.csv{bucket}", "train"))
        for n in (1, 2)
    )
    again = source_files.digest_files(source_files.find_source_files(f"s3://rows/csv/part-1.csv{bucket}", "train"))
    assert one == again != two


def test_a_file_that_is_deleted_after_it_was_listed(bucket: str) -> None:
    endpoint = bucket.split("=")[1].split("&")[0]
    system = fs.S3FileSystem(endpoint_override=endpoint, scheme="http")
    for name in ("gone.csv", "gone.parquet"):
        with system.open_output_stream(f"rows/{name}", compression=None) as sink:
            sink.write(b"body,kind\na,x\n")
        [file] = source_files.find_source_files(f"s3://rows/{name}{bucket}", "train")
        system.delete_file(f"rows/{name}")
        with pytest.raises(DataError, match="there is no such file"):
            list(read_blocks(file, COLUMNS))


def test_an_unknown_key_is_refused_in_one_line(bucket: str) -> None:
    _check_credentials_after(bucket, 0)
    try:
        with pytest.raises(DataError, match="access is denied") as caught:
            read("s3://rows/csv/part-1.csv", bucket)
        assert "\n" not in caught.value.problem
    finally:
        _check_credentials_after(bucket, 1_000_000)


def _check_credentials_after(options: str, n_requests: int) -> None:
    """Let the server accept any key for `n_requests` requests."""
    url = f"http://{options.split('=')[1].split('&')[0]}/moto-api/reset-auth"
    request = urllib.request.Request(url, str(n_requests).encode(), {"Content-Type": "text/plain"}, method="POST")
    urllib.request.urlopen(request, timeout=10).close()
