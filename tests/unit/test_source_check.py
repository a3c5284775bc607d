"""What a spec's `data` names, checked before anything is written or connected to."""

import traceback

import pytest

from cluster.errors import DataError
from trainer.data.sources import resolve
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
def test_a_secret_is_found_wherever_it_stands_in_a_list(tmp_path, given):
    (tmp_path / "a.csv").write_text("text,label\na,x\n")
    others = ["hf://org/name:config#split", UNREACHABLE, str(tmp_path / "a.csv")]
    for entries in (given, [given, *others], [*others, given], [given, "/not/there.csv"], ["/not/there.csv", given]):
        with pytest.raises(DataError, match="holds a secret|has an @|https:// addresses are not supported") as caught:
            resolve.check_source(entries, "test")
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
        (QuerySpec(url="env:NOT_THERE_AT_ALL", query="select 1"), "no environment variable NOT_THERE_AT_ALL"),
    ],
)
def test_what_is_wrong_by_itself(given, message):
    with pytest.raises(DataError, match=message):
        resolve.check_source(given, "train")


def test_local_files_that_are_not_there_are_told_as_find_tells_it(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    for given in ("trian.csv", "*.jsonl", "sub/a.csv", "n" * 300):
        path = str(tmp_path / given)
        with pytest.raises(DataError) as caught:
            resolve.check_source(["hf://org/name", path], "train")
        with pytest.raises(DataError) as by_find:
            resolve.find_source_files(path, "train")
        assert str(caught.value) == str(by_find.value)


def test_what_is_right_is_neither_read_nor_connected_to(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")  # that it is empty is for `find` to say
    at = tmp_path / "a@b"
    at.mkdir()
    given = ["hf://nobody/nothing", f"hf://{at}", UNREACHABLE, "gs://bucket/**/x.parquet", "hdfs://host:9000/a.csv"]
    resolve.check_source([*given, str(tmp_path / "a.csv"), str(tmp_path / "*.csv"), str(tmp_path)], "train")
    resolve.check_source(str(tmp_path / "a.csv"), "train")
