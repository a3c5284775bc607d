"""Remote addresses, without a server: what is rejected, and what a pattern matches."""

import glob

import pytest

from cluster.errors import DataError
from trainer.data.sources.pattern import compile_glob
from trainer.data.sources.remote import without_options
from trainer.data.sources.source_files import find_source_files


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://AKIA:geheim@bucket/a.csv", "holds a secret"),
        ("s3://AKIA:ge/heim@bucket/a.csv", "holds a secret"),
        ("s3://bucket/a.csv?secret_key=geheim", "holds a secret"),
        ("hdfs://me:geheim@host/a.csv", "holds a secret"),
        ("https://me:geheim@host/a.csv", "https:// addresses are not supported"),
        ("s3://bucket/a.csv?regio=x", "no option 'regio'\n  fix: did you mean 'region'"),
        ("s3:///a.csv", "names no bucket"),
        ("s3://buck*/a.csv", "glob pattern in its bucket"),
        ("ftp://host/a.csv", r"ftp:// addresses are not supported"),
    ],
)
def test_addresses_that_are_rejected(given, message):
    with pytest.raises(DataError, match=message) as caught:
        find_source_files(given, "train")
    assert "geheim" not in str(caught.value) and "heim@" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_reported_at_once(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with pytest.raises(DataError, match="server cannot be reached") as caught:
        find_source_files("s3://bucket/a.csv?endpoint_override=127.0.0.1:9&scheme=http", "train")
    assert "\n" not in caught.value.problem


def test_options_are_distinguished_from_a_pattern():
    assert without_options("s3://b/part-?.csv?region=x&scheme=http") == "s3://b/part-?.csv"
    assert without_options("s3://b/part-?.csv") == "s3://b/part-?.csv"
    assert without_options("/local/what?a=b") == "/local/what?a=b"


@pytest.mark.parametrize(
    "pattern",
    ["*.csv", "a/*.csv", "**/*.csv", "a/**/*.csv", "*/b/?.csv", "[ab]/*", "a/[!b]*", "a/.h*", "**", "[z-a]*", "x[.c"],
)
def test_patterns_match_what_glob_matches(tmp_path, pattern):
    names = ["x.csv", "a/x.csv", "a/b/x.csv", "a/b/c/y.csv", "a/.h.csv", ".d/x.csv", "b/z.txt", "a/b/xy.csv"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    expected = {name for name in glob.glob(pattern, root_dir=tmp_path, recursive=True) if (tmp_path / name).is_file()}
    matches = compile_glob(pattern.split("/")).fullmatch
    assert {name for name in names if matches(name)} == expected
