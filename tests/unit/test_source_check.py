"""Checks of the sources in a spec, before anything is written or connected to."""

import traceback

import pytest

from cluster.errors import DataError
from trainer.data.sources.source_files import check_source, find_source_files
from trainer.spec.data import QuerySpec

UNREACHABLE = "s3://bucket/part-*.csv?endpoint_override=127.0.0.1:9&scheme=http"


@pytest.mark.parametrize(
    "given",
    [
        "s3://AKIA:geheim@bucket/a.csv",
        "s3://geheim@bucket/a.csv",
        "gs://bucket/a.csv?access_token=geheim",
        "gs://bucket/a.csv?secret%5Fkey=geheim",
        "hdfs://me:geheim@host/a.csv",
        "s3://bucket/a.csv?X-Amz-Signature=geheim",
        "s3://bucket/a.csv?session_token=geheim?region=x",
        "s3://bucket/a.csv?endpoint_override=http://me:geheim@host",
        "https://me:geheim@host/a.csv",
        "hf://me:geheim@org/name",
        "hf://geheim@org/name",
    ],
)
def test_a_secret_is_found_anywhere_in_a_list(tmp_path, given):
    (tmp_path / "a.csv").write_text("text,label\na,x\n")
    others = ["hf://org/name:config#split", UNREACHABLE, str(tmp_path / "a.csv")]
    for entries in (given, [given, *others], [*others, given], [given, "/not/there.csv"], ["/not/there.csv", given]):
        with pytest.raises(DataError, match="holds a secret|has an @|https:// addresses are not supported") as caught:
            check_source(entries, "test")
        shown = "".join(traceback.format_exception(caught.value))
        assert "geheim" not in shown.replace(repr(given), "") and "data.test" in str(caught.value)
        assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ftp://host/a.csv", "ftp:// addresses are not supported"),
        ("s3://", "names no bucket"),
        ("hf://", "is not a valid name on the hub"),
        ("hf://name:", "is not a valid name on the hub"),
        ([], "names no file"),
        (QuerySpec(url="postgresql://me:geheim@host/db", query="select 1"), "holds a password"),
        (QuerySpec(url="env:NOT_THERE_AT_ALL", query="select 1"), "environment variable NOT_THERE_AT_ALL is not set"),
    ],
)
def test_sources_that_are_wrong(given, message):
    with pytest.raises(DataError, match=message):
        check_source(given, "train")


def test_a_missing_local_file_gets_the_same_error_as_when_files_are_listed(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    for name in ("trian.csv", "*.jsonl", "sub/a.csv", "n" * 300):
        path = str(tmp_path / name)
        with pytest.raises(DataError) as caught:
            check_source(["hf://org/name", path], "train")
        with pytest.raises(DataError) as when_listed:
            find_source_files(path, "train")
        assert str(caught.value) == str(when_listed.value)


def test_a_correct_source_is_neither_read_nor_connected_to(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")  # an empty file is an error only when files are listed
    folder = tmp_path / "a@b"
    folder.mkdir()
    sources = [
        "hf://nobody/nothing",
        f"hf://{folder}",
        UNREACHABLE,
        "gs://bucket/**/x.parquet",
        "hdfs://host:9000/a.csv",
    ]
    check_source([*sources, str(tmp_path / "a.csv"), str(tmp_path / "*.csv"), str(tmp_path)], "train")
    check_source(str(tmp_path / "a.csv"), "train")
