"""Rows of a database, from SQLite files."""

import sqlite3
import traceback
from contextlib import closing

import pytest
import sqlalchemy

from cluster.errors import DataError, ResourceError
from trainer.data.readers.read import read_blocks
from trainer.data.sources.query import _query_error
from trainer.data.sources.source_files import digest_files, find_source_files
from trainer.spec.data import QuerySpec

COLUMNS = {"text": "body", "label": "kind"}
N_ROWS = 20_000


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("db") / "rows.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table rows (id integer, body text, kind integer, score real, late text)")
        late = [None] * 18_000 + ["x"] * 2000
        db.executemany(
            "insert into rows values (?, ?, ?, ?, ?)", [(n, f"text {n}", n % 3, n / 2, late[n]) for n in range(N_ROWS)]
        )
        db.execute("create table mixed (body)")
        db.executemany("insert into mixed values (?)", [(1,)] * 17_000 + [("word",)])
        db.commit()
    return f"sqlite:///{path}"


def find(url, query, snapshots):
    [file] = find_source_files(QuerySpec(url=url, query=query), "train", snapshots=snapshots)
    return file


def test_rows_of_a_query(url, tmp_path):
    file = find(url, "select body, kind, score, late from rows where body like 'text%' order by id", tmp_path)
    blocks = list(read_blocks(file, {**COLUMNS, "group": "late", "time": "score"}, frozenset({"group", "time"})))
    assert sum(map(len, blocks)) == N_ROWS
    assert blocks[0].to_pylist()[1] == {
        "row": 2,
        "text": "text 1",
        "label": "1",
        "group": None,
        "time": "0.5",
        "reason": None,
    }
    assert blocks[1]["group"].to_pylist()[-1] == "x"


@pytest.mark.slow
def test_the_same_rows_give_the_same_file(url, tmp_path):
    first = find(url, "select body, kind from rows order by id", tmp_path)
    again = find(url, "select body, kind from rows where 1 = 1 order by id", tmp_path)
    other = find(url, "select body, kind from rows where id > 3 order by id", tmp_path)
    assert first.path == again.path != other.path
    assert len(list(tmp_path.iterdir())) == 2
    assert digest_files([first]) == digest_files([again])


def test_a_url_from_the_environment(url, tmp_path, monkeypatch):
    monkeypatch.setenv("ROWS_URL", url)
    assert (
        next(read_blocks(find("env:ROWS_URL", "select body, kind from rows limit 1", tmp_path), COLUMNS)).num_rows == 1
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select absent from rows", "failed at sqlite: no such column: absent"),
        ("selec", "syntax error"),
        ("select body from rows where 1 = 0", "returns no rows"),
        ("update rows set kind = 9", "returns no rows"),
        ("select body, body from rows", "2 columns called 'body'"),
        ("select body from mixed", r"starts as int64, but rows(.|\n)*CAST"),
        ("select 1 as body union all select 'a'", r"mixes types of values(.|\n)*CAST"),
    ],
)
def test_queries_that_fail(url, tmp_path, query, message):
    with pytest.raises(DataError, match=message):
        find(url, query, tmp_path)
    assert not list(tmp_path.iterdir())
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
        assert db.execute("select max(kind) from rows").fetchone() == (2,)  # changes are rolled back


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("postgresql://me:geheim@host/db", "holds a password"),
        ("postgresql://me@host/db?password=geheim", "holds a password"),
        ("mssql+pyodbc://?odbc_connect=PWD%3Dgeheim", "holds a password"),
        ("env:NOT_THERE_AT_ALL", "environment variable NOT_THERE_AT_ALL is not set"),
        ("env:postgresql://me:geheim@host/db", "names no environment variable"),
        ("geheim", "is not a valid database URL"),
        ("nosuch://host/db", "failed at nosuch"),
        ("sqlite:////no/such/file.db", "there is no file /no/such/file.db"),
    ],
)
def test_urls_that_are_rejected_without_being_shown(tmp_path, given, message):
    with pytest.raises(DataError, match=message) as caught:
        find(given, "select 1", tmp_path)
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_a_drivers_message_is_shown_without_the_password():
    url = sqlalchemy.make_url("postgresql://me:ge%2Fheim@host/db?sslpassword=anderes")
    error = RuntimeError("cannot connect to postgresql://me:ge%2Fheim@host with ge/heim and anderes\nmore")
    shown = str(_query_error("the query", error, url))
    assert "failed at postgresql: cannot connect to postgresql://me:***@host with *** and ***\n  fix" in shown


def test_snapshots_need_a_folder_that_can_be_written(url, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        find(url, "select body, kind from rows", tmp_path / "file")
    with pytest.raises(DataError, match="can only be read for a run"):
        find_source_files(QuerySpec(url=url, query="select 1"), "train")
